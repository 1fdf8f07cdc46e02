"""The ledger by its definition: every sighting kept, everything counted again at each question. And what tests need to
drive it, the rules over a database, and the service, in the same words."""

import datetime as dt
from collections.abc import Mapping, Sequence

from sidecar.identifiers import computed
from sidecar.ledger.items import Item, LedgerError, RefusedError, Seen, Settlement
from sidecar.ledger.marks import sightings
from sidecar.ledger.secret import Secret

LETTERS = dict(
    zip(
        ("id_government", "id_financial_account", "id_device", "id_contact", "id_advertising", "id_account_auth",
         "id_network", "id_call_detail"),
        "abcdefgh",
        strict=True,
    )
)  # fmt: skip
DAY = 86_400.0
NOON = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC).timestamp()


def date(at: float) -> dt.date:
    return dt.datetime.fromtimestamp(at, dt.UTC).date()


def counts(day: dt.date, today: dt.date) -> bool:
    """Whether what was seen on `day` is within the 12 months before the end of `today`."""
    try:
        first = today.replace(year=today.year - 1)
    except ValueError:
        first = dt.date(today.year - 1, 2, 28)
    return first <= day <= today


def _content(source: str, items: Sequence[Item]) -> dict[bytes, frozenset[str]]:
    """What a reservation leaves, which is what makes it the same."""
    return sightings(items, source, Secret(bytes(32)))


class Simulator:
    """One process, no clock of its own: a test sets `now`. `down` makes every request fail; `lost` loses the answer."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now
        self.down = False
        self.reserved: dict[tuple[str, int], tuple[str, str, float, tuple[Item, ...]]] = {}
        self.released: list[tuple[str, str, float, Item]] = []
        self.settled: set[str] = set()
        self.asked: list[tuple[str, object]] = []

    async def reserve(
        self, call: str, sequence: int, group: str, source: str, items: Sequence[Item]
    ) -> Mapping[str, int]:
        self._ask("reserve", (call, sequence, group, source, tuple(items)))
        known = self.reserved.get((call, sequence))
        if known is None and call in self.settled:
            raise RefusedError("settled", "the call has been settled")
        if known is not None and (known[0], _content(known[1], known[3])) != (group, _content(source, items)):
            raise RefusedError("differs", "other content")
        self.reserved.setdefault((call, sequence), (group, source, self.now, tuple(items)))
        return self.exposure(group)

    async def peek(self, group: str) -> Mapping[str, int]:
        self._ask("peek", group)
        return self.exposure(group)

    async def settle(self, settlement: Settlement) -> None:
        self._ask("settle", settlement)
        at = min(max(settlement.released_at, self.now - DAY), self.now)
        for place in [one for one in self.reserved if one[0] == settlement.call]:
            if settlement.sequences and place[1] not in settlement.sequences:
                continue
            group, source, _, items = self.reserved.pop(place)
            if settlement.everything:
                self.released += [(group, source, at, one) for one in items]
        for group in settlement.groups:
            self.released += [(group, settlement.source, at, one) for one in settlement.items]
        if not settlement.sequences:
            self.settled.add(settlement.call)

    def lapse(self) -> None:
        for place, (group, source, made, items) in list(self.reserved.items()):
            if made < self.now - DAY:
                del self.reserved[place]
                self.released += [(group, source, self.now, one) for one in items]

    def exposure(self, group: str) -> dict[str, int]:
        today = date(self.now)
        found: dict[str, set[tuple[str, str]]] = {}
        for (kind, name), seen in self._held(group, today).items():
            categories: set[str] = set()
            letters: dict[str, int] = {}
            for source, each in seen.items():
                mine = dict.fromkeys((LETTERS[one] for one in each.categories if one in LETTERS), 1) | dict(each.listed)
                for letter, count in mine.items():
                    letters[letter] = letters.get(letter, 0) + min(count, 2)
                categories |= {one for one in each.categories if one not in LETTERS}
                del source
            counted = {one for one in categories if not one.endswith("/device")}
            counted |= {category for category, letter in LETTERS.items() if letter in letters}
            weighed = {one.removesuffix("/device") for one in categories}
            for category in counted.union(computed(weighed, letters.items())):
                found.setdefault(category, set()).add((kind, name))
        return {category: len(who) for category, who in found.items()}

    def _held(self, group: str, today: dt.date) -> dict[tuple[str, str], dict[str, Seen]]:
        rows = [row for row in self.released if row[0] == group]
        rows += [(group, source, made, one) for of, source, made, items in self.reserved.values() if of == group
                 for one in items]  # fmt: skip
        held: dict[tuple[str, str], dict[str, Seen]] = {}
        for _, source, at, item in rows:
            if not counts(date(at), today):
                continue
            seen = item.seen
            if item.devices and "precise_geolocation" in seen.categories:
                seen = Seen(seen.categories - {"precise_geolocation"} | {"precise_geolocation/device"}, seen.listed)
                for device in item.devices:
                    mine = held.setdefault(("device", device), {})
                    mine[source] = mine.get(source, Seen()) | Seen(frozenset({"precise_geolocation"}))
            mine = held.setdefault((item.kind, item.id), {})
            mine[source] = mine.get(source, Seen()) | seen
        return held

    def _ask(self, what: str, about: object) -> None:
        self.asked.append((what, about))
        if self.down:
            raise LedgerError("the ledger is down")
