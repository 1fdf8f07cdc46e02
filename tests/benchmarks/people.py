"""Guarded calls with many people in the directory and many ids in the index, against few of each."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from sidecar.demo.world import CONSOLE
from tests.benchmarks.calls import levels, rounds
from tests.benchmarks.deployment import Deployment, few
from tests.benchmarks.pipeline import point
from tests.benchmarks.rows import Row, at_most, middle
from tests.benchmarks.scale import FEW, Scale

MOST = 1.1
_SPREAD = 4000


def measure(deployment: Deployment, scale: Scale, say: Callable[[str], None]) -> Iterator[Row]:
    """Over the wire with one caller, as everywhere else; and without transport, with callers and ids that vary."""
    group = f"{scale.people:,} people and {scale.ids:,} ids against {FEW:,} of each"
    say(f"building a directory of {scale.people:,} and an index of {scale.ids:,}")
    changes = {name: deployment.build(name, people, ids)
               for name, people, ids in (("few", FEW, FEW), ("many", scale.people, scale.ids))}  # fmt: skip
    yield from _wire(deployment, scale, changes, group, say)
    yield from _alone(deployment, scale, changes, group, say)


def _wire(
    deployment: Deployment, scale: Scale, changes: dict[str, dict[str, str]], group: str, say: Callable[[str], None]
) -> list[Row]:
    servers = {name: deployment.sidecar(f"{name}-wire", **levels("written"), **one) for name, one in changes.items()}
    finer = replace(scale, seconds=scale.seconds / 2, rounds=scale.rounds * 2)
    seen = rounds(deployment.request, servers, (1, 32), finer, say)
    for server in servers.values():
        deployment.stop(server.name)
    rows = []
    for concurrency in (1, 32):
        pairs = zip(seen["few", concurrency], seen["many", concurrency], strict=True)
        rows.append(_row(group, f"guarded call, {concurrency} at a time", tuple(a.rate / b.rate for a, b in pairs)))
    return rows


def _alone(
    deployment: Deployment, scale: Scale, changes: dict[str, dict[str, str]], group: str, say: Callable[[str], None]
) -> list[Row]:
    say(f"{FEW:,} callers in turns, without transport")
    world, dice, now = deployment.world, random.Random(0), time.time()
    tokens = [world.staff_idp.token(name, CONSOLE, now) for name in few()]
    ids = [[*range(deployment.user % 2 or 2, most + 1, 2)] for most in (FEW, scale.ids)]
    ids[1] = dice.sample(ids[1], min(_SPREAD, len(ids[1])))
    settings = [
        deployment.settings(f"{name}-alone-{kind}", **levels("written"), **one, **cache)
        for kind, cache in (("hit", {}), ("miss", {"decision__cache__entries": 0}))
        for name, one in changes.items()
    ]
    found = point("people", settings, tokens, ids * 2, max(2000, scale.pipeline_calls), scale.rounds)
    rows = []
    for kind in ("miss", "hit"):
        samples = tuple(many / one for one, many in zip(found[f"few {kind}"], found[f"many {kind}"], strict=True))
        spent = f"{middle(found[f'few {kind}']):.0f} → {middle(found[f'many {kind}']):.0f} µs"
        rows.append(_row(group, f"pipeline alone, {FEW - 1} callers, cache {kind}", samples, spent))
    return rows


def _row(group: str, what: str, samples: tuple[float, ...], note: str = "") -> Row:
    figure = middle(samples)
    return Row(
        group=group, what=what, figure=figure, unit="× the time", target=f"≤ {MOST} ×", reached=at_most(figure, MOST),
        samples=samples, note=note,
    )  # fmt: skip
