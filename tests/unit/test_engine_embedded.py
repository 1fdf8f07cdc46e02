"""The embedded engine as the pipeline sees it: a decision or a DecideError, and a loop that stays free."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar import _native
from sidecar.decision.document import Decisions
from sidecar.decision.embedded import EmbeddedEngine, EmbeddedMaker, agreed
from sidecar.decision.engines import Evaluate
from sidecar.decision.folder import load_folder
from sidecar.errors import Code, ConfigurationError, DecideError
from sidecar.vocabulary import (
    AccessRequest,
    Action,
    Decision,
    Effect,
    Environment,
    LimitRecords,
    Person,
    Resource,
    Subject,
    UnknownObligation,
    canonical,
)

pytestmark = pytest.mark.unit

PERMIT = {
    "effect": "permit",
    "reasons": [{"code": "eligible", "message": "vetted", "rule": "personnel"}],
    "obligations": [],
    "advice": [],
    "ttl_seconds": 30,
}
SPIN = "count([1 | some a in data.l; some b in data.l; some c in data.l; a + b + c == 1]) >= 0"


def request(action: str = "read") -> AccessRequest:
    context = Environment(time="2026-01-31T10:00Z", phase="request")
    return AccessRequest(subject=Subject(), action=Action(name=action), resource=Resource(), context=context)


def engine(rules: str, deadline: float = 0.05) -> _native.Engine:
    data = json.dumps({"l": list(range(400))}).encode()
    return _native.Engine([("decision.rego", f"package sidecar\n\n{rules}\n")], data, deadline_seconds=deadline)


def returning(document: object) -> EmbeddedEngine:
    return EmbeddedEngine(engine(f"decision := {json.dumps(document)}", 5.0))


async def decide(point: EmbeddedEngine, action: str = "read") -> Decision:
    asked = request(action)
    return await point.decide(asked, canonical(asked))


async def test_a_permit_is_typed() -> None:
    decision = await decide(returning(PERMIT | {"obligations": [{"id": "limit_records", "max": 5}, {"id": "new"}]}))
    assert decision.effect is Effect.PERMIT
    assert decision.reasons[0].rule == "personnel"
    assert decision.obligations == (LimitRecords(max=5), UnknownObligation(name="new"))
    assert decision.ttl_seconds == 30


async def test_the_policy_sees_the_canonical_document() -> None:
    deny = PERMIT | {"effect": "deny", "reasons": [{"code": "action_not_allowed", "message": "no", "rule": "r"}]}
    rules = f'default decision := {json.dumps(deny)}\n\ndecision := {json.dumps(PERMIT)} if input.action.name == "list"'
    point = EmbeddedEngine(engine(rules))
    assert (await decide(point, "list")).permits
    assert not (await decide(point, "write")).permits
    assert point.name == "embedded"


REASON = {"code": "not_us_personnel", "message": "m", "rule": "r"}


@pytest.mark.parametrize(
    "change",
    [
        {"effect": "allow"},
        {"effect": None},
        {"reasons": []},
        {"reasons": [{"code": "x", "message": "m"}]},
        {"reasons": [REASON | {"rule": ""}]},
        {"reasons": [REASON | {"more": 1}]},
        {"effect": "deny", "reasons": [REASON | {"code": "made_up"}]},
        {"reasons": "none"},
        {"obligations": {"id": "limit_records"}},
        {"obligations": [{"max": 5}]},
        {"obligations": [{"id": "limit_records", "max": "5"}]},
        {"ttl_seconds": -1},
        {"ttl_seconds": "30"},
        {"ttl_seconds": True},
        {"advice": [1]},
        {"surplus": True},
    ],
    ids=str,
)
async def test_ill_typed_decisions_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(DecideError) as caught:
        await decide(returning(PERMIT | change))
    assert caught.value.reason == "policy_error"
    assert caught.value.code is Code.UNAVAILABLE


@pytest.mark.parametrize("missing", sorted(PERMIT))
async def test_every_part_of_a_decision_is_needed(missing: str) -> None:
    with pytest.raises(DecideError):
        await decide(returning({key: value for key, value in PERMIT.items() if key != missing}))


@pytest.mark.parametrize("document", [True, None, "permit", [PERMIT], 7])
async def test_other_values_are_no_decision(document: object) -> None:
    with pytest.raises(DecideError):
        await decide(returning(document))


@pytest.mark.parametrize(
    ("rules", "operator"),
    [
        ("decision := 1 if input.action.name == 1", "undefined"),
        ("decision := lower(input.version)", "lower"),
        ('decision := "a" if input.version == 1\n\ndecision := "b" if input.version == 1', "failed"),
        (f"decision if {SPIN}", "deadline"),
    ],
)
async def test_no_answer_is_a_refusal_that_tells_only_the_operator_why(rules: str, operator: str) -> None:
    with pytest.raises(DecideError) as caught:
        await decide(EmbeddedEngine(engine(rules)))
    assert caught.value.reason == "policy_error"
    assert operator in caught.value.operator
    assert caught.value.message == "the policy gave no decision"


async def test_too_much_memory_is_a_refusal_that_says_so_to_the_operator() -> None:
    rules = "decision := product([9 | some a in data.l; some b in data.l])"
    with pytest.raises(DecideError) as caught:
        await decide(EmbeddedEngine(engine(rules, 30.0)))
    assert caught.value.reason == "policy_error"
    assert "memory" in caught.value.operator
    assert "decision.rego:3:20" in caught.value.operator
    assert caught.value.message == "the policy gave no decision"


async def test_bytes_that_are_no_document_are_refused() -> None:
    with pytest.raises(DecideError, match="no decision"):
        await returning(PERMIT).decide(request(), b'{"a": 1, "a": 2}')


class Steps:
    """A clock that gains `by` seconds at each look."""

    def __init__(self, by: float) -> None:
        self.by, self.now = by, 0.0

    def __call__(self) -> float:
        self.now += self.by
        return self.now


class Threads:
    """Counts what is handed to threads."""

    def __init__(self) -> None:
        self.used = 0

    async def __call__(self, function: Callable[[bytes], bytes], argument: bytes) -> bytes:
        self.used += 1
        return await asyncio.to_thread(function, argument)


async def test_a_quick_policy_stays_on_the_loop() -> None:
    threads = Threads()
    point = EmbeddedEngine(engine(f"decision := {json.dumps(PERMIT)}"), clock=Steps(0.0001), offload=threads)
    for _ in range(10):
        assert (await decide(point)).permits
    assert threads.used == 0


async def test_a_slow_policy_leaves_the_loop_and_comes_back() -> None:
    threads = Threads()
    clock = Steps(0.01)
    point = EmbeddedEngine(engine(f"decision := {json.dumps(PERMIT)}", 5.0), clock=clock, offload=threads)
    for _ in range(5):
        assert (await decide(point)).permits
    assert threads.used == 4
    clock.by = 0.0
    for _ in range(250):
        await decide(point)
    assert 4 < threads.used < 250


async def test_a_runaway_policy_delays_nobody_else() -> None:
    rules = f'decision := {json.dumps(PERMIT)}\n\ndecision := 1 if {{\n  input.action.name == "export"\n  {SPIN}\n}}'
    point = EmbeddedEngine(engine(rules, 0.5))
    with pytest.raises(DecideError):
        await decide(point, "export")
    longest = 0.0

    async def beat() -> None:
        nonlocal longest
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - start)

    pulse = asyncio.create_task(beat())
    outcomes = await asyncio.gather(*(decide(point, "export") for _ in range(6)), return_exceptions=True)
    pulse.cancel()
    assert all(isinstance(outcome, DecideError) for outcome in outcomes)
    # On the loop, six calls of 500 ms each would have held it for 3 s.
    assert longest < 1.5


async def test_more_slow_calls_than_may_wait_are_refused_at_once() -> None:
    point = EmbeddedEngine(engine(f"decision if {SPIN}"))
    with pytest.raises(DecideError):
        await decide(point)
    outcomes = await asyncio.gather(*(decide(point) for _ in range(80)), return_exceptions=True)
    told = [outcome.operator for outcome in outcomes if isinstance(outcome, DecideError)]
    assert len(told) == 80
    assert sum("waiting already" in text for text in told) == 80 - 32


async def test_whom_a_rule_runs_away_for_waits_alone() -> None:
    """Others do not stand behind them, however many there are."""
    rules = f'decision := {json.dumps(PERMIT)}\n\ndecision := 1 if {{\n  input.subject.person.id == "eve"\n  {SPIN}\n}}'
    point = EmbeddedEngine(engine(rules, 0.2))

    async def asked(person: str) -> object:
        request = AccessRequest(
            subject=Subject(kind="personnel", person=Person(id=person)), action=Action(name="read"), resource=Resource(),
            context=Environment(time="2026-01-01T00:00:00Z", phase="request"),
        )  # fmt: skip
        return await point.decide(request, canonical(request))

    with pytest.raises(DecideError):
        await asked("eve")
    runaway = [asyncio.create_task(asked("eve")) for _ in range(40)]
    await asyncio.sleep(0.01)
    for _ in range(5):
        assert (await asked("amy")).permits
    assert sum(one.done() for one in runaway) < 20, "all five were answered while most of eve's still waited"
    outcomes = await asyncio.gather(*runaway, return_exceptions=True)
    assert all(isinstance(one, DecideError) for one in outcomes)


async def test_equal_answers_are_one_object_and_other_answers_are_not() -> None:
    rules = f'decision := object.union({json.dumps(PERMIT)}, {{"advice": [input.action.name]}})'
    point = EmbeddedEngine(engine(rules, 5.0))
    first = await decide(point, "read")
    assert await decide(point, "read") is first
    assert (await decide(point, "list")).advice == ("list",)
    assert await decide(point, "read") is first


def test_a_memory_of_decisions_is_bounded_and_forgets_nothing_it_still_needs() -> None:
    decisions = Decisions()
    documents = [json.dumps(PERMIT | {"ttl_seconds": number}).encode() for number in range(3000)]
    for number, document in enumerate(documents):
        made = decisions.of(document)
        assert made.ttl_seconds == number
        assert decisions.of(document) is made
    assert len(decisions) <= 1024
    long = json.dumps(PERMIT | {"advice": ["x" * 9000]}).encode()
    held = len(decisions)
    assert decisions.of(long) == decisions.of(long)
    assert len(decisions) == held


@pytest.mark.parametrize("answer", [b"", b"{", b"\xff", b"null", json.dumps(PERMIT | {"surplus": 1}).encode()])
def test_what_is_no_decision_is_refused_each_time(answer: bytes) -> None:
    decisions = Decisions()
    for _ in range(2):
        with pytest.raises(DecideError):
            decisions.of(answer)
    assert len(decisions) == 0


# -- two evaluators -----------------------------------------------------------------------------------------------------


def says(outcome: bytes | Exception) -> Evaluate:
    def evaluate(_: bytes) -> bytes:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return evaluate


def test_one_answer_of_both_evaluators_counts() -> None:
    assert agreed(says(b"1"), says(b"1"), b"{}") == b"1"


@pytest.mark.parametrize(
    "interpreter", [_native.EvaluationError("x"), _native.DeadlineExceeded("x"), ValueError("x")], ids=repr
)
def test_an_interpreter_that_fails_says_nothing_about_the_answer(interpreter: Exception) -> None:
    assert agreed(says(b"1"), says(interpreter), b"{}") == b"1"


@pytest.mark.parametrize(
    ("plan", "interpreter"),
    [
        (b"1", b"2"),
        (b"1", _native.Undefined("x")),
        (_native.Undefined("x"), b"1"),
        (_native.EvaluationError("x"), b"1"),
    ],
    ids=repr,
)
def test_evaluators_that_differ_refuse_the_bundle(plan: bytes | Exception, interpreter: bytes | Exception) -> None:
    with pytest.raises(ConfigurationError, match="differ"):
        agreed(says(plan), says(interpreter), b"{}")


@pytest.mark.parametrize(
    ("plan", "interpreter"),
    [
        (_native.DeadlineExceeded("x"), b"1"),
        (_native.MemoryExceeded("x"), b"1"),
        (_native.Undefined("x"), _native.Undefined("x")),
        (_native.EvaluationError("x"), _native.Undefined("x")),
        (_native.EvaluationError("x"), _native.EvaluationError("y")),
    ],
    ids=repr,
)
def test_a_plan_without_an_answer_has_none(plan: Exception, interpreter: bytes | Exception) -> None:
    with pytest.raises(type(plan)):
        agreed(says(plan), says(interpreter), b"{}")


def test_the_shipped_bundle_is_tried_on_both_evaluators() -> None:
    bundle = load_folder(Path("policies"))
    with EmbeddedMaker(5.0).trial(bundle) as both, EmbeddedMaker(5.0, compared=False).trial(bundle) as one:
        for asked in bundle.corpus:
            assert both(canonical(asked)) == one(canonical(asked))
