"""Group commit: batches that wait at the same time share one transaction and one fsync.

One thread writes. A batch's future is resolved only after the commit that holds it has returned. When the commit fails,
every batch of the group is refused with `retry`: some may have been stored all the same, which repeating shows.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.oversight.ingest import CheckedBatch, RefusedError
from sidecar.oversight.sequencer import place
from sidecar.oversight.storage import Places, Storage, StorageBrokenError, StorageError

MOST_RECORDS = 4096
"""Records in one transaction: bounds how long a batch waits for those before it."""
MOST_WAITING = 65_536
"""Records that may wait. Beyond it batches are pushed back."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    batch: CheckedBatch
    attested: bool
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Places]"


class Committer:
    """Stores checked batches. Start it once; `submit` from event loops; `close` when no more will come."""

    def __init__(self, storage: Storage, timestamp: Callable[[], str], on_broken: Callable[[Exception], None],
                 on_commit: Callable[[], None]) -> None:  # fmt: skip
        """Both are called from the writing thread: after each commit, and for an error that only a restart can mend."""
        self._storage, self._timestamp = storage, timestamp
        self._on_broken, self._on_commit = on_broken, on_commit
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._waiting = 0
        self._closed = False
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="commit", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Records that are not committed yet."""
        return self._waiting

    def submit(self, batch: CheckedBatch, *, attested: bool = True) -> "asyncio.Future[Places]":
        """Queue a batch, in the order of calls. Raises RefusedError(unavailable, retry) when too many wait.

        The future gives where the records stand, once they are durable, or raises RefusedError(unavailable, retry).
        """
        count = len(batch.items)
        with self._guard:
            if self._closed or self._waiting + count > MOST_WAITING:
                raise RefusedError("unavailable", "the store has too much to write just now", retry=True)
            self._waiting += count
        loop = asyncio.get_running_loop()
        waiting = _Waiting(batch, attested, loop, loop.create_future())
        self._queue.put(waiting)
        return waiting.future

    def close(self) -> None:
        """Commit what waits, then end the thread."""
        with self._guard:
            self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        ended = False
        while not ended:
            group, ended = self._take()
            if group:
                self._commit(group)
                with self._guard:
                    self._waiting -= sum(len(waiting.batch.items) for waiting in group)

    def _take(self) -> tuple[list[_Waiting], bool]:
        group: list[_Waiting] = []
        records = 0
        waiting = self._queue.get()
        while waiting is not None:
            group.append(waiting)
            records += len(waiting.batch.items)
            if records >= MOST_RECORDS:
                return group, False
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit(self, group: list[_Waiting]) -> None:
        now = self._timestamp()
        try:
            with self._storage.transaction() as transaction:
                places = [place(transaction, one.batch, now=now, attested=one.attested) for one in group]
        except Exception as error:  # noqa: BLE001 - a waiting producer must be answered whatever happened
            for waiting in group:
                refusal = RefusedError("unavailable", "the store could not write; nothing is promised", retry=True)
                _tell(waiting, error=refusal)
            if isinstance(error, StorageBrokenError) or not isinstance(error, StorageError):
                self._on_broken(error)
            return
        for waiting, stored in zip(group, places, strict=True):
            _tell(waiting, places=stored)
        self._on_commit()


def _tell(waiting: _Waiting, *, places: Places | None = None, error: Exception | None = None) -> None:
    def resolve() -> None:
        if waiting.future.done():
            return
        if places is not None:
            waiting.future.set_result(places)
        elif error is not None:
            waiting.future.set_exception(error)

    try:
        waiting.loop.call_soon_threadsafe(resolve)
    except RuntimeError:
        # The loop is closed: nobody waits any more. What was committed stays committed.
        return
