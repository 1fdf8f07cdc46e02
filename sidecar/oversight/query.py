"""Query: answers reviewers. Every question is in the log, durably, before its answer leaves."""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, TypeAlias, TypeVar

import grpc

from sidecar.api.v1 import oversight_pb2 as pb
from sidecar.api.v1 import oversight_pb2_grpc
from sidecar.observability.logs import JsonLog
from sidecar.oversight.completeness import Completeness
from sidecar.oversight.ingest import RefusedError
from sidecar.oversight.integrator import Published
from sidecar.oversight.journal import Details, Journal
from sidecar.oversight.keys import KeyVault
from sidecar.oversight.publisher import Publications
from sidecar.oversight.search import Query, SearchIndex
from sidecar.oversight.storage import Storage, StorageError, Stored
from sidecar.oversight.wire import identities
from sidecar.record import parse_leaf
from sidecar.tlog.errors import TlogError
from sidecar.tlog.merkle import consistency_proof, inclusion_proof, leaf_hash, verify_inclusion
from sidecar.tlog.proof import TlogProof

DEFAULT_LIMIT, MOST = 100, 1000
_CATCH_UP_SECONDS = 2.0
_PAGE = 2000
_TEXT_FIELDS = ("person", "reason", "effect", "trace", "producer", "call_id", "type", "service", "category", "seen")
_Peer: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Querying:
    """What the servicer needs. `reviewers`: certificate identities that may ask."""

    storage: Storage
    index: SearchIndex
    vault: KeyVault
    journal: Journal
    publications: Publications
    reviewers: frozenset[str]
    silent_after: timedelta
    pool: Executor
    now: Callable[[], datetime]
    log: JsonLog


class _BadRequestError(Exception):
    pass


class _NotThereError(Exception):
    pass


class QueryService(oversight_pb2_grpc.QueryServicer):
    """The servicer of `listen.query`."""

    def __init__(self, querying: Querying) -> None:
        self._q = querying

    async def Search(  # noqa: N802 - the names in the proto, here and below
        self, request: pb.SearchRequest, context: _Peer
    ) -> pb.SearchResponse:
        """See the proto. What was committed before the question is searched, or `searched_to` says how far."""
        reviewer = await self._reviewer(context)
        tree = self._q.publications.latest
        await self._catch_up(subject=bool(request.subject))
        found, answer = await self._do(context, lambda: self._search(request))
        asked: Details = {name: getattr(request, name) for name in (*_TEXT_FIELDS, "since", "until", "cursor")
                          if getattr(request, name)}  # fmt: skip
        # The id of a data subject never enters a body: the record names the subject as any record does.
        names = await self._do(context, lambda: self._pseudonym_now(request)) if request.subject else []
        shown: Details = {"results": len(found), "first": found[0] if found else None,
                          "last": found[-1] if found else None, "by_subject": bool(request.subject)}  # fmt: skip
        await self._record(context, reviewer, "Search", {f"asked_{key}": value for key, value in asked.items()} | shown,
                           names)  # fmt: skip
        answer.published = 0 if tree is None else tree.size
        return answer

    async def Prove(  # noqa: N802
        self, request: pb.ProveRequest, context: _Peer
    ) -> pb.ProveResponse:
        """See the proto."""
        reviewer = await self._reviewer(context)
        tree = await self._tree(context)
        answer = await self._do(context, lambda: self._prove(request.index, tree))
        await self._record(context, reviewer, "Prove", {"index": request.index})
        return answer

    async def ProveConsistency(  # noqa: N802
        self, request: pb.ProveConsistencyRequest,
        context: _Peer,
    ) -> pb.ProveConsistencyResponse:  # fmt: skip
        """See the proto."""
        reviewer = await self._reviewer(context)
        tree = await self._tree(context)
        old, new = request.old_size, request.new_size
        if new > tree.size:
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, f"the published tree has {tree.size} leaves")
        if old > new:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "old_size is above new_size")
        hashes = await self._do(context, lambda: consistency_proof(old, new, tree.nodes))
        await self._record(context, reviewer, "ProveConsistency", {"old_size": old, "new_size": new})
        return pb.ProveConsistencyResponse(hashes=hashes)

    async def GetCheckpoint(  # noqa: N802
        self,
        request: pb.GetCheckpointRequest,
        context: _Peer,
    ) -> pb.GetCheckpointResponse:
        """See the proto."""
        reviewer = await self._reviewer(context)
        tree = await self._tree(context)
        await self._record(context, reviewer, "GetCheckpoint", {"size": tree.size})
        return pb.GetCheckpointResponse(checkpoint=tree.note)

    async def GetCompleteness(  # noqa: N802
        self,
        request: pb.GetCompletenessRequest,
        context: _Peer,
    ) -> pb.GetCompletenessResponse:
        """See the proto."""
        reviewer = await self._reviewer(context)
        tree = await self._tree(context)
        findings = (await self._do(context, self._completeness)).findings
        committed = await self._do(context, self._q.storage.size)
        await self._record(context, reviewer, "GetCompleteness", {"findings": len(findings)})
        return pb.GetCompletenessResponse(
            findings=[
                pb.Finding(kind=one.kind, producer=one.producer, slot=one.slot, epoch=one.epoch,
                           first_seq=one.first_seq, count=one.count, since=one.since)
                for one in findings
            ],
            tree_size=tree.size, committed=committed,
        )  # fmt: skip

    # Steps

    async def _reviewer(self, context: _Peer) -> str:
        known = sorted(identities(context.auth_context()) & self._q.reviewers)
        if not known:
            self._q.log.warning("query refused", peer=context.peer())
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "this certificate is not a reviewer's")
        return known[0]

    async def _tree(self, context: _Peer) -> Published:
        tree = self._q.publications.latest
        if tree is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no checkpoint is published yet")
        return tree

    async def _do(self, context: _Peer, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._q.pool, work)
        except _BadRequestError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except _NotThereError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        except StorageError as error:
            self._q.log.warning("query failed", reason=str(error))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the store cannot read just now")
        except TlogError as error:
            self._q.log.critical("stored leaves or tiles are wrong", reason=str(error))
            await context.abort(grpc.StatusCode.DATA_LOSS, "the stored log does not prove this record")

    async def _record(
        self, context: _Peer, reviewer: str, rpc: str, details: Details,
        names: Iterable[bytes] = (),
    ) -> None:  # fmt: skip
        try:
            body: Details = {"reviewer": reviewer, "rpc": rpc, **details}
            await self._q.journal.write("reviewer_access", body, list(names))
        except RefusedError as error:
            self._q.log.warning("a query could not be recorded", reason=error.message)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the question cannot be recorded, so it is not answered")

    async def _catch_up(self, *, subject: bool) -> None:
        """Give the index, and for data subjects the key database, a moment to take in what is committed."""
        loop = asyncio.get_running_loop()
        size = await loop.run_in_executor(self._q.pool, self._q.storage.size)
        until = loop.time() + _CATCH_UP_SECONDS
        while self._q.index.cursor < size and loop.time() < until:  # noqa: ASYNC110 - a thread moves the cursor
            await asyncio.sleep(0.01)
        while subject and loop.time() < until:
            transit = await loop.run_in_executor(self._q.pool, self._q.storage.sealed_from, 0, 1)
            if not transit or transit[0].index >= size:
                break
            await asyncio.sleep(0.01)

    # In a thread

    def _completeness(self) -> Completeness:
        return Completeness.of(self._q.storage, now=self._q.now(), silent_after=self._q.silent_after)

    def _search(self, request: pb.SearchRequest) -> tuple[list[int], pb.SearchResponse]:
        query = _query(request)
        searched_to = self._q.index.cursor
        if request.subject and (transit := self._q.storage.sealed_from(0, 1)):
            searched_to = min(searched_to, transit[0].index)
        found = self._by_subject(request, query) if request.subject else self._q.index.find(query)
        completeness = self._completeness()
        heads = self._q.storage.heads()
        records = [
            _record(record, attested=heads[record.stream].attested, completeness=completeness)
            for record in self._q.storage.records(found)
        ]
        cursor = str(found[-1]) if len(found) == query.limit else ""
        return found, pb.SearchResponse(records=records, next_cursor=cursor, searched_to=searched_to)

    def _by_subject(self, request: pb.SearchRequest, query: Query) -> list[int]:
        """Records that name the data subject under any period's pseudonym, then the rest of the query."""
        if not request.subject_kind:
            raise _BadRequestError("subject needs subject_kind")
        names = [name for _, name in self._q.vault.pseudonyms(request.subject_kind, request.subject)]
        found: list[int] = []
        after = query.after
        while len(found) < query.limit:
            page = self._q.vault.records_of(names, after=after, limit=_PAGE)
            if not page:
                break
            found += self._q.index.keep(query, page)
            after = page[-1]
        return found[: query.limit]

    def _pseudonym_now(self, request: pb.SearchRequest) -> list[bytes]:
        now = self._q.now()
        names = self._q.vault.pseudonyms(request.subject_kind, request.subject, since=now, until=now + timedelta(0, 1))
        return [name for _, name in names[:1]]

    def _prove(self, index: int, tree: Published) -> pb.ProveResponse:
        records = self._q.storage.records([index])
        if not records or index >= tree.size:
            raise _NotThereError(f"no record {index} in the published tree of {tree.size} leaves")
        hashes = inclusion_proof(index, tree.size, tree.nodes)
        # A proof that does not verify must not leave as one: then the stored leaf or tiles are damaged.
        verify_inclusion(leaf_hash(records[0].leaf), index, tree.size, hashes, tree.root)
        proof = TlogProof(index=index, hashes=tuple(hashes), checkpoint=tree.note).encode()
        attested = self._q.storage.heads()[records[0].stream].attested
        record = _record(records[0], attested=attested, completeness=self._completeness())
        return pb.ProveResponse(record=record, proof=proof.decode())


def _record(record: Stored, *, attested: bool, completeness: Completeness) -> pb.StoredRecord:
    standing = completeness.standing(record.stream, parse_leaf(record.leaf).seq)
    return pb.StoredRecord(index=record.index, leaf=record.leaf, salt=record.salt, body=record.body,
                           attested=attested, standing=standing)  # fmt: skip


def _query(request: pb.SearchRequest) -> Query:
    if request.limit > MOST:
        raise _BadRequestError(f"limit is at most {MOST}")
    if request.cursor and not (request.cursor.isascii() and request.cursor.isdigit() and len(request.cursor) < 19):
        raise _BadRequestError("cursor is not one from a previous answer")
    texts = {name: getattr(request, name) or None for name in _TEXT_FIELDS}
    return Query(
        since=_moment("since", request.since), until=_moment("until", request.until),
        after=int(request.cursor) if request.cursor else -1, limit=request.limit or DEFAULT_LIMIT, **texts,
    )  # fmt: skip


def _moment(name: str, text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        _refuse(f"{name} is not an RFC 3339 time with its zone, such as 2026-11-22T10:00:00Z")
    return moment.astimezone(UTC)


def _refuse(message: str) -> NoReturn:
    raise _BadRequestError(message)
