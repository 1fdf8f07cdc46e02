"""An API as its own descriptors tell it: a private pool built from the bytes of a FileDescriptorSet.

* The pool is ours alone: nothing a set contains can replace a type that this process uses itself, and no extension
  that this process happens to know changes how the set is read.
* A set in any order loads. Files of the protobuf runtime that it leaves out are supplied; `annotations.proto` may be
  left out (its words are read from the options' bytes, see `annotations`); any other missing file is asked for.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from sidecar.errors import ConfigurationError

ANNOTATIONS_FILE = "sidecar/api/v1/annotations.proto"
_MAKE = "Make the set with `protoc --include_imports --descriptor_set_out` or `buf build`."
_RUNTIME: Mapping[str, bytes] = {
    module.DESCRIPTOR.name: module.DESCRIPTOR.serialized_pb
    for module in (
        any_pb2, descriptor_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptors:
    """The types and methods of a descriptor set, in a pool of their own.

    `fields` holds extension fields too, by their full name; `methods` is keyed "package.Service/Method"; `files` says
    which file of the set an element (message, field or method key) comes from; `options` holds the bytes of the
    options of each element that has any.
    """

    where: str
    pool: DescriptorPool
    messages: Mapping[str, Descriptor]
    fields: Mapping[str, FieldDescriptor]
    methods: Mapping[str, MethodDescriptor]
    files: Mapping[str, str]
    options: Mapping[str, bytes]

    def place(self, element: str) -> str:
        """Where an element stands, for an error: the set, the file, the element."""
        return f"{self.where}: {self.files[element]}: {element}"


def load(path: Path) -> Descriptors:
    """The descriptors in a file. ConfigurationError when it cannot be read; otherwise as `parse`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"the descriptor set cannot be read: {error.strerror}", where=str(path), fix=_MAKE
        ) from None
    return parse(data, str(path))


def parse(data: bytes, where: str) -> Descriptors:
    """The descriptors in the bytes of a `google.protobuf.FileDescriptorSet`, which `where` names in errors.

    ConfigurationError when the bytes are no such set, a file is missing or invalid, or one file stands in it twice
    with different contents.
    """
    pool = DescriptorPool()
    found = _Found()
    schema = _schema()
    for proto in _in_order(_files(data, schema, where), schema, where):
        try:
            pool.AddSerializedFile(proto.SerializeToString())
            file = pool.FindFileByName(proto.name)
        except (TypeError, KeyError) as error:
            raise ConfigurationError(f"{proto.name} is not valid: {error}", where=where, fix=_MAKE) from None
        found.add(file, proto)
    return Descriptors(
        where=where, pool=pool, messages=found.messages, fields=found.fields, methods=found.methods,
        files=found.files, options=found.options,
    )  # fmt: skip


def _schema() -> type[FileDescriptorSet]:
    """`google.protobuf.FileDescriptorSet` of a pool of its own, in which all custom options are unknown fields."""
    pool = DescriptorPool()
    pool.AddSerializedFile(descriptor_pb2.DESCRIPTOR.serialized_pb)
    return cast(
        "type[FileDescriptorSet]", GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FileDescriptorSet"))
    )


class _Found:
    """What the files hold, added up."""

    def __init__(self) -> None:
        self.messages: dict[str, Descriptor] = {}
        self.fields: dict[str, FieldDescriptor] = {}
        self.methods: dict[str, MethodDescriptor] = {}
        self.files: dict[str, str] = {}
        self.options: dict[str, bytes] = {}

    def add(self, file: FileDescriptor, proto: FileDescriptorProto) -> None:
        """One file, both as the pool understood it and as it was written."""
        prefix = f"{proto.package}." if proto.package else ""
        for written in proto.message_type:
            self._message(file.message_types_by_name[written.name], written, file.name)
        self._fields(file.extensions_by_name.values(), proto.extension, file.name)
        for service in proto.service:
            described = file.services_by_name[service.name]
            for method in service.method:
                key = f"{prefix}{service.name}/{method.name}"
                self.methods[key] = described.methods_by_name[method.name]
                self._note(key, file.name, method.options.SerializeToString())

    def _message(self, message: Descriptor, written: DescriptorProto, file: str) -> None:
        if written.options.map_entry:
            return  # no type of its own
        self.messages[message.full_name] = message
        self._note(message.full_name, file, written.options.SerializeToString())
        self._fields(message.fields, written.field, file)
        self._fields(message.extensions, written.extension, file)
        for nested in written.nested_type:
            self._message(message.nested_types_by_name[nested.name], nested, file)

    def _fields(self, fields: Iterable[FieldDescriptor], written: Iterable[FieldDescriptorProto], file: str) -> None:
        options = {one.name: one.options.SerializeToString() for one in written}
        for one in fields:
            self.fields[one.full_name] = one
            self._note(one.full_name, file, options[one.name])

    def _note(self, name: str, file: str, options: bytes) -> None:
        self.files[name] = file
        if options:
            self.options[name] = options


def _files(data: bytes, schema: type[FileDescriptorSet], where: str) -> dict[str, FileDescriptorProto]:
    try:
        found = schema.FromString(data)
    except DecodeError:
        raise ConfigurationError("these bytes are no FileDescriptorSet", where=where, fix=_MAKE) from None
    files: dict[str, FileDescriptorProto] = {}
    for proto in found.file:
        before = files.setdefault(proto.name, proto)
        if before is not proto and before != proto:
            raise ConfigurationError(f"{proto.name} stands in the set twice and differs", where=where, fix=_MAKE)
    if not any(proto.service for proto in files.values()):
        raise ConfigurationError("the set declares no service", where=where, fix=_MAKE)
    return files


def _in_order(
    files: dict[str, FileDescriptorProto], schema: type[FileDescriptorSet], where: str
) -> Iterator[FileDescriptorProto]:
    """The files, each after those it imports. An absent annotations file is struck from the imports."""
    done: set[str] = set()
    entered: list[str] = []

    def visit(name: str, importer: str) -> Iterator[FileDescriptorProto]:
        if name in done:
            return
        if name in entered:
            raise ConfigurationError(f"{name} imports itself by way of {importer}", where=where, fix=_MAKE)
        entered.append(name)
        proto = files.get(name) or _runtime(name, schema)
        if proto is None:
            raise ConfigurationError(f"{importer} imports {name}, which the set lacks", where=where, fix=_MAKE)
        if ANNOTATIONS_FILE in proto.dependency and ANNOTATIONS_FILE not in files:
            proto = _without_annotations(proto)
        for imported in proto.dependency:
            yield from visit(imported, name)
        entered.pop()
        done.add(name)
        yield proto

    for name in files:
        yield from visit(name, name)


def _runtime(name: str, schema: type[FileDescriptorSet]) -> FileDescriptorProto | None:
    data = _RUNTIME.get(name)
    if data is None:
        return None
    proto = schema().file.add()
    proto.MergeFromString(data)
    return proto


def _without_annotations(proto: FileDescriptorProto) -> FileDescriptorProto:
    kept = [(index, name) for index, name in enumerate(proto.dependency) if name != ANNOTATIONS_FILE]
    moved = {old: new for new, (old, _) in enumerate(kept)}
    copy = type(proto)()
    copy.CopyFrom(proto)
    copy.dependency[:] = [name for _, name in kept]
    copy.public_dependency[:] = [moved[index] for index in proto.public_dependency if index in moved]
    copy.weak_dependency[:] = [moved[index] for index in proto.weak_dependency if index in moved]
    return copy
