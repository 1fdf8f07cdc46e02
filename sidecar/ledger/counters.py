"""How many subjects of a group stand in each category: kept by the day on which each falls out again.

A subject is counted once for a category, under the last day that makes it so. The window moves by leaving out days, so
nothing is ever scanned: a sighting costs a step per category, a new day one per category and day that leaves.
"""

import sqlite3
from collections import Counter


class Counters:
    """Counts by group, category and day. Loaded from the database by group, written to it with `flush`.

    What is moved before a `flush` that fails is not in the database: then this object is to be thrown away.
    """

    def __init__(self, database: sqlite3.Connection, first: int) -> None:
        """`first`: the first day that counts."""
        self._database, self._first = database, first
        self._by_day: dict[int, dict[int, Counter[int]]] = {}
        self._totals: dict[int, Counter[int]] = {}
        self._changed: Counter[tuple[int, int, int]] = Counter()

    def totals(self, group: int) -> dict[int, int]:
        """Category -> subjects, those above 0."""
        self._load(group)
        return {category: count for category, count in self._totals[group].items() if count}

    def move(self, group: int, category: int, before: int | None, after: int | None) -> None:
        """A subject that stood under the day `before` (None: not at all) now stands under `after`. Both count still."""
        self._load(group)
        for day, step in ((before, -1), (after, +1)):
            if day is not None:
                self._by_day[group].setdefault(category, Counter())[day] += step
                self._totals[group][category] += step
                self._changed[group, day, category] += step

    def begin_at(self, first: int) -> None:
        """The window begins later now: what is older counts no more."""
        self._first = first
        for group, categories in self._by_day.items():
            for category, days in categories.items():
                for day in [one for one in days if one < first]:
                    self._totals[group][category] -= days.pop(day)
        self.flush()
        self._database.execute("DELETE FROM tally WHERE day < ?", (first,))

    def flush(self) -> None:
        """Write what has changed, within the transaction that is open."""
        if self._changed:
            self._database.executemany(
                "INSERT INTO tally (group_id, day, category, subjects) VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET subjects = subjects + excluded.subjects",
                [(*key, step) for key, step in self._changed.items() if step],
            )
            self._changed.clear()

    def _load(self, group: int) -> None:
        if group in self._by_day:
            return
        by_day: dict[int, Counter[int]] = {}
        totals: Counter[int] = Counter()
        rows = self._database.execute(
            "SELECT category, day, subjects FROM tally WHERE group_id = ? AND day >= ?", (group, self._first)
        )
        for category, day, subjects in rows:
            by_day.setdefault(category, Counter())[day] = subjects
            totals[category] += subjects
        self._by_day[group], self._totals[group] = by_day, totals
