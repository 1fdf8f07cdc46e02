"""The pipeline without transport: what a call costs, and where its time goes."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.calls import levels
from tests.benchmarks.deployment import Deployment
from tests.benchmarks.machine import SERVER, on_core
from tests.benchmarks.rows import Row, at_most, middle
from tests.benchmarks.scale import Scale

GROUP = "the pipeline alone (all stages, two records written, no transport)"
_MOST = {"miss": 100.0, "hit": 45.0}
_SECONDS = 300
STAGES = ("intercept", "identify", "describe", "decide", "record", "forward", "enforce", "answer")


class ChildError(Exception):
    """A measuring process failed. Says what it said."""


def child(module: str, task: dict[str, object]) -> Any:
    """Run a measuring process on the server's core; what it answered. ChildError."""
    command = [sys.executable, "-m", f"tests.benchmarks.{module}"]
    with on_core(SERVER):
        done = subprocess.run(
            command, input=json.dumps(task), capture_output=True, text=True, check=False, timeout=_SECONDS
        )
    if done.returncode:
        raise ChildError(f"{module}: {done.stderr[-800:]}")
    return json.loads(done.stdout)


def point(
    kind: str, settings: Sequence[Path], tokens: Sequence[str], ids: Sequence[Sequence[int]], calls: int, rounds: int
) -> Any:
    """What the enforcement point of `point` answered."""
    files = [str(one) for one in settings]
    task = {"kind": kind, "settings": files, "tokens": list(tokens), "ids": [list(one) for one in ids],
            "calls": calls, "rounds": rounds}  # fmt: skip
    return child("point", task)


def measure(deployment: Deployment, scale: Scale) -> list[Row]:
    """Microseconds per call, and of each stage."""
    keeps = deployment.settings("pipeline", **levels("written"))
    asks = deployment.settings("pipeline-anew", **levels("written"), decision__cache__entries=0)
    amy = deployment.world.tokens["amy"]
    found = point("stages", [keeps, asks], [amy], [[deployment.user]] * 2, scale.pipeline_calls, scale.rounds * 2)
    rows = [
        Row(
            group=GROUP, what=f"one call, cache {kind}", figure=middle(found[kind]), unit="µs", target=f"≤ {most:g} µs",
            reached=at_most(middle(found[kind]), most), note=f"best round {min(found[kind]):.0f} µs",
            samples=tuple(found[kind]),
        )
        for kind, most in _MOST.items()
    ]  # fmt: skip
    rows.append(
        Row(group=GROUP, what="Python functions entered by it, cache hit", figure=found["entered"], unit="functions")
    )
    for kind in _MOST:
        times: dict[str, float] = found["stages"][kind]
        rows += [
            Row(group=GROUP, what=f"  of it, cache {kind}: {name}", figure=times[name], unit="µs")
            for name in sorted(times, key=lambda name: STAGES.index(name) if name in STAGES else len(STAGES))
        ]
    return rows
