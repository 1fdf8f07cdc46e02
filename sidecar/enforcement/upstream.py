"""Stage 6, forward: the guarded service, over one HTTP/2 connection.

* Nothing is retried: a call that may have reached the service is never sent twice.
* What the service says passes as it said it. What gRPC itself says about the connection is told in generic words,
  since it holds addresses and paths.
* A service that could not be reached at all is ForwardError.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc

from sidecar import pem
from sidecar.enforcement import rich_status
from sidecar.enforcement.call import OK, Exchange, Final, Metadata, Reply
from sidecar.enforcement.metadata import Pairs, from_upstream
from sidecar.enforcement.transport import Limits, Options
from sidecar.enforcement.unary_call import Answer, UnaryCalls
from sidecar.errors import Code, ConfigurationError, ForwardError

_CODES = {status: Code(status.value[0]) for status in grpc.StatusCode}
_KEPT_METHODS = 4096
_UNREACHED = ("failed to connect to all addresses", "errors resolving ", "connections to all backends failing")
_BROKEN = "Stream removed ("
"""How gRPC core 1.85 begins the message of a status that it made up itself."""
_TOLD = {
    Code.UNAVAILABLE: "the connection to the service broke off",
    Code.DEADLINE_EXCEEDED: "the service did not answer before the deadline",
    Code.RESOURCE_EXHAUSTED: "the service's answer is larger than the sidecar passes on",
    Code.CANCELLED: "the service gave the call up",
}
_INTERRUPTED = "Internal error from Core"
"""What grpc.aio puts in the place of a call's status when a write meets a call that is ending."""
_STATUS_WAIT_SECONDS = 1.0
_STATUS_LOOK_SECONDS = 0.001
_CLOSED = "Locally cancelled by application!"
"""What grpc.aio says of a call whose channel was closed under it."""

T = TypeVar("T")
_Ended = tuple[grpc.StatusCode, str | None, Metadata]
Channel = grpc.aio.Channel
Streams = grpc.aio.StreamStreamMultiCallable[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """What the sidecar trusts (`ca`), and how it shows itself (`cert`, `key`: both or none). PEM files.

    `server_name` is the name expected in the service's certificate when it is not the address.
    """

    ca: Path
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    def read(self) -> tuple[bytes, bytes | None, bytes | None]:
        """Contents of ca, cert and key. ConfigurationError names the file that cannot be used."""
        if (self.cert is None) != (self.key is None):
            raise ConfigurationError("cert and key go together", where="upstream.tls", fix="Give both, or neither.")
        if self.cert is None or self.key is None:
            return _pem(self.ca), None, None
        # Checked here too: while two files are being replaced they may not belong together.
        return _pem(self.ca), *pem.pair(self.cert, self.key)


def _pem(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read: {error.strerror}", where=str(path), fix="Name a PEM file that the sidecar may read."
        ) from None


def open_channel(address: str, tls: ClientTls | None, limits: Limits) -> Channel:
    """A channel to `host:port` or `unix:/path`. It connects when first used, and again at most every second."""
    options: Options = limits.channel_options()
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options)
    ca, cert, key = tls.read()
    if tls.server_name is not None:
        options = (*options, ("grpc.ssl_target_name_override", tls.server_name))
    credentials = grpc.ssl_channel_credentials(ca, key, cert)
    return grpc.aio.secure_channel(address, credentials, options=options)


class GrpcUpstream:
    """The guarded service behind a gRPC channel. One per event loop.

    `renew` opens a new connection with the certificates as they are now; calls under way end on the old one.
    """

    def __init__(self, address: str, tls: ClientTls | None, limits: Limits) -> None:
        self._address, self._tls, self._limits = address, tls, limits
        self._pems = tls.read() if tls is not None else None
        self._link = _Link(open_channel(address, tls, limits))
        self._retired: set[asyncio.Task[None]] = set()

    @property
    def channel(self) -> Channel:
        """The channel in use, for `reflection`."""
        return self._link.channel

    async def unary(self, method: str, message: bytes, metadata: Metadata, timeout: float | None) -> Reply:
        """A unary call. Cancelling the awaiting task cancels the upstream call. `timeout` in seconds.

        ForwardError when the service cannot be reached, or when the metadata is not fit to be sent.
        """
        link = self._link
        link.calls += 1
        try:
            answer = await link.unary.ask(method.encode(), message, metadata, timeout)
            if answer.given_up:
                return Reply(message=None, headers=(), final=_told(Code.UNAVAILABLE))  # the channel was closed
            headers = from_upstream(answer.headers) if answer.headers else ()
            return Reply(message=answer.message, headers=headers, final=link.answered(answer, bare=not headers))
        except grpc.aio.BaseError as error:
            raise _unfit(method) from error
        finally:
            link.ended()

    def open(self, method: str, metadata: Metadata, timeout: float | None) -> "GrpcExchange":
        """Open a streaming call."""
        link = self._link
        return GrpcExchange(link, link.stream(method)(metadata=metadata, timeout=timeout))

    def reduced(self, final: Final) -> Final:
        """The same status code with nothing in it that could carry data."""
        return rich_status.reduced(final)

    async def connect(self, within: float) -> None:
        """Wait until the service can be reached. ForwardError after `within` seconds."""
        try:
            await asyncio.wait_for(self._link.channel.channel_ready(), within)
        except TimeoutError:
            raise ForwardError(
                "the service cannot be reached",
                operator=f"no connection to the upstream {self._address} within {within:g} s; is it running, and do "
                "its certificate and ours match the configured authorities?",
            ) from None

    async def renew(self, *, drain: float) -> bool:
        """Take up changed certificate files; true if there was a change. The old connection has `drain` seconds.

        ConfigurationError when the new files cannot be used; the old connection stays.
        """
        pems = self._tls.read() if self._tls is not None else None
        if pems == self._pems:
            return False
        fresh = _Link(open_channel(self._address, self._tls, self._limits))
        old, self._link, self._pems = self._link, fresh, pems
        task = asyncio.create_task(old.retire(drain))
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)
        return True

    async def close(self) -> None:
        """End the connection and every call on it."""
        for task in self._retired:
            task.cancel()
        await asyncio.gather(*self._retired, return_exceptions=True)
        await self._link.close()


class NoUpstream:
    """Where nothing is forwarded by this sidecar itself. Every call is ForwardError."""

    async def unary(self, method: str, message: bytes, metadata: Metadata, timeout: float | None) -> Reply:
        """Nobody to call."""
        del message, metadata, timeout
        raise _nowhere(method)

    def open(self, method: str, metadata: Metadata, timeout: float | None) -> Exchange:
        """Nobody to call."""
        del metadata, timeout
        raise _nowhere(method)

    def reduced(self, final: Final) -> Final:
        """See `rich_status.reduced`."""
        return rich_status.reduced(final)


def _nowhere(method: str) -> ForwardError:
    return ForwardError("nothing is forwarded here", operator=f"{method}: the settings name no upstream.address")


class _Link:
    """One channel, its callables by method, and how many calls are open on it."""

    def __init__(self, channel: Channel) -> None:
        self.channel, self.calls = channel, 0
        self.unary = UnaryCalls(channel)
        self._idle = asyncio.Event()
        self._stream: dict[str, Streams] = {}

    def stream(self, method: str) -> Streams:
        found = self._stream.get(method)
        if found is None:
            found = self.channel.stream_stream(method)
            if len(self._stream) < _KEPT_METHODS:
                self._stream[method] = found
        return found

    def ended(self, call: object = None) -> None:
        """One call has ended."""
        del call
        self.calls -= 1
        if not self.calls:
            self._idle.set()

    def answered(self, answer: Answer, *, bare: bool) -> Final:
        """How a unary call ended; see `final`."""
        if answer.code == Code.OK:
            if not answer.details and not answer.trailers:
                return OK
            return Final(code=Code.OK, message=answer.details, trailing=from_upstream(answer.trailers))
        return self.final(Code(answer.code), answer.details, answer.trailers, bare=bare)

    def final(self, code: Code, details: str | None, trailers: Pairs, *, bare: bool) -> Final:
        """How a call ended. `bare`: no header of the service has been seen. ForwardError if it was never reached."""
        message, trailing = details or "", from_upstream(trailers)
        if not trailing and message.startswith(_BROKEN):
            return _told(code)
        unreached = bare and not trailing and code is Code.UNAVAILABLE and message.startswith(_UNREACHED)
        if unreached and self.channel.get_state() is not grpc.ChannelConnectivity.READY:
            raise ForwardError("the service cannot be reached", operator=f"upstream: {message}")
        return Final(code=code, message=message, trailing=trailing)

    async def retire(self, drain: float) -> None:
        """Close once no call is open, or after `drain` seconds."""
        try:
            async with asyncio.timeout(drain):
                while self.calls:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            pass
        finally:
            await self.close()

    async def close(self) -> None:
        """End every call, and the connection."""
        self.unary.cancel()
        await self.channel.close()


class GrpcExchange:
    """One open streaming call. See `call.Exchange`; writing to a call that has ended does nothing.

    A write that meets a call which is ending makes grpc.aio replace the call's status by INTERNAL and, through
    `call.read`, drop answers that are still unread. So the first true status is noted when it comes, and answers are
    read through the call's iterator, which goes on to the last one.
    """

    __slots__ = ("_answers", "_call", "_ended", "_link")

    def __init__(self, link: _Link, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        self._link, self._call = link, call
        self._answers = aiter(call)
        self._ended: asyncio.Future[_Ended] = asyncio.get_running_loop().create_future()
        link.calls += 1
        self._ended.add_done_callback(link.ended)
        call.add_done_callback(self._note)

    def _note(self, call: object = None) -> None:
        del call
        if self._ended.done():
            return
        status, details = _at_once(self._call.code()), _at_once(self._call.details())
        if details != _INTERRUPTED:
            trailers = tuple(_at_once(self._call.trailing_metadata()) or ())
            self._ended.set_result((status, details, trailers))

    async def write(self, message: bytes) -> None:
        """Send one request message; waits while the upstream is slow."""
        try:
            await self._call.write(message)
        except (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
            return
        except asyncio.CancelledError:
            if _cancelled_here():
                raise

    async def close_send(self) -> None:
        """Say that no more request messages follow."""
        try:
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
            return
        except asyncio.CancelledError:
            if _cancelled_here():
                raise

    async def headers(self) -> Metadata:
        """The upstream's initial metadata, when it comes; empty when the call ends without."""
        return from_upstream(await self._call.initial_metadata())

    async def read(self) -> bytes | None:
        """The next answer message, None after the last, however the call ended."""
        try:
            return await anext(self._answers, None)
        except (grpc.aio.AioRpcError, grpc.aio.BaseError):
            return None
        except asyncio.CancelledError:
            if _cancelled_here():
                raise
            return None

    async def final(self) -> Final:
        """The upstream's status and trailers, after `read` gave None. ForwardError if it could not be reached."""
        await self._call.code()
        waited = 0.0
        self._note()
        while not self._ended.done() and waited < _STATUS_WAIT_SECONDS:  # nobody is told when the true status follows
            await asyncio.sleep(_STATUS_LOOK_SECONDS)
            waited += _STATUS_LOOK_SECONDS
            self._note()
        if not self._ended.done():
            self._ended.set_result((grpc.StatusCode.INTERNAL, _BROKEN, ()))
        status, details, trailers = self._ended.result()
        if details == _CLOSED:
            return _told(Code.UNAVAILABLE)
        return self._link.final(_CODES[status], details, trailers, bare=not await self._call.initial_metadata())

    def cancel(self) -> None:
        """Give the call up. Idempotent; a no-op once it has ended."""
        self._call.cancel()


def _at_once(answer: Coroutine[object, object, T]) -> T:
    """The result of a coroutine that has nothing to wait for: what a call says of itself once it has ended."""
    try:
        answer.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("a call that had ended did not know its status")


def _cancelled_here() -> bool:
    """Whether our own task is being cancelled, and not merely the call we wait for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _told(code: Code) -> Final:
    return Final(code=code, message=_TOLD.get(code, "the call to the service failed"))


def _unfit(method: str) -> ForwardError:
    return ForwardError(
        "the call cannot be sent on",
        operator=f"{method}: gRPC refused to send the call; a metadata key or value is outside what HTTP/2 carries",
    )
