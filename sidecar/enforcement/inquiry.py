"""A call whose messages go another way: it is asked about here, answered, and confirmed by the caller, or not.

What every door of this kind keeps to:

* a permit is given only once its decision is recorded at its level;
* the outcome is written once: at the refusal; as the caller reports it (`reported`); or as `unobserved` when nobody does;
* what nobody saw counts in full with the ledger, also when a later question of the same call is refused;
* where no answer will be seen, data subjects who would show in it are unknown (`Door.sees_answers`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sidecar.attributes.entities import EntityDescription
from sidecar.attributes.resource import Classified, SubjectKey
from sidecar.enforcement.alike import Alike, classified_of
from sidecar.enforcement.call import OK, Call, Final
from sidecar.enforcement.case import Case, Decided, Put
from sidecar.enforcement.entries import DecisionEntry
from sidecar.enforcement.exposure import Wanted, of_request
from sidecar.enforcement.guarded import Guarded
from sidecar.enforcement.obligations import Duties
from sidecar.enforcement.ordinary import OrdinaryCall, begin
from sidecar.enforcement.outcomes import Confirmation, cut_short, refused, unseen
from sidecar.enforcement.parts import Parts
from sidecar.enforcement.permits import Permit, ordered
from sidecar.enforcement.regulars import Regulars
from sidecar.enforcement.unreported import Unreported
from sidecar.errors import Code, IdentifyError, InterceptError, StageError
from sidecar.observability.calls import CallSpan
from sidecar.vocabulary import Phase, SubjectClass

_NOTHING_DROPPED: Mapping[SubjectClass, tuple[str, ...]] = {}


class MethodInquiry:
    """Asks about a call of a described method. `request` first, once; then answers, if the door sees them."""

    # What most calls never change stands here once, and not in each call.
    _opened = _goes_on = False
    _made: Guarded | None = None
    _ordinary: OrdinaryCall | None = None

    def __init__(
        self, parts: Parts, call: Call, span: CallSpan, call_id: str, regulars: Regulars | None = None
    ) -> None:
        """`regulars`: what calls like this one have left remembered; None where nothing is."""
        self._parts, self._call, self._span, self.call_id = parts, call, span, call_id
        self._regulars = regulars

    @property
    def _guarded(self) -> Guarded:
        made = self._made
        if made is None:
            known = self._ordinary
            made = Guarded(self._parts, self._call, self._span, self.call_id) if known is None else known.whole()
            self._made = made
        return made

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

    def handed_out(self) -> "MethodInquiry | Unreported":
        """What goes on waiting once the permit has been handed out."""
        return self

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
        found = await (self._first(data) if data is not None and self._made is None else self._next(data))
        if isinstance(found, Final):
            return await self._end(found)
        guarded = self._guarded
        return Permit(
            call_id=self.call_id, forward=found, obligations=ordered(guarded.ordered)[0],
            metadata=guarded.case.forward_metadata(), expires_at=guarded.expires_at, revision=guarded.case.revision,
        )  # fmt: skip

    async def _first(self, data: bytes) -> bytes | Final | None:
        """The first message of the call: the straight way, where everything about it is known (`ordinary`)."""
        regulars = self._regulars
        known = None if regulars is None else begin(regulars, self._parts, self._call, self._span, self.call_id, data)
        if known is None:
            found = await self._next(data)
        else:
            self._ordinary, self._opened = known, True
            found = await known.enter(data)
        if regulars is not None and isinstance(found, bytes) and (known is None or known.unsettled is not None):
            regulars.remember(self._guarded)
        return found

    async def _next(self, data: bytes | None) -> bytes | Final | None:
        refusal = await self._open()
        if refusal is not None:
            return refusal
        return await (self._guarded.admit_nothing() if data is None else self._guarded.admit(data))

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
    _known = _goes_on = _handed_out = False
    _service = ""
    _duties = Duties.none()
    _ordered: tuple[str, ...] = ()
    """Names of the obligations in them that are the caller's to meet."""
    _questions = 0
    _case: Case | None = None
    _like: Alike | None = None
    """What was put before it in the same request, and was its own question too but for the people: `put_like`."""
    _classes: Mapping[SubjectKey, SubjectClass] = {}

    def __init__(self, parts: Parts, call: Call, span: CallSpan, call_id: str) -> None:
        self._parts, self._call, self._span, self.call_id = parts, call, span, call_id

    @property
    def call(self) -> Call:
        """The call as the door handed it over."""
        return self._call if self._case is None else self._case.call

    @property
    def case(self) -> Case:
        """Who asks; for another inquiry of the same request to adopt. Made when somebody wants to know."""
        made = self._case
        if made is None:
            made = self._case = Case(self._parts, self._call, self._span, self.call_id)
            if self._like is not None:
                made.equal(self._like.case, permitted=self._questions > 0)
            made.closed = self._handed_out
        return made

    @property
    def at_once(self) -> bool:
        """Whether its outcome is written without waiting for anything."""
        return self.case.at_once

    def adopt(self, other: Case) -> None:
        """Take over who asks from another inquiry of the same request, which has just found out."""
        self.case.adopt(other)

    def handed_out(self) -> "EntityInquiry | Unreported":
        """What goes on waiting once the permit has been handed out: itself where more may be asked, or is counted.

        Otherwise what a report or its absence takes, and this inquiry writes no outcome any more.
        """
        made, like = self._case, self._like
        if like is not None and made is None:
            level = like.level
        else:
            made = self.case
            if made.call.door.sees_answers or made.exposure is not None or made.closed:
                return self
            level, made.closed = made.outcome_level, True
        self._handed_out = True
        return Unreported(self.call_id, self._parts, self._span, level, self._ordered)

    def goes_on(self, deadline: float | None) -> None:
        """As `MethodInquiry.goes_on`."""
        case = self.case
        case.span.resume()
        case.call, self._goes_on = replace(case.call, deadline=deadline), True
        if case.exposure is not None:
            case.exposure.keep()

    async def misused(self, error: StageError) -> Final:
        """Record what a workload did wrong before anybody could be asked for whom; or that nobody knows the workload."""
        try:
            self.case.identify_workload()
        except StageError as unknown:
            error = unknown
        return await self.refuse(error)

    async def identify(self) -> Final | None:
        """Who asks, and what they claim. None, or the recorded refusal with its outcome."""
        try:
            self.case.identify()
            self.case.claim()
        except StageError as error:
            return await self.refuse(error)
        self._known = True
        return None

    async def refuse(self, error: StageError) -> Final:
        """Record a refusal, and the outcome."""
        return await self._end(await self.case.refuse(error))

    async def ask(
        self, described: EntityDescription, ids: Sequence[str], *, phase: Phase = "request", pending: bool = False
    ) -> Permit | Final:
        """Decide about entities with these ids; none: about some of the type. StageErrors are refusals here.

        `pending`: which they are shows only later, and then is asked about (phase `response`); believed only of a door
        that sees answers. Whoever has lapsed since the last question is identified again; claims are looked up again
        for another service, whose authorizations and attestations are others.
        """
        try:
            case = self._asked_by(described)
            classified = classified_of(self._parts, case, described, ids, pending=pending and phase == "request")
            counts, classes = classified.counts, classified.classes
            found = await case.decide(phase, counts, None, classes, self._wanted(described, classified))
        except StageError as error:
            return await self.refuse(error)
        if isinstance(found, Final):
            return await self._end(found)
        return self._permit(found.duties, classes, case.expires_at, case.revision)

    def put(self, described: EntityDescription, ids: Sequence[str], *, pending: bool = False) -> Put | None:
        """The question that `ask` would put, for `Case.answer` and `told`; None where it takes more. StageError."""
        case = self._asked_by(described)
        classified = classified_of(self._parts, case, described, ids, pending=pending)
        return case.put("request", classified.counts, classified.classes)

    def alike(self, decided: Decided) -> Alike | None:
        """The question that was put, with its answer, for others of the same request; None where more hangs on it."""
        case, prepared = self.case, decided.prepared
        if not prepared.permits or prepared.by_exception or case.call.door.sees_answers or case.exposure is not None:
            return None
        return Alike(case.call, case, case.outcome_level, {decided.put.counts: decided})

    def put_like(
        self, other: Alike, described: EntityDescription, ids: Sequence[str], *, pending: bool = False
    ) -> tuple[DecisionEntry, Decided] | None:
        """What is to be recorded, and what was decided, where only the people are others than in a question just put.

        None where this question has to be put by itself: another caller or door, or no such counts of data subjects.
        `described` is that question's. Nothing may have been waited for since: it is the same moment.
        """
        found = other.question(self._call, self._span, self.call_id, described, ids, pending=pending)
        if found is None:
            return None
        entry, decided, self._classes = found
        self._like = other
        return entry, decided

    def told_like(self, decided: Decided) -> Permit:
        """What `ask` would say, once what `put_like` gave has been recorded."""
        span, prepared = self._span, decided.prepared
        span.stage("record")
        span.stats.decided(self._call.door.name, "request", prepared.effect, prepared.reason)
        expires_at = self.case.expires_at if self._like is None else self._like.case.expires_at
        return self._permit(prepared.duties, self._classes, expires_at, decided.policy.revision)

    def told(self, decided: Decided) -> Permit | Final:
        """What `ask` would say, once this has been recorded; a refusal only after `deny`."""
        found = self.case.recorded(decided)
        case = self.case
        if isinstance(found, Final):
            return found
        return self._permit(found, decided.put.classes, case.expires_at, case.revision)

    async def deny(self, final: Final) -> Final:
        """Write the outcome of a refusal that is recorded."""
        return await self._end(final)

    def _permit(
        self, duties: Duties, classes: Mapping[SubjectKey, SubjectClass], expires_at: float, revision: str | None
    ) -> Permit:
        self._questions += 1
        self._duties = duties = self._duties.and_(duties)
        document, self._ordered = ordered(duties)
        return Permit(
            call_id=self.call_id, forward=None, obligations=document,
            metadata=(), expires_at=expires_at, revision=revision,
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

    def _asked_by(self, described: EntityDescription) -> Case:
        case, service = self.case, described.action.service or ""
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
        return case

    def _wanted(self, described: EntityDescription, classified: Classified) -> Wanted:
        named = list(classified.classes.values()).count("unknown")
        label = f"{self.call_id}/asked/{self._questions}"
        return lambda: of_request(described, None, classified.classes, max(0, classified.counts.unknown - named), label)

    async def _end(self, final: Final) -> Final:
        end = cut_short(self.call_id, self.case.span, final.code.name, None) if self._goes_on else None
        return await self.case.close(final, end or refused(self.call_id, self.case.span, final.code.name))

    async def _unseen(self, said: Confirmation | None) -> Final:
        self.case.span.resume()
        if self.case.exposure is not None:
            self.case.exposure.keep()
        return await self.case.close(OK, unseen(self.call_id, self.case.span, said, ordered=self._ordered))
