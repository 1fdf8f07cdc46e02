"""Stage 1, intercept: the gRPC door. Bytes in, bytes out; nothing is decoded here.

Facts of grpc.aio this file is built around:

* A unary handler serves about 1.7 times as many calls as a stream handler, so described unary methods get one.
* A status set on the context is carried with code, details and trailers; an exception would become UNKNOWN.
* When a caller cancels, its request stream first ends as if it had been closed in good order. Forwarding that would
  tell the upstream that half an upload was all of it, so an end is believed only after a second look (`_Requests`).
* A CancelledError that leaves a handler whose caller has not gone sends no status at all: the caller would hang.
"""

import asyncio
import time
import traceback
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, Protocol, TypeAlias

import grpc

from sidecar.enforcement import rich_status
from sidecar.enforcement.call import OK, AnswerSink, Call, Door, Final, Metadata, Reply, Upstream
from sidecar.enforcement.metadata import OWN, Pairs, from_caller
from sidecar.enforcement.peer import PeerReader
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import Code

_STATUS = {Code(status.value[0]): status for status in grpc.StatusCode}
_KEPT_HANDLERS = 4096
_FAILED = Final(code=Code.UNAVAILABLE, message="the sidecar could not handle the call", retry_after=1.0)

Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"  # generic in the stubs only
Context = grpc.aio.ServicerContext[bytes, bytes]


class Enforcement(Protocol):
    """What stands behind a door: `pipeline.EnforcementPoint`."""

    def kind(self, method: str) -> str | None:
        """`unary` for a described unary method, `stream` for any other known one, None for unknown ones."""

    async def unary(self, call: Call, request: bytes, upstream: Upstream | None = None) -> Reply:
        """A whole unary call; `upstream` instead of the configured one. Raises nothing but CancelledError."""

    async def stream(
        self, call: Call, requests: AsyncIterator[bytes], answer: AnswerSink, upstream: Upstream | None = None
    ) -> Final:
        """A call of any kind, message by message. Raises nothing but CancelledError."""


class _Behind(NamedTuple):
    """What every handler of a door needs."""

    point: Enforcement
    door: Door
    peers: PeerReader
    log: OperatorLog
    ended: Callable[[], None]

    def failed(self, error: BaseException, method: str) -> Final:
        """Tell the operator where it happened, not what it said: an exception's words may hold message content."""
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        self.log.error(
            "unexpected failure; the call was refused with UNAVAILABLE",
            stage="intercept",
            method=method,
            failure=type(error).__name__,
            at=[f"{frame.name}:{frame.lineno}" for frame in frames],
        )
        return _FAILED


class ProxyHandler(grpc.GenericRpcHandler):
    """Every method of every service, handed to the enforcement point. `ended` is told of each call that has ended there."""

    def __init__(
        self, enforcement: Enforcement, door: Door, peers: PeerReader, log: OperatorLog,
        ended: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._behind = _Behind(enforcement, door, peers, log, ended)
        self._streams: dict[str, Handler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """A handler for the method; unknown methods too, since their refusal is the enforcement point's to record."""
        method = handler_call_details.method
        kind = self._kind(method)
        if kind == "unary":
            return _Unary(self._behind, method, handler_call_details.invocation_metadata or ())  # type: ignore[return-value]  # as good as one
        handler = self._streams.get(method)
        if handler is None:
            handler = _streaming(self._behind, method)
            if kind is not None and len(self._streams) < _KEPT_HANDLERS:
                self._streams[method] = handler
        return handler

    def _kind(self, method: str) -> str | None:
        try:
            return self._behind.point.kind(method)
        except Exception as error:  # noqa: BLE001 - nothing may reach the caller as a traceback
            self._behind.failed(error, method)
            return None


class _Unary:
    """One unary call, as a `grpc.RpcMethodHandler`: grpc.aio asks for a handler at each, metadata in hand.

    Asked of the context, the same metadata would be copied out of core a second time.
    """

    __slots__ = ("_behind", "_method", "_said")
    request_streaming = response_streaming = False
    request_deserializer = response_serializer = None

    def __init__(self, behind: _Behind, method: str, said: Pairs) -> None:
        self._behind, self._method, self._said = behind, method, said

    async def unary_unary(self, request: bytes, context: Context) -> bytes:
        """Serve it."""
        point, door, peers, log, ended = behind = self._behind
        method = self._method
        try:
            try:
                reply = await point.unary(call_of(method, context, peers, door, self._said), request)
            finally:
                ended()
            final, message = reply.final, reply.message
            if final.code is Code.OK and message is None:
                log.error("an OK answer came without a message; the call was refused", stage="intercept", method=method)
                _conclude(context, _FAILED)
                return b""
            own = reply.headers
            if len(own) != 1 or not own[0][0].startswith(OWN):  # the call's id alone, where the service sent no headers
                headers, own = _apart(own)
                if headers:
                    await context.send_initial_metadata(headers)
        except asyncio.CancelledError as error:
            if _caller_has_gone():
                raise
            final, message, own = behind.failed(error, method), None, ()
        except grpc.aio.BaseError:
            raise asyncio.CancelledError from None  # the headers found no caller
        except Exception as error:  # noqa: BLE001 - fail closed, whatever it was
            final, message, own = behind.failed(error, method), None, ()
        _conclude(context, final, own)
        return message if message is not None else b""


def _streaming(behind: _Behind, method: str) -> Handler:
    """A handler for a call of any other kind."""

    async def on_stream(_requests: AsyncIterator[bytes], context: Context) -> None:
        requests, answer = _Requests(context), _Answer(context)  # read through the context: see `_Requests`
        try:
            call = call_of(method, context, behind.peers, behind.door)
            try:
                final = await behind.point.stream(call, requests, answer)
            finally:
                behind.ended()
        except asyncio.CancelledError as error:
            if _caller_has_gone() or answer.lost or requests.lost:
                raise
            final = behind.failed(error, method)
        except Exception as error:  # noqa: BLE001 - fail closed, whatever it was
            final = behind.failed(error, method)
        _conclude(context, final)

    return grpc.stream_stream_rpc_method_handler(on_stream)


def call_of(method: str, context: Context, peers: PeerReader, door: Door, said: Pairs | None = None) -> Call:
    """What a servicer context says of its call. `said`: its metadata, where that is known already."""
    remaining: float | None = context.time_remaining()  # None without a deadline; the stubs do not know
    return Call(
        method=method,
        metadata=from_caller((context.invocation_metadata() or ()) if said is None else said),
        peer=peers.of(context),
        door=door,
        deadline=None if remaining is None else time.monotonic() + remaining,
    )


def as_status(final: Final) -> tuple[grpc.StatusCode, str, Metadata]:
    """A call's end in gRPC's words: status, message, trailers."""
    return _STATUS[final.code], final.message, rich_status.trailing(final)


def _caller_has_gone() -> bool:
    """Whether this task itself was cancelled, which grpc does when the caller cancels, goes or its deadline passes."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _apart(headers: Metadata) -> tuple[Metadata, Metadata]:
    """The upstream's headers, and the sidecar's own.

    With a unary answer the sidecar's own travel as trailers: sending headers apart is a second batch of operations,
    which costs a tenth of a plain call. The upstream's stay headers.
    """
    own = tuple([item for item in headers if item[0].startswith(OWN)])
    return tuple([item for item in headers if not item[0].startswith(OWN)]), own


def _conclude(context: Context, final: Final, own: Metadata = ()) -> None:
    """Leave status and trailers for gRPC to send when the handler returns."""
    if final is OK:
        if own:
            context.set_trailing_metadata(own)
        return
    if final.code is not Code.OK:
        context.set_code(_STATUS[final.code])
    if final.message:
        context.set_details(final.message)
    trailers = (*rich_status.trailing(final), *own)
    if trailers:
        context.set_trailing_metadata(trailers)


class _Requests(AsyncIterator[bytes]):
    """A caller's request messages.

    grpc.aio reports a cancelled call's request stream as ended before it reports the cancellation: in most cancelled
    streams on a busy loop the reader sees a clean end first. Completions keep their order, so after one more read the
    cancellation, if there was one, has reached the call's own task.
    """

    __slots__ = ("_context", "_ended", "_task", "lost")

    def __init__(self, context: Context) -> None:
        self._context, self._ended, self.lost = context, False, False
        self._task = asyncio.current_task()

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        try:
            message: object = await self._context.read()  # the stubs do not know of EOF
            if not isinstance(message, bytes):
                await self._context.read()
        except grpc.aio.BaseError:
            self.lost = True
            raise asyncio.CancelledError from None
        if isinstance(message, bytes):
            return message
        self._ended = True
        if self._task is not None and self._task.cancelling():
            raise asyncio.CancelledError
        raise StopAsyncIteration


class _Answer:
    """The caller's side of a stream. gRPC's flow control makes both wait while the caller is slow."""

    __slots__ = ("_context", "lost")

    def __init__(self, context: Context) -> None:
        self._context, self.lost = context, False

    async def headers(self, metadata: Metadata) -> None:
        try:
            await self._context.send_initial_metadata(metadata)
        except grpc.aio.BaseError:
            self.lost = True
            raise asyncio.CancelledError from None

    async def message(self, data: bytes) -> None:
        try:
            await self._context.write(data)
        except grpc.aio.BaseError:
            self.lost = True
            raise asyncio.CancelledError from None
