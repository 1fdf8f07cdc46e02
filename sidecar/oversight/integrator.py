"""Integrate and publish: committed records become tiles, and a signed checkpoint says so.

One step, and what a crash after each part means:

1. Renew the lease. Nothing happened.
2. Read the committed leaves back, hash them and compare with the digest taken when they were received, so that what
   is signed is what was accepted and not what a disk made of it. Nothing happened.
3. Write entry bundles and tiles. They are there without a checkpoint that covers them: nobody is told of them, and
   the next step writes the same bytes again, because they follow from the committed leaves alone.
4. Store (size, root) under a unique size. From here on no other root can ever be signed for this size; `recover`
   finishes what was begun.
5. Sign, add to the history. Ed25519 gives the same signature again, so repeating it is no second statement.
6. Replace the `checkpoint` file. If the crash comes before, the file is older than the history; `recover` replaces it.
   It is never newer than the history, so a published checkpoint is never forgotten.
7. Remove partial tiles whose full tile is now covered. If they stay, they cost space only.

Pure of grpc and asyncio: `service` runs it in a thread.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sidecar.errors import IntegrityError
from sidecar.oversight.sequencer import runs_digest
from sidecar.oversight.storage import PublishedCheckpoint, Run, Statement, Storage, Token
from sidecar.oversight.tiles import CHECKPOINT, FIX_TILES, TileStore
from sidecar.tlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from sidecar.tlog.errors import TlogError
from sidecar.tlog.key import NoteSigner, Verifier
from sidecar.tlog.merkle import Digest, leaf_hash
from sidecar.tlog.tile import NodeReader, TileBuilder, changed_bundles, encode_bundle

LEASE = "integrate"
_FIX_DATABASE = "Restore the newest copy of the database. Do not start over: the log would sign a second history."


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A tree that the world may know of: its checkpoint (signed note) and its nodes."""

    size: int
    root: bytes
    note: bytes
    nodes: NodeReader


class Integrator:
    """Turns committed records into published ones. One thread at a time; several processes are told apart by lease."""

    def __init__(
        self, storage: Storage, tiles: TileStore, signer: NoteSigner, *, holder: str, timestamp: Callable[[], str],
        clock: Callable[[], float], lease_seconds: float = 10.0, most: int = 32_768,
    ) -> None:  # fmt: skip
        """`signer`'s name is the log's origin. `most` leaves are integrated in one step."""
        self._storage, self._tiles, self._signer = storage, tiles, signer
        self._holder, self._timestamp, self._clock = holder, timestamp, clock
        self._lease_seconds, self._most = lease_seconds, most
        self._builder: TileBuilder | None = None
        self._token: Token | None = None
        self._renew_at = 0.0
        self.published: Published | None = None

    def step(self) -> bool:
        """Integrate and publish what is committed, up to `most` leaves. Return whether a checkpoint was published.

        False when there is nothing new or another integrator holds the lease. Raises IntegrityError when what is
        stored contradicts itself, TwoRootsError, LeaseLostError, StorageError, OSError; after any of them the next
        step starts from what is durable.
        """
        try:
            return self._step()
        except BaseException:
            self._builder = None
            self._renew_at = 0.0
            raise

    def _step(self) -> bool:
        token = self._lease()
        if token is None:
            return False
        if self._builder is None:
            return self._recover(token)
        first = self._builder.size
        runs = self._storage.runs_by_index(first, first + self._most)
        if not runs:
            return False
        end = runs[-1].first_index + runs[-1].count
        leaves = self._storage.leaves(first, end - first)
        for digest in _checked_hashes(first, leaves, runs):
            self._builder.append(digest)
        tiles = self._builder.take()
        bundles = dict.fromkeys(changed_bundles(first, end), b"")
        held = self._storage.leaves(first - first % 256, first % 256) + leaves
        for tile in bundles:
            start = tile.first_leaf - (first - first % 256)
            bundles[tile] = encode_bundle(held[start : start + tile.width])
        self._tiles.write({tile.path: data for tile, data in (bundles | tiles).items()})
        self._publish(Statement(size=end, root=self._builder.root()), token)
        self._tiles.forget_partials(tile for tile in (*bundles, *tiles) if not tile.is_partial)
        return True

    def _lease(self) -> Token | None:
        now = self._clock()
        if self._token is None or now >= self._renew_at:
            token = self._storage.acquire(LEASE, self._holder, now=now, ttl=self._lease_seconds)
            if token != self._token:
                # Another integrator may have gone on meanwhile: what this one remembers is no longer the truth.
                self._builder = None
            self._token = token
            self._renew_at = now + self._lease_seconds / 2
        return self._token

    def _publish(self, statement: Statement, token: Token) -> None:
        self._storage.sign(statement, token)
        note = self._note(statement)
        self._storage.publish(PublishedCheckpoint(size=statement.size, note=note, at=self._timestamp()), token)
        self._tiles.write({CHECKPOINT: note})
        self._show(statement, note)

    def _note(self, statement: Statement) -> bytes:
        root = Digest(statement.root)
        return sign_checkpoint(Checkpoint(origin=self._signer.key.name, size=statement.size, root=root), [self._signer])

    def _show(self, statement: Statement, note: bytes) -> None:
        nodes = NodeReader(statement.size, self._tiles.read_tile)
        self.published = Published(size=statement.size, root=statement.root, note=note, nodes=nodes)

    def _recover(self, token: Token) -> bool:
        """Start from what is durable: the last statement, its tiles, the history and the checkpoint file."""
        signed, history = self._storage.signed(), self._storage.published()
        self._check_file(signed)
        size = 0 if signed is None else signed.size
        builder = TileBuilder.load(size, self._tiles.read_tile)
        if signed is not None and builder.root() != signed.root:
            raise IntegrityError(f"the tiles of size {size} do not lead to the signed root {signed.root.hex()}",
                                 where="tile folder", fix=FIX_TILES)  # fmt: skip
        self._builder = builder
        statement = Statement(size=size, root=builder.root())
        if history is None or history.size < size:
            self._publish(statement, token)
            return True
        if self._tiles.read(CHECKPOINT) != history.note:
            self._tiles.write({CHECKPOINT: history.note})
        self._show(statement, history.note)
        return True

    def _check_file(self, signed: Statement | None) -> None:
        """Refuse to go on from a database that knows less than what was published."""
        data = self._tiles.read(CHECKPOINT)
        if data is None:
            return
        try:
            checkpoint = open_checkpoint(data, [Verifier(self._signer.key)]).checkpoint
        except TlogError as error:
            raise IntegrityError(f"is not a checkpoint of this log: {error}", where=CHECKPOINT, fix=FIX_TILES) from None
        if signed is None or checkpoint.size > signed.size:
            known = "nothing" if signed is None else f"size {signed.size}"
            raise IntegrityError(f"states size {checkpoint.size}, but the database has signed {known}",
                                 where=CHECKPOINT, fix=_FIX_DATABASE)  # fmt: skip
        if checkpoint.size == signed.size and checkpoint.root != signed.root:
            raise IntegrityError(f"states another root for size {signed.size} than the database",
                                 where=CHECKPOINT, fix=_FIX_DATABASE)  # fmt: skip


def _checked_hashes(first: int, leaves: Sequence[bytes], runs: Sequence[Run]) -> list[Digest]:
    """Hash the leaves that were read back; raise IntegrityError unless they are those that were received."""
    hashes = [leaf_hash(leaf) for leaf in leaves]
    at = 0
    for run in runs:
        piece = hashes[at : at + run.count]
        if run.first_index != first + at or len(piece) != run.count or runs_digest(piece) != run.digest:
            raise IntegrityError(
                f"leaves {run.first_index} to {run.first_index + run.count - 1} are not those that were accepted",
                where="database", fix=_FIX_DATABASE,
            )  # fmt: skip
        at += run.count
    return hashes
