"""Integrates and publishes at a fixed interval, and tells those who wait for a checkpoint."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from sidecar.observability.logs import JsonLog
from sidecar.oversight.integrator import Integrator, Published
from sidecar.oversight.storage import LeaseLostError, StorageBrokenError, StorageError


class News:
    """Wakes those who wait, each time it is told. Used from one event loop, except `tell_from_thread`."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @property
    def next(self) -> asyncio.Event:
        """Is set when there is news. Take it before looking at what it is about, or news could slip between."""
        return self._event

    def tell(self) -> None:
        """There is news."""
        event, self._event = self._event, asyncio.Event()
        event.set()

    def tell_from_thread(self) -> None:
        """As `tell`, from any thread."""
        self._loop.call_soon_threadsafe(self.tell)


class Publications:
    """The latest published tree, and a way to wait for a newer one. Used from one event loop."""

    def __init__(self) -> None:
        self.latest: Published | None = None
        self._news = News()

    def announce(self, tree: Published) -> None:
        """There is a newer tree."""
        self.latest = tree
        self._news.tell()

    async def newer_than(self, size: int) -> Published:
        """The latest tree, as soon as it has more than `size` leaves."""
        while self.latest is None or self.latest.size <= size:
            await self._news.next.wait()
        return self.latest


class Publisher:
    """Runs the integrator in its thread."""

    def __init__(
        self, integrator: Integrator, publications: Publications, pool: Executor, *, interval: float,
        log: JsonLog, on_broken: Callable[[Exception], None],
    ) -> None:  # fmt: skip
        self._integrator, self._publications, self._pool = integrator, publications, pool
        self._interval, self._log, self._on_broken = interval, log, on_broken

    async def step(self) -> bool:
        """Integrate once; return whether there was something to publish."""
        published = await asyncio.get_running_loop().run_in_executor(self._pool, self._integrator.step)
        tree = self._integrator.published
        if tree is not None and tree is not self._publications.latest:
            self._publications.announce(tree)
        return published

    async def run(self) -> None:
        """Publish every interval, for ever.

        What passes (a full disk, a busy database, a lost lease) is tried again at the next interval; records stay
        committed meanwhile. Anything else means that what is stored contradicts itself: the store stops, because a
        log that goes on from there could sign what it must not.
        """
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + self._interval, loop.time())
            try:
                while await self.step():
                    if loop.time() >= due:
                        due = loop.time() + self._interval
            except (LeaseLostError, OSError) as error:
                self._log.warning("publishing waits", reason=str(error))
            except StorageBrokenError as error:
                self._on_broken(error)
                return
            except StorageError as error:
                self._log.warning("publishing waits", reason=str(error))
            except Exception as error:  # noqa: BLE001 - contradiction: handed to the composition root, which stops
                self._on_broken(error)
                return
            await asyncio.sleep(due - loop.time())
