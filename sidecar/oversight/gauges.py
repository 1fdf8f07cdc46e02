"""What metrics show of the store."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from shutil import disk_usage

from sidecar.observability.logs import JsonLog
from sidecar.observability.metrics import Gauges
from sidecar.oversight.committer import Committer
from sidecar.oversight.completeness import Completeness
from sidecar.oversight.producers import list_producers
from sidecar.oversight.publisher import Publications
from sidecar.oversight.search import SearchIndex
from sidecar.oversight.storage import Storage, StorageError

LOOK_SECONDS = 15.0
"""How often the books are read: what is missing is found by reading where every epoch stands."""


class StoreGauges:
    """`run` keeps the figures that cost a reading of the books; the others are read when somebody asks.

    `places` are the folders and files whose disks matter, by name; `now` is the store's clock.
    """

    def __init__(
        self, *, storage: Storage, publications: Publications, committer: Committer, index: SearchIndex,
        producers: Path, places: Mapping[str, Path], silent_after: timedelta, now: Callable[[], datetime],
        log: JsonLog,
    ) -> None:  # fmt: skip
        self._storage, self._publications, self._committer, self._index = storage, publications, committer, index
        self._producers, self._places, self._silent_after = producers, places, silent_after
        self._now, self._log = now, log
        self._size, self._behind_since = 0, now()
        self._findings: dict[tuple[str, ...], float] = {}
        self._looked = now()

    async def run(self) -> None:
        """Read now, then every so often, until cancelled. What cannot be read grows old, and the age shows it."""
        while True:
            try:
                await asyncio.to_thread(self.look)
            except StorageError as error:
                self._log.warning("metrics wait", reason=str(error))
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Read the books. StorageError."""
        found = Completeness.of(self._storage, now=self._now(), silent_after=self._silent_after).findings
        self._findings = {
            key: float(count) for key, count in Counter((one.kind, one.producer) for one in found).items()
        }
        self._looked = self._now()

    def gauges(self) -> Gauges:
        """For metrics."""
        return {
            "store_records": ("Records committed", lambda: float(self._storage.size())),
            "store_tree_size": ("Leaves published", lambda: float(self._published())),
            "store_unpublished_records": ("Not published yet", lambda: float(self._unpublished())),
            "store_integration_lag_seconds": ("How long records have waited", self._lag),
            "store_waiting_records": ("Not committed yet", lambda: float(self._committer.waiting)),
            "store_search_lag_records": (
                "Not searchable yet", lambda: float(max(0, self._storage.size() - self._index.cursor))),
            "store_findings": ("Missing, doubled or silent", lambda: self._findings),
            "store_findings_age_seconds": ("Since looked for", self._age),
            "store_producers": ("Registered", lambda: float(self._registered())),
            "store_free_bytes": ("Free space", self._free),
            "store_bytes": ("Size", self._sizes),
        }  # fmt: skip

    def _published(self) -> int:
        latest = self._publications.latest
        return 0 if latest is None else latest.size

    def _unpublished(self) -> int:
        return max(0, self._storage.size() - self._published())

    def _lag(self) -> float:
        """Since the published tree last grew, while records wait: the store publishes at every interval."""
        now, size = self._now(), self._published()
        if size != self._size or not self._unpublished():
            self._size, self._behind_since = size, now
        return (now - self._behind_since).total_seconds()

    def _registered(self) -> int:
        return sum(one.revoked is None for one in list_producers(self._producers))

    def _age(self) -> float:
        return (self._now() - self._looked).total_seconds()

    def _free(self) -> dict[tuple[str, ...], float]:
        return {(name,): float(disk_usage(_there(path)).free) for name, path in self._places.items()}

    def _sizes(self) -> dict[tuple[str, ...], float]:
        """Databases with their write-ahead logs; folders would have to be walked."""
        return {(name,): float(_size(path)) for name, path in self._places.items() if path.is_file()}


def _there(path: Path) -> Path:
    return path if path.exists() else path.parent


def _size(path: Path) -> int:
    return sum(one.stat().st_size for one in (path, path.with_name(path.name + "-wal")) if one.exists())
