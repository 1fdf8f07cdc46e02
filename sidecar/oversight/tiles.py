"""The public folder of the log: tiles, entry bundles and the checkpoint (C2SP tlog-tiles).

Whatever serves static files may serve it. Only leaves go in; bodies never do.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from sidecar.errors import IntegrityError
from sidecar.tlog.tile import Tile

CHECKPOINT = "checkpoint"


class TileStore(Protocol):
    """Where tiles are published. A file never changes after it was written, except `checkpoint`."""

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write files by relative path; each appears whole or not at all, and all are durable on return."""

    def read(self, path: str) -> bytes | None:
        """The content of a file, or None if there is none."""

    def read_tile(self, tile: Tile) -> bytes:
        """The content of a tile, or of the full tile in its place. Raises IntegrityError when neither is there."""

    def forget_partials(self, full: Iterable[Tile]) -> None:
        """Remove the partial versions of these full tiles; failing to is no harm."""


class TileFolder:
    """`TileStore` on a POSIX folder."""

    def __init__(self, folder: Path) -> None:
        """Create the folder if need be and clear what a crash left half-written."""
        self._folder = folder
        self._unfinished = folder / ".unfinished"
        # Files are written here and renamed into place, so a crash leaves its debris in one folder, which nobody reads.
        shutil.rmtree(self._unfinished, ignore_errors=True)
        self._unfinished.mkdir(parents=True)

    def write(self, files: Mapping[str, bytes]) -> None:
        """See `TileStore`. A crash in here leaves some of the files: the next attempt writes the same bytes again."""
        folders: set[Path] = set()
        moves: list[tuple[Path, Path]] = []
        for number, (path, data) in enumerate(files.items()):
            target = self._folder / path
            self._make(target.parent, folders)
            unfinished = self._unfinished / str(number)
            unfinished.write_bytes(data)
            folders.add(target.parent)
            moves.append((unfinished, target))
        # Before the renames: otherwise a power cut could leave a name with nothing behind it. All together, because
        # the first fsync of many carries most of what the others need.
        for unfinished, _ in moves:
            _sync(unfinished, os.O_RDONLY)
        for unfinished, target in moves:
            unfinished.replace(target)
        for folder in folders:
            _sync(folder, os.O_RDONLY | os.O_DIRECTORY)

    def read(self, path: str) -> bytes | None:
        """See `TileStore`."""
        try:
            return (self._folder / path).read_bytes()
        except FileNotFoundError:
            return None

    def read_tile(self, tile: Tile) -> bytes:
        """See `TileStore`."""
        data = self.read(tile.path)
        if data is None and tile.is_partial:
            data = self.read(tile.full.path)
        if data is None:
            raise IntegrityError("is missing", where=str(self._folder / tile.path), fix=FIX_TILES)
        return data

    def forget_partials(self, full: Iterable[Tile]) -> None:
        """See `TileStore`."""
        for tile in full:
            shutil.rmtree(self._folder / f"{tile.path}.p", ignore_errors=True)

    def _make(self, folder: Path, touched: set[Path]) -> None:
        missing: list[Path] = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            # The new folder's name stands in its parent, which must be durable as well.
            touched.add(folder.parent)


FIX_TILES = "Restore the tile folder from a mirror or backup of this log; checkpoints show whether a tile is right."


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
