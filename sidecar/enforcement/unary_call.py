"""Unary calls to the guarded service, on gRPC's core itself.

grpc.aio makes of each call an object, a task of its own, and three more copies of its metadata; that is a tenth of what
a forwarded call costs, and nothing here needs it. What it does besides is kept: a cancelled task cancels its call, and
closing the channel ends the calls that are open on it.

`grpc._cython.cygrpc` is the layer below grpc.aio and promises nothing to others; the tests of the proxy door say whether
a new grpcio still has it as it is used here.
"""

import time
from asyncio import CancelledError
from typing import NamedTuple

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


class UnaryCalls:
    """The unary calls that are open on one channel."""

    __slots__ = ("_channel", "_open")

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel._channel  # type: ignore[attr-defined]  # noqa: SLF001 - the channel below grpc.aio's
        self._open: set[object] = set()

    async def ask(self, method: bytes, message: bytes, metadata: Metadata, timeout: float | None) -> Answer:
        """Make one call and wait for its end. Cancelling the awaiting task cancels the call. `timeout` in seconds.

        grpc.aio.BaseError when the channel is closed, or when gRPC will not send such metadata.
        """
        deadline = None if timeout is None else time.time() + timeout  # noqa: TID251 - gRPC's own clock
        call = self._channel.call(method, deadline, None, None, 0)
        self._open.add(call)
        try:
            answer = await call.unary_unary(message, metadata)
            status = await call.status()
            return Answer(
                answer, int(status.code()), status.details() or "", await call.initial_metadata() or (),
                status.trailing_metadata() or (), call.is_locally_cancelled(),
            )  # fmt: skip
        except CancelledError:
            if not call.done():
                call.cancel(_CANCELLED)
            raise
        finally:
            self._open.discard(call)

    def cancel(self) -> None:
        """End the calls that are open; each is answered with `given_up`."""
        for call in list(self._open):
            if not call.done():  # type: ignore[attr-defined]
                call.cancel(_CANCELLED)  # type: ignore[attr-defined]
