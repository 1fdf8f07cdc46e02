"""A copy of everything the store needs to go on, taken while it runs: two databases of one moment, registry, tiles.

==============================  ======================================================================================
in the copy                     what it is
==============================  ======================================================================================
``records.sqlite``              the log's database
``records.sqlite.store-key.pem``  the key with which the store signs its own records
``keys.sqlite``                 the key database, wrapped under the key-encryption key, which is not in the copy
``producers.json``              the registry
``log/``                        the tiles of the signed size, and the checkpoint that was published for it at most
==============================  ======================================================================================

The search index is not copied: it is made again from the log. The log's key, the sealing key and the key-encryption key
are not copied: whoever takes a backup has neither the means to sign nor to open anything in it.
"""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sidecar.errors import ConfigurationError, IntegrityError
from sidecar.oversight import schema, sqlite_rows
from sidecar.oversight.sqlite import connect
from sidecar.oversight.storage import Statement
from sidecar.oversight.tiles import CHECKPOINT, TileFolder
from sidecar.tlog.errors import TlogError
from sidecar.tlog.tile import TileBuilder

_PAGES = 1_000
_TRIES = 20
_MADE = "[0-9]" * 8 + "T" + "[0-9]" * 6 + "Z"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What is copied: two databases, the registry of producers (which may not exist yet), and the folder of tiles."""

    records: Path
    keys: Path
    producers: Path
    tiles: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """`records` in the log's database; `signed`: the size up to which `log/` proves them; bytes in all."""

    records: int
    signed: int
    size: int


Advance = Callable[[str, int, int], None]
"""Told (part, done, of) while it works."""


def copy(sources: Sources, target: Path, advance: Advance) -> Copied:
    """Copy to a new folder, durable when this returns; nothing half-made is left under its name.

    ConfigurationError when the folder exists or a source cannot be read; IntegrityError when what was copied does not
    hold together.
    """
    if target.exists():
        raise ConfigurationError("exists; a backup is never overwritten", where=str(target), fix="Name another folder.")
    unfinished = target.with_name(target.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700, parents=True)
    try:
        records, signed = _databases(sources, unfinished, advance)
        _files(sources, unfinished)
        _tiles(sources.tiles, unfinished / "log", signed, advance)
        size = _durable(unfinished)
        unfinished.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Copied(records=records, signed=signed.size if signed is not None else 0, size=size)


def forget(folder: Path, keep: int) -> list[Path]:
    """Remove all but the newest `keep` backups of a folder, those whose name is a time; return which."""
    old = sorted(one for one in folder.glob(_MADE) if one.is_dir())[:-keep]
    for one in old:
        shutil.rmtree(one)
    return old


def _databases(sources: Sources, target: Path, advance: Advance) -> tuple[int, Statement | None]:
    """Copy both as they are at one moment, and write the checkpoint of that moment."""
    with _both(sources) as (records, keys):
        size = sqlite_rows.number(records.execute("SELECT coalesce(max(idx) + 1, 0) FROM leaf").fetchall())
        signed = sqlite_rows.statement(
            records.execute("SELECT size, root FROM signed ORDER BY size DESC LIMIT 1").fetchall()
        )
        note = records.execute("SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").fetchone()
        for part, database in (("records", records), ("keys", keys)):
            _database(database, target / f"{part}.sqlite", partial(advance, part))
    (target / "log").mkdir()
    if note is not None:
        # Not the file in the tile folder, which may be ahead of the database by now: the store would refuse to start.
        (target / "log" / CHECKPOINT).write_bytes(note[0])
    return size, signed


@contextmanager
def _both(sources: Sources) -> Iterator[tuple[sqlite3.Connection, sqlite3.Connection]]:
    """Both databases, each in a transaction that sees one moment.

    The second moment is a little later than the first. If openings of records were taken over in between that the first
    does not know, the key database would later pass over other records with their numbers: then it is tried again.
    """
    with closing(_opened(sources.records)) as records, closing(_opened(sources.keys)) as keys:
        if records.execute("PRAGMA user_version").fetchone()[0] != schema.VERSION:
            raise ConfigurationError("is no log database of this version", where=str(sources.records))
        for _ in range(_TRIES):
            records.execute("BEGIN")
            size = sqlite_rows.number(records.execute("SELECT coalesce(max(idx) + 1, 0) FROM leaf").fetchall())
            keys.execute("BEGIN")
            if int(keys.execute("SELECT idx FROM cursor").fetchone()[0]) <= size:
                yield records, keys
                return
            records.execute("ROLLBACK")
            keys.execute("ROLLBACK")
    raise IntegrityError("has taken over openings of records that the log does not hold", where=str(sources.keys),
                         fix="Do these two databases belong together?")  # fmt: skip


def _opened(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise ConfigurationError("is not there", where=str(path), fix="Has this store ever run?")
    try:
        return connect(path, read_only=True)
    except sqlite3.Error as error:
        raise ConfigurationError(f"cannot be opened: {error}", where=str(path)) from None


def _database(source: sqlite3.Connection, target: Path, advance: Callable[[int, int], None]) -> None:
    os.close(os.open(target, os.O_CREAT | os.O_EXCL, 0o600))
    with closing(sqlite3.connect(target, isolation_level=None)) as out:
        source.backup(out, pages=_PAGES, progress=lambda _, left, of: advance(of - left, of), sleep=0.0)
        sound = out.execute("PRAGMA quick_check").fetchone()[0]
        out.execute("PRAGMA journal_mode = DELETE")
    if sound != "ok":
        raise IntegrityError(f"is damaged: {sound}", where=str(target), fix="Restore an earlier backup.")


def _files(sources: Sources, target: Path) -> None:
    own = sources.records.with_name(sources.records.name + ".store-key.pem")
    for source, name in ((own, "records.sqlite.store-key.pem"), (sources.producers, "producers.json")):
        if source.exists():
            shutil.copyfile(source, target / name)
            (target / name).chmod(0o600)


def _tiles(source: Path, target: Path, signed: Statement | None, advance: Advance) -> None:
    """Copy the tiles, again until those of the signed size are there: a size is signed before its tiles are written."""
    for _ in range(_TRIES):
        _copied(source, target, advance)
        if signed is None or _leads_to(target, signed):
            return
    size = 0 if signed is None else signed.size
    raise IntegrityError(f"the tiles of size {size} do not lead to the signed root", where=str(source),
                         fix="Run `sidecar oversight audit` on the folder.")  # fmt: skip


def _copied(source: Path, target: Path, advance: Advance) -> None:
    files = sorted(one for one in source.rglob("*") if one.is_file())
    for done, one in enumerate(files):
        relative = one.relative_to(source)
        if relative.parts[0] not in (CHECKPOINT, ".unfinished") and not (target / relative).exists():
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(one, target / relative)
            except FileNotFoundError:
                # A partial tile whose full one has appeared: the full one holds it.
                (target / relative).unlink(missing_ok=True)
        advance("tiles", done + 1, len(files))


def _leads_to(folder: Path, signed: Statement) -> bool:
    try:
        return TileBuilder.load(signed.size, TileFolder(folder).read_tile).root() == signed.root
    except (IntegrityError, TlogError):
        return False


def _durable(folder: Path) -> int:
    """Everything on disk, folders included; the bytes in all."""
    size = 0
    for one in (folder, *folder.rglob("*")):
        _sync(one)
        size += one.stat().st_size if one.is_file() else 0
    return size


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
