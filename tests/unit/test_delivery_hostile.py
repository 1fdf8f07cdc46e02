"""A store that means ill, or a disk that fails while it does: nothing stops, nothing is deleted, no alarm is silent."""

import asyncio
import errno
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from delivery_parts import ORIGIN, SIGNER, TRUST, Store, begin
from spooling import FailingFiles, until

from sidecar.api.v1 import oversight_pb2 as wire
from sidecar.enforcement.delivery import DeliveryError, Stream
from sidecar.enforcement.history import KeptHistory
from sidecar.enforcement.receipts import ReceiptVerifier
from sidecar.spool.segment import list_segments
from sidecar.tlog.checkpoint import Checkpoint, sign_checkpoint
from sidecar.tlog.merkle import Digest, range_proof

pytestmark = pytest.mark.unit


class Babbling(grpc.GenericRpcHandler):
    """Answers whatever is asked with bytes that are no message."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        del details

        async def answer(requests: AsyncIterator[bytes], _context: object) -> AsyncIterator[bytes]:
            async for _request in requests:
                yield b"\xff\xff\xff"

        return grpc.stream_stream_rpc_method_handler(cast("Any", answer))


async def test_an_answer_that_cannot_be_read_ends_the_stream_and_not_the_delivery(tmp_path: Path) -> None:
    it = await begin(tmp_path)
    await it.server.stop(0)
    babbling = grpc.aio.server()
    babbling.add_generic_rpc_handlers((Babbling(),))
    babbling.add_insecure_port(it.address)
    await babbling.start()
    await it.committed(3)
    await until(lambda: "no answer" in it.delivery.status.last_error)
    assert not it.task.done()
    assert it.spool.depth_records == 3
    await babbling.stop(0)
    await it.stop()


async def test_an_alarm_is_raised_and_lasts_although_its_evidence_cannot_be_kept(tmp_path: Path) -> None:
    store = Store()
    it = await begin(tmp_path, store)
    await it.committed(20)
    assert await it.delivery.drain(60)
    size, in_the_way = len(store.tree.leaves), tmp_path / "0" / "split-view.txt.spare"
    in_the_way.mkdir()

    def two_roots(store: Store, receipt: wire.Receipt) -> wire.Receipt:
        return wire.Receipt(range=receipt.range, checkpoint=store.tree.note(size, root=b"r" * 32), proof=receipt.proof)

    store.bend = two_roots
    await it.committed(1)
    await until(lambda: it.delivery.status.alarm != "")
    assert any("not kept" in line for line in it.log.errors)
    store.bend = None
    await it.committed(100, size=300)
    await until(lambda: it.delivery.status.accepted == 121)
    assert it.spool.depth_records == 101, "from the alarm on nothing counts as received"
    in_the_way.rmdir()
    store.bend = two_roots
    await it.committed(1)
    await until((tmp_path / "0" / "split-view.txt").exists)
    assert (tmp_path / "0" / "split-view.txt").read_bytes().count(ORIGIN.encode()) >= 2
    await it.stop()


class Reminding(Store):
    """On `Open` it gives the receipt for all that it has of the epoch, from the first record on."""

    def _reminders(self, epoch: str) -> list[wire.Receipt]:
        count = sum(one == epoch for one, _ in self.places)
        if not count:
            return []
        span = wire.Range(epoch=epoch, slot=0, first_seq=0, count=count, first_index=0)
        proof = range_proof(0, count, len(self.tree.leaves), self.tree.node)
        return [wire.Receipt(range=span, checkpoint=self.tree.note(), proof=proof)]


async def test_a_receipt_that_no_batch_of_the_stream_can_match_is_not_looked_at_for_ever(tmp_path: Path) -> None:
    store = Reminding(receipts=False)
    first = await begin(tmp_path, store, segment_bytes=4096, max_bytes=1 << 20)
    await first.committed(60, size=100)
    await until(lambda: first.delivery.status.accepted == 60)
    first.spool.acknowledge(first.spool.epoch.id, 0, 30)
    await first.stop()
    assert 1 not in list_segments(tmp_path / "0"), "the next process does not know of what went with its segment"
    again = await begin(tmp_path, store, segment_bytes=4096, max_bytes=1 << 20)
    await until(lambda: again.delivery.status.accepted > 0)
    for _ in range(20):  # each batch is an occasion to look at it
        before = again.delivery.status.accepted
        await again.committed(1)
        await until(lambda before=before: again.delivery.status.accepted > before)
        if not again.delivery._early:
            break
    assert not again.delivery._early
    assert again.delivery.status.acknowledged == 0
    assert again.delivery.status.bad_receipts == 0
    await again.stop()


async def test_a_store_does_not_choose_how_many_series_its_refusals_are(tmp_path: Path) -> None:
    it = await begin(tmp_path, Store(silent=True))
    for number in range(100):
        with pytest.raises(DeliveryError):
            it.delivery._rejected(wire.Rejected(code=f"{number} " + "x" * 1000))
    found = it.delivery.status.rejected
    assert len(found) == 33
    assert found["other"] == 68
    assert max(map(len, found)) == 64
    await it.stop()


async def test_an_early_receipt_that_is_too_large_is_not_kept(tmp_path: Path) -> None:
    store = Store(silent=True)
    it = await begin(tmp_path, store)
    store.tree.leaves.append(b"l" * 32)
    span = wire.Range(epoch="an epoch to come", slot=0, first_seq=0, count=1)
    for size, kept in ((10, 1), (1 << 20, 1)):
        await it.delivery._receipt(wire.Receipt(range=span, checkpoint=store.tree.note(), proof=[bytes(size)]))
        assert len(it.delivery._early) == kept
    await it.stop()


async def test_the_end_is_noticed_whatever_brought_the_last_receipt(tmp_path: Path) -> None:
    it = await begin(tmp_path, Store(receipts=False))
    await it.committed(3)
    await until(lambda: it.delivery.status.accepted == 3)
    draining = asyncio.create_task(it.delivery.drain(60))
    await asyncio.sleep(0.05)
    it.delivery._acknowledge(it.spool.epoch.id, 0, 3)  # as for an early receipt, which the sender looks at
    async with asyncio.timeout(10):
        assert await draining
    await it.stop()


async def test_a_store_that_reads_nothing_is_left_after_a_while(tmp_path: Path) -> None:
    class Deaf:
        async def write(self, _request: bytes) -> None:
            await asyncio.Event().wait()

    it = await begin(tmp_path)
    with pytest.raises(DeliveryError, match="read nothing"):
        await it.delivery._write(cast("Stream", Deaf()), b"")
    await it.stop()


def test_a_checkpoint_that_keeps_coming_is_never_taken_for_a_tree_that_shrank() -> None:
    def note(size: int) -> bytes:
        return sign_checkpoint(Checkpoint(origin=ORIGIN, size=size, root=Digest(size.to_bytes(32, "big"))), [SIGNER])

    receipts, early = ReceiptVerifier(TRUST), note(1)
    assert receipts.check_checkpoint(early)
    for size in range(2, 4600):
        receipts.check_checkpoint(note(size))
        if not size % 500:
            assert not receipts.check_checkpoint(early)


class Held(FailingFiles):
    """Its first write waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()

    def overwrite(self, path: Path, data: bytes) -> None:
        super().overwrite(path, data)
        if not self.begun.is_set():
            self.begun.set()
            self.go.wait(30)


async def test_the_kept_checkpoint_is_whole_and_the_newest_whoever_was_cancelled_meanwhile(tmp_path: Path) -> None:
    files = Held()
    kept = KeptHistory(tmp_path, files)
    first = asyncio.create_task(kept.keep(b"small"))
    await asyncio.to_thread(files.begun.wait, 30)
    first.cancel()
    await asyncio.wait([first])
    later = [asyncio.create_task(kept.keep(note)) for note in (b"a larger one", b"the largest of all")]
    await asyncio.sleep(0.05)
    files.go.set()
    await asyncio.gather(*later)
    assert kept.read() == b"the largest of all"


async def test_a_checkpoint_that_cannot_be_kept_says_so(tmp_path: Path) -> None:
    files = FailingFiles()
    files.fail["overwrite"] = errno.ENOSPC
    with pytest.raises(OSError, match="injected"):
        await KeptHistory(tmp_path, files).keep(b"a note")
    assert KeptHistory(tmp_path).read() is None
