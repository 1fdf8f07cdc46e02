"""What an enforcement point is made of, and the ports through which it decides, records and forwards."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sidecar.attributes.resource import Classifier, Describer
from sidecar.attributes.subject import Identifier
from sidecar.enforcement.call import Upstream
from sidecar.enforcement.circumstances import Circumstances
from sidecar.enforcement.entries import DecisionEntry
from sidecar.enforcement.exposure import Exposures
from sidecar.enforcement.prepared import Preparations
from sidecar.enforcement.questions import Questions
from sidecar.errors import StageError
from sidecar.observability.calls import CallObserver
from sidecar.record import OutcomeBody, PolicyRef
from sidecar.vocabulary import AccessRequest, Decision, Level


class DecisionPoint(Protocol):
    """Answers an input document with a decision document.

    * An equal document gets an equal answer until the policy changes.
    * Undefined, ill-typed, failed or late is DecideError (`policy_error`, UNAVAILABLE), never a permit.
    """

    @property
    def name(self) -> str:
        """The engine's name in records."""

    def peek(self, canonical: bytes) -> Decision | None:
        """A decision already made for exactly these bytes that may still be used; None otherwise. Never waits."""

    def left(self, canonical: bytes) -> float:
        """Seconds for which what `peek` gives may still be used; 0 where it gives nothing."""

    async def decide(self, request: AccessRequest, canonical: bytes, *, valid_for: float) -> Decision:
        """Decide. `canonical` is the document's encoding; `valid_for` seconds until something in it expires."""


class Recorder(Protocol):
    """Makes records durable.

    * When `decision` returns, the record has reached its level; RecordError means it has not, and that nothing may be
      forwarded or released on its strength.
    * Records of one call keep their order.
    * An outcome that cannot be written is owed, not forgotten: it is written as soon as it can be, or by the
      successor of this process.
    """

    async def decision(self, entry: DecisionEntry) -> None:
        """Record a decision at `entry.level`."""

    async def decisions(self, entries: Sequence[DecisionEntry]) -> None:
        """Record several decisions, all or none; each has reached its own level when this returns."""

    async def outcome(self, body: OutcomeBody, level: Level) -> None:
        """Record how a call ended, at most `committed`."""

    async def outcomes(self, bodies: Sequence[OutcomeBody], level: Level) -> None:
        """Record how several calls ended, in this order; after a RecordError all of them are owed."""


class Standing(Protocol):
    """Which policy, directory and index are in force now."""

    def policy(self, now: float) -> PolicyRef:
        """The active policy, the same object while the same engine decides by it.

        DecideError when it is older than `policy.max_age`.
        """

    def directory(self) -> str | None:
        """Revision of the active directory snapshot."""

    def index(self) -> str | None:
        """Revision of the active subject index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Composed once, in `sidecar.main`.

    `report` tells the operator what a stage refused or could not do, and must not block. `clock` is UTC in unix
    seconds; `new_id` gives a UUIDv7 in text form. `exposures`: the rolling ledger; None where there is none.
    """

    identifier: Identifier
    describer: Describer
    classifier: Classifier
    decisions: DecisionPoint
    recorder: Recorder
    upstream: Upstream
    circumstances: Circumstances
    standing: Standing
    observer: CallObserver
    preparations: Preparations
    levels: Mapping[str, Level]
    reflection: bool
    report: Callable[[StageError], None]
    clock: Callable[[], float]
    new_id: Callable[[], str]
    exposures: Exposures | None = None
    questions: Questions = field(default_factory=Questions)
