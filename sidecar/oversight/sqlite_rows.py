"""Rows of the log's SQLite database as the types of `storage`, and the SELECTs that read them."""

import sqlite3
from collections.abc import Iterable
from typing import Any

from sidecar.oversight.storage import (
    BatchEvidence,
    Discovery,
    Gap,
    Head,
    Link,
    PublishedCheckpoint,
    Run,
    Sealed,
    Statement,
    Stored,
)

Row = tuple[Any, ...]
"""SQLite is typed at run time; the tables are STRICT, so columns hold what the schema says."""

STORED = (
    "SELECT leaf.idx, leaf.stream, leaf.leaf, body.salt, body.body FROM leaf JOIN body USING (idx)"
    " WHERE {where} ORDER BY leaf.idx"
)
HEADS = (
    "SELECT stream, producer, slot, epoch, attested, last_seq, last_digest, opened, opened_prev, link_epoch, link_seq,"
    " closed, received FROM head JOIN stream ON stream.id = head.stream"
)
RUNS = "SELECT stream, branch, first_seq, count, first_idx, digest FROM run"
RUNS_FROM = (
    f"{RUNS} WHERE stream = ?1 AND branch = ?2 AND first_seq >= coalesce((SELECT max(first_seq) FROM run"
    " WHERE stream = ?1 AND branch = ?2 AND first_seq <= ?3), 0) AND first_seq + count > ?3 ORDER BY first_seq"
)
GAPS = "SELECT stream, first_seq, last_seq, after, before, since FROM gap"
DISCOVERIES = "SELECT kind, stream, seq, idx, detail, since FROM discovery"
SEALED = (
    "SELECT sealed.idx, leaf.stream, leaf.leaf, body.body, sealed.nonce, sealed.sealed FROM sealed"
    " JOIN leaf USING (idx) JOIN body USING (idx) WHERE sealed.idx >= ? ORDER BY sealed.idx LIMIT ?"
)


def number(rows: list[Row]) -> int:
    """The one number in the one row."""
    return int(rows[0][0])


def row_id(cursor: sqlite3.Cursor) -> int:
    """The id of the row just inserted."""
    if cursor.lastrowid is None:
        raise sqlite3.InternalError("no row was inserted")
    return cursor.lastrowid


def blobs(rows: Iterable[Row]) -> list[bytes]:
    """The first column."""
    return [row[0] for row in rows]


def stored(rows: Iterable[Row]) -> list[Stored]:
    """Rows of STORED."""
    return [Stored(index=row[0], stream=row[1], leaf=row[2], salt=row[3], body=row[4]) for row in rows]


def heads(rows: Iterable[Row]) -> list[Head]:
    """Rows of HEADS."""
    return [
        Head(
            stream=row[0], producer=row[1], slot=row[2], epoch=row[3], attested=bool(row[4]), last_seq=row[5],
            last_digest=row[6], opened=bool(row[7]), opened_prev=row[8],
            link=None if row[9] is None else Link(epoch=row[9], last_seq=row[10]),
            closed=bool(row[11]), received=row[12],
        )
        for row in rows
    ]  # fmt: skip


def runs(rows: Iterable[Row]) -> list[Run]:
    """Rows of RUNS."""
    return [
        Run(stream=row[0], branch=row[1], first_seq=row[2], count=row[3], first_index=row[4], digest=row[5])
        for row in rows
    ]


def gaps(rows: Iterable[Row]) -> list[Gap]:
    """Rows of GAPS."""
    return [
        Gap(stream=row[0], first_seq=row[1], last_seq=row[2], after=row[3], before=row[4], since=row[5]) for row in rows
    ]


def discoveries(rows: Iterable[Row]) -> list[Discovery]:
    """Rows of DISCOVERIES."""
    return [
        Discovery(kind=row[0], stream=row[1], seq=row[2], index=row[3], detail=row[4], since=row[5]) for row in rows
    ]


def sealed(rows: Iterable[Row]) -> list[Sealed]:
    """Rows of SEALED."""
    return [Sealed(index=row[0], stream=row[1], leaf=row[2], body=row[3], nonce=row[4], sealed=row[5]) for row in rows]


def batches(rows: Iterable[Row]) -> list[BatchEvidence]:
    """Rows idx, header, signature."""
    return [BatchEvidence(first_index=row[0], header=row[1], signature=row[2]) for row in rows]


def statement(rows: list[Row]) -> Statement | None:
    """A row size, root, if there is one."""
    return Statement(size=rows[0][0], root=rows[0][1]) if rows else None


def checkpoints(rows: Iterable[Row]) -> list[PublishedCheckpoint]:
    """Rows size, note, at."""
    return [PublishedCheckpoint(size=row[0], note=row[1], at=row[2]) for row in rows]
