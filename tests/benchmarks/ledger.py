"""The rolling ledger: disk for ten million sightings, a reservation's time, and many at once.

`python -m tests.benchmarks.ledger [--entries N] [--data DIR]`. Subjects come in random order, as pseudonyms do, so that the
pages of the database are as full as they are in use. Figures are of this machine, and mostly of its disk.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from rich.console import Console

from sidecar.ledger import book
from sidecar.ledger.calendar import day_of
from sidecar.ledger.inspection import verify
from sidecar.ledger.items import Item, Seen, Settlement
from sidecar.ledger.marks import Marks, encode_days, names_of
from sidecar.ledger.rolling import Rolling
from sidecar.ledger.secret import Secret
from sidecar.ledger.writer import Writer
from tests.benchmarks import machine, rows
from tests.benchmarks.rows import Row, at_most

GROUP = "the rolling ledger"
ENTRIES = 10_000_000
_PARTY = "acme"
_SOURCE = "shop.v1.Orders"
_CHUNK = 500_000
_SEEN = (
    Seen(frozenset({"personal_health", "id_contact", "id_account_auth"}), (("d", 2), ("f", 1))),
    Seen(frozenset({"personal_financial", "id_contact"}), (("d", 1),)),
    Seen(frozenset({"precise_geolocation", "id_device"}), (("c", 1),)),
)
_SECRET = Secret(bytes(32))

Say = Callable[[str], None]


def fill(path: Path, entries: int, now: float, say: Say) -> None:
    """A ledger that has seen so many people of one group, some of them on two days."""
    today = day_of(now)
    book.create(path, _SECRET, today)
    database = book.connect(path, write=True)
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA cache_size = -1048576")  # only to fill it in less time
    kept, chance, began = book.Book(path, database), random.Random(7), time.monotonic()
    with kept.transaction():
        marks = Marks({})
        held = [sorted(marks.numbers(names_of(one, _SOURCE))) for one in _SEEN]
        group = kept.add_group(_PARTY)
        tally: dict[tuple[int, str], int] = {}
        encoded: dict[tuple[int, int, int], bytes] = {}
        for at in range(0, entries, _CHUNK):
            chunk = []
            for number in range(at, min(at + _CHUNK, entries)):
                kind, first, again = chance.randrange(3), today - chance.randrange(360), chance.randrange(5)
                days = dict.fromkeys(held[kind], first)
                if not again:
                    days[held[kind][0]] = today
                key = (kind, first, again == 0)
                if key not in encoded:
                    encoded[key] = encode_days(days)
                for category, day in marks.days(days).items():
                    tally[day, category] = tally.get((day, category), 0) + 1
                chunk.append((group, _SECRET.subject("person", str(number)), encoded[key]))
            chunk.sort()
            database.executemany("INSERT INTO sighting VALUES (?, ?, ?)", chunk)
            say(f"{at + len(chunk):,} of {entries:,} sightings, {time.monotonic() - began:.0f} s")
        database.executemany(
            "INSERT INTO tally VALUES (?, ?, ?, ?)",
            [(group, day, marks.number(category), subjects) for (day, category), subjects in tally.items()],
        )
        kept.add_marks(marks.added)
    database.close()


class _Running:
    """The rules behind their writer, over a database that is there."""

    def __init__(self, path: Path) -> None:
        self.database, self._beside = book.connect(path, write=True), book.connect(path, write=True)
        kept = book.Book(path, self.database)
        self.writer = Writer(
            lambda: Rolling(kept, _SECRET, time.time()), kept.transaction,
            lambda: self._beside.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall(), time.time, _raise,
        )  # fmt: skip

    async def reserve(self, call: str, who: int) -> None:
        items = [Item("person", str(who), _SEEN[who % 3])]
        await self.writer.run(lambda rules, now: rules.reserve("bench", call, 1, _PARTY, _SOURCE, items, now))

    async def settle(self, call: str, who: int) -> None:
        settlement = Settlement(
            call, groups=(_PARTY,), source=_SOURCE, items=[Item("person", str(who), _SEEN[who % 3])],
            released_at=time.time(),
        )  # fmt: skip
        await self.writer.run(lambda rules, now: rules.settle("bench", settlement, now))

    def close(self) -> None:
        self.writer.close()
        self.database.close()
        self._beside.close()


def _raise(error: Exception) -> None:
    raise error


async def _one_by_one(
    ledger: _Running, calls: Iterator[int], people: int, number: int
) -> tuple[list[float], list[float]]:
    chance = random.Random(8)
    reserved, settled = [], []
    for call in (next(calls) for _ in range(number)):
        who = chance.randrange(people * 11 // 10)  # a tenth of them are seen for the first time
        began = time.perf_counter()
        await ledger.reserve(f"call-{call}", who)
        between = time.perf_counter()
        await ledger.settle(f"call-{call}", who)
        reserved.append((between - began) * 1e3)
        settled.append((time.perf_counter() - between) * 1e3)
    return reserved, settled


async def _together(ledger: _Running, calls: Iterator[int], people: int, number: int, workers: int) -> float:
    chance = random.Random(9)
    left = iter(range(number))

    async def work() -> None:
        for _ in left:
            call, who = next(calls), chance.randrange(people * 11 // 10)
            await ledger.reserve(f"call-{call}", who)
            await ledger.settle(f"call-{call}", who)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(workers)))
    return number / (time.perf_counter() - began)


def _at(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def measure(folder: Path, say: Say, entries: int = ENTRIES, calls: int = 2_000) -> list[Row]:
    """Fill a ledger, measure it, and count everything again."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "ledger.sqlite"
    fill(path, entries, time.time(), say)
    size = path.stat().st_size / 1e6
    ledger, numbers = _Running(path), count()
    try:
        say("one reservation after another")
        asyncio.run(_one_by_one(ledger, numbers, entries, calls // 4))
        reserved, settled = asyncio.run(_one_by_one(ledger, numbers, entries, calls))
        say("64 at once")
        rate = asyncio.run(_together(ledger, numbers, entries, calls * 5, 64))
    finally:
        ledger.close()
    say("counting everything again")
    wrong = verify(path, lambda _done, _of: None)
    if wrong:
        raise AssertionError(f"{len(wrong)} figures differ, such as {wrong[0]}")
    most = 600.0 * entries / ENTRIES
    names = ("p50", 0.5), ("p99", 0.99)
    return [
        Row(group=GROUP, what=f"disk for {entries:,} sightings", figure=size, unit="MB", target=f"≤ {most:g} MB",
            reached=at_most(size, most)),
        *(Row(group=GROUP, what=f"a reservation, durable, {name}", figure=_at(reserved, share), unit="ms",
              target="≤ 1 ms" if name == "p50" else "", reached=at_most(_at(reserved, share), 1.0) if name == "p50" else None)
          for name, share in names),
        *(Row(group=GROUP, what=f"a settlement, durable, {name}", figure=_at(settled, share), unit="ms")
          for name, share in names),
        Row(group=GROUP, what="calls a second (reserved and settled), 64 at once", figure=rate, unit="/s"),
    ]  # fmt: skip


def main() -> int:
    """Measure and show."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.ledger", description=__doc__)
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument("--data", type=Path, metavar="DIR", help="where to work: on the disk that is to be measured")
    options = parser.parse_args()
    progress = Console(stderr=True)
    folder = Path(tempfile.mkdtemp(prefix="chbench-", dir=options.data))
    try:
        found = measure(
            folder, lambda text: progress.print(text, style="dim", markup=False, highlight=False), options.entries
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows.show(Console(), found, machine.facts())
    return 0


if __name__ == "__main__":
    sys.exit(main())
