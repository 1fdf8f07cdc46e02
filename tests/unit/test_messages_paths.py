"""The way through the bytes of a message finds what the walk over the parsed message finds."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_rig import SERVICE, describer
from trial_api import compile_files, trial
from trial_api import describer as describe

from sidecar.attributes.messages import MalformedMessageError, MessagePlan, ParsedMessage, encode
from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.enforcement.obligations import admitted

pytestmark = pytest.mark.unit

DEMO, TRIAL = describer(), trial()
PLANS = [plan for api in (DEMO, TRIAL) for method in api for plan in (method.request, method.answer)]
UNKNOWN = b"\xfa\x3f\x05extra"


def found(parsed: ParsedMessage) -> tuple[object, ...]:
    return (parsed.subjects, parsed.records, parsed.unnamed, parsed.unclassified, parsed.stripped, parsed.payloads,
            encode(parsed.message))  # fmt: skip


def test_an_ordinary_message_is_read_as_bytes_and_an_unusual_one_is_not() -> None:
    plan = DEMO.method(f"/{SERVICE}/GetProfile").answer
    data = pb.Profile(user_id=1, country="US").SerializeToString()
    assert plan.parse(data).reading is not None
    assert plan.parse(data + UNKNOWN).reading is None
    assert plan.parse(data + data).reading is None


def test_an_id_that_is_there_without_being_on_the_wire_is_left_to_the_walk(tmp_path: Path) -> None:
    text = """syntax = "proto2"; package t; import "sidecar/api/v1/annotations.proto";
    message P { optional string id = 1 [default = "us-1", (sidecar.api.v1.subject_id) = {}]; optional string text = 2; }
    service S { rpc Get(P) returns (P) {
      option (sidecar.api.v1.access) = {action: "read" resource: "p" subject: REQUEST_FIELD}; } }"""
    (tmp_path / "t.proto").write_text(text)
    plan = describe(compile_files([tmp_path], ["t.proto"])).method("/t.S/Get").answer
    parsed = plan.parse(b"\x12\x01x")
    assert parsed.reading is None
    assert [one.id for one in parsed.subjects] == ["us-1"]


@given(st.sampled_from(PLANS), st.binary(max_size=60))
def test_any_bytes_are_found_to_hold_the_same(plan: MessagePlan, data: bytes) -> None:
    try:
        expected = found(plan.walk(data))
    except MalformedMessageError:
        with pytest.raises(MalformedMessageError):
            plan.parse(data)
    else:
        assert found(plan.parse(data)) == expected


@given(
    st.integers(0, 3), st.sampled_from(["", "US", "DE", "xx"]), st.text(st.characters(exclude_categories=("Cs",)), max_size=5),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_a_profile_is_found_to_hold_the_same(user: int, country: str, handle: str, more: bool, twice: bool) -> None:
    data = pb.Profile(user_id=user, country=country, handle=handle).SerializeToString()
    data = data * (2 if twice else 1) + (UNKNOWN if more else b"")
    plan = DEMO.method(f"/{SERVICE}/GetProfile").answer
    assert found(plan.parse(data)) == found(plan.walk(data))


@given(st.sampled_from(PLANS), st.binary(max_size=60))
def test_bytes_are_exact_only_where_they_are_all_that_was_inspected(plan: MessagePlan, data: bytes) -> None:
    try:
        parsed = plan.parse(data)
    except MalformedMessageError:
        return
    assert parsed.exact == (not parsed.stripped and encode(parsed.message) == data)
    if parsed.exact and not parsed.payloads and not parsed.unclassified:
        assert admitted(parsed, unclassified_covered=False) is parsed.data


@pytest.mark.parametrize("data", [
    pb.Profile(user_id=1, handle="h").SerializeToString() + UNKNOWN,
    pb.Profile(handle="h").SerializeToString() + pb.Profile(user_id=1).SerializeToString(),
    pb.Profile(handle="hidden").SerializeToString() + pb.Profile(user_id=1, handle="shown").SerializeToString(),
])  # fmt: skip
def test_unknown_fields_another_order_and_what_is_overwritten_are_not_exact(data: bytes) -> None:
    parsed = DEMO.method(f"/{SERVICE}/GetProfile").answer.parse(data)
    assert not parsed.exact
    assert b"hidden" not in encode(parsed.message)
