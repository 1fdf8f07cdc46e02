"""The embedded engine: Rego evaluated in this process, between two awaits.

An ordinary decision takes tens of microseconds, less than handing it to a thread, so it runs on the event loop with
the GIL released. A policy seen to be slow is taken off the loop until it behaves, and whoever it was slow for waits in a
lane of their own: a rule that runs away for somebody then delays their calls and nobody else's.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from sidecar import _native
from sidecar.decision.bundle import ENTRYPOINT, Bundle
from sidecar.decision.document import Decisions
from sidecar.decision.engines import Evaluate, TestResult
from sidecar.decision.guard import nullable_leaves
from sidecar.errors import ConfigurationError, DecideError
from sidecar.vocabulary import AccessRequest, Decision, ReasonCode

_SLOW_SECONDS: Final = 0.002
"""An evaluation that takes more of this thread's time sends the next ones to threads. Not wall time: being pre-empted on
a busy machine says nothing about the policy."""
_AWAY_CALLS: Final = 200
"""How many calls stay off the loop after a slow one."""
_SLOW_THREADS: Final = 2
_OTHER_THREADS: Final = 1
_WAITING: Final = 32
"""Calls of one lane that are under way or wait for a thread; the next is refused at once rather than late."""
_SLOW_KNOWN: Final = 1024

_TRIAL_SECONDS: Final = 10.0
"""What a test or a trial may take: a busy machine is not to be taken for a policy that fails."""
_SHOWN: Final = 10

MEMORY_BYTES: Final = 64 << 20
"""What an evaluation may take, beside the policies and their data."""

Offload = Callable[[Callable[[bytes], bytes], bytes], Awaitable[bytes]]
"""Calls a function with its argument somewhere else than on the event loop."""


class _Lane:
    """Threads for some of the calls that are off the loop."""

    def __init__(self, threads: int) -> None:
        self.free = asyncio.Semaphore(threads)
        self.waiting = 0


class EmbeddedEngine:
    """A `DecisionPoint` that answers from one compiled bundle. Immutable but for its own pace-keeping."""

    name = "embedded"

    def __init__(
        self,
        engine: _native.Engine,
        *,
        clock: Callable[[], float] = time.thread_time,
        offload: Offload = asyncio.to_thread,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._offload = offload
        self._decisions = Decisions()
        self._away = 0
        self._slow: dict[str | None, int] = {}
        """Whose last decision was slow, and how many more of theirs stay in the slow lane."""
        self._slow_lane, self._other_lane = _Lane(_SLOW_THREADS), _Lane(_OTHER_THREADS)

    async def decide(self, request: AccessRequest, canonical: bytes) -> Decision:
        """Decide on the canonical bytes, which are what is recorded.

        Raises DecideError(policy_error) when there is no well-formed answer in time.
        """
        who = request.subject.person.id or request.subject.workload.id  # whom to keep apart: the answer is to the bytes
        away = self._away or who in self._slow
        answer = await self._elsewhere(canonical, who) if away else self._timed(who, canonical)
        return self._decisions.of(answer)

    def _timed(self, who: str | None, canonical: bytes) -> bytes:
        start = self._clock()
        try:
            return _evaluate(self._engine, canonical)
        finally:
            if self._clock() - start > _SLOW_SECONDS:
                self._away = _AWAY_CALLS
                if len(self._slow) >= _SLOW_KNOWN:
                    self._slow.clear()
                self._slow[who] = _AWAY_CALLS

    async def _elsewhere(self, canonical: bytes, who: str | None) -> bytes:
        lane = self._slow_lane if who in self._slow else self._other_lane
        if lane.waiting >= _WAITING:
            raise _no_answer(f"{_WAITING} slow decisions are waiting already: the policy is too slow for the load")
        self._away = max(0, self._away - 1)
        if (left := self._slow.pop(who, 0)) > 1:
            self._slow[who] = left - 1
        lane.waiting += 1
        try:
            async with lane.free:
                return await self._offload(partial(self._timed, who), canonical)
        finally:
            lane.waiting -= 1

    async def close(self) -> None:
        """Nothing is held that needs closing; what is under way ends by itself."""


class EmbeddedMaker:
    """Compiles bundles for this process: an `EngineMaker`. `deadline_seconds` and `memory` (bytes) bound a decision.

    The engine has two evaluators: the plan that answers, and the interpreter that runs tests. `compared`: on trial, each
    document is put to both, so that no bundle comes into force on which they were seen to differ.
    """

    name = "embedded"

    def __init__(self, deadline_seconds: float, memory: int = MEMORY_BYTES, *, compared: bool = True) -> None:
        self._deadline = deadline_seconds
        self._memory = memory
        self._compared = compared

    def run_tests(self, bundle: Bundle) -> tuple[TestResult, ...]:
        """Every test rule, in this process. ConfigurationError when the policies or tests do not load."""
        engine = self._compiled(bundle, bundle.modules + bundle.tests, _TRIAL_SECONDS)
        return tuple(
            TestResult(package=package, name=name, passed=passed, error=error, seconds=micros / 1e6)
            for package, name, passed, error, micros in engine.run_tests(deadline_seconds=_TRIAL_SECONDS)
        )

    @contextmanager
    def trial(self, bundle: Bundle) -> Iterator[Evaluate]:
        """The bundle, to be tried with time to spare. `Evaluate` raises ConfigurationError where its evaluators differ."""
        answering = self._compiled(bundle, bundle.modules, _TRIAL_SECONDS)
        if not (self._compared and answering.planned):
            yield answering.evaluate_json
            return
        other = self._compiled(bundle, bundle.modules, _TRIAL_SECONDS, interpreted=True)
        yield partial(agreed, answering.evaluate_json, other.evaluate_json)

    def make(self, bundle: Bundle) -> EmbeddedEngine:
        """The bundle without its tests: each module costs time in every decision."""
        return EmbeddedEngine(self._compiled(bundle, bundle.modules, self._deadline))

    def _compiled(
        self, bundle: Bundle, modules: tuple[tuple[str, str], ...], deadline: float, *, interpreted: bool = False
    ) -> _native.Engine:
        leaves, memory = nullable_leaves(), self._memory
        try:
            return _native.Engine(
                modules, bundle.data, ENTRYPOINT, deadline, leaves, memory_bytes=memory, interpreted=interpreted
            )
        except _native.LoadError as error:
            lines = str(error).splitlines()
            more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
            raise ConfigurationError(
                "the policies do not load: " + "; ".join(lines[:_SHOWN] + more),
                fix="Mend the lines named; docs/adr/0003-policy-layout.md says what the engine accepts and why",
            ) from None


def agreed(plan: Evaluate, interpreter: Evaluate, canonical: bytes) -> bytes:
    """The plan's answer, if the interpreter's is the same. Raises what the plan raises, and ConfigurationError.

    Where the interpreter fails it says nothing about the answer: it also evaluates rules that nobody asked for.
    """
    there: bytes | None
    try:
        there = interpreter(canonical)
    except _native.Undefined:
        there = None
    except (_native.EvaluationError, ValueError):
        return plan(canonical)
    here: bytes | None
    try:
        here = plan(canonical)
    except (_native.DeadlineExceeded, _native.MemoryExceeded):
        raise
    except _native.EvaluationError as error:
        if there is None:
            raise
        raise _differ(canonical, str(error)) from None
    if here != there:
        raise _differ(canonical, "undefined" if there is None else "another value")
    return here


def _differ(canonical: bytes, how: str) -> ConfigurationError:
    return ConfigurationError(
        f"the engine's two evaluators differ on a document: {how}", value=canonical.decode(errors="replace"),
        fix="Report it, and write the rule in another way.",
    )  # fmt: skip


def _evaluate(engine: _native.Engine, canonical: bytes) -> bytes:
    try:
        return engine.evaluate_json(canonical)
    except _native.Undefined:
        raise _no_answer("the entrypoint is undefined for this input: give the decision rule a default") from None
    except _native.DeadlineExceeded:
        raise _no_answer("the policy did not answer within the deadline: simplify it, or index its tables") from None
    except _native.MemoryExceeded as error:
        raise _no_answer(f"the policy took too much memory: {error}. Bound what it builds from the input") from None
    except _native.EvaluationError as error:
        raise _no_answer(f"the policy failed: {error}. The record of the call holds the input") from None
    except ValueError as error:
        raise _no_answer(f"the input document cannot be read: {error}") from None


def _no_answer(operator: str) -> DecideError:
    return DecideError("the policy gave no decision", reason=ReasonCode.POLICY_ERROR, operator=operator)
