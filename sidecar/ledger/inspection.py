"""What operators ask of a ledger's database, beside a running process: status, a group's exposure, verification."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sidecar.ledger.book import Book, connect, locked
from sidecar.ledger.calendar import date_of, first_day
from sidecar.ledger.marks import Days, Marks, decode_days

Key = tuple[int, int, int]
"""Group, day, category."""
_STEP = 10_000


@contextmanager
def snapshot(path: Path) -> Iterator[Book]:
    """The ledger as it is at one moment, for reading. ConfigurationError, IntegrityError."""
    database = connect(path, write=False)
    try:
        database.execute("BEGIN")
        yield Book(path, database)
    finally:
        database.close()


def status(path: Path) -> dict[str, object]:
    """How the ledger is: JSON values only."""
    running = locked(path)
    with snapshot(path) as book:
        day = int(book.about("day"))
        rows = list(book.reservations())
        oldest = min((row[4] for row in rows), default=None)
        return {
            "running": running,
            "day": str(date_of(day)),
            "window_from": str(date_of(first_day(day))),
            "groups": len(book.groups()),
            "subjects": _count(book.database, "sighting"),
            "reservations": len(rows),
            "reserved_subjects": sum(len(row[-1]) for row in rows),
            "oldest_reservation": None if oldest is None else datetime.fromtimestamp(oldest, UTC).isoformat(timespec="seconds"),
            "bytes": sum(one.stat().st_size for one in _files(path)),
        }  # fmt: skip


def exposure(path: Path, group: str) -> dict[str, int] | None:
    """Category -> distinct subjects (devices for locations), those above 0; None for a group nobody has heard of."""
    with snapshot(path) as book:
        number = book.groups().get(group)
        if number is None:
            return None
        rows = book.database.execute(
            "SELECT mark.name, sum(subjects) FROM tally JOIN mark ON mark.id = category"
            " WHERE group_id = ? AND day >= ? GROUP BY category HAVING sum(subjects) > 0 ORDER BY mark.name",
            (number, first_day(int(book.about("day")))),
        )
        return dict(rows.fetchall())


def groups(path: Path) -> list[str]:
    """The groups, in order."""
    with snapshot(path) as book:
        return sorted(book.groups())


def verify(path: Path, advance: Callable[[int, int], None]) -> list[str]:
    """Count everything again; a line for each figure that differs. `advance(done, of)` is told how far it is."""
    with snapshot(path) as book:
        marks = Marks(book.marks())
        first = first_day(int(book.about("day")))
        reserved: dict[tuple[int, bytes], Days] = {}
        for *_, group, _made, day, subjects in book.reservations():
            for subject, held in subjects.items():
                if day >= first:
                    _lay_over(reserved.setdefault((group, subject), {}), dict.fromkeys(held, day))
        found: Counter[Key] = Counter()
        total = _count(book.database, "sighting")
        rows = book.database.execute("SELECT group_id, subject, days FROM sighting")
        for done, (group, subject, data) in enumerate(rows, start=1):
            days = {mark: day for mark, day in decode_days(data).items() if day >= first}
            _lay_over(days, reserved.pop((group, subject), {}))
            _add(found, group, days, marks)
            if done % _STEP == 0:
                advance(done, total)
        for (group, _), days in reserved.items():
            _add(found, group, days, marks)
        names = {number: name for name, number in book.groups().items()}
        told = Counter({
            (group, day, category): subjects for group, day, category, subjects in
            book.database.execute("SELECT group_id, day, category, subjects FROM tally WHERE day >= ? AND subjects <> 0", (first,))
        })  # fmt: skip
        return [
            f"{names.get(group, group)}, {marks.name(category)}, {date_of(day)}: {told[group, day, category]} counted, "
            f"{found[group, day, category]} there"
            for group, day, category in sorted(told.keys() | found.keys())
            if told[group, day, category] != found[group, day, category]
        ]


def _lay_over(days: Days, more: Days) -> None:
    for mark, day in more.items():
        days[mark] = max(day, days.get(mark, 0))


def _add(found: Counter[Key], group: int, days: Days, marks: Marks) -> None:
    for category, day in marks.days(days).items():
        found[group, day, marks.number(category)] += 1


def _count(database: sqlite3.Connection, table: str) -> int:
    count: int = database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - a constant of ours
    return count


def _files(path: Path) -> list[Path]:
    return [one for one in (path, path.with_name(path.name + "-wal")) if one.exists()]
