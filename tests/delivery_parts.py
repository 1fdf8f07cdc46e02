"""A store in memory whose receipts are real, and which can be told to lie; and a delivery to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from spooling import Clock, Notes, event, open_spool

from sidecar.api.v1 import oversight_pb2 as wire
from sidecar.api.v1.oversight_pb2_grpc import OversightServicer, add_OversightServicer_to_server
from sidecar.enforcement.delivery import Delivery
from sidecar.enforcement.receipts import ReceiptVerifier
from sidecar.record import batch_message, parse_leaf, promise_message
from sidecar.spool.log import Spool
from sidecar.tlog.checkpoint import Checkpoint, sign_checkpoint
from sidecar.tlog.key import Signer
from sidecar.tlog.merkle import Digest, leaf_hash, range_proof, root_hash
from sidecar.tlog.trust import Trust

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
    promised: Callable[[wire.Range], list[wire.Range]] = lambda span: [span]  # noqa: E731 - a default

    async def Append(  # noqa: N802
        self, requests: AsyncIterator[wire.AppendRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[wire.AppendResponse]:
        async for request in requests:
            if request.WhichOneof("kind") == "open":
                self.opens.append(request.open)
                for reminder in self._reminders(request.open.epoch):
                    yield wire.AppendResponse(receipt=reminder)
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
            promise = wire.Promise(
                ranges=self.promised(span), merge_by="2026-11-22T12:00:10Z", origin=ORIGIN
            ).SerializeToString()
            signature = self.promise_key.sign(promise_message(promise))
            yield wire.AppendResponse(accepted=wire.Accepted(ranges=[span], promise=promise, signature=signature))
            if self.receipts:
                yield wire.AppendResponse(receipt=self._receipt(span))

    def _reminders(self, epoch: str) -> list[wire.Receipt]:
        """Receipts given in answer to `Open`."""
        del epoch
        return []

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


async def begin(
    folder: Path, store: Store | None = None, *, trust: Trust = TRUST, longest: float = 0.01, **changes: object
) -> Setting:
    store = store or Store()
    server, address = await listen(store)
    spool = open_spool(folder, **({"segment_bytes": 16384, "max_bytes": 1 << 22} | changes))
    log = Notes()
    delivery = Delivery(
        spool, private_key=PRODUCER_KEY, channel=lambda: grpc.aio.insecure_channel(address),
        receipts=ReceiptVerifier(trust), now=Clock(), jitter=lambda: 0.0, log=log, linger=0.01, longest=longest,
        stall=0.5,
    )  # fmt: skip
    return Setting(spool, store, delivery, log, server, address, asyncio.create_task(delivery.run()))
