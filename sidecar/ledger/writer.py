"""The one thread that writes: everything that waits goes into one transaction, and is answered once that is durable.

A commit waits for the disk; while it does, more requests come, and the next commit takes them all. A request that is
refused leaves the others alone. When a commit fails, nobody in it is promised anything, and what the rules hold in memory
is read again from the database, since it may be ahead of it.
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from sidecar.errors import IntegrityError
from sidecar.ledger.items import LedgerError, RefusedError
from sidecar.ledger.rolling import Rolling

MOST_WAITING = 4_096
_MOST_TOGETHER = 256
_CHECKPOINT_SECONDS = 1.0

T = TypeVar("T")
Work = Callable[[Rolling, float], Any]


class _Waiting(NamedTuple):
    work: Work
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"


class Writer:
    """Runs work on the ledger's rules, in the order it was submitted.

    `make` gives the rules anew from the database; `commit` runs what it is given in one transaction; `checkpoint` moves
    what was committed from the write-ahead log into the database, and runs beside the writing. `broken` is told when
    the database is damaged: then the process must stop.
    """

    def __init__(
        self, make: Callable[[], Rolling], transaction: Callable[[], Any], checkpoint: Callable[[], None],
        clock: Callable[[], float], broken: Callable[[Exception], None],
    ) -> None:  # fmt: skip
        self._make, self._transaction, self._checkpoint = make, transaction, checkpoint
        self._clock, self._broken = clock, broken
        with transaction():
            self._rules: Rolling | None = make()
            self._rules.finish()
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._waiting, self._closed = 0, False
        self._guard, self._ending = threading.Lock(), threading.Event()
        self.commits = self.failures = 0
        self._threads = [
            threading.Thread(target=self._write, name="ledger-write", daemon=True),
            threading.Thread(target=self._tidy, name="ledger-checkpoint", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Requests that are not answered yet."""
        return self._waiting

    async def run(self, work: Callable[[Rolling, float], T]) -> T:
        """The result of `work(rules, now)` once everything it changed is durable.

        RefusedError as the work raises it (`full` when too many wait); LedgerError when it could not be made durable:
        then nothing is promised, and asking the same again is safe.
        """
        with self._guard:
            if self._closed or self._waiting >= MOST_WAITING:
                raise RefusedError("full", "the ledger has too much to do just now")
            self._waiting += 1
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Waiting(work, loop, future))
        return await future

    def close(self) -> None:
        """Finish what waits, then end the threads."""
        with self._guard:
            self._closed = True
        self._queue.put(None)
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _write(self) -> None:
        ended = False
        while not ended:
            group, ended = self._take()
            if group:
                answers = self._commit(group)
                with self._guard:
                    self._waiting -= len(group)
                for one, (result, error) in zip(group, answers, strict=True):
                    _tell(one, result, error)

    def _take(self) -> tuple[list[_Waiting], bool]:
        group: list[_Waiting] = []
        one = self._queue.get()
        while one is not None:
            group.append(one)
            if len(group) >= _MOST_TOGETHER:
                return group, False
            try:
                one = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit(self, group: list[_Waiting]) -> list[tuple[Any, Exception | None]]:
        now = self._clock()
        try:
            if self._rules is not None:
                self._rules.believe(now)
        except LedgerError as error:
            return [(None, error)] * len(group)
        try:
            with self._transaction():
                rules = self._rules = self._rules or self._make()
                rules.advance(now)
                answers = [_done(one.work, rules, now) for one in group]
                rules.finish()
        except Exception as error:  # noqa: BLE001 - whoever waits must be answered whatever happened
            self._rules = None
            self.failures += 1
            if not isinstance(error, sqlite3.OperationalError):
                self._broken(error)
            return [(None, LedgerError("the ledger could not write"))] * len(group)
        self.commits += 1
        return answers

    def _tidy(self) -> None:
        while not self._ending.wait(_CHECKPOINT_SECONDS):
            try:
                self._checkpoint()
            except sqlite3.OperationalError:
                continue  # busy, or no room: the log grows until it works
            except (sqlite3.DatabaseError, IntegrityError) as error:
                self._broken(error)
                return


def _done(work: Work, rules: Rolling, now: float) -> tuple[Any, Exception | None]:
    try:
        return work(rules, now), None
    except RefusedError as error:
        return None, error


def _tell(one: _Waiting, result: Any, error: Exception | None) -> None:
    def resolve() -> None:
        if one.future.done():
            return
        if error is None:
            one.future.set_result(result)
        else:
            one.future.set_exception(error)

    try:
        one.loop.call_soon_threadsafe(resolve)
    except RuntimeError:
        return  # the loop is closed: nobody waits any more; what was committed stays
