"""Every token attack at every door: none accepted, each refused as UNAUTHENTICATED and recorded so."""

from pathlib import Path

import pytest
from campaigns.doors import CUT, DOORS
from campaigns.guarded import Guarded
from campaigns.tokens import campaign, effects, served
from identity_provider import jwks, new_key, public_jwk
from token_attacks import IDP, Attack, attacks, honest

from sidecar.record import OutcomeBody


@pytest.mark.parametrize("door", DOORS)
async def test_no_attack_is_accepted(door: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = Guarded(tmp_path)
    found = await campaign(door, world)
    with capsys.disabled():
        print(f"\n{found}")
    assert (found.accepted, found.wrong) == ([], [])
    assert found.total == len(attacks()) >= 200
    assert found.refused >= 200


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("end", ["revoked", "lapsed", "key withdrawn"])
async def test_a_token_that_was_good_is_refused_once_it_is_not(door: str, end: str, tmp_path: Path) -> None:
    """Verified before, and kept: the replay of a token after its time, whatever ended that, is one more attack."""
    world = Guarded(tmp_path)
    token = honest(jti="once")
    attack = Attack(values=(f"Bearer {token}",))
    async with DOORS[door](world) as ask:
        await served(ask, world)
        assert await ask(attack) == "OK"
        if end == "revoked":
            world.revoke({"jti": "once"})
            world.revocations.load()
        elif end == "lapsed":
            world.rig.now = world.clock.now = world.rig.now + 1000
            world.revocations.load()
        else:
            ring = world.desk.rings[IDP.issuer]
            kept, IDP.source.content = IDP.source.content, jwks(public_jwk(new_key("ES256"), "ES256", "next"))
            try:
                ring.load()
            finally:
                IDP.source.content = kept
        before = world.mark()
        assert await ask(attack) in ("UNAUTHENTICATED", CUT)
        after = world.mark()
    assert after[2:] == before[2:], "neither the engine nor the service heard of it"
    assert effects(world, before) == {"deny"}
    outcomes = [one for one in world.rig.records.log if isinstance(one, OutcomeBody)]
    assert outcomes[-1].status == "UNAUTHENTICATED"
