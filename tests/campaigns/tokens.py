"""The table of token attacks (`token_attacks`) at one door after the other."""

from collections import Counter
from dataclasses import dataclass, field

import msgspec
from token_attacks import Attack, attacks, honest

from campaigns.doors import CUT, DOORS, Ask
from campaigns.guarded import Guarded

REFUSED = "UNAUTHENTICATED"
_ELSE = {"INVALID_ARGUMENT", "PERMISSION_DENIED"}
"""How the decision APIs refuse what they take for no token at all; recorded as well."""


@dataclass(slots=True)
class Found:
    """What became of the attacks at one door. `refused`: as UNAUTHENTICATED, each with a deny and an outcome on record;
    `cut`: the transport or the door's own reading refused what it cannot carry, and nobody was taken for anybody."""

    door: str
    refused: int = 0
    cut: Counter[str] = field(default_factory=Counter)
    accepted: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many were tried."""
        return self.refused + self.cut.total() + len(self.accepted) + len(self.wrong)

    def __str__(self) -> str:
        cut = ", ".join(f"{count} {why}" for why, count in self.cut.items()) or "none"
        return (f"{self.door}: {self.total} attacks, {len(self.accepted)} accepted, {self.refused} refused with {REFUSED} "
                f"and recorded; otherwise: {cut}")  # fmt: skip


async def campaign(door: str, world: Guarded) -> Found:
    """Try every attack at this door. AssertionError when honest callers are not served before and after."""
    found = Found(door)
    async with DOORS[door](world) as ask:
        await served(ask, world)
        for name, attack in attacks().items():
            await _try(name, attack, ask, world, found)
        await served(ask, world)
    return found


async def served(ask: Ask, world: Guarded) -> None:
    """An honest caller gets in, and that is recorded."""
    before = world.mark()
    said = await ask(Attack(values=(f"Bearer {honest()}",)))
    after = world.mark()
    assert said == "OK", said
    assert (after[0] > before[0], after[2] > before[2]) == (True, True)
    assert effects(world, before) == {"permit"}


async def _try(name: str, attack: Attack, ask: Ask, world: Guarded, found: Found) -> None:
    world.peer = attack.peer
    before = world.mark()
    try:
        said = await ask(attack)
    finally:
        world.peer = Attack.__dataclass_fields__["peer"].default
    after = world.mark()
    if said == "OK" or after[2:] != before[2:] or "permit" in effects(world, before):
        found.accepted.append(f"{name}: {said}")
    elif _refused(world, before):
        found.refused += 1
    elif after == before and said == CUT:
        found.cut["by the transport"] += 1
    elif said in _ELSE and not (attack.plain and attack.token) and _denied(world, before, said):
        found.cut[f"as {said}"] += 1
    else:
        found.wrong.append(f"{name}: {said}, {[str(one) for one in world.rig.records.outcomes[before[1] :]]}")


def _refused(world: Guarded, before: tuple[int, ...]) -> bool:
    records = world.rig.records
    decisions, outcomes = records.decisions[before[0] :], records.outcomes[before[1] :]
    said = [msgspec.json.decode(one.decision) for one in decisions]
    codes = [[reason["code"] for reason in one["reasons"]] for one in said]
    return ([one["effect"] for one in said], codes, [one.status for one in outcomes]) == (
        ["deny"], [["unidentified_person"]], [REFUSED],
    )  # fmt: skip


def _denied(world: Guarded, before: tuple[int, ...], said: str) -> bool:
    ended = [one.status for one in world.rig.records.outcomes[before[1] :]]
    return effects(world, before) == {"deny"} and ended == [said]


def effects(world: Guarded, before: tuple[int, ...]) -> set[str]:
    """The effects of the decisions recorded since."""
    return {msgspec.json.decode(one.decision)["effect"] for one in world.rig.records.decisions[before[0] :]}
