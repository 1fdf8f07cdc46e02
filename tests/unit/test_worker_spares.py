"""Processes that wait to become workers: taken once, never a dead one, and none left behind."""

import asyncio
import socket
import sys
from contextlib import AsyncExitStack

import pytest

from sidecar.errors import ConfigurationError
from sidecar.main.worker_program import Started
from sidecar.main.worker_spares import Spares

WAITS = "import socket, sys; socket.socket(fileno=int(sys.argv[1])).recv(1)"
"""Like a worker: until the supervisor says something, or is gone."""


class Program:
    """Starts processes that wait; remembers them, and what was with them when they ended."""

    def __init__(self) -> None:
        self.started_now: list[asyncio.subprocess.Process] = []
        self.cleared: list[int] = []
        self.refuses = False

    def claim(self) -> None:
        """Nothing."""

    async def started(self, channel: socket.socket, stack: AsyncExitStack) -> asyncio.subprocess.Process:
        if self.refuses:
            raise ConfigurationError("cannot be listened on")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", "-c", WAITS, str(channel.fileno()), pass_fds=(channel.fileno(),)
        )
        self.started_now.append(process)
        stack.callback(self.cleared.append, process.pid)
        return process


async def test_the_one_that_waits_is_taken_and_only_once() -> None:
    program = Program()
    spares = Spares(program)
    spares.fill()
    spares.fill()
    one, other = await spares.take(), await spares.take()
    assert len(program.started_now) == 2, "filled twice is one; the second one was started when it was asked for"
    assert one.process.pid == program.started_now[0].pid != other.process.pid
    await one.end()
    await other.end()
    assert program.cleared == [one.process.pid, other.process.pid]


async def test_one_that_has_died_meanwhile_is_never_given_out() -> None:
    program = Program()
    spares = Spares(program)
    spares.fill()
    while not program.started_now:
        await asyncio.sleep(0.01)
    dead = program.started_now[0]
    dead.kill()
    await dead.wait()
    found = await spares.take()
    assert found.alive and found.process.pid != dead.pid
    assert program.cleared == [dead.pid], "what went with it has been cleared away"
    await found.end()


async def test_closing_ends_those_that_wait_and_no_more_are_started() -> None:
    program = Program()
    spares = Spares(program)
    spares.start(3)
    await spares.close()
    assert len(program.started_now) == len(program.cleared) == 3
    assert all(one.returncode is not None for one in program.started_now)
    spares.fill()
    spares.start(2)
    await asyncio.sleep(0)
    assert len(program.started_now) == 3


async def test_a_spare_that_could_not_be_started_is_tried_again_and_the_error_is_the_new_ones() -> None:
    program = Program()
    program.refuses = True
    spares = Spares(program)
    spares.fill()
    with pytest.raises(ConfigurationError, match="cannot be listened on"):
        await spares.take()
    spares.fill()
    await asyncio.sleep(0)
    program.refuses = False
    found = await spares.take()
    assert found.alive
    await found.end()


async def test_it_ends_with_whoever_started_it() -> None:
    """As a worker does: the end of the socket is the end of its process."""
    found = await Started.of(Program())
    found.channel.close()
    await asyncio.wait_for(found.process.wait(), 20)
    assert not found.alive
    await found.end()
