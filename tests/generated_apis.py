"""Made-up APIs of every shape, messages of theirs, and bytes that are nearly such messages."""

import itertools
import math
from functools import lru_cache
from random import Random
from typing import NamedTuple

from google.protobuf import any_pb2, descriptor_pb2, timestamp_pb2, wrappers_pb2

from sidecar.attributes import descriptors
from sidecar.attributes.messages import MessagePlan, encode
from sidecar.attributes.plans import Plans
from sidecar.attributes.words import DataWords, FieldWords, Words

CATEGORIES = ("public", "aggregate", "id_contact", "behaviour", "id_government", "user_content", "unclassified")
TEXTS = ("", "a", "us-1", "us-2", "fr-1", "who", "US", "DE", "ZZ", "é" * 5, "someone@example.com",
         "\0", "*****", "😀" * 9)  # fmt: skip
NUMBERS = (0, 1, 2, 7, 127, 128, 300, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 53) + 1,
           (1 << 63) - 1, (1 << 64) - 1)  # fmt: skip
FLOATS = (0.0, -0.0, 1.5, -2.0, math.inf, math.nan)
_F = descriptor_pb2.FieldDescriptorProto
_SCALARS = tuple(one for one in range(1, 19) if one not in (_F.TYPE_GROUP, _F.TYPE_MESSAGE, _F.TYPE_ENUM))
_NUMERIC = frozenset(range(1, 19)) - {_F.TYPE_STRING, _F.TYPE_BYTES, _F.TYPE_MESSAGE, _F.TYPE_GROUP}
_IDS = frozenset({3, 4, 5, 6, 7, 9, 13, 15, 16, 17, 18})
_SIGNED, _WIDE = frozenset({3, 5, 15, 16, 17, 18}), frozenset({3, 4, 6, 16, 18})
_WRAPPERS = tuple(f".google.protobuf.{one}Value" for one in ("String", "Int32", "Int64", "UInt32", "UInt64"))
_OTHERS = (".google.protobuf.Timestamp", ".google.protobuf.Any", ".google.protobuf.BoolValue")
_RUNTIME = (wrappers_pb2, timestamp_pb2, any_pb2)


class Api(NamedTuple):
    """An API, the plans of its answers, and the paths and categories of its fields."""

    plans: tuple[MessagePlan, ...]
    fields: tuple[str, ...]


@lru_cache(maxsize=64)
def api(seed: int) -> Api:
    """The API that belongs to a number."""
    return _Maker(Random(seed)).api()


class _Maker:
    def __init__(self, dice: Random) -> None:
        self.dice = dice
        self.syntax = dice.choice(("proto3", "proto3", "proto2", "editions"))
        self.file = descriptor_pb2.FileDescriptorProto(name="g.proto", package="g", syntax=self.syntax)
        if self.syntax == "editions":
            self.file.edition = descriptor_pb2.EDITION_2023
        self.file.dependency.extend(module.DESCRIPTOR.name for module in _RUNTIME)
        self.data: dict[str, FieldWords] = {}
        self.records: set[str] = set()

    def api(self) -> Api:
        enum = self.file.enum_type.add(name="E")
        for number in (0, 1, 2, -5):
            enum.value.add(name=f"E{number}".replace("-", "_"), number=number)
        if self.syntax == "editions" and self.dice.random() < 0.3:
            enum.options.features.enum_type = descriptor_pb2.FeatureSet.CLOSED
        names = [f"M{number}" for number in range(self.dice.randint(1, 4))]
        for name in names:
            self.message(name, names)
        service = self.file.service.add(name="S")
        service.method.add(name="Do", input_type=".g.M0", output_type=".g.M0")
        found = descriptor_pb2.FileDescriptorSet(file=[self.file])
        plans = Plans(
            descriptors.parse(found.SerializeToString(), "g"),
            Words(fields=self.data, records=frozenset(self.records), methods={}),
        )
        made = tuple(
            MessagePlan(plans, f"g.{name}", direction=direction, about=about, described=frozenset(CATEGORIES[:4]))
            for name in names for direction, about in (("answer", "named"), ("answer", "nobody"), ("request", "named"))
        )  # fmt: skip
        return Api(
            made, tuple(f"g.{message.name}.{one.name}" for message in self.file.message_type for one in message.field)
        )

    def message(self, name: str, names: list[str]) -> None:
        dice = self.dice
        message = self.file.message_type.add(name=name)
        numbers = dice.sample([*range(1, 20), 2000, 536870911], dice.randint(1, 7))
        oneofs = dice.randint(0, 2)
        for place in range(oneofs):
            message.oneof_decl.add(name=f"choice{place}")
        optional = []
        for number in numbers:
            field = message.field.add(name=f"f{number}", number=number, label=_F.LABEL_OPTIONAL)
            self.type(field, message, names)
            if dice.random() < 0.3:
                field.label = _F.LABEL_REPEATED
                if field.type in _NUMERIC and dice.random() < 0.4:
                    self.packed(field, packed=dice.random() < 0.5)
            elif field.label == _F.LABEL_OPTIONAL and oneofs and dice.random() < 0.4:
                field.oneof_index = dice.randrange(oneofs)
            elif field.label == _F.LABEL_OPTIONAL and field.type != _F.TYPE_MESSAGE:
                self.presence(field, optional)
        for place in range(oneofs):  # a oneof must not be empty
            if not any(one.HasField("oneof_index") and one.oneof_index == place for one in message.field):
                message.field.add(
                    name=f"c{place}",
                    number=100 + place,
                    type=_F.TYPE_STRING,
                    label=_F.LABEL_OPTIONAL,
                    oneof_index=place,
                )
        for field in optional:
            field.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{field.name}")
        if self.syntax == "proto2" and dice.random() < 0.1:
            message.extension_range.add(start=1000, end=1010)
        self.describe(message)

    def type(self, field, message, names: list[str]) -> None:
        dice, kind = self.dice, self.dice.random()
        if kind < 0.55:
            field.type = dice.choice(_SCALARS + (_F.TYPE_STRING,) * 8)
        elif kind < 0.62:
            field.type, field.type_name = _F.TYPE_ENUM, ".g.E"
        elif kind < 0.8:
            field.type, field.type_name = _F.TYPE_MESSAGE, f".g.{dice.choice(names)}"
        elif kind < 0.93:
            field.type, field.type_name = _F.TYPE_MESSAGE, dice.choice(_WRAPPERS + _OTHERS)
        elif self.syntax == "proto2" and kind < 0.95:
            field.name = f"g{field.number}"
            message.nested_type.add(name=f"G{field.number}").field.add(
                name="x", number=1, type=_F.TYPE_STRING, label=_F.LABEL_OPTIONAL
            )
            field.type, field.type_name = _F.TYPE_GROUP, f".g.{message.name}.G{field.number}"
        else:
            entry = message.nested_type.add(name=f"F{field.number}Entry")
            entry.options.map_entry = True
            entry.field.add(name="key", number=1, type=_F.TYPE_STRING, label=_F.LABEL_OPTIONAL)
            entry.field.add(name="value", number=2, type=_F.TYPE_STRING, label=_F.LABEL_OPTIONAL)
            field.type, field.type_name = _F.TYPE_MESSAGE, f".g.{message.name}.F{field.number}Entry"
            field.label = _F.LABEL_REPEATED

    def packed(self, field, *, packed: bool) -> None:
        if self.syntax == "editions":
            kind = descriptor_pb2.FeatureSet
            field.options.features.repeated_field_encoding = kind.PACKED if packed else kind.EXPANDED
        else:
            field.options.packed = packed

    def presence(self, field, optional: list) -> None:
        dice = self.dice
        if self.syntax == "proto3" and dice.random() < 0.3:
            field.proto3_optional = True
            optional.append(field)
        elif self.syntax == "proto2" and dice.random() < 0.05:
            field.label = _F.LABEL_REQUIRED
        elif self.syntax == "editions" and dice.random() < 0.5:
            field.options.features.field_presence = descriptor_pb2.FeatureSet.IMPLICIT
            closed = self.file.enum_type[0].options.features.enum_type == descriptor_pb2.FeatureSet.CLOSED
            if field.type == _F.TYPE_ENUM and closed:
                field.options.ClearField("features")
        if self.syntax != "proto3" and field.type in _IDS and dice.random() < 0.2:
            field.default_value = "us-1" if field.type == _F.TYPE_STRING else "7"
            field.options.ClearField("features")
        if self.syntax == "editions" and field.type == _F.TYPE_STRING and dice.random() < 0.3:
            field.options.features.utf8_validation = descriptor_pb2.FeatureSet.NONE

    def describe(self, message) -> None:
        dice, named, country = self.dice, False, False
        for field in message.field:
            path = f"g.{message.name}.{field.name}"
            said = None if dice.random() < 0.3 else DataWords(category=dice.choice(CATEGORIES))
            map_ = field.type_name.endswith("Entry")
            if (field.type in _IDS or field.type_name in _WRAPPERS or map_) and dice.random() < 0.3:
                self.data[path] = FieldWords(
                    data=said if dice.random() < 0.2 or map_ else None, subject=dice.choice(("person", "account"))
                )
                named = named or not map_
            elif said is not None:
                self.data[path] = FieldWords(data=said)
        for field in message.field:
            text = field.type == _F.TYPE_STRING or field.type_name == _WRAPPERS[0]
            path = f"g.{message.name}.{field.name}"
            words = self.data.get(path, FieldWords())
            fits = text and field.label != _F.LABEL_REPEATED and words.subject is None
            if named and not country and fits and dice.random() < 0.5:
                self.data[path] = FieldWords(data=words.data, country=dice.random() < 0.5)
                country = True
        if named and dice.random() < 0.6:
            self.records.add(f"g.{message.name}")


def content(plan: MessagePlan, dice: Random) -> bytes:
    """A message as the runtime encodes it."""
    message = plan.plan.new()
    _fill(message, dice, 0)
    return encode(message)


def _fill(message, dice: Random, depth: int) -> None:
    message.SetInParent()
    for field in message.DESCRIPTOR.fields:
        if dice.random() < 0.35 or (field.message_type is not None and depth > 3):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, field.name)[dice.choice(TEXTS)] = dice.choice(TEXTS)
        elif field.message_type is not None:
            many = field.is_repeated
            for _ in range(dice.randint(1, 3) if many else 1):
                _fill(getattr(message, field.name).add() if many else getattr(message, field.name), dice, depth + 1)
        elif field.is_repeated:
            getattr(message, field.name).extend(_value(field, dice) for _ in range(dice.randint(0, 3)))
        else:
            setattr(message, field.name, _value(field, dice))


def _value(field, dice: Random):
    kind = field.type
    if kind == _F.TYPE_STRING:
        return dice.choice(TEXTS)
    if kind == _F.TYPE_BYTES:
        return dice.choice(TEXTS).encode()
    if kind == _F.TYPE_BOOL:
        return dice.random() < 0.6
    if kind in (_F.TYPE_DOUBLE, _F.TYPE_FLOAT):
        return dice.choice(FLOATS)
    if kind == _F.TYPE_ENUM:
        return dice.choice((0, 1, 2, -5) if field.enum_type.is_closed else (0, 1, 2, -5, 99, -99))
    bits = 64 if kind in _WIDE else 32
    number = dice.choice(NUMBERS) % (1 << bits)
    return number - (1 << bits) if kind in _SIGNED and number >> (bits - 1) else number


def nearly(data: bytes, dice: Random, other: bytes = b"") -> bytes:
    """The same bytes with something wrong, or merely unusual, in them; often several things.

    `other`: another message of the type, of which fields may be taken.
    """
    for _ in range(dice.randint(1, 2)):
        at = dice.randint(0, len(data))
        end = min(len(data), at + dice.randint(1, 12))
        match dice.randrange(13):
            case 0:
                data = data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]
            case 1:
                data = data[:at] + bytes([dice.randrange(256)]) + data[at:]
            case 2:
                data = data[:at] + data[end:]
            case 3:
                data = data + data[at:end]
            case 4:
                data = data[:at] + data[at:end] * 2 + data[end:]
            case 5:
                data = _shuffled(data, dice)
            case 6 if at < len(data):  # a number with more bytes than it needs
                data = data[:at] + bytes([data[at] | 0x80, 0]) + data[at + 1 :]
            case 7:
                data = data + b"\xfa\x3f\x05extra"
            case 8:
                data = _with_default(data, dice)
            case 9 if other:  # in order, but perhaps with two of a oneof
                parts = {_varint(part, 0)[0]: part for part in (*_fields(data), *_fields(other))}
                data = b"".join(parts[tag] for tag in sorted(parts))
            case 10 | 11:
                data = _inside(data, dice)
            case _ if at < len(data):
                data = data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]
    return data


def _inside(data: bytes, dice: Random) -> bytes:
    """One message (or text) in the outermost one damaged, and its length put right."""
    parts = list(_fields(data))
    places = [at for at, part in enumerate(parts) if _varint(part, 0)[0] & 7 == 2]
    if not places:
        return data
    at = dice.choice(places)
    _, size = _varint(parts[at], 0)
    _, body = _varint(parts[at], size)
    inner = nearly(parts[at][body:], dice)
    parts[at] = parts[at][:size] + _number(len(inner)) + inner
    return b"".join(parts)


def _shuffled(data: bytes, dice: Random) -> bytes:
    """The fields of the outermost message in another order, or one of them twice."""
    parts = list(_fields(data))
    if not parts:
        return data
    if dice.random() < 0.5:
        parts.append(dice.choice(parts))
    if dice.random() < 0.5:
        dice.shuffle(parts)
    return b"".join(parts)


def _with_default(data: bytes, dice: Random) -> bytes:
    """One field of the outermost message is there, and holds nothing: zero, or no bytes."""
    parts = list(_fields(data))
    if not parts:
        return data
    at = dice.randrange(len(parts))
    tag, body = _varint(parts[at], 0)
    parts[at] = parts[at][:body] + bytes({1: 8, 5: 4}.get(tag & 7, 1))
    return b"".join(parts)


def _fields(data: bytes):
    at = 0
    while at < len(data):
        begin = at
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        elif kind == 2:
            size, at = _varint(data, at)
            at += size
        else:
            at = len(data)
        yield data[begin:at]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in itertools.count():
        if at >= len(data):
            return value, at
        value |= (data[at] & 0x7F) << 7 * place
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise AssertionError


def _number(value: int) -> bytes:
    low, high = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _number(high) if high else bytes([low])
