"""Questions that are put together: each is answered and recorded as it would be alone, and nothing is lost on the way."""

import asyncio
from collections import Counter

import msgspec
import pytest
from check_parts import CONSOLE, TYPES
from exposure_rig import Counted
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_rig import GERMAN, NOBODY_KNOWS, US, Rig, deny, permit, personnel

from sidecar.enforcement.call import OK, Call, Final, Peer
from sidecar.enforcement.declarations import CHECK, CHECK_ANSWERS
from sidecar.enforcement.outcomes import Confirmation
from sidecar.enforcement.permits import Permit
from sidecar.enforcement.together import AT_ONCE, Party, Question, side_by_side, withdraw
from sidecar.enforcement.unreported import unobserved
from sidecar.errors import Code, DecideError, EnforceError, IdentifyError
from sidecar.record import MessageCounts

pytestmark = pytest.mark.unit
REDACT = {"id": "redact_fields", "categories": ["id_contact"], "fields": []}
DROP = {"id": "drop_records", "subjects": "unknown"}
RECHECK = {"id": "recheck_seconds", "seconds": 5}


def asked(rig, type_="profile", action="read", ids=(str(US),), *, checked=False, metadata=()):
    """A question of the console's, for `rig`."""
    door = CHECK_ANSWERS if checked else CHECK
    call = Call(method="/sidecar.api.v1.DecisionPoint/BatchCheck", metadata=metadata, peer=Peer(identities=(CONSOLE,)),
                door=door)  # fmt: skip
    return Question(rig.point.inquire_entity(call), TYPES.of(type_, action), ids, pending=checked)


def rule(request):
    """Every kind of answer, by what is asked about."""
    subjects = request.resource.subjects
    if request.action.name == "delete":
        raise DecideError("no answer", operator="undefined")
    if subjects.unknown > 1:
        raise RuntimeError("a bug")
    if request.action.name == "admin":
        return permit(RECHECK)
    if subjects.unknown:
        return deny("subjects_unknown")
    return permit(*([REDACT, DROP] if subjects.us else []), ttl=0 if subjects.non_us else 30)


def said(told):
    """What a caller is told, but for what differs from call to call."""
    if isinstance(told, Permit):
        return msgspec.structs.replace(told, call_id="")
    if isinstance(told, Final):
        info = told.error_info and (told.error_info.reason, {**told.error_info.metadata, "call_id": ""})
        return told.code, told.message, told.retry_after, told.preconditions, info
    return type(told), str(told)


def form_of(form):
    """All that a form says."""
    return {name: getattr(form, name) for name in dir(form) if not name.startswith("_")}


def recorded(rig):
    """What was recorded of each call, but for ids and times; as often as it was."""
    calls = {}
    for one in rig.records.log:
        kind = type(one).__name__
        what = msgspec.json.decode(msgspec.json.encode(one, enc_hook=form_of))
        for name in ("call_id", "trace", "eval_us", "duration_ms"):
            what.pop(name, None)
        calls.setdefault(one.call_id, []).append((kind, msgspec.json.encode(what, order="sorted")))
    return Counter(tuple(lines) for lines in calls.values())


async def answered_before(rig, questions):
    """What follows finds every answer remembered, and nothing else of these questions."""
    for type_, action, ids, checked in questions:
        one = asked(rig, type_, action, ids, checked=checked)
        try:
            put = one.inquiry.put(one.described, one.ids, pending=one.pending)
            if put is not None:
                decided = await one.inquiry.case.answer(put)
                rig.engine.known[put.data] = decided.decision
        except (DecideError, RuntimeError):
            continue
    rig.stats.decisions.clear()
    rig.records.log.clear()


AFTER = {
    "not told": lambda inquiry: inquiry.gone(Final(code=Code.CANCELLED)),
    "refused after all": lambda inquiry: inquiry.refuse(
        EnforceError("no words for it", reason="obligation_unfulfillable")
    ),
    "unobserved": lambda inquiry: unobserved([inquiry.handed_out()]),
    "reported": lambda inquiry: inquiry.handed_out().confirm(REPORT),
    "handed out, not told": lambda inquiry: inquiry.handed_out().gone(Final(code=Code.CANCELLED)),
}
REPORT = Confirmation(status="OK", messages=MessageCounts(in_=1, out=1), met={"redact_fields": True})

QUESTIONS = st.lists(
    st.tuples(
        st.sampled_from(["profile", "ticket", "banner"]),
        st.sampled_from(["read", "list", "delete", "admin"]),
        st.lists(st.sampled_from([str(US), str(GERMAN), str(NOBODY_KNOWS), "99"]), max_size=3).map(tuple),
        st.booleans(),
    ),
    min_size=1,
    max_size=24,
)


@pytest.mark.parametrize("people", [("amy",), ("amy", "ben")])
@given(questions=QUESTIONS, cached=st.sampled_from(["never", "meanwhile", "before"]), broken=st.booleans())
@settings(max_examples=60, deadline=None)
def test_together_is_as_each_alone(people, questions, cached, broken):
    def made():
        rig = Rig()
        rig.identifier.identity = personnel(*people)
        rig.engine.rule = rule
        if cached == "before":
            asyncio.run(answered_before(rig, questions))
        if broken:
            rig.records.fail = lambda entry: not hasattr(entry, "released")
        return rig, [asked(rig, type_, action, ids, checked=checked) for type_, action, ids, checked in questions]

    async def together(rig, several):
        if cached == "meanwhile":
            decide = rig.engine.decide

            async def remember(request, canonical, *, valid_for):
                found = await decide(request, canonical, valid_for=valid_for)
                return rig.engine.known.setdefault(canonical, found)

            rig.engine.decide = remember
        await rig.point.ask_together(several, Party())
        return [one.told for one in several]

    async def alone(several):
        found = []
        for one in several:
            try:
                found.append(await one.inquiry.ask(one.described, one.ids, pending=one.pending))
            except RuntimeError as error:
                found.append(error)
        return found

    rig, several = made()
    other, singles = made()
    assert [said(one) for one in asyncio.run(together(rig, several))] == [
        said(one) for one in asyncio.run(alone(singles))
    ]
    assert recorded(rig) == recorded(other)
    assert rig.stats.decisions == other.stats.decisions
    assert {one.call_id for one in rig.records.outcomes} == {
        one.inquiry.call_id for one in several if isinstance(one.told, Final)
    }


@pytest.mark.parametrize("after", AFTER)
async def test_what_becomes_of_a_permit_is_recorded_as_of_one_alone(after):
    questions = [("profile", "read", (str(one),), False) for one in (US, GERMAN, US, NOBODY_KNOWS, US)]
    found = []
    for together in (True, False):
        rig = Rig()
        rig.engine.rule = lambda request: permit(*([REDACT] if request.resource.subjects.us else []))
        await answered_before(rig, questions)
        several = [asked(rig, type_, action, ids) for type_, action, ids, _ in questions]
        if together:
            await rig.point.ask_together(several, Party())
        else:
            for one in several:
                one.told = await one.inquiry.ask(one.described, one.ids)
        assert all(isinstance(one.told, Permit) for one in several)
        for one in several:
            await AFTER[after](one.inquiry)
            await one.inquiry.gone(Final(code=Code.UNAVAILABLE))  # it has its outcome, or another sees to it
        assert Counter(one.call_id for one in rig.records.outcomes) == Counter(one.inquiry.call_id for one in several)
        found.append((recorded(rig), rig.stats.calls, rig.stats.decisions, sorted(rig.records.levels)))
    assert found[0] == found[1]


@pytest.mark.parametrize(("code", "alike"), [("permitted", 2), ("exception", 0)])
async def test_a_question_on_whose_answer_more_hangs_is_put_by_itself(code, alike):
    rig = Rig()
    rig.engine.rule = lambda _request: permit() | {"reasons": [{"code": code, "message": "as said", "rule": "a"}]}
    await answered_before(rig, [("profile", "read", (str(US),), False)])
    several = [asked(rig) for _ in range(3)]
    await rig.point.ask_together(several, Party())
    assert [isinstance(one.told, Permit) for one in several] == [True] * 3
    assert sum(one.inquiry._like is not None for one in several) == alike


async def test_they_are_identified_once_asked_once_and_recorded_in_one_piece(monkeypatch):
    rig, pieces = Rig(), []
    recorder = rig.point._parts.recorder
    decisions = recorder.decisions

    async def counted(entries):
        pieces.append(len(entries))
        await decisions(entries)

    monkeypatch.setattr(recorder, "decisions", counted)
    several = [asked(rig, ids=(str(one),)) for one in (US, GERMAN, US, US, GERMAN)]
    await rig.point.ask_together(several, Party())
    assert all(isinstance(one.told, Permit) for one in several)
    assert (rig.identifier.asked, len(rig.engine.documents), pieces) == (1, 2, [5])
    assert [one.call_id for one in rig.records.decisions] == [one.inquiry.call_id for one in several]
    assert len({one.trace.span_id for one in rig.records.decisions}) == 5
    assert rig.records.outcomes == []


async def test_another_callers_question_is_their_own():
    rig, party = Rig(), Party()
    bearers = [(("authorization", f"Bearer {name}"),) for name in ("a", "a", "b")]
    await rig.point.ask_together([asked(rig, metadata=one) for one in bearers], party)
    assert rig.identifier.asked == 2


async def test_whoever_is_not_known_is_refused_and_recorded_each_time():
    rig = Rig()
    rig.identifier.error = IdentifyError("who?", reason="unidentified_person")
    several = [asked(rig), asked(rig)]
    await rig.point.ask_together(several, Party())
    assert [one.told.code for one in several] == [Code.UNAUTHENTICATED] * 2
    assert (len(rig.records.decisions), len(rig.records.outcomes)) == (2, 2)


async def test_a_record_that_fails_permits_nobody_and_leaves_an_outcome_for_each():
    rig = Rig()
    rig.records.fail = lambda entry: getattr(entry, "call_id", "") == "call-2" and hasattr(entry, "form")
    several = [asked(rig) for _ in range(3)]
    await rig.point.ask_together(several, Party())
    assert [one.told.code for one in several] == [Code.UNAVAILABLE] * 3
    assert [one.status for one in rig.records.outcomes] == ["UNAVAILABLE"] * 3
    assert rig.records.decisions == []


async def test_a_recorder_that_breaks_permits_nobody(monkeypatch):
    rig = Rig()

    async def broken(_entries):
        raise RuntimeError("a bug")

    monkeypatch.setattr(rig.point._parts.recorder, "decisions", broken)
    several = [asked(rig), asked(rig)]
    await rig.point.ask_together(several, Party())
    assert [type(one.told) for one in several] == [RuntimeError] * 2


async def test_the_ledger_is_asked_about_each():
    rig = Counted()
    several = [asked(rig, ids=(str(one),)) for one in (US, NOBODY_KNOWS)]
    await rig.point.ask_together(several, Party())
    assert all(isinstance(one.told, Permit) for one in several)
    assert all(one.inquiry.case.exposure is not None for one in several)
    for one in several:
        await one.inquiry.unobserved()
    assert len(rig.records.outcomes) == 2


async def test_a_caller_that_goes_while_they_are_recorded_stops_all_of_them(monkeypatch):
    rig, reached = Rig(), asyncio.Event()

    async def slowly(_entries):
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(rig.point._parts.recorder, "decisions", slowly)
    several = [asked(rig), asked(rig)]
    running = asyncio.create_task(rig.point.ask_together(several, Party()))
    await reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [one.told for one in several] == [None, None]
    assert rig.records.log == []


async def test_no_more_than_some_wait_for_the_policy_at_once():
    rig, under_way, most = Rig(), 0, 0
    decide = rig.engine.decide

    async def slowly(request, canonical, *, valid_for):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        under_way -= 1
        return await decide(request, canonical, valid_for=valid_for)

    rig.engine.decide = slowly
    several = [asked(rig, ids=tuple(map(str, range(100, 100 + count)))) for count in range(1, 3 * AT_ONCE)]
    await rig.point.ask_together(several, Party())
    assert most == AT_ONCE
    assert all(isinstance(one.told, Permit) for one in several)


async def test_side_by_side_ends_with_nothing_under_way():
    begun, ended = [], []

    async def work(number):
        begun.append(number)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    running = asyncio.create_task(side_by_side([lambda at=at: work(at) for at in range(AT_ONCE + 5)]))
    while len(begun) < AT_ONCE:
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert sorted(begun) == sorted(ended) == list(range(AT_ONCE))


async def test_whoever_is_withdrawn_has_an_outcome_although_the_withdrawing_is_cancelled_too():
    rig, disk = Rig(), asyncio.Event()
    several = [asked(rig) for _ in range(3 * AT_ONCE)]
    await rig.point.ask_together(several, Party())
    write = rig.records.outcome

    async def slow(body, level):
        await write(body, level)
        await disk.wait()

    rig.records.outcome = slow
    withdrawing = asyncio.create_task(withdraw([one.inquiry for one in several], Final(code=Code.CANCELLED)))
    for _ in range(3):
        await asyncio.sleep(0)
    withdrawing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await withdrawing
    assert len(rig.records.outcomes) == 3 * AT_ONCE


async def test_whoever_is_cancelled_twice_in_one_turn_has_each_outcome_written():
    written = []

    class Told:
        async def gone(self, final):
            written.append(final)

    async def asking():
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            await withdraw([Told(), Told()], OK)
            raise

    task = asyncio.ensure_future(asking())
    await asyncio.sleep(0)
    task.cancel()
    asyncio.get_running_loop().call_soon(task.cancel)  # the caller goes, and the sidecar stops
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert written == [OK, OK]
