"""Plans: for each message type, worked out once, which fields lead to subjects, records and categories.

A plan belongs to a type *and* to what the field that leads there says about everything below it: a category on a
message-typed field holds for all fields underneath that say nothing themselves (`google.protobuf.Timestamp` cannot be
annotated). Plans form the same graph as the types, cycles included, and are made on first use.
"""

from collections.abc import Callable, Iterator
from math import copysign
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from sidecar.attributes.descriptors import Descriptors
from sidecar.attributes.words import UNCLASSIFIED, DataWords, FieldWords, Words

MAX_DEPTH = 60
"""Nesting this deep is malformed: `DiscardUnknownFields` of protobuf 7.36 silently stops at 63 levels, where unknown
fields would go unseen; the parser itself stops at 100."""
_SHALLOW = 30
ANY = "google.protobuf.Any"
WRAPPERS = frozenset(
    f"google.protobuf.{name}Value" for name in ("String", "Int32", "Int64", "UInt32", "UInt64")
)  # fmt: skip
_FLOATS = frozenset({FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT})

Form = Literal["leaf", "leaves", "message", "messages", "map_leaf", "map_message"]


class Inherited(NamedTuple):
    """What the field above says about everything below it. `key`: it holds an id or a country, not data."""

    data: DataWords | None = None
    key: bool = False


class FieldPlan:
    """One field of a plan.

    `category` is None only for ids and countries, and for messages that say nothing. `kind`: that of the subject ids
    it holds, as a value or as a map's keys; `entries`: a map whose values or keys lead further; `descends`: a message
    whose own fields carry the category; `whole`: what it holds can only go as one. `get`, `has` (it is on the wire),
    `clear` and `put` work on a message. `shows` is `has` where only true or false is asked, without a frame of its own
    for a plain value. `country`: it says where the subjects of its message are.
    """

    __slots__ = ("category", "child", "clear", "country", "data", "descends", "descriptor", "entries", "form", "get",
                 "has", "key", "kind", "path", "put", "repeated", "shows", "text", "whole")  # fmt: skip

    def __init__(self, one: FieldDescriptor, words: FieldWords, inherited: Inherited) -> None:
        self.descriptor = one
        self.path: str = one.full_name
        self.form: Form = _form(one)
        self.repeated: bool = self.form not in ("leaf", "message")
        self.get, self.has, self.clear, self.put = _accessors(one, repeated=self.repeated)
        plain = not one.has_presence and not one.is_extension and (self.repeated or one.type not in _FLOATS)
        self.shows: Callable[[Any], Any] = self.get if plain else self.has
        self.kind: str | None = words.subject
        self.country: bool = words.country is not None
        self.key: bool = words.subject is not None or words.country is not None or inherited.key
        self.descends: bool = self.form in ("message", "messages")
        self.data: DataWords | None = words.data or inherited.data
        self.category: str | None = self.data.category if self.data is not None else None
        if self.category is None and _says_nothing(self):
            self.category = UNCLASSIFIED
        keyed = self.kind is not None and not self.descends and self.form.startswith("map")
        self.entries: bool = keyed or self.form == "map_message"
        self.whole: bool = not self.descends and not keyed
        self.text: bool = one.type == FieldDescriptor.TYPE_STRING
        self.child: Plan | None = None


class Id(NamedTuple):
    """Where a message names subjects: `many` when the field is repeated."""

    kind: str
    get: Callable[[Any], Any]
    many: bool


class Plan:
    """What to look for in messages of one type.

    `fields` are in ascending order, as they stand in bytes, and extensions after them. `ids` are its own subject ids and `names` says whether there are any; `visits` are the fields below which a
    subject, a record, an Any or a cycle may be; `leaves` its own data by category; `inner` the message fields that
    may hold data of further categories or other subjects; `deepest` how deep a message of this type may stand.
    """

    __slots__ = ("country", "deepest", "depth", "fields", "governed", "ids", "inherited", "inner", "is_any", "is_record", "leads",
                 "leaves", "name", "names", "new", "reach", "visits")  # fmt: skip

    def __init__(self, descriptor: Descriptor, inherited: Inherited, *, is_record: bool) -> None:
        self.inherited = inherited
        self.name: str = descriptor.full_name
        self.new: type[Message] = GetMessageClass(descriptor)
        self.is_record = is_record
        self.reach: object = None
        """What `reach.reach_of` found, once it was asked."""
        self.is_any: bool = descriptor.full_name == ANY
        self.fields: tuple[FieldPlan, ...] = ()
        self.ids: tuple[Id, ...] = ()
        self.names: bool = False
        self.country: tuple[Callable[[Any], str], bool] | None = None
        self.leaves: tuple[tuple[str, tuple[Callable[[Any], bool], ...]], ...] = ()
        self.visits: tuple[FieldPlan, ...] = ()
        self.inner: tuple[FieldPlan, ...] = ()
        self.governed: frozenset[str] = frozenset()
        self.leads: bool = False
        self.depth: int = 0
        self.deepest: int = MAX_DEPTH


class Plans:
    """All plans of an API. Bounded by its types; safe to share, since a plan does not change once it is returned."""

    def __init__(self, descriptors: Descriptors, words: Words) -> None:
        self._descriptors = descriptors
        self._words = words
        self._made: dict[tuple[str, Inherited], Plan] = {}
        self.wire: object = None
        """What `wire.of` made, once it was asked."""

    def of(self, name: str, inherited: Inherited = Inherited()) -> Plan:  # noqa: B008 - an immutable value
        """The plan of a message type of the set, by full name."""
        plan = self._made.get((name, inherited))
        if plan is None:
            fresh: dict[tuple[str, Inherited], Plan] = {}
            plan = self._make(self._descriptors.messages[name], inherited, fresh)
            _settle(list(fresh.values()))
            self._made.update(fresh)
        return plan

    def payload(self, type_url: str, inherited: Inherited) -> Plan | None:
        """The plan of an Any's payload (its type is what follows the last slash); None for a type not in the set."""
        _, slash, name = type_url.rpartition("/")
        return self.of(name, inherited) if slash and name in self._descriptors.messages else None

    def _make(self, descriptor: Descriptor, inherited: Inherited, fresh: dict[tuple[str, Inherited], Plan]) -> Plan:
        key = (descriptor.full_name, inherited)
        known = self._made.get(key) or fresh.get(key)
        if known is not None:
            return known
        plan = fresh[key] = Plan(descriptor, inherited, is_record=descriptor.full_name in self._words.records)
        fields = []
        for one in self._fields(descriptor):
            words = self._words.fields.get(one.full_name, FieldWords())
            field = FieldPlan(one, words, inherited)
            target = _target(one)
            if target is not None:
                field.child = self._make(
                    target, Inherited(field.data, field.key and field.form != "map_message"), fresh
                )
            fields.append(field)
            if words.subject is not None and field.form not in ("map_leaf", "map_message"):
                plan.ids += (_id(one, words.subject),)
            if words.country is not None:
                plan.country = (attrgetter(one.name + (".value" if target is not None else "")), words.country)
        plan.fields = tuple(fields)
        plan.names = bool(plan.ids)
        plan.leaves = _leaves(plan)
        return plan

    def _fields(self, descriptor: Descriptor) -> Iterator[FieldDescriptor]:
        yield from sorted(descriptor.fields, key=attrgetter("number"))
        if descriptor.is_extendable:
            yield from self._descriptors.pool.FindAllExtensions(descriptor)


def is_map(one: FieldDescriptor) -> bool:
    """Whether a field is a map."""
    target = one.message_type
    return target is not None and target.has_options and target.GetOptions().map_entry


def _form(one: FieldDescriptor) -> Form:
    if one.message_type is None:
        return "leaves" if one.is_repeated else "leaf"
    if is_map(one):
        value = one.message_type.fields_by_name["value"]
        return "map_leaf" if value.message_type is None else "map_message"
    return "messages" if one.is_repeated else "message"


def _target(one: FieldDescriptor) -> Descriptor | None:
    """The message type that a field holds, looking through map entries."""
    if one.message_type is not None and is_map(one):
        found: Descriptor | None = one.message_type.fields_by_name["value"].message_type
        return found
    target: Descriptor | None = one.message_type
    return target


def _says_nothing(field: FieldPlan) -> bool:
    """Whether the field holds data of no known kind: a value, or the keys of a map that do not name subjects."""
    if field.form == "map_leaf":
        return True
    return not field.key and not field.descends


def _id(one: FieldDescriptor, kind: str) -> Id:
    if one.message_type is None:
        return Id(kind, attrgetter(one.name), one.is_repeated)
    if one.is_repeated:
        whole = attrgetter(one.name)
        return Id(kind, lambda message: [item.value for item in whole(message)], many=True)
    return Id(kind, attrgetter(f"{one.name}.value"), many=False)


class _Accessors(NamedTuple):
    get: Callable[[Any], Any]
    has: Callable[[Any], bool]
    clear: Callable[[Any], None]
    put: Callable[[Any, Any], None]


def _accessors(one: FieldDescriptor, *, repeated: bool) -> _Accessors:
    """How to read a field, tell whether it is on the wire, clear it and set it."""
    if one.is_extension:
        return _extension(one, repeated=repeated)
    name = one.name
    get = attrgetter(name)

    def has(message: Any) -> bool:
        return bool(message.HasField(name))

    def clear(message: Any) -> None:
        message.ClearField(name)

    def put(message: Any, value: Any) -> None:
        if repeated:
            get(message)[:] = value
        else:
            setattr(message, name, value)

    if one.has_presence:
        return _Accessors(get, has, clear, put)
    if not repeated and one.type in _FLOATS:
        # Negative zero is false, and is on the wire.
        return _Accessors(get, lambda m: bool(get(m)) or copysign(1.0, get(m)) < 0, clear, put)
    return _Accessors(get, lambda m: bool(get(m)), clear, put)


def _extension(one: FieldDescriptor, *, repeated: bool) -> _Accessors:
    def get(message: Any) -> Any:
        return message.Extensions[one]

    def has(message: Any) -> bool:
        return bool(message.Extensions[one]) if repeated else bool(message.HasExtension(one))

    def clear(message: Any) -> None:
        message.ClearExtension(one)

    def put(message: Any, value: Any) -> None:
        if repeated:
            get(message)[:] = value
        else:
            message.Extensions[one] = value

    return _Accessors(get, has, clear, put)


def _leaves(plan: Plan) -> tuple[tuple[str, tuple[Callable[[Any], bool], ...]], ...]:
    """Presence checks by category. A message field with a category counts like a leaf: it is there or it is not."""
    found: dict[str, list[Callable[[Any], bool]]] = {}
    for field in plan.fields:
        if field.category is not None and not _keyed(field):
            found.setdefault(field.category, []).append(field.has)
    return tuple((category, tuple(checks)) for category, checks in found.items())


def _settle(plans: list[Plan]) -> None:
    """Work out, over the whole graph, what each plan leads to and how deep it goes."""
    changed = True
    while changed:
        changed = False
        for plan in plans:
            children = [field.child for field in plan.fields if field.child is not None]
            depth = min(1 + max((child.depth for child in children), default=0), MAX_DEPTH)
            leads = (
                plan.names or plan.is_any or plan.is_record or depth > _SHALLOW
                or any(child.leads for child in children) or any(_keyed(field) for field in plan.fields)
            )  # fmt: skip
            governed = frozenset(category for category, _ in plan.leaves).union(*(child.governed for child in children))
            if (depth, leads, governed) != (plan.depth, plan.leads, plan.governed):
                plan.depth, plan.leads, plan.governed = depth, leads, governed
                changed = True
    for plan in plans:
        below = [(field, field.child) for field in plan.fields if field.child is not None]
        plan.visits = tuple(
            field for field in plan.fields if _keyed(field) or (field.child is not None and field.child.leads)
        )
        tail = max((child.depth for _, child in below if not child.leads), default=0)
        plan.deepest = MAX_DEPTH - tail
        plan.inner = tuple(field for field in plan.fields if _keyed(field) or _holds_more(field))


def _holds_more(field: FieldPlan) -> bool:
    """Whether a look inside can show another subject, or a category that the field's presence does not show already."""
    return field.child is not None and (field.child.leads or not field.child.governed <= {field.category})


def _keyed(field: FieldPlan) -> bool:
    """Whether the field is a map whose keys are subject ids: each entry is a record of its own."""
    return field.kind is not None and field.form in ("map_leaf", "map_message")
