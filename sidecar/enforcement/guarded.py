"""One guarded call: who asks, what is reached, what was decided about it, and what has left.

Invariants, whatever the kind of method:

* a message is forwarded, or released, only after a decision that covers it has been recorded at its level;
* a decision covers a later message only while the input document would be the same, within `ttl_seconds`, and when
  every data subject in the message is already referenced by a record of this call;
* whatever goes wrong is a refusal that is itself recorded; if it cannot be recorded, nothing is released at all.
"""

from time import perf_counter

import msgspec

from sidecar.attributes.reach import Reach
from sidecar.attributes.resource import Classified, MethodDescription
from sidecar.attributes.subject import Identity
from sidecar.attributes.words import UNCLASSIFIED
from sidecar.enforcement import refusals
from sidecar.enforcement.call import Call, Final, Metadata
from sidecar.enforcement.circumstances import Claims
from sidecar.enforcement.cover import Cover, SeenSubjects, categories_of, decidable
from sidecar.enforcement.entries import DecisionEntry
from sidecar.enforcement.obligations import Duties, Release, admitted
from sidecar.enforcement.parts import Parts
from sidecar.enforcement.prepared import Prepared, prepare
from sidecar.errors import Code, EnforceError, InterceptError, RecordError, StageError
from sidecar.observability.calls import CallSpan
from sidecar.record import MessageCounts, OutcomeBody, PolicyRef, Trace
from sidecar.vocabulary import (
    LEVELS,
    AccessRequest,
    Action,
    Decision,
    Environment,
    Level,
    Phase,
    ReasonCode,
    Resource,
    Subject,
    SubjectClass,
    SubjectCounts,
    canonical,
)

SubjectKey = tuple[str, str]
_CHANGES = frozenset({"write", "delete", "admin"})
_MAY_WAIT = frozenset({"read", "list", "search"})
"""Actions whose request may go ahead before the subjects are known, since nothing is released undecided."""
_BY_EXCEPTION = "exception"
"""The code among a permit's reasons when an exception stood in for what the rules deny."""


class Guarded:
    """The state of one call between `open` and `finish`. Not safe for several event loops."""

    def __init__(self, parts: Parts, call: Call, span: CallSpan, call_id: str) -> None:
        self._parts, self.call, self.span, self.call_id = parts, call, span, call_id
        service, _, method = call.method.lstrip("/").partition("/")
        self._action = Action(service=service, method=method)
        self._description: MethodDescription | None = None
        self._identity: Identity | None = None
        self._claims: Claims | None = None
        self._classes: dict[SubjectKey, SubjectClass] = {}
        self._covers: dict[Phase, Cover] = {}
        self._duties = Duties.none()
        """What is ordered now, by the request's decision and the answer's."""
        self._phase: Phase = "request"
        self._release = Release()
        self._refused: tuple[str, Code] | None = None
        self._permitted = False
        self.messages_in = self.messages_out = self.bytes_out = 0

    # -- the stages before the first message -------------------------------------------------------------------------

    async def open(self) -> Final | None:
        """Stages 1 to 3 for the call as a whole. None, or the recorded refusal."""
        try:
            self.identify()
            self._describe()
            self._claim()
        except StageError as error:
            return await self.refuse(error)
        return None

    def identify(self) -> None:
        """Stage 2, again for each recheck. IdentifyError."""
        peer = self.call.peer
        self._identity = self._parts.identifier.identify(
            self.call.metadata, peer.identities, peer.certificate_sha256, self._parts.clock()
        )
        self.span.stage("identify")

    def _describe(self) -> None:
        self._description = self._parts.describer.method(self.call.method)
        self._action = self._description.action
        self.span.stage("describe")

    def _claim(self) -> None:
        identity = self._who()
        workload = identity.subjects[0].workload
        self._claims = self._parts.circumstances.claims(
            self.call.metadata, identity.person, workload.operated_from, self._parts.clock()
        )

    @property
    def description(self) -> MethodDescription:
        """What the method reaches; after `open`."""
        if self._description is None:
            raise InterceptError("the call was not described")
        return self._description

    def _who(self) -> Identity:
        if self._identity is None:
            raise InterceptError("the call was not identified")
        return self._identity

    # -- messages ----------------------------------------------------------------------------------------------------

    async def admit(self, data: bytes) -> bytes | Final:
        """Decide a request message: the bytes to forward, once that is recorded, or the recorded refusal."""
        self.span.begin()
        try:
            return await self._admit(data)
        except StageError as error:
            return await self.refuse(error)

    async def admit_nothing(self) -> Final | None:
        """Decide to open a stream before any message: subjects are pending, or unknown where that cannot wait."""
        self.span.begin()
        pending = self._action.name in _MAY_WAIT
        counts = SubjectCounts(pending=True) if pending else SubjectCounts(unknown=1)
        try:
            return await self._decide("request", counts, None, ())
        except StageError as error:
            return await self.refuse(error)

    async def _admit(self, data: bytes) -> bytes | Final:
        description = self.description
        self._phase = "request"
        parsed = description.request.parse(data)
        classified = description.request_subjects(self._parts.classifier, parsed, self._who().own, self._parts.clock())
        self.span.stage("describe")
        reached = decidable(classified, description)
        refusal = await self._decide_unless_covered("request", classified, reached)
        if refusal is not None:
            return refusal
        self.messages_in += 1
        if self._action.name in _CHANGES:
            self._release.named(classified.classes, description.categories)
        covered = UNCLASSIFIED in description.categories
        return admitted(parsed, unclassified_covered=covered, decided=categories_of(reached))

    async def release(self, data: bytes) -> bytes | Final | None:
        """Decide an answer message and apply what was ordered.

        The bytes that may leave (the same object where nothing had to change); None where nothing of the message may;
        or the recorded refusal, after which nothing at all leaves.
        """
        self.span.begin()
        try:
            return await self._release_message(data)
        except StageError as error:
            return await self.refuse(error)

    async def _release_message(self, data: bytes) -> bytes | Final | None:
        description = self.description
        self._phase = "response"
        try:
            parsed = description.answer.parse(data)
        except InterceptError as error:
            raise self._unreadable(error) from None
        classified = description.answer_subjects(self._parts.classifier, parsed, self._who().own, self._parts.clock())
        self.span.stage("describe")
        reached = decidable(classified, description)
        if not self._answer_covered(classified, reached):
            refusal = await self._decide_unless_covered("response", classified, reached)
            if refusal is not None:
                return refusal
        dropped, before = self._release.dropped, sum(self._release.redacted.values())
        try:
            out = self._duties.apply(
                parsed, self._classes, UNCLASSIFIED in description.categories, self._release,
                decided=categories_of(reached),
            )  # fmt: skip
        except InterceptError as error:
            raise self._unreadable(error) from None
        if self._release.dropped != dropped or sum(self._release.redacted.values()) != before:
            self.span.event("filtered")
        self.span.stage("enforce")
        return out

    def _unreadable(self, error: InterceptError) -> EnforceError:
        return EnforceError(
            "the answer cannot be read, so it cannot be filtered",
            reason=ReasonCode.OBLIGATION_UNFULFILLABLE,
            operator=f"{self.call.method}: the upstream's answer does not match its descriptor: {error.operator}. "
            "Give the sidecar the descriptors the upstream was built from.",
        )

    def _answer_covered(self, classified: Classified, reached: Reach | None) -> bool:
        """Whether the request's own decision covers an answer: it names nobody but the subjects decided about."""
        cover = self._covers.get("request")
        if cover is None or reached is not None:
            return False
        if not classified.classes and not classified.nobody:
            return True  # it holds nobody's data: an empty page, a count
        if cover.counts.pending or "response" in self._covers:
            return False
        in_time = not self.description.server_streaming or perf_counter() < cover.until
        return in_time and not classified.nobody and self._referenced(classified)

    def _referenced(self, classified: Classified) -> bool:
        known = self._classes
        return all(known.get(key) == value for key, value in classified.classes.items())

    async def _decide_unless_covered(self, phase: Phase, classified: Classified, reached: Reach | None) -> Final | None:
        cover, counts = self._covers.get(phase), classified.counts
        if cover is not None and cover.counts == counts and cover.reached == reached and perf_counter() < cover.until:
            minute = self._parts.circumstances.minute(self._parts.clock())
            if cover.minute == minute and self._referenced(classified):
                return None
        seen = [(kind, name, class_) for (kind, name), class_ in classified.classes.items()]
        refusal = await self._decide(phase, counts, reached, seen)
        if refusal is None:
            self._classes.update(classified.classes)
        return refusal

    # -- deciding and recording --------------------------------------------------------------------------------------

    async def _decide(
        self, phase: Phase, counts: SubjectCounts, reached: Reach | None, seen: SeenSubjects
    ) -> Final | None:
        parts, now, identity = self._parts, self._parts.clock(), self._who()
        minute = parts.circumstances.minute(now)
        resource = self.description.resource(counts, reached)
        environment = self._environment(phase, minute)
        policy = parts.standing.policy(now)
        ttl, duties = float("inf"), Duties.none()
        for subject in identity.subjects:
            document = AccessRequest(subject=subject, action=self._action, resource=resource, context=environment)
            data = canonical(document)
            started = perf_counter()
            decision = parts.decisions.peek(data)
            if decision is None:
                lapses = min(identity.expires_at, self._claims.expires_at if self._claims else identity.expires_at)
                decision = await parts.decisions.decide(document, data, valid_for=lapses - now)
            took = perf_counter() - started
            self.span.stage("decide")
            prepared = parts.preparations.of(decision, self.call.door)
            if prepared.error is not None:
                parts.report(prepared.error)
            await self._record(phase, data, prepared, seen, policy, took)
            decision = prepared.decision
            if not decision.permits:
                return self._denied(decision, policy)
            ttl, duties = min(ttl, decision.ttl_seconds), duties.and_(prepared.duties)
            if self._claims is not None and any(one.code == _BY_EXCEPTION for one in decision.reasons):
                parts.circumstances.used(self._claims, self.call_id)
        self._permitted = True
        self._covers[phase] = Cover(counts, reached, seen, minute, perf_counter() + ttl, duties)
        self._duties = Duties.none()
        for cover in self._covers.values():
            self._duties = self._duties.and_(cover.duties)
        return None

    def _environment(self, phase: Phase, minute: str) -> Environment:
        if self._claims is None:
            return Environment(time=minute, phase=phase)
        return self._claims.environment(phase, minute)

    async def _record(
        self, phase: Phase, data: bytes, prepared: Prepared, seen: SeenSubjects, policy: PolicyRef, took: float
    ) -> None:
        parts, span = self._parts, self.span
        await parts.recorder.decision(
            DecisionEntry(
                call_id=self.call_id,
                phase=phase,
                service=self._action.service or "",
                method=self._action.method or "",
                door=self.call.door.name,
                trace=Trace(trace_id=span.trace_id, span_id=span.span_id, from_=span.from_),
                policy=policy,
                directory=parts.standing.directory(),
                index=parts.standing.index(),
                input=msgspec.Raw(data),
                decision=prepared.encoded,
                subjects=seen,
                obligations=prepared.obligations,
                level=self._level(permits=prepared.decision.permits, asked=prepared.duties.durability),
                engine=parts.decisions.name,
                eval_us=int(took * 1e6),
                deadline=self.call.deadline,
            )
        )
        span.stage("record")

    def _level(self, *, permits: bool, asked: Level | None = None) -> Level:
        kind = self._identity.subjects[0].kind if self._identity is not None else None
        level = self._parts.levels["deny"] if not permits or kind is None else self._parts.levels[kind]
        return level if asked is None else max(level, asked, key=LEVELS.index)

    def _denied(self, decision: Decision, policy: PolicyRef) -> Final:
        final = refusals.denied(decision, self.call_id, policy.revision)
        self._refused = (decision.reasons[0].code if final.error_info is None else final.error_info.reason, final.code)
        return final

    async def refuse(self, error: StageError) -> Final:
        """Record that a stage refused, and say so to the caller. A refusal that cannot be recorded is UNAVAILABLE."""
        decision = refusals.decision(error)
        self._refused = (decision.reasons[0].code, error.code)
        self.span.event("refused", error.stage)
        self._parts.report(error)
        if not isinstance(error, RecordError):
            subject = self._identity.subjects[0] if self._identity is not None else Subject()
            minute = self._parts.circumstances.minute(self._parts.clock())
            resource = self._description.resource(SubjectCounts()) if self._description is not None else Resource()
            phase = self._phase
            document = AccessRequest(
                subject=subject, action=self._action, resource=resource, context=self._environment(phase, minute)
            )
            try:
                await self._record(
                    phase, canonical(document), prepare(decision, self.call.door), (), PolicyRef(revision=None), 0.0
                )
            except RecordError as failed:
                error = failed
        return refusals.failed(error, self.call_id)

    async def recheck(self) -> Final | None:
        """Decide again what is in force: None while it still holds, otherwise the recorded refusal."""
        self.span.begin()
        try:
            self.identify()
            self._claim()
            for phase, cover in tuple(self._covers.items()):
                refusal = await self._decide(phase, cover.counts, cover.reached, cover.seen)
                if refusal is not None:
                    return refusal
        except StageError as error:
            return await self.refuse(error)
        return None

    @property
    def recheck_after(self) -> float | None:
        """Seconds until this call wants to be decided again; None for never."""
        return self._duties.recheck

    @property
    def expires_at(self) -> float:
        """When the caller's identity lapses, in unix seconds."""
        return self._who().expires_at

    # -- the end -----------------------------------------------------------------------------------------------------

    def forward_metadata(self, allowed: Metadata) -> Metadata:
        """What the upstream is sent: the caller's metadata, and who called."""
        identity = self._who()
        added: list[tuple[str, str | bytes]] = [
            ("x-customhouse-call-id", self.call_id),
            ("traceparent", self.span.traceparent),
        ]
        if identity.person is not None:
            added.append(("x-customhouse-person", identity.person))
        if identity.workload is not None:
            added.append(("x-customhouse-workload", identity.workload))
        return (*(item for item in allowed if item[0] != "traceparent"), *added)

    @property
    def free(self) -> bool:
        """Whether everything the upstream says may pass: a permit without content obligations, nothing pending."""
        cover = self._covers.get("request")
        if cover is None or cover.counts.pending:
            return False
        return not self._duties.content

    @property
    def exhausted(self) -> Final:
        """The answer was one record, and that record had to be dropped."""
        return refusals.withheld(self.call_id)

    async def finish(self, final: Final) -> Final:
        """Write the outcome, before the final status. Without it the call ends UNAVAILABLE."""
        body = OutcomeBody(
            call_id=self.call_id,
            status=final.code.name,
            messages=MessageCounts(in_=self.messages_in, out=self.messages_out),
            released=self._release.by_class(),
            dropped=self._release.dropped,
            redacted=self._release.redacted,
            bytes_out=self.bytes_out,
            duration_ms=round((perf_counter() - self.span.started) * 1e3, 3),
            complete=True,
        )
        try:
            await self._parts.recorder.outcome(body, self._outcome_level())
        except RecordError as error:
            final = refusals.failed(error, self.call_id)
            self._refused = ("record_unavailable", final.code)
        self.span.stage("answer")
        effect = "permit" if self._permitted and self._refused is None else "deny"
        self.span.end(final.code.name, effect, self._refused[0] if self._refused else "")
        return final

    def _outcome_level(self) -> Level:
        return min(self._level(permits=self._refused is None), "committed", key=LEVELS.index)
