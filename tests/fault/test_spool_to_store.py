"""Recorder, spool and delivery against the store itself, over mTLS, with the store killed on the way."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from spooling import Notes, entry, outcome, until
from store_rig import Producer, StoreProcess

from sidecar.api.v1 import oversight_pb2 as wire
from sidecar.api.v1.oversight_pb2_grpc import QueryStub
from sidecar.enforcement.delivery import Delivery
from sidecar.enforcement.periods import PeriodKeys
from sidecar.enforcement.receipts import ReceiptVerifier
from sidecar.enforcement.recorder import SpoolRecorder
from sidecar.spool.log import Spool
from sidecar.spool.slot import SpoolOptions
from sidecar.tlog.trust import Trust

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreProcess]:
    folder = tmp_path / "store"
    folder.mkdir()
    with StoreProcess(folder) as store:
        yield store


class Side:
    """A sidecar's recording side."""

    def __init__(self, folder: Path, store: StoreProcess, producer: Producer, identity: str) -> None:
        self.log = Notes()
        self.keys = PeriodKeys(
            producer=producer.name, private_key=producer.key, file=folder / "periods",
            channel=lambda: store.channel("keys", identity), now=now, jitter=random.random,
        )  # fmt: skip
        self.keys.load()
        self.spool = Spool.open(
            SpoolOptions(folder=folder, producer=producer.name, segment_bytes=65536, max_bytes=1 << 26),
            store_key=store.sealing_key.public_key().public_bytes_raw(), now=now, monotonic=time.monotonic,
        )  # fmt: skip
        self.recorder = SpoolRecorder(self.spool, self.keys, clock=lambda: now().timestamp())
        self.delivery = Delivery(
            self.spool, private_key=producer.key, channel=lambda: store.channel("append", identity),
            receipts=ReceiptVerifier(Trust.for_log(str(store.signer.key))), now=now, jitter=random.random, log=self.log,
        )  # fmt: skip


@asynccontextmanager
async def recording(folder: Path, store: StoreProcess, producer: Producer, identity: str) -> AsyncIterator[Side]:
    side = Side(folder, store, producer, identity)
    tasks = [asyncio.create_task(side.keys.run()), asyncio.create_task(side.delivery.run())]
    try:
        await until(lambda: side.keys.current(now()) is not None)
        await side.recorder.start()
        yield side
        await side.recorder.stop()
    finally:
        assert await side.delivery.drain(60), side.delivery.status
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await side.spool.close()


async def call(side: Side, number: int, level: str = "written") -> None:
    call_id = f"call-{number}"
    await side.recorder.decision(entry(call_id, level=level, subjects=[("rider", f"rider-{number}", "us")]))
    await side.recorder.outcome(outcome(call_id))


async def completeness(store: StoreProcess) -> list[str]:
    async with store.channel("query", "spiffe://test/reviewer") as channel:
        answer = await QueryStub(channel).GetCompleteness(wire.GetCompletenessRequest())
    return [
        f"{one.kind} {one.producer} {one.epoch} {one.first_seq}"
        for one in answer.findings
        if one.producer == "profiles-1"
    ]


async def found(store: StoreProcess, rider: str) -> int:
    async with store.channel("query", "spiffe://test/reviewer") as channel:
        answer = await QueryStub(channel).Search(wire.SearchRequest(subject=rider, subject_kind="rider"))
    return len(answer.records)


async def test_records_arrive_are_proven_and_found_while_the_store_is_killed(
    tmp_path: Path, store: StoreProcess
) -> None:
    producer = Producer()
    identity = store.register(producer)
    store.start()
    folder = tmp_path / "spool"
    async with recording(folder, store, producer, identity) as side:
        for number in range(300):
            await call(side, number)
        async with asyncio.timeout(60):
            await call(side, 300, "acknowledged")
        store.kill()
        for number in range(301, 900):
            await call(side, number)
        assert side.spool.depth_records >= 600
        await asyncio.to_thread(store.start)
    assert side.delivery.status.alarm == ""
    assert side.delivery.status.bad_receipts == 0
    assert not list((folder / "0").glob("*.seg")), "everything has its receipt, so nothing is kept"
    async with recording(folder, store, producer, identity) as side:
        await call(side, 900)
    assert side.log.errors == []
    assert [await found(store, f"rider-{number}") for number in (0, 300, 899, 900, 901)] == [1, 1, 1, 1, 0]
    assert [one for one in await completeness(store) if not one.startswith("silent")] == []
    assert store.stop() == 0


async def test_a_producer_that_is_not_registered_keeps_everything_and_says_so(
    tmp_path: Path, store: StoreProcess
) -> None:
    store.register(Producer(name="somebody-else"))
    store.start()
    side = Side(tmp_path / "spool", store, Producer(), "spiffe://test/nobody")
    task = asyncio.create_task(side.delivery.run())
    await side.recorder.start()
    await until(lambda: side.delivery.status.refused == "unknown_producer")
    assert side.spool.depth_records == 1
    assert any("Register" in line for line in [*side.log.errors, *side.log.warnings])
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await side.recorder.stop()
    await side.spool.close()
    assert list((tmp_path / "spool" / "0").glob("*.seg"))
