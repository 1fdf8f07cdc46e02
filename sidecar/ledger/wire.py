"""Between the generated messages and the ledger's own types. What is malformed is refused before anything is counted."""

import math
from collections.abc import Iterable, Sequence
from typing import Protocol

from sidecar.api.v1 import ledger_pb2 as pb
from sidecar.ledger.items import MOST_ITEMS, Item, RefusedError, Seen, Settlement

MOST_MESSAGE = 16 << 20
_MOST_TEXT = 512
_MOST_ID = 4_096
_MOST_SEQUENCE = (1 << 31) - 1


class _Holds(Protocol):
    @property
    def seen(self) -> Iterable[pb.SeenData]: ...

    @property
    def items(self) -> Iterable[pb.SeenSubject]: ...


def items_of(message: _Holds) -> list[Item]:
    """The data subjects of a message. RefusedError (malformed)."""
    seen = [
        Seen(frozenset(one.categories), tuple(sorted((each.letter, each.count) for each in one.listed)))
        for one in message.seen
    ]
    found = []
    for one in message.items:
        if one.seen >= len(seen):
            raise RefusedError("malformed", "an item points beyond what was seen")
        for name in (one.kind, one.id, *one.devices):
            if not 0 < len(name) <= _MOST_ID:
                raise RefusedError("malformed", f"an id or its kind is empty or longer than {_MOST_ID} characters")
        if "\0" in one.kind:
            raise RefusedError("malformed", "a kind holds a zero character")
        found.append(Item(one.kind, one.id, seen[one.seen], tuple(one.devices)))
    if sum(1 + len(one.devices) for one in found) > MOST_ITEMS:
        raise RefusedError("malformed", f"more than {MOST_ITEMS} data subjects and devices")
    return found


def check(*, call: str = "-", source: str = "-", groups: Iterable[str] = (), sequences: Iterable[int] = ()) -> None:
    """RefusedError (malformed) for names that are empty or too long."""
    for name in (call, source, *groups):
        if not 0 < len(name) <= _MOST_TEXT:
            raise RefusedError("malformed", f"a call, group or source is empty or longer than {_MOST_TEXT} characters")
    if any(one > _MOST_SEQUENCE for one in sequences):
        raise RefusedError("malformed", "a sequence is too large")


def settlement_of(message: pb.SettleRequest) -> Settlement:
    """What a settlement says. RefusedError (malformed)."""
    items = items_of(message)
    check(call=message.call_id, source=message.source or "-", groups=message.groups, sequences=message.sequences)
    if items and not (message.groups and message.source):
        raise RefusedError("malformed", "what was released names neither group nor source")
    if not math.isfinite(message.released_at):
        raise RefusedError("malformed", "released_at is no instant")
    return Settlement(
        call=message.call_id, sequences=tuple(message.sequences), everything=message.everything,
        groups=tuple(message.groups), source=message.source, items=items, released_at=message.released_at,
    )  # fmt: skip


def to_wire(items: Sequence[Item]) -> tuple[list[pb.SeenData], list[pb.SeenSubject]]:
    """`seen` and `items` of a message."""
    places: dict[Seen, int] = {}
    told = [
        pb.SeenSubject(kind=one.kind, id=one.id, seen=places.setdefault(one.seen, len(places)), devices=one.devices)
        for one in items
    ]  # fmt: skip
    seen = [
        pb.SeenData(
            categories=sorted(one.categories),
            listed=[pb.SeenIdentifiers(letter=letter, count=count) for letter, count in one.listed],
        )
        for one in places
    ]
    return seen, told
