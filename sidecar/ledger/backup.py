"""A copy of a ledger's database while it is in use: SQLite's online backup, of one moment."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from sidecar.errors import ConfigurationError
from sidecar.ledger.book import damaged
from sidecar.ledger.inspection import snapshot

_PAGES = 1_000


def copy(path: Path, target: Path, advance: Callable[[int, int], None]) -> int:
    """Write the ledger, as it is when this begins, to a new file; its size in bytes.

    The secret is not in it and is to be kept apart from it. ConfigurationError when `target` exists; nothing half-written
    is left under its name.
    """
    if target.exists():
        raise ConfigurationError("exists; a backup is never overwritten", where=str(target), fix="Name another file.")
    unfinished = target.with_name(target.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with snapshot(path) as book:
            # The transaction is open before the first page is read, so writers change nothing under the copy.
            book.about("day")
            out = sqlite3.connect(unfinished, isolation_level=None)
            try:
                book.database.backup(out, pages=_PAGES, progress=lambda _, left, of: advance(of - left, of), sleep=0.0)
                sound = out.execute("PRAGMA quick_check").fetchone()[0]
                out.execute("PRAGMA journal_mode = DELETE")
            finally:
                out.close()
        if sound != "ok":
            raise damaged(path, str(sound))
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target.stat().st_size
