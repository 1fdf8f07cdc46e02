"""Calls and stages are timed in compiled code as `CallStats` counts them, and by the clock of everything else."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar._native import RandomPool, StageTimes
from sidecar.observability.calls import CallObserver
from sidecar.observability.metrics import EDGES, CallStats

pytestmark = pytest.mark.unit
METHOD = "profiles.v1.Profiles/GetProfile"
NAMES = ("intercept", "identify", "describe", "decide", "record", "forward", "enforce", "answer", "größe")
SECONDS = st.one_of(st.floats(0, 100), st.sampled_from([*EDGES, 0.0, 1e-9, 1e6]))
STEP = st.one_of(st.tuples(st.sampled_from(NAMES), SECONDS), st.tuples(st.sampled_from(["begin", "resume"]), SECONDS))


def counted(stats: CallStats) -> dict[str, tuple[list[int], float]]:
    return {name: (one.buckets, one.total) for name, one in stats.stages.items()}


class Clock:
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.sampled_from(NAMES), SECONDS), max_size=40))
def test_a_passage_falls_into_the_bucket_that_python_puts_it_into(passages: list[tuple[str, float]]) -> None:
    plain, compiled = CallStats(), StageTimes(EDGES, RandomPool())
    for name, seconds in passages:
        plain.time(name, seconds)
        compiled.add(name, seconds)
    stats = CallStats()
    stats.add(compiled.read)
    assert counted(stats) == counted(plain)


@given(st.lists(STEP, max_size=40))
def test_a_call_s_stages_are_the_times_between_its_marks(steps: list[tuple[str, float]]) -> None:
    """Waiting counts for no stage; what the caller took between two questions counts for no call either."""
    clock, stats, plain = Clock(), CallStats(), CallStats()
    span = CallObserver(stats, clock=clock).begin(METHOD, None)
    since, away = clock.now, 0.0
    for name, seconds in steps:
        clock.now += seconds
        took, since = clock.now - since, clock.now
        if name == "begin":
            span.begin()
        elif name == "resume":
            span.resume()
            away += took
        else:
            span.stage(name)
            plain.time(name, took)
    span.end("OK", "permit", "")
    plain.count(METHOD, "permit", "", "OK", since - 100.0 - away)
    assert counted(stats) == counted(plain)
    assert stats.calls == plain.calls
    ((pair, timed),) = stats.durations.items()
    assert (timed.buckets, timed.total) == (plain.durations[pair].buckets, pytest.approx(plain.durations[pair].total))


def test_the_clock_is_the_one_that_deadlines_and_durations_are_on() -> None:
    observer = CallObserver(CallStats())
    for _ in range(50):
        before = time.perf_counter()
        span = observer.begin(METHOD, None)
        span.stage("intercept")
        after = time.perf_counter()
        assert before - 1e-4 <= span.started <= span.since <= after + 1e-4


def test_what_python_times_and_what_compiled_code_times_is_one_stage() -> None:
    stats = CallStats()
    first, second = CallObserver(stats, clock=Clock()), CallObserver(stats, clock=Clock())
    stats.time("decide", 0.5)
    for observer in (first, second):
        observer.begin(METHOD, None).stage("decide")
    assert sum(stats.stages["decide"].buckets) == 3
    assert stats.stages["decide"].total == 0.5


def test_an_event_is_counted_once() -> None:
    stats = CallStats()
    span = CallObserver(stats).begin(METHOD, None)
    span.event("filtered")
    span.event("refused", "identify")
    assert stats.events == {("filtered", ""): 1, ("refused", "identify"): 1}


def test_a_name_that_is_no_text_is_refused_and_counts_nothing() -> None:
    stats = CallStats()
    span = CallObserver(stats).begin(METHOD, None)
    with pytest.raises(UnicodeEncodeError):
        span.stage("\ud800")
    assert stats.stages == {}
