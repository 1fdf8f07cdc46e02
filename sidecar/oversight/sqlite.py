"""`storage.Storage` on one SQLite database: WAL, synchronous=FULL, one process, one writer at a time.

* A commit returns after fsync of the write-ahead log. Batches are grouped into one commit (`committer`), because the
  fsync, not the rows, is what a commit costs.
* One process per database: a lock file is held for as long as it is open, so a lease that is found at start belongs to
  a process that is gone, and the next one need not wait for it to run out.
* After an error that is not "full" or "busy" the object refuses to write: what a failed fsync left behind is known
  only to a new process that reads it back.
"""

import fcntl
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from sidecar.errors import ConfigurationError
from sidecar.oversight import schema, sqlite_rows
from sidecar.oversight.sqlite_transaction import SqliteTransaction
from sidecar.oversight.storage import (
    BatchEvidence,
    Discovery,
    Gap,
    Head,
    LeaseLostError,
    PublishedCheckpoint,
    Run,
    Sealed,
    Statement,
    StorageBrokenError,
    StorageError,
    StorageFullError,
    Stored,
    StreamId,
    Token,
    TwoRootsError,
)

_PRAGMAS = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA secure_delete = ON;
PRAGMA busy_timeout = 10000;
PRAGMA wal_autocheckpoint = 4096;
PRAGMA journal_size_limit = 67108864;
PRAGMA cache_size = -16384;
"""
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode. Read-only ones cannot write even by mistake. Raises sqlite3.Error."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        if read_only:
            database.executescript("PRAGMA busy_timeout = 10000; PRAGMA query_only = ON; PRAGMA cache_size = -4096;")
        else:
            database.executescript(_PRAGMAS)
    except sqlite3.Error:
        database.close()
        raise
    return database


def translate(error: sqlite3.Error, where: Path) -> StorageError:
    """What an error of SQLite means to a caller of the port."""
    code = getattr(error, "sqlite_errorcode", None)
    if code in _FULL:
        return StorageFullError(f"{where}: no space left ({error})")
    if code is not None and code & 0xFF in _PASSING:
        return StorageError(f"{where}: {error}")
    return StorageBrokenError(f"{where}: {error}")


class SqliteStorage:
    """The log's database in one file. See the module and `storage.Storage`."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raise ConfigurationError if another process has it or it is not such a database."""
        self._path = path
        self._lock_file = _lock(path)
        self._writing = threading.RLock()
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._broken = ""
        try:
            self._writer = _opened(path)
        except ConfigurationError:
            self._lock_file.close()
            raise

    # Writing

    @contextmanager
    def transaction(self) -> Iterator[SqliteTransaction]:
        """See `storage.Storage`."""
        with self._write() as database:
            yield SqliteTransaction(database)

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._writing:
            if self._broken:
                raise StorageBrokenError(self._broken)
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                    self._writer.execute("COMMIT")
                except BaseException:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                failure = translate(error, self._path)
                if isinstance(failure, StorageBrokenError) and not isinstance(error, sqlite3.IntegrityError):
                    self._broken = str(failure)
                raise failure from error

    def discover(self, discoveries: Sequence[Discovery]) -> None:
        """See `storage.Storage`."""
        with self._write() as database:
            transaction = SqliteTransaction(database)
            for discovery in discoveries:
                transaction.discover(discovery)

    def add_epoch_key(self, producer: str, slot: int, epoch: str, sealed: bytes) -> None:
        """See `storage.Storage`."""
        if sealed in self.epoch_keys(producer, slot, epoch):
            return
        with self._write() as database:
            database.execute(
                "INSERT INTO epoch_key (producer, slot, epoch, sealed) SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS"
                " (SELECT 1 FROM epoch_key WHERE (producer, slot, epoch, sealed) = (?1, ?2, ?3, ?4))",
                (producer, slot, epoch, sealed),
            )

    def drop_sealed(self, end: int) -> None:
        """See `storage.Storage`."""
        with self._write() as database:
            database.execute("DELETE FROM sealed WHERE idx < ?", (end,))

    def acquire(self, lease: str, holder: str, *, now: float, ttl: float) -> Token | None:
        """See `storage.Storage`."""
        with self._write() as database:
            row = database.execute("SELECT holder, token, expires FROM lease WHERE name = ?", (lease,)).fetchone()
            if row is not None and row[0] != holder and row[2] > now:
                return None
            token = 1 if row is None else row[1] + (row[0] != holder)
            database.execute("REPLACE INTO lease VALUES (?, ?, ?, ?)", (lease, holder, token, now + ttl))
            return Token(token)

    def sign(self, statement: Statement, token: Token) -> None:
        """See `storage.Storage`."""
        with self._write() as database:
            _check_token(database, token)
            last = self._signed(database)
            if last == statement:
                return
            if last is not None and statement.size <= last.size:
                raise TwoRootsError(
                    f"size {statement.size}, root {statement.root.hex()},"
                    f" after size {last.size}, root {last.root.hex()}"
                )
            database.execute("INSERT INTO signed VALUES (?, ?, ?)", (statement.size, statement.root, token))

    def publish(self, checkpoint: PublishedCheckpoint, token: Token) -> None:
        """See `storage.Storage`."""
        with self._write() as database:
            _check_token(database, token)
            database.execute(
                "INSERT INTO checkpoint SELECT ?1, ?2, ?3 WHERE NOT EXISTS (SELECT 1 FROM checkpoint WHERE size = ?1)",
                (checkpoint.size, checkpoint.note, checkpoint.at),
            )

    # Reading

    def _read(self, sql: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        database: sqlite3.Connection | None = getattr(self._local, "reader", None)
        try:
            if database is None:
                database = self._local.reader = connect(self._path, read_only=True)
                self._readers.append(database)
            return database.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise translate(error, self._path) from error

    def size(self) -> int:
        """See `storage.Storage`."""
        return sqlite_rows.number(self._read("SELECT coalesce(max(idx) + 1, 0) FROM leaf"))

    def leaves(self, first: int, count: int) -> list[bytes]:
        """See `storage.Storage`."""
        rows = self._read("SELECT leaf FROM leaf WHERE idx >= ? AND idx < ? ORDER BY idx", (first, first + count))
        return sqlite_rows.blobs(rows)

    def records(self, indices: Sequence[int]) -> list[Stored]:
        """See `storage.Storage`."""
        wanted = "[" + ",".join(map(str, indices)) + "]"
        where = "idx IN (SELECT value FROM json_each(?))"
        return sqlite_rows.stored(self._read(sqlite_rows.STORED.format(where=where), (wanted,)))

    def record_range(self, first: int, count: int) -> list[Stored]:
        """See `storage.Storage`."""
        where = "leaf.idx >= ? AND leaf.idx < ?"
        return sqlite_rows.stored(self._read(sqlite_rows.STORED.format(where=where), (first, first + count)))

    def heads(self) -> dict[StreamId, Head]:
        """See `storage.Storage`."""
        return {head.stream: head for head in sqlite_rows.heads(self._read(sqlite_rows.HEADS))}

    def head_of(self, producer: str, slot: int, epoch: str) -> Head | None:
        """See `storage.Storage`."""
        rows = self._read(f"{sqlite_rows.HEADS} WHERE (producer, slot, epoch) = (?, ?, ?)", (producer, slot, epoch))
        return next(iter(sqlite_rows.heads(rows)), None)

    def runs_by_index(self, first: int, end: int) -> list[Run]:
        """See `storage.Storage`."""
        return sqlite_rows.runs(
            self._read(
                f"{sqlite_rows.RUNS} WHERE first_idx < ?2 AND first_idx >= coalesce("
                "(SELECT max(first_idx) FROM run WHERE first_idx <= ?1), 0) AND first_idx + count > ?1"
                " ORDER BY first_idx",
                (first, end),
            )
        )

    def runs_from(self, stream: StreamId, seq: int, limit: int) -> list[Run]:
        """See `storage.Storage`."""
        return sqlite_rows.runs(self._read(sqlite_rows.RUNS_FROM + " LIMIT ?4", (stream, 0, seq, limit)))

    def gaps(self) -> list[Gap]:
        """See `storage.Storage`."""
        return sqlite_rows.gaps(self._read(f"{sqlite_rows.GAPS} ORDER BY stream, first_seq"))

    def discoveries(self) -> list[Discovery]:
        """See `storage.Storage`."""
        return sqlite_rows.discoveries(self._read(f"{sqlite_rows.DISCOVERIES} ORDER BY id"))

    def batches(self, first: int, end: int) -> list[BatchEvidence]:
        """See `storage.Storage`."""
        query = "SELECT idx, header, signature FROM batch WHERE idx >= ? AND idx < ? ORDER BY idx"
        return sqlite_rows.batches(self._read(query, (first, end)))

    def epoch_keys(self, producer: str, slot: int, epoch: str) -> list[bytes]:
        """See `storage.Storage`."""
        where = "WHERE (producer, slot, epoch) = (?, ?, ?) ORDER BY id"
        return sqlite_rows.blobs(self._read(f"SELECT sealed FROM epoch_key {where}", (producer, slot, epoch)))

    def sealed_from(self, index: int, limit: int) -> list[Sealed]:
        """See `storage.Storage`."""
        return sqlite_rows.sealed(self._read(sqlite_rows.SEALED, (index, limit)))

    def signed(self) -> Statement | None:
        """See `storage.Storage`."""
        rows = self._read("SELECT size, root FROM signed ORDER BY size DESC LIMIT 1")
        return sqlite_rows.statement(rows)

    @staticmethod
    def _signed(database: sqlite3.Connection) -> Statement | None:
        return sqlite_rows.statement(
            database.execute("SELECT size, root FROM signed ORDER BY size DESC LIMIT 1").fetchall()
        )

    def published(self) -> PublishedCheckpoint | None:
        """See `storage.Storage`."""
        rows = self._read("SELECT size, note, at FROM checkpoint ORDER BY size DESC LIMIT 1")
        return next(iter(sqlite_rows.checkpoints(rows)), None)

    def history(self, after: int, limit: int) -> list[PublishedCheckpoint]:
        """See `storage.Storage`."""
        rows = self._read("SELECT size, note, at FROM checkpoint WHERE size > ? ORDER BY size LIMIT ?", (after, limit))
        return sqlite_rows.checkpoints(rows)

    def close(self) -> None:
        """See `storage.Storage`."""
        with self._writing:
            self._broken = self._broken or f"{self._path}: closed"
            for reader in self._readers:
                reader.close()
            self._writer.close()
            self._lock_file.close()


def _lock(path: Path) -> IO[bytes]:
    """Take the lock of the one process that may write. The kernel drops it when that process ends, however it does."""
    where = path.with_name(path.name + ".lock")
    try:
        file = where.open("ab")
    except OSError as error:
        raise ConfigurationError(f"cannot be created: {error.strerror}", where=str(where),
                                 fix="Create the folder and let the store's user write there.") from None  # fmt: skip
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ConfigurationError("another process is using this database", where=str(path),
                                 fix="Stop the other store: one process serves one SQLite log.") from None  # fmt: skip
    return file


def _opened(path: Path) -> sqlite3.Connection:
    database: sqlite3.Connection | None = None
    try:
        database = connect(path)
        _create(database, path)
    except (sqlite3.Error, ConfigurationError) as error:
        if database is not None:
            database.close()
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"cannot be opened: {error}", where=str(path),
                                 fix="Name a new file, or restore the database.") from None  # fmt: skip
    return database


def _create(database: sqlite3.Connection, path: Path) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version == 0:
        # A crash inside leaves version 0 and no tables: the script is one transaction.
        database.executescript(f"BEGIN IMMEDIATE;\n{schema.statements()}\nCOMMIT;")
    elif version != schema.VERSION:
        raise ConfigurationError("is of another version", where=str(path), value=version,
                                 fix=f"This program reads version {schema.VERSION}.")  # fmt: skip
    # The lock is ours, so whoever held a lease is gone: let the next holder have it at once, with a larger token.
    database.execute("UPDATE lease SET expires = 0")


def _check_token(database: sqlite3.Connection, token: Token) -> None:
    row = database.execute("SELECT max(token) FROM lease WHERE name = 'integrate'").fetchone()
    if row[0] != token:
        raise LeaseLostError(f"token {token} was replaced by {row[0]}")
