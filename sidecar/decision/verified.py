"""A second engine behind the first: on a share of questions both are asked, and where they differ somebody learns of it.

What the first answers counts, or nothing does: the second can never turn a deny into a permit.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal, Protocol

import msgspec

from sidecar._native import DeadlineExceeded, EvaluationError, MemoryExceeded
from sidecar.decision.bundle import Bundle
from sidecar.decision.document import parse_decision
from sidecar.decision.engines import Engine, EngineMaker, Evaluate, TestResult
from sidecar.decision.under_way import UnderWay
from sidecar.errors import ConfigurationError, DecideError
from sidecar.vocabulary import AccessRequest, Decision, ReasonCode

WAITING: Final = 1024
"""Questions that may wait for the second engine; further ones are not checked, and counted."""
_WORKERS: Final = 4
_CLOSING_SECONDS: Final = 10.0
_CHECKING_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """Two answers to one question. `input_sha256` is hex, of the canonical document."""

    input_sha256: str
    revision: str
    engines: tuple[str, str]
    first: Decision
    second: Decision


Unchecked = Literal["dropped", "no_answer"]


class Told(Protocol):
    """Who learns what comes of checking. What these raise concerns no call."""

    async def differ(self, found: Disagreement) -> None:
        """Record a difference."""

    def unchecked(self, why: Unchecked, detail: str) -> None:
        """A sampled question was not checked: too many waited, or the second engine had no answer."""


@dataclass(slots=True)
class Counts:
    """Of the process, over every bundle. `dropped`: sampled, but not checked, because too many waited."""

    checked: int = 0
    disagreed: int = 0
    unanswered: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """How the second engine is used.

    `sample` is a share of questions, chosen by `draw` (in [0, 1)). `refuse`: wait for both, and refuse where they differ
    or the second has no answer; otherwise the second is asked afterwards, and only told about.
    """

    sample: float
    refuse: bool
    draw: Callable[[], float]
    told: Told
    counts: Counts

    def sampled(self) -> bool:
        """Whether this question is one of the share."""
        return self.sample >= 1.0 or self.draw() < self.sample


class VerifiedEngine:
    """An `Engine` that answers with `first`, and asks `second` as `checks` say. One event loop."""

    def __init__(self, first: Engine, second: Engine, revision: str, checks: Checks) -> None:
        self._first, self._second, self._revision, self._checks = first, second, revision, checks
        self._queue: asyncio.Queue[tuple[AccessRequest, bytes, Decision]] = asyncio.Queue(WAITING)
        self._workers: list[asyncio.Task[None]] = []
        self._under_way = UnderWay()

    @property
    def name(self) -> str:
        """The first engine's: its answer is the one that counts."""
        return self._first.name

    async def decide(self, request: AccessRequest, canonical: bytes) -> Decision:
        """The first engine's decision. DecideError as the first, and where both are waited for and differ."""
        with self._under_way.one():
            if not self._checks.sampled():
                return await self._first.decide(request, canonical)
            if self._checks.refuse:
                return await self._agreed(request, canonical)
            decision = await self._first.decide(request, canonical)
            self._later(request, canonical, decision)
            return decision

    async def close(self) -> None:
        """Let those under way end, check what waits, for a while; then close both. Idempotent."""
        if not await self._under_way.close(_CLOSING_SECONDS):
            return
        if self._workers:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHECKING_SECONDS):
                    await self._queue.join()
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        if left := self._queue.qsize():
            self._dropped(left)
        await self._first.close()
        await self._second.close()

    async def _agreed(self, request: AccessRequest, canonical: bytes) -> Decision:
        first, second = await asyncio.gather(
            self._first.decide(request, canonical), self._second.decide(request, canonical), return_exceptions=True
        )
        if isinstance(first, BaseException):
            raise first
        if isinstance(second, BaseException):
            if not isinstance(second, DecideError):
                raise second
            self._unanswered(second)
            raise _refused(f"{self._second.name}, which checks {self.name}, gave no answer: {second.operator}")
        if not await self._compared(canonical, first, second):
            raise _refused(f"{self.name} and {self._second.name} differ; the record engine_disagreement says how")
        return first

    def _later(self, request: AccessRequest, canonical: bytes, decision: Decision) -> None:
        if not self._workers:
            self._workers = [asyncio.create_task(self._work(), name="engine-check") for _ in range(_WORKERS)]
        try:
            self._queue.put_nowait((request, canonical, decision))
        except asyncio.QueueFull:
            self._dropped(1)

    async def _work(self) -> None:
        while True:
            request, canonical, first = await self._queue.get()
            try:
                await self._compared(canonical, first, await self._second.decide(request, canonical))
            except Exception as error:  # noqa: BLE001 - the next question is checked all the same
                self._unanswered(error)
            finally:
                self._queue.task_done()

    async def _compared(self, canonical: bytes, first: Decision, second: Decision) -> bool:
        """Whether both say the same; tells of it where not."""
        self._checks.counts.checked += 1
        if first == second:
            return True
        self._checks.counts.disagreed += 1
        found = Disagreement(
            input_sha256=sha256(canonical).hexdigest(), revision=self._revision,
            engines=(self.name, self._second.name), first=first, second=second,
        )  # fmt: skip
        with suppress(Exception):  # the refusal stands, or the answer has been given
            await self._checks.told.differ(found)
        return False

    def _unanswered(self, error: Exception) -> None:
        self._checks.counts.unanswered += 1
        said = error.operator if isinstance(error, DecideError) else type(error).__name__
        with suppress(Exception):
            self._checks.told.unchecked("no_answer", f"{self._second.name}: {said}")

    def _dropped(self, count: int) -> None:
        self._checks.counts.dropped += count
        with suppress(Exception):
            self._checks.told.unchecked("dropped", f"more than {WAITING} decisions waited for {self._second.name}")


class VerifiedMaker:
    """Makes both engines of each bundle: an `EngineMaker`. `sample`, `refuse` and so on as `Checks`."""

    def __init__(
        self, first: EngineMaker, second: EngineMaker, *, sample: float, refuse: bool, draw: Callable[[], float],
        told: Told,
    ) -> None:  # fmt: skip
        self._first, self._second = first, second
        self.counts = Counts()
        self._checks = Checks(sample=sample, refuse=refuse, draw=draw, told=told, counts=self.counts)

    @property
    def name(self) -> str:
        """The first engine's."""
        return self._first.name

    def run_tests(self, bundle: Bundle) -> tuple[TestResult, ...]:
        """The first engine's results; a test that fails only on the second fails."""
        there = {(one.package, one.name): one for one in self._second.run_tests(bundle)}
        return tuple(self._both(one, there.get((one.package, one.name))) for one in self._first.run_tests(bundle))

    @contextmanager
    def trial(self, bundle: Bundle) -> Iterator[Evaluate]:
        """The first engine, held against the second on every document. ConfigurationError where they differ."""
        with self._first.trial(bundle) as first, self._second.trial(bundle) as second:
            yield lambda canonical: self._tried(first, second, canonical)

    def make(self, bundle: Bundle) -> VerifiedEngine:
        """Both engines, ready."""
        return VerifiedEngine(self._first.make(bundle), self._second.make(bundle), bundle.revision, self._checks)

    def _both(self, first: TestResult, second: TestResult | None) -> TestResult:
        if not first.passed or (second is not None and second.passed):
            return first
        why = "is not run" if second is None else f"fails{f': {second.error}' if second.error else ''}"
        return TestResult(
            package=first.package, name=first.name, passed=False, seconds=first.seconds,
            error=f"passes on {self._first.name}, {why} on {self._second.name}",
        )  # fmt: skip

    def _tried(self, first: Evaluate, second: Evaluate, canonical: bytes) -> bytes:
        """The first's answer. That one engine refuses what the other answers is allowed unless it is a permit that counts."""
        other = _decision(second, canonical)
        answer = first(canonical)
        decision = _typed(answer)
        if decision is not None and other != decision and (other is not None or decision.permits):
            raise ConfigurationError(
                f"the engines differ on input {sha256(canonical).hexdigest()}: {self._first.name} says "
                f"{_short(decision)}, {self._second.name} {_short(other)}",
                fix="OPA is the reference: report it, and write the rule in another way.",
            )
        return answer


def _decision(evaluate: Evaluate, canonical: bytes) -> Decision | None:
    try:
        return _typed(evaluate(canonical))
    except (DeadlineExceeded, MemoryExceeded):
        raise
    except (EvaluationError, ValueError):
        return None


def _typed(answer: bytes) -> Decision | None:
    try:
        return parse_decision(msgspec.json.decode(answer))
    except (ValueError, DecideError):
        return None


def _short(decision: Decision | None) -> str:
    if decision is None:
        return "nothing"
    return f"{decision.effect} ({', '.join(sorted({reason.code for reason in decision.reasons}))})"


def _refused(operator: str) -> DecideError:
    return DecideError("the engines do not agree", reason=ReasonCode.POLICY_ERROR, operator=operator)
