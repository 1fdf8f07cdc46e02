"""Completions of gRPC are taken together: none is missed, none costs a turn of the loop for nothing."""

import asyncio
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.completions import Together, take_together

pytestmark = pytest.mark.unit
_CALLS = """
import asyncio, sys
import grpc, uvloop
from sidecar.completions import Together, take_together

class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        async def echo(request, context):
            return request
        return grpc.unary_unary_rpc_method_handler(echo)

async def main():
    taken = []
    turn = Together.__call__
    Together.__call__ = lambda self: (taken.append(self), turn(self))[1]
    assert take_together(asyncio.get_running_loop())
    assert not take_together(asyncio.get_running_loop())
    server = grpc.aio.server(handlers=(Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.unary_unary("/a.B/C")
        for turn_ in range(3):
            wanted = [f"{turn_}/{number}".encode() for number in range(200)]
            assert await asyncio.wait_for(asyncio.gather(*map(ask, wanted)), 60) == wanted
    await server.stop(0)
    assert taken

for run in (uvloop.run, uvloop.run, asyncio.run):
    run(main())
"""


class Poller:
    """As grpc.aio's: a completion goes into the queue, then a byte into the socket."""

    def __init__(self) -> None:
        self.woken, self._told = socket.socketpair()
        self.woken.setblocking(False)
        self.queue: deque[int] = deque()
        self.handled: list[int] = []
        self.turns = 0

    def push(self, number: int, *, told: bool = True) -> None:
        self.queue.append(number)
        if told:
            self.tell()

    def tell(self) -> None:
        self._told.send(b"1")

    def handle(self) -> None:
        assert self.woken.recv(1) == b"1"
        self.turns += 1
        while self.queue:
            self.handled.append(self.queue.popleft())

    def empty(self) -> bool:
        try:
            self.woken.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self.woken.close()
        self._told.close()


@pytest.fixture
def poller() -> Iterator[Poller]:
    made = Poller()
    yield made
    made.close()


def test_many_completions_are_one_turn(poller: Poller) -> None:
    for number in range(50):
        poller.push(number)
    Together(poller.woken, poller.handle)()
    assert (poller.handled, poller.turns, poller.empty()) == (list(range(50)), 1, True)


def test_a_turn_without_a_byte_does_nothing(poller: Poller) -> None:
    Together(poller.woken, poller.handle)()
    assert poller.turns == 0


@given(st.lists(st.sampled_from(["push", "push untold", "tell", "turn"]), max_size=60))
def test_no_completion_is_missed_however_bytes_and_turns_meet(steps: list[str]) -> None:
    """A byte may come later than its completion was handled: that is a turn for nothing, and no more than that."""
    poller, pushed, untold = Poller(), 0, 0
    take = Together(poller.woken, poller.handle)
    for step in steps:
        if step.startswith("push"):
            poller.push(pushed, told=step == "push")
            pushed, untold = pushed + 1, untold + (step != "push")
        elif step == "tell" and untold:
            poller.tell()
            untold -= 1
        elif step == "turn":
            take()
    for _ in range(untold):
        poller.tell()
    while not poller.empty():
        take()
    assert poller.handled == list(range(pushed))
    poller.close()


def test_calls_of_grpc_aio_are_answered_on_every_loop() -> None:
    """In a process of its own, since what grpc.aio asks of a loop it asks once."""
    done = subprocess.run([sys.executable, "-c", _CALLS], capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr


async def test_a_loop_that_allows_no_look_is_left_alone() -> None:
    class Closed:
        __slots__ = ()

        def add_reader(self, *_: object) -> None:
            raise AssertionError("nobody asks")

    assert not take_together(Closed())  # type: ignore[arg-type]
    assert asyncio.get_running_loop().add_reader.__self__ is asyncio.get_running_loop()  # type: ignore[attr-defined]


def test_bytes_that_another_loop_takes_meanwhile_are_no_failure() -> None:
    poller = Poller()
    together = Together(poller.woken, lambda: poller.handled.extend(poller.queue))
    peek = together._take

    def robbed(buffer: bytearray, size: int, flags: int = 0) -> int:
        if not flags:
            while not poller.empty():
                poller.woken.recv(64)
        return peek(buffer, size, flags)

    together._take = robbed
    poller.push(1), poller.push(2)
    together()
    assert poller.handled == [1, 2], "what is in the queue is looked at all the same"
    poller.close()
