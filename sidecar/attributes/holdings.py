"""What a message holds of each data subject: the categories and the listed identifiers that are really on the wire.

This is what volumes are counted by (28 CFR 202.205) and what is linked to whom (202.212, 202.232). It walks the whole
message, which `presence` need not, and only where somebody asks. A *unit* is that of `presence`: all that stands in it
belongs to every subject whom it names, and all records of one subject in a message belong together.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sidecar.attributes.messages import MessagePlan, ParsedMessage, filled, named
from sidecar.attributes.plans import FieldPlan, Plan
from sidecar.attributes.presence import is_unit
from sidecar.attributes.words import UNCLASSIFIED

LOOSE: Final = ("", "")
"""The key of what belongs to no named subject: it stands outside every record, or in records that name nobody."""
_RUNTIME = "google.protobuf."


class Holding(NamedTuple):
    """Of one subject: annotated categories, and per letter of 28 CFR 202.234 the number of distinct identifiers.

    `letters` are in order and each has at least one.
    """

    categories: frozenset[str]
    letters: tuple[tuple[str, int], ...]


def subject_holdings(parsed: ParsedMessage) -> Mapping[tuple[str, str], Holding]:
    """By (kind, id) of each subject, and under LOOSE whatever belongs to none of them, if there is any.

    Where the request names the subjects (`parsed.source.about`), what is loose is theirs. Values are compared, not kept:
    one address in two records counts once. MalformedMessageError for an id that is not UTF-8.
    """
    walk = _Walk(parsed.source)
    loose = _Gathered()
    walk.enter(parsed.plan, parsed.message, loose)
    if parsed.unclassified:
        # Unknown fields are gone from the message; nothing says whose they were.
        loose.categories.add(UNCLASSIFIED)
    found = {key: one.holding() for key, one in walk.subjects.items()}
    if loose.categories:
        found[LOOSE] = loose.holding()
    return found


class _Gathered:
    """What is known so far of one subject."""

    __slots__ = ("categories", "identifiers")

    def __init__(self) -> None:
        self.categories: set[str] = set()
        self.identifiers: set[tuple[str, object]] = set()

    def add(self, other: "_Gathered") -> None:
        self.categories |= other.categories
        self.identifiers |= other.identifiers

    def holding(self) -> Holding:
        counts: dict[str, int] = {}
        for letter, _ in self.identifiers:
            counts[letter] = counts.get(letter, 0) + 1
        return Holding(frozenset(self.categories), tuple(sorted(counts.items())))


class _Walk:
    """One walk over a message."""

    __slots__ = ("source", "subjects")

    def __init__(self, source: MessagePlan) -> None:
        self.source = source
        self.subjects: dict[tuple[str, str], _Gathered] = {}

    def enter(self, plan: Plan, message: Any, outer: _Gathered) -> None:
        """Gather a message: into `outer`, or into its own subjects when it is a unit."""
        if plan.is_any:
            payload = self.source.payload(plan, message)
            if payload is not None:
                self.enter(payload.plan, payload.message, outer)
            elif filled(message):
                outer.categories.add(UNCLASSIFIED)
            return
        ids = named(plan, message) if plan.names else []
        if not is_unit(plan, message, ids):
            self._fields(plan, message, outer)
            return
        inside = _Gathered()
        self._fields(plan, message, inside)
        self._give(ids, inside, outer)

    def _give(self, ids: list[tuple[str, str]], inside: _Gathered, outer: _Gathered) -> None:
        if not ids:
            outer.add(inside)
        for key in ids:
            self.subjects.setdefault(key, _Gathered()).add(inside)

    def _fields(self, plan: Plan, message: Any, into: _Gathered) -> None:
        for field in plan.fields:
            if field.kind is not None and field.form.startswith("map"):
                self._entries(field, message, into)
            elif field.has(message):
                if field.category is not None:
                    into.categories.add(field.category)
                    _identify(field, field.get(message), into)
                if field.child is not None:
                    for one in _messages(field, message):
                        self.enter(field.child, one, into)

    def _entries(self, field: FieldPlan, message: Any, outer: _Gathered) -> None:
        """A map whose keys are subject ids: each entry is a unit. An empty key names nobody."""
        entries = field.get(message)
        for key in entries:
            inside = _Gathered()
            ids = [(field.kind or "", str(key))] if key else []
            if field.category is not None:
                inside.categories.add(field.category)
                _identify(field, [entries[key]], inside)
            if field.child is not None:
                ids += self._value(field.child, entries[key], inside)
            self._give(ids, inside, outer)

    def _value(self, plan: Plan, message: Any, inside: _Gathered) -> list[tuple[str, str]]:
        """Gather the value of an entry; whom it names besides its key."""
        if not plan.is_any:
            self._fields(plan, message, inside)
            return named(plan, message)
        payload = self.source.payload(plan, message)
        if payload is not None:
            return self._value(payload.plan, payload.message, inside)
        if filled(message):
            inside.categories.add(UNCLASSIFIED)
        return []


def _messages(field: FieldPlan, message: Any) -> Any:
    value = field.get(message)
    if field.form == "message":
        return (value,)
    return value.values() if field.form == "map_message" else value


def _identify(field: FieldPlan, value: Any, into: _Gathered) -> None:
    """Count the listed identifiers in a field. Those of a message are its own fields', unless it is the runtime's."""
    letter = field.data.letter if field.data is not None else ""
    child = field.child
    if not letter or field.path.startswith(_RUNTIME) or (child is not None and not child.name.startswith(_RUNTIME)):
        return
    if child is not None and any(one.form != "leaf" for one in child.fields):
        # A Struct or a list of values: any number of them.
        into.identifiers.update({(letter, (field.path, 1)), (letter, (field.path, 2))})
    elif field.form in ("leaf", "message"):
        into.identifiers.add((letter, _value_of(value)))
    elif field.form.startswith("map") and not isinstance(value, list):
        into.identifiers.update((letter, (key, _value_of(value[key]))) for key in value)
    else:
        into.identifiers.update((letter, _value_of(one)) for one in value)


def _value_of(value: Any) -> object:
    """Something to compare by: messages of the runtime by their bytes, which are deterministic within one process."""
    return (
        value if not hasattr(value, "SerializePartialToString") else value.SerializePartialToString(deterministic=True)
    )
