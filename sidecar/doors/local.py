"""A gRPC method of this very process, as the upstream of one call: what the interceptors forward to.

The handler is the service's own, with its own (de)serializers, under a context that tells it what a service behind the
proxy would be told: the metadata that the enforcement point forwards, the deadline that is left, the verified peer.
Handlers of `grpc.aio` run on the event loop; plain functions run in threads, as grpc.aio does itself.
"""

import asyncio
import contextlib
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from typing import Any, NamedTuple, NoReturn, TypeVar

import grpc

from sidecar.enforcement import rich_status
from sidecar.enforcement.call import OK, Call, Final, Metadata, Peer, Reply
from sidecar.enforcement.metadata import Pairs, from_upstream
from sidecar.errors import Code

T = TypeVar("T")
Message = Any
"""What the service's own (de)serializers make of bytes."""
_BUFFERED = 1
"""Messages between the two sides of a stream: one waits while the other is slow."""
_CODES = {status: Code(status.value[0]) for status in grpc.StatusCode}
_STATUSES = {code: status for status, code in _CODES.items()}


class _Metadatum(NamedTuple):
    """As grpc gives it to handlers."""

    key: str
    value: str | bytes


class Aborted(Exception):  # noqa: N818 - how a handler ends its call, not a fault
    """Raised by `context.abort`, as in grpc."""


class LocalContext:
    """What a handler sees of its call: the parts of `grpc.ServicerContext` and its aio twin that a service may use."""

    # What most calls never change stands here once, and not in each call.
    _code, _details = Code.OK, ""
    _initial: Metadata = ()
    _trailing: Metadata = ()
    _active = True
    reads: "asyncio.Queue[Message | None] | None" = None
    writes: Callable[[Message], Any] | None = None

    def __init__(self, metadata: Metadata, peer: Peer, timeout: float | None, *, waits: bool) -> None:
        """`waits`: the aio form, in which sending and aborting are awaited."""
        self._metadata, self._peer, self._waits = metadata, peer, waits
        self._until = None if timeout is None else time.monotonic() + timeout
        self._callbacks: list[Callable[[], None]] = []

    def invocation_metadata(self) -> Metadata:
        """The metadata that was forwarded: the caller's, stripped, and the sidecar's own."""
        return tuple([_Metadatum(key, value) for key, value in self._metadata])

    def peer(self) -> str:
        """The address, as the transport said it."""
        return self._peer.address

    def peer_identities(self) -> Iterable[bytes] | None:
        """The verified identities."""
        return [one.encode() for one in self._peer.identities] or None

    def peer_identity_key(self) -> str | None:
        """Where the identities come from."""
        return "x509_subject_alternative_name" if self._peer.identities else None

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What was verified, under gRPC's keys."""
        found = self.peer_identities()
        return {} if found is None else {"x509_subject_alternative_name": found}

    def time_remaining(self) -> float | None:
        """Seconds to the deadline; None without one."""
        return None if self._until is None else max(0.0, self._until - time.monotonic())

    def set_code(self, code: grpc.StatusCode) -> None:
        """The status the call ends with."""
        self._code = _CODES[code]

    def set_details(self, details: str) -> None:
        """The status message."""
        self._details = details

    def code(self) -> grpc.StatusCode:
        """As set."""
        return _STATUSES[self._code]

    def details(self) -> str:
        """As set."""
        return self._details

    def set_trailing_metadata(self, trailing: Pairs) -> None:
        """The trailers."""
        self._trailing = tuple(trailing)

    def trailing_metadata(self) -> Metadata:
        """As set."""
        return self._trailing

    def set_compression(self, compression: object) -> None:
        """Compression is between the caller and the server."""

    def disable_next_message_compression(self) -> None:
        """As `set_compression`."""

    def send_initial_metadata(self, initial: Pairs) -> Any:
        """The headers."""
        self._initial = tuple(initial)
        return _nothing() if self._waits else None

    def is_active(self) -> bool:
        """Whether the call is still wanted."""
        return self._active

    def cancelled(self) -> bool:
        """Whether it no longer is."""
        return not self._active

    def done(self) -> bool:
        """Whether it has ended."""
        return not self._active

    def cancel(self) -> None:
        """End the call with CANCELLED."""
        self.set_code(grpc.StatusCode.CANCELLED)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Called when the call has ended."""
        if self._active:
            self._callbacks.append(callback)
        return self._active

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Called with this context when the call has ended."""
        self._callbacks.append(lambda: callback(self))

    def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Pairs = ()) -> Any:
        """End the call with this status; raises, as in grpc."""
        self._code, self._details = _CODES[code], details
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)
        if self._code is Code.OK:
            self._code = Code.UNKNOWN
        return _raises() if self._waits else _raise()

    def abort_with_status(self, status: Any) -> Any:
        """As `abort`, with a `grpc.Status`."""
        return self.abort(status.code, status.details, status.trailing_metadata or ())

    async def read(self) -> Message:
        """The next request message of a streaming call, `grpc.aio.EOF` after the last."""
        if self.reads is None:
            return grpc.aio.EOF
        found = await self.reads.get()
        if found is None:
            await self.reads.put(None)
            return grpc.aio.EOF
        return found

    async def write(self, message: Message) -> None:
        """Send one answer message of a streaming call."""
        if self.writes is not None:
            await self.writes(message)

    def end(self) -> None:
        """The call has ended: tell whoever asked to be told."""
        self._active = False
        if not self._callbacks:
            return
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            with contextlib.suppress(Exception):
                callback()

    @property
    def headers(self) -> Metadata:
        """What the handler sent as initial metadata, as far as it may be shown."""
        return from_upstream(self._initial) if self._initial else ()

    def final(self) -> Final:
        """How the handler ended the call."""
        if self._code is Code.OK and not self._details and not self._trailing:
            return OK
        return Final(code=self._code, message=self._details, trailing=from_upstream(self._trailing))

    def failed(self, error: BaseException) -> Final:
        """How grpc tells an exception that a handler let go."""
        if isinstance(error, Aborted | grpc.aio.AbortError):
            return self.final()
        return Final(code=Code.UNKNOWN, message=f"Unexpected {type(error)}: the service failed")


class LocalMethod:
    """A handler that the server has, as far as it is the same at each call."""

    def __init__(self, handler: Any, threads: Executor) -> None:
        """`handler` is a `grpc.RpcMethodHandler`; `threads` run what is no coroutine."""
        self.handler, self.threads = handler, threads
        self.read: Callable[[bytes], Message] = handler.request_deserializer or _as_it_is
        self.write: Callable[[Message], bytes] = handler.response_serializer or _as_it_is
        self.unary = handler.unary_unary
        self.waits = inspect.iscoroutinefunction(self.unary)


class LocalService:
    """The `Upstream` of one call: the handler that the server would have called."""

    __slots__ = ("_call", "_method")

    def __init__(self, method: LocalMethod, call: Call) -> None:
        self._method, self._call = method, call

    async def unary(self, method: str, message: bytes, metadata: Metadata, timeout: float | None) -> Reply:
        """Call the handler."""
        del method
        local = self._method
        context = LocalContext(metadata, self._call.peer, timeout, waits=local.waits)
        try:
            request = local.read(message)
            if timeout is None:
                answer = await self._answer(request, context)
            else:
                async with asyncio.timeout(timeout):
                    answer = await self._answer(request, context)
            final = context.final()
            data = local.write(answer) if final.code is Code.OK else None
        except TimeoutError:
            final, data = Final(code=Code.DEADLINE_EXCEEDED, message="the service did not answer in time"), None
        except Exception as error:  # noqa: BLE001 - whatever a handler lets go is its call's end
            final, data = context.failed(error), None
        finally:
            context.end()
        return Reply(message=data, headers=context.headers, final=final)

    def open(self, method: str, metadata: Metadata, timeout: float | None) -> "LocalExchange":
        """Begin a streaming call of the handler."""
        del method
        return LocalExchange(self._method, self._call.peer, metadata, timeout)

    def reduced(self, final: Final) -> Final:
        """See `rich_status.reduced`."""
        return rich_status.reduced(final)

    def _answer(self, request: Message, context: LocalContext) -> Awaitable[Message]:
        local = self._method
        if local.waits:
            answer: Awaitable[Message] = local.unary(request, context)
            return answer
        return asyncio.get_running_loop().run_in_executor(local.threads, local.unary, request, context)


class LocalExchange:
    """One open call of a handler of any kind; both sides wait for each other."""

    def __init__(self, method: LocalMethod, peer: Peer, metadata: Metadata, timeout: float | None) -> None:
        self._handler, self._threads, self._timeout = method.handler, method.threads, timeout
        handler, self._read, self._write = method.handler, method.read, method.write
        self._function = next(
            one
            for one in (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
            if one
        )
        self._waits = inspect.iscoroutinefunction(self._function) or inspect.isasyncgenfunction(self._function)
        self._context = LocalContext(metadata, peer, timeout, waits=self._waits)
        self._requests: asyncio.Queue[Message | None] = asyncio.Queue(_BUFFERED)
        self._answers: asyncio.Queue[bytes | None] = asyncio.Queue(_BUFFERED)
        self._context.reads, self._context.writes = self._requests, self._send
        self._begun = asyncio.Event()
        self._final: Final | None = None
        self._loop = asyncio.get_running_loop()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        """Done once the call is over: no side waits for the other any more."""
        self._task = self._loop.create_task(self._run(), name="local-handler")

    async def write(self, message: bytes) -> None:
        """Hand a request message to the handler; waits while it is slow."""
        await self._put(self._read(message))

    async def close_send(self) -> None:
        """No more request messages follow."""
        await self._put(None)

    async def headers(self) -> Metadata:
        """What the handler sent before its first answer."""
        await self._begun.wait()
        return self._context.headers

    async def read(self) -> bytes | None:
        """The next answer message."""
        return await self._answers.get()

    async def final(self) -> Final:
        """How the handler ended."""
        await asyncio.wait({self._task})
        return self._final or Final(code=Code.CANCELLED, message="the call was given up")

    def cancel(self) -> None:
        """Give the call up."""
        self._task.cancel()
        self._over()

    async def _put(self, message: Message | None) -> None:
        with contextlib.suppress(Aborted):
            await self._unless_over(self._requests.put(message))

    def _over(self) -> None:
        self._context.end()
        if not self._gone.done():
            self._gone.set_result(None)

    async def _unless_over(self, wanted: Coroutine[Any, Any, T]) -> T:
        """Wait for it, but not beyond the call's end. Aborted then."""
        task = self._loop.create_task(wanted)
        try:
            waited: set[asyncio.Future[Any]] = {task, self._gone}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise Aborted
        finally:
            task.cancel()

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._call()
            self._final = self._context.final()
        except TimeoutError:
            self._final = Final(code=Code.DEADLINE_EXCEEDED, message="the service did not answer in time")
        except Exception as error:  # noqa: BLE001 - whatever a handler lets go is its call's end
            self._final = self._context.failed(error)
        finally:
            self._over()
            self._begun.set()
        await self._answers.put(None)

    async def _call(self) -> None:
        request: Message = self._iterated() if self._handler.request_streaming else await self._requests.get()
        if inspect.isasyncgenfunction(self._function):
            async for answer in self._function(request, self._context):
                await self._send(answer)
        elif self._waits:
            answer = await self._function(request, self._context)
            if answer is not None:
                await self._send(answer)
        else:
            await self._threaded(request)

    async def _threaded(self, request: Message) -> None:
        """A plain function, run in a thread; its iterators meet ours there."""
        given = self._blocking() if self._handler.request_streaming else request

        def run() -> None:
            answer = self._function(given, self._context)
            for one in answer if self._handler.response_streaming else [answer]:
                asyncio.run_coroutine_threadsafe(self._send(one), self._loop).result()

        await self._loop.run_in_executor(self._threads, run)

    def _blocking(self) -> Iterator[Message]:
        while self._context.is_active():
            message = asyncio.run_coroutine_threadsafe(self._unless_over(self._requests.get()), self._loop).result()
            if message is None:
                return
            yield message

    async def _iterated(self) -> AsyncIterator[Message]:
        while (message := await self._requests.get()) is not None:
            yield message

    async def _send(self, answer: Message) -> None:
        self._begun.set()
        if self._context.code() is grpc.StatusCode.OK:
            await self._unless_over(self._answers.put(self._write(answer)))


def _as_it_is(message: Message) -> Message:
    return message


async def _nothing() -> None:
    return None


async def _raises() -> NoReturn:
    raise Aborted


def _raise() -> NoReturn:
    raise Aborted
