"""Takes out of one message what may not leave, and keeps count of what does.

The message is walked once, from the outside in. At each unit (see `attributes.presence`) it is decided first whether
the record may stay; then its fields are redacted, masked or kept. What belongs to a removed record goes with it.
"""

import dataclasses
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Literal, NamedTuple

from google.protobuf.message import Message

from sidecar._native import Rules
from sidecar.attributes.messages import MessagePlan, ParsedMessage, filled, named
from sidecar.attributes.plans import FieldPlan, Plan
from sidecar.attributes.presence import Ids, Unit, held, inventory, is_unit, within
from sidecar.attributes.reach import reach_of
from sidecar.attributes.wire import Wire, place
from sidecar.attributes.words import IMPERSONAL, UNCLASSIFIED
from sidecar.enforcement.release import Classes, Release, classes_of, weight
from sidecar.vocabulary import SubjectClass

SHOWN = 4
"""Characters of a masked string that stay, if at least as many are hidden."""
_KEEP, _CLEAR, _MASK = range(3)


class Step(NamedTuple):
    """What becomes of one field, as far as that is the same in every message: where nothing around it is dropped.

    `categories`: what clearing the field counts under, where that does not depend on what it holds.
    """

    field: FieldPlan
    shows: Callable[[Any], Any]
    does: Literal["keep", "look", "redact", "mask"]
    category: str | None
    categories: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Orders:
    """What to do.

    `redact` and `mask` hold categories and full field paths (`by_path`: there are such). `covered`: unclassified data
    may stay. `allowed`: categories that a decision knows of.
    """

    redact: frozenset[str]
    mask: frozenset[str]
    drop: frozenset[SubjectClass]
    limit: int | None
    covered: bool
    allowed: frozenset[str]
    by_path: bool
    _steps: dict[Plan, tuple[Step, ...]] = dataclasses.field(default_factory=dict, init=False, repr=False)
    _rules: dict[Wire, Rules] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def spares(self, categories: frozenset[str]) -> bool:
        """Whether data of these categories stays as it is, if it is nobody's record of its own."""
        return not self.by_path and self.redact.isdisjoint(categories) and self.mask.isdisjoint(categories)

    def steps(self, plan: Plan) -> tuple[Step, ...]:
        """What becomes of each field of such a message."""
        found = self._steps.get(plan)
        if found is None:
            found = self._steps[plan] = tuple(self._step(field) for field in plan.fields)
        return found

    def rules(self, wire: Wire) -> Rules:
        """The steps, as messages are edited by that are read as bytes."""
        found = self._rules.get(wire)
        if found is None:
            orders = weakref.ref(self)  # the collector sees no circle that goes through `Rules`

            def ask(number: int) -> list[tuple[int, int]]:
                asked = orders()
                return [] if asked is None else asked.actions(wire.plan(number))

            found = self._rules[wire] = Rules(ask)
        return found

    @property
    def dropped(self) -> int:
        """The classes whose records go, as bits by weight."""
        return sum([1 << weight(one) for one in self.drop]) if self.drop else 0

    def actions(self, plan: Plan) -> list[tuple[int, int]]:
        """The steps in the words of `Rules`."""
        return [self._action(one) for one in self.steps(plan)]

    def _action(self, step: Step) -> tuple[int, int]:
        """What `Editor` does to a field that is not a map, and the category that it counts under."""
        field = step.field
        if step.does == "mask":
            return _MASK if field.text else _CLEAR, place(field.category)
        if step.does == "redact":
            return _CLEAR, place(field.category)
        child = field.child
        spared = child is not None and not child.leads and self.spares(child.governed)
        return _KEEP, place(field.category if spared else step.category)

    def _step(self, field: FieldPlan) -> Step:
        category = field.category if field.kind is None else None
        if field.path in self.redact or field.category in self.redact:
            alone = field.child is None
            return Step(field, field.shows, "redact", category, (field.category or UNCLASSIFIED,) if alone else None)
        if field.path in self.mask or (field.category in self.mask and not field.descends):
            return Step(field, field.shows, "mask", category, None)
        further = field.entries or field.child is not None
        return Step(field, field.shows, "look" if further else "keep", category, None)


class _Doom(Enum):
    """What is cleared of the data that stands directly in a message: none, what is about somebody, or all of it."""

    NONE = auto()
    PERSONAL = auto()
    ALL = auto()


class Edited(NamedTuple):
    """What may leave of a message (None: nothing), whether it differs from what came, and what it holds."""

    message: Message | None
    changed: bool
    units: list[Unit]
    loose: set[str]


class Editor:
    """Edits one message. Used once."""

    __slots__ = ("_changed", "_classes", "_orders", "_room", "_source", "_state", "_units")

    def __init__(self, source: MessagePlan, orders: Orders, classes: Classes, state: Release) -> None:
        self._source, self._orders, self._classes, self._state = source, orders, classes, state
        self._changed = False
        self._room = None if orders.limit is None else orders.limit - state.records
        self._units: list[Unit] = []

    def run(self, parsed: ParsedMessage, loose: SubjectClass) -> Edited:
        """Edit a copy. Removals and redactions are counted in the release; what stays is for the caller to count.

        `loose`: the class of whom data outside any record concerns.
        """
        plan, opaque = parsed.plan, parsed.unclassified and self._orders.covered
        message = parsed.whole() if opaque else _copy(parsed)
        if parsed.stripped and not opaque:
            self._state.redact((UNCLASSIFIED,))
            self._changed = True
        found: set[str] = set()
        doom = self._outside(message, loose)
        is_record = opaque and not plan.is_any and is_unit(plan, message, named(plan, message))
        stays = self._enter(plan, message, found, doom)
        if opaque and stays:
            (self._units[-1].categories if is_record and self._units else found).add(UNCLASSIFIED)
        return Edited(message if stays else None, self._changed, self._units, found)

    def _outside(self, message: Message, loose: SubjectClass) -> _Doom:
        """Whether what is personal outside any record must go."""
        if self._room is None and loose not in self._orders.drop:
            return _Doom.NONE
        _, outside = inventory(self._source, message)
        if outside <= IMPERSONAL or self._admits({loose}):
            return _Doom.NONE
        self._state.dropped += 1
        return _Doom.PERSONAL

    def _admits(self, classes: set[SubjectClass]) -> bool:
        """Whether one more record may leave that concerns subjects of these classes; takes its place if so."""
        if not self._orders.drop.isdisjoint(classes):
            return False
        if self._room is not None:
            if self._room <= 0:
                return False
            self._room -= 1
        return True

    # Each of these returns whether what it was given may stay where it stands.

    def _enter(self, plan: Plan, message: Any, found: set[str], doom: _Doom) -> bool:
        if plan.is_any:
            return self._any(plan, message, found, doom)
        ids = named(plan, message) if plan.names else []
        if not ids and not is_unit(plan, message, ids):
            self._fields(plan, message, found, doom)
            return doom is _Doom.NONE or filled(message)
        if self._admits(classes_of(ids, self._classes)):
            self._keep(plan, message, ids, set())
            return True
        self._state.dropped += 1
        if plan.is_record:
            self._state.dropped += within(self._source, plan, message)
            return False
        self._changed = True
        message.DiscardUnknownFields()
        self._fields(plan, message, set(), _Doom.ALL)
        return filled(message)

    def _keep(self, plan: Plan, message: Any, ids: Ids, inside: set[str]) -> None:
        self._fields(plan, message, inside, _Doom.NONE)
        self._units.append(Unit(ids, inside))

    def _any(self, plan: Plan, message: Any, found: set[str], doom: _Doom, *, entry: bool = False) -> bool:
        """`entry`: it is the value of a map entry whose record is admitted already."""
        if not filled(message):
            return True
        payload = self._source.payload(plan, message)
        covered = self._orders.covered and doom is _Doom.NONE
        if payload is None or not (covered or reach_of(payload.plan).categories <= self._orders.allowed):
            if covered:
                found.add(UNCLASSIFIED)
                return True
            self._state.redact((UNCLASSIFIED,))
            self._changed = True
            return False
        before, self._changed = self._changed, False
        inside = payload.message
        if payload.unknown and covered:
            inside = payload.plan.new.FromString(message.value)
        elif payload.unknown:
            self._state.redact((UNCLASSIFIED,))
            self._changed = True
        stays = self._value(payload.plan, inside, found) if entry else self._enter(payload.plan, inside, found, doom)
        if stays:  # always: what was overwritten inside was not inspected
            message.value = inside.SerializePartialToString(deterministic=True)
        self._changed = self._changed or before or not stays
        return stays

    def _value(self, plan: Plan, message: Any, inside: set[str]) -> bool:
        if plan.is_any:
            return self._any(plan, message, inside, _Doom.NONE, entry=True)
        self._fields(plan, message, inside, _Doom.NONE)
        return True

    # Each of these edits what stands in a message.

    def _fields(self, plan: Plan, message: Any, found: set[str], doom: _Doom) -> None:
        orders = self._orders
        if doom is _Doom.NONE:
            self._undoomed(orders.steps(plan), message, found)
            return
        for field in plan.fields:
            if not field.has(message):
                continue
            doomed = doom is _Doom.ALL or field.category not in IMPERSONAL
            if field.path in orders.redact or field.category in orders.redact:
                self._redact(field, message, None)
            elif doomed and field.whole:
                self._drop(field, message)
            elif field.path in orders.mask or (field.category in orders.mask and not field.descends):
                self._mask(field, message, found)
            else:
                if field.category is not None and field.kind is None:
                    found.add(field.category)
                if field.entries:
                    self._entries(field, message, found, doom)
                elif field.child is not None:
                    self._below(field, field.child, message, found, doom)

    def _undoomed(self, steps: tuple[Step, ...], message: Any, found: set[str]) -> None:
        """The same where nothing is doomed: what the orders say of each field was worked out before."""
        for field, shows, does, category, categories in steps:
            if not shows(message):
                continue
            if does == "redact":
                self._redact(field, message, categories)
            elif does == "mask":
                self._mask(field, message, found)
            else:
                if category is not None:
                    found.add(category)
                if does == "look":
                    if field.entries:
                        self._entries(field, message, found, _Doom.NONE)
                    elif field.child is not None:
                        self._below(field, field.child, message, found, _Doom.NONE)

    def _below(self, field: FieldPlan, child: Plan, message: Any, found: set[str], doom: _Doom) -> None:
        if doom is _Doom.NONE and not child.leads and self._orders.spares(child.governed):
            found |= held(self._source, field, message)[1]
            return
        value = field.get(message)
        if field.form == "message":
            if not self._enter(child, value, found, doom):
                field.clear(message)
                self._changed = True
            return
        stay = [self._enter(child, one, found, doom) for one in value]
        if not all(stay):
            kept = [one for one, stays in zip(value, stay, strict=True) if stays]
            del value[:]
            value.extend(kept)
            self._changed = True

    def _entries(self, field: FieldPlan, message: Any, found: set[str], doom: _Doom) -> None:
        entries = field.get(message)
        for key in list(entries):
            value = entries[key] if field.child is not None else None
            if field.kind is not None and key:
                stays = self._entry(field, (field.kind, str(key)), value)
            elif field.child is not None:
                stays = self._enter(field.child, value, found, doom)
            else:
                stays = self._nameless(field, found, doom)
            if not stays:
                del entries[key]
                self._changed = True

    def _entry(self, field: FieldPlan, key: tuple[str, str], value: Any) -> bool:
        """An entry whose key names a subject: a record."""
        child = field.child
        ids = [key] if child is None else [key, *self._named(child, value)]
        if not self._admits(classes_of(ids, self._classes)):
            self._state.dropped += 1 + (0 if child is None else within(self._source, child, value))
            return False
        inside = set() if field.category is None else {field.category}
        stays = child is None or self._value(child, value, inside)
        if stays:
            self._units.append(Unit(ids, inside))
        return stays

    def _named(self, plan: Plan, message: Any) -> Ids:
        if not plan.is_any:
            return named(plan, message)
        payload = self._source.payload(plan, message)
        return [] if payload is None else self._named(payload.plan, payload.message)

    @staticmethod
    def _nameless(field: FieldPlan, found: set[str], doom: _Doom) -> bool:
        """A plain entry under an empty key, in a map whose keys name subjects: it is the enclosing subject's."""
        if doom is _Doom.ALL or (doom is _Doom.PERSONAL and field.category not in IMPERSONAL):
            return False
        found.add(field.category or UNCLASSIFIED)
        return True

    def _redact(self, field: FieldPlan, message: Any, categories: tuple[str, ...] | None) -> None:
        """Clear a field with all it holds; it counts under each category it held (`categories`, where known)."""
        self._state.redact(categories or held(self._source, field, message)[1] or (UNCLASSIFIED,))
        field.clear(message)
        self._changed = True

    def _drop(self, field: FieldPlan, message: Any) -> None:
        """Clear a field that belongs to a removed record, with any records that stand in it."""
        units, _ = held(self._source, field, message)
        self._state.dropped += len(units)
        field.clear(message)
        self._changed = True

    def _mask(self, field: FieldPlan, message: Any, found: set[str]) -> None:
        """Hide all but the end of text. What is no text, or is the key of a map, is cleared."""
        value: Any = list(field.get(message)) if field.repeated else field.get(message)
        if not field.text or not (_all_text(value) if field.repeated else isinstance(value, str)):
            self._redact(field, message, None)
            return
        category = field.category or UNCLASSIFIED
        found.add(category)
        masked = [_masked(one) for one in value] if field.repeated else _masked(value)
        if masked != value:
            field.put(message, masked)
            self._state.redact((category,))
            self._changed = True


def _all_text(values: Iterable[object]) -> bool:
    return all(isinstance(one, str) for one in values)


def _masked(text: str) -> str:
    hidden = len(text) - SHOWN
    return "*" * len(text) if hidden < SHOWN else "*" * hidden + text[hidden:]


def _copy(parsed: ParsedMessage) -> Message:
    message = parsed.plan.new()
    message.CopyFrom(parsed.message)
    return message
