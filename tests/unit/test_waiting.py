"""Permits that wait to be reported: whose they are, for how long, and that each ends in one outcome."""

import asyncio
import gc
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.doors.waiting import Waiting
from sidecar.enforcement.unreported import Unreported
from sidecar.errors import Code, RecordError
from sidecar.vocabulary import ReasonCode

pytestmark = pytest.mark.unit


class Inquiry:
    """Notes that it was ended, and after how many others."""

    at_once = False
    """Whether its outcome waits for nothing."""

    def __init__(self, call_id, ended):
        self.call_id, self._ended = call_id, ended

    def handed_out(self):
        return self

    async def unobserved(self):
        await asyncio.sleep(0)
        self._ended.append(self.call_id)


class AtOnce(Inquiry):
    at_once = True

    async def unobserved(self):
        self._ended.append(self.call_id)


class Span:
    started = 0.0

    def __init__(self, call_id, ended):
        self._call_id, self._ended = call_id, ended

    def resume(self):
        assert self._call_id not in self._ended

    def stage(self, name):
        assert name == "answer"

    def end(self, status, effect, reason):
        self._ended.append(self._call_id)


class Recorder:
    """Notes how many outcomes came in each piece, and at which level."""

    def __init__(self):
        self.pieces, self.fails = [], False

    async def outcomes(self, bodies, level):
        assert {one.seen for one in bodies} == {"unobserved"}
        self.pieces.append((len(bodies), level))
        if level != "written":
            await asyncio.sleep(0)
        if self.fails:
            raise RecordError("the access cannot be recorded now", reason=ReasonCode.RECORD_UNAVAILABLE)


class NothingLeft(Inquiry):
    """Of whose call nothing is left but to report it."""

    recorder, level = Recorder(), "written"

    def handed_out(self):
        parts = SimpleNamespace(recorder=self.recorder, report=lambda _error: None)
        return Unreported(self.call_id, parts, Span(self.call_id, self._ended), self.level)


class Committed(NothingLeft):
    level = "committed"


KINDS = [Inquiry, AtOnce, NothingLeft, Committed]


def kept(most=10, kind=Inquiry, **more):
    clock, ended = SimpleNamespace(now=100.0), []
    waiting = Waiting(lambda: clock.now, 30.0, most, look=0.001, **more)
    return waiting, clock, ended, lambda name: kind(name, ended)


def test_a_permit_is_taken_once_and_by_its_owner_only():
    waiting, _, _, made = kept()
    one = made("a")
    waiting.put(one, "web")
    assert "a" in waiting
    assert waiting.take("a", "other") is None
    assert waiting.take("b", "web") is None
    assert waiting.take("a", "web") is one
    assert waiting.take("a", "web") is None
    assert ("a" in waiting, len(waiting)) == (False, 0)


def test_a_permit_that_has_lapsed_is_nobodys_even_before_its_outcome_is_written():
    waiting, clock, _, made = kept()
    waiting.put(made("a"), "web")
    clock.now += 29.999
    assert waiting.take("a", "web") is not None
    waiting.put(made("b"), "web")
    clock.now += 30.0
    assert waiting.take("b", "web") is None


@pytest.mark.parametrize("kind", KINDS)
async def test_what_has_lapsed_is_unobserved_and_the_rest_goes_on_waiting(kind):
    waiting, clock, ended, made = kept(most=1000, kind=kind)
    running = asyncio.create_task(waiting.run())
    for number in range(200):
        waiting.put(made(f"old{number}"), "web")
    clock.now += 20
    waiting.put(made("new"), "web")
    clock.now += 11
    while len(waiting) > 1 or len(ended) < 200:
        await asyncio.sleep(0.001)
    assert ended == [f"old{number}" for number in range(200)]
    assert waiting.take("new", "web") is not None
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("kind", KINDS)
async def test_others_are_served_while_many_lapse(kind):
    waiting, _, ended, made = kept(most=1000, kind=kind)
    for number in range(500):
        waiting.put(made(str(number)), "web")
    closing, turns = asyncio.ensure_future(waiting.close()), []
    while not closing.done():
        await asyncio.sleep(0)
        turns.append(len(ended))
    assert len(ended) == 500
    assert max(after - before for before, after in zip([0, *turns], turns, strict=False)) <= 64


@pytest.mark.parametrize("kind", KINDS)
async def test_close_ends_everything_and_takes_nothing_more(kind):
    waiting, _, ended, made = kept(most=1000, kind=kind)
    for number in range(150):
        waiting.put(made(str(number)), f"w{number % 3}")
    await waiting.close()
    await waiting.close()
    assert (len(ended), len(waiting)) == (150, 0)
    with pytest.raises(RecordError, match="no more permits can wait"):
        waiting.put(made("late"), "web")


@pytest.mark.parametrize("kind", [Inquiry, AtOnce])
async def test_one_outcome_that_fails_loses_no_other(kind):
    waiting, _, ended, made = kept(kind=kind)

    class Broken(kind):
        async def unobserved(self):
            raise RuntimeError("a bug")

    waiting.put(made("a"), "web")
    waiting.put(Broken("b", ended), "web")
    waiting.put(made("c"), "web")
    with pytest.raises(RuntimeError):
        await waiting.close()
    await waiting.close()
    assert ended == ["a", "c"]


async def test_the_outcomes_of_those_with_nothing_left_are_written_in_pieces_of_one_level():
    recorder, ended = Recorder(), []
    waiting, _, _, _ = kept(most=1000)
    for number in range(130):
        one = (NothingLeft if number % 3 else Committed)(str(number), ended)
        one.recorder = recorder
        waiting.put(one, "web")
    await waiting.close()
    assert sum(size for size, _ in recorder.pieces) == 130
    assert len(recorder.pieces) == 2 * 3
    assert {level for _, level in recorder.pieces} == {"written", "committed"}


async def test_a_piece_that_cannot_be_written_is_owed_and_ends_every_call_of_it():
    recorder, ended, reported = Recorder(), [], []
    recorder.fails = True
    waiting, _, _, _ = kept()
    for name in "abc":
        parts = SimpleNamespace(recorder=recorder, report=reported.append)
        one = NothingLeft(name, ended)
        one.handed_out = lambda name=name, parts=parts: Unreported(name, parts, Span(name, ended), "written")
        waiting.put(one, "web")
    await waiting.close()
    assert (ended, len(waiting), len(reported)) == (["a", "b", "c"], 0, 3)


def test_what_waits_for_a_report_alone_is_nothing_for_the_collector_of_cycles():
    waiting, _, _, made = kept(kind=NothingLeft)
    waiting.put(made("a"), "web")
    (held,) = waiting._held.values()
    assert (gc.is_tracked(held), gc.is_tracked(held.waiter)) == (False, False)


def test_beyond_the_bounds_nothing_is_kept():
    waiting, _, _, made = kept(most=3, per_owner=2)
    waiting.put(made("a"), "web")
    waiting.put(made("b"), "web")
    with pytest.raises(RecordError) as caught:
        waiting.put(made("c"), "web")
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "record_unavailable")
    assert "checks.waiting" in caught.value.operator
    waiting.put(made("d"), "other")
    with pytest.raises(RecordError):
        waiting.put(made("e"), "third")
    assert waiting.take("a", "web") is not None
    waiting.put(made("f"), "web")


STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "take", "tick", "expire"]), st.integers(0, 5), st.integers(0, 2)), max_size=60
)


@given(STEPS)
@settings(deadline=None)
def test_every_permit_ends_exactly_once_whatever_happens(steps):
    """Each is taken by its owner, or unobserved; never both, never neither."""

    async def play():
        waiting, clock, ended, made = kept(most=8, per_owner=5)
        given, taken = {}, []
        for number, (step, which, owner) in enumerate(steps):
            if step == "put":
                try:
                    waiting.put(made(f"p{number}"), str(owner))
                except RecordError:
                    assert len(waiting) == 8 or sum(given[one] == str(owner) for one in waiting._held) == 5
                else:
                    given[f"p{number}"] = str(owner)
            elif step == "take" and given:
                name = sorted(given)[which % len(given)]
                if waiting.take(name, str(owner)) is not None:
                    assert given[name] == str(owner)
                    taken.append(name)
            elif step == "tick":
                clock.now += 7 * which
            else:
                await waiting._expire(clock.now)
        await waiting.close()
        assert sorted(taken + ended) == sorted(given)
        assert waiting._owners == {}

    asyncio.run(play())
