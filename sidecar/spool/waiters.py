"""Who waits for a record to be durable, or to have its receipt."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

Waiting = asyncio.Future[None]


class Waiters:
    """Futures by seq. A waiter may give up at any time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._durable: deque[tuple[int, Waiting]] = deque()
        self._received: dict[int, list[Waiting]] = {}

    @property
    def want_durable(self) -> bool:
        """Whether somebody waits for the disk."""
        return bool(self._durable)

    @property
    def want_receipt(self) -> bool:
        """Whether somebody waits for a receipt."""
        return bool(self._received)

    def for_durable(self, seq: int) -> Waiting:
        """Resolved once `seq` is durable. Called with rising seqs."""
        future = self._loop.create_future()
        self._durable.append((seq, future))
        return future

    def for_receipt(self, seq: int) -> Waiting:
        """Resolved once `seq` has a receipt."""
        future = self._loop.create_future()
        self._received.setdefault(seq, []).append(future)
        return future

    def durable(self, end: int) -> None:
        """All seqs below `end` are durable."""
        while self._durable and self._durable[0][0] < end:
            _resolve([self._durable.popleft()[1]])

    def received(self, first: int, count: int) -> None:
        """These seqs have their receipt."""
        covered = range(first, first + count)
        for seq in [one for one in self._received if one in covered]:
            _resolve(self._received.pop(seq))

    def fail_durable(self, error: Callable[[], Exception]) -> None:
        """The disk failed: everybody who waits for it gets an error of their own."""
        while self._durable:
            future = self._durable.popleft()[1]
            if not future.done():
                future.set_exception(error())


def _resolve(futures: Sequence[Waiting]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
