"""Unary calls to the guarded service, on gRPC's core itself.

grpc.aio makes of each call an object, a task of its own, and three more copies of its metadata; that is a tenth of what
a forwarded call costs, and nothing here needs it. What it does besides is kept: a cancelled task cancels its call, and
closing the channel ends the calls that are open on it. What it does not do is to wait for the end of a call that was
cancelled, without which gRPC never gives back the memory of the metadata that was sent (`_Ending`).

`grpc._cython.cygrpc` is the layer below grpc.aio and promises nothing to others; the tests of the proxy door say whether
a new grpcio still has it as it is used here.
"""

import time
from asyncio import AbstractEventLoop, CancelledError, Future
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, NamedTuple, Protocol

import grpc

from sidecar.enforcement.call import Metadata

_CANCELLED = "Locally cancelled by application!"


class Answer(NamedTuple):
    """How a call ended, as gRPC says it. `message` is None unless `code` is 0 (OK).

    `given_up`: `cancel` ended it, so code and details are our own.
    """

    message: bytes | None
    code: int
    details: str
    headers: Metadata
    trailers: Metadata
    given_up: bool


class _Open(Protocol):
    """A call that was begun (grpc's `_AioCall`)."""

    def done(self) -> bool:
        """Whether it has ended, or was cancelled."""

    def cancel(self, details: str) -> None:
        """End it."""


class _Ending:
    """The end of `doing`, what a call does, for a task to wait for in the place of the future below it.

    A task that is cancelled cancels what it waits for. This cancels the call and stays there to be waited for until core
    has ended it, which it does at once; then it is CancelledError. To asyncio it is a future by its shape
    (`asyncio.isfuture`), so that the task is woken by the very completion, and not one turn of the loop later.
    """

    __slots__ = ("_asyncio_future_blocking", "_below", "_call", "_doing", "_given_up")

    def __init__(self, call: _Open, doing: Coroutine[Any, None, bytes | None]) -> None:
        self._call, self._doing = call, doing
        self._below: Future[None]
        self._asyncio_future_blocking = self._given_up = False

    def __await__(self) -> Generator[Any, None, bytes | None]:
        try:
            while True:
                self._below = self._doing.send(None)
                self._below._asyncio_future_blocking = False  # noqa: SLF001 - part of that shape
                self._asyncio_future_blocking = True
                try:
                    yield self
                except Exception:  # noqa: BLE001, S110 - of the future below, which tells it to `doing` itself
                    pass
                except BaseException:
                    self.cancel()  # the task goes without waiting
                    raise
        except StopIteration as ended:
            if self._given_up:
                raise CancelledError from None
            answer: bytes | None = ended.value
            return answer
        except Exception:
            if self._given_up:
                raise CancelledError from None
            raise

    def get_loop(self) -> AbstractEventLoop:
        """The loop that it ends on."""
        return self._below.get_loop()

    def add_done_callback(self, told: Callable[[Future[None]], object], *, context: Context | None = None) -> None:
        """Tell of the end."""
        self._below.add_done_callback(told, context=context)

    def cancel(self, msg: object = None) -> bool:
        """Nobody wants the answer any more."""
        del msg
        self._given_up = True
        if not self._call.done():
            self._call.cancel(_CANCELLED)
        return True


class UnaryCalls:
    """The unary calls that are open on one channel."""

    __slots__ = ("_channel", "_open")

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel._channel  # type: ignore[attr-defined]  # noqa: SLF001 - the channel below grpc.aio's
        self._open: set[_Open] = set()

    async def ask(self, method: bytes, message: bytes, metadata: Metadata, timeout: float | None) -> Answer:
        """Make one call and wait for its end. Cancelling the awaiting task cancels the call, and waits for that end.

        `timeout` in seconds.

        grpc.aio.BaseError when the channel is closed, or when gRPC will not send such metadata.
        """
        deadline = None if timeout is None else time.time() + timeout  # noqa: TID251 - gRPC's own clock
        call = self._channel.call(method, deadline, None, None, 0)
        self._open.add(call)
        try:
            answer = await _Ending(call, call.unary_unary(message, metadata))
            status = await call.status()
            return Answer(
                answer, int(status.code()), status.details() or "", await call.initial_metadata() or (),
                status.trailing_metadata() or (), call.is_locally_cancelled(),
            )  # fmt: skip
        finally:
            self._open.discard(call)

    def cancel(self) -> None:
        """End the calls that are open; each is answered with `given_up`."""
        for call in list(self._open):
            if not call.done():
                call.cancel(_CANCELLED)
