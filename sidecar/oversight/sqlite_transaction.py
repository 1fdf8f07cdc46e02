"""`storage.Transaction` on an SQLite connection that has begun a transaction."""

import sqlite3
from collections.abc import Sequence

from sidecar.oversight import sqlite_rows
from sidecar.oversight.storage import BatchEvidence, Discovery, Gap, Head, Item, Run, StreamId


class SqliteTransaction:
    """See `storage.Transaction`. SQLite locks the whole database, so a head is locked by being in a transaction."""

    __slots__ = ("_database", "_next")

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._next: int | None = None

    def head(self, producer: str, slot: int, epoch: str, *, attested: bool) -> Head:
        """See `storage.Transaction`."""
        query = f"{sqlite_rows.HEADS} WHERE (producer, slot, epoch) = (?, ?, ?)"
        found = sqlite_rows.heads(self._database.execute(query, (producer, slot, epoch)).fetchall())
        if found:
            return found[0]
        added = self._database.execute(
            "INSERT INTO stream (producer, slot, epoch, attested) VALUES (?, ?, ?, ?)",
            (producer, slot, epoch, attested),
        )
        stream = StreamId(sqlite_rows.row_id(added))
        return Head(stream=stream, producer=producer, slot=slot, epoch=epoch, attested=attested)

    def save(self, head: Head) -> None:
        """See `storage.Transaction`."""
        link = (None, None) if head.link is None else (head.link.epoch, head.link.last_seq)
        self._database.execute(
            "REPLACE INTO head VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (head.stream, head.last_seq, head.last_digest, head.opened, head.opened_prev, *link, head.closed,
             head.received),
        )  # fmt: skip

    def next_index(self) -> int:
        """See `storage.Transaction`."""
        if self._next is None:
            rows = self._database.execute("SELECT coalesce(max(idx) + 1, 0) FROM leaf").fetchall()
            self._next = sqlite_rows.number(rows)
        return self._next

    def insert(self, run: Run, items: Sequence[Item]) -> None:
        """See `storage.Transaction`."""
        numbered = list(enumerate(items, start=run.first_index))
        stream = run.stream
        insert = self._database.executemany
        insert("INSERT INTO leaf VALUES (?, ?, ?)", [(index, stream, item.leaf) for index, item in numbered])
        insert("INSERT INTO body VALUES (?, ?, ?)", [(index, item.salt, item.body) for index, item in numbered])
        insert(
            "INSERT INTO sealed VALUES (?, ?, ?)",
            [(index, item.nonce, item.sealed) for index, item in numbered if item.sealed],
        )
        self._database.execute(
            "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?)",
            (run.first_index, stream, run.branch, run.first_seq, run.count, run.digest),
        )
        self._next = run.first_index + run.count

    def insert_batch(self, evidence: BatchEvidence) -> None:
        """See `storage.Transaction`."""
        values = (evidence.first_index, evidence.header, evidence.signature)
        self._database.execute("INSERT INTO batch VALUES (?, ?, ?)", values)

    def runs(self, stream: StreamId, branch: int, first_seq: int, last_seq: int) -> list[Run]:
        """See `storage.Transaction`."""
        if branch == 0:
            values = (stream, branch, first_seq, last_seq)
            query = sqlite_rows.RUNS_FROM.replace("ORDER BY", "AND first_seq <= ?4 ORDER BY")
        else:
            # Runs of equivocations may overlap, so the one before `first_seq` is not enough. There are few.
            values = (stream, branch, first_seq, last_seq)
            query = (
                f"{sqlite_rows.RUNS} WHERE stream = ?1 AND branch = ?2 AND first_seq <= ?4"
                " AND first_seq + count > ?3 ORDER BY first_seq, first_idx"
            )
        return sqlite_rows.runs(self._database.execute(query, values).fetchall())

    def leaves(self, first: int, count: int) -> list[bytes]:
        """See `storage.Transaction`."""
        query = "SELECT leaf FROM leaf WHERE idx >= ? AND idx < ? ORDER BY idx"
        return sqlite_rows.blobs(self._database.execute(query, (first, first + count)).fetchall())

    def gaps(self, stream: StreamId, first_seq: int, last_seq: int) -> list[Gap]:
        """See `storage.Transaction`."""
        query = f"{sqlite_rows.GAPS} WHERE stream = ? AND first_seq <= ? AND last_seq >= ? ORDER BY first_seq"
        return sqlite_rows.gaps(self._database.execute(query, (stream, last_seq, first_seq)).fetchall())

    def open_gap(self, gap: Gap) -> None:
        """See `storage.Transaction`."""
        values = (gap.stream, gap.first_seq, gap.last_seq, gap.after, gap.before, gap.since)
        self._database.execute("INSERT INTO gap VALUES (?, ?, ?, ?, ?, ?)", values)

    def close_gap(self, gap: Gap) -> None:
        """See `storage.Transaction`."""
        self._database.execute("DELETE FROM gap WHERE stream = ? AND first_seq = ?", (gap.stream, gap.first_seq))

    def discover(self, discovery: Discovery) -> None:
        """See `storage.Transaction`."""
        self._database.execute(
            "INSERT INTO discovery (kind, stream, seq, idx, detail, since) SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE NOT"
            " EXISTS (SELECT 1 FROM discovery WHERE (kind, idx, detail) = (?1, ?4, ?5))",
            (discovery.kind, discovery.stream, discovery.seq, discovery.index, discovery.detail, discovery.since),
        )
