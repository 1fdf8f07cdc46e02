"""Stage 7, enforce: what a permit obliges the sidecar to do to answers, merged, and done.

* Several permits are kept together: every redaction of each, the smallest limit, the soonest recheck, the highest
  durability. A field both redacted and masked is redacted.
* A record is removed as a whole: an element of a list, an entry of a map with its key, a field, or the message itself.
  A message that names a subject without being annotated `record` loses what belongs to that subject and keeps the
  records of others inside it. A record goes when *any* of those whom it names is of a dropped class, and counts under
  the most sensitive.
* Unknown fields, and Any values that cannot be resolved or hold categories that nothing decided about, leave only
  under a permit that covers `unclassified`.
* What leaves is encoded anew from what was inspected, deterministically. Where nothing had to change and the bytes came
  in the usual order of fields, these are the very bytes that came; bytes that a later part of the message overwrites,
  which a parser never shows, do not leave.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from types import EllipsisType
from typing import NamedTuple

from sidecar._native import Reading, Rules
from sidecar.attributes.messages import MalformedMessageError, MessagePlan, ParsedMessage, encode
from sidecar.attributes.presence import inventory
from sidecar.attributes.words import UNCLASSIFIED
from sidecar.enforcement.editor import Editor, Orders
from sidecar.enforcement.release import Classes, Release, weight, weightiest, weights
from sidecar.errors import EnforceError
from sidecar.vocabulary import (
    ANNOTATED_CATEGORIES,
    LEVELS,
    AnyObligation,
    DropRecords,
    KnownObligation,
    Level,
    LimitRecords,
    MaskFields,
    ReasonCode,
    RedactFields,
    RequireDurability,
    SubjectClass,
    UnknownObligation,
)

__all__ = ["Duties", "OnBytes", "Release", "admitted"]
_MOST_ORDERS = 256
_MOST_ROOM = 1 << 62
"""No message has more records; a policy may say any number."""


class OnBytes(NamedTuple):
    """Duties as a `Reading` takes them: steps, classes of which records go as bits, records that may leave at most."""

    rules: Rules | None = None
    dropped: int = 0
    limit: int | None = None
    orders: Orders | None = None
    """Where `rules` come from; they do not keep it."""

    def room(self, records: int) -> int | None:
        """How many records may leave where so many have left before."""
        return None if self.limit is None else min(self.limit - records, _MOST_ROOM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duties:
    """The obligations of one or several permits, merged.

    `redact` and `mask` hold categories and full field paths; `drop` classes of subjects; `limit` records in the whole
    call; `durability` the least level; `recheck` seconds. None where nothing is asked.
    """

    redact: frozenset[str] = frozenset()
    mask: frozenset[str] = frozenset()
    drop: frozenset[SubjectClass] = frozenset()
    limit: int | None = None
    durability: Level | None = None
    recheck: int | None = None
    _made: dict[tuple[bool, frozenset[str], frozenset[str]], Orders] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Orders already worked out: a decision's duties are the same object call after call (`prepared`)."""

    @staticmethod
    def none() -> "Duties":
        """No duties."""
        return _NONE

    @staticmethod
    def of(obligations: Iterable[AnyObligation], fulfils: frozenset[str]) -> "Duties":
        """The duties of one permit.

        EnforceError `obligation_unfulfillable` for an obligation that is unknown, that this door cannot fulfil, or
        that says nothing that could be done.
        """
        found = _NONE
        for one in obligations:
            name = one.name if isinstance(one, UnknownObligation) else str(one.__struct_config__.tag)
            if isinstance(one, UnknownObligation) or name not in fulfils:
                raise _unfulfillable(name, "this door does not know it or cannot fulfil it")
            found = found.and_(_duty(one))
        return found

    @property
    def content(self) -> bool:
        """Whether anything here changes answers."""
        return bool(self.redact or self.mask or self.drop) or self.limit is not None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the obligations that change answers."""
        asked = (("redact_fields", self.redact), ("mask_fields", self.mask), ("drop_records", self.drop),
                 ("limit_records", self.limit is not None))  # fmt: skip
        return tuple([name for name, one in asked if one])

    def and_(self, other: "Duties | None") -> "Duties":
        """Both at once."""
        if other is None or other is _NONE:
            return self
        if self is _NONE:
            return other
        return Duties(
            redact=self.redact | other.redact,
            mask=self.mask | other.mask,
            drop=self.drop | other.drop,
            limit=_least(self.limit, other.limit),
            durability=_highest(self.durability, other.durability),
            recheck=_least(self.recheck, other.recheck),
        )

    def document(self) -> tuple[dict[str, object], ...]:
        """The same as obligations of a decision document, for whoever has to meet them elsewhere."""
        found: list[dict[str, object]] = []
        for name, asked in (("redact_fields", self.redact), ("mask_fields", self.mask)):
            if asked:
                categories = [one for one in ANNOTATED_CATEGORIES if one in asked]
                found.append({"id": name, "categories": categories, "fields": sorted(asked - _CATEGORIES)})
        found += [{"id": "drop_records", "subjects": one} for one in sorted(self.drop)]
        if self.limit is not None:
            found.append({"id": "limit_records", "max": self.limit})
        if self.durability is not None:
            found.append({"id": "require_durability", "level": self.durability})
        if self.recheck is not None:
            found.append({"id": "recheck_seconds", "seconds": self.recheck})
        return tuple(found)

    def apply(
        self, parsed: ParsedMessage, classes: Classes, unclassified_covered: bool, state: Release,
        *, decided: frozenset[str] = frozenset(),
    ) -> bytes | None:  # fmt: skip
        """What of an answer message may leave, and the count of it in `state`.

        `classes` holds the class of every subject of the call; one that is missing is unknown. `decided`: categories
        that a decision about this message covers beyond those of the method's description (`Classified.reached`).
        Returns `parsed.data` itself where nothing had to change and the bytes hold nothing that a later part of them
        overwrites (such a part was not inspected); None where nothing may leave because the message
        itself was a record that is dropped. MalformedMessageError when a map key turns out not to be UTF-8.
        """
        source = parsed.source
        loose = weightiest(classes.values()) if source.about == "named" else "unknown"
        if parsed.reading is not None:
            duties = self.on_bytes(source, unclassified_covered, decided)
            found = _read(parsed, parsed.reading, duties, classes, loose, state)
            if found is not ...:
                return found
        return self.edit(parsed, classes, unclassified_covered, state, loose=loose, decided=decided)

    def edit(
        self, parsed: ParsedMessage, classes: Classes, unclassified_covered: bool, state: Release,
        *, loose: SubjectClass, decided: frozenset[str] = frozenset(),
    ) -> bytes | None:  # fmt: skip
        """The same, always by way of the parsed message. `loose`: the class of whom data outside any record concerns."""
        source = parsed.source
        try:
            if not self.content and not parsed.unclassified and not parsed.payloads:
                units, outside = inventory(source, parsed.message)
                out: bytes | None = parsed.data if parsed.exact else encode(parsed.message)
            else:
                orders = self._orders(unclassified_covered, source.described, decided)
                message, _, units, outside = Editor(source, orders, classes, state).run(parsed, loose)
                out = None if message is None else encode(message)
        except UnicodeDecodeError:
            raise MalformedMessageError(f"the message holds a map key that is not UTF-8 ({parsed.plan.name})") from None
        state.units(units, classes)
        state.loose(outside, loose)
        return parsed.data if out == parsed.data else out

    def on_bytes(
        self, source: MessagePlan, unclassified_covered: bool, decided: frozenset[str] = frozenset()
    ) -> OnBytes:
        """The same for messages of this type that could be read as the bytes they are."""
        if not self.content:
            return _NOTHING_TO_DO
        orders = self._orders(unclassified_covered, source.described, decided)
        return OnBytes(orders.rules(source.wire), orders.dropped, orders.limit, orders)

    def _orders(self, covered: bool, described: frozenset[str], decided: frozenset[str]) -> Orders:
        kept = self._made.get((covered, described, decided))
        if kept is not None:
            return kept
        orders = _orders_of(self.redact, self.mask, self.drop, self.limit, described | decided, covered=covered)
        if len(self._made) < _MOST_ORDERS:
            self._made[covered, described, decided] = orders
        return orders


@lru_cache(maxsize=_MOST_ORDERS)
def _orders_of(
    redact: frozenset[str], mask: frozenset[str], drop: frozenset[SubjectClass], limit: int | None,
    allowed: frozenset[str], *, covered: bool,
) -> Orders:  # fmt: skip
    """Decisions that order the same, of which every caller may have his own, share what follows from it."""
    named = redact | mask
    return Orders(
        redact=redact, mask=mask, drop=drop, limit=limit, allowed=allowed,
        covered=covered and UNCLASSIFIED not in named, by_path=bool(named) and not named <= _CATEGORIES,
    )  # fmt: skip


def _read(
    parsed: ParsedMessage, reading: Reading, duties: OnBytes, classes: Classes, loose: SubjectClass, state: Release,
) -> bytes | EllipsisType | None:  # fmt: skip
    """As `Duties.edit`, of a message that was read as bytes; `...` where that has to do it."""
    seen = parsed.subjects
    found = reading.release(
        duties.rules, weights(seen, classes), weight(loose), duties.dropped, duties.room(state.records)
    )
    if found is None:
        return ...
    data, dropped, redacted, by_weight, places = found
    state.figures(dropped, redacted, by_weight, seen if places is None else [seen[one] for one in places])
    return data


def admitted(parsed: ParsedMessage, *, unclassified_covered: bool, decided: frozenset[str] = frozenset()) -> bytes:
    """What of a request message may go to the upstream: exactly what was inspected.

    It is encoded anew, so that no parser further on can take another meaning from a field that is given twice. Unknown
    fields, and Any values that cannot be resolved or hold categories that nothing decided about, go only when
    `unclassified` is covered. `decided` as in `Duties.apply`.
    """
    if not parsed.unclassified and not parsed.payloads:
        return parsed.data if parsed.exact else encode(parsed.message)
    source = parsed.source
    orders = _NONE._orders(unclassified_covered, source.described, decided)  # noqa: SLF001 - of this very module
    message = Editor(source, orders, {}, Release()).run(parsed, "unknown").message
    return b"" if message is None else encode(message)


def _duty(one: KnownObligation) -> Duties:
    match one:
        case RedactFields():
            return Duties(redact=_fields(one, "redact_fields"))
        case MaskFields():
            return Duties(mask=_fields(one, "mask_fields"))
        case DropRecords():
            return Duties(drop=frozenset({one.subjects}))
        case LimitRecords():
            return Duties(limit=_number(one.max, 0, "limit_records"))
        case RequireDurability():
            return Duties(durability=one.level)
        case _:  # RecheckSeconds: the type checker knows that nothing else is left
            return Duties(recheck=_number(one.seconds, 1, "recheck_seconds"))


def _fields(one: RedactFields | MaskFields, name: str) -> frozenset[str]:
    unknown = set(one.categories) - set(ANNOTATED_CATEGORIES)
    if unknown:
        raise _unfulfillable(name, f"no field has the category {min(unknown)!r}")
    if not one.categories and not one.fields:
        raise _unfulfillable(name, "it names neither categories nor fields")
    return frozenset(one.categories + one.fields)


def _number(value: int, least: int, name: str) -> int:
    if value < least:
        raise _unfulfillable(name, f"{value} is less than {least}")
    return value


def _unfulfillable(name: str, why: str) -> EnforceError:
    return EnforceError(
        "the permit carries an obligation that cannot be met here",
        reason=ReasonCode.OBLIGATION_UNFULFILLABLE,
        operator=f"obligation {name[:64]!r}: {why}. Change the policy, or use a door that fulfils it.",
    )


def _least(one: int | None, other: int | None) -> int | None:
    return min((value for value in (one, other) if value is not None), default=None)


def _highest(one: Level | None, other: Level | None) -> Level | None:
    return max((level for level in (one, other) if level is not None), key=LEVELS.index, default=None)


_NONE = Duties()
_NOTHING_TO_DO = OnBytes()
_CATEGORIES = frozenset(ANNOTATED_CATEGORIES)
