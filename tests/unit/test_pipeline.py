"""The enforcement point: unary calls."""

import asyncio
import time

import msgspec
import pytest
from pipeline_rig import GERMAN, NOBODY_KNOWS, NOW, US, Rig, answer, deny, get, permit, personnel, profile, user

from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.enforcement.call import Final
from sidecar.errors import Code, DecideError, ForwardError, IdentifyError
from sidecar.vocabulary import ExceptionGrant, GrantScope


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def test_a_permitted_call_is_recorded_before_it_is_forwarded_and_answered_byte_for_byte(rig):
    forwarded_when = []
    rig.upstream.reply = lambda _message: forwarded_when.append(len(rig.records.decisions)) or answer(profile(US))
    reply = await rig.unary()
    assert reply.final.code is Code.OK
    assert reply.message == profile(US)
    assert forwarded_when == [1]
    (decision,), (outcome,) = rig.records.decisions, rig.records.outcomes
    assert decision.call_id == outcome.call_id == "call-1"
    assert decision.level == "committed"
    assert list(decision.subjects) == [("person", "1", "us")]
    assert outcome.status == "OK"
    assert outcome.released.us.records == 1
    assert rig.records.levels == ["committed"]
    assert dict(reply.headers) == {"x-upstream": "1", "x-customhouse-call-id": "call-1"}


async def test_the_upstream_is_told_who_calls_and_in_which_trace(rig):
    caller = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    await rig.unary(get(US), ("authorization", "Bearer t"), ("traceparent", caller))
    sent = rig.upstream.seen[0][1]
    assert dict(sent)["x-customhouse-person"] == "amy"
    assert dict(sent)["x-customhouse-workload"] == "spiffe://t/console"
    assert dict(sent)["x-customhouse-call-id"] == "call-1"
    assert [value for key, value in sent if key == "traceparent"] == [
        f"00-{'a' * 32}-{dict(sent)['traceparent'][36:52]}-00"
    ]
    trace = rig.records.decisions[0].trace
    assert (trace.trace_id, trace.from_) == ("a" * 32, "caller")


@pytest.mark.parametrize(
    ("codes", "status"),
    [
        (("not_us_personnel",), Code.PERMISSION_DENIED),
        (("approval_required",), Code.FAILED_PRECONDITION),
        (("approval_required", "not_us_personnel"), Code.PERMISSION_DENIED),
        (("policy_error",), Code.UNAVAILABLE),
    ],
)
async def test_a_denial_reaches_nobody_and_shows_no_rule(rig, codes, status):
    rig.engine.rule = lambda _request: deny(*codes)
    reply = await rig.unary()
    assert reply.final.code is status
    assert reply.message is None
    assert rig.upstream.seen == []
    assert reply.final.error_info.metadata == {
        "call_id": "call-1",
        "policy_revision": "p1",
        "reasons": ",".join(sorted(codes, key=codes.index)[::-1] if len(codes) > 1 else codes),
    }
    assert "test" not in reply.final.message
    assert bool(reply.final.preconditions) is (status is Code.FAILED_PRECONDITION)
    assert rig.records.decisions[0].level == "written"
    assert rig.records.outcomes[0].status == status.name
    assert rig.stats.calls[f"{rig.call().method[1:]}", "deny", reply.final.error_info.reason, status.name] == 1


@pytest.mark.parametrize(
    "error",
    [
        IdentifyError("no token", reason="unidentified_person"),
        IdentifyError("unknown", reason="unidentified_person", code=Code.PERMISSION_DENIED),
        IdentifyError("stale", reason="stale_directory", code=Code.UNAVAILABLE),
    ],
)
async def test_whoever_cannot_be_identified_is_refused_and_recorded(rig, error):
    rig.identifier.error = error
    reply = await rig.unary()
    assert (reply.final.code, reply.final.error_info.reason) == (error.code, error.reason)
    (decision,) = rig.records.decisions
    assert msgspec.json.decode(decision.input)["subject"]["kind"] is None
    assert msgspec.json.decode(decision.decision)["reasons"][0]["code"] == error.reason
    assert rig.records.outcomes[0].status == error.code.name
    assert rig.engine.documents == []
    assert (reply.final.retry_after is not None) is (error.code is Code.UNAVAILABLE)


async def test_without_a_decision_there_is_no_access(rig):
    rig.engine.rule = lambda _request: DecideError("no decision", reason="policy_error", operator="timed out")
    reply = await rig.unary()
    assert reply.final.code is Code.UNAVAILABLE
    assert reply.final.retry_after == 1.0
    assert rig.upstream.seen == []
    assert rig.reports[0].operator == "timed out"


async def test_a_policy_past_its_age_decides_nothing(rig):
    rig.standing.error = DecideError("too old", reason="policy_error")
    assert (await rig.unary()).final.code is Code.UNAVAILABLE
    assert rig.engine.documents == []


async def test_what_cannot_be_recorded_is_not_forwarded(rig):
    rig.records.fail = lambda entry: hasattr(entry, "form")
    reply = await rig.unary()
    assert (reply.final.code, reply.final.error_info.reason) == (Code.UNAVAILABLE, "record_unavailable")
    assert reply.final.retry_after is not None
    assert rig.upstream.seen == []


async def test_an_answer_whose_outcome_cannot_be_recorded_is_not_released(rig):
    rig.records.fail = lambda entry: not hasattr(entry, "form")
    reply = await rig.unary()
    assert reply.final.code is Code.UNAVAILABLE
    assert reply.message is None
    assert len(rig.upstream.seen) == 1


async def test_a_refusal_that_cannot_be_recorded_is_unavailable(rig):
    rig.identifier.error = IdentifyError("no token")
    rig.records.fail = lambda _entry: True
    assert (await rig.unary()).final.code is Code.UNAVAILABLE


async def test_bytes_that_are_no_message_are_refused(rig):
    reply = await rig.unary(b"\xff\xff\xff")
    assert reply.final.code is Code.INVALID_ARGUMENT
    assert rig.records.decisions[0].subjects == ()
    assert rig.upstream.seen == []


async def test_an_unknown_method_is_unimplemented_and_recorded(rig):
    final = await rig.point.stream(rig.call("Dump"), _nothing(), None)
    assert (final.code, final.error_info.reason) == (Code.UNIMPLEMENTED, "undescribed_method")
    assert rig.records.decisions[0].method == "Dump"


async def _nothing():
    return
    yield


@pytest.mark.parametrize(
    "metadata",
    [
        [("x-customhouse-purpose", "Because I want")],
        [("x-customhouse-ticket", "call me")],
        [("x-customhouse-justification", "9!")],
        [("x-customhouse-purpose", "a"), ("x-customhouse-purpose", "b")],
    ],
)
async def test_claims_of_the_wrong_form_are_refused(rig, metadata):
    reply = await rig.unary(get(US), *metadata)
    assert reply.final.code is Code.INVALID_ARGUMENT
    assert rig.engine.documents == []


async def test_claims_reach_the_document(rig):
    sent = [
        ("x-customhouse-purpose", "user_support"),
        ("x-customhouse-ticket", "SUP-1"),
        ("x-customhouse-justification", "asked_by_user"),
    ]
    await rig.unary(get(US), *sent)
    context = rig.engine.documents[0].context
    assert (context.purpose, context.ticket, context.justification) == ("user_support", "SUP-1", "asked_by_user")
    assert context.network.destination.country == "US"
    assert context.time.endswith(":00Z")


async def test_an_exception_is_looked_up_used_and_bounds_the_decision(rig):
    rig.grants.grant = ExceptionGrant(
        id="EX",
        person="amy",
        scope=GrantScope(),
        justification="j",
        ticket="T-1",
        not_before="2026-01-01T00:00:00Z",
        expires="2026-11-19T00:00:00Z",
        requested_by="x",
        approvers=("a", "b"),
    )
    rig.engine.rule = lambda _request: permit(code="exception", ttl=0)
    reply = await rig.unary(get(US), ("x-customhouse-exception", "EX"))
    assert reply.final.code is Code.OK
    assert rig.grants.uses == ["call-1"]
    assert rig.engine.documents[0].context.exceptions == (rig.grants.grant,)
    assert rig.engine.valid_for[0] <= 3600
    refused = await rig.unary(get(US), ("x-customhouse-exception", "OTHER"))
    assert (refused.final.code, refused.final.error_info.reason) == (Code.PERMISSION_DENIED, "exception_invalid")


async def test_an_exception_is_nothing_for_somebody_who_is_no_person(rig):
    rig.identifier.identity = user(US)
    reply = await rig.unary(get(US), ("x-customhouse-exception", "EX"))
    assert reply.final.error_info.reason == "exception_invalid"


async def test_both_of_a_delegation_must_be_permitted(rig):
    rig.identifier.identity = personnel("amy", "niall")
    rig.engine.rule = lambda request: permit() if request.subject.person.id == "amy" else deny("not_us_personnel")
    assert (await rig.unary()).final.code is Code.PERMISSION_DENIED
    assert len(rig.records.decisions) == 2
    rig.engine.rule = lambda _request: permit()
    assert (await rig.unary()).final.code is Code.OK


async def test_a_user_is_counted_as_their_own(rig):
    rig.identifier.identity = user(US)
    await rig.unary()
    assert rig.engine.documents[0].resource.subjects.own == 1
    assert rig.records.levels == ["written"]
    assert b'"1"' not in bytes(rig.records.decisions[0].input)


async def test_a_cached_decision_asks_nobody(rig):
    await rig.unary()
    from sidecar.decision.document import parse_decision
    from sidecar.vocabulary import canonical

    rig.engine.known[canonical(rig.engine.documents[0])] = parse_decision(permit())
    await rig.unary()
    assert len(rig.engine.documents) == 1
    assert len(rig.records.decisions) == 2


async def test_a_subject_that_shows_first_in_the_answer_is_decided_again(rig):
    rig.upstream.reply = lambda _message: answer(profile(GERMAN))
    rig.engine.rule = lambda request: permit() if request.context.phase == "request" else deny("not_us_personnel")
    reply = await rig.unary()
    assert reply.final.code is Code.PERMISSION_DENIED
    assert reply.message is None
    assert [one.phase for one in rig.records.decisions] == ["request", "response"]
    assert list(rig.records.decisions[1].subjects) == [("person", "2", "non_us")]
    assert rig.records.outcomes[0].released.non_us.records == 0


async def test_pending_subjects_release_nothing_before_the_answer_is_decided(rig):
    rows = pb.ListProfilesResponse(profiles=[pb.Profile(user_id=one, handle="h") for one in (US, GERMAN, NOBODY_KNOWS)])
    rig.upstream.reply = lambda _message: answer(rows.SerializeToString())
    drops = [{"id": "drop_records", "subjects": "us"}, {"id": "drop_records", "subjects": "unknown"}]
    rig.engine.rule = lambda request: permit() if request.context.phase == "request" else permit(*drops)
    reply = await rig.unary(b"", method="ListProfiles")
    assert [one.user_id for one in pb.ListProfilesResponse.FromString(reply.message).profiles] == [GERMAN]
    assert rig.engine.documents[0].resource.subjects.pending
    counts = rig.engine.documents[1].resource.subjects
    assert (counts.us, counts.non_us, counts.unknown, counts.pending) == (1, 1, 1, False)
    assert rig.records.outcomes[0].dropped == 2
    assert [one.id for one in rig.records.decisions[1].obligations] == ["drop_records", "drop_records"]


async def test_an_answer_that_is_itself_dropped_is_refused(rig):
    rig.engine.rule = lambda _request: permit({"id": "drop_records", "subjects": "us"})
    reply = await rig.unary()
    assert (reply.final.code, reply.message) == (Code.PERMISSION_DENIED, None)


@pytest.mark.parametrize(
    "obligation", [{"id": "burn_after_reading"}, {"id": "redact_fields", "categories": ["nonsense"]}]
)
async def test_an_obligation_nobody_can_meet_is_a_deny(rig, obligation):
    rig.engine.rule = lambda _request: permit(obligation)
    reply = await rig.unary()
    assert (reply.final.code, reply.final.error_info.reason) == (Code.PERMISSION_DENIED, "obligation_unfulfillable")
    assert rig.upstream.seen == []
    (decision,) = rig.records.decisions
    assert [one.met for one in decision.obligations] == [False]
    assert msgspec.json.decode(decision.decision)["effect"] == "deny"


async def test_the_policy_may_raise_the_level_never_lower_it(rig):
    rig.engine.rule = lambda _request: permit({"id": "require_durability", "level": "acknowledged"})
    await rig.unary()
    rig.engine.rule = lambda _request: permit({"id": "require_durability", "level": "written"})
    await rig.unary()
    assert [one.level for one in rig.records.decisions] == ["acknowledged", "committed"]


async def test_unknown_fields_do_not_leave_and_do_not_reach_the_service(rig):
    extra = b"\xf8\x07\x01"  # field 127, varint 1
    rig.upstream.reply = lambda _message: answer(profile(US) + extra)
    reply = await rig.unary(get(US) + extra)
    assert reply.message == profile(US)
    assert rig.upstream.seen[0][0] == get(US)


async def test_an_answer_that_cannot_be_read_is_refused_and_the_operator_told(rig):
    rig.upstream.reply = lambda _message: answer(b"\xff\xff")
    reply = await rig.unary()
    assert (reply.final.code, reply.final.error_info.reason) == (Code.PERMISSION_DENIED, "obligation_unfulfillable")
    assert "descriptor" in rig.reports[0].operator


async def test_an_upstream_error_passes_whole_under_a_free_permit_and_reduced_otherwise(rig):
    rig.upstream.reply = lambda _message: answer(None, Code.NOT_FOUND, message="no user 1", trailing=(("x", "1"),))
    reply = await rig.unary()
    assert reply.final == Final(code=Code.NOT_FOUND, message="no user 1", trailing=(("x", "1"),))
    rig.engine.rule = lambda _request: permit({"id": "redact_fields", "categories": ["id_contact"]})
    reply = await rig.unary()
    assert reply.final == Final(code=Code.NOT_FOUND, message="reduced")
    assert "x-upstream" not in dict(reply.headers)
    assert rig.records.outcomes[0].status == "NOT_FOUND"


async def test_an_unreachable_upstream_is_unavailable_with_an_outcome(rig):
    rig.upstream.reply = lambda _message: ForwardError("the service cannot be reached")
    reply = await rig.unary()
    assert (reply.final.code, rig.records.outcomes[0].status) == (Code.UNAVAILABLE, "UNAVAILABLE")


async def test_a_caller_that_goes_away_leaves_an_outcome(rig):
    started = asyncio.Event()

    async def hang(*_arguments):
        started.set()
        await asyncio.Event().wait()

    rig.upstream.unary = hang
    for deadline, status in ((None, "CANCELLED"), (time.monotonic() - 1, "DEADLINE_EXCEEDED")):
        started.clear()
        task = asyncio.create_task(rig.point.unary(rig.call(deadline=deadline), get(US)))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert rig.records.outcomes[-1].status == status


async def test_the_deadline_that_is_left_goes_to_the_upstream(rig):
    await rig.point.unary(rig.call(deadline=time.monotonic() + 5), get(US))
    assert 0 < rig.upstream.seen[0][2] <= 5


def test_kinds_of_methods(rig):
    kind = rig.point.kind
    prefix = "/sidecar.demo.profiles.v1.Profiles/"
    assert (kind(prefix + "GetProfile"), kind(prefix + "Sync"), kind(prefix + "Nope")) == ("unary", "stream", None)
    assert kind("/grpc.health.v1.Health/Check") == "stream"
    assert NOW


async def test_a_deadline_beyond_grpc_s_clock_is_none(rig):
    """Ninety-nine million hours, as a caller may write them, would have passed already."""
    for left, told in ((3.6e11, None), (float("inf"), None), (3600.0, 3600.0)):
        await rig.point.unary(rig.call(deadline=time.monotonic() + left), get(US))
        assert rig.upstream.seen[-1][2] == (None if told is None else pytest.approx(told, abs=60))
