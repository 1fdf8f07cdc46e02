"""The annotations of `sidecar/api/v1/annotations.proto`, read from the bytes of the options.

They are read by field number (52401-52405), so it does not matter whether a descriptor set carries the file that
declares them, or whether whoever made the set knew the extension. That those numbers mean ours, and nobody else's
extension, is checked wherever the set declares one.
"""

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from sidecar.attributes.descriptors import Descriptors
from sidecar.attributes.words import FieldWords, MethodWords, Words, data_words, method_words
from sidecar.errors import ConfigurationError

PERSON = "person"
"""The kind of an id whose annotation names none."""
NUMBERS: Mapping[tuple[str, int], str] = {
    ("google.protobuf.FieldOptions", 52401): "sidecar.api.v1.data",
    ("google.protobuf.FieldOptions", 52402): "sidecar.api.v1.subject_id",
    ("google.protobuf.FieldOptions", 52403): "sidecar.api.v1.subject_country",
    ("google.protobuf.MessageOptions", 52404): "sidecar.api.v1.record",
    ("google.protobuf.MethodOptions", 52405): "sidecar.api.v1.access",
}
_SUBJECT = {0: "SUBJECT_UNSPECIFIED", 1: "request_field", 2: "answer", 3: "caller", 4: "none"}
_FILE = "customhouse/annotations_view.proto"
_VIEW: Mapping[str, Mapping[int, tuple[str, str]]] = {
    "Data": {1: ("category", "string"), 2: ("class_", "string"), 3: ("letter", "string"), 4: ("precision", "uint32")},
    "SubjectId": {1: ("kind", "string")},
    "SubjectCountry": {1: ("authoritative", "bool")},
    "Record": {},
    "Access": {
        1: ("action", "string"),
        2: ("resource", "string"),
        3: ("categories", "strings"),
        4: ("subject", "int32"),
    },
    "FieldView": {52401: ("data", "Data"), 52402: ("subject", "SubjectId"), 52403: ("country", "SubjectCountry")},
    "MessageView": {52404: ("record", "Record")},
    "MethodView": {52405: ("access", "Access")},
}
"""Messages with the same bytes as the options: the annotations as ordinary fields."""
_SCALARS = {"string": 9, "strings": 9, "bool": 8, "uint32": 13, "int32": 5}


def read(descriptors: Descriptors) -> Words:
    """What the annotations in a set say. ConfigurationError names file, element, value and fix."""
    _check_numbers(descriptors)
    reader = _Reader()
    fields: dict[str, FieldWords] = {}
    records: set[str] = set()
    methods: dict[str, MethodWords] = {}
    for name, options in descriptors.options.items():
        place = descriptors.place(name)
        if name in descriptors.methods:
            said = reader.method(options, place)
            if said is not None:
                methods[name] = said
        elif name in descriptors.messages:
            if reader.is_record(options, place):
                records.add(name)
        else:
            words = reader.field(options, place)
            if words is not None:
                fields[name] = words
    return Words(fields=fields, records=frozenset(records), methods=methods)


class _Reader:
    """Reads options through a view of their own, in a pool of its own."""

    def __init__(self) -> None:
        file = FileDescriptorProto(name=_FILE, package="customhouse.view", syntax="proto3")
        for name, fields in _VIEW.items():
            _declare(file.message_type.add(name=name), fields)
        pool = DescriptorPool()
        pool.AddSerializedFile(file.SerializeToString())
        self._classes: dict[str, type[Message]] = {
            name: GetMessageClass(pool.FindMessageTypeByName(f"customhouse.view.{name}")) for name in _VIEW
        }

    def field(self, options: bytes, where: str) -> FieldWords | None:
        """What a field's options say; None when nothing."""
        data = self._part("FieldView", options, "data", where)
        subject = self._part("FieldView", options, "subject", where)
        country = self._part("FieldView", options, "country", where)
        if data is None and subject is None and country is None:
            return None
        return FieldWords(
            data=None if data is None else data_words(data.category, data.class_, data.letter, data.precision, where),
            subject=None if subject is None else subject.kind or PERSON,
            country=None if country is None else country.authoritative,
        )

    def is_record(self, options: bytes, where: str) -> bool:
        """Whether a message is one record of one subject."""
        return self._part("MessageView", options, "record", where) is not None

    def method(self, options: bytes, where: str) -> MethodWords | None:
        """What a method's options say; None when nothing."""
        access = self._part("MethodView", options, "access", where)
        if access is None:
            return None
        subject = _SUBJECT.get(access.subject, str(access.subject))
        return method_words(access.action, access.resource, access.categories, subject, where)

    def _part(self, view: str, options: bytes, name: str, where: str) -> Any:
        try:
            seen = self._classes[view].FromString(options)
        except DecodeError:
            raise _foreign(where) from None
        if not seen.HasField(name):
            return None
        part: Message = getattr(seen, name)
        size = part.ByteSize()
        part.DiscardUnknownFields()
        if part.ByteSize() != size:
            raise _foreign(where)
        return part


def _declare(message: DescriptorProto, fields: Mapping[int, tuple[str, str]]) -> None:
    for number, (name, kind) in fields.items():
        one = message.field.add(name=name, number=number, label=3 if kind == "strings" else 1)
        if kind in _SCALARS:
            one.type = _SCALARS[kind]  # type: ignore[assignment]
        else:
            one.type = 11  # type: ignore[assignment]
            one.type_name = f".customhouse.view.{kind}"


def _check_numbers(descriptors: Descriptors) -> None:
    for name, one in descriptors.fields.items():
        extended = one.containing_type
        ours = NUMBERS.get((extended.full_name, one.number)) if one.is_extension and extended is not None else None
        if ours not in (None, name):
            raise ConfigurationError(
                f"this extension has the number of {ours}", where=descriptors.place(name), value=one.number,
                fix="Renumber it, or leave its file out of the descriptor set.",
            )  # fmt: skip


def _foreign(where: str) -> ConfigurationError:
    return ConfigurationError(
        "an annotation says more than this version understands", where=where,
        fix="Use the annotations.proto of this version, and the numbers 52401-52405 for nothing else.",
    )  # fmt: skip
