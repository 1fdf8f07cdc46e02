"""The store is killed at random moments under load: what it accepted is there, once, and the log never goes back."""

import asyncio
import random
import sqlite3
from collections import Counter
from contextlib import suppress

import grpc
import pytest
from store_rig import Producer, StoreProcess

from sidecar.api.v1 import oversight_pb2_grpc
from sidecar.oversight.sqlite import SqliteStorage
from sidecar.tlog.checkpoint import open_checkpoint
from sidecar.tlog.key import Verifier
from sidecar.tlog.merkle import leaf_hash, root_hash, verify_range
from sidecar.tlog.tile import ENTRIES, decode_bundle, tile_at

pytestmark = pytest.mark.fault
ROUNDS = 10
BATCH = 16


class Sender:
    """One producer that goes on after the store was killed, from the first record without an answer."""

    def __init__(self, store, producer):
        self.store, self.producer = store, producer
        self.identity = store.register(producer)
        self.answered = {}  # seq -> index
        self.proven = set()
        self.largest = 0

    async def run(self, until):
        """Send, collect answers and verify receipts until the connection breaks or `until` records are proven."""
        producer = self.producer
        async with self.store.channel("append", self.identity) as channel:
            call = oversight_pb2_grpc.OversightStub(channel).Append()

            async def send():
                unanswered = next((seq for seq in range(until) if seq not in self.answered), until)
                # Some records are sent again, as a producer does that lost its notes.
                first = max(0, unanswered - BATCH - 3)
                await call.write(producer.open(self.store.sealing_key.public_key(), 0))
                for at in range(first, until, BATCH):
                    end = min(at + BATCH, until)
                    while len(producer.items) < end:
                        producer.record("decision" if producer.items else "open",
                                        subjects=[bytes([len(producer.items) % 7]) * 32])  # fmt: skip
                    await call.write(producer.message(at, end))

            sending = asyncio.ensure_future(send())
            try:
                async for response in call:
                    self.take(response)
                    if len(self.proven) == until:
                        break
            except grpc.aio.AioRpcError as error:
                # INTERNAL is what grpc's client says when a write meets the connection of a process that is gone.
                gone = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL)
                assert error.code() in gone, error.details()  # noqa: PT017 - only if it breaks at all
            finally:
                sending.cancel()
                with suppress(
                    asyncio.CancelledError, asyncio.InvalidStateError, grpc.aio.AioRpcError, grpc.aio.UsageError
                ):
                    await sending

    def take(self, response):
        kind = response.WhichOneof("kind")
        assert kind != "rejected", response.rejected
        if kind == "accepted":
            for one in response.accepted.ranges:
                for offset in range(one.count):
                    index = one.first_index + offset
                    assert self.answered.setdefault(one.first_seq + offset, index) == index
            return
        receipt = response.receipt
        tree = open_checkpoint(receipt.checkpoint, [Verifier(self.store.signer.key)]).checkpoint
        self.largest = max(self.largest, tree.size)
        seqs = range(receipt.range.first_seq, receipt.range.first_seq + receipt.range.count)
        hashes = [leaf_hash(self.producer.items[seq].leaf) for seq in seqs]
        verify_range(hashes, receipt.range.first_index, tree.size, list(receipt.proof), tree.root)
        self.proven |= set(seqs)


async def killed(store, senders, until, delay):
    """Run the senders, kill the store after a while; return whether they were done before."""
    work = asyncio.gather(*(sender.run(until) for sender in senders))
    done, _ = await asyncio.wait([work], timeout=delay)
    store.kill()
    await work
    return bool(done)


def published(store):
    data = (store.folder / "tiles" / "checkpoint").read_bytes()
    return open_checkpoint(data, [Verifier(store.signer.key)]).checkpoint


@pytest.mark.timeout(600)
async def test_accepted_records_survive_kill_9(tmp_path):
    with StoreProcess(tmp_path, interval="50ms") as store:
        senders = [Sender(store, Producer(name=f"p{number}")) for number in range(3)]
        chance = random.Random(20261122)
        before = 0
        for round_ in range(ROUNDS):
            store.start()
            await killed(store, senders, 10_000, chance.uniform(0.05, 0.7))
            after = published(store).size
            assert after >= max([before, *(sender.largest for sender in senders)]), f"round {round_}"
            before = after
        until = max(len(sender.producer.items) for sender in senders) + 5
        store.start()
        await asyncio.wait_for(asyncio.gather(*(sender.run(until) for sender in senders)), 60)
        assert store.stop() == 0
        check(store, senders, until)
        assert before > 0


def check(store, senders, until):
    """Everything that was ever accepted is in the log exactly once, and every checkpoint is a prefix of it."""
    storage = SqliteStorage(store.folder / "log.sqlite")
    try:
        leaves = storage.leaves(0, storage.size())
        assert storage.gaps() == []
        assert storage.discoveries() == []
        for sender in senders:
            assert set(sender.answered) == set(range(until)) == sender.proven
            for seq, index in sender.answered.items():
                assert leaves[index] == sender.producer.items[seq].leaf
        assert set(Counter(leaves).values()) == {1}
        own = [leaf for leaf in leaves if b'"producer":"store"' in leaf]
        assert len(leaves) == len(own) + until * len(senders)
        hashes = [leaf_hash(leaf) for leaf in leaves]
        history = storage.history(-1, 100_000)
        assert len({one.size for one in history}) == len(history)
        for one in history:
            stated = open_checkpoint(one.note, [Verifier(store.signer.key)]).checkpoint
            assert (stated.size, stated.root) == (one.size, root_hash(hashes[: one.size]))
        assert published(store).size == len(leaves)
        folder = store.folder / "tiles"
        bundles = [tile_at(ENTRIES, number, len(leaves)) for number in range(-(-len(leaves) // 256))]
        assert [leaf for tile in bundles for leaf in decode_bundle(tile, (folder / tile.path).read_bytes())] == leaves
        transit = [one.index for one in storage.sealed_from(0, 10**6)]
    finally:
        storage.close()
    keys = sqlite3.connect(store.folder / "keys.sqlite")
    rows, places = keys.execute("SELECT count(*), count(DISTINCT idx || '/' || place) FROM opening").fetchone()
    moved = keys.execute("SELECT idx FROM cursor").fetchone()[0]
    keys.close()
    # Each record's opening is in exactly one of the two places: moved to its subject's key, or still on the way.
    assert rows == places
    assert rows + sum(index >= moved for index in transit) == until * len(senders)
