"""The ledger's database: one SQLite file, one writer, every commit durable before anybody is answered.

`sighting` is what groups have seen of subjects; `tally` is counted from it and from what is reserved, and `sidecar ledger
verify` counts it again. The write-ahead log with synchronous=FULL means: what was committed outlives a power cut, what was
not is not there. A second process on the same file would count past the first one's memory, so a lock keeps it out.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sidecar.errors import ConfigurationError, IntegrityError
from sidecar.ledger.marks import Days, decode_days, decode_marks, encode_days, encode_marks
from sidecar.ledger.secret import SUBJECT_BYTES, Secret

_VERSION = 1
_APPLICATION = 0x4C454447
_CACHE_KIB = 65_536
_SCHEMA = """
CREATE TABLE about (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE counterparty (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE mark (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE sighting (group_id INTEGER, subject BLOB, days BLOB NOT NULL, PRIMARY KEY (group_id, subject)) WITHOUT ROWID;
CREATE TABLE tally (group_id INTEGER, day INTEGER, category INTEGER, subjects INTEGER NOT NULL,
                    PRIMARY KEY (group_id, day, category)) WITHOUT ROWID;
CREATE TABLE reservation (sidecar TEXT, call TEXT, sequence INTEGER, group_id INTEGER NOT NULL, made REAL NOT NULL,
                          day INTEGER NOT NULL, subjects BLOB NOT NULL, PRIMARY KEY (sidecar, call, sequence)) WITHOUT ROWID;
CREATE TABLE settled (sidecar TEXT, call TEXT, at REAL NOT NULL, PRIMARY KEY (sidecar, call)) WITHOUT ROWID;
CREATE INDEX settled_at ON settled (at);
"""

Subjects = dict[bytes, frozenset[int]]
"""Subject -> marks."""
Row = tuple[str, str, int, int, float, int, Subjects]
"""A reservation: sidecar, call, sequence, group, when it was made (unix seconds) and under which day, whom it is about."""


def create(path: Path, secret: Secret, today: int) -> None:
    """A new, empty ledger. ConfigurationError when the file exists: a ledger is never begun again by accident."""
    if path.exists():
        raise ConfigurationError("exists; a ledger is never overwritten", where=str(path), fix="Name another file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL, 0o600))
    database = sqlite3.connect(unfinished, isolation_level=None)
    try:
        database.executescript(f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_VERSION}; {_SCHEMA}")
        database.execute("INSERT INTO about VALUES ('check', ?), ('day', ?)", (secret.check, today))
    finally:
        database.close()
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def lock(path: Path) -> BinaryIO:
    """Keep every other ledger process off this database until the file is closed. ConfigurationError if one runs."""
    file = path.with_name(path.name + ".lock").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ConfigurationError(
            "another ledger process uses this database", where=str(path), fix="Stop it first; only one may count."
        ) from None
    return file


def locked(path: Path) -> bool:
    """Whether a ledger process uses this database now."""
    try:
        lock(path).close()
    except ConfigurationError:
        return True
    return False


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """An existing ledger. ConfigurationError when there is none; IntegrityError when the file is something else."""
    if not path.is_file():
        raise ConfigurationError(
            "there is no ledger", where=str(path),
            fix="Restore it from a backup. Only a first ledger is made by `sidecar ledger init`.",
        )  # fmt: skip
    database = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'rw' if write else 'ro'}", uri=True, isolation_level=None, timeout=10.0,
        check_same_thread=False,
    )  # fmt: skip
    try:
        kind = (
            database.execute("PRAGMA application_id").fetchone()[0],
            database.execute("PRAGMA user_version").fetchone()[0],
        )
        if write:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            # A checkpoint in the middle of a commit would be a pause of many milliseconds for everybody who waits.
            database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    except sqlite3.DatabaseError as error:
        database.close()
        raise damaged(path, str(error)) from None
    if kind != (_APPLICATION, _VERSION):
        database.close()
        raise damaged(path, f"it is no ledger of version {_VERSION}")
    return database


def damaged(path: Path, why: str) -> IntegrityError:
    """The database does not hold what was written to it."""
    return IntegrityError(f"cannot be used: {why}", where=str(path), fix="Restore the last backup.")


class Book:
    """The tables. All of it runs in one thread; changes only within `transaction`."""

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self.path, self.database = path, database

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Whatever leaves the block by an exception leaves nothing in the database."""
        self.database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.database.execute("COMMIT")
        except BaseException:
            if self.database.in_transaction:
                self.database.execute("ROLLBACK")
            raise

    def about(self, name: str) -> bytes | int:
        """`check` (bytes) or `day` (int)."""
        value = self.database.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        if value is None:
            raise damaged(self.path, f"{name} is missing")
        found: bytes | int = value[0]
        return found

    def save_day(self, day: int) -> None:
        """The latest day the ledger has lived through."""
        self.database.execute("UPDATE about SET value = ? WHERE name = 'day'", (day,))

    def groups(self) -> dict[str, int]:
        """Every group by name."""
        return dict(self.database.execute("SELECT name, id FROM counterparty").fetchall())

    def add_group(self, name: str) -> int:
        """A new group's number."""
        number = self.database.execute("INSERT INTO counterparty (name) VALUES (?)", (name,)).lastrowid
        if number is None:
            raise damaged(self.path, "a row was not written")
        return number

    def marks(self) -> dict[str, int]:
        """Every mark and category by name."""
        return dict(self.database.execute("SELECT name, id FROM mark").fetchall())

    def add_marks(self, added: list[tuple[int, str]]) -> None:
        """New ones."""
        self.database.executemany("INSERT INTO mark VALUES (?, ?)", added)

    def sighting(self, group: int, subject: bytes) -> Days:
        """What the group has seen of the subject and when last, expired marks included."""
        row = self.database.execute(
            "SELECT days FROM sighting WHERE group_id = ? AND subject = ?", (group, subject)
        ).fetchone()
        try:
            return {} if row is None else decode_days(row[0])
        except ValueError as error:
            raise damaged(self.path, str(error)) from None

    def save_sighting(self, group: int, subject: bytes, days: Days) -> None:
        """Replace it."""
        self.database.execute(
            "INSERT INTO sighting VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET days = excluded.days",
            (group, subject, encode_days(days)),
        )

    def sightings_after(self, group: int, subject: bytes, most: int) -> list[tuple[int, bytes, bytes]]:
        """The next ones in the order of their keys."""
        return self.database.execute(
            "SELECT group_id, subject, days FROM sighting WHERE (group_id, subject) > (?, ?)"
            " ORDER BY group_id, subject LIMIT ?",
            (group, subject, most),
        ).fetchall()

    def forget_sightings(self, keys: list[tuple[int, bytes]]) -> None:
        """Remove what no window reaches any more."""
        self.database.executemany("DELETE FROM sighting WHERE group_id = ? AND subject = ?", keys)

    def reservations(self) -> Iterator[Row]:
        """Every outstanding reservation."""
        for *place, data in self.database.execute("SELECT * FROM reservation"):
            sidecar, call, sequence, group, made, day = place
            try:
                yield sidecar, call, sequence, group, made, day, decode_subjects(data)
            except ValueError as error:
                raise damaged(self.path, str(error)) from None

    def add_reservation(self, row: Row) -> None:
        """A new one."""
        *place, subjects = row
        self.database.execute(
            "INSERT INTO reservation VALUES (?, ?, ?, ?, ?, ?, ?)", (*place, encode_subjects(subjects))
        )

    def remove_reservation(self, sidecar: str, call: str, sequence: int) -> None:
        """It is settled."""
        self.database.execute(
            "DELETE FROM reservation WHERE (sidecar, call, sequence) = (?, ?, ?)", (sidecar, call, sequence)
        )

    def is_settled(self, sidecar: str, call: str) -> bool:
        """Whether the whole call was settled lately."""
        query = "SELECT 1 FROM settled WHERE (sidecar, call) = (?, ?)"
        return self.database.execute(query, (sidecar, call)).fetchone() is not None

    def add_settled(self, sidecar: str, call: str, at: float) -> None:
        """The call accepts no further reservation."""
        self.database.execute("INSERT OR IGNORE INTO settled VALUES (?, ?, ?)", (sidecar, call, at))

    def forget_settled(self, before: float) -> None:
        """So long ago that no reservation of such a call can still be under way."""
        self.database.execute("DELETE FROM settled WHERE at < ?", (before,))


def encode_subjects(subjects: Subjects) -> bytes:
    """For each subject its 16 bytes, how many marks, and their numbers."""
    out = bytearray()
    for subject, marks in subjects.items():
        out += subject + bytes((len(marks),)) + encode_marks(marks)
    return bytes(out)


def decode_subjects(data: bytes) -> Subjects:
    """What `encode_subjects` wrote. ValueError when it did not."""
    found: Subjects = {}
    at = 0
    while at < len(data):
        subject = data[at : at + SUBJECT_BYTES]
        at += SUBJECT_BYTES
        if at >= len(data):
            raise ValueError("a reservation is cut short")
        found[subject], at = decode_marks(data, at + 1, data[at])
    return found
