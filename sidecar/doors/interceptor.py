"""The in-process door: server interceptors for `grpc.aio` and `grpc` that guard the service in its own process.

The same pipeline and the same records as at the proxy; the "upstream" is the handler that the server would have called
(`local`). What the service registers for a method is all there is to guard: a method that nobody described is refused.

* An interceptor that comes *after* this one sees decoded messages that were admitted, and answers not yet filtered.
* The server's own limits hold: give it `grpc.max_receive_message_length` and metadata limits as the sidecar's settings do.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Executor
from concurrent.futures import Future as Waited
from typing import Any, TypeVar

import grpc

from sidecar.doors.local import LocalMethod, LocalService
from sidecar.enforcement.call import AnswerSink, Call, Final, Metadata, Reply, Upstream
from sidecar.enforcement.declarations import INTERCEPTOR
from sidecar.enforcement.intercept import Enforcement, ProxyHandler, as_status, call_of
from sidecar.enforcement.peer import PeerReader
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import Code

T = TypeVar("T")
_KEPT = 4096


class _Bound:
    """The enforcement point, forwarding to one handler of this process."""

    def __init__(self, point: Enforcement, handler: Any, threads: Executor) -> None:
        self._point, self._method = point, LocalMethod(handler, threads)
        self.kind = point.kind

    def unary(self, call: Call, request: bytes, upstream: Upstream | None = None) -> Coroutine[Any, Any, Reply]:
        """A whole unary call."""
        del upstream
        return self._point.unary(call, request, LocalService(self._method, call))

    def stream(
        self, call: Call, requests: AsyncIterator[bytes], answer: AnswerSink, upstream: Upstream | None = None
    ) -> Coroutine[Any, Any, Final]:
        """A call of any kind."""
        del upstream
        return self._point.stream(call, requests, answer, LocalService(self._method, call))


class AioInterceptor(grpc.aio.ServerInterceptor):
    """For `grpc.aio.server(interceptors=[…])`, on the event loop of the enforcement point. Put it first."""

    def __init__(self, point: Enforcement, peers: PeerReader, log: OperatorLog, threads: Executor) -> None:
        self._point, self._peers, self._log, self._threads = point, peers, log, threads
        self._made: dict[str, tuple[Any, ProxyHandler]] = {}

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """A handler of bytes in the place of the service's own; unknown methods stay unknown, refused and recorded."""
        inner = await continuation(handler_call_details)
        method = handler_call_details.method
        kept = self._made.get(method)
        if kept is None or kept[0] is not inner:
            bound = _Bound(self._point, inner or _missing(), self._threads)
            kept = (inner, ProxyHandler(bound, INTERCEPTOR, self._peers, self._log))
            if inner is not None and len(self._made) < _KEPT:
                self._made[method] = kept
        return kept[1].service(handler_call_details)


class SyncInterceptor(grpc.ServerInterceptor):
    """For `grpc.server(…, interceptors=[…])`: the enforcement point runs on an event loop in another thread.

    A call holds its server thread while it lasts, one of `threads` while the service works on it, and a stream one of
    `readers` while its caller says nothing: idle streams block a server of threads, with or without this.
    """

    def __init__(
        self, point: Enforcement, peers: PeerReader, log: OperatorLog, loop: asyncio.AbstractEventLoop,
        *, threads: Executor, readers: Executor,
    ) -> None:  # fmt: skip
        self._point, self._peers, self._log, self._loop = point, peers, log, loop
        self._threads, self._readers = threads, readers

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """As `AioInterceptor`."""
        method: str = handler_call_details.method
        point = _Bound(self._point, continuation(handler_call_details) or _missing(), self._threads)
        if point.kind(method) == "unary":
            return grpc.unary_unary_rpc_method_handler(
                lambda request, context: self._unary(point, method, request, context)
            )
        return grpc.stream_stream_rpc_method_handler(
            lambda requests, context: self._stream(point, method, requests, context)
        )

    def _unary(self, point: _Bound, method: str, request: bytes, context: Any) -> bytes:
        call = call_of(method, context, self._peers, INTERCEPTOR)
        running = self._running(point.unary(call, request), context)
        try:
            reply = running.result()
        except BaseException as error:  # noqa: BLE001 - fail closed, whatever it was
            _end(context, self._failed(error, method))
            return b""
        if reply.headers:
            context.send_initial_metadata(reply.headers)
        _end(context, reply.final)
        return reply.message if reply.message is not None else b""

    def _stream(self, point: _Bound, method: str, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        call = call_of(method, context, self._peers, INTERCEPTOR)
        answers = _Answers(self._loop)
        running = self._running(answers.told(point.stream(call, _Requests(requests, self._readers), answers)), context)
        running.add_done_callback(answers.over)
        try:
            headers = answers.take()
            if isinstance(headers, tuple):
                context.send_initial_metadata(headers)
                while isinstance(found := answers.take(), bytes):
                    yield found
        finally:
            if not context.is_active():
                running.cancel()
        try:
            final = running.result()
        except BaseException as error:  # noqa: BLE001 - fail closed, whatever it was
            final = self._failed(error, method)
        _end(context, final)

    def _running(self, work: Coroutine[Any, Any, T], context: Any) -> "Waited[T]":
        running = asyncio.run_coroutine_threadsafe(work, self._loop)
        if not context.add_callback(running.cancel):
            running.cancel()
        return running

    def _failed(self, error: BaseException, method: str) -> Final:
        if not isinstance(error, CancelledError | asyncio.CancelledError):
            self._log.error("unexpected failure; the call was refused with UNAVAILABLE", stage="intercept",
                            method=method, failure=type(error).__name__)  # fmt: skip
        return Final(code=Code.UNAVAILABLE, message="the sidecar could not handle the call", retry_after=1.0)


class _Requests(AsyncIterator[bytes]):
    """A blocking iterator of requests, read one at a time in a thread."""

    def __init__(self, requests: Iterator[bytes], threads: Executor) -> None:
        self._requests, self._threads = requests, threads

    async def __anext__(self) -> bytes:
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, next, self._requests, None)
        except Exception:  # noqa: BLE001 - grpc raises whatever the call ended with: the caller has gone
            raise asyncio.CancelledError from None
        if found is None:
            raise StopAsyncIteration
        return found


class _Answers:
    """From the event loop to the server's thread, one message at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._given = threading.Semaphore(0)
        self._free = asyncio.Semaphore(1)
        self._item: Metadata | bytes | None = None

    async def headers(self, metadata: Metadata) -> None:
        """As `AnswerSink`."""
        await self._put(metadata)

    async def message(self, data: bytes) -> None:
        """As `AnswerSink`."""
        await self._put(data)

    async def told(self, work: Awaitable[Final]) -> Final:
        """How the call ends; nothing follows."""
        try:
            return await work
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await self._put(None)

    def take(self) -> Metadata | bytes | None:
        """The next thing, in the server's thread; None at the end."""
        self._given.acquire()
        item, self._item = self._item, None
        if item is not None:
            self._loop.call_soon_threadsafe(self._free.release)
        return item

    def over(self, _running: object) -> None:
        """Nothing more comes, even where `told` was cut short: the server's thread is not to wait for ever."""
        self._given.release()

    async def _put(self, item: Metadata | bytes | None) -> None:
        await self._free.acquire()
        self._item = item
        self._given.release()


def _end(context: Any, final: Final) -> None:
    code, message, trailing = as_status(final)
    if trailing:
        context.set_trailing_metadata(trailing)
    if code is not grpc.StatusCode.OK:
        context.set_code(code)
        context.set_details(message)


def _missing() -> Any:
    """A handler in the place of one that the server does not have: the refusal comes before it."""

    def nobody(_request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        context.set_details("Method not found!")
        return b""

    return grpc.unary_unary_rpc_method_handler(nobody)
