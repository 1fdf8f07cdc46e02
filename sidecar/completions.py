"""gRPC's completions, taken from its poller all at once.

grpc.aio has a thread that takes completions from gRPC core, puts each into a queue and writes one byte to a socket. The
event loop's reader takes one byte, and then every completion that is in the queue. So under load bytes stay behind that
nothing belongs to any more, dozens of them, and each costs a whole turn of the loop: at 32 guarded calls at once more than
three turns a call. Here the bytes are taken together.

A byte is written after its completion is in the queue. So whoever takes bytes first and empties the queue afterwards
misses none.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable

import grpc

_AT_ONCE = 4096
"""Bytes taken in one turn; what is left makes another."""


class Together:
    """The reader of `woken`, in the place of `handle`, which takes one byte and then all that is there to do."""

    __slots__ = ("_bytes", "_handle", "_take")

    def __init__(self, woken: socket.socket, handle: Callable[[], object]) -> None:
        """`woken` does not block."""
        self._take, self._handle = woken.recv_into, handle
        self._bytes = bytearray(_AT_ONCE)

    def __call__(self) -> None:
        """Take all bytes but one, which `handle` takes. Nothing where there is none."""
        try:
            there = self._take(self._bytes, _AT_ONCE, socket.MSG_PEEK)
        except BlockingIOError:
            return
        if there > 1:
            with contextlib.suppress(BlockingIOError):  # another loop of the process took them meanwhile
                self._take(self._bytes, there - 1)
        self._handle()  # finds work or none, also where its own byte has been taken by another loop


def take_together(loop: asyncio.AbstractEventLoop) -> bool:
    """Have the completions of grpc.aio in the running `loop` taken all at once, from now to the end of the process.

    False where grpc.aio already runs in this loop, or does not ask it for a reader as grpcio 1.85 does: all is then as gRPC
    has it.
    """
    found: list[tuple[socket.socket, Callable[[], object]]] = []
    ask = loop.add_reader

    def noted(woken: object, handle: Callable[..., object], *arguments: object) -> None:
        if isinstance(woken, socket.socket) and not woken.getblocking() and not arguments:
            found.append((woken, handle))
        ask(woken, handle, *arguments)  # type: ignore[arg-type]  # whatever it was called with

    try:
        loop.add_reader = noted  # type: ignore[method-assign, assignment]
    except AttributeError:
        return False  # a loop that cannot be looked over the shoulder
    try:
        grpc.aio.init_grpc_aio()  # and never given back, or the next channel would ask for a reader again
    finally:
        del loop.add_reader
    for woken, handle in found:
        ask(woken, Together(woken, handle))
    return bool(found)
