"""gRPC inside Envoy: an ASGI application that speaks it, before the same enforcement point as the grpc.aio door.

Envoy (through pyvoy) has the connections, TLS and HTTP/2; here are gRPC's framing, deadlines, status and the four kinds
of call. `hosted_wire` knows the headers, `hosted_body` the request, `hosted_peers` who is calling.

A call ends in exactly one of: its answer; an answer that says why it was given up (late, broken, the sidecar stops); or
nothing, because its caller has gone. Given up means: its task is cancelled, and the enforcement point writes the outcome.
"""

import asyncio
import contextlib
import time
import traceback
from typing import Final as Constant

from sidecar.doors import hosted_wire as wire
from sidecar.doors.asgi import Event, Receive, Scope, Send
from sidecar.doors.grpc_frames import FrameError, Frames, frame
from sidecar.doors.hosted_body import Body, CallerGone
from sidecar.doors.hosted_peers import HostedPeers
from sidecar.enforcement.call import Call, Door, Final, Metadata, Reply, Upstream
from sidecar.enforcement.intercept import Enforcement
from sidecar.enforcement.metadata import OWN
from sidecar.enforcement.transport import Limits, OperatorLog
from sidecar.errors import Code, InterceptError

_ACCEPTED = {b"identity", b"gzip", b"deflate"}
_ACCEPT = (b"grpc-accept-encoding", b"identity,deflate,gzip")
_CONTENT = (b"content-type", b"application/grpc")
_NO_GRPC = (415, b"this is a gRPC service\n")

FAILED: Constant = Final(code=Code.UNAVAILABLE, message="the sidecar could not handle the call", retry_after=1.0)
_GONE: Constant = Final(code=Code.CANCELLED, message="the caller has gone")
_LATE: Constant = Final(code=Code.DEADLINE_EXCEEDED, message="the deadline has passed")
_STOPPING: Constant = Final(code=Code.UNAVAILABLE, message="the sidecar is stopping", retry_after=1.0)
_CROWDED: Constant = Final(code=Code.RESOURCE_EXHAUSTED, message="too many calls are open")
_LARGE: Constant = Final(code=Code.RESOURCE_EXHAUSTED, message="the metadata is larger than the limit")


class HostedDoor:
    """One door's application: every request of it that Envoy accepts is handed to it. Of one event loop.

    `upstream` is handed to `enforcement` with every call. What stands behind may be the enforcement point (the proxy), or
    another service of bytes in and bytes out, such as the decision API.
    """

    def __init__(
        self,
        enforcement: Enforcement,
        door: Door,
        peers: HostedPeers,
        upstream: Upstream | None,
        limits: Limits,
        log: OperatorLog,
    ) -> None:
        self._enforcement, self._door, self._peers, self._upstream = enforcement, door, peers, upstream
        self._limits, self._log = limits, log
        self._open: set[_Open] = set()
        self._idle = asyncio.Event()
        self._stopping = False
        self.ended = 0
        """Requests that have ended, whether or not they got as far as what stands behind."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises nothing."""
        one = _Open()
        self._open.add(one)
        try:
            await self._serve(one, scope, receive, _Answer(send))
        finally:
            one.close()
            self._open.discard(one)
            self.ended += 1
            if not self._open:
                self._idle.set()

    async def drain(self, grace: float) -> None:
        """Refuse new calls; those under way have `grace` seconds, then they are given up. All have ended on return."""
        self._stopping = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._emptied()
        for one in self._open:
            one.give_up(_STOPPING)
        await self._emptied()

    async def _emptied(self) -> None:
        while self._open:
            self._idle.clear()
            await self._idle.wait()

    async def _serve(self, one: "_Open", scope: Scope, receive: Receive, answer: "_Answer") -> None:
        if scope["method"] != "POST" or not _is_grpc(scope):
            await answer.plain(*_NO_GRPC)
            return
        try:
            self._room()
            call, encoding = self._call(scope)
        except _Refused as refused:
            await answer.end(refused.final)
            return
        except InterceptError as error:
            await answer.end(Final(code=error.code, message=error.message))
            return
        one.until(call.deadline)
        body = Body(receive, Frames(self._limits.message, encoding), one.gone, one.broken)
        one.body = body
        await self._conducted(one, call, body, answer)

    async def _conducted(self, one: "_Open", call: Call, body: Body, answer: "_Answer") -> None:
        own: Metadata = ()
        try:
            if self._enforcement.kind(call.method) == "unary":
                reply = await self._enforcement.unary(call, await body.whole(), self._upstream)
                final, own = reply.final, await answer.reply(reply)
                if final.code is Code.OK and reply.message is None:
                    final = self._silent(call.method)
            else:
                final = await self._enforcement.stream(call, body, answer, self._upstream)
        except CallerGone:
            return
        except FrameError as error:
            final = Final(code=error.code, message=error.message)
        except asyncio.CancelledError as error:
            final = one.why or self._failed(error, call.method)
        except Exception as error:  # noqa: BLE001 - fail closed, whatever it was
            final = self._failed(error, call.method)
        one.close()
        if final is not _GONE:
            await answer.end(final, own)

    def _room(self) -> None:
        if self._stopping:
            raise _Refused(_STOPPING)
        if len(self._open) > self._limits.streams:
            raise _Refused(_CROWDED)

    def _call(self, scope: Scope) -> tuple[Call, str]:
        """The call that the headers make, and how its messages are encoded. InterceptError, or `_Refused`."""
        begun = time.monotonic()
        others: wire.Headers = []
        forwarded: list[bytes] = []
        size, deadline, encoding, trailers = 0, None, b"identity", False
        for header in scope["headers"]:
            key, value = header
            if key == wire.FORWARDED:
                forwarded.append(value)
                continue
            size += len(key) + len(value) + wire.HEADER_OVERHEAD
            if key == b"grpc-timeout":
                deadline = begun + wire.timeout(value)
            elif key == b"grpc-encoding":
                encoding = value
            elif key == b"te":
                trailers = value == b"trailers"
            else:
                others.append(header)
        if size > self._limits.metadata:
            raise _Refused(_LARGE)
        if not trailers:  # without it Envoy is told to send none, and a call without a status is no answer
            raise _Refused(Final(code=Code.INTERNAL, message="te: trailers is missing"))
        if encoding not in _ACCEPTED:
            raise _Refused(Final(code=Code.UNIMPLEMENTED, message="this grpc-encoding is not supported"))
        client = scope.get("client")
        return Call(
            method=_method(scope),
            metadata=wire.of_caller(others),
            peer=self._peers.of(forwarded, f"{client[0]}:{client[1]}" if client else ""),
            door=self._door,
            deadline=deadline,
        ), encoding.decode("ascii")

    def _silent(self, method: str) -> Final:
        self._log.error("an OK answer came without a message; the call was refused", stage="intercept", method=method)
        return FAILED

    def _failed(self, error: BaseException, method: str) -> Final:
        """Where it happened, not what it said: an exception's words may hold message content."""
        frames = traceback.extract_tb(error.__traceback__)[-3:]
        self._log.error(
            "unexpected failure; the call was refused with UNAVAILABLE",
            stage="intercept",
            method=method,
            failure=type(error).__name__,
            at=[f"{one.name}:{one.lineno}" for one in frames],
        )
        return FAILED


def _is_grpc(scope: Scope) -> bool:
    for key, value in scope["headers"]:
        if key == b"content-type":
            return bool(value == b"application/grpc" or value.startswith((b"application/grpc+", b"application/grpc;")))
    return False


def _method(scope: Scope) -> str:
    """The path as it was sent: what no method is called is refused, and recorded, by the enforcement point."""
    path: str = scope["raw_path"].decode("latin-1")
    query: str = scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path


class _Refused(Exception):  # noqa: N818 - the name says what happened
    """Refused before the enforcement point; `final` says how."""

    def __init__(self, final: Final) -> None:
        super().__init__(final.message)
        self.final = final


class _Open:
    """One call under way: what gives it up, and why it was."""

    __slots__ = ("_closed", "_task", "_timer", "body", "why")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.body: Body | None = None
        self.why: Final | None = None

    def until(self, deadline: float | None) -> None:
        """Give it up at this time of the monotonic clock."""
        if deadline is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, deadline - time.monotonic()), self.give_up, _LATE)

    def gone(self) -> None:
        """The caller has gone."""
        self.give_up(_GONE)

    def broken(self, error: FrameError) -> None:
        """What the caller sends is no gRPC, or too large."""
        self.give_up(Final(code=error.code, message=error.message))

    def give_up(self, why: Final) -> None:
        """Cancel it, unless it has ended or was given up already."""
        if self.why is None and not self._closed and self._task is not None:
            self.why = why
            self._task.cancel()

    def close(self) -> None:
        """It has ended: nothing cancels it any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self.body is not None:
            self.body.close()


class _Answer:
    """The caller's side of a call. HTTP/2's flow control makes `message` wait while the caller is slow.

    The server keeps the headers until the first piece of the body; an empty one sends them at once.
    """

    __slots__ = ("_begun", "_ended", "_send")

    def __init__(self, send: Send) -> None:
        self._send, self._begun, self._ended = send, False, False

    async def headers(self, metadata: Metadata) -> None:
        """Send initial metadata."""
        await self._out(self._start(metadata), self._piece(b"", more=True))

    async def message(self, data: bytes) -> None:
        """Send one message. CancelledError when the caller has gone."""
        if not self._begun:
            await self._out(self._start(()))
        await self._out(self._piece(frame(data), more=True))

    async def reply(self, reply: Reply) -> Metadata:
        """A unary answer but for its end; gives what of its headers goes with that, as in `intercept`."""
        own = tuple([item for item in reply.headers if item[0].startswith(OWN)])
        if reply.message is not None or len(own) < len(reply.headers):
            others = tuple([item for item in reply.headers if not item[0].startswith(OWN)])
            data = b"" if reply.message is None else frame(reply.message)
            await self._out(self._start(others), self._piece(data, more=False))
        return own

    async def end(self, final: Final, own: Metadata = ()) -> None:
        """Send the status: in trailers, or in the only block of headers when nothing went before."""
        with contextlib.suppress(CallerGone):
            status = wire.status(final, own)
            if not self._begun:
                await self._whole(200, [_CONTENT, _ACCEPT, *status], b"")
                return
            trailers: Event = {"type": "http.response.trailers", "headers": status}
            await (self._out(trailers) if self._ended else self._out(self._piece(b"", more=False), trailers))

    async def plain(self, status: int, text: bytes) -> None:
        """An answer to what is not gRPC."""
        with contextlib.suppress(CallerGone):
            await self._whole(status, [(b"content-type", b"text/plain")], text)

    def _start(self, metadata: Metadata) -> Event:
        self._begun = True
        headers = [_CONTENT, _ACCEPT, *wire.sent(metadata)]
        return {"type": "http.response.start", "status": 200, "headers": headers, "trailers": True}

    def _piece(self, data: bytes, *, more: bool) -> Event:
        self._ended = not more
        return {"type": "http.response.body", "body": data, "more_body": more}

    async def _whole(self, status: int, headers: wire.Headers, data: bytes) -> None:
        start: Event = {"type": "http.response.start", "status": status, "headers": headers}
        await self._out(start, self._piece(data, more=False))

    async def _out(self, *events: Event) -> None:
        """Hand them to the server, whose future must not be cancelled: another thread sets it."""
        try:
            for event in events:
                done = self._send(event)
                await (asyncio.shield(done) if isinstance(done, asyncio.Future) else done)
        except Exception:  # noqa: BLE001 - the server has errors of its own, and one meaning: nobody listens
            raise CallerGone from None
