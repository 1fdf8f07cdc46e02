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
from collections.abc import Iterable
from typing import Final as Constant

from sidecar.doors import hosted_wire as wire
from sidecar.doors.asgi import Event, Receive, Scope, Send
from sidecar.doors.grpc_frames import FrameError, frame
from sidecar.doors.hosted_body import LOOK_SECONDS, Body, CallerGone
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
        self._clock: asyncio.TimerHandle | None = None
        """Ticks while calls are open."""
        self.ended = 0
        """Requests that have ended, whether or not they got as far as what stands behind."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises nothing."""
        one = _Open()
        self._open.add(one)
        if self._clock is None:
            self._clock = one.loop.call_later(LOOK_SECONDS, self._tick, one.loop)
        answer = _Answer(send)
        try:
            begun = self._begun(one, scope, receive, answer)
            events = await self._conducted(one, begun, answer) if isinstance(begun, Call) else begun
            await answer.out(events)
        except CallerGone:
            pass
        except asyncio.CancelledError:
            if one.why is None:
                raise  # otherwise it was given up while its caller took nothing of the answer: nothing more can be said
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

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Whose caller has gone is noticed by its body."""
        self._clock = loop.call_later(LOOK_SECONDS, self._tick, loop) if self._open else None
        for one in self._open:
            if one.body is not None:
                one.body.look()

    def _begun(self, one: "_Open", scope: Scope, receive: Receive, answer: "_Answer") -> "Call | _Events":
        """The call, whose body may be read; or what the caller is answered at once."""
        head = wire.Head(scope["headers"])
        if scope["method"] != "POST" or not head.is_grpc:
            return answer.plain(*_NO_GRPC)
        try:
            self._room()
            call = self._call(scope, head)
        except _Refused as refused:
            return answer.end(refused.final)
        except InterceptError as error:
            return answer.end(Final(code=error.code, message=error.message))
        if call.deadline is not None:
            one.until(call.deadline)
        one.body = Body(receive, self._limits.message, head.encoding.decode("ascii"), one.gone, one.broken)
        return call

    async def _conducted(self, one: "_Open", call: Call, answer: "_Answer") -> "_Events":
        """What is still to be sent: nothing when the caller has gone."""
        body = one.body
        assert body is not None  # noqa: S101 - `_begun` made it
        try:
            if self._enforcement.kind(call.method) == "unary":
                reply = await self._enforcement.unary(call, await body.whole(), self._upstream)
                final = reply.final
                if final.code is Code.OK and reply.message is None:
                    final = self._silent(call.method)
                return answer.reply(reply, final)
            final = await self._enforcement.stream(call, body, answer, self._upstream)
        except CallerGone:
            return ()
        except FrameError as error:
            final = Final(code=error.code, message=error.message)
        except asyncio.CancelledError as error:
            final = one.why or self._failed(error, call.method)
        except Exception as error:  # noqa: BLE001 - fail closed, whatever it was
            final = self._failed(error, call.method)
        return () if final is _GONE else answer.end(final)

    def _room(self) -> None:
        if self._stopping:
            raise _Refused(_STOPPING)
        if len(self._open) > self._limits.streams:
            raise _Refused(_CROWDED)

    def _call(self, scope: Scope, head: wire.Head) -> Call:
        """The call that the headers make. InterceptError, or `_Refused`."""
        deadline = None if head.timeout is None else time.monotonic() + wire.timeout(head.timeout)
        if head.size > self._limits.metadata:
            raise _Refused(_LARGE)
        if not head.trailers:  # without it Envoy is told to send none, and a call without a status is no answer
            raise _Refused(Final(code=Code.INTERNAL, message="te: trailers is missing"))
        if head.encoding not in _ACCEPTED:
            raise _Refused(Final(code=Code.UNIMPLEMENTED, message="this grpc-encoding is not supported"))
        client = scope.get("client")
        return Call(
            method=_method(scope),
            metadata=head.metadata,
            peer=self._peers.of(head.forwarded, f"{client[0]}:{client[1]}" if client else ""),
            door=self._door,
            deadline=deadline,
        )

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


def _method(scope: Scope) -> str:
    """The path as it was sent: what no method is called is refused, and recorded, by the enforcement point."""
    path: str = scope["raw_path"].decode("latin-1")
    query: bytes = scope["query_string"]
    return f"{path}?{query.decode('latin-1')}" if query else path


class _Refused(Exception):  # noqa: N818 - the name says what happened
    """Refused before the enforcement point; `final` says how."""

    def __init__(self, final: Final) -> None:
        super().__init__(final.message)
        self.final = final


class _Open:
    """One call under way: what gives it up, and why it was."""

    __slots__ = ("_closed", "_task", "_timer", "body", "loop", "why")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(self.loop)
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.body: Body | None = None
        self.why: Final | None = None

    def until(self, deadline: float) -> None:
        """Give it up at this time of the monotonic clock."""
        self._timer = self.loop.call_later(max(0.0, deadline - time.monotonic()), self.give_up, _LATE)

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


_Events = tuple[Event, ...]


class _Answer:
    """The caller's side of a call. HTTP/2's flow control makes `message` wait while the caller is slow.

    The server keeps the headers until the first piece of the body; an empty one sends them at once. `reply`, `end` and
    `plain` make what ends the answer, and send nothing; one of them, once, is the last thing that is asked.
    """

    __slots__ = ("_begun", "_send")

    def __init__(self, send: Send) -> None:
        self._send, self._begun = send, False

    async def headers(self, metadata: Metadata) -> None:
        """Send initial metadata."""
        start = _start(metadata)
        self._begun = True
        await self.out((start, _piece(b"", more=True)))

    async def message(self, data: bytes) -> None:
        """Send one message. CancelledError when the caller has gone."""
        piece = _piece(frame(data), more=True)
        events = (piece,) if self._begun else (_start(()), piece)
        self._begun = True
        await self.out(events)

    def reply(self, reply: Reply, final: Final) -> _Events:
        """A whole unary answer, with this end; which of its headers go with the end is as in `intercept`."""
        own: list[tuple[str, str | bytes]] = []
        others: list[tuple[str, str | bytes]] = []
        for item in reply.headers:
            (own if item[0].startswith(OWN) else others).append(item)
        if reply.message is None and not others:
            return self.end(final, own)
        data = b"" if reply.message is None else frame(reply.message)
        return _start(others), _piece(data, more=False), _trailers(wire.status(final, own))

    def end(self, final: Final, own: Iterable[tuple[str, str | bytes]] = ()) -> _Events:
        """The status: in trailers, or in the only block of headers when nothing went before."""
        status = wire.status(final, own)
        if not self._begun:
            return _whole(200, [_CONTENT, _ACCEPT, *status], b"")
        return _piece(b"", more=False), _trailers(status)

    def plain(self, status: int, text: bytes) -> _Events:
        """An answer to what is not gRPC."""
        return _whole(status, [(b"content-type", b"text/plain")], text)

    async def out(self, events: _Events) -> None:
        """Hand them to the server, whose future must not be cancelled: another thread sets it."""
        try:
            for event in events:
                done = self._send(event)
                await (asyncio.shield(done) if isinstance(done, asyncio.Future) else done)
        except Exception:  # noqa: BLE001 - the server has errors of its own, and one meaning: nobody listens
            raise CallerGone from None


def _start(metadata: Iterable[tuple[str, str | bytes]]) -> Event:
    headers = [_CONTENT, _ACCEPT, *wire.sent(metadata)]
    return {"type": "http.response.start", "status": 200, "headers": headers, "trailers": True}


def _piece(data: bytes, *, more: bool) -> Event:
    return {"type": "http.response.body", "body": data, "more_body": more}


def _trailers(headers: wire.Headers) -> Event:
    return {"type": "http.response.trailers", "headers": headers}


def _whole(status: int, headers: wire.Headers, data: bytes) -> _Events:
    return {"type": "http.response.start", "status": status, "headers": headers}, _piece(data, more=False)
