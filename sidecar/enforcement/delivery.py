"""Delivery: sends durable records to the oversight store and turns its receipts into acknowledgements.

One stream at a time, several batches in flight. After a reconnect everything without a receipt is sent again: the same
bytes, which the store answers with the same places. A segment is deleted only on a receipt that was verified here.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import DecodeError

from sidecar.api.v1 import oversight_pb2 as wire
from sidecar.enforcement.awaited import Awaited
from sidecar.enforcement.history import KeptHistory
from sidecar.enforcement.receipts import ReceiptError, ReceiptVerifier, SplitViewError
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import IntegrityError
from sidecar.record import MAX_BATCH, batch_message
from sidecar.spool.log import Spool
from sidecar.spool.reader import Chunk, SpoolReader

Stream = grpc.aio.StreamStreamCall[bytes, bytes]
"""Requests are encoded here: a batch's items come encoded from the spool. Answers are decoded here: gRPC hides failures."""

BATCH_BYTES = 1 << 20
"""Where a batch ends even if it holds fewer records; a gRPC message is at most 4 MiB."""
LINGER = 0.05
"""Seconds that a batch waits for more records when somebody waits for a receipt."""
LONGEST_LINGER = 0.2
"""The same when nobody does: a batch costs as much as sixty records, whatever it holds."""
WINDOW = 16
"""Batches in flight without an answer."""
OUTSTANDING = 1 << 16
"""Records accepted or in flight, without a receipt, before sending waits."""
STALL = 30.0
"""Seconds without an answer to a batch after which the stream is given up."""
_FIRST_RETRY, _LAST_RETRY, _REFUSED_RETRY = 0.1, 30.0, 60.0
_EARLY, _MOST_EARLY = 256, 1 << 16
"""Receipts kept that came before this stream sent their records, and bytes of each: a store may answer an Open with them."""
_LONGEST_CODE, _MOST_CODES = 64, 32
"""Of refusals, each a series of the metrics: a store does not choose how many there are."""
_REGISTER = "Register this producer's key and certificate with the store"
_APPEND = f"/{wire.DESCRIPTOR.services_by_name['Oversight'].full_name}/Append"
_BATCH = wire.AppendRequest.DESCRIPTOR.fields_by_name["batch"].number
_UNKNOWN_HERE = frozenset({"unknown_producer", "bad_signature"})


class DeliveryError(Exception):
    """The stream cannot go on. `wait`: seconds before the next attempt, None for the usual back-off."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


@dataclass(slots=True, kw_only=True)
class DeliveryStatus:
    """What the operator sees. Counters only grow; `alarm` stays until the process ends.

    `alarm`: the log showed two histories; nothing is acknowledged or deleted any more. `refused`: the last refusal code
    of the store that sending again cannot mend.
    """

    connected: bool = False
    sent: int = 0
    accepted: int = 0
    acknowledged: int = 0
    bad_receipts: int = 0
    alarm: str = ""
    refused: str = ""
    last_error: str = ""
    merge_by: str = ""
    rejected: dict[str, int] = field(default_factory=dict)


class _Sent(NamedTuple):
    epoch: str
    first_seq: int
    size: int


class Delivery:
    """The sender of one spool. `run` is a background task; nothing on the way of a call waits for it.

    `channel` makes a channel to the store (mTLS); `now` is the wall clock, `jitter` gives numbers from 0 to 1.
    """

    def __init__(self, spool: Spool, *, private_key: Ed25519PrivateKey, channel: Callable[[], grpc.aio.Channel],
                 receipts: ReceiptVerifier, now: Callable[[], datetime], jitter: Callable[[], float], log: OperatorLog,
                 linger: float = LINGER, longest: float = LONGEST_LINGER, stall: float = STALL) -> None:  # fmt: skip
        self.status = DeliveryStatus()
        self._spool = spool
        self._reader = SpoolReader(spool)
        self._key = private_key
        self._channel = channel
        self._receipts = receipts
        self._now = now
        self._jitter = jitter
        self._log = log
        self._linger, self._longest = linger, longest
        self._stall = stall
        self._retry = _FIRST_RETRY
        self._flight: deque[_Sent] = deque()
        self._awaited = Awaited()
        self._sent_to: dict[str, int] = {}
        self._draining = False
        self._early: deque[wire.Receipt] = deque(maxlen=_EARLY)
        self._moved = asyncio.Event()
        self._kept = KeptHistory(spool.shelf.folder)
        self._resume()

    async def run(self) -> None:
        """Send until cancelled. Every failure is reported, waited out and tried again."""
        while True:
            wait: float | None = None
            try:
                await self._session()
                self._say("the store ended the stream")
            except DeliveryError as error:
                self._say(str(error))
                wait = error.wait
            except grpc.aio.AioRpcError as error:
                self._say(f"{error.code().name}: {error.details()}")
                if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                    self.status.refused = "unknown_producer"
                    self._log.error("delivery_refused", code="unknown_producer", message=error.details(), fix=_REGISTER)
                    wait = _REFUSED_RETRY
            except IntegrityError as error:
                self._log.error("delivery_damage", error=str(error))
                self._say(str(error))
                wait = _REFUSED_RETRY
            except OSError as error:
                self._say(f"{self._spool.shelf.folder}: {error.strerror}")
            if wait is None:
                wait = self._retry
                self._retry = min(self._retry * 2, _LAST_RETRY)
            await asyncio.sleep(wait * (0.5 + self._jitter() / 2))

    async def drain(self, timeout: float) -> bool:
        """Wait until every record has a receipt, at most `timeout` seconds; whether it has. No batch lingers any more."""
        self._draining = True
        try:
            async with asyncio.timeout(timeout):
                while self._spool.depth_records:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    def _resume(self) -> None:
        note = self._kept.read()
        try:
            if note is not None:
                self._receipts.resume(note)
        except ReceiptError as error:
            self._log.warning("delivery_checkpoint_unknown", file=str(self._kept.checkpoint), error=str(error))

    async def _session(self) -> None:
        channel = self._channel()
        self._reader.rewind()
        self._flight.clear()
        self._awaited.clear()
        self._sent_to.clear()
        self._early.clear()
        stream: Stream = channel.stream_stream(_APPEND)()
        tasks = [asyncio.create_task(self._receive(stream)), asyncio.create_task(self._send(stream))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # The receiver knows why a stream broke; the sender only that it did.
            for task in sorted(done, key=tasks.index):
                await task
        finally:
            self.status.connected = False
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            stream.cancel()
            await channel.close()

    async def _send(self, stream: Stream) -> None:
        opened = ""
        while True:
            await self._room()
            chunk = await self._next_chunk()
            if chunk.epoch != opened:
                opened = chunk.epoch
                await self._write(stream, wire.AppendRequest(open=self._open(chunk)).SerializeToString())
            request = self._batch(chunk)
            self._awaited.add(chunk.epoch, chunk.first_seq, chunk.leaf_hashes)
            self._sent_to[chunk.epoch] = chunk.first_seq + chunk.records
            self._flight.append(_Sent(chunk.epoch, chunk.first_seq, chunk.records))
            await self._write(stream, request)
            self.status.sent += chunk.records
            for _ in range(len(self._early)):
                await self._receipt(self._early.popleft())

    async def _write(self, stream: Stream, request: bytes) -> None:
        try:
            async with asyncio.timeout(self._stall):
                await stream.write(request)
        except asyncio.InvalidStateError:
            raise DeliveryError("the stream broke while sending") from None
        except TimeoutError:
            raise DeliveryError(f"the store read nothing for {self._stall} s") from None

    async def _room(self) -> None:
        """Wait until there may be one more batch. A store that answers nothing is given up."""
        while len(self._flight) >= WINDOW or len(self._awaited) >= OUTSTANDING:
            self._moved.clear()
            try:
                async with asyncio.timeout(self._stall if self._flight else None):
                    await self._moved.wait()
            except TimeoutError:
                raise DeliveryError(f"the store answered no batch for {self._stall} s") from None

    async def _next_chunk(self) -> Chunk:
        lingered = False
        while True:
            self._spool.durable.clear()
            pending = self._reader.pending(MAX_BATCH)
            if pending and not lingered and pending < MAX_BATCH:
                lingered = True
                await self._for_more()
                continue
            chunk = self._reader.take(MAX_BATCH, BATCH_BYTES) if pending else None
            if chunk is not None:
                return chunk
            await self._wait_for_records()

    async def _for_more(self) -> None:
        """Linger: one step if somebody waits for a receipt or for the end, more if nobody does; no longer than it fills."""
        for _ in range(max(1, round(self._longest / self._linger))):
            await asyncio.sleep(self._linger)
            if self._draining or self._spool.receipts_wanted or self._reader.pending(MAX_BATCH) >= MAX_BATCH:
                return

    async def _wait_for_records(self) -> None:
        try:
            async with asyncio.timeout(self._stall if self._flight else None):
                await self._spool.durable.wait()
        except TimeoutError:
            if self._flight:
                raise DeliveryError(f"the store answered no batch for {self._stall} s") from None

    def _open(self, chunk: Chunk) -> wire.Open:
        options = self._spool.options
        return wire.Open(
            producer=options.producer, slot=options.slot, epoch=chunk.epoch, sealed_epoch_key=chunk.sealed_epoch_key,
            receipts_from=chunk.first_seq,
        )  # fmt: skip

    def _batch(self, chunk: Chunk) -> bytes:
        """An `AppendRequest` with the batch: its fields in the order of their numbers, as protobuf writes them."""
        options = self._spool.options
        header = wire.BatchHeader(
            producer=options.producer, slot=options.slot, epoch=chunk.epoch, first_seq=chunk.first_seq,
            count=chunk.records, root=chunk.root,
            clock=self._now().isoformat(timespec="microseconds").replace("+00:00", "Z"),
        ).SerializeToString()  # fmt: skip
        signed = wire.Batch(header=header, signature=self._key.sign(batch_message(header))).SerializeToString()
        return _field(_BATCH, signed, chunk.items)

    async def _receive(self, stream: Stream) -> None:
        async for answer in stream:
            try:
                response = wire.AppendResponse.FromString(answer)
            except DecodeError:
                raise DeliveryError("the store sent what is no answer") from None
            self.status.connected = True
            match response.WhichOneof("kind"):
                case "accepted":
                    self._accepted(response.accepted)
                case "rejected":
                    self._rejected(response.rejected)
                case "receipt":
                    await self._receipt(response.receipt)
                case _:
                    raise DeliveryError("the store sent an answer of an unknown kind")
            self._moved.set()

    def _answered(self) -> _Sent:
        if not self._flight:
            raise DeliveryError("the store answered a batch that was not sent")
        return self._flight.popleft()

    def _accepted(self, accepted: wire.Accepted) -> None:
        sent = self._answered()
        try:
            promise = wire.Promise.FromString(accepted.promise)
            self._receipts.check_promise(accepted.promise, accepted.signature, promise.origin)
        except (ReceiptError, DecodeError) as error:
            raise DeliveryError(f"the store's promise does not hold: {error}") from None
        if not _covers(promise, sent):
            raise DeliveryError(f"the store's promise leaves out records of the batch from {sent.first_seq} on")
        self.status.accepted += sent.size
        self.status.merge_by = promise.merge_by
        self.status.last_error = ""
        self._retry = _FIRST_RETRY

    def _rejected(self, rejected: wire.Rejected) -> None:
        """Nothing is deleted, whatever the store says. What it will not take now is offered again on the next stream."""
        code = rejected.code[:_LONGEST_CODE]
        counted = code if code in self.status.rejected or len(self.status.rejected) < _MOST_CODES else "other"
        self.status.rejected[counted] = self.status.rejected.get(counted, 0) + 1
        sent = self._flight.popleft() if self._flight else None
        what = f"records {sent.first_seq} to {sent.first_seq + sent.size - 1}" if sent else "this stream"
        text = f"the store refused {what}: {code}: {rejected.message}"
        if rejected.retry:
            raise DeliveryError(text)
        self.status.refused = code
        self.status.last_error = text
        fix = {"fix": _REGISTER} if code in _UNKNOWN_HERE else {}
        self._log.error("delivery_refused", code=code, what=what, message=rejected.message, **fix)
        if fix:
            raise DeliveryError(f"{text}. {_REGISTER}", wait=_REFUSED_RETRY)
        if sent is None:
            raise DeliveryError(text)
        self._awaited.drop(sent.epoch, sent.first_seq, sent.size)

    async def _receipt(self, receipt: wire.Receipt) -> None:
        span = receipt.range
        try:
            larger = self._receipts.check_checkpoint(receipt.checkpoint)
        except SplitViewError as error:
            self._raise_alarm(error)
            return
        except ReceiptError as error:
            self._bad_receipt(str(error))
            return
        if span.slot != self._spool.options.slot or not 0 < span.count <= OUTSTANDING:
            self._bad_receipt(f"it is for slot {span.slot} and {span.count} records")
            return
        leaves = self._awaited.of(span.epoch, span.first_seq, span.count)
        if leaves is None:
            # What reaches back before this stream's first record proves nothing to us, not even once the rest was sent.
            if span.first_seq + span.count > self._sent_to.get(span.epoch, 0) and receipt.ByteSize() <= _MOST_EARLY:
                self._early.append(receipt)
            return
        try:
            self._receipts.check_range(receipt.checkpoint, span.first_index, leaves, receipt.proof)
        except ReceiptError as error:
            self._bad_receipt(str(error))
            return
        if larger:
            await self._kept.keep(receipt.checkpoint)
        if not self.status.alarm:
            self._acknowledge(span.epoch, span.first_seq, span.count)

    def _acknowledge(self, epoch: str, first_seq: int, count: int) -> None:
        self._spool.acknowledge(epoch, first_seq, count)
        self.status.acknowledged += count
        self._awaited.drop(epoch, first_seq, count)
        self._moved.set()

    def _bad_receipt(self, why: str) -> None:
        self.status.bad_receipts += 1
        self.status.last_error = f"a receipt does not hold: {why}"
        self._log.error("delivery_bad_receipt", error=why)

    def _raise_alarm(self, error: SplitViewError) -> None:
        """Two histories: keep the evidence and every segment from now on."""
        first, self.status.alarm = not self.status.alarm, str(error)
        evidence = self._kept.show(error.notes)  # a disk that is full keeps no evidence, but silences no alarm
        if first:
            self._log.error("delivery_split_view", error=str(error), evidence=evidence)
        self.status.last_error = f"{error}. Nothing is deleted any more. Show both checkpoints to the reviewers"

    def _say(self, what: str) -> None:
        self.status.last_error = what
        self._log.warning("delivery_interrupted", error=what)


def _covers(promise: wire.Promise, sent: _Sent) -> bool:
    """Whether the promise names every record of the batch."""
    reached = sent.first_seq
    for one in sorted(promise.ranges, key=lambda one: one.first_seq):
        if one.epoch == sent.epoch and one.count <= MAX_BATCH and one.first_seq <= reached:
            reached = max(reached, one.first_seq + one.count)
    return reached >= sent.first_seq + sent.size


def _field(number: int, *parts: bytes) -> bytes:
    """A length-delimited field of a message: tag, length, and these bytes (protobuf encoding, "Message Structure")."""
    size, head = sum(map(len, parts)), bytearray((number << 3 | 2,))
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return b"".join((head, *parts))
