"""One call before the policy: who asks for what, each question decided and recorded, each refusal too.

What is asked about (`guarded`) and how messages move (`streaming`) are no business of this file.
"""

from time import perf_counter
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from sidecar.attributes.reach import Reach
from sidecar.attributes.resource import MethodDescription
from sidecar.attributes.subject import Identity
from sidecar.enforcement import refusals
from sidecar.enforcement.call import CALL_ID, Call, Final, Metadata
from sidecar.enforcement.circumstances import Claims
from sidecar.enforcement.cover import Cover, SeenSubjects
from sidecar.enforcement.entries import DecisionEntry
from sidecar.enforcement.obligations import Duties
from sidecar.enforcement.parts import Parts
from sidecar.enforcement.prepared import Prepared, prepare
from sidecar.errors import Code, DecideError, InterceptError, RecordError, StageError
from sidecar.observability.calls import CallSpan
from sidecar.record import OutcomeBody, PolicyRef, Trace
from sidecar.vocabulary import (
    LEVELS,
    AccessRequest,
    Action,
    Decision,
    Environment,
    Level,
    Phase,
    Resource,
    Subject,
    SubjectCounts,
    canonical,
)

_PLAIN = "!#$&'()*+,/:;=?@[]"
"""What stands as it is in a header, besides letters and digits; the rest is percent-encoded (RFC 3986, 2.1)."""
_BY_EXCEPTION = "exception"
"""The code among a permit's reasons when an exception stood in for what the rules deny."""


class Basis(NamedTuple):
    """What a decision rests on besides its input: taken before it is asked for, since either may change meanwhile."""

    policy: PolicyRef
    index_revision: str | None


class Case:
    """A call's identity, description and claims. Its outcome is written once; nothing is recorded after it."""

    def __init__(self, parts: Parts, call: Call, span: CallSpan, call_id: str) -> None:
        self.parts, self.call, self.span, self.call_id = parts, call, span, call_id
        service, _, method = call.method.lstrip("/").partition("/")
        self.action = Action(service=service, method=method)
        self._description: MethodDescription | None = None
        self._identity: Identity | None = None
        self._claims: Claims | None = None
        self._refused: tuple[str, Code] | None = None
        self._permitted = False
        self._closed = False

    # -- who asks, for what ------------------------------------------------------------------------------------------

    def identify(self) -> None:
        """Stage 2, and what the caller claims. IdentifyError, InterceptError."""
        peer = self.call.peer
        now = self.parts.clock()
        identity = self.parts.identifier.identify(self.call.metadata, peer.identities, peer.certificate_sha256, now)
        self._identity = identity
        self.span.stage("identify")

    def describe(self) -> None:
        """Stage 3 for the method. DescribeError, InterceptError."""
        self._description = self.parts.describer.method(self.call.method)
        self.action = self._description.action
        self.span.stage("describe")

    def claim(self) -> None:
        """The caller's claims. InterceptError, IdentifyError."""
        identity = self.identity
        workload = identity.subjects[0].workload
        self._claims = self.parts.circumstances.claims(
            self.call.metadata, identity.person, workload.operated_from, self.parts.clock()
        )

    @property
    def identity(self) -> Identity:
        """Who asks; after `identify`."""
        if self._identity is None:
            raise InterceptError("the call was not identified")
        return self._identity

    @property
    def description(self) -> MethodDescription:
        """What the method reaches; after `describe`."""
        if self._description is None:
            raise InterceptError("the call was not described")
        return self._description

    @property
    def expires_at(self) -> float:
        """When the first of identity and claimed exception lapses, in unix seconds."""
        ends = self.identity.expires_at
        return ends if self._claims is None else min(ends, self._claims.expires_at)

    async def permit_schema(self) -> None:
        """Record that an identified caller may read schemas, which hold no personal data. RecordError."""
        minute = self.parts.circumstances.minute(self.parts.clock())
        document = AccessRequest(
            subject=self.identity.subjects[0], action=self.action, resource=Resource(),
            context=self._environment("request", minute),
        )  # fmt: skip
        prepared = prepare(refusals.SCHEMA, self.call.door)
        await self._record("request", canonical(document), prepared, (), self._basis(), 0.0)
        self._permitted = True

    # -- one question ------------------------------------------------------------------------------------------------

    async def decide(
        self, phase: Phase, counts: SubjectCounts, reached: Reach | None, seen: SeenSubjects
    ) -> Cover | Final:
        """Decide, once for each identity, and record. The permit, or what the caller is told. StageError."""
        parts, now, identity = self.parts, self.parts.clock(), self.identity
        minute = parts.circumstances.minute(now)
        resource = self.description.resource(counts, reached)
        environment = self._environment(phase, minute)
        index = parts.standing.index()
        ttl, duties, by_exception = float("inf"), Duties.none(), False
        for subject in identity.subjects:
            document = AccessRequest(subject=subject, action=self.action, resource=resource, context=environment)
            data = canonical(document)
            basis = Basis(parts.standing.policy(now), index)
            started = perf_counter()
            decision = parts.decisions.peek(data)
            if decision is None:
                decision = await parts.decisions.decide(document, data, valid_for=self.expires_at - now)
            took = perf_counter() - started
            self.span.stage("decide")
            prepared = parts.preparations.of(decision, self.call.door)
            if prepared.error is not None:
                parts.report(prepared.error)
            await self._record(phase, data, prepared, seen, basis, took)
            if not prepared.decision.permits:
                return self._denied(prepared.decision, basis.policy)
            ttl, duties = min(ttl, decision.ttl_seconds), duties.and_(prepared.duties)
            by_exception |= any(one.code == _BY_EXCEPTION for one in decision.reasons)
        if by_exception and self._claims is not None:
            parts.circumstances.used(self._claims, self.call_id)
        self._permitted = True
        return Cover(counts, reached, seen, minute, perf_counter() + ttl, duties)

    async def refuse(self, error: StageError, phase: Phase = "request") -> Final:
        """Record that a stage refused, and say so to the caller. A refusal that cannot be recorded is UNAVAILABLE."""
        decision = refusals.decision(error)
        self._refused = (decision.reasons[0].code, error.code)
        self.span.event("refused", error.stage)
        self.parts.report(error)
        if not isinstance(error, RecordError):
            subject = self._identity.subjects[0] if self._identity is not None else Subject()
            minute = self.parts.circumstances.minute(self.parts.clock())
            resource = self._description.resource(SubjectCounts()) if self._description is not None else Resource()
            document = AccessRequest(
                subject=subject, action=self.action, resource=resource, context=self._environment(phase, minute)
            )
            prepared = prepare(decision, self.call.door)
            try:
                await self._record(phase, canonical(document), prepared, (), self._basis(), 0.0)
            except RecordError as failed:
                error = failed
        return refusals.failed(error, self.call_id, self._basis().policy.revision)

    def _basis(self) -> Basis:
        """What is in force when no policy was asked; no policy when it is too old to be in force."""
        try:
            policy = self.parts.standing.policy(self.parts.clock())
        except DecideError:
            policy = PolicyRef(revision=None)
        return Basis(policy, self.parts.standing.index())

    def _environment(self, phase: Phase, minute: str) -> Environment:
        if self._claims is None:
            return Environment(time=minute, phase=phase)
        return self._claims.environment(phase, minute)

    async def _record(
        self, phase: Phase, data: bytes, prepared: Prepared, seen: SeenSubjects, basis: Basis, took: float
    ) -> None:
        if self._closed:
            raise RecordError("the call has ended")
        parts, span, identity = self.parts, self.span, self._identity
        await parts.recorder.decision(
            DecisionEntry(
                call_id=self.call_id,
                phase=phase,
                service=self.action.service or "",
                method=self.action.method or "",
                door=self.call.door.name,
                trace=Trace(trace_id=span.trace_id, span_id=span.span_id, from_=span.from_),
                policy=basis.policy,
                directory=parts.standing.directory() if identity is None else identity.directory,
                index=basis.index_revision,
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
        """The level of the most demanding kind among those who ask; a policy may only raise it."""
        levels = self.parts.levels
        if not permits or self._identity is None:
            level = levels["deny"]
        else:
            level = max((levels[one.kind or "deny"] for one in self._identity.subjects), key=LEVELS.index)
        return level if asked is None else max(level, asked, key=LEVELS.index)

    def _denied(self, decision: Decision, policy: PolicyRef) -> Final:
        final = refusals.denied(decision, self.call_id, policy.revision)
        reason = final.error_info.reason if final.error_info is not None else decision.reasons[0].code
        self._refused = (reason, final.code)
        return final

    # -- the end -----------------------------------------------------------------------------------------------------

    async def close(self, final: Final, body: OutcomeBody) -> Final:
        """Write the outcome; only the first time. Without it the call ends UNAVAILABLE."""
        if self._closed:
            return final
        self._closed = True
        level = min(self._level(permits=self._refused is None), "committed", key=LEVELS.index)
        try:
            await self.parts.recorder.outcome(body, level)
        except Exception as error:  # noqa: BLE001 - whatever it was, there is no durable outcome
            failed = (
                error
                if isinstance(error, RecordError)
                else RecordError(
                    "the access cannot be recorded now", operator=f"the recorder failed: {type(error).__name__}"
                )
            )
            self.parts.report(failed)
            final = refusals.failed(failed, self.call_id)
            self._refused = ("record_unavailable", final.code)
        finally:
            self.span.stage("answer")
            effect = "permit" if self._permitted and self._refused is None else "deny"
            self.span.end(final.code.name, effect, self._refused[0] if self._refused else "")
        return final

    def forward_metadata(self) -> Metadata:
        """What the upstream is sent: the caller's metadata, and who called."""
        identity = self.identity
        added: list[tuple[str, str | bytes]] = [
            (CALL_ID, self.call_id),
            ("traceparent", self.span.traceparent),
        ]
        if identity.person is not None:
            added.append(("x-customhouse-person", quote(identity.person, safe=_PLAIN)))
        if identity.workload is not None:
            added.append(("x-customhouse-workload", identity.workload))
        return (*(item for item in self.call.metadata if item[0] != "traceparent"), *added)
