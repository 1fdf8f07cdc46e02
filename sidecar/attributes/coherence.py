"""What must hold between the words about an API, wherever they come from. Everything here is checked at load."""

import re
from collections.abc import Iterable

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from sidecar.attributes.descriptors import Descriptors
from sidecar.attributes.plans import WRAPPERS, is_map
from sidecar.attributes.reach import Reach
from sidecar.attributes.words import FieldWords, MethodWords, Words
from sidecar.errors import ConfigurationError

_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}")
_PATTERN = re.compile(r"([A-Za-z_][\w.]*)/(\*|[A-Za-z_]\w*)", re.ASCII)
_INTEGERS = frozenset({
    FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64,
})  # fmt: skip
_STRING_VALUE = "google.protobuf.StringValue"


def check(words: Words, descriptors: Descriptors) -> None:
    """ConfigurationError for the first thing said that cannot hold, with file, element, value and fix."""
    for name, said in words.fields.items():
        _check_field(descriptors.fields[name], said, descriptors.place(name))
    for message in descriptors.messages.values():
        _check_message(message, words, descriptors.place(message.full_name))


def unguarded(patterns: Iterable[str], words: Words) -> frozenset[tuple[str, str]]:
    """Patterns "package.Service/Method" or "package.Service/*" as (service, method). None may cover a described method.

    Descriptions and exemptions that contradict each other are an error, never resolved in favour of the exemption.
    """
    found = set()
    for pattern in patterns:
        match = _PATTERN.fullmatch(pattern)
        if match is None:
            raise ConfigurationError(
                "no pattern of unguarded methods", where="describe.unguarded", value=pattern,
                fix='Write "package.Service/Method" or "package.Service/*".',
            )  # fmt: skip
        service, method = match.groups()
        for key in words.methods:
            if key == pattern or (method == "*" and key.startswith(f"{service}/")):
                raise ConfigurationError(
                    f"{key} is described and so must be guarded", where="describe.unguarded", value=pattern,
                    fix="Remove the pattern, or the method's description.",
                )  # fmt: skip
        found.add((service, method))
    return frozenset(found)


def names_subjects(said: MethodWords, asked: Reach, given: Reach, where: str) -> None:
    """A method whose subjects are named in a message needs a message that can name them."""
    if said.subject == "request_field" and not asked.subjects:
        raise ConfigurationError(
            "the subjects are in the request, but no field of the request is a subject_id", where=where,
            fix="Annotate the field, or say answer, caller or none.",
        )  # fmt: skip
    if said.subject == "answer" and not given.subjects and not given.opaque:
        raise ConfigurationError(
            "the subjects are in the answer, but no field of the answer is a subject_id", where=where,
            fix="Annotate the field, or say request_field, caller or none.",
        )  # fmt: skip


def _check_field(one: FieldDescriptor, said: FieldWords, where: str) -> None:
    if said.subject is not None:
        if said.country is not None:
            raise ConfigurationError("a field is a subject's id or its country, not both", where=where)
        if not _KIND.fullmatch(said.subject):
            raise ConfigurationError(
                "the kind of a subject id is no word", where=where, value=said.subject,
                fix="Use lower-case letters, digits and _, such as person.",
            )  # fmt: skip
        if not _holds_id(one):
            raise ConfigurationError(
                "a subject id is a string or an integer (or a map's key)", where=where,
                fix="Annotate the field that holds the id as text or number; extensions cannot hold one.",
            )  # fmt: skip
    if said.country is not None and not _holds_country(one):
        raise ConfigurationError("a country is one string field of the message itself", where=where)


def _holds_id(one: FieldDescriptor) -> bool:
    if one.is_extension:
        return False
    if one.message_type is None:
        return _scalar_id(one)
    if is_map(one):
        return _scalar_id(one.message_type.fields_by_name["key"])
    return one.message_type.full_name in WRAPPERS


def _scalar_id(one: FieldDescriptor) -> bool:
    return one.type == FieldDescriptor.TYPE_STRING or one.cpp_type in _INTEGERS


def _holds_country(one: FieldDescriptor) -> bool:
    if one.is_extension or one.is_repeated:
        return False
    if one.message_type is not None:
        return bool(one.message_type.full_name == _STRING_VALUE)
    return bool(one.type == FieldDescriptor.TYPE_STRING)


def _check_message(message: Descriptor, words: Words, where: str) -> None:
    ids = []
    countries = []
    for one in message.fields:
        said = words.fields.get(one.full_name)
        if said is not None and said.subject is not None and not is_map(one):
            ids.append(one)
        if said is not None and said.country is not None:
            countries.append((one.name, said.country))
    if message.full_name in words.records and not ids:
        raise ConfigurationError(
            "a record needs a field that is its subject's id", where=where, fix="Annotate the field with subject_id."
        )
    if countries and not ids:
        raise ConfigurationError(
            "a subject_country needs a subject_id in the same message", where=where, value=countries[0][0],
            fix="Annotate the id that the country belongs to.",
        )  # fmt: skip
    if len(countries) > 1:
        raise ConfigurationError(
            "a message has at most one subject_country", where=where, value=", ".join(name for name, _ in countries)
        )
    if any(clears for _, clears in countries) and (len(ids) > 1 or ids[0].is_repeated):
        raise ConfigurationError(
            "an authoritative country needs exactly one subject in its message", where=where, value=countries[0][0],
            fix="Remove authoritative, or give each subject a message of its own.",
        )  # fmt: skip
