"""How many records travel together, and what a batch's answer has to name."""

import asyncio
from pathlib import Path

import pytest
from delivery_parts import Store, begin
from spooling import event, until

from sidecar.api.v1 import oversight_pb2 as wire
from sidecar.enforcement.delivery import _field
from sidecar.record import MAX_BATCH

pytestmark = pytest.mark.unit

LONG = 600.0


async def test_records_nobody_waits_for_travel_together(tmp_path: Path) -> None:
    it = await begin(tmp_path, longest=LONG)
    for _ in range(5):
        await it.committed(3)
        await asyncio.sleep(0.03)
    assert it.store.batches == []
    assert await it.delivery.drain(10)
    assert [count for _, _, count in it.store.batches] == [15]
    await it.stop()


async def test_a_batch_that_is_full_waits_for_nothing(tmp_path: Path) -> None:
    it = await begin(tmp_path, longest=LONG, segment_bytes=1 << 20)
    await it.committed(MAX_BATCH + 5)
    await until(lambda: it.delivery.status.acknowledged >= MAX_BATCH)
    assert it.store.batches[0][2] == MAX_BATCH
    await it.stop()


async def test_a_record_whose_receipt_somebody_waits_for_goes_at_once(tmp_path: Path) -> None:
    it = await begin(tmp_path, longest=LONG)
    await it.committed(3)
    await asyncio.sleep(0.05)
    seq = it.spool.append([event()])
    waiting = it.spool.reach(seq, "acknowledged")
    assert waiting is not None
    assert it.spool.receipts_wanted
    async with asyncio.timeout(20):
        await waiting
    assert not it.spool.receipts_wanted
    await it.stop()


async def test_nothing_lingers_longer_than_it_may(tmp_path: Path) -> None:
    it = await begin(tmp_path, longest=0.05)
    await it.committed(2)
    await until(lambda: it.delivery.status.acknowledged == 2)
    await it.stop()


def in_pieces(span: wire.Range) -> list[wire.Range]:
    """Single records, the last first, and one of another epoch."""
    one = [wire.Range(epoch=span.epoch, first_seq=span.first_seq + at, count=1) for at in range(span.count)]
    return [wire.Range(epoch="other", first_seq=span.first_seq, count=span.count), *reversed(one)]


def without_the_middle(span: wire.Range) -> list[wire.Range]:
    return [one for one in in_pieces(span) if one.first_seq != span.first_seq + 2]


def of_another_epoch(span: wire.Range) -> list[wire.Range]:
    return [wire.Range(epoch="other", first_seq=span.first_seq, count=span.count)]


def one_too_few(span: wire.Range) -> list[wire.Range]:
    return [wire.Range(epoch=span.epoch, first_seq=span.first_seq, count=span.count - 1)]


def more_than_a_batch(span: wire.Range) -> list[wire.Range]:
    return [wire.Range(epoch=span.epoch, first_seq=span.first_seq, count=MAX_BATCH + 1)]


async def test_a_promise_may_come_in_pieces(tmp_path: Path) -> None:
    it = await begin(tmp_path, Store(promised=in_pieces))
    await it.committed(5)
    assert await it.delivery.drain(10)
    assert it.delivery.status.accepted == 5
    await it.stop()


@pytest.mark.parametrize("lie", [without_the_middle, of_another_epoch, one_too_few, more_than_a_batch])
async def test_a_promise_that_leaves_records_out_ends_the_stream(tmp_path: Path, lie: object) -> None:
    it = await begin(tmp_path, Store(promised=lie), longest=LONG)  # type: ignore[arg-type]
    await it.committed(5)
    it.delivery._draining = True
    await until(lambda: "leaves out records of the batch from 0 on" in it.delivery.status.last_error)
    assert it.delivery.status.accepted == 0
    await it.stop()


@pytest.mark.parametrize("size", [0, 1, 127, 128, 16383, 16384, 1 << 20])
def test_a_request_is_encoded_as_protobuf_encodes_it(size: int) -> None:
    items = wire.Batch(items=[wire.Item(leaf=b"l" * 40, body=b"b" * size)] * 2)
    signed = wire.Batch(header=b"h" * 90, signature=b"s" * 64)
    whole = wire.Batch(header=signed.header, signature=signed.signature, items=items.items)
    found = _field(2, signed.SerializeToString(), items.SerializeToString())
    assert found == wire.AppendRequest(batch=whole).SerializeToString()
