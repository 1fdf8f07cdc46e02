"""Attacks on the decision API: what was permitted before, who lies by leaving things out, what is made too large."""

import time

import pytest
from check_parts import CONSOLE, METHOD, Checks, entity, going_on, method, outcome
from exposure_rig import GROUP, Counted
from pipeline_rig import GERMAN, NOBODY_KNOWS, SERVICE, US, deny, get, permit, profile

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.client import DropRecords, Entity, Permit
from sidecar.client.course import Course
from sidecar.doors.check import DecisionApi
from sidecar.doors.waiting import Waiting
from sidecar.errors import Code

CHECKED = pb.ANSWERS_CHECKED
SYNC = f"/{SERVICE}/Sync"


@pytest.fixture
def checks():
    return Checks()


def counted():
    """With a ledger, and a covered person who asks."""
    made = Checks()
    made.rig = Counted()
    made.api = DecisionApi(
        made.rig.point, made.api._inquiries._entities, made.waiting, lambda: made.rig.now, made.log
    )  # fmt: skip
    return made


def next_message(call_id, message):
    return pb.CheckRequest(question=pb.Question(call=pb.MethodCall(message=message), call_id=call_id))


# -- a refusal after a permit does not undo the permit ---------------------------------------------------------------


async def test_a_refused_question_does_not_make_what_was_permitted_before_unused(checks):
    opened = await checks.check(method(path=SYNC, message=get(US)))
    checks.rig.engine.rule = lambda _request: deny("subjects_unknown")
    refused = await checks.check(next_message(opened.call_id, get(NOBODY_KNOWS)))
    assert refused.decision == pb.DECISION_DENY
    (done,) = checks.outcomes
    assert (done.seen, done.status, done.complete) == ("unobserved", "unobserved", False)


async def test_a_question_that_cannot_be_read_gives_nothing_back_to_the_ledger():
    checks = counted()
    opened = await checks.check(method(path=SYNC, message=get(US)))
    assert opened.decision == pb.DECISION_PERMIT
    refused = await checks.check(next_message(opened.call_id, b"\xff\xff"))
    assert refused.decision == pb.DECISION_DENY
    assert checks.rig.left(GROUP)["id_contact"] == 1, "the caller was told that it may"


async def test_entities_that_were_shown_stay_counted_when_the_next_are_refused():
    checks = counted()
    opened = await checks.check(entity(action="list", answers=CHECKED))
    await checks.check(going_on(opened.call_id, ids=[US], action="list"))
    checks.rig.engine.rule = lambda _request: deny("dsp_bulk")
    refused = await checks.check(going_on(opened.call_id, ids=[NOBODY_KNOWS, "x"], action="list"))
    assert refused.decision == pb.DECISION_DENY
    (done,) = checks.outcomes
    assert (done.seen, done.complete) == ("unobserved", False)
    assert checks.rig.left(GROUP)["id_contact"] == 1, "those who were shown count; the refused do not"


async def test_an_answer_refused_on_the_callers_promise_is_not_recorded_as_seen(checks):
    opened = await checks.check(method(answers=CHECKED))
    refused = await checks.check(going_on(opened.call_id, message=b"\xff\xff"))
    assert refused.decision == pb.DECISION_DENY
    (done,) = checks.outcomes
    assert (done.seen, done.released.us.records) == ("reported", 0)


async def test_a_permit_of_which_nobody_was_told_is_still_undone():
    checks = counted()
    checks.waiting = Waiting(lambda: checks.monotonic, 300.0, 0)
    checks.api = DecisionApi(checks.rig.point, None, checks.waiting, lambda: checks.rig.now, checks.log)
    answer = await checks.check(method())
    assert answer.decision == pb.DECISION_INDETERMINATE
    (done,) = checks.outcomes
    assert (done.status, done.complete) == ("UNAVAILABLE", True)
    assert checks.rig.left(GROUP).get("id_contact", 0) == 0


# -- a call that goes on ---------------------------------------------------------------------------------------------


async def test_a_further_question_has_its_own_deadline(checks):
    asked = time.monotonic()
    opened = await checks.check(method(answers=CHECKED), deadline=asked + 0.25)
    checks.rig.engine.rule = lambda _request: permit({"id": "limit_records", "max": 1})
    await checks.check(going_on(opened.call_id, message=profile(GERMAN)), deadline=asked + 90)
    assert [one.deadline for one in checks.decisions] == [asked + 0.25, asked + 90]


async def test_a_unary_method_has_one_answer(checks):
    opened = await checks.check(method(answers=CHECKED))
    first = await checks.check(going_on(opened.call_id, message=profile(US)))
    assert first.decision == pb.DECISION_PERMIT
    checks.rig.engine.rule = lambda _request: deny("purpose_not_allowed")
    again = await checks.check(going_on(opened.call_id, message=profile(US)), status=Code.INVALID_ARGUMENT)
    assert "one answer" in again.message
    assert await checks.report(outcome(opened.call_id)) == ["OK"]


async def test_misuse_makes_no_permit_wait_longer(checks):
    opened = await checks.check(method())
    checks.monotonic += 299
    await checks.check(going_on(opened.call_id, message=profile(US)), status=Code.INVALID_ARGUMENT)
    checks.monotonic += 2
    assert await checks.report(outcome(opened.call_id)) == ["NOT_FOUND"]
    await checks.waiting._expire(checks.monotonic)
    assert [one.seen for one in checks.outcomes if one.call_id == opened.call_id] == ["unobserved"]


async def test_misuse_while_the_sidecar_stops_loses_no_outcome(checks):
    opened = await checks.check(method())
    checks.waiting._closed = True  # as `close` does before the first outcome is written
    await checks.check(going_on(opened.call_id, message=profile(US)), status=Code.INVALID_ARGUMENT)
    await checks.waiting.close()
    assert [(one.call_id, one.seen) for one in checks.outcomes if one.call_id == opened.call_id] == [
        (opened.call_id, "unobserved")
    ]


# -- reports ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("question", [method, lambda: entity(US)])
async def test_an_obligation_that_a_report_leaves_out_was_not_met(checks, question):
    checks.rig.engine.rule = lambda _request: permit(
        {"id": "redact_fields", "categories": ["id_contact"], "fields": []}, {"id": "limit_records", "max": 5}
    )
    answer = await checks.check(question())
    assert await checks.report(outcome(answer.call_id, met={"limit_records": True})) == ["OK"]
    (done,) = checks.outcomes
    assert {one.id: one.met for one in done.obligations} == {"redact_fields": False, "limit_records": True}


async def test_a_caller_that_says_more_records_left_than_were_checked_is_believed(checks):
    opened = await checks.check(method(answers=CHECKED))
    await checks.check(going_on(opened.call_id, message=profile(US)))
    await checks.report(outcome(opened.call_id, messages_out=1, us=pb.Released(records=9)))
    assert checks.outcomes[0].released.us.records == 9


async def test_what_the_sidecar_met_itself_is_not_asked_of_the_caller(checks):
    checks.rig.engine.rule = lambda _request: permit({"id": "limit_records", "max": 5})
    opened = await checks.check(method(answers=CHECKED))
    await checks.check(going_on(opened.call_id, message=profile(US)))
    await checks.report(outcome(opened.call_id))
    assert not checks.outcomes[0].obligations


# -- a batch on a full disk, and large words -------------------------------------------------------------------------


async def test_a_batch_of_a_thousand_on_a_full_disk_permits_nothing(checks):
    checks.rig.numbers = iter(range(1, 5000))
    checks.rig.records.fail = lambda _entry: True
    answers = await checks.batch(*(entity(US).question for _ in range(1000)))
    assert {one.decision for one in answers} == {pb.DECISION_INDETERMINATE}
    assert {Code(one.code) for one in answers} == {Code.UNAVAILABLE}
    assert len(checks.waiting) == 0


LARGE = {
    "method": method(path=f"/{'a' * 70_000}/b"),
    "ticket": method(context=pb.Context(ticket="A-" + "1" * 70_000)),
    "purpose": method(context=pb.Context(purpose="p" * 70_000)),
    "trace": method(context=pb.Context(traceparent="0" * 70_000)),
    "token": method(subject=pb.Subject(token="t" * 70_000)),
    "person": method(subject=pb.Subject(asserted_person="p" * 70_000)),
    "escapes": method(path=METHOD.replace("Get", "\x1b]0;owned\x07")),
}


@pytest.mark.parametrize("name", LARGE)
async def test_words_too_large_to_record_are_refused_and_that_is_recorded(checks, name):
    await checks.check(LARGE[name], status=Code.INVALID_ARGUMENT)
    (decision,) = checks.decisions
    assert len(bytes(decision.input)) < 4096
    assert CONSOLE in bytes(decision.input).decode()
    assert [one.status for one in checks.outcomes] == ["INVALID_ARGUMENT"]


# -- the client ------------------------------------------------------------------------------------------------------


def permitted(*ids):
    obligations = (DropRecords("us", ids),)
    return Permit(call_id="c", obligations=obligations, forward=None, release=None, metadata={}, expires_at=9e9,
                  report_by=9e9)  # fmt: skip


def test_who_goes_by_one_question_is_not_let_through_after_the_next():
    course = Course(permitted("a"), Entity("profile", "list", ["a", "b"], checked=True), lambda: 0.0)
    assert course.keep(["a", "b"], str) == ["b"]
    course.answered(permitted("d"), ["c", "d"])
    assert course.keep(["a", "b", "c", "d"], str) == ["b", "c"]
