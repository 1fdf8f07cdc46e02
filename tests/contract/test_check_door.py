"""The decision API: what each method promises, on the enforcement point without transport."""

import asyncio

import pytest
from check_parts import CONSOLE, METHOD, OTHER, Checks, entity, going_on, method, outcome
from pipeline_rig import GERMAN, NOBODY_KNOWS, SERVICE, US, deny, get, permit, personnel, profile

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.demo.profiles.v1 import profiles_pb2
from sidecar.errors import Code, DecideError, IdentifyError
from sidecar.record import MessageCounts

CHECKED = pb.ANSWERS_CHECKED


@pytest.fixture
def checks():
    return Checks()


async def test_a_permit_is_recorded_before_it_is_given_and_waits_for_its_report(checks):
    answer = await checks.check(method(US))
    assert answer.decision == pb.DECISION_PERMIT
    assert not answer.HasField("forward"), "the message was sent as it was inspected"
    (decision,) = checks.decisions
    assert (decision.call_id, decision.door, decision.method) == (answer.call_id, "check", "GetProfile")
    assert checks.outcomes == []
    assert len(checks.waiting) == 1
    assert answer.report_by.seconds == int(checks.rig.now) + 300
    assert answer.metadata["x-customhouse-call-id"] == answer.call_id
    assert answer.metadata["x-customhouse-person"] == "amy"
    assert "authorization" not in answer.metadata


async def test_a_permit_holds_no_longer_than_its_identity_or_its_report(checks):
    checks.rig.identifier.identity = personnel(expires_at=checks.rig.now + 7)
    answer = await checks.check()
    assert answer.expires_at.seconds == int(checks.rig.now) + 7
    checks.rig.identifier.identity = personnel(expires_at=float("inf"))
    answer = await checks.check()
    assert answer.expires_at == answer.report_by


async def test_a_deny_is_an_ordinary_answer_with_its_outcome_written(checks):
    checks.rig.engine.rule = lambda _request: deny("purpose_not_allowed", "not_us_personnel")
    answer = await checks.check()
    assert answer.decision == pb.DECISION_DENY
    assert list(answer.reasons) == ["not_us_personnel", "purpose_not_allowed"]
    assert (Code(answer.code), answer.policy_revision) == (Code.PERMISSION_DENIED, "p1")
    assert [one.status for one in checks.outcomes] == ["PERMISSION_DENIED"]
    assert len(checks.waiting) == 0


async def test_an_outstanding_approval_is_a_deny_that_says_so(checks):
    checks.rig.engine.rule = lambda _request: deny("approval_required")
    answer = await checks.check()
    assert (answer.decision, Code(answer.code)) == (pb.DECISION_DENY, Code.FAILED_PRECONDITION)


async def test_what_cannot_be_decided_or_recorded_is_indeterminate(checks):
    checks.rig.engine.rule = lambda _request: DecideError("too late", reason="policy_error")
    answer = await checks.check()
    assert (answer.decision, list(answer.reasons)) == (pb.DECISION_INDETERMINATE, ["policy_error"])
    assert answer.retry_after.ToMilliseconds() > 0
    checks.rig.engine.rule = lambda _request: permit()
    checks.rig.records.fail = lambda entry: True
    answer = await checks.check()
    assert (answer.decision, list(answer.reasons)) == (pb.DECISION_INDETERMINATE, ["record_unavailable"])


async def test_a_bad_token_is_a_deny_of_the_person_not_of_the_connection(checks):
    checks.rig.identifier.error = IdentifyError("the token is not to be believed", reason="unidentified_person")
    answer = await checks.check(method(subject=pb.Subject(token="x.y.z")))
    assert (answer.decision, Code(answer.code)) == (pb.DECISION_DENY, Code.UNAUTHENTICATED)


async def test_who_asks_in_a_long_batch_is_found_out_again_on_the_way(checks):
    """Whoever is revoked while the first questions are answered is not served on what was known before."""
    gone = IdentifyError("the token is revoked", reason="unidentified_person", code=Code.UNAUTHENTICATED)

    def revoke(_entry):
        checks.rig.identifier.error = gone

    checks.rig.records.on_decision = revoke
    answers = await checks.batch(*(entity(US).question for _ in range(70)))
    told = [one.decision for one in answers]
    assert told == [pb.DECISION_PERMIT] * 64 + [pb.DECISION_DENY] * 6
    assert len(checks.decisions) == 70


async def test_obligations_come_as_typed_messages_and_only_those_that_are_the_callers(checks):
    checks.rig.engine.rule = lambda _request: permit(
        {"id": "redact_fields", "categories": ["id_contact"], "fields": ["a.B.c"]},
        {"id": "mask_fields", "categories": ["id_government"], "fields": []},
        {"id": "drop_records", "subjects": "us"},
        {"id": "limit_records", "max": 5},
        {"id": "require_durability", "level": "committed"},
    )
    answer = await checks.check(entity(US, GERMAN))
    redact, mask, drop, limit = answer.obligations
    assert (list(redact.redact_fields.categories), list(redact.redact_fields.fields)) == (["id_contact"], ["a.B.c"])
    assert list(mask.mask_fields.categories) == ["id_government"]
    assert (drop.drop_records.subjects, list(drop.drop_records.ids)) == (pb.SUBJECT_CLASS_US, [str(US)])
    assert limit.limit_records.max == 5


async def test_an_obligation_that_only_an_open_stream_can_meet_is_refused(checks):
    checks.rig.engine.rule = lambda _request: permit({"id": "recheck_seconds", "seconds": 5})
    answer = await checks.check()
    assert (answer.decision, list(answer.reasons)) == (pb.DECISION_DENY, ["obligation_unfulfillable"])


async def test_a_request_is_forwarded_as_it_was_inspected(checks):
    twice = get(GERMAN) + get(US)  # the later one wins, and is what was decided about
    answer = await checks.check(method(message=twice))
    assert answer.forward == get(US)
    assert [tuple(one) for one in checks.decisions[0].subjects] == [("person", str(US), "us")]


async def test_unseen_answers_concern_people_who_are_unknown(checks):
    asked = profiles_pb2.ListProfilesRequest(page_size=2).SerializeToString()
    await checks.check(method(path=f"/{SERVICE}/ListProfiles", message=asked))
    assert checks.rig.engine.documents[-1].resource.subjects.unknown == 1
    assert not checks.rig.engine.documents[-1].resource.subjects.pending
    await checks.check(method(path=f"/{SERVICE}/ListProfiles", message=asked, answers=CHECKED))
    assert checks.rig.engine.documents[-1].resource.subjects.pending


async def test_checked_answers_come_back_as_what_may_be_released(checks):
    checks.rig.engine.rule = lambda _request: permit(
        {"id": "redact_fields", "categories": ["id_contact"], "fields": []}
    )
    opened = await checks.check(method(answers=CHECKED))
    assert list(opened.obligations) == [], "the sidecar does it"
    answer = await checks.check(going_on(opened.call_id, message=profile(US)))
    assert answer.decision == pb.DECISION_PERMIT
    released = profiles_pb2.Profile.FromString(answer.release)
    assert (released.user_id, released.handle, released.email) == (US, "h", "")
    assert await checks.report(outcome(opened.call_id, messages_in=1, messages_out=1)) == ["OK"]
    (done,) = checks.outcomes
    assert (done.seen, done.released.us.records, done.redacted) == ("reported", 1, {"id_contact": 1})
    assert done.bytes_out == len(answer.release)


async def test_a_refused_answer_ends_the_call(checks):
    opened = await checks.check(method(answers=CHECKED))
    checks.rig.engine.rule = lambda _request: deny("subjects_unknown")
    answer = await checks.check(going_on(opened.call_id, message=profile(NOBODY_KNOWS)))
    assert (answer.decision, list(answer.reasons)) == (pb.DECISION_DENY, ["subjects_unknown"])
    assert [one.status for one in checks.outcomes] == ["PERMISSION_DENIED"]
    assert await checks.report(outcome(opened.call_id)) == ["NOT_FOUND"]


async def test_an_answer_of_which_nothing_may_leave_is_withheld_or_refused(checks):
    checks.rig.engine.rule = lambda _request: permit({"id": "drop_records", "subjects": "us"})
    unary = await checks.check(method(answers=CHECKED))
    answer = await checks.check(going_on(unary.call_id, message=profile(US)))
    assert (answer.decision, Code(answer.code)) == (pb.DECISION_DENY, Code.PERMISSION_DENIED)
    asked = profiles_pb2.ListMessagesRequest(user_id=US).SerializeToString()
    stream = await checks.check(method(path=f"/{SERVICE}/ListMessages", message=asked, answers=CHECKED))
    said = profiles_pb2.Message(sender_id=US, recipient_id=US, text="hello").SerializeToString()
    answer = await checks.check(going_on(stream.call_id, message=said))
    assert (answer.decision, answer.withheld) == (pb.DECISION_PERMIT, True)


async def test_a_streaming_call_goes_on_with_its_next_request_message(checks):
    path = f"/{SERVICE}/Sync"
    question = pb.Question(call=pb.MethodCall(method=path), answers=CHECKED)
    opened = await checks.check(pb.CheckRequest(question=question))
    assert checks.rig.engine.documents[-1].resource.subjects.pending
    more = pb.Question(call=pb.MethodCall(message=get(US)), call_id=opened.call_id)
    assert (await checks.check(pb.CheckRequest(question=more))).decision == pb.DECISION_PERMIT
    assert checks.rig.engine.documents[-1].resource.subjects.us == 1
    assert {one.call_id for one in checks.decisions} == {opened.call_id}


async def test_entities_that_show_in_an_answer_are_decided_about(checks):
    opened = await checks.check(entity(action="search", answers=CHECKED))
    assert checks.rig.engine.documents[-1].resource.subjects.pending
    checks.rig.engine.rule = lambda request: permit({"id": "drop_records", "subjects": "us"})
    answer = await checks.check(going_on(opened.call_id, ids=[US, GERMAN], action="search"))
    assert list(answer.obligations[0].drop_records.ids) == [str(US)]
    assert [one.phase for one in checks.decisions] == ["request", "response"]
    assert checks.rig.engine.documents[-1].context.phase == "response"


async def test_an_entity_named_twice_is_one_and_hides_nobody(checks):
    await checks.check(entity(US, US, NOBODY_KNOWS))
    counts = checks.rig.engine.documents[-1].resource.subjects
    assert (counts.us, counts.unknown) == (1, 1)


async def test_the_words_of_the_operator_for_actions_are_understood(checks):
    await checks.check(entity(US, action="can_view"))
    document = checks.rig.engine.documents[-1]
    assert (document.action.name, document.resource.type) == ("read", "profile")
    assert document.context.purpose is None
    claimed = pb.Context(purpose="user_support", ticket="SUP-1", justification="legal_order")
    await checks.check(entity(US, context=claimed))
    context = checks.rig.engine.documents[-1].context
    assert (context.purpose, context.ticket, context.justification) == ("user_support", "SUP-1", "legal_order")


async def test_the_callers_trace_is_the_records(checks):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await checks.check(method(context=pb.Context(traceparent=trace)))
    assert checks.decisions[0].trace.trace_id == "0af7651916cd43dd8448eb211c80319c"


async def test_a_report_is_the_outcome(checks):
    answer = await checks.check()
    said = outcome(
        answer.call_id, code=5, messages_in=1, messages_out=2, us=pb.Released(records=3, by_category={"id_contact": 2}),
        dropped=4, redacted={"id_government": 1}, bytes_out=99, met={"limit_records": True, "redact_fields": False},
    )  # fmt: skip
    assert await checks.report(said) == ["OK"]
    (done,) = checks.outcomes
    assert (done.status, done.seen, done.complete) == ("NOT_FOUND", "reported", True)
    assert done.messages == MessageCounts(in_=1, out=2)
    assert (done.released.us.records, done.released.us.by_category) == (3, {"id_contact": 2})
    assert (done.dropped, done.redacted, done.bytes_out) == (4, {"id_government": 1}, 99)
    assert {one.id: one.met for one in done.obligations} == {"limit_records": True, "redact_fields": False}


async def test_a_report_whose_record_is_not_durable_says_so(checks):
    answer = await checks.check()
    checks.rig.records.fail = lambda _entry: True
    assert await checks.report(outcome(answer.call_id)) == ["UNAVAILABLE"]


async def test_what_is_not_reported_in_time_is_unobserved(checks):
    answer = await checks.check()
    checks.monotonic += 301
    assert await checks.report(outcome(answer.call_id)) == ["NOT_FOUND"]
    await checks.waiting._expire(checks.monotonic)
    (done,) = checks.outcomes
    assert (done.seen, done.status, done.complete) == ("unobserved", "unobserved", False)


async def test_an_unobserved_checked_call_shows_what_was_handed_out(checks):
    opened = await checks.check(method(answers=CHECKED))
    await checks.check(going_on(opened.call_id, message=profile(US)))
    await checks.waiting.close()
    (done,) = checks.outcomes
    assert (done.seen, done.complete, done.released.us.records) == ("unobserved", False, 1)


async def test_a_caller_that_says_more_left_than_was_checked_is_believed(checks):
    opened = await checks.check(method(answers=CHECKED))
    await checks.check(going_on(opened.call_id, message=profile(US)))
    await checks.report(outcome(opened.call_id, messages_out=9, us=pb.Released(records=9)))
    (done,) = checks.outcomes
    assert (done.messages.out, done.released.us.records) == (9, 9)


async def test_a_batch_decides_and_records_each_item_and_identifies_once(checks):
    checks.rig.engine.rule = lambda request: (
        permit() if not request.resource.subjects.unknown else deny("subjects_unknown")
    )
    asked = [entity(one).question for one in (US, NOBODY_KNOWS, GERMAN)] + [method().question]
    answers = await checks.batch(*asked, context=pb.Context(purpose="user_support"))
    assert [one.decision for one in answers] == [1, 2, 1, 1]
    assert len({one.call_id for one in answers}) == len(checks.decisions) == 4
    assert checks.rig.identifier.asked == 1
    assert {one.context.purpose for one in checks.rig.engine.documents} == {"user_support"}
    assert await checks.report(*(outcome(one.call_id) for one in answers)) == ["OK", "NOT_FOUND", "OK", "OK"]


async def test_what_is_wrong_with_an_item_of_a_batch_is_its_own(checks):
    bad = [
        pb.Question(), pb.Question(call_id="call-1", call=pb.MethodCall(message=b"")),
        pb.Question(phase=9, entity=pb.Entity(type="profile", action="read")),
        pb.Question(call=pb.MethodCall(method=METHOD)),
    ]  # fmt: skip
    answers = await checks.batch(entity(US).question, *bad, entity(GERMAN).question)
    assert [one.decision for one in answers] == [1, 2, 2, 2, 2, 1]
    assert {Code(one.code) for one in answers[1:5]} == {Code.INVALID_ARGUMENT}
    assert len(checks.decisions) == 6, "each is recorded"


async def test_a_failure_of_one_item_is_not_the_batchs(checks):
    def rule(request):
        if request.resource.subjects.unknown:
            raise RuntimeError("a bug")
        return permit()

    checks.rig.engine.rule = rule
    answers = await checks.batch(entity(US).question, entity(NOBODY_KNOWS).question)
    assert [one.decision for one in answers] == [pb.DECISION_PERMIT, pb.DECISION_INDETERMINATE]
    assert checks.log.lines[0][1]["failure"] == "RuntimeError"


async def test_a_stream_answers_questions_and_takes_reports(checks):
    asked = pb.CheckStreamRequest(id="a", check=method(US))
    final, found = await checks.stream(asked, pb.CheckStreamRequest(id="b", check=entity(GERMAN)))
    assert final.code is Code.OK
    assert {name: one.check.decision for name, one in found.items()} == {"a": 1, "b": 1}
    said = outcome(found["a"].check.call_id)
    _, found = await checks.stream(pb.CheckStreamRequest(id="r", report=said), pb.CheckStreamRequest(id="x"))
    assert Code(found["r"].reported.code) is Code.OK
    assert Code(found["x"].check.code) is Code.INVALID_ARGUMENT


async def test_a_slow_question_holds_up_no_other(checks):
    slow = asyncio.Event()
    decide = checks.rig.engine.decide

    async def wait(request, canonical, *, valid_for):
        if request.resource.subjects.unknown:
            await slow.wait()
        return await decide(request, canonical, valid_for=valid_for)

    checks.rig.engine.decide = wait
    asked = [pb.CheckStreamRequest(id=str(one), check=entity(one)) for one in (NOBODY_KNOWS, US, GERMAN)]
    running = asyncio.create_task(checks.stream(*asked))
    while len(checks.decisions) < 2:
        await asyncio.sleep(0)
    slow.set()
    final, found = await running
    assert final.code is Code.OK
    assert list(found) == [str(US), str(GERMAN), str(NOBODY_KNOWS)]


async def test_a_method_that_the_api_does_not_have_is_refused_and_recorded(checks):
    final = await checks.api.stream(checks.call("Decide"), _nothing(), None)
    assert final.code is Code.UNIMPLEMENTED
    assert (checks.decisions[0].method, checks.outcomes[0].status) == ("Decide", "UNIMPLEMENTED")
    assert checks.api.kind("/other.Service/Check") is None


async def test_the_workload_alone_asks_with_neither_token_nor_person(checks):
    seen = []
    identify = checks.rig.identifier.identify

    def remember(metadata, identities, certificate, now, asserted=None):
        seen.append((dict(metadata).get("authorization"), identities, asserted))
        return identify(metadata, identities, certificate, now)

    checks.rig.identifier.identify = remember
    await checks.check(method())
    await checks.check(method(subject=pb.Subject(token="t.o.k")))
    await checks.check(method(subject=pb.Subject(asserted_person="uma")), who=OTHER)
    assert seen == [(None, (CONSOLE,), None), ("Bearer t.o.k", (CONSOLE,), None), (None, (OTHER,), "uma")]


async def _nothing():
    return
    yield
