"""Input documents of every shape the vocabulary allows, made from a few that somebody wrote.

A document made at random is refused for ten reasons at once and shows nothing. So each one here starts from documents
of a corpus (whole, or its parts taken from several), in which a few leaves, list items or lists are then changed: to
unknown, to what another document has there, to a word of the vocabulary or of the policies' data, to a number or an
instant at an edge. The types decide what may stand where; a new field is varied from the day it is added.
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import inspect

from sidecar.vocabulary import ACTIONS, CATEGORIES, CLASSES, COMPUTED_CATEGORIES, AccessRequest, canonical

_PARTS: Final = ("subject", "action", "resource", "context")
_CHANGES: Final = (1, 1, 1, 2, 2, 3, 4, 6, 10)
"""How many changes a document gets, each number as likely as another."""
_NUMBERS: Final = (0, 1, 2, 3, 49, 50, 51, 79, 80, 81, 99, 100, 101, 799, 800, 801, 999, 1_000, 1_001, 7_999, 8_000, 8_001,
                   9_999, 10_000, 10_001, 79_999, 80_000, 80_001, 99_999, 100_000, 100_001, 2**31, 2**53 + 1, 2**62)  # fmt: skip
_DISTANCES: Final = (timedelta(0), timedelta(minutes=1), timedelta(hours=1), timedelta(hours=24), timedelta(days=400))
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_COUNTRIES: Final = ("US", "PR", "MP", "SG", "IE", "CN", "HK", "MO", "RU", "IR", "KP", "CU", "VE")
_WORDS: Final[dict[str, Sequence[str]]] = {
    "action.name": ACTIONS,
    "resource.categories.*": CATEGORIES,
    "resource.classes.*": CLASSES,
    "resource.computed.*": COMPUTED_CATEGORIES,
    "resource.flags.*": ("in_listed_area", "marketed_as_government"),
    "subject.workload.may.*": ACTIONS,
    "subject.engagement.type": ("employment", "vendor", "investment", "brokerage", "none"),
    "context.exceptions.*.scope.categories.*": CATEGORIES,
    "context.exceptions.*.scope.subjects": ("us", "unknown"),
    "context.authorizations.*.categories.*": CATEGORIES,
}
"""Leaves of a closed vocabulary that their type does not spell out."""
_PLACES: Final = ("country", "operated_from", "primary_residence", "citizenships.*")

_Steps = tuple[str, ...]


class Variants:
    """Endless documents from a corpus that is not empty. Equal arguments give equal documents.

    `words` are further texts for leaves that hold free text: codes and names that the policies know.
    """

    def __init__(self, seed: int, corpus: Sequence[AccessRequest], words: Sequence[str] = ()) -> None:
        self._random = random.Random(seed)  # noqa: S311 - variety, not secrecy
        self._corpus = [canonical(request) for request in corpus]
        self._words = sorted(set(words))
        self._seen: defaultdict[_Steps, list[object]] = defaultdict(list)
        self._spots = tuple(
            spot for spot in _spots(inspect.type_info(AccessRequest), ()) for _ in range(_weight(spot[0]))
        )
        for document in self._corpus:
            self._see(msgspec.json.decode(document), ())

    def __iter__(self) -> Iterator[AccessRequest]:
        while True:
            yield self._one()

    def _one(self) -> AccessRequest:
        pick = self._random
        document = msgspec.json.decode(pick.choice(self._corpus))
        if pick.random() < 0.4:
            for part in pick.sample(_PARTS, pick.choice((1, 1, 2))):
                document[part] = msgspec.json.decode(pick.choice(self._corpus))[part]
        for _ in range(pick.choice(_CHANGES)):
            steps, kind = pick.choice(self._spots)
            self._change(document, steps, kind, document["context"]["time"])
        return msgspec.convert(document, AccessRequest)

    def _change(self, document: Any, steps: _Steps, kind: inspect.Type, now: str) -> None:
        """Follow `steps`, by a random key or index at each `*`; where a list is empty, there is nothing to change."""
        place, last = document, steps[-1]
        for step in steps[:-1]:
            if step == "*" and not place:
                return
            place = place[self._key(place) if step == "*" else step]
        if last == "*" and not place:
            return
        key = self._key(place) if last == "*" else last
        if isinstance(kind, inspect.VarTupleType):
            place[key] = self._list(place[key], kind.item_type, (*steps, "*"), now)
        else:
            place[key] = self._value(kind, steps, now)

    def _key(self, place: Any) -> Any:
        return self._random.randrange(len(place)) if isinstance(place, list) else self._random.choice(list(place))

    def _list(self, items: list[object], kind: inspect.Type, steps: _Steps, now: str) -> list[object]:
        """One item more or less, or none."""
        chance = self._random.random()
        if chance < 0.2:
            return []
        if chance < 0.5 and items:
            at = self._random.randrange(len(items))
            return items[:at] + items[at + 1 :]
        return [*items, self._value(kind, steps, now)]

    def _value(self, kind: inspect.Type, steps: _Steps, now: str) -> object:
        pick, seen = self._random, self._seen[steps]
        if isinstance(kind, inspect.UnionType):
            if pick.random() < 0.3 and any(isinstance(one, inspect.NoneType) for one in kind.types):
                return None
            return self._value(next(t for t in kind.types if not isinstance(t, inspect.NoneType)), steps, now)
        if isinstance(kind, inspect.StructType):
            if seen and pick.random() < 0.6:
                return msgspec.json.decode(msgspec.json.encode(pick.choice(seen)))
            return {f.encode_name: self._value(f.type, (*steps, f.encode_name), now) for f in kind.fields}
        if isinstance(kind, inspect.VarTupleType):
            return [self._value(kind.item_type, (*steps, "*"), now) for _ in range(pick.choice((0, 1, 1, 2)))]
        return self._scalar(kind, steps, now)

    def _scalar(self, kind: inspect.Type, steps: _Steps, now: str) -> object:
        if isinstance(kind, inspect.LiteralType):
            return self._random.choice(kind.values)
        makers: dict[type, Callable[[], object]] = {
            inspect.StrType: lambda: self._text(steps, now),
            inspect.IntType: self._number,
            inspect.BoolType: lambda: self._random.random() < 0.5,
        }
        return makers[type(kind)]()

    def _number(self) -> int:
        return self._random.choice(_NUMBERS) if self._random.random() < 0.7 else self._random.randrange(200_000)

    def _text(self, steps: _Steps, now: str) -> str:
        pick, path = self._random, ".".join(steps)
        known = [one for one in self._seen[steps] if isinstance(one, str)]
        if any(_INSTANT.fullmatch(one) for one in known) or steps[-1] in ("until", "expires", "valid_until"):
            moved = datetime.fromisoformat(now) + pick.choice((-1, 1)) * pick.choice(_DISTANCES)
            return moved.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        closed = _COUNTRIES if path.endswith(_PLACES) else _WORDS.get(path, self._words)
        chance = pick.random()
        if chance < 0.45 and known:
            return pick.choice(known)
        if chance < 0.9 and closed:
            return pick.choice(closed)
        return pick.choice(("", "zz"))

    def _see(self, value: object, steps: _Steps) -> None:
        """Keep what stands at each place of the corpus; items and entries of one collection share a place."""
        if value is None:
            return
        self._seen[steps].append(value)
        if isinstance(value, list):
            for item in value:
                self._see(item, (*steps, "*"))
        elif isinstance(value, dict):
            by_category = steps[-1:] in (("population",), ("exposure",))
            for key, item in value.items():
                self._see(item, (*steps, "*" if by_category else key))


def _weight(steps: _Steps) -> int:
    """Lists of a closed vocabulary are what most rules turn on."""
    return 6 if ".".join((*steps, "*")) in _WORDS else 1


def _spots(kind: inspect.Type, steps: _Steps) -> Iterator[tuple[_Steps, inspect.Type]]:
    """Every leaf and list of the type, `*` for any index or key; the version never changes."""
    if isinstance(kind, inspect.StructType):
        for field in kind.fields:
            if steps or field.encode_name != "version":
                yield from _spots(field.type, (*steps, field.encode_name))
    elif isinstance(kind, inspect.DictType):
        yield from _spots(kind.value_type, (*steps, "*"))
    elif isinstance(kind, inspect.VarTupleType):
        yield steps, kind
        yield from _spots(kind.item_type, (*steps, "*"))
    else:
        yield steps, kind
