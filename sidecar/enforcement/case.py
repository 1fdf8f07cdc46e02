"""One call before the policy: each question decided and recorded, each refusal too, and the outcome at the end.

Who asks (`caller`), what is asked about (`guarded`) and how messages move (`streaming`) are no business of this file.
"""

import asyncio
from collections.abc import Mapping, Sequence
from math import inf
from time import perf_counter

import msgspec

from sidecar.attributes.reach import Reach
from sidecar.attributes.resource import SubjectKey
from sidecar.enforcement import refusals
from sidecar.enforcement.call import Final, Metadata
from sidecar.enforcement.caller import Caller
from sidecar.enforcement.cover import Cover, SeenSubjects
from sidecar.enforcement.entries import DecisionEntry, DecisionForm
from sidecar.enforcement.exposure import CallExposure, Exposure, Exposures, Wanted, group_of, in_scope
from sidecar.enforcement.forwarded import forwarded, who_called
from sidecar.enforcement.obligations import Duties
from sidecar.enforcement.prepared import Prepared, prepare
from sidecar.enforcement.questions import Question
from sidecar.errors import Code, DecideError, RecordError, StageError, Superseded
from sidecar.record import OutcomeBody, PolicyRef, Trace
from sidecar.vocabulary import (
    LEVELS,
    AccessRequest,
    Decision,
    Environment,
    Level,
    Phase,
    Resource,
    Subject,
    SubjectClass,
    SubjectCounts,
    canonical,
)

_NO_DUTIES = Duties.none()
_ADOPTION_SECONDS = 2.0
_ADOPTION_LOOKS = 100
"""How long a call waits when an engine that others run has the next policy before it is in force here."""


class Put(msgspec.Struct, frozen=True):
    """A question in the name of one identity, as it is put: of which phase, about what, as which document.

    `policy`, `index`: in force before it is asked, since either may change meanwhile. `valid_for`: seconds for which an
    answer may be kept at most.
    """

    phase: Phase
    subject: Subject
    counts: SubjectCounts
    reached: Reach | None
    classes: Mapping[SubjectKey, SubjectClass]
    context: Environment
    data: Question
    policy: PolicyRef
    index: str | None
    valid_for: float


class Decided(msgspec.Struct, frozen=True):
    """A question with its answer, to be recorded as `entry`: nothing is permitted before it is.

    `until` (perf_counter): its `ttl_seconds` after the policy was asked, also where the answer was remembered.
    """

    put: Put
    policy: PolicyRef
    decision: Decision
    prepared: Prepared
    entry: DecisionEntry
    until: float
    remembered: bool = False
    """The answer was there already."""


class Case(Caller):
    """A call's decisions and refusals. Its outcome is written once; nothing is recorded after it."""

    exposure: CallExposure | None = None
    """The call's account with the ledger, once the ledger was asked."""
    revision: str | None = None
    """Of the policy that decided last."""
    sole: Decided | None = None
    """The one question of the call, while it has asked no other."""
    _questions = 0
    closed = False
    """The outcome is written, or being written."""
    lasting = False
    """A decision may cover more than one message each way, so that how long it lasts matters."""
    _refused: tuple[str, Code] | None = None
    _permitted = False

    def equal(self, other: "Case", *, permitted: bool) -> None:
        """This call is the other in all but whom it is about. `permitted`: that is recorded of this one as well."""
        self._identity, self._claims = other._identity, other._claims  # noqa: SLF001 - of this very class
        self._described, self.action = other._described, other.action  # noqa: SLF001
        self._claimed_for = other.claimed_for
        self.expires_at, self.revision, self._permitted = other.expires_at, other.revision, permitted

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
        await self._record("request", canonical(document), prepared, seen, *self._basis(), 0.0)
        self._permitted = True

    # -- one question ------------------------------------------------------------------------------------------------

    async def decide(
        self, phase: Phase, counts: SubjectCounts, reached: Reach | None, classes: Mapping[SubjectKey, SubjectClass],
        wanted: Wanted,
    ) -> Cover | Final:  # fmt: skip
        """Decide, once for each identity, and record. The permit, or what the caller is told. StageError.

        `wanted` says whom the message concerns and with which data, where the ledger has to know.
        """
        parts, found, until, duties = self.parts, list[Decided](), inf, _NO_DUTIES
        for subject in (self._identity or self.identity).subjects:
            group = None if parts.exposures is None else self._counted(subject, reached)
            if group is None:
                put = self._put(subject, phase, counts, reached, classes)
            else:
                exposure = await self._account(parts.exposures).ask(group, wanted(), answer=phase == "response")
                put, until = self._put(subject, phase, counts, reached, classes, exposure), 0.0
            decided = self.known(put) or await self.answer(put)
            await parts.recorder.decision(decided.entry)
            refusal = self._recorded(decided)
            if refusal is not None:
                return refusal
            found.append(decided)
            self._questions += 1
            until = min(until, decided.until)
            duties = decided.prepared.duties if duties is _NO_DUTIES else duties.and_(decided.prepared.duties)
        self._permit(found)
        self.sole = found[0] if self._questions == 1 else None
        return Cover(counts, reached, classes, found[0].put.context.time, until, duties)

    def put(self, phase: Phase, counts: SubjectCounts, classes: Mapping[SubjectKey, SubjectClass]) -> Put | None:
        """The question that `decide` would begin with, for `answer` and `recorded`. StageError.

        None where `decide` asks more than this one: in several names, or the ledger.
        """
        (subject, *others) = (self._identity or self.identity).subjects
        if others or (self.parts.exposures is not None and self._counted(subject, None) is not None):
            return None
        return self._put(subject, phase, counts, None, classes)

    def recorded(self, decided: Decided) -> Duties | Final:
        """What follows once the one question has been recorded: the permit's duties, or what the caller is told."""
        refusal = self._recorded(decided)
        if refusal is None:
            self._permit((decided,))
        return refusal or decided.prepared.duties

    def _put(
        self, subject: Subject, phase: Phase, counts: SubjectCounts, reached: Reach | None,
        classes: Mapping[SubjectKey, SubjectClass], exposure: Exposure | None = None,
    ) -> Put:  # fmt: skip
        parts = self.parts
        now = parts.clock()
        context, valid_for = self._environment(phase, parts.circumstances.minute(now)), self.expires_at - now
        if exposure is not None:
            # Figures of this moment: a decision on them is not kept, and covers no other message.
            context, valid_for = msgspec.structs.replace(context, exposure=exposure), 0.0
        data = parts.questions.of(subject, self._described or self.described, counts, context, reached)
        policy, index = parts.standing.policy(now), parts.standing.index()
        return Put(phase, subject, counts, reached, classes, context, data, policy, index, valid_for)

    def known(self, put: Put) -> Decided | None:
        """What has been answered to an equal question before, where that may be used."""
        started = perf_counter()
        decision = self.parts.decisions.peek(put.data) if put.valid_for > 0 else None
        if decision is None:
            return None
        left = self.parts.decisions.left(put.data) if self.lasting else decision.ttl_seconds
        took = perf_counter() - started
        return self.answered(put, decision, put.policy, took, started + left, remembered=True)

    async def answer(self, put: Put) -> Decided:
        """Ask the policy. DecideError."""
        decisions, policy, started = self.parts.decisions, put.policy, perf_counter()
        resource = self.described.resource(put.counts, put.reached)
        document = AccessRequest(subject=put.subject, action=self.action, resource=resource, context=put.context)
        try:
            decision = await decisions.decide(document, put.data, valid_for=put.valid_for)
        except Superseded as newer:
            policy = await self._adopted(newer)
            decision = await decisions.decide(document, put.data, valid_for=put.valid_for)
        return self.answered(put, decision, policy, perf_counter() - started, started + decision.ttl_seconds)

    def answered(
        self, put: Put, decision: Decision, policy: PolicyRef, took: float, until: float, *, remembered: bool = False
    ) -> Decided:
        """The question with this answer, of this policy, which took so many seconds. RecordError once the call has ended."""
        self.span.stage("decide")
        prepared = self.parts.preparations.of(decision, self.call.door)
        if prepared.error is not None:
            self.parts.report(prepared.error)
        seen = [(kind, name, class_) for (kind, name), class_ in put.classes.items()]
        entry = self._entry(put.phase, put.data, prepared, seen, policy, put.index, took)
        return Decided(put, policy, decision, prepared, entry, until, remembered)

    def _recorded(self, decided: Decided) -> Final | None:
        """What the caller is told of a deny; None for a permit."""
        prepared, policy = decided.prepared, decided.policy
        self._noted(decided.put.phase, prepared)
        self.revision = policy.revision
        return None if prepared.permits else self._denied(prepared.decision, policy)

    def _permit(self, found: Sequence[Decided]) -> None:
        for one in found:
            if one.prepared.by_exception and self._claims is not None:
                self.parts.circumstances.used(self._claims, self.call_id)
                break
        self._permitted = True

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
                await self._record(phase, canonical(document), prepared, (), *self._basis(), 0.0)
            except RecordError as failed:
                error = failed
        return refusals.failed(error, self.call_id, self._basis()[0].revision)

    def _basis(self) -> tuple[PolicyRef, str | None]:
        """Policy and index in force when no policy was asked; no policy when it is too old to be in force."""
        try:
            policy = self.parts.standing.policy(self.parts.clock())
        except DecideError:
            policy = PolicyRef(revision=None)
        return policy, self.parts.standing.index()

    async def _record(
        self, phase: Phase, data: bytes, prepared: Prepared, seen: SeenSubjects, policy: PolicyRef, index: str | None,
        took: float,
    ) -> None:  # fmt: skip
        await self.parts.recorder.decision(self._entry(phase, data, prepared, seen, policy, index, took))
        self._noted(phase, prepared)

    def _entry(
        self, phase: Phase, data: bytes, prepared: Prepared, seen: SeenSubjects, policy: PolicyRef, index: str | None,
        took: float,
    ) -> DecisionEntry:  # fmt: skip
        if self.closed:
            raise RecordError("the call has ended")
        span = self.span
        return DecisionEntry(
            form=self._form(phase, data, prepared, policy, index),
            call_id=self.call_id,
            trace=Trace(trace_id=span.trace_id, span_id=span.span_id, from_=span.from_),
            eval_us=int(took * 1e6),
            subjects=seen,
            deadline=self.call.deadline,
        )

    def _form(
        self, phase: Phase, data: bytes, prepared: Prepared, policy: PolicyRef, index: str | None
    ) -> DecisionForm:
        """A question's is kept with it, for as long as the same is decided about it at the same door."""
        parts, identity, action, door = self.parts, self._identity, self.action, self.call.door.name
        directory = parts.standing.directory() if identity is None else identity.directory
        level = self._level(permits=prepared.permits, asked=prepared.duties.durability)
        rest = (door, prepared, policy, directory, index, level, parts.decisions.name)
        kept = data.form if isinstance(data, Question) else None
        if kept is not None and kept[0] == rest:
            return kept[1]
        form = DecisionForm(
            phase=phase, service=action.service or "", method=action.method or "", door=door, policy=policy,
            directory=directory, index=index, input=msgspec.Raw(data), decision=prepared.encoded,
            obligations=prepared.obligations, level=level, engine=parts.decisions.name,
        )  # fmt: skip
        if isinstance(data, Question):
            data.form = (rest, form)
        return form

    def _noted(self, phase: Phase, prepared: Prepared) -> None:
        self.span.stage("record")
        self.span.stats.decided(self.call.door.name, phase, prepared.effect, prepared.reason)

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
            try:
                await self.parts.recorder.outcome(body, self.outcome_level)
            except Exception as error:  # noqa: BLE001 - whatever it was, there is no durable outcome
                final = self._unrecorded(error)
            finally:
                self._over(final)
        except BaseException:
            if self.exposure is not None:
                self.exposure.owe()
            raise
        if self.exposure is not None:
            await self.exposure.close()
        return final

    @property
    def at_once(self) -> bool:
        """Whether `close` waits for nothing: the outcome has to be written only, and the ledger knows of no such call."""
        return self.exposure is None and self.outcome_level == "written"

    @property
    def outcome_level(self) -> Level:
        """What the outcome must reach: the level of the decisions, but at most `committed`, since the call has ended."""
        level = self._level(permits=self._refused is None)
        return "committed" if level == "acknowledged" else level

    def _unrecorded(self, error: Exception) -> Final:
        failed = refusals.unrecorded(error)
        self.parts.report(failed)
        final = refusals.failed(failed, self.call_id)
        self._refused = ("record_unavailable", final.code)
        return final

    def _over(self, final: Final) -> None:
        self.span.stage("answer")
        refused = self._refused
        effect = "permit" if self._permitted and refused is None else "deny"
        self.span.end(final.code._name_, effect, "" if refused is None else refused[0])

    def forward_metadata(self) -> Metadata:
        """What the upstream is sent: the caller's metadata, and who called."""
        who = who_called(self._identity or self.identity)
        return forwarded(self.call.metadata, self.call_id, self.span.traceparent, who)
