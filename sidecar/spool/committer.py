"""The thread that waits for the disk, so that the event loop does not."""

import asyncio
import errno
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import NamedTuple

from sidecar.spool.segment import Head, Segment


class Commit(NamedTuple):
    """What one fdatasync covers: (segment, size, next_seq) each, and the chain's head then."""

    marks: list[tuple[Segment, int, int]]
    head: Head | None
    generation: int


class Committer:
    """Runs jobs one after another in a thread of its own and reports each result on the event loop.

    Jobs run in the order in which they were submitted; `stop` waits for those submitted before it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._jobs: SimpleQueue[tuple[Callable[[], None], Callable[[OSError | None], None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        """Run `job` in the thread, then `done(None)`, or `done(error)` for its OSError, on the event loop. Any other failure is EIO."""
        self._jobs.put((job, done))

    def stop(self) -> None:
        """Finish what was submitted and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (entry := self._jobs.get()) is not None:
            job, done = entry
            error: OSError | None = None
            try:
                job()
            except OSError as caught:
                error = caught
            except Exception as caught:  # noqa: BLE001 - without this thread nothing would ever be durable again
                error = OSError(errno.EIO, f"{type(caught).__name__} in the spool")
            if self._loop.is_closed():
                return
            self._loop.call_soon_threadsafe(done, error)
