"""Finds records: a database of its own, derived from the log, so it can be thrown away and built again.

It is filled after the commit, in the order of indices; `SearchIndex.cursor` says how far. Results come in the order of
indices, newest last, because an index is a fact and a time is a claim.

==========  ==========================================================================================================
table       one row is
==========  ==========================================================================================================
``entry``   a record: ``idx``, claimed ``time`` (microseconds since 1970) and its terms as numbers of ``word``
``tag``     a reason, category or `seen` of a record
``word``    a text, its number and in how many records it is; ``kind``: person, service, producer, type, effect, reason,
            category, seen
``block``   lowest and highest time of 1024 consecutive records: narrows a time range without an index over times
``cursor``  records below ``idx`` are in here
==========  ==========================================================================================================
"""

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from sqlite3 import Connection
from sqlite3 import Error as SqliteError
from typing import Any

from sidecar.errors import ConfigurationError
from sidecar.oversight.extract import Terms, microseconds, terms_of
from sidecar.oversight.sqlite import connect, translate
from sidecar.oversight.storage import Discovery, Storage

BLOCK = 1024
_KNOWN_WORDS = 200_000
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{32}", re.ASCII)
_TABLES = """
PRAGMA synchronous = NORMAL;
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS entry (idx INTEGER PRIMARY KEY, time INTEGER NOT NULL, producer INTEGER NOT NULL,
    type INTEGER NOT NULL, effect INTEGER, service INTEGER, person INTEGER, trace BLOB, call BLOB) STRICT;
CREATE INDEX IF NOT EXISTS by_producer ON entry (producer);
CREATE INDEX IF NOT EXISTS by_type ON entry (type);
CREATE INDEX IF NOT EXISTS by_effect ON entry (effect) WHERE effect IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_service ON entry (service) WHERE service IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_person ON entry (person) WHERE person IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_trace ON entry (trace) WHERE trace IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_call ON entry (call) WHERE call IS NOT NULL;
CREATE TABLE IF NOT EXISTS tag (word INTEGER NOT NULL, idx INTEGER NOT NULL, PRIMARY KEY (word, idx))
    STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS word (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, text TEXT NOT NULL,
    uses INTEGER NOT NULL, UNIQUE (kind, text)) STRICT;
CREATE TABLE IF NOT EXISTS block (no INTEGER PRIMARY KEY, low INTEGER NOT NULL, high INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS cursor (only INTEGER PRIMARY KEY CHECK (only = 1), idx INTEGER NOT NULL) STRICT;
INSERT OR IGNORE INTO cursor VALUES (1, 0);
COMMIT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Every field that is not None must match. `since` is inclusive, `until` exclusive; `after` an index (-1: none)."""

    person: str | None = None
    reason: str | None = None
    effect: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    trace: str | None = None
    producer: str | None = None
    call_id: str | None = None
    type: str | None = None
    service: str | None = None
    category: str | None = None
    seen: str | None = None
    after: int = -1
    limit: int = 100


class SearchIndex:
    """The derived database. One thread fills it; any thread may search."""

    def __init__(self, path: Path, storage: Storage, timestamp: Callable[[], str]) -> None:
        """Open or create. Raises ConfigurationError."""
        self._path, self._storage, self._timestamp = path, storage, timestamp
        self._local = threading.local()
        self._readers: list[Connection] = []
        self._words: dict[tuple[str, str], int] = {}
        try:
            self._database = connect(path)
            self._database.executescript(_TABLES)
        except SqliteError as error:
            raise ConfigurationError(f"cannot be opened: {error}", where=str(path),
                                     fix="Remove the file: it is built again from the log.") from None  # fmt: skip
        self.cursor: int = self._database.execute("SELECT idx FROM cursor").fetchone()[0]
        if self.cursor > storage.size():
            raise ConfigurationError("knows more records than the log", where=str(path), value=self.cursor,
                                     fix="Remove the file: it is built again from the log.")  # fmt: skip

    # Filling

    def step(self, limit: int = 1024) -> int:
        """Take in up to `limit` records; return how many. A crash repeats the step: the rows replace themselves."""
        records = self._storage.record_range(self.cursor, limit)
        if not records:
            return 0
        terms = [terms_of(record) for record in records]
        problems = [
            Discovery(kind=one.problem[0], stream=record.stream, seq=one.leaf.seq, index=one.index,
                      detail=one.problem[1], since=self._timestamp())
            for one, record in zip(terms, records, strict=True) if one.problem is not None
        ]  # fmt: skip
        if problems:
            # Before the cursor moves, or a crash could lose them.
            self._storage.discover(problems)
        end = records[-1].index + 1
        with self._write() as database:
            entries = [self._entry(database, one) for one in terms]
            tags = sorted(self._tags(database, terms))
            database.executemany("REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", entries)
            database.executemany("REPLACE INTO tag VALUES (?, ?)", tags)
            uses = Counter(word for entry in entries for word in entry[2:7] if word is not None)
            uses.update(word for word, _ in tags)
            database.executemany("UPDATE word SET uses = uses + ?2 WHERE id = ?1", sorted(uses.items()))
            database.executemany(
                "INSERT INTO block VALUES (?1, ?2, ?2) ON CONFLICT (no) DO UPDATE SET"
                " low = min(low, ?2), high = max(high, ?2)",
                sorted({(one.index // BLOCK, one.time) for one in terms}),
            )
            database.execute("UPDATE cursor SET idx = ?", (end,))
        self.cursor = end
        return len(records)

    def _entry(self, database: Connection, terms: Terms) -> tuple[object, ...]:
        def word(kind: str, text: str | None) -> int | None:
            return None if text is None else self._word(database, kind, text)

        return (
            terms.index, terms.time, word("producer", terms.leaf.producer), word("type", terms.leaf.type),
            word("effect", terms.effect), word("service", terms.service), word("person", terms.person),
            _id_bytes(terms.trace), _id_bytes(terms.leaf.call_id),
        )  # fmt: skip

    def _tags(self, database: Connection, terms: Sequence[Terms]) -> Iterator[tuple[int, int]]:
        for one in terms:
            for text in one.reasons:
                yield self._word(database, "reason", text), one.index
            for text in one.categories:
                yield self._word(database, "category", text), one.index
            if one.seen:
                yield self._word(database, "seen", one.seen), one.index

    def _word(self, database: Connection, kind: str, text: str) -> int:
        number = self._words.get((kind, text))
        if number is None:
            found = _find_word(database, kind, text)
            if found is None:
                added = database.execute("INSERT INTO word (kind, text, uses) VALUES (?, ?, 0)", (kind, text))
                found = added.lastrowid or 0
            if len(self._words) >= _KNOWN_WORDS:
                self._words.clear()
            number = self._words[kind, text] = found
        return number

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                # Numbers given to new words in here are not in the database after all.
                self._words.clear()
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
        except SqliteError as error:
            raise translate(error, self._path) from error

    # Searching

    def find(self, query: Query) -> list[int]:
        """Up to `limit` indices above `after`, ascending."""
        plan = self._plan(query)
        if plan is None:
            return []
        sql, values = plan
        return [row[0] for row in self._read(f"{sql} ORDER BY 1 LIMIT ?", (*values, query.limit))]

    def keep(self, query: Query, indices: Sequence[int]) -> list[int]:
        """Those of `indices` (ascending) that match the query, whatever its `after` and `limit`."""
        plan = self._plan(query)
        if plan is None or not indices:
            return []
        sql, values = plan
        wanted = "[" + ",".join(map(str, indices)) + "]"
        sql += " AND entry.idx IN (SELECT value FROM json_each(?)) ORDER BY 1"
        return [row[0] for row in self._read(sql, (*values, wanted))]

    def _plan(self, query: Query) -> tuple[str, list[object]] | None:
        """SELECT and its values; None when a word of the query is in no record.

        The term that is in the fewest records drives, by an index that yields ascending record indices; the others are
        looked up for each. `+column` keeps the planner from choosing another index.
        """
        bounds = self._bounds(query)
        if bounds is None:
            return None
        terms: list[_Term] = []
        for column, text in (("call", query.call_id), ("trace", query.trace)):
            if text is not None:
                terms.append(_Term(0, column, _id_bytes(text)))
        for kind in ("person", "reason", "category", "seen", "service", "effect", "type", "producer"):
            text = getattr(query, kind)
            if text is None:
                continue
            rows = self._read("SELECT uses, id FROM word WHERE kind = ? AND text = ?", (kind, text))
            if not rows:
                return None
            terms.append(_Term(rows[0][0], "tag" if kind in ("reason", "category", "seen") else kind, rows[0][1]))
        return _sql(query, sorted(terms, key=lambda term: term.uses), bounds)

    def _bounds(self, query: Query) -> tuple[int, int] | None:
        """First and last index worth looking at, from `after` and the blocks' times."""
        low, high = query.after + 1, 2**62
        if query.since is not None:
            rows = self._read("SELECT min(no) FROM block WHERE high >= ?", (microseconds(query.since),))
            if rows[0][0] is None:
                return None
            low = max(low, rows[0][0] * BLOCK)
        if query.until is not None:
            rows = self._read("SELECT max(no) FROM block WHERE low < ?", (microseconds(query.until),))
            if rows[0][0] is None:
                return None
            high = rows[0][0] * BLOCK + BLOCK - 1
        return low, high

    def _read(self, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        try:
            reader: Connection | None = getattr(self._local, "reader", None)
            if reader is None:
                reader = self._local.reader = connect(self._path, read_only=True)
                self._readers.append(reader)
            return reader.execute(sql, values).fetchall()
        except SqliteError as error:
            raise translate(error, self._path) from error

    def close(self) -> None:
        """Close the database."""
        for reader in self._readers:
            reader.close()
        self._database.close()


@dataclass(frozen=True, slots=True)
class _Term:
    """A condition: `column` of `entry`, or "tag". `uses`: in how many records it is true, roughly."""

    uses: int
    column: str
    value: object


def _sql(query: Query, terms: Sequence[_Term], bounds: tuple[int, int]) -> tuple[str, list[object]]:
    start, where = "SELECT entry.idx FROM entry", ["entry.idx BETWEEN ? AND ?"]
    if terms and terms[0].column == "tag":
        start, where = "SELECT entry.idx FROM tag CROSS JOIN entry USING (idx)", ["tag.idx BETWEEN ? AND ?"]
    values: list[object] = [*bounds]
    for place, term in enumerate(terms):
        if term.column != "tag":
            where.append(f"{term.column} = ?" if place == 0 else f"+{term.column} = ?")
        elif place == 0:
            where.append("tag.word = ?")
        else:
            where.append("EXISTS (SELECT 1 FROM tag AS other WHERE other.word = ? AND other.idx = entry.idx)")
        values.append(term.value)
    for sign, moment in ((">=", query.since), ("<", query.until)):
        if moment is not None:
            where.append(f"+time {sign} ?")
            values.append(microseconds(moment))
    return f"{start} WHERE {' AND '.join(where)}", values


def _find_word(database: Connection, kind: str, text: str) -> int | None:
    row = database.execute("SELECT id FROM word WHERE kind = ? AND text = ?", (kind, text)).fetchone()
    return None if row is None else int(row[0])


def _id_bytes(text: str | None) -> bytes | None:
    """A UUID or a 16-byte hex id in half its length, anything else as it is; the first byte keeps them apart."""
    if text is None:
        return None
    if _UUID.fullmatch(text):
        return b"u" + bytes.fromhex(text.replace("-", ""))
    return b"h" + bytes.fromhex(text) if _HEX.fullmatch(text) else b"t" + text.encode()
