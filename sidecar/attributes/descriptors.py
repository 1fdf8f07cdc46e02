"""An API as its own descriptors tell it: a private pool built from the bytes of a FileDescriptorSet.

* The pool is ours alone: nothing a set contains can replace a type that this process uses itself.
* A set in any order loads. Files of the protobuf runtime that it leaves out are supplied; `annotations.proto` may be
  left out (its words are read from the options' bytes, see `annotations`); any other missing file is asked for.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

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
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

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
    which file of the set an element (message, field or method key) comes from.
    """

    where: str
    pool: DescriptorPool
    messages: Mapping[str, Descriptor]
    fields: Mapping[str, FieldDescriptor]
    methods: Mapping[str, MethodDescriptor]
    files: Mapping[str, str]

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
    found = Descriptors(where=where, pool=pool, messages={}, fields={}, methods={}, files={})
    for proto in _in_order(_files(data, where), where):
        try:
            pool.AddSerializedFile(proto.SerializeToString())
            file = pool.FindFileByName(proto.name)
        except (TypeError, KeyError) as error:
            raise ConfigurationError(f"{proto.name} is not valid: {error}", where=where, fix=_MAKE) from None
        _register(found, file)
    return found


def _register(found: Descriptors, file: FileDescriptor) -> None:
    messages: dict[str, Descriptor] = {}
    fields: dict[str, FieldDescriptor] = {one.full_name: one for one in file.extensions_by_name.values()}
    methods: dict[str, MethodDescriptor] = {}
    for message in _nested(file.message_types_by_name):
        messages[message.full_name] = message
        fields.update((one.full_name, one) for one in [*message.fields, *message.extensions])
    for service in file.services_by_name.values():
        methods.update((f"{service.full_name}/{method.name}", method) for method in service.methods)
    found.messages.update(messages)  # type: ignore[attr-defined]
    found.fields.update(fields)  # type: ignore[attr-defined]
    found.methods.update(methods)  # type: ignore[attr-defined]
    for name in [*messages, *fields, *methods]:
        found.files[name] = file.name  # type: ignore[index]


def _nested(types: Mapping[str, Descriptor]) -> Iterator[Descriptor]:
    """The types and those declared inside them, without the entries of maps, which are no types of their own."""
    for message in types.values():
        if message.has_options and message.GetOptions().map_entry:
            continue
        yield message
        yield from _nested(message.nested_types_by_name)


def _files(data: bytes, where: str) -> dict[str, FileDescriptorProto]:
    try:
        found = FileDescriptorSet.FromString(data)
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


def _in_order(files: dict[str, FileDescriptorProto], where: str) -> Iterator[FileDescriptorProto]:
    """The files, each after those it imports. An absent annotations file is struck from the imports."""
    done: set[str] = set()
    entered: list[str] = []

    def visit(name: str, importer: str) -> Iterator[FileDescriptorProto]:
        if name in done:
            return
        if name in entered:
            raise ConfigurationError(f"{name} imports itself by way of {importer}", where=where, fix=_MAKE)
        entered.append(name)
        proto = files.get(name) or _runtime(name)
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


def _runtime(name: str) -> FileDescriptorProto | None:
    data = _RUNTIME.get(name)
    return None if data is None else FileDescriptorProto.FromString(data)


def _without_annotations(proto: FileDescriptorProto) -> FileDescriptorProto:
    kept = [(index, name) for index, name in enumerate(proto.dependency) if name != ANNOTATIONS_FILE]
    moved = {old: new for new, (old, _) in enumerate(kept)}
    copy = FileDescriptorProto()
    copy.CopyFrom(proto)
    copy.dependency[:] = [name for _, name in kept]
    copy.public_dependency[:] = [moved[index] for index in proto.public_dependency if index in moved]
    copy.weak_dependency[:] = [moved[index] for index in proto.weak_dependency if index in moved]
    return copy
