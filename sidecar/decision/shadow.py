"""Shadow: a candidate policy asked what the one in force has already answered, and compared with it.

The call path only puts a question into a bounded queue after it was answered; a thread of its own takes it from there,
within a share of one core. Invariants:

* What the policy in force answered is returned as it is, whatever happens here.
* A full queue drops and counts; nothing waits for the candidate.
* Equal documents are asked once for each candidate revision, so answers from the decision cache are compared as well.
* Nothing here holds a person's id: a flip names the document by its SHA-256, which the decision records hold in full.
"""

from collections import deque
from collections.abc import Callable
from hashlib import sha256
from typing import Final, NamedTuple, Protocol

import msgspec

from sidecar.decision import flips
from sidecar.decision.engines import Evaluate
from sidecar.decision.flips import KINDS, Kind, Verdict
from sidecar.vocabulary import AccessRequest, Decision

QUEUE: Final = 1024
"""Questions that may wait; about 3 kB each."""
FLIPS: Final = 20
"""Flips of each kind recorded one by one between two summaries; further ones are only counted."""
SHARE: Final = 0.25
"""Of one core, for the candidate."""
_SLICE: Final = 0.005
_IDLE: Final = 0.02
_LONGEST_REST: Final = 1.0
_MOST_KNOWN: Final = 65_536
_MOST_SHARED: Final = 4096
"""Different decisions, of which a policy has few."""

Detail = str | int | bool | list[str] | None


class Point(Protocol):
    """The decision point in force, as the pipeline asks it."""

    @property
    def name(self) -> str:
        """The engine's word in records."""

    def peek(self, canonical: bytes) -> Decision | None:
        """A decision already made for exactly these bytes."""

    def left(self, canonical: bytes) -> float:
        """Seconds for which it may still be used."""

    async def decide(self, request: AccessRequest, canonical: bytes, *, valid_for: float) -> Decision:
        """Decide."""


class Counts(msgspec.Struct, frozen=True):
    """What came of the questions so far. `kinds` are in the order of `flips.KINDS`.

    `late` answers came, but later than the policy in force may; `unrecorded` flips are those beyond `FLIPS`.
    """

    asked: int
    agreed: int
    late: int
    dropped: int
    unrecorded: int
    kinds: tuple[int, ...]

    def since(self, before: "Counts") -> "Counts":
        """What was added after `before`."""
        return Counts(
            self.asked - before.asked, self.agreed - before.agreed, self.late - before.late,
            self.dropped - before.dropped, self.unrecorded - before.unrecorded,
            tuple(now - then for now, then in zip(self.kinds, before.kinds, strict=True)),
        )  # fmt: skip

    @property
    def flips(self) -> dict[str, int]:
        """How many of each kind."""
        return dict(zip(KINDS, self.kinds, strict=True))

    @property
    def details(self) -> dict[str, int]:
        """For records and status. `errors`: questions to which the candidate gave no decision."""
        found = self.flips
        return {
            "asked": self.asked, "agreed": self.agreed, **found, "errors": found["undecided"], "late": self.late,
            "dropped": self.dropped, "unrecorded": self.unrecorded,
        }  # fmt: skip


NOTHING: Final = Counts(0, 0, 0, 0, 0, (0,) * len(KINDS))


class _Question(NamedTuple):
    canonical: bytes
    decision: Decision
    active: str


class _Candidate:
    """A candidate, what it has said, and what came of it. One thread writes; `dropped` is the call path's."""

    __slots__ = ("agreed", "asked", "dropped", "evaluate", "kinds", "known", "late", "revision", "unrecorded")

    def __init__(self, revision: str, evaluate: Evaluate) -> None:
        self.revision, self.evaluate = revision, evaluate
        self.known: dict[bytes, Verdict] = {}
        self.asked = self.agreed = self.late = self.dropped = self.unrecorded = 0
        self.kinds: dict[Kind, int] = dict.fromkeys(KINDS, 0)

    def counts(self) -> Counts:
        return Counts(
            self.asked, self.agreed, self.late, self.dropped, self.unrecorded, tuple(self.kinds.values())
        )  # fmt: skip


class Shadow:
    """The queue and what is done with it. `offer`, `adopt` and the counts are the event loop's, `step` the thread's.

    `active` tells the revision in force; `sample` is the share of answers that are compared, drawn by `draw` (0 to 1);
    `monotonic` is in seconds, `deadline` what a decision in force may take.
    """

    def __init__(
        self,
        *,
        active: Callable[[], str],
        sample: float,
        draw: Callable[[], float],
        monotonic: Callable[[], float],
        deadline: float,
        share: float = SHARE,
    ) -> None:
        self._active, self._sample, self._draw = active, sample, draw
        self._monotonic, self._deadline, self._share = monotonic, deadline, share
        self._queue: deque[_Question] = deque()
        self._candidate: _Candidate | None = None
        self._flips: deque[dict[str, Detail]] = deque()
        self._room: dict[Kind, int] = dict.fromkeys(KINDS, FLIPS)
        self._decisions: dict[int, tuple[Decision, Verdict]] = {}
        self._answers: dict[bytes, Verdict] = {}

    # -- the event loop ----------------------------------------------------------------------------------------------

    def offer(self, canonical: bytes, decision: Decision) -> None:
        """A question, and what was answered. Takes a microsecond, and never raises."""
        candidate = self._candidate
        if candidate is None or (self._sample < 1.0 and self._draw() >= self._sample):
            return
        if len(self._queue) >= QUEUE:
            candidate.dropped += 1
            return
        self._queue.append(_Question(canonical, decision, self._active()))

    def adopt(self, revision: str, evaluate: Evaluate) -> None:
        """From now on, this candidate; counts begin anew. What waits is compared with it."""
        self._candidate = _Candidate(revision, evaluate)

    def dismiss(self) -> None:
        """No candidate."""
        self._candidate = None
        self._queue.clear()

    @property
    def revision(self) -> str | None:
        """The candidate's."""
        return None if self._candidate is None else self._candidate.revision

    def counts(self) -> Counts:
        """Since the candidate was adopted."""
        return NOTHING if self._candidate is None else self._candidate.counts()

    def take(self) -> list[dict[str, Detail]]:
        """Flips to be recorded, each once, with the details of their record."""
        found = []
        while self._flips:
            found.append(self._flips.popleft())
        return found

    def refill(self) -> None:
        """A summary was made: as many flips may be recorded again."""
        self._room = dict.fromkeys(KINDS, FLIPS)

    # -- the thread --------------------------------------------------------------------------------------------------

    def step(self) -> float:
        """Compare what waits, for a moment; return how long to rest, in seconds, so as to keep within the share."""
        begun = self._monotonic()
        spent = 0.0
        while self._queue and spent < _SLICE:
            try:
                question = self._queue.popleft()
            except IndexError:  # dismissed meanwhile
                break
            candidate = self._candidate
            if candidate is not None:
                self._compare(candidate, question)
            spent = self._monotonic() - begun
        if not spent:
            return _IDLE
        return min(spent * (1.0 / self._share - 1.0), _LONGEST_REST)

    def _compare(self, candidate: _Candidate, question: _Question) -> None:
        digest = sha256(question.canonical).digest()
        after = candidate.known.get(digest)
        new = after is None
        if after is None:
            after = self._asked(candidate, question.canonical)
            if len(candidate.known) >= _MOST_KNOWN:
                candidate.known.clear()
            candidate.known[digest] = after
        before = self._decided(question.decision)
        kind = flips.compare(before, after)
        candidate.asked += 1
        if kind == "same":
            candidate.agreed += 1
            return
        candidate.kinds[kind] += 1
        if not new:
            return
        if self._room[kind] > 0:
            self._room[kind] -= 1
            self._flips.append(_said(candidate.revision, question, digest, kind, before, after))
        else:
            candidate.unrecorded += 1

    def _asked(self, candidate: _Candidate, canonical: bytes) -> Verdict:
        begun = self._monotonic()
        try:
            answer = candidate.evaluate(canonical)
        except Exception as error:  # noqa: BLE001 - whatever it was, there is no decision, and this thread goes on
            return flips.undecided(str(error))
        finally:
            if self._monotonic() - begun > self._deadline:
                candidate.late += 1
        known = self._answers.get(answer)
        if known is None:
            if len(self._answers) >= _MOST_SHARED:
                self._answers.clear()
            known = self._answers[answer] = flips.of_answer(answer)
        return known

    def _decided(self, decision: Decision) -> Verdict:
        """By object: the cache hands out one for all equal decisions. Held, so that its id is not given to another."""
        known = self._decisions.get(id(decision))
        if known is None or known[0] is not decision:
            if len(self._decisions) >= _MOST_SHARED:
                self._decisions.clear()
            known = self._decisions[id(decision)] = decision, flips.of_decision(decision)
        return known[1]


class _Action(msgspec.Struct, frozen=True):
    service: str | None = None
    method: str | None = None


class _Context(msgspec.Struct, frozen=True):
    time: str
    phase: str


class _Asked(msgspec.Struct, frozen=True):
    action: _Action
    context: _Context


_asked = msgspec.json.Decoder(_Asked).decode


def _said(
    revision: str, question: _Question, digest: bytes, kind: Kind, before: Verdict, after: Verdict
) -> dict[str, Detail]:
    """The details of a flip's record: enough to find the decision records of the calls, and nobody's name."""
    asked = _asked(question.canonical)
    return {
        "kind": "flip", "flip": kind, "candidate": revision, "active": question.active, "input_sha256": digest.hex(),
        "service": asked.action.service, "method": asked.action.method, "phase": asked.context.phase,
        "time": asked.context.time, "releases_more": flips.releases_more(before, after),
        "active_effect": before.effect, "active_reasons": list(before.codes),
        "candidate_effect": after.effect, "candidate_reasons": list(after.codes),
    }  # fmt: skip


class ShadowedDecisionPoint:
    """The decision point in force, overheard. Answers, errors and time are those of `inner`."""

    def __init__(self, inner: Point, shadow: Shadow) -> None:
        self._inner, self._shadow = inner, shadow

    @property
    def name(self) -> str:
        """The word of the engine in force."""
        return self._inner.name

    def peek(self, canonical: bytes) -> Decision | None:
        """As `inner`."""
        decision = self._inner.peek(canonical)
        if decision is not None:
            self._shadow.offer(canonical, decision)
        return decision

    def left(self, canonical: bytes) -> float:
        """As `inner`."""
        return self._inner.left(canonical)

    async def decide(self, request: AccessRequest, canonical: bytes, *, valid_for: float) -> Decision:
        """As `inner`."""
        decision = await self._inner.decide(request, canonical, valid_for=valid_for)
        self._shadow.offer(canonical, decision)
        return decision
