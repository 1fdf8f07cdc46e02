"""Protos against those of the previous releases: nothing is removed, renumbered or retyped."""

from pathlib import Path

import pytest
import wire_compatibility as wire
from google.protobuf import descriptor_pb2 as pb

from sidecar.api.v1 import annotations_pb2, ledger_pb2, oversight_pb2

RELEASES = sorted(
    file.parent for file in (Path(__file__).resolve().parents[1] / "previous_release").glob("*/descriptors.binpb")
)
FIELD = pb.FieldDescriptorProto


def frozen(release: Path) -> pb.FileDescriptorSet:
    return pb.FileDescriptorSet.FromString((release / "descriptors.binpb").read_bytes())


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_today_s_protos_read_what_a_release_wrote(release: Path) -> None:
    assert wire.broken(frozen(release), wire.of_modules(annotations_pb2, ledger_pb2, oversight_pb2)) == []


def test_there_is_a_release_to_compare_with() -> None:
    assert RELEASES
    names = {message.name for file in frozen(RELEASES[-1]).file for message in file.message_type}
    assert names >= {"AppendRequest", "GetPeriodKeysResponse", "ReserveRequest"}


def message(found: pb.FileDescriptorSet, name: str) -> pb.DescriptorProto:
    return next(one for file in found.file for one in file.message_type if one.name == name)


def remove(found: pb.FileDescriptorSet) -> None:
    del message(found, "Open").field[0]


def reserve(found: pb.FileDescriptorSet) -> None:
    of = message(found, "Open")
    of.reserved_range.add(start=of.field[0].number, end=of.field[0].number + 1)
    of.reserved_name.append(of.field[0].name)
    del of.field[0]


def retype(found: pb.FileDescriptorSet) -> None:
    message(found, "Open").field[0].type = FIELD.TYPE_BYTES


def rename(found: pb.FileDescriptorSet) -> None:
    message(found, "Open").field[0].name = "other"


def renumber(found: pb.FileDescriptorSet) -> None:
    message(found, "Open").field[0].number = 99


def repeat(found: pb.FileDescriptorSet) -> None:
    message(found, "Open").field[0].label = FIELD.LABEL_REPEATED


def add(found: pb.FileDescriptorSet) -> None:
    message(found, "Open").field.add(name="more", number=77, type=FIELD.TYPE_STRING, label=FIELD.LABEL_OPTIONAL)


def drop(found: pb.FileDescriptorSet) -> None:
    file = next(one for one in found.file if one.service)
    del file.service[0].method[0]


def stream(found: pb.FileDescriptorSet) -> None:
    file = next(one for one in found.file if one.service)
    file.service[0].method[0].client_streaming = not file.service[0].method[0].client_streaming


@pytest.mark.parametrize(("change", "breaks"), [
    (remove, "not reserved"), (retype, "was"), (rename, "was"), (renumber, "not reserved"), (repeat, "was"), (drop, "is gone"),
    (stream, "something else"), (reserve, None), (add, None),
])  # fmt: skip
def test_the_comparison_sees_what_breaks(change: object, breaks: str | None) -> None:
    old = frozen(RELEASES[-1])
    new = frozen(RELEASES[-1])
    change(new)
    found = wire.broken(old, new)
    assert bool(found) == (breaks is not None), found
    assert breaks is None or any(breaks in line for line in found)


def test_what_was_reserved_is_never_used_again() -> None:
    old, new = frozen(RELEASES[-1]), frozen(RELEASES[-1])
    reserve(old)
    assert any("was reserved, and is used again" in line for line in wire.broken(old, new))


def test_an_option_of_annotations_keeps_its_number() -> None:
    new = frozen(RELEASES[-1])
    file = next(one for one in new.file if one.extension)
    file.extension[0].number += 1
    assert any("the option" in line for line in wire.broken(frozen(RELEASES[-1]), new))
