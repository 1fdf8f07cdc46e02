"""Unary calls below grpc.aio: one that is cancelled is waited for to its end, which gives back what it holds."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace

import grpc
import pytest

from sidecar.enforcement.unary_call import UnaryCalls

pytestmark = pytest.mark.unit


@dataclass(eq=False)
class Status:
    ends: int = 0

    def code(self) -> int:
        return self.ends

    def details(self) -> str:
        return ""

    def trailing_metadata(self) -> tuple[()]:
        return ()


@dataclass(eq=False)
class Begun:
    """A call as cygrpc has it: its batch ends when the test says so, or once it is cancelled and core is told."""

    batch: asyncio.Future = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    cancels: int = 0
    freed: bool = False
    ended: bool = False

    async def unary_unary(self, message: bytes, _metadata: object) -> bytes:
        await self.batch
        self.freed = self.ended = True
        return b"r" + message

    def done(self) -> bool:
        return self.ended or self.cancels > 0

    def cancel(self, _details: str) -> None:
        self.cancels += 1

    def is_locally_cancelled(self) -> bool:
        return self.cancels > 0

    async def status(self) -> Status:
        return Status()

    async def initial_metadata(self) -> tuple[()]:
        return ()


def begin() -> tuple[UnaryCalls, Begun, asyncio.Task]:
    begun = Begun()
    calls = UnaryCalls(SimpleNamespace(_channel=SimpleNamespace(call=lambda *_: begun)))
    return calls, begun, asyncio.create_task(calls.ask(b"/s/M", b"m", (), None))


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_call_that_ends_is_answered():
    calls, begun, asking = begin()
    await turns()
    begun.batch.set_result(None)
    answer = await asking
    assert (answer.message, answer.code, answer.given_up, begun.cancels) == (b"rm", 0, False, 0)
    assert not calls._open


async def test_a_cancelled_call_is_told_once_and_waited_for_to_its_end():
    calls, begun, asking = begin()
    await turns()
    asking.cancel()
    await turns()
    asking.cancel()
    await turns()
    assert (begun.cancels, begun.freed, asking.done()) == (1, False, False)
    assert not begun.batch.cancelled(), "core is still to write to what it holds"
    begun.batch.set_result(None)
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert begun.freed
    assert not calls._open


async def test_an_answer_that_comes_as_its_caller_goes_is_nobody_s():
    _, begun, asking = begin()
    await turns()
    begun.batch.set_result(None)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert begun.freed


async def test_a_batch_that_fails_is_told_unless_the_caller_has_gone():
    _, begun, asking = begin()
    await turns()
    begun.batch.set_exception(grpc.aio.InternalError("no batch"))
    with pytest.raises(grpc.aio.BaseError):
        await asking
    _, begun, asking = begin()
    await turns()
    asking.cancel()
    await turns()
    begun.batch.set_exception(grpc.aio.InternalError("no batch"))
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_task_that_is_destroyed_leaves_no_call_open():
    begun = Begun()
    calls = UnaryCalls(SimpleNamespace(_channel=SimpleNamespace(call=lambda *_: begun)))
    doing = calls.ask(b"/s/M", b"m", (), None)
    doing.send(None)
    doing.close()
    assert begun.cancels == 1
    assert not calls._open


async def test_time_may_run_out_while_it_waits():
    _, begun, asking = begin()

    async def bounded() -> None:
        async with asyncio.timeout(0.01):
            await asking

    waiting = asyncio.create_task(bounded())
    async with asyncio.timeout(60):
        while not begun.cancels:
            await asyncio.sleep(0.001)
    begun.batch.set_result(None)
    with pytest.raises(TimeoutError):
        await waiting
