"""What is remembered of a data subject, and what it adds up to.

A *mark* is one thing a group has seen of somebody: a category, or the n-th listed identifier of a letter at one service.
For each mark the last day it was seen is kept, so that a sighting expires by itself while a later one stays. What a
subject counts as follows from the marks that are still live:

* a category counts while its own mark lives; `id_contact` and its like while any identifier of their letter does;
* `covered_personal_identifiers` and `combined` while the marks that live together make the subject so
  (`sidecar.identifiers`): across transactions and across services, since all these are of one group (232(b)(2));
* a location counts under its device where one is named, and under the person otherwise; for what is computed the
  person's location weighs the same either way.

Two identifiers of one letter shown by two services count as two, since no value is kept to compare; at one service
the most shown at once counts, up to two (more make no difference).
"""

import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sidecar.identifiers import computed
from sidecar.ledger.items import Item, RefusedError, Seen
from sidecar.ledger.secret import Secret
from sidecar.vocabulary import ANNOTATED_CATEGORIES

LETTERS: Mapping[str, str] = {
    "id_government": "a", "id_financial_account": "b", "id_device": "c", "id_contact": "d", "id_advertising": "e",
    "id_account_auth": "f", "id_network": "g", "id_call_detail": "h",
}  # fmt: skip
GEOLOCATION = "precise_geolocation"
DEVICE = "device"
_OF_DEVICE = f"{GEOLOCATION}/{DEVICE}"
_KNOWN = frozenset((*ANNOTATED_CATEGORIES, "government_related"))
_CATEGORY_OF = {letter: category for category, letter in LETTERS.items()}
_MOST_OF_A_LETTER = 2
_MOST_CACHED = 65_536
_DAY = struct.Struct("<HB")

Days = dict[int, int]
"""Mark -> the last day it was seen."""


class Mark(NamedTuple):
    """One thing that can be seen of somebody: `category`, or an identifier of `letter` (the other is empty)."""

    category: str = ""
    letter: str = ""
    alone: bool = True
    """Whether its category counts for the person; not where a location counts under its device."""


def names_of(seen: Seen, source: str) -> frozenset[str]:
    """The names of the marks that one sighting leaves. RefusedError for a category or letter that nobody knows."""
    if not seen.categories <= _KNOWN:
        raise RefusedError("malformed", "a category is unknown here; is the ledger older than the sidecar?")
    found = set(seen.categories - LETTERS.keys())
    listed = {LETTERS[one]: 1 for one in seen.categories & LETTERS.keys()}
    for letter, count in seen.listed:
        if letter not in _CATEGORY_OF or count < 1:
            raise RefusedError("malformed", "a listed identifier is none of a to h, or is counted less than once")
        listed[letter] = count
    for letter, count in listed.items():
        found.update(f"{letter}{number}@{source}" for number in range(1, min(count, _MOST_OF_A_LETTER) + 1))
    return frozenset(found)


def sightings(items: Iterable[Item], source: str, secret: Secret) -> dict[bytes, frozenset[str]]:
    """Subject -> names of its marks. From here on nobody is called by their id."""
    found: dict[bytes, frozenset[str]] = {}
    made: dict[Seen, frozenset[str]] = {}
    for item in items:
        names = made.get(item.seen)
        if names is None:
            names = made[item.seen] = names_of(item.seen, source)
        if item.devices and GEOLOCATION in names:
            names = (names - {GEOLOCATION}) | {_OF_DEVICE}
            for device in item.devices:
                key = secret.subject(DEVICE, device)
                found[key] = found.get(key, frozenset()) | {GEOLOCATION}
        key = secret.subject(item.kind, item.id)
        found[key] = found.get(key, frozenset()) | names
    return found


class Marks:
    """Marks by number, as the database writes them. `added` are those it does not hold yet."""

    def __init__(self, known: Mapping[str, int]) -> None:
        self._numbers = dict(known)
        self._marks = {number: _mark(name) for name, number in known.items()}
        self._names = {number: name for name, number in known.items()}
        self._counted: dict[frozenset[int], frozenset[str]] = {}
        self.added: list[tuple[int, str]] = []

    def number(self, name: str) -> int:
        """The number of a mark or category; a new one is given to a name that has none."""
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self._numbers) + 1
            self._marks[number], self._names[number] = _mark(name), name
            self.added.append((number, name))
        return number

    def name(self, number: int) -> str:
        """The name of a number."""
        return self._names[number]

    def numbers(self, names: Iterable[str]) -> frozenset[int]:
        """The numbers of several."""
        return frozenset(self.number(one) for one in sorted(names))

    def days(self, held: Days) -> dict[str, int]:
        """Category -> the last day on which a subject with these marks, and no more, is of it.

        A set of marks that grows loses no category, so going back from the latest day the first day on which a category
        is reached is the one that its living on depends on.
        """
        found: dict[str, int] = {}
        live: set[int] = set()
        for day in sorted(set(held.values()), reverse=True):
            live.update(mark for mark, seen in held.items() if seen == day)
            for category in self._categories(frozenset(live)):
                found.setdefault(category, day)
        return found

    def _categories(self, live: frozenset[int]) -> frozenset[str]:
        known = self._counted.get(live)
        if known is None:
            if len(self._counted) >= _MOST_CACHED:
                self._counted.clear()
            known = self._counted[live] = categories_of(self._marks[one] for one in live)
        return known


def categories_of(live: Iterable[Mark]) -> frozenset[str]:
    """What a subject with these marks counts as."""
    weighed: set[str] = set()
    counted: set[str] = set()
    letters: Counter[str] = Counter()
    for mark in live:
        if mark.letter:
            letters[mark.letter] += 1
            counted.add(_CATEGORY_OF[mark.letter])
        else:
            weighed.add(mark.category)
            if mark.alone:
                counted.add(mark.category)
    return frozenset(counted.union(computed(weighed, letters.items())))


def _mark(name: str) -> Mark:
    if name == _OF_DEVICE:
        return Mark(category=GEOLOCATION, alone=False)
    return Mark(letter=name[0]) if "@" in name else Mark(category=name)


def encode_days(held: Days) -> bytes:
    """Marks by day: the day, how many marks, their numbers in ascending order, 7 bits to a byte (as in LEB128)."""
    out = bytearray()
    for day in sorted(set(held.values())):
        marks = sorted(mark for mark, seen in held.items() if seen == day)
        for at in range(0, len(marks), 255):
            part = marks[at : at + 255]
            out += _DAY.pack(day, len(part)) + encode_marks(part)
    return bytes(out)


def decode_days(data: bytes) -> Days:
    """What `encode_days` wrote. ValueError when it did not."""
    held: Days = {}
    at = 0
    while at < len(data):
        if at + _DAY.size > len(data):
            raise ValueError("a sighting is cut short")
        day, count = _DAY.unpack_from(data, at)
        marks, at = _numbers(data, at + _DAY.size, count)
        held.update(dict.fromkeys(marks, day))
    return held


def encode_marks(marks: Iterable[int]) -> bytes:
    """Numbers, 7 bits to a byte, the low ones first."""
    out = bytearray()
    for mark in sorted(marks):
        rest = mark
        while rest > 0x7F:
            out.append(rest & 0x7F | 0x80)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def _numbers(data: bytes, at: int, count: int) -> tuple[list[int], int]:
    found = []
    for _ in range(count):
        number = shift = 0
        while True:
            if at >= len(data):
                raise ValueError("a sighting is cut short")
            byte = data[at]
            at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        found.append(number)
    return found, at


def decode_marks(data: bytes, at: int, count: int) -> tuple[frozenset[int], int]:
    """`count` numbers from `at`, and where they end. ValueError when they are cut short."""
    marks, end = _numbers(data, at, count)
    return frozenset(marks), end
