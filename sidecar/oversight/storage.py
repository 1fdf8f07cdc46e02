"""What the store keeps and the port behind which it keeps it. SQLite is one implementation (`sqlite`).

The port's contract, beyond the types:

* **Durable.** When `Storage.transaction` or a writing method returns, what it wrote survives a power cut. When it
  raises, the write may still have happened (a commit whose acknowledgement was lost): callers repeat, and every write
  here may be repeated without harm.
* **All or nothing.** A transaction that raises leaves nothing behind.
* **One history.** Indices are 0, 1, 2 ... without a hole, given in the order of commits. A reader that sees index i
  sees every index below it.
* **Insert only.** Leaves, bodies, runs and batches are never changed, replaced or removed, not even by the store's own
  code: the database refuses it. Heads, gaps, leases, cursors and the openings in transit are kept apart and change.
* **Serial writers.** Transactions exclude one another, from whichever thread they come; readers never block them.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NewType, Protocol

StreamId = NewType("StreamId", int)
"""One epoch of one producer slot."""
Token = NewType("Token", int)
"""Fencing token of a lease: larger than every token of that lease before it."""


class StorageError(Exception):
    """The database could not do it. Nothing is known to be written, nothing is damaged; the caller may repeat."""


class StorageFullError(StorageError):
    """No space left. Recovers by itself once there is."""


class StorageBrokenError(StorageError):
    """Reading or writing failed in a way that repeating does not mend; the process should stop and be looked at."""


class LeaseLostError(Exception):
    """Another integrator took over: whoever sees this stops writing at once."""


class TwoRootsError(Exception):
    """The log was about to sign a second root for one size. It never does; a person must find out why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One record as it came: exact bytes. `nonce` and `sealed` are empty when the body names no data subject."""

    leaf: bytes
    salt: bytes
    body: bytes
    nonce: bytes = b""
    sealed: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What an `open` record says about the epoch before: a claim until its hash is found."""

    epoch: str
    last_seq: int


@dataclass(slots=True, kw_only=True)
class Head:
    """Where an epoch of a producer slot stands. `last_seq` is -1 before the first record.

    `opened`: seq 0 is here, and `opened_prev` is the hash it names (None: it names none). `closed`: the record of
    `last_seq` is a `close`. `received` is the store's own clock.
    """

    stream: StreamId
    producer: str
    slot: int
    epoch: str
    attested: bool = True
    last_seq: int = -1
    last_digest: bytes | None = None
    opened: bool = False
    opened_prev: bytes | None = None
    link: Link | None = None
    closed: bool = False
    received: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Records of one epoch that have consecutive seqs *and* consecutive indices.

    `branch` 0 is the epoch's chain; 1 are other bytes for a seq that was already taken, or a run that does not follow
    from what stands before it (see `sequencer`). `digest` is the SHA-256 over the Merkle leaf hashes, taken from the
    bytes that were received: what is read back later is compared with it.
    """

    stream: StreamId
    branch: int
    first_seq: int
    count: int
    first_index: int
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Seqs that are missing.

    `after`: hash of the leaf before them (None: unknown); `before`: what the leaf behind them names as predecessor.
    """

    stream: StreamId
    first_seq: int
    last_seq: int
    after: bytes | None
    before: bytes | None
    since: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """Something found wrong with received records, for ever: nothing removes it.

    `kind`: equivocation (other bytes for a taken seq, or a leaf that names another predecessor), bad_openings (do not
    open, or do not match the body), bad_body (not what its leaf commits to, or not readable), bad_digest.
    """

    kind: str
    stream: StreamId
    seq: int
    index: int
    detail: str
    since: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchEvidence:
    """The signed header with which records came: shows that the producer, not the store, wrote them."""

    first_index: int
    header: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A record as kept."""

    index: int
    stream: StreamId
    leaf: bytes
    salt: bytes
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """Openings in transit: sealed under the epoch's key, not yet under the keys of the subjects."""

    index: int
    stream: StreamId
    leaf: bytes
    body: bytes
    nonce: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A tree size and its root, as the log has signed or is about to sign them."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedCheckpoint:
    """A checkpoint as published: the signed note's bytes, and the store's clock."""

    size: int
    note: bytes
    at: str


class Transaction(Protocol):
    """What the sequencer may do while it holds the producer slots' heads. Ends with the `with` block."""

    def head(self, producer: str, slot: int, epoch: str, *, attested: bool) -> Head:
        """The epoch's head, locked until the end; made if there is none yet."""

    def save(self, head: Head) -> None:
        """Write the head back."""

    def next_index(self) -> int:
        """The first index that is not taken."""

    def insert(self, run: Run, items: Sequence[Item]) -> None:
        """Insert the records of a run at its indices, and the run. Raises StorageError if an index is taken."""

    def insert_batch(self, evidence: BatchEvidence) -> None:
        """Keep the signed header under which these records came."""

    def runs(self, stream: StreamId, branch: int, first_seq: int, last_seq: int) -> list[Run]:
        """The runs of a branch that meet [first_seq, last_seq], by first_seq, then first_index."""

    def leaves(self, first: int, count: int) -> list[bytes]:
        """Leaves by index."""

    def gaps(self, stream: StreamId, first_seq: int, last_seq: int) -> list[Gap]:
        """Open gaps that meet [first_seq, last_seq], in order."""

    def open_gap(self, gap: Gap) -> None:
        """Note that these seqs are missing."""

    def close_gap(self, gap: Gap) -> None:
        """They are no longer missing, or were replaced by smaller gaps."""

    def discover(self, discovery: Discovery) -> None:
        """Keep what was found; the same kind at the same index once."""


class Storage(Protocol):
    """The database of the log. All methods may be called from any thread."""

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Begin; commit durably when the block ends, roll back when it raises."""

    def size(self) -> int:
        """How many records are committed: the next index."""

    def leaves(self, first: int, count: int) -> list[bytes]:
        """Up to `count` leaves from index `first` on; fewer only at the end."""

    def records(self, indices: Sequence[int]) -> list[Stored]:
        """Those of these records that exist, by index."""

    def record_range(self, first: int, count: int) -> list[Stored]:
        """Up to `count` records from index `first` on."""

    def heads(self) -> dict[StreamId, Head]:
        """Every epoch's head."""

    def head_of(self, producer: str, slot: int, epoch: str) -> Head | None:
        """One epoch's head, if it has records."""

    def runs_by_index(self, first: int, end: int) -> list[Run]:
        """The runs that meet [first, end), by first_index."""

    def runs_from(self, stream: StreamId, seq: int, limit: int) -> list[Run]:
        """Up to `limit` runs of branch 0 that hold `seq` or later ones, by first_seq."""

    def gaps(self) -> list[Gap]:
        """Every open gap."""

    def discoveries(self) -> list[Discovery]:
        """Everything found wrong, oldest first."""

    def discover(self, discoveries: Sequence[Discovery]) -> None:
        """As `Transaction.discover`, in a transaction of its own."""

    def batches(self, first: int, end: int) -> list[BatchEvidence]:
        """Signed headers whose first new record is in [first, end), by index."""

    def add_epoch_key(self, producer: str, slot: int, epoch: str, sealed: bytes) -> None:
        """Keep a sealed epoch key; the same bytes once."""

    def epoch_keys(self, producer: str, slot: int, epoch: str) -> list[bytes]:
        """The sealed epoch keys, in the order in which they came."""

    def sealed_from(self, index: int, limit: int) -> list[Sealed]:
        """Up to `limit` openings in transit at or after `index`, by index."""

    def drop_sealed(self, end: int) -> None:
        """Overwrite and remove the openings in transit below index `end`."""

    def acquire(self, lease: str, holder: str, *, now: float, ttl: float) -> Token | None:
        """Take or renew a lease for `ttl` seconds. None while another holder's has not run out.

        Renewing keeps the token; taking it over gives a larger one, and from then on the former holder's token is
        refused by `sign` and `publish`.
        """

    def sign(self, statement: Statement, token: Token) -> None:
        """Keep what is about to be signed. The same statement again is no harm.

        Raises TwoRootsError for another root of that size or a size below one that was signed, and LeaseLostError.
        """

    def signed(self) -> Statement | None:
        """The largest statement that was signed or is about to be."""

    def publish(self, checkpoint: PublishedCheckpoint, token: Token) -> None:
        """Add to the history of checkpoints; the same size once. Raises LeaseLostError."""

    def published(self) -> PublishedCheckpoint | None:
        """The latest checkpoint of the history."""

    def history(self, after: int, limit: int) -> list[PublishedCheckpoint]:
        """Checkpoints with sizes above `after`, by size."""

    def close(self) -> None:
        """Release files and locks."""


@dataclass(slots=True)
class Places:
    """Where a batch's records stand, as runs in the order of their seqs; `fresh` counts the new ones."""

    runs: list[Run] = field(default_factory=list)
    fresh: int = 0
