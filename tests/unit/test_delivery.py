"""Delivery against a store in memory whose receipts are real, and which can be told to lie."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from spooling import Clock, Notes, event, open_spool, until

from sidecar.api.v1 import oversight_pb2 as wire
from sidecar.api.v1.oversight_pb2_grpc import OversightServicer, add_OversightServicer_to_server
from sidecar.enforcement.delivery import Delivery
from sidecar.enforcement.receipts import ReceiptError, ReceiptVerifier, SplitViewError
from sidecar.record import batch_message, parse_leaf, promise_message
from sidecar.spool.log import Spool
from sidecar.spool.segment import list_segments
from sidecar.tlog.checkpoint import Checkpoint, sign_checkpoint
from sidecar.tlog.key import Signer
from sidecar.tlog.merkle import Digest, leaf_hash, range_proof, root_hash
from sidecar.tlog.trust import Trust

pytestmark = pytest.mark.unit

ORIGIN = "log.example/customhouse"
LOG_KEY = Ed25519PrivateKey.from_private_bytes(b"L" * 32)
SIGNER = Signer(ORIGIN, LOG_KEY)
PRODUCER_KEY = Ed25519PrivateKey.from_private_bytes(b"P" * 32)
TRUST = Trust.for_log(str(SIGNER.key))


class Tree:
    """Leaf hashes in order; sub-tree hashes are worked out when asked for."""

    def __init__(self) -> None:
        self.leaves: list[bytes] = []

    def node(self, level: int, index: int) -> bytes:
        return root_hash(self.leaves[index << level : (index + 1) << level])

    def note(self, size: int | None = None, signer: Signer = SIGNER, root: bytes | None = None) -> bytes:
        size = len(self.leaves) if size is None else size
        found = root_hash(self.leaves[:size]) if root is None else root
        return sign_checkpoint(Checkpoint(origin=signer.key.name, size=size, root=Digest(found)), [signer])


Bend = Callable[["Store", wire.Receipt], wire.Receipt]


@dataclass
class Store(OversightServicer):
    """Takes batches from one producer, checks them as the real one does, and gives a receipt for each."""

    tree: Tree = field(default_factory=Tree)
    places: dict[tuple[str, int], tuple[int, bytes]] = field(default_factory=dict)
    batches: list[tuple[str, int, int]] = field(default_factory=list)
    opens: list[wire.Open] = field(default_factory=list)
    bend: Bend | None = None
    reject: list[wire.Rejected] = field(default_factory=list)
    drop_after: int | None = None
    silent: bool = False
    receipts: bool = True
    promise_key: Ed25519PrivateKey = LOG_KEY

    async def Append(  # noqa: N802
        self, requests: AsyncIterator[wire.AppendRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[wire.AppendResponse]:
        async for request in requests:
            if request.WhichOneof("kind") == "open":
                self.opens.append(request.open)
                continue
            if self.silent:
                continue
            if self.drop_after is not None:
                self.drop_after -= 1
                if self.drop_after < 0:
                    self.drop_after = None
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
            if self.reject:
                yield wire.AppendResponse(rejected=self.reject.pop(0))
                continue
            span = self._take(request.batch)
            promise = wire.Promise(ranges=[span], merge_by="2026-11-22T12:00:10Z", origin=ORIGIN).SerializeToString()
            signature = self.promise_key.sign(promise_message(promise))
            yield wire.AppendResponse(accepted=wire.Accepted(ranges=[span], promise=promise, signature=signature))
            if self.receipts:
                yield wire.AppendResponse(receipt=self._receipt(span))

    def _take(self, batch: wire.Batch) -> wire.Range:
        header = wire.BatchHeader.FromString(batch.header)
        try:
            PRODUCER_KEY.public_key().verify(batch.signature, batch_message(batch.header))
        except InvalidSignature:
            raise AssertionError("the batch is not signed by the producer") from None
        assert self.opens[-1].epoch == header.epoch, "an Open precedes the batches of its epoch"
        hashes = [leaf_hash(item.leaf) for item in batch.items]
        assert header.root == root_hash(hashes)
        assert header.count == len(batch.items) <= 256
        first = None
        for place, item in enumerate(batch.items):
            leaf = parse_leaf(item.leaf)
            key = (leaf.epoch, leaf.seq)
            assert key == (header.epoch, header.first_seq + place)
            if key not in self.places:
                self.places[key] = (len(self.tree.leaves), item.leaf)
                self.tree.leaves.append(hashes[place])
            index, kept = self.places[key]
            assert kept == item.leaf, "the same seq always has the same bytes"
            first = index if first is None else first
        assert first is not None
        self.batches.append((header.epoch, header.first_seq, header.count))
        return wire.Range(
            epoch=header.epoch, slot=header.slot, first_seq=header.first_seq, count=header.count, first_index=first
        )

    def _receipt(self, span: wire.Range) -> wire.Receipt:
        size = len(self.tree.leaves)
        proof = range_proof(span.first_index, span.count, size, self.tree.node)
        receipt = wire.Receipt(range=span, checkpoint=self.tree.note(), proof=proof)
        return receipt if self.bend is None else self.bend(self, receipt)


@dataclass
class Setting:
    """A spool, a store that listens, and a delivery between them."""

    spool: Spool
    store: Store
    delivery: Delivery
    log: Notes
    server: grpc.aio.Server
    address: str
    task: asyncio.Task[None]

    async def committed(self, count: int = 1, size: int = 0) -> None:
        for number in range(count):
            self.spool.append([event(str(number), size=size)])
        assert self.spool.head is not None
        waiting = self.spool.reach(self.spool.head.seq, "committed")
        if waiting is not None:
            await waiting

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        await self.server.stop(0)
        await self.spool.close()


async def listen(store: Store, address: str = "127.0.0.1:0") -> tuple[grpc.aio.Server, str]:
    server = grpc.aio.server()
    add_OversightServicer_to_server(store, server)
    port = server.add_insecure_port(address)
    await server.start()
    return server, f"127.0.0.1:{port}"


async def begin(folder: Path, store: Store | None = None, *, trust: Trust = TRUST, **changes: object) -> Setting:
    store = store or Store()
    server, address = await listen(store)
    spool = open_spool(folder, **({"segment_bytes": 16384, "max_bytes": 1 << 22} | changes))
    log = Notes()
    delivery = Delivery(
        spool, private_key=PRODUCER_KEY, channel=lambda: grpc.aio.insecure_channel(address),
        receipts=ReceiptVerifier(trust), now=Clock(), jitter=lambda: 0.0, log=log, linger=0.01, stall=0.5,
    )  # fmt: skip
    return Setting(spool, store, delivery, log, server, address, asyncio.create_task(delivery.run()))


async def test_every_record_arrives_once_in_order_and_its_segments_go(tmp_path: Path) -> None:
    it = await begin(tmp_path)
    await it.committed(400, size=300)
    assert await it.delivery.drain(10)
    assert [seq for _, seq in it.store.places] == list(range(400))
    await until(lambda: len(list_segments(tmp_path / "0")) == 1)
    assert it.spool.depth_records == 0
    assert it.delivery.status.acknowledged == 400
    assert it.delivery.status.bad_receipts == 0
    assert it.log.errors == []
    await it.stop()


async def test_acknowledged_waiters_are_resolved_by_the_receipt(tmp_path: Path) -> None:
    it = await begin(tmp_path)
    seq = it.spool.append([event()])
    waiting = it.spool.reach(seq, "acknowledged")
    assert waiting is not None
    async with asyncio.timeout(5):
        await waiting
    assert ("", 0) not in it.store.places
    assert len(it.store.places) == 1
    await it.stop()


async def test_old_epochs_are_sent_first_each_after_its_open(tmp_path: Path) -> None:
    epochs = []
    for _ in range(3):
        spool = open_spool(tmp_path)
        spool.append([event("a"), event("b")])
        epochs.append(spool.epoch.id)
        keys = spool.epoch.sealed_key
        await spool.close()
    it = await begin(tmp_path)
    await it.committed()
    assert await it.delivery.drain(10)
    epochs.append(it.spool.epoch.id)
    assert [one.epoch for one in it.store.opens] == epochs
    assert it.store.opens[2].sealed_epoch_key == keys
    assert [epoch for epoch, _, _ in it.store.batches] == epochs
    await it.stop()


async def test_a_broken_stream_is_made_again_and_what_has_no_receipt_is_sent_again(tmp_path: Path) -> None:
    store = Store(receipts=False)
    it = await begin(tmp_path, store)
    await it.committed(600)
    await until(lambda: it.delivery.status.accepted == 600)
    store.receipts = True
    store.drop_after = 0
    await it.committed(10)
    assert await it.delivery.drain(10)
    assert len(store.places) == 610
    assert it.delivery.status.sent > 610
    assert any("going away" in line for line in it.log.warnings)
    await it.stop()


async def test_a_store_that_is_down_at_first_gets_everything_later(tmp_path: Path) -> None:
    it = await begin(tmp_path)
    await it.server.stop(0)
    await it.committed(50)
    await until(lambda: it.delivery.status.last_error != "")
    assert it.spool.depth_records == 50
    it.server, _ = await listen(it.store, it.address)
    assert await it.delivery.drain(10)
    await it.stop()


async def test_a_store_that_answers_nothing_is_left_after_a_while(tmp_path: Path) -> None:
    store = Store(silent=True)
    it = await begin(tmp_path, store)
    await it.committed(5)
    await until(lambda: "answered no batch" in it.delivery.status.last_error)
    store.silent = False
    assert await it.delivery.drain(10)
    await it.stop()


def wrong_proof(store: Store, receipt: wire.Receipt) -> wire.Receipt:
    flipped = (
        [bytes([receipt.proof[0][0] ^ 1]) + receipt.proof[0][1:], *receipt.proof[1:]] if receipt.proof else [bytes(32)]
    )
    return wire.Receipt(range=receipt.range, checkpoint=receipt.checkpoint, proof=flipped)


def wrong_root(store: Store, receipt: wire.Receipt) -> wire.Receipt:
    note = store.tree.note(root=os.urandom(32), size=len(store.tree.leaves) + len(store.batches))
    return wire.Receipt(range=receipt.range, checkpoint=note, proof=receipt.proof)


def other_log(store: Store, receipt: wire.Receipt) -> wire.Receipt:
    other = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(b"X" * 32))
    return wire.Receipt(range=receipt.range, checkpoint=store.tree.note(signer=other), proof=receipt.proof)


def other_origin(store: Store, receipt: wire.Receipt) -> wire.Receipt:
    other = Signer("elsewhere.example", LOG_KEY)
    return wire.Receipt(range=receipt.range, checkpoint=store.tree.note(signer=other), proof=receipt.proof)


def unsigned(store: Store, receipt: wire.Receipt) -> wire.Receipt:
    note = receipt.checkpoint.split(b"\n\n")[0] + b"\n\n"
    return wire.Receipt(range=receipt.range, checkpoint=note, proof=receipt.proof)


def other_place(store: Store, receipt: wire.Receipt) -> wire.Receipt:
    span = receipt.range
    moved = wire.Range(
        epoch=span.epoch, slot=span.slot, first_seq=span.first_seq, count=span.count, first_index=span.first_index + 1
    )
    return wire.Receipt(range=moved, checkpoint=receipt.checkpoint, proof=receipt.proof)


def more_than_proven(store: Store, receipt: wire.Receipt) -> wire.Receipt:
    span = receipt.range
    wide = wire.Range(epoch=span.epoch, slot=span.slot, first_seq=max(0, span.first_seq - 1), count=span.count + 1,
                      first_index=max(0, span.first_index - 1))  # fmt: skip
    return wire.Receipt(range=wide, checkpoint=receipt.checkpoint, proof=receipt.proof)


def other_slot(store: Store, receipt: wire.Receipt) -> wire.Receipt:
    span = receipt.range
    moved = wire.Range(
        epoch=span.epoch, slot=7, first_seq=span.first_seq, count=span.count, first_index=span.first_index
    )
    return wire.Receipt(range=moved, checkpoint=receipt.checkpoint, proof=receipt.proof)


LIES: list[Bend] = [wrong_proof, wrong_root, other_log, other_origin, unsigned, other_place, other_slot]


@pytest.mark.parametrize("lie", LIES)
async def test_a_receipt_that_proves_nothing_deletes_nothing(tmp_path: Path, lie: Bend) -> None:
    store = Store(bend=lie)
    it = await begin(tmp_path, store)
    await it.committed(200, size=300)
    before = set(list_segments(tmp_path / "0"))
    await until(lambda: it.delivery.status.bad_receipts >= 1)
    await until(lambda: it.delivery.status.accepted == 200)
    await asyncio.sleep(0.05)
    assert set(list_segments(tmp_path / "0")) >= before
    assert it.spool.depth_records == 200
    assert it.delivery.status.acknowledged == 0
    assert it.log.errors
    await it.stop()
    assert len(list_segments(tmp_path / "0")) >= len(before)


async def test_a_receipt_for_more_than_its_proof_covers_is_worth_nothing(tmp_path: Path) -> None:
    store = Store(bend=more_than_proven)
    it = await begin(tmp_path, store)
    await it.committed(300)
    await until(lambda: it.delivery.status.accepted == 300)
    await asyncio.sleep(0.05)
    assert it.delivery.status.acknowledged == 0
    await it.stop()


@pytest.mark.parametrize("kind", ["shrunk", "two_roots"])
async def test_two_histories_raise_the_alarm_for_good(tmp_path: Path, kind: str) -> None:
    store = Store()
    it = await begin(tmp_path, store)
    await it.committed(20)
    assert await it.delivery.drain(10)
    size = len(store.tree.leaves)

    def bend(store: Store, receipt: wire.Receipt) -> wire.Receipt:
        note = store.tree.note(size - 7) if kind == "shrunk" else store.tree.note(size, root=b"r" * 32)
        return wire.Receipt(range=receipt.range, checkpoint=note, proof=receipt.proof)

    store.bend = bend
    await it.committed(200, size=300)
    await until(lambda: it.delivery.status.alarm != "")
    store.bend = None
    await it.committed(50)
    await until(lambda: it.delivery.status.accepted == 270)
    await asyncio.sleep(0.05)
    assert it.spool.depth_records == 250, "from the alarm on nothing counts as received"
    evidence = (tmp_path / "0" / "split-view.txt").read_bytes()
    assert evidence.count(ORIGIN.encode()) >= 4
    assert any("split_view" in line for line in it.log.errors)
    await it.stop()


async def test_the_largest_checkpoint_is_kept_across_restarts(tmp_path: Path) -> None:
    store = Store()
    it = await begin(tmp_path, store)
    await it.committed(30)
    assert await it.delivery.drain(10)
    await it.stop()
    assert (tmp_path / "0" / "checkpoint").read_bytes() == store.tree.note(30)
    fork = Store()
    it = await begin(tmp_path, fork)
    await it.committed(5)
    await until(lambda: "shrank from 30" in it.delivery.status.alarm)
    assert it.spool.depth_records == 5
    await it.stop()


@pytest.mark.parametrize("code", ["equivocation", "bad_leaf", "bad_batch"])
async def test_a_batch_that_is_refused_for_good_is_kept_and_the_rest_goes_on(tmp_path: Path, code: str) -> None:
    store = Store(reject=[wire.Rejected(code=code, message="no", retry=False)])
    it = await begin(tmp_path, store)
    await it.committed(10)
    await until(lambda: it.delivery.status.refused == code)
    await it.committed(10)
    await until(lambda: it.delivery.status.acknowledged == 10)
    assert it.spool.depth_records == 10
    assert it.delivery.status.rejected == {code: 1}
    assert any(code in line for line in it.log.errors)
    await it.stop()
    assert 1 in list_segments(tmp_path / "0")


@pytest.mark.parametrize("code", ["unknown_producer", "bad_signature"])
async def test_a_producer_the_store_does_not_know_waits_and_keeps_everything(tmp_path: Path, code: str) -> None:
    store = Store(reject=[wire.Rejected(code=code, message="who?", retry=False)])
    it = await begin(tmp_path, store)
    await it.committed(10)
    await until(lambda: it.delivery.status.refused == code)
    await asyncio.sleep(0.2)
    assert len(store.batches) == 0, "no storm of attempts"
    assert it.spool.depth_records == 10
    assert "Register" in it.delivery.status.last_error
    await it.stop()


async def test_a_store_that_cannot_now_is_asked_again(tmp_path: Path) -> None:
    store = Store(reject=[wire.Rejected(code="unavailable", message="later", retry=True)])
    it = await begin(tmp_path, store)
    await it.committed(10)
    assert await it.delivery.drain(10)
    assert it.delivery.status.rejected == {"unavailable": 1}
    assert it.delivery.status.refused == ""
    await it.stop()


async def test_a_promise_not_signed_by_the_log_ends_the_stream(tmp_path: Path) -> None:
    store = Store(promise_key=Ed25519PrivateKey.from_private_bytes(b"X" * 32))
    it = await begin(tmp_path, store)
    await it.committed(10)
    await until(lambda: "promise" in it.delivery.status.last_error)
    assert it.delivery.status.accepted == 0
    await it.stop()


async def test_a_receipt_before_its_records_were_sent_on_this_stream_still_counts(tmp_path: Path) -> None:
    """A store may answer an Open with receipts for what it has, and then not again."""
    store = Store(receipts=False)
    it = await begin(tmp_path, store)
    await it.committed(300)
    await until(lambda: it.delivery.status.accepted == 300)
    span = wire.Range(epoch=it.spool.epoch.id, slot=0, first_seq=0, count=300, first_index=0)
    receipt = store._receipt(span)
    it.delivery._hashes.clear()
    await it.delivery._receipt(receipt)
    assert it.delivery.status.acknowledged == 0
    store.drop_after = 0
    await it.committed(1)
    store.receipts = False
    await until(lambda: len(store.opens) >= 2)
    await it.delivery._receipt(store._receipt(span))
    await until(lambda: it.delivery.status.acknowledged >= 300)
    await it.stop()


async def test_the_sender_waits_when_too_much_has_no_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.enforcement.delivery.OUTSTANDING", 500)
    store = Store(receipts=False)
    it = await begin(tmp_path, store)
    await it.committed(2000)
    await asyncio.sleep(0.3)
    assert it.delivery.status.sent <= 768
    await it.stop()


def test_an_older_checkpoint_seen_before_is_no_alarm() -> None:
    tree, verifier = Tree(), ReceiptVerifier(TRUST)
    tree.leaves = [leaf_hash(bytes([one])) for one in range(9)]
    assert verifier.check_checkpoint(tree.note(5))
    assert verifier.check_checkpoint(tree.note(9))
    assert not verifier.check_checkpoint(tree.note(5))
    verifier.check_range(tree.note(5), 2, tree.leaves[2:4], range_proof(2, 2, 5, tree.node))
    with pytest.raises(ReceiptError, match="not checked"):
        verifier.check_range(tree.note(9), 2, tree.leaves[2:4], range_proof(2, 2, 9, tree.node))
    with pytest.raises(SplitViewError):
        verifier.check_checkpoint(tree.note(4))
    with pytest.raises(ReceiptError):
        verifier.resume(b"not a note")
