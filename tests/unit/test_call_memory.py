"""What is remembered about a caller changes nothing: the next call goes as it would at a point that remembers nothing."""

from pathlib import Path

import pytest
from changing_world import CHANGES, GRANT, SAID, World, lifted
from identity_provider import NOW
from pipeline_rig import deny, permit

from sidecar.enforcement.circumstances import EXCEPTION
from sidecar.errors import Code
from sidecar.exceptions.authorization_store import Lifted
from sidecar.vocabulary import SecurityRequirements

pytestmark = pytest.mark.unit


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("what", CHANGES)
async def test_whatever_changes_is_heeded_by_the_very_next_call(world: World, what: str) -> None:
    change, code = CHANGES[what]
    point = world.point()
    first, second = (await world.call(point))[1], (await world.call(point))[1]
    assert first == second
    assert first[0] is Code.OK
    assert len(world.rig.engine.documents) == 1, "the second call was answered from memory"
    change(world)
    _, heeded = await world.call(point)
    _, anew = await world.call(world.point())
    assert heeded == anew
    assert heeded[0] is code
    assert heeded != second


async def test_an_exception_or_an_attestation_that_ends_is_heeded_by_the_very_next_call(world: World) -> None:
    point, world.said, world.rig.grants.grant = world.point(), (*SAID, (EXCEPTION, "x1")), GRANT
    lifted(world)
    _, first = await world.call(point)
    assert first[0] is Code.OK
    world.rig.authorizations.lifted = Lifted((), SecurityRequirements(), NOW + 60)
    _, without = await world.call(point)
    assert without == (await world.call(world.point()))[1]
    assert without != first
    world.rig.grants.grant = None
    assert (await world.call(point))[1][0] is Code.PERMISSION_DENIED


async def test_a_decision_is_not_used_beyond_its_life(world: World) -> None:
    point = world.point()
    world.rig.engine.rule = lambda _request: permit(ttl=30)
    await world.call(point)
    world.rig.engine.rule = lambda _request: deny("not_us_personnel")
    assert (await world.call(point))[1][0] is Code.OK
    world.monotonic += 30
    assert (await world.call(point))[1][0] is Code.PERMISSION_DENIED


async def test_a_refusal_is_not_remembered(world: World) -> None:
    point = world.point()
    world.desk.people.young = False
    assert (await world.call(point))[1][0] is Code.UNAVAILABLE
    world.desk.people.young = True
    assert (await world.call(point))[1][0] is Code.OK
    world.said = (*SAID, SAID[0])
    assert (await world.call(point))[1][0] is Code.INVALID_ARGUMENT
    world.said = SAID
    assert (await world.call(point))[1][0] is Code.OK


async def test_the_token_itself_is_not_kept(world: World) -> None:
    point = world.point()
    await world.call(point)
    identifier = point._parts.identifier
    assert identifier._known
    assert world.token not in repr((identifier._known, identifier._tokens._kept))
