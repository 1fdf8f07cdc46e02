"""The decision API under callers who mean ill: nothing is permitted, nothing is lost, and what they did stands recorded."""

import asyncio
import os
from contextlib import suppress

import pytest
from check_parts import CONSOLE, METHOD, OTHER, Checks, entity, going_on, method, outcome
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_rig import GERMAN, NOBODY_KNOWS, US, deny, permit, profile

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.doors import check_questions
from sidecar.errors import Code

CHECKED = pb.ANSWERS_CHECKED


@pytest.fixture
def checks():
    return Checks()


async def test_another_workload_can_neither_report_nor_go_on_with_a_call(checks):
    opened = await checks.check(method(answers=CHECKED))
    assert await checks.report(outcome(opened.call_id), who=OTHER) == ["NOT_FOUND"]
    assert checks.log.lines == [
        ("a workload reported a call that it may not report", {"workload": OTHER, "call_id": opened.call_id})
    ]
    answer = await checks.check(going_on(opened.call_id, message=profile(US)), who=OTHER)
    assert (answer.decision, Code(answer.code)) == (pb.DECISION_DENY, Code.NOT_FOUND)
    assert not answer.HasField("release")
    assert await checks.report(outcome(opened.call_id)) == ["OK"], "the owner's call was not harmed"


async def test_a_call_is_reported_once(checks):
    answer = await checks.check()
    again = [outcome(answer.call_id, code=one) for one in (0, 5, 0)]
    assert await checks.report(*again) == ["OK", "NOT_FOUND", "NOT_FOUND"]
    assert [one.status for one in checks.outcomes] == ["OK"]


@pytest.mark.parametrize("call_id", ["", "call-2", "0", "x" * 5000, "0197b3c4-0000-7000-8000-000000000000"])
async def test_guessed_and_early_call_ids_name_nothing(checks, call_id):
    await checks.check()
    assert await checks.report(outcome(call_id)) == ["NOT_FOUND"]
    assert len(checks.outcomes) == 0
    assert len(checks.waiting) == 1


async def test_a_denied_call_can_neither_be_reported_nor_gone_on_with(checks):
    checks.rig.engine.rule = lambda _request: deny("not_us_personnel")
    answer = await checks.check(method(answers=CHECKED))
    assert await checks.report(outcome(answer.call_id)) == ["NOT_FOUND"]
    further = await checks.check(going_on(answer.call_id, message=profile(US)))
    assert further.decision == pb.DECISION_DENY
    assert [one.status for one in checks.outcomes][0] == "PERMISSION_DENIED"


async def test_an_answer_after_the_report_is_not_released(checks):
    opened = await checks.check(method(answers=CHECKED))
    await checks.report(outcome(opened.call_id))
    answer = await checks.check(going_on(opened.call_id, message=profile(US)))
    assert (answer.decision, answer.HasField("release")) == (pb.DECISION_DENY, False)


async def test_an_unseen_call_has_no_answers_to_ask_about(checks):
    opened = await checks.check(method())
    final = await checks.check(going_on(opened.call_id, message=profile(US)), status=Code.INVALID_ARGUMENT)
    assert "ANSWERS_UNSEEN" in final.message
    assert await checks.report(outcome(opened.call_id)) == ["OK"], "the call went on as it was"


BOTH = pb.Subject(token="t", asserted_person="amy")
MISUSED = {
    "token and person": method(subject=BOTH),
    "an empty token": method(subject=pb.Subject(token="")),
    "an empty person": method(subject=pb.Subject(asserted_person="")),
    "a token of two lines": method(subject=pb.Subject(token="a\r\nx-customhouse-person: amy")),
    "a purpose that is not ASCII": method(context=pb.Context(purpose="purpöse")),
    "nothing asked": pb.CheckRequest(),
    "an unknown phase": method(phase=7),
    "unknown answers": method(answers=7),
    "an answer of no call": method(phase=pb.PHASE_RESPONSE),
    "no method": method(path=""),
    "half a method": method(path="GetProfile"),
    "no message for a unary method": pb.CheckRequest(question=pb.Question(call=pb.MethodCall(method=METHOD))),
    "no type": entity(US, type=""),
    "no action": entity(US, action=""),
    "an empty entity id": entity(""),
    "10,001 ids": entity(*range(10_001)),
    "an id of 2,000 bytes": entity("ä" * 1000),
    "a subject of its own on a call that goes on": method(call_id="call-1", subject=pb.Subject(token="t")),
}


@pytest.mark.parametrize("name", MISUSED)
async def test_what_cannot_be_understood_is_refused_and_recorded_under_its_workload(checks, name):
    final = await checks.check(MISUSED[name], status=Code.INVALID_ARGUMENT)
    assert final.error_info.metadata["call_id"] == "call-1"
    (decision,), (done,) = checks.decisions, checks.outcomes
    assert (decision.service, decision.method) == ("sidecar.api.v1.DecisionPoint", "Check")
    assert CONSOLE in bytes(decision.input).decode()
    assert b"amy" not in bytes(decision.input), "nobody was identified"
    assert done.status == "INVALID_ARGUMENT"
    assert len(checks.waiting) == 0
    assert checks.rig.engine.documents == []


@pytest.mark.parametrize("name", ["Check", "BatchCheck", "ReportOutcome", "CheckStream"])
async def test_an_unregistered_peer_is_unauthenticated_and_recorded(checks, name):
    data = method().SerializeToString()
    if name == "CheckStream":
        final, found = await checks.stream(pb.CheckStreamRequest(id="a", check=method()), who=None)
        assert found == {}
    else:
        final = (await checks.raw(name, data, who=None)).final
    assert final.code is Code.UNAUTHENTICATED
    assert final.error_info.reason == "unidentified_workload"
    assert [one.status for one in checks.outcomes] == ["UNAUTHENTICATED"]
    assert checks.rig.engine.documents == []


@pytest.mark.parametrize("name", ["Check", "BatchCheck", "ReportOutcome"])
async def test_bytes_that_are_no_request_are_refused_and_recorded(checks, name):
    for data in (b"\xff\xff", b"\x0a\x05ab", os.urandom(64) + b"\xff"):
        reply = await checks.raw(name, data)
        assert reply.final.code is Code.INVALID_ARGUMENT
    assert len(checks.decisions) == len(checks.outcomes) == 3


UNKNOWN = b"\xc2\x3e\x01x"  # field 1000, one byte


@pytest.mark.parametrize(
    "data",
    [
        method().SerializeToString() + UNKNOWN,
        pb.CheckRequest(
            question=pb.Question.FromString(entity(US).question.SerializeToString() + UNKNOWN)
        ).SerializeToString(),
        pb.CheckRequest(
            subject=pb.Subject.FromString(pb.Subject(token="t").SerializeToString() + UNKNOWN),
            question=method().question,
        ).SerializeToString(),
    ],
)
async def test_a_field_that_nobody_here_knows_is_not_passed_over(checks, data):
    reply = await checks.raw("Check", data)
    assert reply.final.code is Code.INVALID_ARGUMENT
    assert "fields" in reply.final.message


@pytest.mark.parametrize("key", ["authorization", "x-customhouse-purpose", "x-customhouse-exception"])
async def test_identity_or_claims_as_metadata_are_not_passed_over(checks, key):
    final = await checks.check(method(), metadata=((key, "Bearer t"),), status=Code.INVALID_ARGUMENT)
    assert key in final.message
    assert len(checks.decisions) == 1


async def test_types_and_actions_that_nobody_described_are_denied(checks):
    for one in (entity(US, type="nothing"), entity(US, action="peek"), entity(US, type="banner", action="can_view")):
        answer = await checks.check(one)
        assert (answer.decision, list(answer.reasons)) == (pb.DECISION_DENY, ["undescribed_method"])
    assert len(checks.decisions) == len(checks.outcomes) == 3
    nothing = Checks(resources=None)
    assert (await nothing.check(entity(US))).decision == pb.DECISION_DENY
    assert (await checks.check(method(path="/a.B/C"))).decision == pb.DECISION_DENY


@pytest.mark.parametrize(
    ("items", "why"),
    [
        ([], "1 to 1000"), (["a"] * 1001, "1 to 1000"), (["a", "a"], "same id"), ([""], "bytes"), (["x" * 129], "bytes"),
    ],
)  # fmt: skip
async def test_a_batch_that_is_none_is_one_refusal(checks, items, why):
    request = pb.BatchCheckRequest(items=[pb.BatchItem(id=one, question=entity(US).question) for one in items])
    final = (await checks.raw("BatchCheck", request.SerializeToString())).final
    assert final.code is Code.INVALID_ARGUMENT
    assert why in final.message
    assert len(checks.decisions) == 1


async def test_a_batch_cannot_name_more_entities_than_one_question(checks):
    half = entity(*range(5_001)).question
    final = await checks.batch(half, half, status=Code.INVALID_ARGUMENT)
    assert "10000" in final.message


async def test_a_misused_item_gives_its_identity_to_no_other(checks):
    """The first item is recorded under the workload alone; the others must not be decided for the workload alone."""
    answers = await checks.batch(pb.Question(), entity(US).question)
    assert [one.decision for one in answers] == [2, 1]
    assert checks.rig.engine.documents[0].subject.person.id == "amy"


BAD_REPORTS = [
    {"code": 17}, {"code": -1}, {"dropped": 1 << 60}, {"redacted": {"nothing": 1}}, {"met": {"recheck_seconds": True}},
    {"us": pb.Released(records=1, by_category={"id_contact": 2})},
    {"unknown": pb.Released(records=1, by_category={"x": 1})},
]  # fmt: skip


@pytest.mark.parametrize("figures", BAD_REPORTS)
async def test_a_report_that_cannot_be_understood_leaves_the_call_waiting(checks, figures):
    answer = await checks.check()
    assert await checks.report(outcome(answer.call_id, **figures)) == ["INVALID_ARGUMENT"]
    assert checks.outcomes == []
    assert await checks.report(outcome(answer.call_id)) == ["OK"]


async def test_more_permits_than_may_wait_are_not_given(monkeypatch):
    checks = Checks(most=2)
    answers = [await checks.check() for _ in range(3)]
    assert [one.decision for one in answers] == [1, 1, pb.DECISION_INDETERMINATE]
    assert (list(answers[2].reasons), checks.outcomes[0].status) == (["record_unavailable"], "UNAVAILABLE")
    assert await checks.report(outcome(answers[0].call_id)) == ["OK"]
    assert (await checks.check()).decision == pb.DECISION_PERMIT


async def test_one_workload_cannot_take_all_the_places():
    checks = Checks(most=4, per_owner=3)
    mine = [(await checks.check()).decision for _ in range(4)]
    assert mine == [1, 1, 1, 3]
    assert (await checks.check(who=OTHER)).decision == pb.DECISION_PERMIT


async def test_a_caller_that_goes_while_it_is_decided_leaves_an_outcome(checks):
    recorded = asyncio.Event()
    checks.rig.records.on_decision = lambda _entry: recorded.set()
    decision = checks.rig.records.decision

    async def slowly(entry):
        await decision(entry)
        await asyncio.Event().wait()

    checks.rig.records.decision = slowly
    for name, data in (
        ("Check", method()), ("Check", entity(US)),
        ("BatchCheck", pb.BatchCheckRequest(items=[pb.BatchItem(id="a", question=entity(US).question)])),
    ):  # fmt: skip
        recorded.clear()
        asking = asyncio.create_task(checks.raw(name, data.SerializeToString()))
        await recorded.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert [one.status for one in checks.outcomes] == ["CANCELLED"] * 3
    assert all(one.complete and not one.released.us.records for one in checks.outcomes)
    assert len(checks.waiting) == 0


async def test_a_caller_that_goes_while_an_answer_is_decided_leaves_it_unobserved(checks):
    opened = await checks.check(method(answers=CHECKED))
    checks.rig.engine.rule = lambda _request: permit({"id": "limit_records", "max": 3})
    hang, began = asyncio.Event(), asyncio.Event()

    async def slowly(entry):
        began.set()
        await hang.wait()

    checks.rig.records.decision = slowly
    asked = going_on(opened.call_id, message=profile(GERMAN)).SerializeToString()
    asking = asyncio.create_task(checks.raw("Check", asked))
    await began.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert [one.seen for one in checks.outcomes] == ["unobserved"]


async def test_an_id_that_is_under_way_ends_the_stream_and_everything_on_it_has_an_outcome(checks):
    asked = pb.CheckStreamRequest(id="a", check=entity(NOBODY_KNOWS)).SerializeToString()
    began = asyncio.Event()

    async def wait(request, canonical, *, valid_for):
        began.set()
        await asyncio.Event().wait()

    async def twice():
        yield asked
        await began.wait()
        yield asked

    checks.rig.engine.decide = wait
    final = await checks.api.stream(checks.call("CheckStream"), twice(), _Nowhere())
    assert final.code is Code.INVALID_ARGUMENT
    assert sorted(one.status for one in checks.outcomes) == ["CANCELLED", "INVALID_ARGUMENT"]


async def test_a_stream_reads_no_more_than_it_can_have_under_way(checks):
    never, read = asyncio.Event(), 0

    async def wait(request, canonical, *, valid_for):
        await never.wait()

    async def endless():
        nonlocal read
        while True:
            read += 1
            yield pb.CheckStreamRequest(id=str(read), check=entity(US)).SerializeToString()
            await asyncio.sleep(0)

    checks.rig.engine.decide = wait
    running = asyncio.create_task(checks.api.stream(checks.call("CheckStream"), endless(), _Nowhere()))
    for _ in range(2_000):
        await asyncio.sleep(0)
    assert read == 257
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(checks.outcomes) == 256


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_bytes_make_anything_but_a_message_or_a_refusal(data):
    for kind in (pb.CheckRequest, pb.BatchCheckRequest, pb.CheckStreamRequest, pb.ReportOutcomeRequest):
        with suppress(check_questions.InterceptError):
            assert isinstance(check_questions.read(kind, data), kind)


_WHAT = st.one_of(
    st.builds(entity, st.sampled_from([US, GERMAN, NOBODY_KNOWS]), action=st.sampled_from(["read", "list", "peek"])),
    st.builds(method, st.sampled_from([US, GERMAN, NOBODY_KNOWS]), answers=st.sampled_from([0, 1, 2, 5])),
)


@given(st.lists(_WHAT, min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_a_batch_answers_and_records_what_its_questions_alone_would(asked):
    def rule(request):
        return (
            deny("subjects_unknown") if request.resource.subjects.unknown else permit({"id": "limit_records", "max": 2})
        )

    def told(response, final=None):
        code = response.code if final is None else int(final.code)
        return (response.decision or pb.DECISION_DENY, code, list(response.reasons), list(response.obligations))

    async def together():
        checks = Checks()
        checks.rig.engine.rule = rule
        return [told(one) for one in await checks.batch(*(one.question for one in asked))], _recorded(checks)

    async def alone():
        checks, found = Checks(), []
        checks.rig.engine.rule = rule
        for one in asked:
            reply = await checks.raw("Check", one.SerializeToString())
            if reply.message is None:
                answer = pb.CheckResponse(reasons=[reply.final.error_info.reason])
                found.append(told(answer, reply.final))
            else:
                found.append(told(pb.CheckResponse.FromString(reply.message)))
        return found, _recorded(checks)

    (batch, batch_records), (single, single_records) = asyncio.run(together()), asyncio.run(alone())
    assert batch == single
    assert batch_records == single_records


def _recorded(checks):
    decisions = sorted(
        (
            one.service,
            one.method.replace("BatchCheck", "Check"),
            one.phase,
            bytes(one.input).replace(b"BatchCheck", b"Check"),
        )
        for one in checks.decisions
    )
    return decisions, sorted(one.status for one in checks.outcomes)


class _Nowhere:
    async def headers(self, metadata):
        pass

    async def message(self, data):
        raise AssertionError("nothing was decided")
