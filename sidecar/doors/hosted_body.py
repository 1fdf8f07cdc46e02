"""A call's request body, message by message, and the notice that its caller has gone.

How the server behaves (pyvoy 1.3), and what follows:

* `receive` is a future that is set from another thread. It must not be cancelled, so nobody awaits it directly.
* Once the body has ended `receive` answers at once, again and again, and nothing says when the caller goes. So a call
  that lasts is looked after: soon, then less and less often, up to once a second. The door has one clock for all its
  calls (`look`): most calls are over before it ticks.
* Before the end, a `receive` that waits says it. One piece is read ahead, so that a caller who goes while the upstream
  is slow is noticed too, and what is held stays within `_HELD` bytes: beyond it the caller is held back by HTTP/2's flow
  control, and noticed when the upstream has taken something.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final

from sidecar.doors.asgi import Receive
from sidecar.doors.grpc_frames import FrameError, Frames, only
from sidecar.errors import Code

LOOK_SECONDS: Final = 0.05
"""Between two ticks of the door's clock."""
_FIRST_LOOK, _LAST_LOOK = 2, 20
"""Ticks until the caller of a call is looked for: after the first of them a call may be no older than an instant."""
_HELD = 1 << 20


class CallerGone(asyncio.CancelledError):
    """The caller has gone. Nobody has to be answered."""


class Body(AsyncIterator[bytes]):
    """The request messages of one call. Made and used on the event loop.

    `gone` is called once, when the caller has gone; `broken`, when what comes is no gRPC; always from the event loop, so
    that they may cancel the call's task. Neither is, after `close`.
    """

    __slots__ = ("_broken", "_closed", "_encoding", "_frames", "_gone", "_held", "_limit", "_loop", "_lost", "_messages",
                 "_over", "_pause", "_receive", "_ticks", "_waiting", "_wake")  # fmt: skip

    def __init__(
        self,
        receive: Receive,
        limit: int,
        encoding: str,
        gone: Callable[[], None],
        broken: Callable[[FrameError], None],
    ) -> None:
        """`limit`: bytes of one message. `encoding`: the body's `grpc-encoding`."""
        self._receive, self._limit, self._encoding = receive, limit, encoding
        self._gone, self._broken = gone, broken
        self._loop = asyncio.get_running_loop()
        self._frames: Frames | None = None
        self._messages: deque[bytes] = deque()
        self._held = 0
        self._over = self._closed = self._lost = self._waiting = False
        self._wake: asyncio.Future[None] | None = None
        self._ticks = self._pause = _FIRST_LOOK

    async def whole(self) -> bytes:
        """The one message of a unary call. FrameError for none or several; CancelledError as in `__anext__`."""
        while not self._over and len(self._messages) < 2:
            await self._more()
        if len(self._messages) != 1:
            raise FrameError("a unary call has one request message", code=Code.INTERNAL)
        self._held = 0
        return self._messages.popleft()

    async def __anext__(self) -> bytes:
        """The next message. The end is the body's own: one that was cut short or broken is a CancelledError."""
        while not self._messages:
            if self._over and not self._lost:
                raise StopAsyncIteration
            await self._more()
        message = self._messages.popleft()
        self._held -= len(message)
        if not self._messages and not self._over:
            self._ask()
        return message

    def look(self) -> None:
        """One tick of the door's clock has passed: see whether the caller is still there, if it is time."""
        if self._closed or self._waiting:
            return
        self._ticks -= 1
        if self._ticks > 0:
            return
        self._ticks = self._pause = min(self._pause * 2, _LAST_LOOK)
        if self._held < _HELD:
            self._ask()

    def close(self) -> None:
        """The call has ended: tell nobody anything more."""
        self._closed = True

    async def _more(self) -> None:
        """Wait until something has come. CancelledError when nothing will."""
        if not self._lost:
            self._wake = self._loop.create_future()
            self._ask()
            await self._wake
        if self._lost:
            raise asyncio.CancelledError

    def _ask(self) -> None:
        if not self._waiting:
            self._waiting = True
            coming = self._receive()
            future = coming if isinstance(coming, asyncio.Future) else asyncio.ensure_future(coming)
            future.add_done_callback(self._came)

    def _came(self, answer: asyncio.Future[Any]) -> None:
        self._waiting = False
        if self._closed:
            if not answer.cancelled():
                answer.exception()
            return
        if answer.cancelled() or answer.exception() is not None or answer.result()["type"] != "http.request":
            self._end(self._gone)
        elif not self._over:
            self._take(answer.result())

    def _take(self, event: dict[str, Any]) -> None:
        data = event.get("body", b"")
        self._over = not event.get("more_body", False)
        if self._over and self._frames is None and (message := only(data, self._limit)) is not None:
            self._messages.append(message)  # the commonest body: one piece, with the one message of a unary call
            self._held = len(message)
            self._rouse()
            return
        try:
            found = self._framed(data)
        except FrameError as error:
            self._end(partial(self._broken, error))
            return
        self._messages.extend(found)
        self._held += sum(map(len, found))
        if self._messages or self._over:
            self._rouse()
        else:
            self._ask()

    def _framed(self, data: bytes) -> list[bytes]:
        if self._frames is None:
            self._frames = Frames(self._limit, self._encoding)
        found = self._frames.feed(data)
        if self._over:
            self._frames.end()
        return found

    def _end(self, tell: Callable[[], None]) -> None:
        self._closed = self._lost = True
        self._messages.clear()
        tell()
        self._rouse()

    def _rouse(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None and not wake.done():
            wake.set_result(None)
