"""What a message really holds: its records one by one, and in each the categories that are on the wire.

A *unit* is one record: a message that names a subject or is annotated `record`, or an entry of a map whose keys are
subject ids. What stands inside a unit belongs to it unless it is a unit itself. What stands outside every unit is
*loose*.
"""

from typing import Any, NamedTuple

from google.protobuf.message import Message

from sidecar.attributes.messages import MessagePlan, filled, named
from sidecar.attributes.plans import FieldPlan, Plan
from sidecar.attributes.words import UNCLASSIFIED

Ids = list[tuple[str, str]]


class Unit(NamedTuple):
    """One record: whom it names (nobody, for an unnamed record) and which categories it holds."""

    ids: Ids
    categories: set[str]


def inventory(source: MessagePlan, message: Message) -> tuple[list[Unit], set[str]]:
    """The units of a message and the categories that are loose in it. A unit comes after those inside it."""
    units: list[Unit] = []
    loose: set[str] = set()
    _enter(source, source.plan, message, loose, units)
    return units, loose


def held(source: MessagePlan, field: FieldPlan, message: Message) -> tuple[list[Unit], set[str]]:
    """The units inside one field of a message, and every category that the field holds, in units or not."""
    units: list[Unit] = []
    found = {field.category} if field.category is not None else set()
    if field.child is not None:
        _elements(source, field.child, _values(field, message), found, units)
    return units, found.union(*(unit.categories for unit in units))


def within(source: MessagePlan, plan: Plan, message: Message) -> int:
    """How many units stand inside a message, itself not counted."""
    units: list[Unit] = []
    if plan.is_any:
        payload = source.payload(plan, message)
        return 0 if payload is None else within(source, payload.plan, payload.message)
    _look(source, plan, message, set(), units)
    return len(units)


def _values(field: FieldPlan, message: Message) -> Any:
    value = field.get(message)
    if field.form == "message":
        return (value,)
    return value.values() if field.form == "map_message" else value


def is_unit(plan: Plan, message: Message, ids: Ids) -> bool:
    """Whether a message that names `ids` (in itself or by the key it stands under) is a unit."""
    return bool(ids) or (plan.is_record and filled(message))


def _enter(source: MessagePlan, plan: Plan, message: Any, found: set[str], units: list[Unit]) -> None:
    if plan.is_any:
        if filled(message):
            payload = source.payload(plan, message)
            if payload is None:
                found.add(UNCLASSIFIED)
            else:
                _enter(source, payload.plan, payload.message, found, units)
        return
    ids = named(plan, message) if plan.names else []
    if is_unit(plan, message, ids):
        inside: set[str] = set()
        _look(source, plan, message, inside, units)
        units.append(Unit(ids, inside))
    else:
        _look(source, plan, message, found, units)


def _look(source: MessagePlan, plan: Plan, message: Any, found: set[str], units: list[Unit]) -> None:
    for category, checks in plan.leaves:
        if category not in found:
            for has in checks:
                if has(message):
                    found.add(category)
                    break
    for field in plan.inner:
        child = field.child
        if child is None or not field.descends:
            _entries(source, field, message, found, units)
        elif field.form == "message":
            if field.has(message):
                _enter(source, child, field.get(message), found, units)
        else:
            _elements(source, child, field.get(message), found, units)


def _elements(source: MessagePlan, child: Plan, values: Any, found: set[str], units: list[Unit]) -> None:
    """Elements of a list, until the rest can show nothing new."""
    for one in values:
        if not child.leads and child.governed <= found:
            return
        _enter(source, child, one, found, units)


def _entries(source: MessagePlan, field: FieldPlan, message: Any, found: set[str], units: list[Unit]) -> None:
    entries = field.get(message)
    for key in entries:
        if field.kind is None or not key:
            if field.child is not None:
                _enter(source, field.child, entries[key], found, units)
            elif field.category is not None:
                found.add(field.category)
            continue
        inside = {field.category} if field.category is not None else set()
        ids = [(field.kind, str(key))]
        if field.child is not None:
            ids += _value(source, field.child, entries[key], inside, units)
        units.append(Unit(ids, inside))


def _value(source: MessagePlan, plan: Plan, message: Any, inside: set[str], units: list[Unit]) -> Ids:
    """Look into the value of an entry that is a unit by its key; whom the value names besides."""
    if not plan.is_any:
        _look(source, plan, message, inside, units)
        return named(plan, message)
    payload = source.payload(plan, message)
    if payload is not None:
        return _value(source, payload.plan, payload.message, inside, units)
    if filled(message):
        inside.add(UNCLASSIFIED)
    return []
