"""Message types as the compiled reader knows them, which inspects and edits messages as the bytes they are.

`sidecar._native.Shapes` takes only bytes that the protobuf runtime would encode in exactly this way, of types and
fields that it knows whole; for anything else it has no answer, and `messages`, `presence` and `enforcement.editor`,
which say what all this means, look at the parsed message.
"""

from collections.abc import Iterable
from threading import Lock

from google.protobuf import wrappers_pb2
from google.protobuf.descriptor import FieldDescriptor

from sidecar._native import Shapes
from sidecar.attributes.plans import FieldPlan, Plan, Plans
from sidecar.attributes.words import IMPERSONAL, UNCLASSIFIED
from sidecar.vocabulary import CATEGORIES

_WORDS = sorted(CATEGORIES)
_PLACES = {word: place for place, word in enumerate(_WORDS)}
_HARD = 0
_REPEATED, _PACKED, _PRESENCE, _COUNTRY = 1, 2, 4, 8

Words = tuple[int, int, int, int, int, int, str | None]
"""A field as `Shapes.add` takes it."""
TypeWords = tuple[bool, bool, bool, list[Words]]


class Wire:
    """The types of one API, added when a message of theirs is first met. Numbers stay. For any thread."""

    __slots__ = ("_adding", "_numbers", "_plans", "shapes")

    def __init__(self) -> None:
        self.shapes = Shapes(_WORDS, [_PLACES[one] for one in sorted(IMPERSONAL)], _PLACES[UNCLASSIFIED])
        self._numbers: dict[Plan, int] = {}
        self._plans: list[Plan] = []
        self._adding = Lock()

    def number(self, root: Plan) -> int | None:
        """The number of a type; None for one that only the walk can inspect."""
        if not _readable(root):
            return None
        with self._adding:  # two at once would give one number to two types
            if root not in self._numbers:
                self._add(root)
            return self._numbers[root]

    def plan(self, number: int) -> Plan:
        """The type with this number."""
        return self._plans[number]

    def _add(self, root: Plan) -> None:
        numbers, fresh = {root: len(self._plans)}, [root]
        for plan in fresh:
            for field in plan.fields:
                child = field.child
                if child is None or _hard(field) or child in self._numbers or child in numbers:
                    continue
                numbers[child] = len(self._plans) + len(fresh)
                fresh.append(child)
        known = self._numbers | numbers
        self.shapes.add([_type_words(plan, known) for plan in fresh])
        self._plans += fresh
        self._numbers = known


def of(plans: Plans) -> Wire:
    """The types of an API's plans."""
    if not isinstance(plans.wire, Wire):
        plans.wire = Wire()
        return plans.wire
    return plans.wire


def place(category: str | None) -> int:
    """Where a category stands among all there are; -1 for none."""
    return -1 if category is None else _PLACES[category]


def _type_words(plan: Plan, numbers: dict[Plan, int]) -> TypeWords:
    clears = plan.country is not None and plan.country[1]
    return plan.names, plan.is_record, clears, [_field_words(field, numbers) for field in plan.fields]


def _field_words(field: FieldPlan, numbers: dict[Plan, int]) -> Words:
    one, hard = field.descriptor, _hard(field)
    flags = _REPEATED * field.repeated | _PACKED * one.is_packed | _PRESENCE * one.has_presence
    child = -1 if hard or field.child is None else numbers[field.child]
    oneof = -1 if one.containing_oneof is None else one.containing_oneof.index
    return (
        one.number, _HARD if hard else one.type, flags | _COUNTRY * field.country, oneof, child, place(field.category),
        field.kind,
    )  # fmt: skip


def _readable(plan: Plan) -> bool:
    """Whether there is nothing in messages of this type itself that only the runtime knows.

    That is an Any, extensions, required fields, and ids and countries that are there although nothing is on the wire,
    or that are in a wrapper other than the runtime's, of which an API may bring its own.
    """
    if plan.is_any or plan.new.DESCRIPTOR.is_extendable or any(one.descriptor.is_required for one in plan.fields):
        return False
    return all(_plain(one) for one in plan.fields if one.kind is not None or one.country)


def _plain(field: FieldPlan) -> bool:
    """Whether an id or country is what stands on the wire, or in the one field of its wrapper, and otherwise nothing."""
    inside = field.child
    if inside is None:
        return not field.descriptor.default_value
    return field.form.startswith("map") or _shape(one.descriptor for one in inside.fields) == _WRAPPERS.get(inside.name)


def _shape(fields: Iterable[FieldDescriptor]) -> list[tuple[object, ...]]:
    return [(one.name, one.number, one.type, one.is_repeated, one.default_value) for one in fields]


_WRAPPERS = {one.full_name: _shape(one.fields) for one in wrappers_pb2.DESCRIPTOR.message_types_by_name.values()}


def _hard(field: FieldPlan) -> bool:
    """Whether only the runtime can read this field: a map, a group, a closed enum, or a type that is not readable."""
    one = field.descriptor
    if field.form.startswith("map") or one.type == FieldDescriptor.TYPE_GROUP:
        return True
    if one.enum_type is not None and one.enum_type.is_closed:
        return True
    return field.child is not None and not _readable(field.child)
