"""A message inspected once: whom it names, how many records it holds, and whether anything in it escapes description.

An ordinary message is inspected as the bytes it is (`wire`). The walk here says what that has to find, and finds it
itself in every other message: with maps, Any values, unknown fields, or in an unusual order.
"""

from typing import Any, Literal, NamedTuple, Self

import msgspec
from google.protobuf.message import DecodeError, Message

from sidecar._native import Reading
from sidecar.attributes import wire
from sidecar.attributes.countries import country_class
from sidecar.attributes.plans import FieldPlan, Plan, Plans
from sidecar.errors import InterceptError

MAX_PARTS = 10_000
"""Subjects, records and Any values in one message, at most: inspecting and recording them takes time and space that
everybody else shares (a decision about n subjects is recorded in n / 500 parts)."""
MAX_STEPS = 100_000
"""Messages and map entries in one message, at most, empty ones included."""
_NOBODY: frozenset[Plan] = frozenset()
_WEIGHT = {"": 0, "non_us": 1, "unknown": 3, "us": 5}


class MalformedMessageError(InterceptError):
    """Bytes that are no message of the method's type, or one nested more deeply than can be inspected."""


class Seen(msgspec.Struct, frozen=True, gc=False):
    """A data subject that a message names. `id` is exact UTF-8, integers as decimal.

    `country` is what the message says about the subject (always None in a request, where it would be no evidence);
    `authoritative` whether it may clear a subject whom the index does not know.
    """

    kind: str
    id: str
    country: str | None = None
    authoritative: bool = False


class Payload(NamedTuple):
    """What an Any holds. `unknown`: it has unknown fields, which `message` is already without."""

    plan: Plan
    message: Message
    unknown: bool


class ParsedMessage:
    """A message as inspected.

    `data` is the original bytes. `message` is parsed from them *without its unknown fields*. `subjects` are distinct
    by (kind, id). `unnamed` counts records that name nobody. `records` counts records, unnamed ones included, and
    every other message that names a subject of its own. `unclassified`: there are unknown fields, or an Any that
    cannot be resolved; `stripped`: there are unknown fields outside of any Any. `payloads` are the plans of the types
    found inside of Any fields, which no static description of the method knows. `exact`: encoding `message` gives
    `data` again. `reading` is that of the bytes themselves, where they could be read so: then they are exact, without
    unknown fields and without Any values.
    """

    __slots__ = ("_message", "data", "exact", "payloads", "reading", "records", "source", "stripped", "subjects",
                 "unclassified", "unnamed")  # fmt: skip

    def __init__(
        self, source: "MessagePlan", data: bytes, reading: Reading | None = None, subjects: tuple[Seen, ...] = (),
        records: int = 0, unnamed: int = 0,
    ) -> None:  # fmt: skip
        """As it is where the bytes were read; the walk says what is otherwise."""
        self.source, self.data, self.reading = source, data, reading
        self.subjects, self.records, self.unnamed = subjects, records, unnamed
        self.exact: bool = True
        self.stripped: bool = False
        self.unclassified: bool = False
        self.payloads: frozenset[Plan] = _NOBODY
        self._message: Message | None = None

    @classmethod
    def of(cls, source: "MessagePlan", data: bytes, message: Message, *, exact: bool, unknown: bool) -> Self:
        """One that was parsed, before the walk. `unknown`: unknown fields were taken out of it."""
        parsed = cls(source, data)
        parsed.exact, parsed.stripped, parsed.unclassified, parsed._message = exact, unknown, unknown, message
        return parsed

    @property
    def plan(self) -> Plan:
        """Of its type."""
        return self.source.plan

    @property
    def message(self) -> Message:
        """Parsed when it is first asked for. Read-only: everybody gets the same."""
        if self._message is None:
            self._message = self.plan.new.FromString(self.data)
        return self._message

    def whole(self) -> Message:
        """A fresh copy of the message with its unknown fields."""
        return self.plan.new.FromString(self.data)


class MessagePlan:
    """How messages of one type are parsed for one direction."""

    __slots__ = ("_read", "about", "described", "evidence", "number", "plan", "plans", "wire")

    def __init__(
        self, plans: Plans, name: str, *, direction: Literal["request", "answer"],
        about: Literal["named", "nobody"] = "nobody", described: frozenset[str] = frozenset(),
    ) -> None:  # fmt: skip
        """The message type `name` of the set. Countries are read from answers only.

        `about`: whom data outside any subject concerns, those the call has named or nobody who is known. `described`:
        the categories that every decision about the method knows of.
        """
        self.plans = plans
        self.plan = plans.of(name)
        self.evidence = direction == "answer"
        self.about = about
        self.described = described
        self.wire = wire.of(plans)
        self.number = self.wire.number(self.plan)
        self._read = self.wire.shapes.read

    def parse(self, data: bytes) -> ParsedMessage:
        """Parse and inspect. MalformedMessageError (INVALID_ARGUMENT) when the bytes are not such a message."""
        number = self.number
        found = None if number is None else self._read(number, data, self.evidence)
        if found is None:
            return self.walk(data)
        reading, named_here, records, unnamed = found
        if len(named_here) == 1:
            return ParsedMessage(self, data, reading, (Seen(*named_here[0]),), records, unnamed)
        return ParsedMessage(self, data, reading, tuple([Seen(*one) for one in named_here]), records, unnamed)

    def walk(self, data: bytes) -> ParsedMessage:
        """The same, always by way of the parsed message."""
        plan = self.plan
        try:
            message = plan.new.FromString(data)
            message.DiscardUnknownFields()
            if encode(message) == data:  # so nothing was discarded: what is left would not give the same bytes
                parsed = ParsedMessage.of(self, data, message, exact=True, unknown=False)
            else:
                message = plan.new.FromString(data)
                parsed = ParsedMessage.of(self, data, message, exact=False, unknown=strip(message))
            if plan.leads:
                walk = _Walk(self, parsed)
                walk.enter(plan, message, 1, counted=False)
                parsed.subjects = tuple(walk.seen.values())
        except DecodeError:
            raise MalformedMessageError(f"the message is no {plan.name}") from None
        except UnicodeDecodeError:
            raise MalformedMessageError(f"the message holds a map key that is not UTF-8 ({plan.name})") from None
        return parsed

    def payload(self, plan: Plan, message: Any) -> Payload | None:
        """What an Any holds; None when its type is not in the set or its bytes are not of that type."""
        target = self.plans.payload(message.type_url, plan.inherited)
        if target is None:
            return None
        try:
            inside = target.new.FromString(message.value)
        except DecodeError:
            return None
        return Payload(target, inside, strip(inside))


def encode(message: Message) -> bytes:
    """Deterministic, and without a check for required fields, which an obligation may have cleared."""
    return message.SerializePartialToString(deterministic=True)


def strip(message: Message) -> bool:
    """Discard unknown fields at every level; whether there were any."""
    size = len(message.SerializePartialToString())
    message.DiscardUnknownFields()
    return len(message.SerializePartialToString()) != size


def filled(message: Message) -> bool:
    """Whether any field that the type declares is on the wire."""
    return bool(message.ListFields())


def named(plan: Plan, message: Message) -> list[tuple[str, str]]:
    """The (kind, id) of each subject that the message itself names. Empty and zero ids name nobody.

    MalformedMessageError for an id that is not UTF-8.
    """
    found: list[tuple[str, str]] = []
    for kind, get, many in plan.ids:
        value = get(message)
        if many:
            found.extend((kind, as_text(one)) for one in value if one)
        elif value:
            found.append((kind, value if type(value) is str else as_text(value)))
    return found


def as_text(value: object) -> str:
    """An id as exact text, integers as decimal. A proto2 string that is not UTF-8 comes from the runtime as bytes."""
    if isinstance(value, bytes):
        raise MalformedMessageError("a subject id or country is not UTF-8")
    return str(value)


class _Walk:
    """One walk over a message, down the fields that lead anywhere."""

    __slots__ = ("parsed", "parts", "seen", "source", "steps")

    def __init__(self, source: MessagePlan, parsed: ParsedMessage) -> None:
        self.source, self.parsed = source, parsed
        self.parts = self.steps = 0
        self.seen: dict[tuple[str, str], Seen] = {}

    def enter(self, plan: Plan, message: Any, depth: int, *, counted: bool) -> None:
        """Look at one message. `counted`: it is the value of a map entry that already counts as a record."""
        self._step()
        if depth > plan.deepest:
            raise MalformedMessageError("the message is nested too deeply")
        if plan.is_any:
            self._payload(plan, message, depth, counted=counted)
            return
        if plan.names:
            self._names(plan, message, counted=counted)
        for field in plan.visits:
            child = field.child
            if child is None or not field.descends:
                self._entries(field, message, depth)
            elif field.form == "messages":
                for one in field.get(message):
                    self.enter(child, one, depth + 1, counted=False)
            elif field.has(message):
                self.enter(child, field.get(message), depth + 1, counted=False)

    def _entries(self, field: FieldPlan, message: Any, depth: int) -> None:
        entries = field.get(message)
        for key in entries:
            self._step()
            counted = False
            if field.kind is not None and key:
                self._add(Seen(field.kind, as_text(key)))
                self.parsed.records += 1
                counted = True
            if field.child is not None:
                self.enter(field.child, entries[key], depth + 1, counted=counted)

    def _step(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise MalformedMessageError(f"the message holds more than {MAX_STEPS} messages and map entries")

    def _part(self) -> None:
        self.parts += 1
        if self.parts > MAX_PARTS:
            raise MalformedMessageError(f"the message holds more than {MAX_PARTS} subjects, records and Any values")

    def _payload(self, plan: Plan, message: Any, depth: int, *, counted: bool) -> None:
        if not filled(message):
            return
        self._part()
        payload = self.source.payload(plan, message)
        if payload is None:
            self.parsed.unclassified = True
            return
        self.parsed.unclassified = self.parsed.unclassified or payload.unknown
        self.parsed.payloads |= {payload.plan}
        self.enter(payload.plan, payload.message, depth + 1, counted=counted)

    def _names(self, plan: Plan, message: Any, *, counted: bool) -> None:
        ids = named(plan, message)
        if not ids:
            if plan.is_record and not counted and filled(message):
                self._part()
                self.parsed.records += 1
                self.parsed.unnamed += 1
            return
        if not counted:
            self.parsed.records += 1
        country, authoritative = None, False
        if plan.country is not None and self.source.evidence:
            read, authoritative = plan.country
            country = as_text(read(message)) or None
        for kind, name in ids:
            self._add(Seen(kind, name, country, authoritative and country is not None))

    def _add(self, seen: Seen) -> None:
        self._part()
        key = (seen.kind, seen.id)
        before = self.seen.get(key)
        if before is None or _weight(seen) > _weight(before):
            self.seen[key] = seen


def _weight(seen: Seen) -> int:
    """Of two statements about one subject the more sensitive stands; then the one that may clear."""
    return _WEIGHT[country_class(seen.country) if seen.country else ""] + (
        seen.authoritative and seen.country is not None
    )
