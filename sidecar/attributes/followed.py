"""A snapshot file that is read again when it changes: shared by the directory and the subject index.

What is in force only ever moves from one verified snapshot to another that was built no earlier. A new file that is
damaged, older or unreadable is reported and the old one stays in force until it is too old (`fresh`). One thing ends
it at once: the very file it is mapped from was changed in place and no longer verifies, because then the old bytes
are gone. From then on nothing is in force (`held` is None) until a good file is put in place.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from sidecar.attributes.snapshots import SKEW, Mark, Snapshot, mark_of
from sidecar.errors import ConfigurationError, IntegrityError

Report = Callable[[str, str], None]
"""Told (event, detail). Called from the thread that reloads."""
T = TypeVar("T")

_TRIES = 2
"""A bad file is read twice: it may have been read while somebody was still writing it."""


class Followed(Generic[T]):
    """`held` is what `make` made of the snapshot in force. Reading attributes is for any thread; one reload at a time.

    Raises at the start: ConfigurationError when the file is missing or unreadable, IntegrityError when it is damaged.
    """

    def __init__(self, path: Path, kind: str, make: Callable[[Snapshot], T], *, max_age: float, build: str,
                 report: Report) -> None:  # fmt: skip
        self._path, self._kind, self._make = path, kind, make
        self._max_age, self._report = max_age, report
        self._lock = threading.Lock()
        self._bad: tuple[Mark | None, int] = (None, 0)
        self.error: str | None = None
        """What is wrong with the file at present, or None."""
        try:
            first = Snapshot(path, kind)
        except OSError as error:
            raise ConfigurationError(f"the {kind} file cannot be read: {error.strerror}", where=str(path),
                                     fix=f"Build it with `{build}`.") from None  # fmt: skip
        self.latest = first
        self.held: T | None = make(first)
        self._report(f"{kind}_activated", f"{path}: revision {first.revision}")

    @property
    def revision(self) -> str:
        """Revision of the snapshot in force, or of the last that was."""
        return self.latest.revision

    def age(self, now: float) -> float:
        """Seconds since the snapshot was built; negative when the clocks disagree."""
        return now - self.latest.built_at

    def fresh(self, now: float) -> bool:
        """Whether something is in force that was built at most `max_age` seconds ago, and not in the future."""
        return self.held is not None and -SKEW <= now - self.latest.built_at <= self._max_age

    def reload_if_changed(self) -> bool:
        """Look at the file; read, verify and swap if it is another. True when another revision is in force. Blocks."""
        with self._lock:
            try:
                mark = mark_of(self._path.stat())
            except OSError as error:
                self._refuse(f"cannot be read: {error.strerror}", None)
                return False
            if mark == self.latest.mark and self.held is not None:
                self.error = None
                self.latest.rest()
                return False
            if self._bad[0] == mark and self._bad[1] >= _TRIES:
                return False
            return self._replace(mark)

    def _replace(self, mark: Mark) -> bool:
        try:
            snapshot = Snapshot(self._path, self._kind)
            self._check_order(snapshot)
            value = self._make(snapshot)
        except OSError as error:
            self._refuse(f"cannot be read: {error.strerror}", None)
            return False
        except IntegrityError as error:
            if mark[:2] == self.latest.mark[:2]:
                self.held = None
            self._refuse(str(error), mark)
            return False
        changed = self.held is None or snapshot.revision != self.latest.revision
        # `latest` first: a call between the two lines may see the new age with the old content, both verified.
        self.latest, self.held = snapshot, value
        self._bad, self.error = (None, 0), None
        self._report(f"{self._kind}_activated", f"{self._path}: revision {snapshot.revision}")
        return changed

    def _check_order(self, snapshot: Snapshot) -> None:
        earlier = self.latest.built_at - snapshot.built_at
        if earlier > 0:
            raise IntegrityError(f"built {earlier:.0f} s before the one in force", where=str(self._path),
                                 fix="Build it anew; to go back on purpose, restart.")  # fmt: skip

    def _refuse(self, why: str, mark: Mark | None) -> None:
        self._bad = (mark, self._bad[1] + 1 if mark is not None and mark == self._bad[0] else 1)
        if why != self.error:
            state = "the one before stays in force" if self.held is not None else "NOTHING is in force"
            self._report(f"{self._kind}_refused", f"{why} ({state})")
        self.error = why
