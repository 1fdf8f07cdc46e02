"""Where the policy comes from: the port that folder, file, address and bucket implement, and those on this machine.

A source is looked at again and again, by one thread at a time. Nothing that it raises or returns has been believed yet:
signatures and tests come after it (`policy_admission`).
"""

import os
import stat
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Protocol

from sidecar.decision import archive, folder
from sidecar.decision.bundle import Bundle
from sidecar.errors import ConfigurationError
from sidecar.main.given import FILE_SECONDS

REREAD_SECONDS = 60.0
"""How often what looks unchanged is read in full: two writes within one tick of the file system's clock look alike."""
_READS = 5


class Look(Enum):
    """What a look found when it was no bundle."""

    UNCHANGED = "unchanged"
    """The source holds what the last look or reading gave."""
    UNSETTLED = "unsettled"
    """It is changing at this moment, or was missed by one look; the next one tells."""


class Source(Protocol):
    """A place that holds a bundle. `look` and `read` block and raise ConfigurationError naming what is wrong."""

    kind: str
    """`folder`, `file`, `url` or `s3`: the word in records."""

    @property
    def where(self) -> str:
        """The place, for people; no secret in it."""

    @property
    def pause(self) -> float:
        """Seconds to wait before the next look."""

    def read(self) -> Bundle:
        """What it holds now, in full."""

    def look(self) -> Bundle | Look:
        """What it holds now, where that is not what the last look or reading gave. May wait for a change.

        After an error the next look that succeeds gives a bundle.
        """

    def interrupt(self) -> None:
        """From any thread: a look under way that is waiting ends at once. It does not fail for that."""


class LocalSource:
    """A folder, or a .tar.gz: anything that can be seen to change without being read.

    * What has changed is read when it looks the same at two looks in a row, and once more after it was read: what
      somebody is still copying there is left alone.
    * One look may fail without an alarm: it may fall between the two renames of somebody who swaps the place.
    """

    pause = FILE_SECONDS

    def __init__(
        self,
        kind: str,
        path: Path,
        *,
        mark: Callable[[Path], object],
        load: Callable[[Path], Bundle],
        monotonic: Callable[[], float],
    ) -> None:
        self.kind, self._path = kind, path
        self._mark_of, self._load, self._monotonic = mark, load, monotonic
        self._mark: object = None
        self._held: tuple[str, bytes] | None = None
        self._missed = False
        self._next = float("-inf")

    @property
    def where(self) -> str:
        """The path."""
        return str(self._path)

    def read(self) -> Bundle:
        """Read in full, again while it changes under the reading."""
        self._mark, self._held = None, None  # after an error, the next look gives a bundle
        for _ in range(_READS):
            before = self._mark_of(self._path)
            found = self._load(self._path)
            if self._mark_of(self._path) == before:
                self._keep(before, found)
                return found
        raise ConfigurationError("it changes while it is read", where=self.where, fix="Copy beside it, then rename")

    def look(self) -> Bundle | Look:
        """Look once."""
        try:
            mark = self._mark_of(self._path)
        except ConfigurationError:
            self._mark, self._next = None, float("-inf")
            if self._missed:
                self._held = None
                raise
            self._missed = True
            return Look.UNSETTLED
        self._missed = False
        if mark != self._mark:
            self._mark, self._next = mark, float("-inf")
            return Look.UNSETTLED
        if self._monotonic() < self._next:
            return Look.UNCHANGED
        self._next = self._monotonic() + REREAD_SECONDS
        try:
            found = self._load(self._path)
        except ConfigurationError:
            self._held = None
            raise
        if self._mark_of(self._path) != mark:
            self._mark = None
            return Look.UNSETTLED
        known = self._held
        self._keep(mark, found)
        return Look.UNCHANGED if known == self._held else found

    def interrupt(self) -> None:
        """No look waits."""

    def _keep(self, mark: object, found: Bundle) -> None:
        self._mark, self._held = mark, (found.revision, found.signatures)
        self._next = self._monotonic() + REREAD_SECONDS


def folder_source(path: Path, monotonic: Callable[[], float]) -> LocalSource:
    """A bundle folder, also one that Kubernetes mounts and swaps."""
    return LocalSource("folder", path, mark=folder.mark, load=folder.load_folder, monotonic=monotonic)


def file_source(path: Path, monotonic: Callable[[], float]) -> LocalSource:
    """A .tar.gz, replaced by renaming or rewritten in place; also one behind links that are swapped."""
    return LocalSource("file", path, mark=_file_mark, load=load_file, monotonic=monotonic)


def load_file(path: Path) -> Bundle:
    """The bundle in a .tar.gz. ConfigurationError."""
    try:
        with folder.opened(path) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigurationError("not a regular file", where=str(path), fix="Name a .tar.gz")
            content = file.read(archive.MAX_ARCHIVE_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    return archive.load_archive(content, str(path))


def load(path: Path) -> Bundle:
    """The bundle in this folder or .tar.gz. ConfigurationError."""
    return folder.load_folder(path) if path.is_dir() else load_file(path)


def _file_mark(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(found.st_mode):  # before opening: opening a pipe would wait for its writer
        raise ConfigurationError("not a regular file", where=str(path), fix="Name a .tar.gz")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _unreadable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"the bundle cannot be read: {error.strerror}",
        where=str(path),
        fix="Correct the path, or let the sidecar read it",
    )
