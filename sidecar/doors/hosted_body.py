"""A call's request body, message by message, and the notice that its caller has gone.

How the server behaves (pyvoy 1.3), and what follows:

* `receive` is a future that is set from another thread. It must not be cancelled, so nobody awaits it directly.
* Once the body has ended `receive` answers at once, again and again, and nothing says when the caller goes. So a call
  that lasts is looked after: soon, then less and less often, up to once a second.
* Before the end, a `receive` that waits says it. One piece is read ahead, so that a caller who goes while the upstream
  is slow is noticed too, and what is held stays within `_HELD` bytes: beyond it the caller is held back by HTTP/2's flow
  control, and noticed when the upstream has taken something.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from sidecar.doors.asgi import Receive
from sidecar.doors.grpc_frames import FrameError, Frames
from sidecar.errors import Code

_FIRST_LOOK, _LAST_LOOK = 0.05, 1.0
_HELD = 1 << 20


class CallerGone(asyncio.CancelledError):
    """The caller has gone. Nobody has to be answered."""


class Body(AsyncIterator[bytes]):
    """The request messages of one call. Made and used on the event loop.

    `gone` is called once, when the caller has gone; `broken`, when what comes is no gRPC; always from the event loop, so
    that they may cancel the call's task. Neither is, after `close`.
    """

    __slots__ = ("_closed", "_delay", "_frames", "_gone", "_held", "_looking", "_loop", "_lost", "_messages", "_over",
                 "_problem", "_receive", "_waiting", "_wake")  # fmt: skip

    def __init__(
        self, receive: Receive, frames: Frames, gone: Callable[[], None], broken: Callable[[FrameError], None]
    ) -> None:
        self._receive, self._frames, self._gone, self._problem = receive, frames, gone, broken
        self._loop = asyncio.get_running_loop()
        self._messages: deque[bytes] = deque()
        self._held = 0
        self._over = self._closed = self._lost = self._waiting = False
        self._wake: asyncio.Future[None] | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._delay = _FIRST_LOOK

    async def whole(self) -> bytes:
        """The one message of a unary call. FrameError for none or several; CancelledError as in `__anext__`."""
        message = await anext(self, None)
        if message is None or await anext(self, None) is not None:
            raise FrameError("a unary call has one request message", code=Code.INTERNAL)
        return message

    async def __anext__(self) -> bytes:
        """The next message. The end is the body's own: one that was cut short or broken is a CancelledError."""
        while not self._messages:
            if self._lost:
                raise asyncio.CancelledError
            if self._over:
                raise StopAsyncIteration
            self._wake = self._loop.create_future()
            self._ask()
            await self._wake
        message = self._messages.popleft()
        self._held -= len(message)
        if not self._messages and not self._over:
            self._ask()
        return message

    def close(self) -> None:
        """The call has ended: tell nobody anything more."""
        self._closed = True
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _ask(self) -> None:
        if not self._waiting:
            self._waiting = True
            asyncio.ensure_future(self._receive()).add_done_callback(self._came)

    def _came(self, answer: asyncio.Future[Any]) -> None:
        self._waiting = False
        if self._closed:
            if not answer.cancelled():
                answer.exception()
            return
        if answer.cancelled() or answer.exception() is not None or answer.result()["type"] != "http.request":
            self._end(self._gone)
            return
        if not self._over:
            self._take(answer.result())
        self._look_again()

    def _take(self, event: dict[str, Any]) -> None:
        try:
            found = self._frames.feed(event.get("body", b""))
            self._over = not event.get("more_body", False)
            if self._over:
                self._frames.end()
        except FrameError as error:
            self._break(error)
            return
        self._messages.extend(found)
        self._held += sum(map(len, found))
        if self._messages or self._over:
            self._rouse()
        else:
            self._ask()

    def _look_again(self) -> None:
        """See whether the caller is still there, later."""
        if self._closed or self._looking is not None or self._waiting:
            return
        self._looking = self._loop.call_later(self._delay, self._look)
        self._delay = min(self._delay * 2, _LAST_LOOK)

    def _look(self) -> None:
        self._looking = None
        if self._held < _HELD:
            self._ask()
        else:
            self._look_again()

    def _break(self, error: FrameError) -> None:
        self._end(lambda: self._problem(error))

    def _end(self, tell: Callable[[], None]) -> None:
        self.close()
        self._lost = True
        self._messages.clear()
        tell()
        self._rouse()

    def _rouse(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None and not wake.done():
            wake.set_result(None)
