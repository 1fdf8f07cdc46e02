"""The straight way of an ordinary unary call: all that follows is known already, so each message is looked at and recorded.

`begin` finds the caller and, under them, what was settled about one data subject of the request's class (`regulars`); the
request goes once that has been recorded, and an answer that names the same subject, of the same class, leaves by the duties
of that decision. Wherever anything is otherwise (another question, an answer about somebody else, a refusal, a fault) the
call goes on as a `Guarded` that has come just as far (`whole`), and that says what the straight way means
(test_ordinary_calls holds both equal).
"""

from time import perf_counter
from types import EllipsisType

from sidecar.attributes.resource import SubjectKey, with_evidence
from sidecar.enforcement import refusals
from sidecar.enforcement.call import Call, Final, Metadata
from sidecar.enforcement.case import Case
from sidecar.enforcement.cover import Cover
from sidecar.enforcement.entries import DecisionEntry
from sidecar.enforcement.forwarded import forwarded
from sidecar.enforcement.guarded import CHANGES, Guarded
from sidecar.enforcement.outcomes import Shown, observed
from sidecar.enforcement.parts import Parts
from sidecar.enforcement.regulars import Regular, Regulars, Settled
from sidecar.enforcement.release import Release
from sidecar.errors import StageError
from sidecar.observability.calls import CallSpan
from sidecar.record import MessageCounts, Trace

_NONE = MessageCounts(in_=0, out=0)
_ASKED = MessageCounts(in_=1, out=0)
_ANSWERED = MessageCounts(in_=1, out=1)


class OrdinaryCall(Case):
    """One call of a regular. As `Guarded`, from its request to its end; nothing is done before `enter`."""

    _guarded: Guarded | None = None
    _settled: Settled | None = None
    _written = False
    _sent: bytes | None = None

    def __init__(self, parts: Parts, call: Call, span: CallSpan, call_id: str, regular: Regular) -> None:
        """The state of a `Case` that has been identified and described, and whose claims are known."""
        self.parts, self.call, self.span, self.call_id = parts, call, span, call_id
        identity = regular.basis.identity
        self._regular, self._identity, self._claims = regular, identity, regular.claims
        self._described, self.action, self._claimed_for = regular.method, regular.method.action, regular.service
        self.expires_at: float = identity.expires_at
        self._release = Release()

    @property
    def case(self) -> Case:
        """Who calls and what was decided: itself."""
        return self

    def whole(self) -> Guarded:
        """The same call as a `Guarded`, as far as it has come; from then on that has the say."""
        guarded = self._guarded
        if guarded is None:
            cover = None
            if self._settled is not None and self._written:
                settled, classes = self._settled, {self._subject: self._settled.class_}
                until = self._put_at + settled.prepared.decision.ttl_seconds
                cover = Cover(settled.counts, None, classes, settled.minute, until, settled.prepared.duties)
            guarded = self._guarded = Guarded.of(self, self._regular.method, cover, self._release)
        return guarded

    # -- the request -------------------------------------------------------------------------------------------------

    def look(self, request: bytes, now: float) -> None:
        """See what the request asks, and whether that is settled."""
        regular, parts = self._regular, self.parts
        found = regular.read(regular.asks, request, False)
        if found is None or found[3]:
            return
        named, only = found[1], regular.only
        if len(named) == 1:
            self._subject: SubjectKey = named[0][:2]
            if only is not None and self._subject != only:
                return
        elif named or only is None:
            return
        else:
            self._subject = only
        index = parts.classifier.index
        class_ = index.classify(*self._subject) if index.fresh(now) else "unknown"
        self.span.stage("describe")
        settled = regular.settled.get((class_, self._subject == regular.own))
        self._put_at = perf_counter()
        if settled is None:
            return
        if settled.minute != parts.circumstances.minute(now) or settled.index != parts.standing.index():
            return
        policy, decisions = parts.standing.policy(now), parts.decisions
        if policy is not settled.policy and (policy != settled.policy or decisions.name != settled.form.engine):
            return
        if decisions.peek(settled.question) is settled.prepared.decision:
            self._settled = settled

    async def enter(self, request: bytes) -> bytes | Final:
        """Record what is settled about the request: its bytes, to be forwarded, or the recorded refusal."""
        settled, span, call = self._settled, self.span, self.call
        if settled is None:
            return await self.whole().admit(request)
        took = int((perf_counter() - self._put_at) * 1e6)
        span.stage("decide")
        kind, name = self._subject
        entry = DecisionEntry(
            form=settled.form, call_id=self.call_id,
            trace=Trace(trace_id=span.trace_id, span_id=span.span_id, from_=span.from_),
            eval_us=took, subjects=((kind, name, settled.class_),), deadline=call.deadline,
        )  # fmt: skip
        try:
            await self.parts.recorder.decision(entry)
        except StageError as error:
            return await self.whole().refuse(error)
        span.stage("record")
        prepared = settled.prepared
        span.stats.decided(call.door.name, "request", prepared.effect, prepared.reason)
        self.revision, self._permitted, self._written = settled.policy.revision, True, True
        if self.action.name in CHANGES:
            self._release.named({self._subject: settled.class_}, self._regular.method.categories)
        return request

    # -- the answer --------------------------------------------------------------------------------------------------

    def forward_metadata(self) -> Metadata:
        """What the upstream is sent: the caller's metadata, and who called."""
        return forwarded(self.call.metadata, self.call_id, self.span.traceparent, self._regular.who)

    async def release(self, data: bytes) -> bytes | Final | None:
        """As `Guarded.release`."""
        if self._guarded is None:
            out = self._same(data)
            if out is not ...:
                return out
        return await self.whole().release(data)

    def _same(self, data: bytes) -> bytes | EllipsisType | None:
        """What may leave of an answer about the very subject of the request; `...` where that is for others to say."""
        regular, settled, parts = self._regular, self._settled, self.parts
        now = parts.clock()
        if settled is None or now >= self.expires_at:
            return ...
        found = regular.read(regular.answers, data, True)
        if found is None or found[3] or len(found[1]) != 1:
            return ...
        kind, name, country, clears = found[1][0]
        if (kind, name) != self._subject:
            return ...
        index = parts.classifier.index
        fresh = index.fresh(now)
        class_ = index.classify(kind, name) if fresh else "unknown"
        if country is not None:
            class_ = with_evidence(class_, country, clears=clears and fresh)
        if class_ != settled.class_:
            return ...
        self.span.stage("describe")
        duties, release = settled.duties, self._release
        done = found[0].release(duties.rules, settled.weights, settled.loose, duties.dropped, settled.room)
        if done is None:
            return ...
        out, dropped, redacted, by_weight, _ = done
        release.figures(dropped, redacted, by_weight, ())
        if dropped or redacted:
            self.span.event("filtered")
        self.span.stage("enforce")
        return out

    @property
    def free(self) -> bool:
        """As `Guarded.free`."""
        settled = self._settled
        return self.whole().free if self._guarded is not None or settled is None else settled.free

    def sent(self, message: bytes) -> None:
        """As `Guarded.sent`."""
        if self._guarded is None:
            self._sent = message
        else:
            self._guarded.sent(message)

    # -- the end -----------------------------------------------------------------------------------------------------

    @property
    def exhausted(self) -> Final:
        """As `Guarded.exhausted`."""
        return refusals.withheld(self.call_id)

    @property
    def unsettled(self) -> Guarded | None:
        """The call as it went, where its question was not settled."""
        return self._guarded if self._settled is None else None

    async def finish(self, final: Final) -> Final:
        """Write the outcome; as `Guarded.finish`."""
        if self._guarded is not None:
            return await self._guarded.finish(final)
        release, out = self._release, self._sent
        messages = _NONE if not self._written else _ASKED if out is None else _ANSWERED
        shown = Shown(messages, release.by_class(), release.dropped, release.redacted, 0 if out is None else len(out))
        return await self.close(final, observed(self.call_id, self.span, final.code._name_, shown))


def begin(
    regulars: Regulars, parts: Parts, call: Call, span: CallSpan, call_id: str, request: bytes
) -> OrdinaryCall | None:
    """A call of somebody who is known already; None for any other, and then nothing has been done."""
    now = parts.clock()
    try:
        regular = regulars.find(call, now)
    except StageError:
        return None  # whoever identifies them anew refuses them
    if regular is None:
        return None
    span.stage("identify")
    ordinary = OrdinaryCall(parts, call, span, call_id, regular)
    try:
        ordinary.look(request, now)
    except StageError:
        return ordinary  # the question is put anew, and refused
    return ordinary
