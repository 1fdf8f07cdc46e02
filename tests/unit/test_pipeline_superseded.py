"""An engine that others run may have the next policy a moment before it is in force here."""

import asyncio

import pytest
from pipeline_rig import PERMIT, Rig

from sidecar.enforcement import case
from sidecar.errors import Code, Superseded
from sidecar.vocabulary import AccessRequest


@pytest.fixture
def rig() -> Rig:
    return Rig()


def superseded_once(rig: Rig, revision: str) -> None:
    asked = []

    def rule(_request: AccessRequest) -> dict[str, object] | Exception:
        asked.append(1)
        return Superseded(revision, rig.standing.revision) if len(asked) == 1 else PERMIT

    rig.engine.rule = rule


async def test_the_call_waits_until_that_policy_is_in_force_and_is_recorded_under_it(rig: Rig) -> None:
    superseded_once(rig, "p2")
    asyncio.get_running_loop().call_later(0.05, setattr, rig.standing, "revision", "p2")
    reply = await rig.unary()
    assert reply.final.code is Code.OK
    assert [one.policy.revision for one in rig.records.decisions] == ["p2"]


async def test_a_policy_that_never_comes_refuses_the_call(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case, "_ADOPTION_SECONDS", 0.02)
    superseded_once(rig, "p3")
    reply = await rig.unary()
    assert reply.final.code is Code.UNAVAILABLE
    assert rig.upstream.seen == []
    (refusal,) = rig.records.decisions
    assert b"policy_error" in bytes(refusal.decision)


async def test_a_second_surprise_refuses_the_call(rig: Rig) -> None:
    rig.engine.rule = lambda _request: Superseded("p1", "p0")
    assert (await rig.unary()).final.code is Code.UNAVAILABLE
