"""A call whose messages go another way: it is asked about here, answered, and confirmed by the caller, or not.

What every door of this kind keeps to:

* a permit is given only once its decision is recorded at its level;
* the outcome is written once: at the refusal; as the caller reports it (`reported`); or as `unobserved` when nobody does;
* what nobody saw counts in full with the ledger, also when a later question of the same call is refused;
* where no answer will be seen, data subjects who would show in it are unknown (`Door.sees_answers`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import msgspec

from sidecar.attributes.entities import EntityDescription
from sidecar.attributes.messages import Seen
from sidecar.attributes.resource import Classified, SubjectKey
from sidecar.enforcement.call import OK, Call, Final, Metadata
from sidecar.enforcement.case import Case, Decided, Put
from sidecar.enforcement.cover import settled
from sidecar.enforcement.exposure import Wanted, of_request
from sidecar.enforcement.guarded import Guarded
from sidecar.enforcement.obligations import Duties
from sidecar.enforcement.outcomes import Confirmation, cut_short, refused, unseen
from sidecar.enforcement.parts import Parts
from sidecar.errors import Code, IdentifyError, InterceptError, StageError
from sidecar.observability.calls import CallSpan
from sidecar.vocabulary import Phase, SubjectClass, SubjectCounts

_NOTHING_DROPPED: Mapping[SubjectClass, tuple[str, ...]] = {}
_MAY_WAIT = frozenset({"read", "list", "search"})


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """What may be done. `forward`: the request as it was inspected; None where no message was given.

    `obligations` are those of the decision document, merged; the door has declared that they can be met. `metadata` is
    what the service is to be sent by whoever forwards the request. `expires_at`: unix seconds; nothing is permitted by this after it. `dropped`: the
    entity ids asked about whose data subjects a `drop_records` concerns. `revision`: of the policy that permits.
    """

    call_id: str
    forward: bytes | None
    obligations: tuple[Mapping[str, object], ...]
    metadata: Metadata
    expires_at: float
    dropped: Mapping[SubjectClass, tuple[str, ...]] = {}
    revision: str | None = None


@lru_cache(maxsize=512)
def _document(duties: Duties) -> tuple[Mapping[str, object], ...]:
    """The same duties are ordered call after call: the same tuple for them, which doors may remember."""
    return duties.document()


class MethodInquiry:
    """Asks about a call of a described method. `request` first, once; then answers, if the door sees them."""

    def __init__(self, parts: Parts, call: Call, span: CallSpan, call_id: str) -> None:
        self._guarded = Guarded(parts, call, span, call_id)
        self.call_id, self._opened, self._goes_on = call_id, False, False

    @property
    def call(self) -> Call:
        """The call as the door handed it over."""
        return self._guarded.call

    @property
    def case(self) -> Case:
        """Who asks; for another inquiry of the same request to adopt."""
        return self._guarded.case

    @property
    def at_once(self) -> bool:
        """Whether its outcome is written without waiting for anything."""
        return self._guarded.case.at_once

    @property
    def answered(self) -> bool:
        """Whether an answer was released."""
        return self._guarded.messages_out > 0

    def goes_on(self, deadline: float | None) -> None:
        """The caller, who has been told of a permit, asks on; `deadline` (monotonic) of what it asks now.

        From here on a refusal does not mean that nothing was done.
        """
        self._guarded.span.resume()
        self._goes_on = True
        self._guarded.goes_on(deadline)

    def adopt(self, other: Case) -> None:
        """Take over who asks from another inquiry of the same request, which has just found out."""
        self._guarded.case.adopt(other)

    async def request(self, data: bytes | None) -> Permit | Final:
        """Decide about the request message, or (None) about opening the call. A refusal has its outcome written."""
        guarded = self._guarded
        refusal: bytes | Final | None = await self._open()
        if refusal is None:
            refusal = await (guarded.admit_nothing() if data is None else guarded.admit(data))
        if isinstance(refusal, Final):
            return await self._end(refusal)
        return Permit(
            call_id=self.call_id, forward=refusal, obligations=_document(guarded.ordered),
            metadata=guarded.case.forward_metadata(), expires_at=guarded.expires_at, revision=guarded.revision,
        )  # fmt: skip

    async def decline(self, error: StageError) -> Final:
        """As `refuse`, once the caller and the method are known: who and what go first in the record."""
        refusal = await self._open()
        return await self._end(refusal or await self._guarded.refuse(error))

    async def _open(self) -> Final | None:
        if self._guarded.case.closed:
            return await self._guarded.refuse(InterceptError("the call has ended"))
        if self._opened:
            return None
        refusal = await self._guarded.open()
        self._opened = refusal is None
        return refusal

    async def answer(self, data: bytes) -> bytes | Final | None:
        """Decide about an answer: what of it may be released, None where nothing may. A refusal ends the inquiry."""
        self._guarded.span.begin()
        ended = await self._open() if self._guarded.case.closed else None
        released = await self._guarded.release(data) if ended is None else ended
        if isinstance(released, Final):
            return await self._end(released)
        if released is not None:
            self._guarded.sent(released)
        return released

    async def seen(self, final: Final) -> Final:
        """The call has ended like this, and every answer has come through `answer`."""
        return await self._end(final)

    async def gone(self, final: Final) -> Final:
        """Nobody was told of the permit: nothing came of it."""
        return await self._guarded.finish(final)

    async def refuse(self, error: StageError) -> Final:
        """Record a refusal of the door's own, and the outcome."""
        return await self._end(await self._guarded.refuse(error))

    async def _end(self, final: Final) -> Final:
        return await (self._guarded.cut_short(final) if self._goes_on else self._guarded.finish(final))

    async def confirm(self, said: Confirmation) -> Final:
        """The caller reports how it ended."""
        return await self._guarded.finish_unseen(said)

    async def unobserved(self) -> Final:
        """Nobody reports how it ended."""
        return await self._guarded.finish_unseen(None)


class EntityInquiry:
    """Asks about an action on entities of a described type. Each question stands for itself; then it is confirmed."""

    # What most calls never change stands here once, and not in each call.
    _known = _goes_on = False
    _service = ""
    _duties = Duties.none()
    _questions = 0

    def __init__(self, parts: Parts, call: Call, span: CallSpan, call_id: str) -> None:
        self._case = Case(parts, call, span, call_id)
        self._parts, self.call_id = parts, call_id

    @property
    def call(self) -> Call:
        """The call as the door handed it over."""
        return self._case.call

    @property
    def case(self) -> Case:
        """Who asks; for another inquiry of the same request to adopt."""
        return self._case

    @property
    def at_once(self) -> bool:
        """Whether its outcome is written without waiting for anything."""
        return self._case.at_once

    def adopt(self, other: Case) -> None:
        """Take over who asks from another inquiry of the same request, which has just found out."""
        self._case.adopt(other)

    def goes_on(self, deadline: float | None) -> None:
        """As `MethodInquiry.goes_on`."""
        case = self._case
        case.span.resume()
        case.call, self._goes_on = replace(case.call, deadline=deadline), True
        if case.exposure is not None:
            case.exposure.keep()

    async def misused(self, error: StageError) -> Final:
        """Record what a workload did wrong before anybody could be asked for whom; or that nobody knows the workload."""
        try:
            self._case.identify_workload()
        except StageError as unknown:
            error = unknown
        return await self.refuse(error)

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
        that sees answers. Whoever has lapsed since the last question is identified again; claims are looked up again
        for another service, whose authorizations and attestations are others.
        """
        try:
            self._asked_by(described)
            classified = self._classified(described, ids, pending=pending and phase == "request")
            counts, classes = classified.counts, classified.classes
            found = await self._case.decide(phase, counts, None, classes, self._wanted(described, classified))
        except StageError as error:
            return await self.refuse(error)
        return await self._end(found) if isinstance(found, Final) else self._permit(found.duties, classes)

    def put(self, described: EntityDescription, ids: Sequence[str], *, pending: bool = False) -> Put | None:
        """The question that `ask` would put, for `Case.answer` and `told`; None where it takes more. StageError."""
        self._asked_by(described)
        classified = self._classified(described, ids, pending=pending)
        return self._case.put("request", classified.counts, classified.classes)

    def told(self, decided: Decided) -> Permit | Final:
        """What `ask` would say, once this has been recorded; a refusal only after `deny`."""
        found = self._case.recorded(decided)
        return found if isinstance(found, Final) else self._permit(found, decided.put.classes)

    async def deny(self, final: Final) -> Final:
        """Write the outcome of a refusal that is recorded."""
        return await self._end(final)

    def _permit(self, duties: Duties, classes: Mapping[SubjectKey, SubjectClass]) -> Permit:
        case = self._case
        self._questions += 1
        self._duties = duties = self._duties.and_(duties)
        return Permit(
            call_id=self.call_id, forward=None, obligations=_document(duties),
            metadata=(), expires_at=case.expires_at, revision=case.revision,
            dropped={
                class_: tuple([one for (_, one), of in classes.items() if of == class_]) for class_ in duties.drop
            } if duties.drop else _NOTHING_DROPPED,
        )  # fmt: skip

    async def gone(self, final: Final) -> Final:
        """Nobody was told of the permit: nothing came of it."""
        return await self._end(final)

    async def confirm(self, said: Confirmation) -> Final:
        """The caller reports how it ended."""
        return await self._unseen(said)

    async def unobserved(self) -> Final:
        """Nobody reports how it ended."""
        return await self._unseen(None)

    def _asked_by(self, described: EntityDescription) -> None:
        case, service = self._case, described.action.service or ""
        if case.exposure is not None and service != self._service:
            raise InterceptError("a call concerns one service: ask about another in a call of its own")
        lapsed = self._known and self._parts.clock() >= case.expires_at
        if lapsed or not self._known:
            case.identify()
        case.describe_as(described)
        if lapsed or not self._known or case.claimed_for != service:
            case.claim()
        if self._parts.clock() >= case.expires_at:
            raise IdentifyError("the caller's identity has lapsed", code=Code.PERMISSION_DENIED)
        self._known, self._service = True, service

    def _classified(self, described: EntityDescription, ids: Sequence[str], *, pending: bool) -> Classified:
        case, parts = self._case, self._parts
        if described.subject is None:
            return Classified(counts=SubjectCounts(), classes={})
        seen = [Seen(described.subject, one) for one in dict.fromkeys(ids)]  # one named twice is one
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
        end = cut_short(self.call_id, self._case.span, final.code.name, None) if self._goes_on else None
        return await self._case.close(final, end or refused(self.call_id, self._case.span, final.code.name))

    async def _unseen(self, said: Confirmation | None) -> Final:
        self._case.span.resume()
        if self._case.exposure is not None:
            self._case.exposure.keep()
        return await self._case.close(OK, unseen(self.call_id, self._case.span, said, ordered=self._duties.names))
