"""One call before the policy: who asks for what, each question decided and recorded, each refusal too.

What is asked about (`guarded`) and how messages move (`streaming`) are no business of this file.
"""

import asyncio
from functools import lru_cache
from time import perf_counter
from typing import NamedTuple
from urllib.parse import quote

import msgspec

from sidecar.attributes.described import Described
from sidecar.attributes.reach import Reach
from sidecar.attributes.resource import MethodDescription
from sidecar.attributes.subject import Identity
from sidecar.enforcement import refusals
from sidecar.enforcement.call import CALL_ID, Call, Final, Metadata
from sidecar.enforcement.circumstances import Claims
from sidecar.enforcement.cover import Cover, SeenSubjects
from sidecar.enforcement.entries import DecisionEntry
from sidecar.enforcement.exposure import CallExposure, Exposures, Wanted, group_of, in_scope
from sidecar.enforcement.named import check_named
from sidecar.enforcement.obligations import Duties
from sidecar.enforcement.parts import Parts
from sidecar.enforcement.prepared import Prepared, prepare
from sidecar.errors import Code, DecideError, InterceptError, RecordError, StageError, Superseded
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
_ADOPTION_SECONDS = 2.0
_ADOPTION_LOOKS = 100
"""How long a call waits when an engine that others run has the next policy before it is in force here."""


class Basis(NamedTuple):
    """What a decision rests on besides its input: taken before it is asked for, since either may change meanwhile."""

    policy: PolicyRef
    index_revision: str | None


class Case:
    """A call's identity, description and claims. Its outcome is written once; nothing is recorded after it."""

    def __init__(self, parts: Parts, call: Call, span: CallSpan, call_id: str) -> None:
        self.parts, self.call, self.span, self.call_id = parts, call, span, call_id
        self.action = _named(call.method)
        self._described: Described | None = None
        self._identity: Identity | None = None
        self._claims: Claims | None = None
        self._claimed_for = ""
        self._given: Case | None = None
        self.exposure: CallExposure | None = None
        """The call's account with the ledger, once the ledger was asked."""
        self.revision: str | None = None
        """Of the policy that decided last."""
        self._refused: tuple[str, Code] | None = None
        self._permitted = False
        self.closed = False
        """The outcome is written, or being written."""

    # -- who asks, for what ------------------------------------------------------------------------------------------

    def identify(self) -> None:
        """Stage 2, and what the caller claims. IdentifyError, InterceptError."""
        peer = self.call.peer
        identity = None if self._given is None else self._given._identity  # noqa: SLF001 - of this very class
        if identity is None:
            identity = self.parts.identifier.identify(
                self.call.metadata, peer.identities, peer.certificate_sha256, self.parts.clock(), self.call.asserted
            )
        self._identity = identity
        check_named(self.call, identity)
        self.span.stage("identify")

    def adopt(self, other: "Case") -> None:
        """The first identification is what another case of the same request has just found: same caller, same claims.

        Only of a case that went through identification and claims; any other leaves this one to find out by itself.
        """
        mine, theirs = self.call, other.call
        if (mine.metadata, mine.peer, mine.asserted) == (theirs.metadata, theirs.peer, theirs.asserted):
            self._given = other if other.claimed else None

    def identify_workload(self) -> None:
        """The workload at the other end alone, for the record of something it did in its own name. IdentifyError."""
        self._identity = self.parts.identifier.calling(self.call.peer.identities, self.parts.clock())

    def describe(self) -> MethodDescription:
        """Stage 3 for the method. DescribeError, InterceptError."""
        found = self.parts.describer.method(self.call.method)
        self.describe_as(found)
        return found

    def describe_as(self, described: Described) -> None:
        """Stage 3 for whatever is described this way."""
        self._described = described
        self.action = described.action
        self.span.stage("describe")

    def claim(self) -> None:
        """The caller's claims. InterceptError, IdentifyError."""
        identity, given, service = self.identity, self._given, self.action.service or ""
        self._given, self._claimed_for = None, service
        if given is not None and given._claimed_for == service and given._claims is not None:  # noqa: SLF001 - as above
            self._claims = given._claims  # noqa: SLF001 - as above
            return
        workload = identity.subjects[0].workload
        self._claims = self.parts.circumstances.claims(
            self.call.metadata, identity.person, workload.operated_from, self.parts.clock(),
            subjects=identity.subjects, service=service,
        )  # fmt: skip

    @property
    def claimed(self) -> bool:
        """Whether the caller is identified and their claims are known."""
        return self._identity is not None and self._claims is not None

    @property
    def claimed_for(self) -> str:
        """The service for which the caller's claims and what lifts the DSP were looked up; after `claim`."""
        return self._claimed_for

    @property
    def identity(self) -> Identity:
        """Who asks; after `identify`."""
        if self._identity is None:
            raise InterceptError("the call was not identified")
        return self._identity

    @property
    def described(self) -> Described:
        """What is reached; after `describe`."""
        if self._described is None:
            raise InterceptError("the call was not described")
        return self._described

    @property
    def expires_at(self) -> float:
        """When the first of identity and claimed exception lapses, in unix seconds."""
        identity, claims = self._identity or self.identity, self._claims
        ends = identity.expires_at
        return ends if claims is None or ends <= claims.expires_at else claims.expires_at

    async def permit_schema(self) -> None:
        """Record that an identified caller may read schemas, which hold no personal data. RecordError."""
        await self.permit(refusals.SCHEMA, Resource(), ())

    async def permit(self, decision: Decision, resource: Resource, seen: SeenSubjects) -> None:
        """Record a permit of the sidecar's own, for what reaches no data. RecordError."""
        minute = self.parts.circumstances.minute(self.parts.clock())
        document = AccessRequest(
            subject=self.identity.subjects[0], action=self.action, resource=resource,
            context=self._environment("request", minute),
        )  # fmt: skip
        prepared = prepare(decision, self.call.door)
        await self._record("request", canonical(document), prepared, seen, self._basis(), 0.0)
        self._permitted = True

    # -- one question ------------------------------------------------------------------------------------------------

    async def decide(
        self, phase: Phase, counts: SubjectCounts, reached: Reach | None, seen: SeenSubjects, wanted: Wanted
    ) -> Cover | Final:
        """Decide, once for each identity, and record. The permit, or what the caller is told. StageError.

        `wanted` says whom the message concerns and with which data, where the ledger has to know.
        """
        parts, now, identity = self.parts, self.parts.clock(), self.identity
        minute = parts.circumstances.minute(now)
        environment = self._environment(phase, minute)
        index = parts.standing.index()
        ttl, duties, by_exception = float("inf"), Duties.none(), False
        for subject in identity.subjects:
            context, valid_for, group = environment, self.expires_at - now, self._counted(subject, reached)
            if group is not None:
                exposure = await self._account(parts.exposures).ask(group, wanted(), answer=phase == "response")
                # Figures of this moment: a decision on them is not kept, and covers no other message.
                context, valid_for, ttl = msgspec.structs.replace(environment, exposure=exposure), 0.0, 0.0
            data = parts.questions.of(subject, self.described, counts, context, reached)
            basis = Basis(parts.standing.policy(now), index)
            started = perf_counter()
            decision = parts.decisions.peek(data) if group is None else None
            if decision is None:
                document = self._document(subject, counts, context, reached)
                try:
                    decision = await parts.decisions.decide(document, data, valid_for=valid_for)
                except Superseded as newer:
                    basis = Basis(await self._adopted(newer), index)
                    decision = await parts.decisions.decide(document, data, valid_for=valid_for)
            took = perf_counter() - started
            self.span.stage("decide")
            prepared = parts.preparations.of(decision, self.call.door)
            if prepared.error is not None:
                parts.report(prepared.error)
            await self._record(phase, data, prepared, seen, basis, took)
            self.revision = basis.policy.revision
            if not prepared.permits:
                return self._denied(prepared.decision, basis.policy)
            ttl, duties = min(ttl, decision.ttl_seconds), duties.and_(prepared.duties)
            by_exception |= prepared.by_exception
        if by_exception and self._claims is not None:
            parts.circumstances.used(self._claims, self.call_id)
        self._permitted = True
        return Cover(counts, reached, seen, minute, perf_counter() + ttl, duties)

    def _document(
        self, subject: Subject, counts: SubjectCounts, context: Environment, reached: Reach | None
    ) -> AccessRequest:
        resource = self.described.resource(counts, reached)
        return AccessRequest(subject=subject, action=self.action, resource=resource, context=context)

    async def _adopted(self, newer: Superseded) -> PolicyRef:
        """The policy by which the engine answers already, once it is in force here. DecideError when that takes long."""
        for _ in range(_ADOPTION_LOOKS):
            policy = self.parts.standing.policy(self.parts.clock())
            if policy.revision == newer.revision:
                return policy
            await asyncio.sleep(_ADOPTION_SECONDS / _ADOPTION_LOOKS)
        raise newer

    def _counted(self, subject: Subject, reached: Reach | None) -> str | None:
        """The group to which this message adds; None where the ledger is not asked."""
        group = None if self.parts.exposures is None else group_of(subject)
        if group is None:
            return None
        return group if in_scope(self.described.reach) or (reached is not None and in_scope(reached)) else None

    def _account(self, exposures: Exposures | None) -> CallExposure:
        if self.exposure is None:
            if exposures is None:
                raise DecideError("no ledger is configured")
            self.exposure = CallExposure(exposures, self.call_id, self.action.service or "")
        return self.exposure

    async def refuse(self, error: StageError, phase: Phase = "request") -> Final:
        """Record that a stage refused, and say so to the caller. A refusal that cannot be recorded is UNAVAILABLE."""
        decision = refusals.decision(error)
        self._refused = (decision.reasons[0].code, error.code)
        self.span.event("refused", error.stage)
        self.parts.report(error)
        if not isinstance(error, RecordError):
            subject = self._identity.subjects[0] if self._identity is not None else Subject()
            minute = self.parts.circumstances.minute(self.parts.clock())
            resource = self._described.resource(SubjectCounts()) if self._described is not None else Resource()
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
        if self.closed:
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
                level=self._level(permits=prepared.permits, asked=prepared.duties.durability),
                engine=parts.decisions.name,
                eval_us=int(took * 1e6),
                deadline=self.call.deadline,
            )
        )
        span.stage("record")
        span.decided(self.call.door.name, phase, prepared.effect, prepared.reason)

    def _level(self, *, permits: bool, asked: Level | None = None) -> Level:
        """The level of the most demanding kind among those who ask; a policy may only raise it."""
        levels = self.parts.levels
        if not permits or self._identity is None:
            level = levels["deny"]
        else:
            subjects = self._identity.subjects
            level = levels[subjects[0].kind or "deny"]
            for one in subjects[1:]:
                level = max(level, levels[one.kind or "deny"], key=LEVELS.index)
        return level if asked is None else max(level, asked, key=LEVELS.index)

    def _denied(self, decision: Decision, policy: PolicyRef) -> Final:
        final = refusals.denied(decision, self.call_id, policy.revision)
        reason = final.error_info.reason if final.error_info is not None else decision.reasons[0].code
        self._refused = (reason, final.code)
        return final

    # -- the end -----------------------------------------------------------------------------------------------------

    async def close(self, final: Final, body: OutcomeBody) -> Final:
        """Write the outcome; only the first time. Without it the call ends UNAVAILABLE.

        The ledger is told after it: a crash between the two leaves everything that was reserved counted, while the
        other order could give back what the missing outcome would have shown as released.
        """
        if self.closed:
            return final
        self.closed = True
        try:
            final = await self._ended(final, body)
        except BaseException:
            if self.exposure is not None:
                self.exposure.owe()
            raise
        if self.exposure is not None:
            await self.exposure.close()
        return final

    async def _ended(self, final: Final, body: OutcomeBody) -> Final:
        level = self._level(permits=self._refused is None)
        level = "committed" if level == "acknowledged" else level
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
            added.append(("x-customhouse-person", _quoted(identity.person)))
        if identity.workload is not None:
            added.append(("x-customhouse-workload", identity.workload))
        return (*[item for item in self.call.metadata if item[0] != "traceparent"], *added)


@lru_cache(maxsize=1024)
def _named(path: str) -> Action:
    """What a caller wants done, before anybody knows what it means."""
    service, _, method = path.lstrip("/").partition("/")
    return Action(service=service, method=method)


@lru_cache(maxsize=4096)
def _quoted(person: str) -> str:
    return quote(person, safe=_PLAIN)
