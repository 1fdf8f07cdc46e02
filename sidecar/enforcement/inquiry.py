"""A call whose messages go another way: it is asked about here, answered, and confirmed by the caller, or not.

What every door of this kind keeps to:

* a permit is given only once its decision is recorded at its level;
* the outcome is written once: at the refusal; as the caller reports it (`reported`); or as `unobserved` when nobody does;
* what nobody saw counts in full with the ledger;
* where no answer will be seen, data subjects who would show in it are unknown (`Door.sees_answers`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sidecar.attributes.entities import EntityDescription
from sidecar.attributes.messages import Seen
from sidecar.attributes.resource import Classified
from sidecar.enforcement.call import OK, Call, Final, Metadata
from sidecar.enforcement.case import Case
from sidecar.enforcement.cover import settled
from sidecar.enforcement.exposure import Wanted, of_request
from sidecar.enforcement.guarded import Guarded
from sidecar.enforcement.obligations import Duties
from sidecar.enforcement.outcomes import Confirmation, refused, unseen
from sidecar.enforcement.parts import Parts
from sidecar.errors import StageError
from sidecar.observability.calls import CallSpan
from sidecar.vocabulary import Phase, SubjectCounts

_MAY_WAIT = frozenset({"read", "list", "search"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """What may be done. `forward`: the request as it was inspected; None where no message was given.

    `obligations` are those of the decision document, merged; the door has declared that they can be met. `metadata` is
    what the service is to be sent. `expires_at`: unix seconds; nothing is permitted by this after it.
    """

    call_id: str
    forward: bytes | None
    obligations: tuple[Mapping[str, object], ...]
    metadata: Metadata
    expires_at: float


class MethodInquiry:
    """Asks about a call of a described method. `request` first, once; then answers, if the door sees them."""

    def __init__(self, parts: Parts, call: Call, span: CallSpan, call_id: str) -> None:
        self._guarded = Guarded(parts, call, span, call_id)
        self.call_id, self._opened = call_id, False

    async def request(self, data: bytes | None) -> Permit | Final:
        """Decide about the request message, or (None) about opening the call. A refusal has its outcome written."""
        guarded = self._guarded
        refusal: bytes | Final | None = None
        if not self._opened:
            refusal = await guarded.open()
            self._opened = refusal is None
        if refusal is None:
            refusal = await (guarded.admit_nothing() if data is None else guarded.admit(data))
        if isinstance(refusal, Final):
            return await guarded.finish(refusal)
        return Permit(
            call_id=self.call_id, forward=refusal, obligations=guarded.ordered.document(),
            metadata=guarded.forward_metadata(), expires_at=guarded.expires_at,
        )  # fmt: skip

    async def answer(self, data: bytes) -> bytes | Final | None:
        """Decide about an answer: what of it may be released, None where nothing may. A refusal ends the inquiry."""
        released = await self._guarded.release(data)
        if isinstance(released, Final):
            return await self._guarded.finish(released)
        if released is not None:
            self._guarded.sent(released)
        return released

    async def seen(self, final: Final) -> Final:
        """The call has ended like this, and every answer has come through `answer`."""
        return await self._guarded.finish(final)

    async def confirm(self, said: Confirmation) -> Final:
        """The caller reports how it ended."""
        return await self._guarded.finish_unseen(said)

    async def unobserved(self) -> Final:
        """Nobody reports how it ended."""
        return await self._guarded.finish_unseen(None)


class EntityInquiry:
    """Asks about an action on entities of a described type. Each question stands for itself; then it is confirmed."""

    def __init__(self, parts: Parts, call: Call, span: CallSpan, call_id: str) -> None:
        self._case = Case(parts, call, span, call_id)
        self._parts, self.call_id = parts, call_id
        self._known = False
        self._duties = Duties.none()
        self._questions = 0

    async def identify(self) -> Final | None:
        """Who asks, and what they claim. None, or the recorded refusal with its outcome."""
        try:
            self._case.identify()
            self._case.claim()
        except StageError as error:
            return await self.refuse(error)
        self._known = True
        return None

    async def refuse(self, error: StageError) -> Final:
        """Record a refusal, and the outcome."""
        return await self._end(await self._case.refuse(error))

    async def ask(
        self, described: EntityDescription, ids: Sequence[str], *, phase: Phase = "request", pending: bool = False
    ) -> Permit | Final:
        """Decide about entities with these ids; none: about some of the type. StageErrors are refusals here.

        `pending`: which they are shows only later, and then is asked about (phase `response`); believed only of a door
        that sees answers.
        """
        case = self._case
        try:
            if not self._known:
                case.identify()
            case.describe_as(described)
            if not self._known:
                case.claim()
            self._known = True
            classified = self._classified(described, ids, pending=pending and phase == "request")
            seen = [(kind, name, class_) for (kind, name), class_ in classified.classes.items()]
            found = await case.decide(phase, classified.counts, None, seen, self._wanted(described, classified))
        except StageError as error:
            return await self.refuse(error)
        if isinstance(found, Final):
            return await self._end(found)
        self._questions += 1
        self._duties = self._duties.and_(found.duties)
        return Permit(
            call_id=self.call_id, forward=None, obligations=self._duties.document(),
            metadata=case.forward_metadata(), expires_at=case.expires_at,
        )  # fmt: skip

    async def confirm(self, said: Confirmation) -> Final:
        """The caller reports how it ended."""
        return await self._unseen(said)

    async def unobserved(self) -> Final:
        """Nobody reports how it ended."""
        return await self._unseen(None)

    def _classified(self, described: EntityDescription, ids: Sequence[str], *, pending: bool) -> Classified:
        case, parts = self._case, self._parts
        if described.subject is None:
            return Classified(counts=SubjectCounts(), classes={})
        seen = [Seen(described.subject, one) for one in ids]
        waits = pending and not ids and described.action.name in _MAY_WAIT
        classified = parts.classifier.classify(
            seen, case.identity.own, parts.clock(), unnamed=0 if ids or waits else 1, pending=waits
        )
        return settled(classified) if waits and not case.call.door.sees_answers else classified

    def _wanted(self, described: EntityDescription, classified: Classified) -> Wanted:
        named = list(classified.classes.values()).count("unknown")
        label = f"{self.call_id}/asked/{self._questions}"
        return lambda: of_request(described, None, classified.classes, max(0, classified.counts.unknown - named), label)

    async def _end(self, final: Final) -> Final:
        return await self._case.close(final, refused(self.call_id, self._case.span, final.code.name))

    async def _unseen(self, said: Confirmation | None) -> Final:
        if self._case.exposure is not None:
            self._case.exposure.keep()
        return await self._case.close(OK, unseen(self.call_id, self._case.span, said))
