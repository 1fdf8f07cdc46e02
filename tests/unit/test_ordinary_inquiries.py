"""A call that is asked about, by somebody known, is answered and recorded as at a point that remembers nothing."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from changing_world import CHANGES, World, another, fails, later, mended, plain, user
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_rig import GERMAN, NOBODY_KNOWS, SERVICE, US, get, profile

from sidecar.enforcement.call import Call, Door, Final, Metadata
from sidecar.enforcement.declarations import CHECK_ANSWERS, EXT_AUTHZ
from sidecar.enforcement.entries import DecisionEntry
from sidecar.enforcement.inquiry import MethodInquiry
from sidecar.enforcement.outcomes import Confirmation
from sidecar.enforcement.permits import Permit
from sidecar.enforcement.pipeline import EnforcementPoint
from sidecar.errors import Code, EnforceError
from sidecar.record import MessageCounts, OutcomeBody

pytestmark = pytest.mark.unit
Step = Callable[[World], None]
STEPS: dict[str, Step] = {name: change for name, (change, _) in CHANGES.items()} | {
    "all is well again": mended,
    "about a user": user(US),
    "about a German": user(GERMAN, "DE"),
    "about somebody who is not listed": user(NOBODY_KNOWS),
    "about nobody": user(None),
    "more is sent than is described": another(request=get(US) + b"\xfa\x3f\x01x"),
    "damage is sent": another(request=b"\xff"),
    "no decision can be recorded": fails(DecisionEntry),
    "no outcome can be recorded": fails(OutcomeBody),
    "the decision ends": later(31),
}
ENDS: dict[str, Callable[[MethodInquiry], Awaitable[Final]]] = {
    "nobody says": MethodInquiry.unobserved,
    "reported": lambda inquiry: inquiry.confirm(Confirmation(status="OK", messages=MessageCounts(in_=1, out=1))),
    "not told": lambda inquiry: inquiry.gone(Final(code=Code.CANCELLED)),
    "seen to its end": lambda inquiry: inquiry.seen(Final(code=Code.OK)),
    "refused by the door": lambda inquiry: inquiry.decline(EnforceError("it cannot be forwarded as it is")),
}


def told(found: Permit | Final | bytes | None) -> object:
    """What is said, but for what tells one call from another."""
    if isinstance(found, Permit):
        kept: Metadata = tuple(
            item for item in found.metadata if item[0] not in {"traceparent", "x-customhouse-call-id"}
        )
        return msgspec.structs.replace(found, call_id="", metadata=kept)
    return (found.code, found.retry_after) if isinstance(found, Final) else found


async def asked(world: World, point: EnforcementPoint, door: Door, end: str) -> tuple[list[object], bool]:
    """All that came of a call that goes another way; whether it went the straight way here."""
    before = len(world.rig.records.log)
    token: Metadata = () if world.token is None else (("authorization", f"Bearer {world.token}"),)
    call = Call(method=f"/{SERVICE}/GetProfile", metadata=(*token, *world.said), peer=world.peer, door=door)
    inquiry = point.inquire(call)
    found = await inquiry.request(world.request)
    said = [told(found)]
    if isinstance(found, Permit):
        if door.sees_answers:
            said.append(told(await inquiry.answer(profile(US))))
        said.append(told(await ENDS[end](inquiry)))
    entries = [plain(one) for one in world.rig.records.log[before:]]
    straight = inquiry._ordinary is not None and inquiry._ordinary._settled is not None
    return [*said, *entries, inquiry.at_once, inquiry.case.revision], straight


async def played(world: World, door: Door, end: str, steps: list[str]) -> int:
    point, straight = world.point(), 0
    for step in ["all is well again", *steps]:
        STEPS[step](world)
        anew, _ = await asked(world, world.point(), door, end)
        for _ in range(3):
            found, here = await asked(world, point, door, end)
            assert found == anew, step
            straight += here
    return straight


def in_a_world(door: Door, end: str, steps: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(played(World(Path(folder)), door, end, steps))


@pytest.mark.parametrize("door", [EXT_AUTHZ, CHECK_ANSWERS], ids=lambda door: door.name)
@settings(max_examples=40, deadline=None)
@given(end=st.sampled_from(sorted(ENDS)), steps=st.lists(st.sampled_from(sorted(STEPS)), max_size=8))
def test_whatever_happens_in_between_it_is_as_at_a_point_that_remembers_nothing(
    door: Door, end: str, steps: list[str]
) -> None:
    in_a_world(door, end, steps)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("door", [EXT_AUTHZ, CHECK_ANSWERS], ids=lambda door: door.name)
def test_the_third_such_call_goes_the_straight_way(door: Door, end: str) -> None:
    assert in_a_world(door, end, []) >= 1


async def test_one_that_is_cancelled_while_it_is_recorded_has_its_outcome(tmp_path: Path) -> None:
    world = World(tmp_path)
    mended(world)
    point = world.point()
    for _ in range(2):
        await asked(world, point, CHECK_ANSWERS, "nobody says")
    call = Call(
        method=f"/{SERVICE}/GetProfile", metadata=(("authorization", f"Bearer {world.token}"), *world.said),
        peer=world.peer, door=CHECK_ANSWERS,
    )  # fmt: skip
    reached, decision = asyncio.Event(), world.rig.records.decision

    async def never(entry: DecisionEntry) -> None:
        await decision(entry)
        reached.set()
        await asyncio.Event().wait()

    world.rig.records.decision = never
    inquiry = point.inquire(call)
    asking = asyncio.ensure_future(inquiry.request(world.request))
    await reached.wait()
    assert inquiry._ordinary is not None
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    before = len(world.rig.records.outcomes)
    await inquiry.gone(Final(code=Code.CANCELLED))
    assert [one.status for one in world.rig.records.outcomes[before:]] == ["CANCELLED"]
