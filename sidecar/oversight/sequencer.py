"""Sequence: gives a checked batch its indices and keeps the books of what is missing and what contradicts itself.

Pure rules over `storage.Transaction`; no database, no grpc, no clock.

What holds after every commit, for each epoch of a producer slot:

* branch 0 holds each seq from 0 to `head.last_seq` exactly once, except those in an open gap;
* the same bytes for a seq always have the same index, however often and in whatever batches they come;
* other bytes for a seq that is taken are kept in branch 1 and reported; nothing is overwritten and nothing refused,
  because both versions, each under the producer's signature, are the evidence;
* a leaf that does not name the leaf before it as its predecessor is kept where its seq puts it, and reported.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from sidecar.oversight.ingest import CheckedBatch
from sidecar.oversight.storage import BatchEvidence, Discovery, Gap, Head, Places, Run, Transaction


@dataclass(frozen=True, slots=True)
class _Piece:
    """Items [start, end) of the batch that are treated alike: known from `index` on, or new in `branch`."""

    start: int
    end: int
    branch: int
    index: int | None


def place(transaction: Transaction, batch: CheckedBatch, *, now: str, attested: bool = True) -> Places:
    """Store what is new of the batch and say where each of its records stands, in the order of their seqs."""
    header = batch.header
    head = transaction.head(header.producer, header.slot, header.epoch, attested=attested)
    pieces = list(_pieces(transaction, head, batch))
    start = transaction.next_index()
    if header.first_seq > head.last_seq + 1:
        transaction.open_gap(Gap(stream=head.stream, first_seq=head.last_seq + 1, last_seq=header.first_seq - 1,
                                 after=head.last_digest, before=batch.prevs[0], since=now))  # fmt: skip
    places, following = Places(), start
    for piece in pieces:
        count = piece.end - piece.start
        run = Run(
            stream=head.stream, branch=piece.branch, first_seq=header.first_seq + piece.start, count=count,
            first_index=following if piece.index is None else piece.index,
            digest=runs_digest(batch.hashes[piece.start : piece.end]),
        )  # fmt: skip
        if piece.index is None:
            _store(transaction, head, batch, piece, run, now=now)
            following += count
        places.runs.append(run)
    places.fresh = following - start
    if places.fresh:
        evidence = BatchEvidence(first_index=start, header=header.raw, signature=batch.signature)
        transaction.insert_batch(evidence)
    head.received = now
    transaction.save(head)
    return places


def runs_digest(hashes: Sequence[bytes]) -> bytes:
    """The digest of a run: SHA-256 over its Merkle leaf hashes."""
    return sha256(b"".join(hashes)).digest()


def _pieces(transaction: Transaction, head: Head, batch: CheckedBatch) -> Iterator[_Piece]:
    """Cut the batch where known and new records, chain and equivocation meet."""
    first, count = batch.header.first_seq, batch.header.count
    if first > head.last_seq:
        yield _Piece(0, count, 0, None)
        return
    fates = _fates(transaction, head, batch)
    start = 0
    for at in range(1, count + 1):
        branch, index = fates[start]
        if at < count:
            same_kind = fates[at][0] == branch and (fates[at][1] is None) == (index is None)
            if same_kind and (index is None or fates[at][1] == index + at - start):
                continue
        yield _Piece(start, at, branch, index)
        start = at


def _fates(transaction: Transaction, head: Head, batch: CheckedBatch) -> list[tuple[int, int | None]]:
    """For each item: its branch, and its index if these bytes are already stored."""
    first, count = batch.header.first_seq, batch.header.count
    fates: list[tuple[int, int | None]] = [(0, None)] * count
    for branch in (0, 1):
        for run in transaction.runs(head.stream, branch, first, first + count - 1):
            low, high = max(run.first_seq, first), min(run.first_seq + run.count, first + count)
            index = run.first_index + low - run.first_seq
            for seq, leaf in enumerate(transaction.leaves(index, high - low), start=low):
                known = leaf == batch.items[seq - first].leaf
                if known:
                    fates[seq - first] = (branch, index + seq - low)
                elif branch == 0:
                    fates[seq - first] = (1, None)
    return fates


def _store(transaction: Transaction, head: Head, batch: CheckedBatch, piece: _Piece, run: Run, *, now: str) -> None:
    """Insert a new run and bring heads, gaps and discoveries up to date."""
    transaction.insert(run, batch.items[piece.start : piece.end])
    last = run.first_seq + run.count - 1
    if piece.branch == 1:
        for offset in range(run.count):
            transaction.discover(_equivocation(run, offset, "other bytes than those stored for this seq", now))
        return
    if run.first_seq > head.last_seq:
        expected = head.last_digest if run.first_seq == head.last_seq + 1 else None
        follows: bytes | None = None
        head.last_seq, head.last_digest = last, batch.digests[piece.end - 1]
        head.closed = batch.types[piece.end - 1] == "close"
    else:
        expected, follows = _fill(transaction, head, batch, piece, run)
    if expected is not None and batch.prevs[piece.start] != expected:
        transaction.discover(_equivocation(run, 0, "names another predecessor than the stored one", now))
    if follows is not None and batch.digests[piece.end - 1] != follows:
        transaction.discover(_equivocation(run, run.count - 1, "is not the predecessor that the next leaf names", now))
    if run.first_seq == 0:
        head.opened, head.opened_prev, head.link = True, batch.prevs[0], batch.link


def _fill(
    transaction: Transaction, head: Head, batch: CheckedBatch, piece: _Piece, run: Run
) -> tuple[bytes | None, bytes | None]:
    """Take the run out of the gap in which it lies; return the digests that its two neighbours ask for, if known."""
    last = run.first_seq + run.count - 1
    (gap,) = transaction.gaps(head.stream, run.first_seq, last)
    transaction.close_gap(gap)
    expected = gap.after if run.first_seq == gap.first_seq else None
    follows = gap.before if last == gap.last_seq else None
    if run.first_seq > gap.first_seq:
        before = batch.prevs[piece.start]
        transaction.open_gap(replace(gap, last_seq=run.first_seq - 1, before=before))
    if last < gap.last_seq:
        transaction.open_gap(replace(gap, first_seq=last + 1, after=batch.digests[piece.end - 1]))
    return expected, follows


def _equivocation(run: Run, offset: int, detail: str, now: str) -> Discovery:
    return Discovery(
        kind="equivocation", stream=run.stream, seq=run.first_seq + offset, index=run.first_index + offset,
        detail=detail, since=now,
    )  # fmt: skip
