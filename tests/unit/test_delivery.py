"""Delivery against a store in memory whose receipts are real, and which can be told to lie."""

import asyncio
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from delivery_parts import LOG_KEY, ORIGIN, TRUST, Bend, Store, Tree, begin, listen
from spooling import event, open_spool, until

from sidecar.api.v1 import oversight_pb2 as wire
from sidecar.enforcement.receipts import ReceiptError, ReceiptVerifier, SplitViewError
from sidecar.spool.segment import list_segments
from sidecar.tlog.key import Signer
from sidecar.tlog.merkle import leaf_hash, range_proof

pytestmark = pytest.mark.unit


async def test_every_record_arrives_once_in_order_and_its_segments_go(tmp_path: Path) -> None:
    it = await begin(tmp_path)
    await it.committed(400, size=300)
    assert await it.delivery.drain(60)
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
    assert await it.delivery.drain(60)
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
    assert await it.delivery.drain(60)
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
    assert await it.delivery.drain(60)
    await it.stop()


async def test_a_store_that_answers_nothing_is_left_after_a_while(tmp_path: Path) -> None:
    store = Store(silent=True)
    it = await begin(tmp_path, store)
    await it.committed(5)
    await until(lambda: "answered no batch" in it.delivery.status.last_error)
    store.silent = False
    assert await it.delivery.drain(60)
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
    assert await it.delivery.drain(60)
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
    assert await it.delivery.drain(60)
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
    assert await it.delivery.drain(60)
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
    it.delivery._awaited.clear()
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
    verifier.check_range(tree.note(5), 2, b"".join(tree.leaves[2:4]), range_proof(2, 2, 5, tree.node))
    with pytest.raises(ReceiptError, match="not checked"):
        verifier.check_range(tree.note(9), 2, b"".join(tree.leaves[2:4]), range_proof(2, 2, 9, tree.node))
    with pytest.raises(SplitViewError):
        verifier.check_checkpoint(tree.note(4))
    with pytest.raises(ReceiptError):
        verifier.resume(b"not a note")
