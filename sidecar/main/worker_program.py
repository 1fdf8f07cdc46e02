"""What a worker's process is, and a process of it that has been started. By the supervisor; imports no grpc."""

import asyncio
import contextlib
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final, Protocol, Self

from sidecar.main.interpreter import command
from sidecar.main.worker_channel import Channel

MODULE: Final = "sidecar.main.worker"


class Program(Protocol):
    """The program of all workers of one generation."""

    def claim(self) -> None:
        """Before the first generation: nobody else has what it is to listen on. ConfigurationError."""

    async def started(self, channel: socket.socket, stack: AsyncExitStack) -> asyncio.subprocess.Process:
        """Start a process, which holds `channel`; what goes with the process is left on `stack`.

        ConfigurationError, IntegrityError or OSError when it cannot be started.
        """


class PythonProgram:
    """grpc.aio carries the doors: an interpreter of the worker's own."""

    def claim(self) -> None:
        """Nothing: whoever cannot listen says so at once."""

    async def started(self, channel: socket.socket, stack: AsyncExitStack) -> asyncio.subprocess.Process:
        """`python -m sidecar.main.worker FD`."""
        del stack
        return await asyncio.create_subprocess_exec(
            *command(MODULE), str(channel.fileno()), pass_fds=(channel.fileno(),),
            stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Started:
    """A process that waits to be told which worker it is: it holds no slot, no record and no policy, and listens nowhere.

    `end` once: it ends the process, if nobody else has, and what goes with it.
    """

    process: asyncio.subprocess.Process
    channel: Channel
    _reading: "asyncio.Task[None]"
    _stack: AsyncExitStack

    @classmethod
    async def of(cls, program: Program) -> Self:
        """Start one. Raises as `Program.started`; nothing is left then."""
        own, other = socket.socketpair()
        async with AsyncExitStack() as stack:
            with other:
                try:
                    process = await program.started(other, stack)
                except BaseException:
                    own.close()
                    raise
            stack.callback(_killed, process)
            channel = await Channel.on(own)
            reading = asyncio.create_task(channel.run(), name=f"worker-process-{process.pid}")
            return cls(process, channel, reading, stack.pop_all())

    @property
    def alive(self) -> bool:
        """Whether it can be told anything."""
        return self.process.returncode is None and not self.channel.gone

    async def end(self) -> None:
        """End it, at once."""
        _killed(self.process)
        await self.process.wait()
        self.channel.close()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._stack.aclose()


def _killed(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
