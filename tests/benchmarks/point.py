"""The pipeline without transport, in a process of its own: `python -m tests.benchmarks.point` with a task as JSON.

All stages run as in a sidecar, both records are written to the spool; calls come from a loop, answers from memory, and
nothing is sent to the store while the clock runs. The task says what to measure; the answer is JSON.
"""

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Literal

import msgspec
import uvloop

from sidecar._native import CallIds, RandomPool
from sidecar.attributes.resource import Classifier
from sidecar.attributes.subject import Identifier
from sidecar.decision.cache import CachedDecisionPoint, DecisionCache
from sidecar.demo.world import CONSOLE
from sidecar.enforcement.call import Call, Final, Peer, Reply
from sidecar.enforcement.circumstances import TICKET
from sidecar.enforcement.declarations import PROXY
from sidecar.enforcement.parts import Parts
from sidecar.enforcement.pipeline import EnforcementPoint
from sidecar.enforcement.prepared import Preparations
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import Code
from sidecar.main import build, composition, given, policy_start
from sidecar.main.records import Records
from sidecar.main.standing import InForce
from sidecar.observability.calls import CallObserver
from sidecar.observability.logs import make_logger
from sidecar.observability.metrics import CallStats
from sidecar.settings.loader import load
from sidecar.settings.sidecar import SidecarSettings
from tests.benchmarks.deployment import METHOD, profile, request
from tests.benchmarks.machine import rss

_KEYS_SECONDS = 10.0
_SLICE = 250


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to measure. Each settings file has its own ids of data subjects; callers are those of `tokens`.

    `settings`: for stages one that keeps decisions and one that keeps none; for people two of either, few before many.
    """

    kind: Literal["stages", "people", "memory"]
    settings: list[str]
    tokens: list[str]
    ids: list[list[int]]
    calls: int
    rounds: int


class Memory:
    """An upstream that answers from memory: the profile of whoever was asked for."""

    def __init__(self, ids: list[int]) -> None:
        self._answers = {request("", user).body: profile(user) for user in ids}

    async def unary(self, method: str, message: bytes, metadata: object, timeout: float | None) -> Reply:
        return Reply(message=self._answers[message], headers=(), final=Final(code=Code.OK))

    def reduced(self, final: Final) -> Final:
        return final


@dataclass(frozen=True, slots=True)
class Bench:
    """An enforcement point and what is read beside it."""

    point: EnforcementPoint
    cache: DecisionCache
    stats: CallStats


async def compose(path: Path, ids: list[int], stack: AsyncExitStack, log: OperatorLog) -> Bench:
    """As the sidecar's composition root does, but for doors, upstream, tracing and what runs in the background."""
    settings = load(path, SidecarSettings, {})
    records = Records.open(settings, log)
    stack.push_async_callback(records.close)
    await records.start()
    await _first_key(records)
    directory, index = build.directory(settings), build.index(settings)
    active = policy_start.tried(settings, build.engine_maker(settings))
    assert active is not None
    standing = InForce(active, directory, index, settings.policy.max_age)
    decisions = CachedDecisionPoint(
        inner=active.engine,
        cache=DecisionCache(clock=time.monotonic, entries=settings.decision.cache.entries),
        revisions=standing.revisions,
    )
    tokens = build.tokens(settings)
    following = asyncio.ensure_future(tokens.run())  # keys and revocations go stale when nobody reads them
    stack.callback(following.cancel)
    stats = CallStats()
    parts = Parts(
        identifier=Identifier(
            tokens=tokens, people=directory, workloads=build.workloads(settings),
            binding=settings.identity.bind_to_workload,
        ),
        describer=build.describer(settings), classifier=Classifier(index), decisions=decisions,
        recorder=records.recorder, upstream=Memory(ids), circumstances=composition.circumstances(settings, None, None),
        standing=standing, preparations=Preparations(),
        observer=CallObserver(stats),
        levels=settings.record.levels.model_dump(), reflection=False,
        report=lambda error: print(f"refused: {error.operator}", file=sys.stderr),
        clock=given.clock, new_id=CallIds(given.clock, RandomPool()),
    )  # fmt: skip
    return Bench(EnforcementPoint(parts), decisions.cache, stats)


async def _first_key(records: Records) -> None:
    """Let the background work run until the period keys are there, then no longer."""
    tasks = [asyncio.ensure_future(one) for one in records.run()]
    end = time.monotonic() + _KEYS_SECONDS
    while any("period keys" in one for one in records.problems()) and time.monotonic() < end:
        await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def calls(task: Task, which: int, count: int, seed: int) -> list[tuple[Call, bytes]]:
    """Callers and ids at random; always the same one where the task has one token and one id."""
    dice, peer = random.Random(seed), Peer(identities=(CONSOLE,))
    found = []
    for _ in range(count):
        one = request(dice.choice(task.tokens), dice.choice(task.ids[which]))
        found.append((Call(method=METHOD, metadata=tuple(one.metadata), peer=peer, door=PROXY), one.body))
    return found


async def timed(bench: Bench, made: list[tuple[Call, bytes]]) -> float:
    """Microseconds per call. Anything but OK ends the run."""
    unary, taken = bench.point.unary, 0.0
    for at in range(0, len(made), _SLICE):
        part = made[at : at + _SLICE]
        began = time.perf_counter()
        for call, body in part:
            reply = await unary(call, body)
            if reply.message is None:
                raise SystemExit(f"the pipeline answered {reply.final}")
        taken += time.perf_counter() - began
        await asyncio.sleep(0)  # the spool's commits are not starved
    return taken / len(made) * 1e6


async def entered(bench: Bench, made: list[tuple[Call, bytes]]) -> float:
    """Python functions entered per call: a measure of work that a busy machine does not disturb."""
    count = 0

    def note(_: FrameType, event: str, __: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        await timed(bench, made)
    finally:
        sys.setprofile(None)
    return count / len(made)


async def stages(task: Task, stack: AsyncExitStack, log: OperatorLog) -> dict[str, object]:
    """Hit and miss in turns, and the stages of each."""
    benches = await _composed(task, stack, log)
    made = calls(task, 0, task.calls, 0)
    for bench in benches:
        await timed(bench, made[:500])
    taken: dict[str, list[float]] = {"hit": [], "miss": []}
    totals: dict[str, dict[str, float]] = {"hit": {}, "miss": {}}
    for _ in range(task.rounds):
        for (kind, total), bench in zip(totals.items(), benches, strict=True):
            before = {name: stage.total for name, stage in bench.stats.stages.items()}
            taken[kind].append(await timed(bench, made))
            for name, stage in bench.stats.stages.items():
                total[name] = (
                    total.get(name, 0.0) + (stage.total - before.get(name, 0.0)) / (task.rounds * len(made)) * 1e6
                )
    return {**taken, "stages": totals, "entered": await entered(benches[0], made[:_SLICE])}


async def people(task: Task, stack: AsyncExitStack, log: OperatorLog) -> dict[str, object]:
    """Few and many in turns, slice by slice."""
    benches = await _composed(task, stack, log)
    found: dict[str, list[float]] = {"few hit": [], "many hit": [], "few miss": [], "many miss": []}
    for number in range(task.rounds):
        made = [calls(task, which, task.calls, number) for which in range(len(benches))]
        for bench, some in zip(benches, made, strict=True):
            await timed(bench, some)  # tokens verified, decisions cached
        turns = [*zip(found.values(), benches, made, strict=True)]
        for pair in (turns[:2], turns[2:]):
            for at in range(0, task.calls, _SLICE):
                for taken, bench, some in pair:
                    taken.append(await timed(bench, some[at : at + _SLICE]))
    return found


async def _composed(task: Task, stack: AsyncExitStack, log: OperatorLog) -> list[Bench]:
    return [await compose(Path(one), ids, stack, log) for one, ids in zip(task.settings, task.ids, strict=True)]


async def memory(task: Task, stack: AsyncExitStack, log: OperatorLog) -> dict[str, object]:
    """What a full decision cache takes: calls that differ in their ticket, so that each asks another question."""
    bench = await compose(Path(task.settings[0]), task.ids[0], stack, log)
    ((plain, body),) = calls(task, 0, 1, 0)
    await timed(bench, [(plain, body)] * 500)
    before = rss(os.getpid())
    for number in range(task.calls):
        metadata = tuple((TICKET, f"SUP-{number}") if key == TICKET else (key, value)
                         for key, value in plain.metadata)  # fmt: skip
        await timed(bench, [(replace(plain, metadata=metadata), body)])
    return {"before": before, "after": rss(os.getpid()), "entries": len(bench.cache)}


async def main(task: Task) -> dict[str, object]:
    """Do the task."""
    does: Callable[[Task, AsyncExitStack, OperatorLog], Awaitable[dict[str, object]]]
    does = {"stages": stages, "people": people, "memory": memory}[task.kind]
    async with AsyncExitStack() as stack:
        return await does(task, stack, make_logger("bench", sys.stderr))


if __name__ == "__main__":
    json.dump(uvloop.run(main(msgspec.json.decode(sys.stdin.read(), type=Task))), sys.stdout)
