"""Oversight.Append: producers hand over batches and get promises, then receipts.

On one stream three things run side by side: reading and checking batches (in order, a few ahead), answering them in
order as their commits return, and sending receipts as checkpoints are published.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime, timedelta

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.api.v1 import oversight_pb2 as pb
from sidecar.api.v1 import oversight_pb2_grpc
from sidecar.errors import ConfigurationError
from sidecar.observability.logs import JsonLog
from sidecar.oversight.committer import Committer
from sidecar.oversight.ingest import CheckedBatch, Header, RefusedError, check_batch, check_epoch
from sidecar.oversight.openings import EpochKeys
from sidecar.oversight.periods import rfc3339
from sidecar.oversight.producers import Registry
from sidecar.oversight.publisher import Publications
from sidecar.oversight.receipts import Span, issue, span_of
from sidecar.oversight.storage import Places, Storage, StorageError
from sidecar.oversight.wire import header_of, identities, items_of, range_of, receipt_of, rejected
from sidecar.record import promise_message

AHEAD = 8
"""Batches of one stream that may be unanswered. Beyond it gRPC's flow control holds the producer back."""
_PAGE = 1000
_Answer = tuple[int, CheckedBatch | None, "asyncio.Future[Places] | RefusedError"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Appending:
    """What every stream needs."""

    registry: Registry
    storage: Storage
    committer: Committer
    epoch_keys: EpochKeys
    publications: Publications
    pool: Executor
    log_key: Ed25519PrivateKey
    origin: str
    merge_delay: timedelta
    now: Callable[[], datetime]
    log: JsonLog
    stopping: asyncio.Event


class AppendService(oversight_pb2_grpc.OversightServicer):
    """The servicer of `listen.append`."""

    def __init__(self, appending: Appending) -> None:
        self._appending = appending

    async def Append(  # noqa: N802 - the name in the proto
        self, request_iterator: AsyncIterator[pb.AppendRequest],
        context: "grpc.aio.ServicerContext[pb.AppendRequest, pb.AppendResponse]",
    ) -> AsyncIterator[pb.AppendResponse]:  # fmt: skip
        """See the proto. A stream whose peer is no registered producer ends with UNAUTHENTICATED."""
        stream = _Stream(self._appending, identities(context.auth_context()))
        async for response in stream.run(request_iterator):
            yield response
        if stream.refusal is not None:
            code = grpc.StatusCode.INVALID_ARGUMENT
            if stream.refusal.code == "unknown_producer":
                code = grpc.StatusCode.UNAUTHENTICATED
            elif stream.refusal.retry:
                code = grpc.StatusCode.UNAVAILABLE
            await context.abort(code, stream.refusal.message)
        if self._appending.stopping.is_set():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the store is stopping; connect again")


class _Stream:
    """One producer's stream. `refusal`: why it was ended."""

    def __init__(self, appending: Appending, peer: frozenset[str]) -> None:
        self._a, self._peer = appending, peer
        self._out: asyncio.Queue[pb.AppendResponse | None] = asyncio.Queue()
        self._checks: asyncio.Queue[tuple[int, asyncio.Future[CheckedBatch]] | None] = asyncio.Queue()
        self._answers: asyncio.Queue[_Answer | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(AHEAD)
        self._opened: set[tuple[str, int, str]] = set()
        self._pending: list[Span] = []
        self._due = asyncio.Event()
        self._complete = False
        self.refusal: RefusedError | None = None

    async def run(self, requests: AsyncIterator[pb.AppendRequest]) -> AsyncIterator[pb.AppendResponse]:
        """The responses. Ends when the producer is done and has its receipts, when it is refused, or on stopping."""
        tasks = [
            asyncio.ensure_future(work)
            for work in (self._read(requests), self._submit(), self._answer(), self._receipts())
        ]
        try:
            while (response := await self._out.get()) is not None:
                yield response
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[pb.AppendRequest]) -> None:
        """Take requests until the producer ends, a refusal that ends the stream, or the store stops."""
        stop = asyncio.ensure_future(self._a.stopping.wait())
        try:
            self._admit()
            while True:
                following = asyncio.ensure_future(anext(requests, None))
                await asyncio.wait((following, stop), return_when=asyncio.FIRST_COMPLETED)
                if not following.done():
                    following.cancel()
                    break
                request = following.result()
                if request is None:
                    break
                await self._take(request)
        except RefusedError as error:
            self.refusal = error
        except ConfigurationError as error:
            self._a.log.critical("the registry of producers cannot be read", reason=str(error))
            self.refusal = RefusedError("unavailable", "the store cannot check producers just now", retry=True)
        except Exception as error:  # noqa: BLE001 - the peer went away, or gRPC says so in its own words
            self._a.log.info("append stream ended", reason=type(error).__name__)
        finally:
            stop.cancel()
            self._checks.put_nowait(None)

    def _admit(self) -> None:
        if not self._a.registry.knows(self._peer):
            raise RefusedError("unknown_producer", "no producer is registered with this certificate")

    async def _take(self, request: pb.AppendRequest) -> None:
        loop = asyncio.get_running_loop()
        if request.HasField("open"):
            await self._open(request.open)
        elif request.HasField("batch"):
            await self._room.acquire()
            header = header_of(request.batch.header)
            if self._a.registry.find(header.producer, self._peer) is None:
                raise RefusedError("unknown_producer", "this producer is not registered with this certificate")
            work = loop.run_in_executor(self._a.pool, self._check, header, request.batch)
            self._checks.put_nowait((header.first_seq, work))
        else:
            raise RefusedError("bad_batch", "a request is an Open or a Batch")

    def _check(self, header: Header, batch: pb.Batch) -> CheckedBatch:
        key = self._a.registry.find(header.producer, self._peer)
        if key is None:
            raise RefusedError("unknown_producer", "this producer is not registered with this certificate")
        if (header.producer, header.slot, header.epoch) not in self._opened:
            raise RefusedError("bad_batch", "an Open of this producer, slot and epoch comes before its batches")
        return check_batch(header, batch.signature, items_of(batch.items), key)

    async def _open(self, request: pb.Open) -> None:
        """Keep the epoch's key, and find what the producer wants receipts for again."""
        loop = asyncio.get_running_loop()
        if self._a.registry.find(request.producer, self._peer) is None:
            raise RefusedError("unknown_producer", "this producer is not registered with this certificate")
        check_epoch(request.epoch)
        name = (request.producer, request.slot, request.epoch)
        try:
            await loop.run_in_executor(self._a.pool, self._a.epoch_keys.add, *name, request.sealed_epoch_key)
            self._opened.add(name)
            spans = await loop.run_in_executor(self._a.pool, self._received, *name, request.receipts_from)
        except StorageError as error:
            self._a.log.warning("cannot open an epoch", reason=str(error))
            raise RefusedError("unavailable", "the store could not write", retry=True) from None
        self._await_receipts(spans)

    def _received(self, producer: str, slot: int, epoch: str, seq: int) -> list[Span]:
        head = self._a.storage.head_of(producer, slot, epoch)
        spans: list[Span] = []
        while head is not None and seq <= head.last_seq:
            runs = self._a.storage.runs_from(head.stream, seq, _PAGE)
            if not runs:
                break
            spans += [span_of(run, epoch=epoch, slot=slot) for run in runs]
            seq = runs[-1].first_seq + runs[-1].count
        return spans

    async def _submit(self) -> None:
        """Hand checked batches to the committer, in order."""
        while (pending := await self._checks.get()) is not None:
            first_seq, work = pending
            try:
                batch = await work
                self._answers.put_nowait((first_seq, batch, self._a.committer.submit(batch)))
            except RefusedError as error:
                self._answers.put_nowait((first_seq, None, error))
        self._answers.put_nowait(None)

    async def _answer(self) -> None:
        """Answer batches in order, each when its commit has returned."""
        while (answer := await self._answers.get()) is not None:
            first_seq, batch, outcome = answer
            try:
                if isinstance(outcome, RefusedError) or batch is None:
                    raise outcome if isinstance(outcome, RefusedError) else RuntimeError("no batch and no refusal")
                places = await outcome
                self._accept(batch, places)
            except RefusedError as error:
                self._a.log.warning("batch refused", code=error.code, reason=error.message)
                self._out.put_nowait(rejected(error, first_seq))
            self._room.release()
        if self.refusal is not None:
            self._a.log.warning("producer refused", code=self.refusal.code, reason=self.refusal.message)
            self._out.put_nowait(rejected(self.refusal))
        self._complete = True
        self._due.set()

    def _accept(self, batch: CheckedBatch, places: Places) -> None:
        header = batch.header
        if any(run.branch for run in places.runs):
            self._a.log.error("equivocation kept", producer=header.producer, slot=header.slot, epoch=header.epoch,
                              first_seq=header.first_seq)  # fmt: skip
        spans = [span_of(run, epoch=header.epoch, slot=header.slot) for run in places.runs]
        ranges = [range_of(span) for span in spans]
        promise = pb.Promise(
            ranges=ranges, merge_by=rfc3339(self._a.now() + self._a.merge_delay), origin=self._a.origin
        ).SerializeToString(deterministic=True)
        signature = self._a.log_key.sign(promise_message(promise))
        self._out.put_nowait(
            pb.AppendResponse(accepted=pb.Accepted(ranges=ranges, promise=promise, signature=signature))
        )
        self._await_receipts(spans)

    def _await_receipts(self, spans: list[Span]) -> None:
        self._pending += spans
        tree = self._a.publications.latest
        if tree is not None and any(span.end <= tree.size for span in spans):
            # Sent before and published already: the next checkpoint may be long in coming.
            self._due.set()

    async def _receipts(self) -> None:
        """Send receipts as trees are published; end the responses when nothing more can come."""
        size = -1
        while True:
            news = asyncio.ensure_future(self._a.publications.newer_than(size))
            due = asyncio.ensure_future(self._due.wait())
            try:
                await asyncio.wait((news, due), return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
                due.cancel()
            self._due.clear()
            tree = self._a.publications.latest
            if tree is not None:
                size = tree.size
                taken, self._pending = self._pending, []
                run = asyncio.get_running_loop().run_in_executor
                receipts, waiting = await run(self._a.pool, issue, taken, tree)
                self._pending = waiting + self._pending
                for receipt in receipts:
                    self._out.put_nowait(receipt_of(receipt))
            if self._complete and (not self._pending or self.refusal is not None or self._a.stopping.is_set()):
                self._out.put_nowait(None)
                return
