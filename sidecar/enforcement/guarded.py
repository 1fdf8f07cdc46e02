"""One guarded call: what each of its messages asks, which decision covers it, and what has left.

Invariants, whatever the kind of method:

* a message is forwarded, or released, only after a decision that covers it has been recorded at its level;
* a decision covers a later message only while the input document would be the same, within `ttl_seconds`, and when
  every data subject in the message is already referenced by a record of this call;
* an answer is covered by the request's own decision only if it concerns exactly whom that decision was about;
* duties ordered for a request hold for every answer after it, since nothing ties an answer to one of several requests;
* nobody is served on an identity that has lapsed.
"""

from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import Self

from sidecar.attributes.messages import ParsedMessage
from sidecar.attributes.reach import Reach
from sidecar.attributes.resource import Classified, MethodDescription, SubjectKey
from sidecar.attributes.words import UNCLASSIFIED
from sidecar.enforcement import refusals
from sidecar.enforcement.call import OK, Call, Final, Metadata
from sidecar.enforcement.case import Case
from sidecar.enforcement.cover import Cover, categories_of, counted, decidable, nameless, reclassified, settled
from sidecar.enforcement.exposure import CallExposure, Wanted, nobody_asks, of_answer, of_request
from sidecar.enforcement.obligations import Duties, Release, admitted
from sidecar.enforcement.outcomes import Confirmation, Shown, beyond, cut_short, observed, unseen
from sidecar.enforcement.parts import Parts
from sidecar.errors import Code, IdentifyError, InterceptError, StageError
from sidecar.observability.calls import CallSpan
from sidecar.record import MessageCounts
from sidecar.vocabulary import Phase, SubjectClass, SubjectCounts

Classes = Mapping[SubjectKey, SubjectClass]
CHANGES = frozenset({"write", "delete", "admin"})
"""Actions whose request itself is counted as released."""
_MAY_WAIT = frozenset({"read", "list", "search"})
"""Actions whose request may go ahead before the subjects are known, since nothing is released undecided."""

_MOST_REMEMBERED = 20_000
"""Data subjects of one call that are remembered: a stream may last for days."""


class Guarded:
    """The state of one call between `open` and `finish`. One event loop; both directions of a stream may use it."""

    # What most calls never change stands here once, and not in each call.
    _method: MethodDescription | None = None
    _bound = False
    """Something in this call was under obligations that change answers."""
    messages_in = messages_out = bytes_out = _answers = 0
    ordered = Duties.none()
    """What the decisions about the requests have ordered so far."""

    def __init__(self, parts: Parts, call: Call, span: CallSpan, call_id: str, case: Case | None = None) -> None:
        self.case = case or Case(parts, call, span, call_id)
        """Who calls and what was decided."""
        self._parts, self.call, self.span, self.call_id = parts, call, span, call_id
        self._classes: dict[SubjectKey, SubjectClass] = {}
        self._named: dict[SubjectKey, SubjectClass] = {}
        """Whom the requests named: those whom an answer that names nobody is about."""
        self._covers: dict[Phase, Cover] = {}
        """What is in force. Exchanged whole when it has to be found out anew: what was asked before then comes too late."""
        self._release = Release()

    @property
    def description(self) -> MethodDescription:
        """What the method reaches; after `open`."""
        if self._method is None:
            raise InterceptError("the call was not described")
        return self._method

    @property
    def recheck_after(self) -> float | None:
        """Seconds until this call wants to be decided again; None for never."""
        found = self.ordered.and_(self._covers["response"].duties) if "response" in self._covers else self.ordered
        return found.recheck

    @property
    def expires_at(self) -> float:
        """When the caller's identity, or the exception they claim, lapses, in unix seconds."""
        return self.case.expires_at

    @property
    def free(self) -> bool:
        """Whether everything the upstream says may pass: a permit without content obligations, nothing pending.

        Nor where the ledger counts what leaves: nobody can count what stands in an error's text.
        """
        cover = self._covers.get("request")
        uncounted = self.case.exposure is None
        return cover is not None and not cover.counts.pending and not self._bound and uncounted

    @classmethod
    def of(cls, case: Case, method: MethodDescription, cover: Cover | None, release: Release) -> Self:
        """A call that has been opened; `cover`: the decision about its one request, which has been recorded."""
        guarded = cls(case.parts, case.call, case.span, case.call_id, case)
        guarded._method, guarded._release = method, release
        if cover is not None:
            guarded._covers["request"] = cover
            guarded._heed("request", cover)
            guarded._named.update(cover.classes)
            guarded.messages_in = 1
        return guarded

    async def enter(self, request: bytes) -> bytes | Final:
        """Open the call and decide its one request; as `admit`."""
        return await self.open() or await self.admit(request)

    async def open(self) -> Final | None:
        """Stages 1 to 3 for the call as a whole. None, or the recorded refusal."""
        try:
            self.case.identify()
            method = self._method = self.case.describe()
            self.case.lasting = not method.unary
            self.case.claim()
        except StageError as error:
            return await self.refuse(error)
        return None

    async def identified(self) -> Final | None:
        """For schemas, which identified callers may read. None once that is recorded, or the recorded refusal."""
        try:
            self.case.identify()
            await self.case.permit_schema()
        except StageError as error:
            return await self.refuse(error)
        return None

    async def refuse(self, error: StageError, phase: Phase = "request") -> Final:
        """Record a refusal; what the caller is told."""
        return await self.case.refuse(error, phase)

    # -- requests ----------------------------------------------------------------------------------------------------

    async def admit(self, data: bytes) -> bytes | Final:
        """Decide a request message: the bytes to forward, once that is recorded, or the recorded refusal."""
        try:
            now = self._still_known()
            description, case = self._method or self.description, self.case
            parsed = description.request.parse(data)
            classified = description.request_subjects(self._parts.classifier, parsed, case.identity.own, now)
            self.span.stage("describe")
            if classified.counts.pending and not self.call.door.sees_answers:
                classified = settled(classified)
            counts, classes = classified.counts, classified.classes
            reached = None if classified.reached is None else decidable(classified, description)
            wanted, covers = self._asked(counts, reached, classes), self._covers
            if not self._covered("request", counts, reached, classes):
                found = await case.decide("request", counts, reached, classes, wanted)
                if isinstance(found, Final):
                    return found
                covers["request"] = found
                self._heed("request", found)
            if len(self._named) <= _MOST_REMEMBERED:
                self._named.update(classes)
            self.messages_in += 1
            if case.action.name in CHANGES:
                self._release.named(classes, description.categories)
                if case.exposure is not None:
                    case.exposure.release(wanted(), answer=False)
            covered = UNCLASSIFIED in description.reach.categories
            return admitted(parsed, unclassified_covered=covered, decided=categories_of(reached))
        except StageError as error:
            return await self.refuse(error)

    async def admit_nothing(self) -> Final | None:
        """Decide to open a stream before any message: subjects are pending, or unknown where that cannot wait."""
        pending = self.case.action.name in _MAY_WAIT and self.call.door.sees_answers
        counts = SubjectCounts(pending=True) if pending else SubjectCounts(unknown=1)
        try:
            self._still_known()
            covers = self._covers
            found = await self.case.decide("request", counts, None, {}, self._asked(counts, None, {}))
        except StageError as error:
            return await self.refuse(error)
        if isinstance(found, Final):
            return found
        covers["request"] = found
        self._heed("request", found)
        return None

    # -- answers -----------------------------------------------------------------------------------------------------

    async def release(self, data: bytes) -> bytes | Final | None:
        """Decide an answer message and apply what was ordered.

        The bytes that may leave (the same object where nothing had to change); None where nothing of the message may;
        or the recorded refusal, after which nothing at all leaves.
        """
        try:
            now = self._still_known()
            description, case, release = self._method or self.description, self.case, self._release
            try:
                parsed = description.answer.parse(data)
            except InterceptError as error:
                raise refusals.unreadable(self.call.method, error) from None
            classified = description.answer_subjects(self._parts.classifier, parsed, case.identity.own, now)
            self._answers += 1
            self.span.stage("describe")
            reached = None if classified.reached is None else decidable(classified, description)
            duties = self._ordered_already(classified, reached)
            if duties is None:
                found = await self._duties_for(parsed, classified, reached)
                if isinstance(found, Final):
                    return found
                duties = found
            before = release.dropped, sum(release.redacted.values())
            try:
                out = duties.apply(
                    parsed, self._classes, UNCLASSIFIED in description.reach.categories, release,
                    decided=categories_of(reached),
                )  # fmt: skip
            except InterceptError as error:
                raise refusals.unreadable(self.call.method, error) from None
            if case.exposure is not None:
                self._account(case.exposure, parsed, out, classified)
            if (release.dropped, sum(release.redacted.values())) != before:
                self.span.event("filtered")
        except StageError as error:
            return await self.refuse(error, "response")
        self.span.stage("enforce")
        return out

    def _ordered_already(self, classified: Classified, reached: Reach | None) -> Duties | None:
        """What is ordered for an answer that names whom the request's decision was about; None for any other."""
        classes = classified.classes
        if not classes or reached is not None or not self._request_covers(classified.counts, classes):
            return None
        self._classes.update(classes)
        return self.ordered

    async def _duties_for(self, parsed: ParsedMessage, classified: Classified, reached: Reach | None) -> Duties | Final:
        """What is ordered for any answer, by a decision that covers it: the request's own, an earlier one, or a new."""
        counts, classes = classified.counts, classified.classes
        if not classes and not classified.nobody and reached is None:
            if self.description.impersonal(parsed):
                return self.ordered  # an empty page, a count: nobody's data
            known = 0 < len(self._named) <= _MOST_REMEMBERED
            classes = dict(self._named) if known else {}  # others may be named while this is decided
            counts = counted(classes, self.case.identity.own) if known else SubjectCounts(unknown=1)
        if reached is None and self._request_covers(counts, classes):
            self._classes.update(classes)
            return self.ordered
        covers = self._covers
        if not self._covered("response", counts, reached, classes):
            found = await self.case.decide(
                "response", counts, reached, classes, self._answered(parsed, classified)
            )  # fmt: skip
            if isinstance(found, Final):
                return found
            covers["response"] = found
            self._heed("response", found)
            return self.ordered.and_(found.duties)
        return self.ordered.and_(covers["response"].duties)

    def _request_covers(self, counts: SubjectCounts, classes: Classes) -> bool:
        """Whether the request's decision was about exactly those whom an answer concerns. A unary one lasts its call."""
        cover = self._covers.get("request")
        if cover is None or cover.counts != counts or (counts.unknown and nameless(counts, classes)):
            return False  # whom nobody names may be anybody
        if (self._method or self.description).server_streaming and perf_counter() >= cover.until:
            return False
        return classes.items() <= cover.classes.items()

    # -- decisions in force ------------------------------------------------------------------------------------------

    def _covered(self, phase: Phase, counts: SubjectCounts, reached: Reach | None, classes: Classes) -> bool:
        """Whether the last decision of this phase would be asked again in the very same words."""
        cover = self._covers.get(phase)
        if cover is None or cover.counts != counts or cover.reached != reached or perf_counter() >= cover.until:
            return False
        if cover.minute != self._parts.circumstances.minute(self._parts.clock()):
            return False
        return classes.items() <= self._classes.items()

    def _heed(self, phase: Phase, cover: Cover) -> None:
        if len(self._classes) > _MOST_REMEMBERED:  # whoever is forgotten is decided again; one of each class stays
            self._classes = {
                key: class_ for class_, key in {class_: key for key, class_ in self._classes.items()}.items()
            }
        self._bound = self._bound or cover.duties.content
        self._classes.update(cover.classes)
        if phase == "request":
            self.ordered = self.ordered.and_(cover.duties)

    def _still_known(self) -> float:
        """Now; identifies again whoever has lapsed, and what was decided about them covers nothing more. StageError."""
        now = self._parts.clock()
        if now >= self.case.expires_at:
            self._identify_again()
            self._covers = {}
        return now

    def _identify_again(self) -> None:
        self.case.sole = None  # what was asked rests on what has lapsed
        self.case.identify()
        self.case.claim()
        if self._parts.clock() >= self.case.expires_at:
            raise IdentifyError("the caller's identity has lapsed", code=Code.PERMISSION_DENIED)

    async def recheck(self) -> Final | None:
        """Decide again what is in force: None while it still holds, otherwise the recorded refusal."""
        self.span.begin()
        try:
            self._identify_again()
            covers = self._covers = dict(self._covers)
            for phase, cover in tuple(covers.items()):
                counts, classes = reclassified(cover, self._parts.classifier.index, self._parts.clock())
                asked = classes if phase == "request" else {}
                wanted = self._asked(SubjectCounts(), cover.reached, asked)  # whoever is nameless has been reserved
                found = await self.case.decide(phase, counts, cover.reached, classes, wanted)
                if isinstance(found, Final):
                    return found
                if covers.get(phase) is cover:  # otherwise a newer one has come while this one was recorded
                    covers[phase] = found
                self._heed(phase, found)
        except StageError as error:
            return await self.refuse(error)
        return None

    # -- volumes -----------------------------------------------------------------------------------------------------

    def _asked(self, counts: SubjectCounts, reached: Reach | None, classes: Classes) -> Wanted:
        """Whom a request concerns, for the ledger."""
        if self._parts.exposures is None:
            return nobody_asks
        number = self.messages_in
        return lambda: of_request(
            self.description, reached, classes, nameless(counts, classes), f"{self.call_id}/asked/{number}"
        )

    def _answered(self, parsed: ParsedMessage, classified: Classified) -> Wanted:
        """Whom an answer concerns, for the ledger."""
        if self._parts.exposures is None:
            return nobody_asks
        some, label = nameless(classified.counts, classified.classes), f"{self.call_id}/shown/{self._answers}"
        return lambda: of_answer(self.description, parsed, classified.classes, self._named, some, label)

    def _account(
        self, exposure: CallExposure, parsed: ParsedMessage, out: bytes | None, classified: Classified
    ) -> None:
        """Note what leaves, where the ledger was asked: of an answer that was filtered, what is left in it."""
        left = parsed if out is None or out is parsed.data else self.description.answer.parse(out)
        exposure.release(() if out is None else self._answered(left, classified)(), answer=True)

    # -- the end -----------------------------------------------------------------------------------------------------

    def forward_metadata(self) -> Metadata:
        """What the upstream is sent."""
        return self.case.forward_metadata()

    @property
    def exhausted(self) -> Final:
        """The answer was one record, and that record had to be dropped."""
        return refusals.withheld(self.call_id)

    def sent(self, message: bytes) -> None:
        """An answer message is handed to the door."""
        self.messages_out += 1
        self.bytes_out += len(message)

    def goes_on(self, deadline: float | None) -> None:
        """The caller acts on what was permitted out of sight, and asks on: what nobody sees of it counts as released."""
        self.call = self.case.call = replace(self.call, deadline=deadline)
        if self.case.exposure is not None and not self.call.door.sees_answers:
            self.case.exposure.keep()

    async def cut_short(self, final: Final) -> Final:
        """Write the outcome of a refusal after the caller went on (`goes_on`)."""
        shown = self._shown() if self.call.door.sees_answers else None
        return await self.case.close(final, cut_short(self.call_id, self.span, final.code.name, shown))

    async def finish_unseen(self, said: Confirmation | None) -> Final:
        """Write the outcome of a call whose answer went another way, as it was reported; None: by nobody.

        Where answers are shown here before they leave, what was shown is recorded, unless the caller says that more
        left; and unless it says how it ended, everything asked for counts.
        """
        self.span.resume()
        shown = self._shown() if self.call.door.sees_answers else None
        more = shown is None or (said is not None and beyond(said, shown))
        if self.case.exposure is not None and (more or said is None):
            self.case.exposure.keep()
        ordered = self.ordered.names if shown is None else ()
        body = unseen(self.call_id, self.span, said, None if more else shown, ordered)
        return await self.case.close(OK, body)

    def _shown(self) -> Shown:
        release, messages = self._release, MessageCounts(in_=self.messages_in, out=self.messages_out)
        return Shown(messages, release.by_class(), release.dropped, release.redacted, self.bytes_out)

    async def finish(self, final: Final) -> Final:
        """Write the outcome, before the final status; only once. Without it the call ends UNAVAILABLE."""
        status = final.code._name_  # as `name`, which is worked out by a descriptor written in Python
        return await self.case.close(final, observed(self.call_id, self.span, status, self._shown()))
