"""Whether newer protos still read what older ones wrote: what `buf breaking` (WIRE_JSON) would say, from descriptor sets.

A field that is gone must have its number and name reserved; one that is there keeps number, name, type, label and oneof.
"""

from collections.abc import Iterator
from types import ModuleType

from google.protobuf import descriptor_pb2 as pb

FIELD = pb.FieldDescriptorProto


def of_modules(*modules: ModuleType) -> pb.FileDescriptorSet:
    """The protos of generated modules."""
    found = pb.FileDescriptorSet()
    for module in modules:
        module.DESCRIPTOR.CopyToProto(found.file.add())
    return found


def broken(old: pb.FileDescriptorSet, new: pb.FileDescriptorSet) -> list[str]:
    """A line for everything that an older peer or record would trip over."""
    messages, enums, services = _all(new)
    was_messages, was_enums, was_services = _all(old)
    return [
        *(line for name, one in was_messages.items() for line in _message(name, one, messages.get(name))),
        *(line for name, one in was_enums.items() for line in _enum(name, one, enums.get(name))),
        *(line for name, one in was_services.items() for line in _service(name, one, services.get(name))),
        *_extensions(old, new),
    ]


def _all(files: pb.FileDescriptorSet) -> tuple[
    dict[str, pb.DescriptorProto], dict[str, pb.EnumDescriptorProto], dict[str, pb.ServiceDescriptorProto]
]:  # fmt: skip
    messages: dict[str, pb.DescriptorProto] = {}
    enums: dict[str, pb.EnumDescriptorProto] = {}
    services: dict[str, pb.ServiceDescriptorProto] = {}

    def below(prefix: str, found: pb.DescriptorProto) -> None:
        messages[f"{prefix}.{found.name}"] = found
        enums.update({f"{prefix}.{found.name}.{one.name}": one for one in found.enum_type})
        for one in found.nested_type:
            below(f"{prefix}.{found.name}", one)

    for file in files.file:
        for message in file.message_type:
            below(file.package, message)
        enums.update({f"{file.package}.{one.name}": one for one in file.enum_type})
        services.update({f"{file.package}.{one.name}": one for one in file.service})
    return messages, enums, services


def _field(one: FIELD, message: pb.DescriptorProto) -> tuple[object, ...]:
    """What must stay. A `proto3_optional` field is in a oneof of its own, which is no oneof to a reader."""
    oneof = message.oneof_decl[one.oneof_index].name if one.HasField("oneof_index") and not one.proto3_optional else ""
    return (
        one.name,
        FIELD.Type.Name(one.type),
        FIELD.Label.Name(one.label),
        one.type_name,
        one.json_name or _spelled(one.name),
        oneof,
        one.proto3_optional,
    )


def _spelled(name: str) -> str:
    """A field's name in JSON where none is given: lowerCamelCase."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def _message(name: str, old: pb.DescriptorProto, new: pb.DescriptorProto | None) -> Iterator[str]:
    if new is None:
        yield f"{name} is gone"
        return
    now = {one.number: one for one in new.field}
    reserved = {number for span in new.reserved_range for number in range(span.start, min(span.end, span.start + 4096))}
    kept = {number for span in old.reserved_range for number in range(span.start, min(span.end, span.start + 4096))}
    for field in old.field:
        if field.number in now:
            before, after = _field(field, old), _field(now[field.number], new)
            if before != after:
                yield f"{name}: field {field.number} was {before}, is {after}"
        elif field.number not in reserved or field.name not in new.reserved_name:
            yield f"{name}: field {field.number} ({field.name}) is gone, and its number and name are not reserved"
    names = {one.name: one.number for one in new.field}
    for field in old.field:
        if names.get(field.name, field.number) != field.number:
            yield f"{name}: the name {field.name} moved from {field.number} to {names[field.name]}"
    for number in sorted(kept & now.keys()):
        yield f"{name}: field {number} was reserved, and is used again"
    for word in sorted(set(old.reserved_name) & names.keys()):
        yield f"{name}: the name {word} was reserved, and is used again"


def _enum(name: str, old: pb.EnumDescriptorProto, new: pb.EnumDescriptorProto | None) -> Iterator[str]:
    if new is None:
        yield f"{name} is gone"
        return
    now = {one.number: one.name for one in new.value}
    for value in old.value:
        if now.get(value.number) != value.name:
            yield f"{name}: value {value.number} was {value.name}, is {now.get(value.number)}"


def _service(name: str, old: pb.ServiceDescriptorProto, new: pb.ServiceDescriptorProto | None) -> Iterator[str]:
    if new is None:
        yield f"{name} is gone"
        return
    now = {one.name: one for one in new.method}
    for method in old.method:
        found = now.get(method.name)
        shape = (method.input_type, method.output_type, method.client_streaming, method.server_streaming)
        if found is None:
            yield f"{name}/{method.name} is gone"
        elif shape != (found.input_type, found.output_type, found.client_streaming, found.server_streaming):
            yield f"{name}/{method.name} takes or gives something else"


def _extensions(old: pb.FileDescriptorSet, new: pb.FileDescriptorSet) -> Iterator[str]:
    """Options that annotated protos of others carry."""
    now = {(one.extendee, one.number): one for file in new.file for one in file.extension}
    for file in old.file:
        for one in file.extension:
            found = now.get((one.extendee, one.number))
            if found is None or (found.name, found.type, found.label, found.type_name) != (
                one.name, one.type, one.label, one.type_name,
            ):  # fmt: skip
                yield f"{file.package}: the option {one.name} ({one.number} of {one.extendee}) is gone or another"
