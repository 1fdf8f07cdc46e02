"""The key database: pseudonym keys of the periods, one key for each data subject, and the openings under them.

It is a file of its own, apart from the log, because it must be able to forget. Every key in it is wrapped (AES-256-GCM)
under a key-encryption key that stands in a file of its own: a copy of the database alone opens nothing.

==============  ======================================================================================================
table           one row is
==============  ======================================================================================================
``period_key``  a period's HMAC key, wrapped; ``start`` and ``until`` RFC 3339
``subject``     the look-up row of one pseudonym (one data subject in one period) and its key, wrapped
``opening``     opening number ``place`` of record ``idx``: ``salt_i || pseudonym_i`` under the subject's key
``cursor``      how far the openings in transit were taken over: every ``idx`` below it is here or was refused
==============  ======================================================================================================

Erasing a person means deleting the subjects' rows, keys and openings of all periods. What remains in a record is
``SHA-256(salt_i || pseudonym_i)`` with a salt of 256 random bits that no longer exists anywhere here.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from sqlite3 import Connection
from sqlite3 import Error as SqliteError

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sidecar.errors import ConfigurationError
from sidecar.oversight.periods import Period, missing, overlapping, rfc3339
from sidecar.oversight.sqlite import connect, translate
from sidecar.record import pseudonym

KEY_SIZE = 32
_NONCE = 12
_KNOWN_SUBJECTS = 50_000
_TABLES = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS period_key (name TEXT PRIMARY KEY, start TEXT NOT NULL, until TEXT NOT NULL,
    wrapped BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS subject (id INTEGER PRIMARY KEY, pseudonym BLOB NOT NULL UNIQUE,
    wrapped BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS opening (idx INTEGER NOT NULL, place INTEGER NOT NULL, subject INTEGER NOT NULL,
    sealed BLOB NOT NULL, PRIMARY KEY (idx, place)) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS opening_by_subject ON opening (subject, idx);
CREATE TABLE IF NOT EXISTS cursor (only INTEGER PRIMARY KEY CHECK (only = 1), idx INTEGER NOT NULL) STRICT;
INSERT OR IGNORE INTO cursor VALUES (1, 0);
COMMIT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodKey:
    """A period and its HMAC-SHA-256 key of 32 bytes."""

    period: Period
    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedRecord:
    """A record's openings in the clear: (salt_i, pseudonym_i), in the order of its subjects."""

    index: int
    openings: tuple[tuple[bytes, bytes], ...]


class KeyVault:
    """The key database, opened with its key-encryption key. May be used from any thread."""

    def __init__(self, path: Path, key_encryption_key: bytes, random: Callable[[int], bytes]) -> None:
        """Open or create; raise ConfigurationError if that fails. `random` gives that many secret random bytes."""
        self._path, self._wrap, self._random = path, AESGCM(key_encryption_key), random
        self._guard = threading.RLock()
        self._known: dict[bytes, tuple[int, AESGCM]] = {}
        try:
            self._database = connect(path)
            self._database.executescript(_TABLES)
        except SqliteError as error:
            raise ConfigurationError(f"cannot be opened: {error}", where=str(path),
                                     fix="Name the key database, or restore it.") from None  # fmt: skip
        path.chmod(0o600)
        try:
            # At start, where it is mended, and not at a producer's first question.
            self._periods(self._database)
        except InvalidTag:
            self._database.close()
            raise ConfigurationError("its keys are not wrapped under this key-encryption key", where=str(path),
                                     fix="Name the key-encryption key with which it was made.") from None  # fmt: skip

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with self._guard:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                try:
                    yield self._database
                    self._database.execute("COMMIT")
                except BaseException:
                    # The ids of subjects made in here are not in the database after all.
                    self._known.clear()
                    if self._database.in_transaction:
                        self._database.execute("ROLLBACK")
                    raise
            except SqliteError as error:
                raise translate(error, self._path) from error

    # Periods

    def issue(self, *, now: datetime, length: timedelta, ahead: int) -> list[PeriodKey]:
        """The running period's key and those of the `ahead` next, made if need be, by time."""
        with self._write() as database:
            known = self._periods(database)
            last = known[-1].period if known else None
            for period in missing(last, now=now, length=length, ahead=ahead):
                key = self._random(KEY_SIZE)
                database.execute(
                    "INSERT INTO period_key VALUES (?, ?, ?, ?)",
                    (period.name, rfc3339(period.start), rfc3339(period.until),
                     self._wrapped(key, _period_context(period.name))),
                )  # fmt: skip
                known.append(PeriodKey(period=period, key=key))
        return [one for one in known if one.period.until > now][: ahead + 1]

    def pseudonyms(
        self, kind: str, subject_id: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> list[tuple[str, bytes]]:
        """(period, pseudonym) of a data subject in every issued period that meets [since, until)."""
        with self._guard:
            keys = {one.period.name: one for one in self._periods(self._database)}
        wanted = overlapping((one.period for one in keys.values()), since, until)
        return [(period.name, pseudonym(keys[period.name].key, kind, subject_id)) for period in wanted]

    def _periods(self, database: Connection) -> list[PeriodKey]:
        rows = database.execute("SELECT name, start, until, wrapped FROM period_key ORDER BY start").fetchall()
        return [
            PeriodKey(
                period=Period(start=datetime.fromisoformat(start).astimezone(UTC),
                              until=datetime.fromisoformat(until).astimezone(UTC)),
                key=self._unwrapped(wrapped, _period_context(name)),
            )
            for name, start, until, wrapped in rows
        ]  # fmt: skip

    # Subjects

    def cursor(self) -> int:
        """Openings of records below this index were taken over."""
        with self._guard:
            return int(self._database.execute("SELECT idx FROM cursor").fetchone()[0])

    def take_over(self, records: Iterable[OpenedRecord], cursor: int) -> None:
        """Put openings under their subjects' keys and move the cursor, in one commit. A repeat changes nothing."""
        with self._write() as database:
            (done,) = database.execute("SELECT idx FROM cursor").fetchone()
            rows: list[tuple[int, int, int, bytes]] = []
            for record in records:
                # What was taken over before may have been erased since: it must not come back.
                if record.index < done:
                    continue
                for place, (salt, name) in enumerate(record.openings):
                    subject, key = self._subject(database, name)
                    nonce = self._random(_NONCE)
                    sealed = nonce + key.encrypt(nonce, salt + name, _opening_context(record.index, place))
                    rows.append((record.index, place, subject, sealed))
            database.executemany("INSERT INTO opening VALUES (?, ?, ?, ?)", rows)
            database.execute("UPDATE cursor SET idx = max(idx, ?)", (cursor,))

    def _subject(self, database: Connection, name: bytes) -> tuple[int, AESGCM]:
        known = self._known.get(name)
        if known is not None:
            return known
        row = database.execute("SELECT id, wrapped FROM subject WHERE pseudonym = ?", (name,)).fetchone()
        if row is None:
            key = self._random(KEY_SIZE)
            wrapped = self._wrapped(key, _subject_context(name))
            added = database.execute("INSERT INTO subject (pseudonym, wrapped) VALUES (?, ?)", (name, wrapped))
            row = (added.lastrowid, None)
        else:
            key = self._unwrapped(row[1], _subject_context(name))
        if len(self._known) >= _KNOWN_SUBJECTS:
            self._known.clear()
        self._known[name] = found = (int(row[0]), AESGCM(key))
        return found

    def records_of(self, pseudonyms: Sequence[bytes], *, after: int, limit: int) -> list[int]:
        """Up to `limit` indices above `after` of records that name one of these pseudonyms, ascending."""
        marks = ",".join("?" * len(pseudonyms))
        query = (
            "SELECT DISTINCT idx FROM opening WHERE subject IN (SELECT id FROM subject"
            f" WHERE pseudonym IN ({marks})) AND idx > ? ORDER BY idx LIMIT ?"
        )
        with self._guard:
            return [row[0] for row in self._database.execute(query, (*pseudonyms, after, limit))]

    def openings_of(self, index: int) -> dict[int, tuple[bytes, bytes]]:
        """Place -> (salt_i, pseudonym_i) of a record's subjects that were not erased."""
        query = "SELECT place, pseudonym, sealed FROM opening JOIN subject ON subject.id = subject WHERE idx = ?"
        opened: dict[int, tuple[bytes, bytes]] = {}
        with self._guard, self._write() as database:
            for place, name, sealed in database.execute(query, (index,)).fetchall():
                _, key = self._subject(database, name)
                plain = key.decrypt(sealed[:_NONCE], sealed[_NONCE:], _opening_context(index, place))
                opened[place] = (plain[:KEY_SIZE], plain[KEY_SIZE:])
        return opened

    def erase(self, pseudonyms: Sequence[bytes]) -> int:
        """Destroy keys, look-up rows and openings of these pseudonyms; return how many there were.

        On return no copy is left in the database or its write-ahead log (secure_delete, then a truncating checkpoint).
        Copies that an operator made of the file are the operator's to destroy.
        """
        erased = 0
        with self._write() as database:
            for name in pseudonyms:
                row = database.execute("SELECT id FROM subject WHERE pseudonym = ?", (name,)).fetchone()
                if row is not None:
                    database.execute("DELETE FROM opening WHERE subject = ?", row)
                    database.execute("DELETE FROM subject WHERE id = ?", row)
                    erased += 1
            self._known.clear()
        with self._guard:
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return erased

    def close(self) -> None:
        """Close the database."""
        with self._guard:
            self._database.close()

    def _wrapped(self, key: bytes, context: bytes) -> bytes:
        nonce = self._random(_NONCE)
        return nonce + self._wrap.encrypt(nonce, key, context)

    def _unwrapped(self, wrapped: bytes, context: bytes) -> bytes:
        return self._wrap.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], context)


def read_key_encryption_key(path: Path) -> bytes:
    """The file's content: 32 random bytes, nothing else. ConfigurationError otherwise."""
    try:
        key = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", where=str(path),
                                 fix="Name the key-encryption key's file.") from None  # fmt: skip
    if len(key) != KEY_SIZE:
        raise ConfigurationError(f"has {len(key)} bytes", where=str(path),
                                 fix="A key-encryption key is a file of 32 random bytes.")  # fmt: skip
    return key


def _period_context(name: str) -> bytes:
    return b"customhouse/period-key/v1\n" + name.encode()


def _subject_context(name: bytes) -> bytes:
    return b"customhouse/subject-key/v1\n" + name


def _opening_context(index: int, place: int) -> bytes:
    return b"customhouse/opening/v1\n" + index.to_bytes(8, "big") + place.to_bytes(4, "big")
