"""The decision cache: what is kept, for how long, and what makes it forget."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.decision.cache import CachedDecisionPoint, DecisionCache
from sidecar.errors import DecideError
from sidecar.vocabulary import (
    AccessRequest,
    Action,
    Decision,
    Effect,
    Environment,
    Reason,
    Resource,
    Subject,
    canonical,
)

REVISIONS = ("policy-1", "directory-1", "index-1")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Point:
    """Decides with a fixed life; can be told to do something while it decides, or to fail."""

    name = "fake"

    def __init__(self, ttl: int = 30) -> None:
        self.ttl = ttl
        self.asked = 0
        self.meanwhile = lambda: None

    async def decide(self, request: AccessRequest, canonical: bytes) -> Decision:
        self.asked += 1
        self.meanwhile()
        return decision(self.ttl)


def decision(ttl: int = 30) -> Decision:
    return Decision(effect=Effect.PERMIT, reasons=(Reason(code="ok", message="", rule="r"),), ttl_seconds=ttl)


def request(purpose: str = "p") -> AccessRequest:
    return AccessRequest(
        subject=Subject(), action=Action(), resource=Resource(),
        context=Environment(time="2026-11-22T12:00:00Z", phase="request", purpose=purpose),
    )  # fmt: skip


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock) -> DecisionCache:
    return DecisionCache(clock=clock, entries=4)


def put(cache: DecisionCache, key: bytes, ttl: int = 30, **more) -> bool:
    return cache.put(key, REVISIONS, decision(ttl), cache.ticket(), **more)


def test_an_equal_question_is_answered(cache):
    assert cache.get(b"a", REVISIONS) is None
    assert put(cache, b"a")
    assert cache.get(b"a", REVISIONS) == decision()
    assert cache.get(b"b", REVISIONS) is None
    assert (cache.hits, cache.misses) == (1, 2)


@pytest.mark.parametrize("position", range(3))
def test_under_another_revision_it_is_another_question(cache, position):
    put(cache, b"a")
    other = tuple("other" if i == position else one for i, one in enumerate(REVISIONS))
    assert cache.get(b"a", other) is None
    assert cache.get(b"a", REVISIONS) is not None


def test_life_ends(cache, clock):
    put(cache, b"a", ttl=30)
    clock.now += 29.9
    assert cache.get(b"a", REVISIONS) is not None
    clock.now += 0.1
    assert cache.get(b"a", REVISIONS) is None


def test_zero_is_never_kept(cache):
    assert not put(cache, b"a", ttl=0)
    assert len(cache) == 0


@pytest.mark.parametrize("valid_for", [0.0, -5.0])
def test_what_has_expired_is_never_kept(cache, valid_for):
    assert not put(cache, b"a", valid_for=valid_for)


def test_what_expires_sooner_caps_the_life(cache, clock):
    put(cache, b"a", ttl=30, valid_for=3.0)
    put(cache, b"b", ttl=3, valid_for=30.0)
    clock.now += 3
    assert cache.get(b"a", REVISIONS) is None
    assert cache.get(b"b", REVISIONS) is None


def test_life_counts_from_the_question(cache, clock):
    ticket = cache.ticket()
    clock.now += 20
    cache.put(b"a", REVISIONS, decision(30), ticket)
    clock.now += 10
    assert cache.get(b"a", REVISIONS) is None


def test_dropping_forgets_what_is_kept_and_what_is_under_way(cache):
    put(cache, b"a")
    ticket = cache.ticket()
    cache.drop()
    assert cache.get(b"a", REVISIONS) is None
    assert not cache.put(b"b", REVISIONS, decision(), ticket)
    assert cache.get(b"b", REVISIONS) is None
    assert put(cache, b"b")


def test_the_oldest_goes_first(cache):
    for key in (b"a", b"b", b"c", b"d", b"e"):
        put(cache, key)
    assert len(cache) == 4
    assert cache.get(b"a", REVISIONS) is None
    assert cache.get(b"e", REVISIONS) is not None


def test_memory_is_bounded(clock):
    cache = DecisionCache(clock=clock, entries=1000, max_bytes=10_000)
    for number in range(100):
        put(cache, bytes([number]) * 2000)
        assert cache.size_bytes <= 10_000
    assert len(cache) == 31
    assert put(cache, b"x" * 10_000), "a question of any size is kept by its digest"


def test_no_entries_means_no_cache(clock):
    cache = DecisionCache(clock=clock, entries=0)
    assert not put(cache, b"a")


@given(st.lists(st.tuples(st.sampled_from(["put", "drop", "wait", "revise"]), st.binary(min_size=1, max_size=2),
                          st.integers(0, 40)), max_size=60))  # fmt: skip
def test_nothing_outlives_its_life_its_revision_or_a_drop(steps):
    clock = Clock()
    cache = DecisionCache(clock=clock, entries=5, max_bytes=6000)
    revisions, model = ("1",), {}
    for verb, key, number in steps:
        if verb == "put":
            cache.put(key, revisions, decision(number), cache.ticket())
            model[key] = (revisions, clock.now + number, number)
        elif verb == "drop":
            cache.drop()
            model.clear()
        elif verb == "wait":
            clock.now += number
        else:
            revisions = (str(number),)
        found = cache.get(key, revisions)
        if found is not None:
            made_under, until, ttl = model[key]
            assert made_under == revisions
            assert clock.now < until
            assert found.ttl_seconds == ttl
        assert len(cache) <= 5
        assert 0 <= cache.size_bytes <= 6000
        assert (cache.size_bytes == 0) == (len(cache) == 0)


# --- as a decision point -----------------------------------------------------------------------------------------


def ask(point: CachedDecisionPoint, purpose: str = "p", **more) -> Decision:
    one = request(purpose)
    return asyncio.run(point.decide(one, canonical(one), **more))


def point(clock, inner, revisions=lambda: REVISIONS) -> CachedDecisionPoint:
    return CachedDecisionPoint(inner=inner, cache=DecisionCache(clock=clock), revisions=revisions)


def test_the_engine_is_asked_once(clock):
    inner = Point()
    cached = point(clock, inner)
    document = canonical(request())
    assert cached.peek(document) is None
    assert ask(cached) == ask(cached) == decision()
    assert cached.peek(document) == decision()
    assert inner.asked == 1
    ask(cached, "another")
    assert inner.asked == 2
    assert cached.name == "fake"


def test_zero_asks_every_time(clock):
    inner = Point(ttl=0)
    cached = point(clock, inner)
    ask(cached)
    ask(cached)
    assert inner.asked == 2


def test_a_change_while_deciding_is_not_remembered(clock):
    inner = Point()
    cached = point(clock, inner)
    inner.meanwhile = cached.cache.drop
    ask(cached)
    assert len(cached.cache) == 0


def test_a_revision_that_changes_while_deciding_is_not_remembered(clock):
    inner = Point()
    now = ["1"]
    cached = point(clock, inner, lambda: tuple(now))
    inner.meanwhile = lambda: now.__setitem__(0, "2")
    ask(cached)
    assert len(cached.cache) == 0


def test_the_callers_cap_holds(clock):
    inner = Point()
    cached = point(clock, inner)
    ask(cached, valid_for=1.0)
    clock.now += 1.0
    ask(cached)
    assert inner.asked == 2


def test_failures_are_not_remembered(clock):
    class Failing(Point):
        async def decide(self, request: AccessRequest, canonical: bytes) -> Decision:
            self.asked += 1
            raise DecideError("no answer", reason="policy_error")

    inner = Failing()
    cached = point(clock, inner)
    for _ in range(2):
        with pytest.raises(DecideError):
            ask(cached)
    assert inner.asked == 2
    assert len(cached.cache) == 0


def test_what_is_left_of_a_decision_s_life_is_told_while_it_is_answered() -> None:
    clock = Clock()
    cache = DecisionCache(clock=clock)
    assert cache.left(b"q", REVISIONS) == 0.0
    cache.put(b"q", REVISIONS, decision(30), cache.ticket(), valid_for=20.0)
    clock.now += 5
    assert cache.left(b"q", REVISIONS) == 15.0
    assert cache.left(b"q", ("policy-2", *REVISIONS[1:])) == 0.0
    clock.now += 15
    assert (cache.get(b"q", REVISIONS), cache.left(b"q", REVISIONS)) == (None, 0.0)
