"""The short ways through a message find what the long ones find."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pipeline_rig import SERVICE, describer
from trial_api import trial

from sidecar.attributes.messages import MalformedMessageError, MessagePlan, ParsedMessage, encode
from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.enforcement.obligations import admitted

pytestmark = pytest.mark.unit

DEMO, TRIAL = describer(), trial()
PLANS = [plan for api in (DEMO, TRIAL) for method in api for plan in (method.request, method.answer)]
UNKNOWN = b"\xfa\x3f\x05extra"


def the_long_way(plan: MessagePlan) -> MessagePlan:
    """The same plan, walking always."""
    other = MessagePlan(
        plan.plans, plan.plan.name, direction="answer" if plan.evidence else "request", about=plan.about,
        described=plan.described,
    )  # fmt: skip
    other.single = None
    return other


def found(parsed: ParsedMessage) -> tuple[object, ...]:
    return (parsed.subjects, parsed.records, parsed.unnamed, parsed.unclassified, parsed.stripped, parsed.payloads,
            encode(parsed.message))  # fmt: skip


def test_some_plans_take_the_short_way_and_some_do_not() -> None:
    assert DEMO.method(f"/{SERVICE}/GetProfile").request.single is not None
    assert DEMO.method(f"/{SERVICE}/GetProfile").answer.single is not None
    assert {plan.single is None for plan in PLANS} == {True, False}


@given(st.sampled_from(PLANS), st.binary(max_size=60))
def test_any_bytes_are_found_to_hold_the_same(plan: MessagePlan, data: bytes) -> None:
    other = the_long_way(plan)
    try:
        expected = found(other.parse(data))
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
    assert found(plan.parse(data)) == found(the_long_way(plan).parse(data))


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
