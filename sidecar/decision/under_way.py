"""Questions that an engine is answering: so that it is closed after the last of them, and asked nothing more."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sidecar.errors import DecideError
from sidecar.vocabulary import ReasonCode


class UnderWay:
    """Counts the questions under way. One event loop."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self.closed = False
        """Whether no question is taken any more."""

    @contextmanager
    def one(self) -> Iterator[None]:
        """While a question is being answered. DecideError once closed."""
        if self.closed:
            raise DecideError(
                "the policy gave no decision", reason=ReasonCode.POLICY_ERROR,
                operator="asked a policy that is no longer in force",
            )  # fmt: skip
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._none.set()

    async def close(self, seconds: float) -> bool:
        """Take no more, and wait until those under way have ended, so long at most. False if closed before."""
        if self.closed:
            return False
        self.closed = True
        if self._count:
            self._none.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._none.wait()
        return True
