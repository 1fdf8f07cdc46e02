"""Where what is read as bytes could part from the parsed message: odd wrappers, odd numbers, and what is kept."""

import gc
from concurrent.futures import ThreadPoolExecutor
from time import sleep

import pytest
from google.protobuf import descriptor_pb2

from sidecar._native import Shapes
from sidecar.attributes import descriptors, wire
from sidecar.attributes.messages import MessagePlan, Seen
from sidecar.attributes.plans import Plans
from sidecar.attributes.words import DataWords, FieldWords, Words
from sidecar.enforcement.editor import Orders
from sidecar.enforcement.obligations import Duties, Release

pytestmark = pytest.mark.unit

_F = descriptor_pb2.FieldDescriptorProto
_NAMED = b"\x0a\x04us-1\x12\x05hello"


def plans_of(*files: descriptor_pb2.FileDescriptorProto, words: dict[str, FieldWords]) -> Plans:
    files[-1].service.add(name="S").method.add(name="Do", input_type=".g.M", output_type=".g.M")
    found = descriptor_pb2.FileDescriptorSet(file=files)
    return Plans(
        descriptors.parse(found.SerializeToString(), "g"), Words(fields=words, records=frozenset(), methods={})
    )


def plain() -> MessagePlan:
    file = descriptor_pb2.FileDescriptorProto(name="g.proto", package="g", syntax="proto3")
    message = file.message_type.add(name="M")
    for number, name in ((1, "id"), (2, "text")):
        message.field.add(name=name, number=number, type=_F.TYPE_STRING, label=_F.LABEL_OPTIONAL)
    words = {"g.M.id": FieldWords(subject="person"), "g.M.text": FieldWords(data=DataWords(category="behaviour"))}
    return MessagePlan(plans_of(file, words=words), "g.M", direction="answer")


def with_wrapper_of_its_own(*fields: tuple[str, str], kind: "_F.Type.ValueType" = _F.TYPE_STRING) -> MessagePlan:
    """An API that brings another `google.protobuf.StringValue`, with these fields and their defaults."""
    name = "google/protobuf/wrappers.proto"
    own = descriptor_pb2.FileDescriptorProto(name=name, package="google.protobuf", syntax="proto2")
    message = own.message_type.add(name="StringValue")
    for number, (one, default) in enumerate(fields, 1):
        message.field.add(
            name=one, number=number, type=kind, label=_F.LABEL_OPTIONAL, default_value=default or None
        )  # fmt: skip
    file = descriptor_pb2.FileDescriptorProto(name="g.proto", package="g", syntax="proto2", dependency=[name])
    file.message_type.add(name="M").field.add(
        name="id", number=1, type=_F.TYPE_MESSAGE, type_name=".google.protobuf.StringValue", label=_F.LABEL_OPTIONAL
    )
    words = {"g.M.id": FieldWords(subject="person")}
    return MessagePlan(plans_of(own, file, words=words), "g.M", direction="answer")


def test_the_id_in_a_wrapper_of_the_apis_own_is_that_of_its_value_and_of_no_other_field() -> None:
    plan = with_wrapper_of_its_own(("other", ""), ("value", ""))
    parsed = plan.parse(b"\x0a\x06\x0a\x01y\x12\x01z")
    assert parsed.subjects == (Seen("person", "z"),)


def test_the_id_in_a_wrapper_of_the_apis_own_is_read_by_its_type() -> None:
    plan = with_wrapper_of_its_own(("value", ""), kind=_F.TYPE_FLOAT)
    parsed = plan.parse(b"\x0a\x05\x0d\x00\x00\xc0\x3f")
    assert parsed.subjects == (Seen("person", "1.5"),)


@pytest.mark.parametrize("data", [b"", b"\x0a\x00"])
def test_a_wrapper_of_the_apis_own_names_its_default_where_it_is_not_on_the_wire(data: bytes) -> None:
    plan = with_wrapper_of_its_own(("value", "us-1"))
    assert plan.parse(data).subjects == (Seen("person", "us-1"),)


def test_a_wrapper_like_the_runtimes_is_read_as_bytes() -> None:
    parsed = with_wrapper_of_its_own(("value", "")).parse(b"\x0a\x06\x0a\x04us-1")
    assert parsed.reading is not None
    assert parsed.subjects == (Seen("person", "us-1"),)


@pytest.mark.parametrize("limit", [(1 << 63) - 1, 1 << 63, (1 << 64) - 1, 10**30])
def test_a_limit_may_be_any_number(limit: int) -> None:
    parsed = plain().parse(_NAMED)
    state = Release()
    assert parsed.reading is not None
    assert Duties(limit=limit).apply(parsed, {}, False, state) == _NAMED
    assert state.records == 1


def test_orders_that_no_decision_gives_any_more_are_forgotten() -> None:
    parsed = plain().parse(_NAMED)
    assert parsed.reading is not None
    for limit in range(700):
        Duties(limit=limit + 1000).apply(parsed, {}, False, Release())
    gc.collect()
    kept = sum(type(one) is Orders for one in gc.get_objects())
    assert kept < 500, "a policy may order something else in every call"


class SlowShapes:
    """Takes its time to add types, and lets other threads run meanwhile."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes, self.read = shapes, shapes.read

    def add(self, types: list[wire.TypeWords]) -> None:
        sleep(0.005)
        self._shapes.add(types)


def test_types_that_are_met_in_several_threads_at_once_keep_their_own_numbers() -> None:
    file = descriptor_pb2.FileDescriptorProto(name="g.proto", package="g", syntax="proto3")
    names = [f"M{number}" for number in range(8)]
    for number, name in enumerate(["M", *names], 1):
        file.message_type.add(name=name).field.add(
            name="id", number=number, type=_F.TYPE_STRING, label=_F.LABEL_OPTIONAL
        )
    plans = plans_of(file, words={f"g.{name}.id": FieldWords(subject="person") for name in names})
    known = wire.of(plans)
    known.shapes = SlowShapes(known.shapes)  # type: ignore[assignment]
    with ThreadPoolExecutor(len(names)) as pool:
        made = list(pool.map(lambda name: MessagePlan(plans, f"g.{name}", direction="answer"), names))
    for plan in made:
        parsed = plan.parse(plan.plan.new(id="us-1").SerializeToString())
        assert parsed.subjects == (Seen("person", "us-1"),)
        assert parsed.reading is not None
