"""The client apart from the network: answers that cannot be understood deny, obligations are met or the end is a denial."""

import subprocess
import sys

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.client import (
    AssertedPerson,
    Context,
    Denied,
    DeniedError,
    DropRecords,
    Entity,
    LimitRecords,
    MaskFields,
    MethodCall,
    Outcome,
    Permit,
    RedactFields,
    Released,
    Token,
    duties,
    wire,
)
from sidecar.client.connection import Target, attempts
from sidecar.client.course import Course, declared

pytestmark = pytest.mark.unit
ALL = ("redact_fields", "mask_fields", "drop_records", "limit_records")


def permitted(*obligations, **changes):
    found = pb.CheckResponse(decision=pb.DECISION_PERMIT, call_id="c1", obligations=obligations)
    found.expires_at.seconds = found.report_by.seconds = 1_795_000_000
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def test_it_loads_nothing_else_of_the_sidecar():
    code = "import sys, sidecar.client; print(*sorted(m for m in sys.modules if m.startswith('sidecar')))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert all(one == "sidecar" or one.startswith(("sidecar.client", "sidecar.api")) for one in loaded), loaded


def test_a_permit_is_true_and_a_denial_is_not():
    assert wire.decision(permitted(), b"m", ())
    assert not wire.failed(14, "gone")
    assert wire.decision(permitted(), b"m", ()).forward == b"m"


UNKNOWN_PART = b"\xc2\x3e\x01x"
UNINTELLIGIBLE = {
    "no decision": pb.CheckResponse(call_id="c1"),
    "a decision of a later version": permitted(decision=4),
    "a permit without a call": permitted(call_id=""),
    "a permit with an error": permitted(code=7),
    "a permit without an end": pb.CheckResponse(decision=pb.DECISION_PERMIT, call_id="c1"),
    "an empty obligation": permitted(pb.Obligation()),
    "an obligation of a later version": permitted(pb.Obligation.FromString(UNKNOWN_PART)),
    "an obligation with a part of a later version": permitted(
        pb.Obligation(limit_records=pb.LimitRecords.FromString(b"\x08\x05" + UNKNOWN_PART))
    ),
    "records of a class that nobody knows": permitted(pb.Obligation(drop_records=pb.DropRecords(subjects=9))),
    "records of no class": permitted(pb.Obligation(drop_records=pb.DropRecords())),
}


@pytest.mark.parametrize("name", UNINTELLIGIBLE)
def test_an_answer_that_cannot_be_understood_is_a_denial(name):
    found = wire.decision(pb.CheckResponse.FromString(UNINTELLIGIBLE[name].SerializeToString()), b"m", ALL)
    assert isinstance(found, Denied)
    assert found.why == "unintelligible"


@given(st.binary(max_size=60))
def test_no_bytes_become_a_permit_by_accident(data):
    try:
        response = pb.CheckResponse.FromString(data)
    except DecodeError:
        return
    found = wire.decision(response, None, ALL)
    if found:
        assert response.decision == pb.DECISION_PERMIT
        assert response.call_id
        assert len(found.obligations) == len(response.obligations)


def test_an_obligation_that_was_not_declared_is_a_denial():
    response = permitted(
        pb.Obligation(limit_records=pb.LimitRecords(max=5)),
        pb.Obligation(mask_fields=pb.MaskFields(categories=["id_contact"])),
    )
    found = wire.decision(response, None, ("limit_records",))
    assert (found.why, found.call_id) == ("obligation", "c1")
    assert "mask_fields" in found.message
    assert wire.decision(response, None, ALL).obligations == (LimitRecords(5), MaskFields(("id_contact",)))
    with pytest.raises(ValueError, match="no such obligation"):
        declared(["limit_record"])


def test_denials_say_what_they_are():
    response = pb.CheckResponse(
        decision=pb.DECISION_DENY, call_id="c1", code=7, reasons=["person_location"], message="refused: person_location"
    )
    assert wire.decision(response, None, ()) == Denied(
        why="policy", message="refused: person_location", code=7, reasons=("person_location",), call_id="c1"
    )
    later = pb.CheckResponse(decision=pb.DECISION_INDETERMINATE, code=14)
    later.retry_after.FromMilliseconds(1500)
    assert wire.decision(later, None, ()).why == "indeterminate"
    assert wire.decision(later, None, ()).retry_after == 1.5
    assert wire.decision(pb.CheckResponse(decision=pb.DECISION_DENY, code=3), None, ()).why == "misuse"


def test_results_of_a_batch_that_are_not_those_of_its_items_deny_all():
    asked = [Entity("t", "read", ("1",)), MethodCall("/a.B/C", b"")]
    good = [pb.BatchResult(id="0", response=permitted()), pb.BatchResult(id="1", response=permitted(call_id="c2"))]
    assert [bool(one) for one in wire.batch(pb.BatchCheckResponse(results=good), asked, ())] == [True, True]
    for results in (good[::-1], good[:1], [*good, good[0]], [], [good[0], good[0]]):
        found = wire.batch(pb.BatchCheckResponse(results=results), asked, ())
        assert [one.why for one in found] == ["unintelligible"] * 2


def test_what_is_asked_stands_in_the_request():
    request = wire.check_request(Entity("profile", "read", ("1",)), Token("t.o.k"), Context(purpose="p", ticket="T-1"))
    assert (request.subject.token, request.subject.HasField("asserted_person")) == ("t.o.k", False)
    assert (request.context.purpose, request.context.ticket, request.question.answers) == ("p", "T-1", 1)
    request = wire.check_request(MethodCall("/a.B/C", b"", checked=True), AssertedPerson("uma"), Context())
    assert (request.subject.asserted_person, request.subject.HasField("token")) == ("uma", False)
    assert request.question.call.HasField("message")
    assert request.question.answers == pb.ANSWERS_CHECKED
    alone = wire.check_request(MethodCall("/a.B/C", None), None, Context())
    assert (alone.HasField("subject"), alone.question.call.HasField("message")) == (False, False)
    assert "t.o.k" not in repr(Token("t.o.k"))


def test_an_address_that_would_not_say_who_calls_is_refused():
    with pytest.raises(ValueError, match="TCP needs tls"):
        Target(address="localhost:8444")
    assert Target(address="unix:/run/x.sock").options()


def test_tries_end_with_the_deadline():
    now = 0.0
    found = list(attempts(0.25, lambda: now, lambda: 1.0))
    assert [one.pause for one in found] == [0.0, 0.005, 0.01, 0.02]
    assert all(one.pause + one.timeout <= 0.25 for one in found)
    ticks = iter([0.0, 0.1, 0.2499, 0.4, 0.5])
    assert len(list(attempts(0.25, lambda: next(ticks), lambda: 0.0))) == 1, "the second would begin too late"
    assert list(attempts(0.0, lambda: now, lambda: 1.0)) == []


# -- meeting obligations ---------------------------------------------------------------------------------------------

PEOPLE = [{"id": str(one)} for one in range(1, 6)]


def ids(found):
    return [one["id"] for one in found[0]]


def test_records_of_a_class_go_and_so_does_whoever_was_not_asked_about():
    drop = DropRecords("us", ("1", "4"))
    assert ids(duties.kept(PEOPLE, lambda one: one["id"], [drop], {"1", "2", "4", "5"})) == ["2", "5"]
    assert ids(duties.kept(PEOPLE, lambda one: one["id"], [], set())) == ["1", "2", "3", "4", "5"]


def test_the_limit_is_that_of_the_whole_call():
    assert duties.kept(PEOPLE, lambda one: one["id"], [LimitRecords(3), LimitRecords(4)], set(), 2) == ([PEOPLE[0]], 4)
    assert duties.kept(PEOPLE, lambda one: one["id"], [LimitRecords(0)], set())[0] == []


def test_fields_are_cleared_masked_or_kept_by_category():
    record = {
        "email": "amy@example.com",
        "phone": "+15551234567",
        "pin": "1234",
        "handle": "amy",
        "extra": 1,
        "age": 30,
    }
    categories = {
        "email": "id_contact",
        "phone": "id_network",
        "pin": "id_network",
        "handle": "public",
        "age": "id_network",
    }
    found, changed = duties.cleaned(record, categories, [RedactFields(("id_contact",)), MaskFields(("id_network",))])
    assert found == {"phone": "********4567", "pin": "****", "handle": "amy", "age": ""}
    assert changed == {"id_contact": 1, "id_network": 3, "unclassified": 1}
    assert duties.cleaned(record, {}, []) == (record, {})
    found, _ = duties.cleaned(record, categories, [RedactFields((), ("a.B.handle", "email"))])
    assert {"handle", "email"}.isdisjoint(found)


@given(st.text(max_size=30))
def test_a_mask_never_shows_more_than_it_hides(text):
    found = duties.masked(text)
    assert len(found) == len(text)
    shown = len(text) - len(found) + sum(1 for a, b in zip(found, text, strict=True) if a == b and a != "*")
    assert shown <= 4
    assert shown <= len(text) / 2


# -- the course of a call --------------------------------------------------------------------------------------------


def course(*obligations, question=None, now=(0.0,)):
    permit = Permit(
        call_id="c1", obligations=obligations, forward=None, release=None, metadata={}, expires_at=100.0, report_by=100.0,
    )  # fmt: skip
    return Course(permit, question or Entity("profile", "list", ("1", "2", "3")), lambda: now[0])


def test_obligations_that_were_met_end_well_and_are_reported():
    at = course(DropRecords("us", ("1",)), LimitRecords(1), RedactFields(("id_contact",)))
    assert at.keep(PEOPLE[:3], lambda one: one["id"]) == [{"id": "2"}]
    assert at.clean({"id": "2", "email": "x"}, {"id": "public", "email": "id_contact"}) == {"id": "2"}
    outcome, instead = at.ended(None, cancelled=False)
    assert instead is None
    assert outcome == Outcome(
        dropped=2, redacted={"id_contact": 1},
        met={"drop_records": True, "limit_records": True, "redact_fields": True},
    )  # fmt: skip


def test_an_obligation_that_was_not_met_makes_the_end_a_denial():
    at = course(LimitRecords(1), RedactFields(("id_contact",)))
    at.keep(PEOPLE[:3], lambda one: one["id"])
    outcome, instead = at.ended(None, cancelled=False)
    assert isinstance(instead, DeniedError)
    assert "redact_fields" in str(instead)
    assert (outcome.code, outcome.met) == (7, {"limit_records": True, "redact_fields": False})


def test_nothing_is_released_once_the_permit_has_ended():
    now = [99.9]
    at = course(LimitRecords(3), RedactFields(("id_contact",)), now=now)
    assert at.keep(PEOPLE[:1], lambda one: one["id"]) == [{"id": "1"}]
    assert at.clean({"id": "1"}, {"id": "public"}) == {"id": "1"}
    now[0] = 100.0
    for late in (lambda: at.keep(PEOPLE[:1], lambda one: one["id"]), lambda: at.clean({"id": "1"}, {"id": "public"})):
        with pytest.raises(DeniedError, match="expired") as refused:
            late()
        assert refused.value.denied.call_id == "c1"
    outcome, instead = at.ended(None, cancelled=False)
    assert (outcome.code, instead.denied.why) == (7, "expired"), "what was computed meanwhile is not returned"
    assert at.ended(OSError("x"), cancelled=False)[1] is None, "an error stays what it is"


def test_a_permit_for_an_answer_carries_the_call_on():
    now = [99.0]
    at = course(now=now)
    further = {"obligations": (), "forward": None, "release": b"x", "metadata": {}, "report_by": 200.0}
    at.answered(Permit(call_id="c1", expires_at=200.0, **further))
    now[0] = 150.0
    assert at.ended(None, cancelled=False)[1] is None
    with pytest.raises(DeniedError, match="expired"):
        at.answered(Permit(call_id="c1", expires_at=150.0, **further))


def test_what_the_caller_did_itself_it_says():
    at = course(RedactFields(("id_contact",)))
    at.met("redact_fields")
    at.released(us=Released(records=2), messages_out=1, code=5)
    outcome, instead = at.ended(None, cancelled=False)
    assert (instead, outcome.code, outcome.us.records, outcome.messages_out) == (None, 5, 2, 1)
    with pytest.raises(ValueError, match="does not oblige"):
        at.met("drop_records")


@pytest.mark.parametrize(("error", "cancelled", "code"), [(OSError("x"), False, 2), (KeyboardInterrupt(), True, 1)])
def test_an_error_is_reported_as_one_and_not_replaced(error, cancelled, code):
    at = course(LimitRecords(1))
    outcome, instead = at.ended(error, cancelled=cancelled)
    assert (outcome.code, instead) == (code, None)
    denied = DeniedError(Denied(why="policy", message="", code=7))
    assert at.ended(denied, cancelled=False)[0].code == 7


def test_an_answer_of_another_call_is_not_taken():
    at = course()
    other = Permit(call_id="c2", obligations=(), forward=None, release=b"x", metadata={}, expires_at=1.0, report_by=1.0)
    with pytest.raises(DeniedError):
        at.answered(other)
