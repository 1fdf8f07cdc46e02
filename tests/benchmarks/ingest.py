"""What the oversight store takes in, and what reviewers wait for: a store of its own, over its three listeners."""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import uvloop

from sidecar.api.v1 import oversight_pb2 as pb
from sidecar.api.v1 import oversight_pb2_grpc
from sidecar.oversight.producers import add_producer
from tests.benchmarks.machine import SERVER, on_core, rss
from tests.benchmarks.producer import PEOPLE, REASONS, Made, Producer
from tests.benchmarks.rows import Row, at_least, at_most, middle
from tests.benchmarks.scale import Scale
from tests.store_rig import CLOCK, StoreProcess

RATE, GROWTH, SEARCH_MS, PROOF_MS = 15_000, 1.3, 200, 10
REVIEWER = "spiffe://test/reviewer"
_WINDOW = 16
"""Batches sent ahead of their answers."""
_SAMPLES = 64
_QUESTIONS, _PROOFS = 60, 60
_LATER_SECONDS = 240.0


class IngestError(Exception):
    """The store refused what it should take. Says why."""


@dataclass(slots=True)
class Fed:
    """How records went in. `marks`: seconds and records accepted, from the first answer on."""

    marks: list[tuple[float, int]] = field(default_factory=list)
    samples: list[Made] = field(default_factory=list)
    making: float = 0.0

    def seconds_per_record(self, first: int, end: int) -> float:
        """Between two counts of accepted records."""
        began = next(mark for mark in self.marks if mark[1] >= first)
        ended = next(mark for mark in self.marks if mark[1] >= end)
        return (ended[0] - began[0]) / (ended[1] - began[1])


def measure(folder: Path, scale: Scale, say: Callable[[str], None]) -> list[Row]:
    """Start a store, fill it, ask it. IngestError."""
    folder.mkdir()
    with StoreProcess(folder, interval="1s") as store:
        producer = Producer()
        with on_core(SERVER):
            store.start()
        identity = f"spiffe://test/{producer.name}"
        add_producer(folder / "producers.jsonl", name=producer.name, public_key=producer.key.public_key(),
                     identity=identity, now=CLOCK)  # fmt: skip
        return uvloop.run(_measure(store, producer, identity, scale, say))


async def _measure(
    store: StoreProcess, producer: Producer, identity: str, scale: Scale, say: Callable[[str], None]
) -> list[Row]:
    async with store.channel("append", identity) as channel:
        fed = await _feed(oversight_pb2_grpc.OversightStub(channel), store, producer, scale.records, say)
    async with store.channel("query", REVIEWER) as channel:
        query = store.query(channel)
        say("waiting until everything is published and can be searched")
        behind = await _caught_up(query, fed.marks[-1][1])
        say("searches and proofs")
        searches = await _searches(query, fed)
        proofs = await _proofs(query, fed)
    return _rows(scale, fed, behind, searches, proofs, rss(store.process.pid) if store.process else 0.0)


async def _feed(
    stub: oversight_pb2_grpc.OversightStub, store: StoreProcess, producer: Producer, records: int,
    say: Callable[[str], None],
) -> Fed:  # fmt: skip
    fed, room = Fed(), asyncio.Semaphore(_WINDOW)
    every = max(1, records // 256 // _SAMPLES)

    async def requests() -> AsyncIterator[pb.AppendRequest]:
        yield producer.open(store.sealing_key.public_key())
        made = producer.batches(records)
        for number in itertools.count():
            began = time.perf_counter()
            one = next(made, None)
            fed.making += time.perf_counter() - began
            if one is None:
                break
            if number % every == 0 and one.call_id:
                fed.samples.append(one)
            await room.acquire()
            yield one.message

    accepted, told = 0, 0
    total = 1 + records // 256 * 256
    call = stub.Append(requests())
    async for response in call:
        if response.HasField("rejected"):
            raise IngestError(f"the store refused a batch: {response.rejected.code}: {response.rejected.message}")
        if response.HasField("accepted"):
            accepted += sum(one.count for one in response.accepted.ranges)
            fed.marks.append((time.perf_counter(), accepted))
            room.release()
        if accepted - told >= max(50_000, total // 20):
            told = accepted
            say(f"{accepted:,} of {total:,} records")
        if accepted >= total:
            call.cancel()
            break
    return fed


async def _caught_up(query: oversight_pb2_grpc.QueryStub, records: int) -> float:
    """Seconds until checkpoint and search index cover so many records; -1 when that took too long."""
    began = time.perf_counter()
    while time.perf_counter() - began < _LATER_SECONDS:
        with contextlib.suppress(grpc.aio.AioRpcError):
            note = await query.GetCheckpoint(pb.GetCheckpointRequest())
            found = await query.Search(pb.SearchRequest(limit=1))
            if int(note.checkpoint.split(b"\n")[1]) >= records and found.searched_to >= records:
                return time.perf_counter() - began
        await asyncio.sleep(0.5)
    return -1.0


async def _searches(query: oversight_pb2_grpc.QueryStub, fed: Fed) -> list[float]:
    """Milliseconds of questions as a reviewer asks them, each kind as often."""
    dice, times = random.Random(0), []
    for number in range(_QUESTIONS):
        one = dice.choice(fed.samples)
        person = f"colleague-{dice.randrange(PEOPLE):04d}"
        kinds = (
            {"person": person}, {"person": person, "effect": "deny"}, {"call_id": one.call_id}, {"trace": one.trace},
            {"effect": "deny", "since": one.time}, {"reason": REASONS[1], "person": person},
            {"category": "id_government", "until": one.time}, {"type": "outcome", "since": one.time},
        )  # fmt: skip
        began = time.perf_counter()
        await query.Search(pb.SearchRequest(limit=50, **kinds[number % len(kinds)]))
        times.append((time.perf_counter() - began) * 1000)
    return times


async def _proofs(query: oversight_pb2_grpc.QueryStub, fed: Fed) -> list[float]:
    dice, times = random.Random(1), []
    for _ in range(_PROOFS):
        index = dice.randrange(fed.marks[-1][1])
        began = time.perf_counter()
        await query.Prove(pb.ProveRequest(index=index))
        times.append((time.perf_counter() - began) * 1000)
    return times


def _rows(
    scale: Scale, fed: Fed, behind: float, searches: list[float], proofs: list[float], memory: float
) -> list[Row]:
    group = f"the store: {scale.records:,} records, SQLite, durable, batches of 256"
    total, part = fed.marks[-1][1], min(10**5, scale.records // 4)
    mean = fed.seconds_per_record(1, total)
    growth = fed.seconds_per_record(total - part, total) / fed.seconds_per_record(1, part)
    searches.sort()
    p95 = searches[int(len(searches) * 0.95)]
    making = f"making them took {fed.making / total * 1e6:.0f} µs of {mean * 1e6:.0f} each"
    return [
        Row(group=group, what="ingest", figure=1 / mean, unit="/s", target=f"≥ {RATE:,}/s", rss=memory, note=making,
            reached=at_least(1 / mean, RATE)),
        Row(group=group, what=f"a record's cost, last {part:,} against first", figure=growth, unit="×",
            target=f"≤ {GROWTH} × at 10⁷", reached=at_most(growth, GROWTH) if scale.records >= 10**7 else None),
        Row(group=group, what="published and searchable after", figure=behind, unit="s"),
        Row(group=group, what="search, p95", figure=p95, unit="ms", p50=middle(searches), p99=searches[-1],
            target=f"≤ {SEARCH_MS} ms at 10⁷", reached=at_most(p95, SEARCH_MS) if scale.records >= 10**7 else None,
            samples=tuple(searches), note="the question's own record included"),
        Row(group=group, what="one proof", figure=middle(proofs), unit="ms", p50=middle(proofs), p99=max(proofs),
            target=f"≤ {PROOF_MS} ms", reached=at_most(middle(proofs), PROOF_MS), samples=tuple(proofs),
            note="the question's own record included"),
    ]  # fmt: skip
