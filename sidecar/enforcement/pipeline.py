"""The enforcement point: takes a call from a door, and gives messages, a status and trailers back.

It sees neither grpc nor ASGI. Stages as in ARCHITECTURE.md: intercept, identify, describe, decide, record, forward,
enforce, answer; `guarded` holds one call's state, `streaming` moves a stream's messages, this file is the order.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

from sidecar.enforcement import refusals
from sidecar.enforcement.call import CALL_ID, AnswerSink, Call, Final, Peer, Reply, Upstream
from sidecar.enforcement.forwarded import TRACE
from sidecar.enforcement.guarded import Guarded
from sidecar.enforcement.inquiry import EntityInquiry, MethodInquiry
from sidecar.enforcement.ordinary import OrdinaryCall, begin
from sidecar.enforcement.parts import Parts
from sidecar.enforcement.regulars import Regulars
from sidecar.enforcement.rehearsal import Search, knows
from sidecar.enforcement.streaming import OpenStreams, relay, run_stream
from sidecar.enforcement.together import Party, Question, ask
from sidecar.errors import Code, ForwardError, IdentifyError
from sidecar.observability.calls import CallSpan

_CLOCKS_DIFFER = 0.1
"""Seconds by which a caller's own timer may fire before the deadline as the wire rounds it (grpc-timeout)."""
_FOREVER = 1e9
"""Seconds. gRPC's clock ends in 2262, and a deadline after it has passed already; eight digits of hours reach further."""
_REFLECTION = ("/grpc.reflection.v1.ServerReflection/", "/grpc.reflection.v1alpha.ServerReflection/")


class EnforcementPoint:
    """The PEP. One per process and event loop; every door hands its calls to the same one."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._streams, self._regulars = OpenStreams(parts.clock), Regulars(parts)

    def kind(self, method: str) -> str | None:
        """`unary` for a described unary method, `stream` for any other known one, None for unknown ones."""
        return self._parts.describer.kind(method)

    def reconsider(self) -> None:
        """Policy, directory or index has changed: every open stream is decided again."""
        self._streams.reconsider()

    def dismiss(self) -> None:
        """The sidecar stops: end the streams that are still open with UNAVAILABLE, so that their callers call again."""
        self._streams.dismiss()

    async def watch(self) -> None:
        """Decide open streams again when they are due. Runs until cancelled."""
        await self._streams.watch()

    def relays(self, peer: Peer) -> bool:
        """Whether the peer's word on the workload behind it is believed."""
        try:
            return self._parts.identifier.relays(peer.identities, self._parts.clock())
        except IdentifyError as error:
            self._parts.report(error)
            return False

    def workload(self, peer: Peer) -> str:
        """The registered id of the workload at the other end. IdentifyError where there is none, or it is revoked."""
        return self._parts.identifier.calling(peer.identities, self._parts.clock()).workload or ""

    def inquire(self, call: Call) -> MethodInquiry:
        """Ask about a call of a described method that goes another way."""
        return MethodInquiry(self._parts, *self._begun(call), self._regulars)

    def inquire_entity(self, call: Call) -> EntityInquiry:
        """Ask about actions on entities of described types."""
        return EntityInquiry(self._parts, *self._begun(call))

    async def ask_together(self, questions: Sequence[Question], party: Party) -> None:
        """Answer questions about entities that come in one request. Raises nothing but what cancels."""
        await ask(questions, party, self._parts.recorder)

    def search(self, call: Call) -> Search:
        """Ask what would be permitted, in one record, without reaching anything."""
        return Search(self._parts, *self._begun(call))

    async def knows(self, call: Call) -> Final | None:
        """None when the caller is who they say; otherwise what they would be told. Unrecorded: it gives no access."""
        return await knows(self._parts, call)

    async def unary(self, call: Call, request: bytes, upstream: Upstream | None = None) -> Reply:
        """A whole unary call. Whatever it raises (CancelledError, or a fault of ours), the outcome has been written.

        `upstream`: who serves this one call, instead of the configured service.
        """
        call, span, call_id = self._begun(call)
        guarded: Guarded | OrdinaryCall | None = None
        try:
            guarded = begin(self._regulars, self._parts, call, span, call_id, request)
            guarded = guarded or Guarded(self._parts, call, span, call_id)
            reply = await self._unary(guarded, request, upstream or self._parts.upstream)
            final = await guarded.finish(reply.final)
        except BaseException as error:
            await (guarded or Guarded(self._parts, call, span, call_id)).finish(given_up(call, error))
            raise
        if final.code is not Code.OK:
            return Reply(message=None, headers=(*reply.headers, (CALL_ID, call_id)), final=final)
        anew = guarded if isinstance(guarded, Guarded) else guarded.unsettled
        if anew is not None:
            self._regulars.remember(anew)
        return Reply(message=reply.message, headers=(*reply.headers, (CALL_ID, call_id)), final=final)

    async def _unary(self, guarded: Guarded | OrdinaryCall, request: bytes, upstream: Upstream) -> Reply:
        forward = await guarded.enter(request)
        if isinstance(forward, Final):
            return Reply(message=None, headers=(), final=forward)
        call = guarded.call
        try:
            reply = await upstream.unary(call.method, forward, guarded.forward_metadata(), _remaining(call))
        except ForwardError as error:
            self._parts.report(error)
            return Reply(message=None, headers=(), final=refusals.failed(error, guarded.call_id))
        guarded.span.stage("forward")
        released = None if reply.message is None else await guarded.release(reply.message)
        if isinstance(released, Final):
            return Reply(message=None, headers=(), final=released)
        if released is not None:
            guarded.sent(released)
        elif reply.message is not None:
            return Reply(message=None, headers=(), final=guarded.exhausted)
        if guarded.free:
            return Reply(message=released, headers=reply.headers, final=reply.final)
        return Reply(message=released, headers=(), final=upstream.reduced(reply.final))

    async def stream(
        self, call: Call, requests: AsyncIterator[bytes], answer: AnswerSink, upstream: Upstream | None = None
    ) -> Final:
        """A call of any kind, message by message. As `unary`, whatever it raises has its outcome written."""
        upstream = upstream or self._parts.upstream
        if self._parts.describer.unguarded(call.method):
            return await relay(upstream, call, call.metadata, requests, answer, _remaining(call))
        guarded = self._begin(call)
        try:
            if call.method.startswith(_REFLECTION) and self._parts.reflection:
                final = await self._reflection(guarded, requests, answer, upstream)
            else:
                final = await guarded.open() or await run_stream(
                    guarded, upstream, self._streams, requests, answer, _remaining(call)
                )
            return await guarded.finish(final)
        except BaseException as error:
            await guarded.finish(given_up(call, error))
            raise

    async def _reflection(
        self, guarded: Guarded, requests: AsyncIterator[bytes], answer: AnswerSink, upstream: Upstream
    ) -> Final:
        """Schemas are no personal data, but only identified callers may read them."""
        refusal = await guarded.identified()
        if refusal is not None:
            return refusal
        call = guarded.call
        return await relay(upstream, call, guarded.case.forward_metadata(), requests, answer, _remaining(call))

    def _begin(self, call: Call) -> Guarded:
        return Guarded(self._parts, *self._begun(call))

    def _begun(self, call: Call) -> tuple[Call, CallSpan, str]:
        trace = None
        for key, value in call.metadata:
            if key == TRACE:
                trace = str(value)
                break
        span = self._parts.observer.begin(call.method.lstrip("/"), trace)
        call_id = self._parts.new_id()
        span.stage("intercept")
        return call, span, call_id


def _remaining(call: Call) -> float | None:
    left = None if call.deadline is None else max(0.0, call.deadline - time.monotonic())
    return None if left is None or left > _FOREVER else left


def given_up(call: Call, why: BaseException) -> Final:
    """How a call ends whose caller has gone, or whose handling failed."""
    if not isinstance(why, asyncio.CancelledError):
        return Final(code=Code.UNAVAILABLE, message="the sidecar failed")
    late = call.deadline is not None and time.monotonic() >= call.deadline - _CLOCKS_DIFFER
    return Final(code=Code.DEADLINE_EXCEEDED if late else Code.CANCELLED, message="the caller has gone")
