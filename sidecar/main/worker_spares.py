"""Processes that are ready to become workers: everything is imported, and nothing held. Imports no grpc.

A process takes longest to import its program, whatever it is to do. So the first ones are started while the supervisor tests
the policy, and later one is kept waiting to take the place of the next worker that ends.
"""

import asyncio
import contextlib
from collections import deque

from sidecar.errors import ConfigurationError, IntegrityError
from sidecar.main.worker_program import Program, Started


class Spares:
    """Of one generation. One event loop; `close` once."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._found: deque[asyncio.Task[Started]] = deque()
        self._closed = False

    def start(self, number: int) -> None:
        """Let so many more be started, while others go on."""
        if not self._closed:
            self._found += [asyncio.create_task(Started.of(self._program), name="spare") for _ in range(number)]

    def fill(self) -> None:
        """Let there be one."""
        if not self._found:
            self.start(1)

    async def take(self) -> Started:
        """One that waits, or else a new one. Raises as `Program.started`."""
        while self._found:
            waiting = self._found.popleft()
            with contextlib.suppress(ConfigurationError, IntegrityError, OSError):  # then a new one says so
                found = await waiting
                if found.alive:
                    return found
                await found.end()
        return await Started.of(self._program)

    async def close(self) -> None:
        """End those that nobody has taken."""
        self._closed = True
        found, self._found = list(self._found), deque()
        for one in await asyncio.gather(*found, return_exceptions=True):
            if isinstance(one, Started):
                await one.end()
