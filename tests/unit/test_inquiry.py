"""Calls that are asked about: identity that lapses, claims of another service, the ledger, one outcome whatever happens."""

import dataclasses
import time

import pytest
from check_parts import CONSOLE, TYPES
from exposure_rig import Counted
from pipeline_rig import GERMAN, NOBODY_KNOWS, NOW, SERVICE, US, Rig, deny, get, permit, personnel, profile

from sidecar.enforcement.call import OK, Call, Final, Peer
from sidecar.enforcement.declarations import CHECK, CHECK_ANSWERS
from sidecar.enforcement.outcomes import Confirmation
from sidecar.enforcement.permits import Permit
from sidecar.enforcement.pipeline import EnforcementPoint
from sidecar.errors import Code, DescribeError, IdentifyError, InterceptError
from sidecar.exceptions.authorization_store import Lifted
from sidecar.observability.calls import CallObserver
from sidecar.record import MessageCounts
from sidecar.vocabulary import SecurityRequirements

pytestmark = pytest.mark.unit
PROFILE, TICKET, BANNER = TYPES.of("profile", "read"), TYPES.of("ticket", "read"), TYPES.of("banner", "read")
SAID = Confirmation(status="OK", messages=MessageCounts(in_=1, out=1))
GONE = Final(code=Code.CANCELLED, message="the caller has gone")


def call(door=CHECK, method="/sidecar.api.v1.DecisionPoint/Check", *metadata, peer=CONSOLE):
    return Call(method=method, metadata=metadata, peer=Peer(identities=(peer,)), door=door)


def entity(rig, door=CHECK, *metadata):
    return rig.point.inquire_entity(call(door, "/sidecar.api.v1.DecisionPoint/Check", *metadata))


def method(rig, door=CHECK, name="GetProfile"):
    return rig.point.inquire(call(door, f"/{SERVICE}/{name}"))


@pytest.fixture
def rig():
    return Rig()


# -- entities --------------------------------------------------------------------------------------------------------


async def test_a_question_is_recorded_as_its_types_service_and_action(rig):
    found = await entity(rig).ask(PROFILE, [str(US), str(NOBODY_KNOWS)])
    assert isinstance(found, Permit)
    (entry,) = rig.records.decisions
    assert (entry.service, entry.door, entry.phase) == (SERVICE, "check", "request")
    assert [tuple(one) for one in entry.subjects] == [("person", "1", "us"), ("person", "3", "unknown")]
    document = rig.engine.documents[0]
    assert (document.action.name, document.resource.type, document.resource.subjects.us) == ("read", "profile", 1)


async def test_some_of_a_type_are_one_unknown_unless_they_will_be_asked_about(rig):
    await entity(rig).ask(PROFILE, [])
    await entity(rig).ask(PROFILE, [], pending=True)  # a door that sees no answers is not believed
    await entity(rig, CHECK_ANSWERS).ask(PROFILE, [])
    await entity(rig, CHECK_ANSWERS).ask(PROFILE, [], pending=True)
    await entity(rig, CHECK_ANSWERS).ask(TYPES.of("profile", "delete"), [], pending=True)
    found = [(one.resource.subjects.unknown, one.resource.subjects.pending) for one in rig.engine.documents]
    assert found == [(1, False), (1, False), (1, False), (0, True), (1, False)]


async def test_what_is_about_nobody_counts_nobody(rig):
    await entity(rig).ask(BANNER, ["a", "b"])
    counts = rig.engine.documents[0].resource.subjects
    assert (counts.us, counts.non_us, counts.unknown, counts.pending) == (0, 0, 0, False)


async def test_an_answer_that_shows_nobody_is_never_nobody_by_itself(rig):
    inquiry = entity(rig, CHECK_ANSWERS)
    await inquiry.ask(PROFILE, [], pending=True)
    await inquiry.ask(PROFILE, [], phase="response", pending=True)
    counts = rig.engine.documents[-1].resource.subjects
    assert (counts.unknown, counts.pending) == (1, False)


async def test_whoever_has_lapsed_is_identified_again_before_the_next_question(rig):
    rig.identifier.identity = personnel(expires_at=NOW + 10)
    inquiry = entity(rig, CHECK_ANSWERS)
    await inquiry.ask(PROFILE, [], pending=True)
    await inquiry.ask(PROFILE, [str(US)], phase="response")
    assert rig.identifier.asked == 1
    rig.now = NOW + 10
    rig.identifier.identity = personnel("amy", expires_at=NOW + 100)
    await inquiry.ask(PROFILE, [str(US)], phase="response")
    assert rig.identifier.asked == 2
    rig.now = NOW + 200
    rig.identifier.error = IdentifyError("the token has expired", reason="unidentified_person")
    found = await inquiry.ask(PROFILE, [str(US)], phase="response")
    assert isinstance(found, Final)
    assert found.code is Code.UNAUTHENTICATED
    assert [one.status for one in rig.records.outcomes] == ["UNAUTHENTICATED"]


async def test_nobody_is_served_on_an_identity_that_has_lapsed_already(rig):
    rig.identifier.identity = personnel(expires_at=NOW)
    found = await entity(rig).ask(PROFILE, [str(US)])
    assert isinstance(found, Final)
    assert found.code is Code.PERMISSION_DENIED
    assert rig.engine.documents == []


async def test_what_lifts_the_dsp_is_that_of_the_service_asked_about(rig):
    """Attestations of one service say nothing of another, also where identity was found out before the type was known."""
    requirements = SecurityRequirements(
        version="1", attested_at="2026-01-01T00:00:00Z", valid_until="2027-01-01T00:00:00Z"
    )
    attested = Lifted((), requirements, NOW + 1000)

    def for_call(people, service, now):
        return attested if service == SERVICE else Lifted((), SecurityRequirements(), NOW + 1000)

    rig.authorizations.for_call = for_call
    inquiry = entity(rig)
    assert await inquiry.identify() is None
    await inquiry.ask(PROFILE, [str(US)])
    await inquiry.ask(TICKET, [str(US)])
    await inquiry.ask(PROFILE, [str(US)])
    versions = [one.context.security_requirements.version for one in rig.engine.documents]
    assert versions == ["1", None, "1"]


async def test_claims_of_the_wrong_form_are_a_recorded_refusal(rig):
    inquiry = entity(rig, CHECK, ("x-customhouse-ticket", "not a ticket"))
    found = await inquiry.ask(PROFILE, [str(US)])
    assert isinstance(found, Final)
    assert (found.code, rig.records.outcomes[0].status) == (Code.INVALID_ARGUMENT, "INVALID_ARGUMENT")


async def test_duties_of_several_questions_add_up(rig):
    inquiry = entity(rig, CHECK_ANSWERS)
    rig.engine.rule = lambda _request: permit({"id": "limit_records", "max": 9})
    await inquiry.ask(PROFILE, [], pending=True)
    rig.engine.rule = lambda _request: permit({"id": "drop_records", "subjects": "us"})
    found = await inquiry.ask(PROFILE, [str(US), str(GERMAN)], phase="response")
    assert [one["id"] for one in found.obligations] == ["drop_records", "limit_records"]
    assert found.dropped == {"us": (str(US),)}


async def test_after_a_refusal_nothing_more_is_permitted_and_there_is_one_outcome(rig):
    inquiry = entity(rig, CHECK_ANSWERS)
    rig.engine.rule = lambda _request: deny("subjects_unknown")
    assert isinstance(await inquiry.ask(PROFILE, []), Final)
    rig.engine.rule = lambda _request: permit()
    again = await inquiry.ask(PROFILE, [str(US)])
    assert isinstance(again, Final)
    assert again.code is Code.UNAVAILABLE
    await inquiry.confirm(SAID)
    await inquiry.unobserved()
    assert [one.status for one in rig.records.outcomes] == ["PERMISSION_DENIED"]


async def test_a_refusal_of_the_doors_own_is_recorded_under_who_asked(rig):
    inquiry = entity(rig)
    assert await inquiry.identify() is None
    await inquiry.refuse(DescribeError("no such type", reason="undescribed_method"))
    assert b'"amy"' in bytes(rig.records.decisions[0].input)
    assert rig.records.outcomes[0].status == "PERMISSION_DENIED"


async def test_misuse_is_recorded_under_the_workload_alone(rig):
    await entity(rig).misused(InterceptError("nonsense"))
    data = bytes(rig.records.decisions[0].input)
    assert CONSOLE.encode() in data
    assert b'"amy"' not in data
    unknown = rig.point.inquire_entity(dataclasses.replace(call(), peer=Peer()))
    final = await unknown.misused(InterceptError("nonsense"))
    assert final.code is Code.UNAUTHENTICATED, "who it is comes before what they did"


# -- several questions of one request --------------------------------------------------------------------------------


async def test_one_request_identifies_once_and_only_from_a_question_that_did(rig):
    first, second, third = entity(rig), entity(rig), method(rig)
    for one in (second, third):
        one.adopt(first.case)  # first has not found out yet
    await first.ask(PROFILE, [str(US)])
    await second.ask(PROFILE, [str(US)])
    assert rig.identifier.asked == 2
    third.adopt(first.case)
    await third.request(get(US))
    assert rig.identifier.asked == 2


@pytest.mark.parametrize("other", ["another peer", "another token", "another person"])
async def test_identity_is_not_taken_over_from_another_caller(rig, other):
    first = entity(rig)
    await first.ask(PROFILE, [str(US)])
    changed = {
        "another peer": {"peer": Peer(identities=("spiffe://t/other",))},
        "another token": {"metadata": (("authorization", "Bearer other"),)},
        "another person": {"asserted": "uma"},
    }[other]
    second = rig.point.inquire_entity(dataclasses.replace(call(), **changed))
    second.adopt(first.case)
    await second.ask(PROFILE, [str(US)])
    assert rig.identifier.asked == 2


async def test_a_misused_question_gives_no_identity(rig):
    first, second = entity(rig), entity(rig)
    await first.misused(InterceptError("nonsense"))
    second.adopt(first.case)
    await second.ask(PROFILE, [str(US)])
    assert rig.engine.documents[0].subject.person.id == "amy"


# -- outcomes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (lambda one: one.confirm(SAID), ("OK", "reported", True)),
        (lambda one: one.unobserved(), ("unobserved", "unobserved", False)),
        (lambda one: one.gone(GONE), ("CANCELLED", None, True)),
    ],
)
@pytest.mark.parametrize("made", [entity, method])
async def test_each_permit_has_one_outcome(rig, made, end, expected):
    inquiry = made(rig)
    found = await (inquiry.request(get(US)) if made is method else inquiry.ask(PROFILE, [str(US)]))
    assert isinstance(found, Permit)
    await end(inquiry)
    await inquiry.unobserved()
    (done,) = rig.records.outcomes
    assert (done.status, done.seen or None, done.complete) == expected


@pytest.mark.parametrize("made", [entity, method])
async def test_the_time_that_a_permit_waits_is_not_the_calls(rig, made):
    ago = [1000.0]
    observer = CallObserver(rig.stats, clock=lambda: time.perf_counter() - ago[0])
    rig.point = EnforcementPoint(dataclasses.replace(rig.point._parts, observer=observer))
    inquiry = made(rig)
    await (inquiry.request(get(US)) if made is method else inquiry.ask(PROFILE, [str(US)]))
    ago[0] = 0.0
    await inquiry.confirm(SAID)
    assert max(one.total for one in rig.stats.durations.values()) < 500
    assert all(one.total < 500 for one in rig.stats.stages.values())
    assert rig.records.outcomes[0].duration_ms > 999_000, "the record tells how long it all took"


async def test_an_outcome_that_cannot_be_written_is_not_said_to_be(rig):
    inquiry = method(rig)
    await inquiry.request(get(US))
    rig.records.fail = lambda _entry: True
    assert (await inquiry.confirm(SAID)).code is Code.UNAVAILABLE


async def test_a_door_may_refuse_what_policy_permits(rig):
    inquiry = method(rig)
    await inquiry.request(get(US))
    final = await inquiry.refuse(InterceptError("not this way"))
    assert final.code is Code.INVALID_ARGUMENT
    assert [one.status for one in rig.records.outcomes] == ["INVALID_ARGUMENT"]


# -- the ledger ------------------------------------------------------------------------------------------------------


async def test_what_nobody_saw_counts_in_full_with_the_ledger():
    for end in (lambda one: one.confirm(SAID), lambda one: one.unobserved()):
        rig = Counted()
        inquiry = method(rig)
        await inquiry.request(get(US))
        await end(inquiry)
        assert rig.left()["id_government"] == 1, "the method could have shown it"


async def test_a_permit_that_nobody_was_told_of_counts_nothing_with_the_ledger():
    for made in (entity, method):
        rig = Counted()
        inquiry = made(rig)
        await (inquiry.request(get(US)) if made is method else inquiry.ask(PROFILE, [str(US)]))
        await inquiry.gone(GONE)
        assert not any(rig.left().values())


async def test_checked_answers_count_with_what_they_held():
    rig = Counted()
    inquiry = method(rig, CHECK_ANSWERS)
    await inquiry.request(get(US))
    assert isinstance(await inquiry.answer(profile(US)), bytes)
    assert await inquiry.confirm(SAID) == OK
    left = rig.left()
    assert left.get("id_contact") == 1
    assert not left.get("id_government"), "the answer held none"


async def test_one_call_of_a_counted_caller_concerns_one_service():
    rig = Counted()
    inquiry = entity(rig, CHECK_ANSWERS)
    assert isinstance(await inquiry.ask(PROFILE, [str(US)]), Permit)
    found = await inquiry.ask(TICKET, [str(US)], phase="response")
    assert isinstance(found, Final)
    assert found.code is Code.INVALID_ARGUMENT
