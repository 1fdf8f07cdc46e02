"""The verified reader: reads a whole log as anybody may, believes nothing, and says what is wrong and where.

1. The checkpoint is signed by a log the reader trusts, with the quorum it asks for.
2. Every entry bundle and every tile is exactly what its leaves make it; the leaves' root is the checkpoint's. Where it
   is not, the damaged file, and in a bundle the damaged leaf, is named.
3. Every leaf is a record of this version, and every producer's chain has no gap and no fork (`chains`).

It needs the tlog-tiles files only (a folder, a mirror, a URL), not the store's database and none of its code.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sidecar.oversight.chains import Chains
from sidecar.record import RecordFormatError, parse_leaf
from sidecar.tlog.checkpoint import Checkpoint
from sidecar.tlog.errors import TlogError
from sidecar.tlog.merkle import Digest, leaf_hash
from sidecar.tlog.tile import TILE_WIDTH, Tile, TileBuilder, changed_bundles, decode_bundle, decode_hashes, encode_hashes
from sidecar.tlog.trust import Trust

Read = Callable[[str], bytes | None]
"""Path below the log's root -> content; None when there is no such file."""
MAX_FINDINGS = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong. `kind`: checkpoint, tile, bundle, leaf, root; or gap, fork, tail_unknown, order (chains)."""

    kind: str
    where: str
    detail: str


@dataclass(slots=True)
class Audit:
    """What an audit found. `checkpoint` is None when not even that could be believed."""

    checkpoint: Checkpoint | None = None
    leaves: int = 0
    findings: list[Finding] = field(default_factory=list)
    producers: dict[str, int] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Nothing altered, nothing missing."""
        return self.checkpoint is not None and not self.findings

    def add(self, kind: str, where: str, detail: str) -> None:
        """Add a finding; beyond a thousand only the count matters, and the first ones tell enough."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(kind, where, detail))


def audit(read: Read, trust: Trust, progress: Callable[[int, int], None] = lambda _done, _all: None) -> Audit:
    """Audit the whole log that `read` reaches. OSError from `read` passes through."""
    result = Audit()
    note = read("checkpoint")
    if note is None:
        result.add("checkpoint", "checkpoint", "there is none, so nothing here is promised by anybody")
        return result
    try:
        result.checkpoint = trust.open_checkpoint(note).checkpoint
    except TlogError as error:
        result.add("checkpoint", "checkpoint", str(error))
        return result
    _Reading(read, result.checkpoint, result, progress).run()
    return result


class _Reading:
    def __init__(
        self, read: Read, checkpoint: Checkpoint, result: Audit, progress: Callable[[int, int], None]
    ) -> None:
        self._read, self._checkpoint, self._result, self._progress = read, checkpoint, result, progress
        self._tree = TileBuilder()
        self._chains = Chains()
        self._either: list[tuple[Finding, Finding]] = []

    def run(self) -> None:
        """Read everything once, in order."""
        size = self._checkpoint.size
        for bundle in changed_bundles(0, size):
            leaves = self._leaves(bundle)
            if leaves is None:
                return  # what follows cannot be placed without the leaves that are missing here
            self._take(bundle.first_leaf, leaves)
            self._compare(self._tree.take() if len(leaves) == TILE_WIDTH or bundle.width < TILE_WIDTH else {})
            self._progress(self._tree.size, size)
        right = self._tree.root() == self._checkpoint.root
        for tile, leaf in self._either:
            one = tile if right else leaf
            self._result.add(one.kind, one.where, one.detail)
        if not right:
            self._result.add("root", "checkpoint", f"the leaves of size {size} have another root than was signed")
        for problem in self._chains.problems():
            self._result.add(problem.kind, problem.where, problem.detail)
        self._result.leaves = self._tree.size
        self._result.producers = self._chains.counts()

    def _leaves(self, bundle: Tile) -> list[bytes] | None:
        """The bundle's leaves, held against the level 0 tile of the same place before they are believed."""
        data, path = self._content(bundle)
        if data is None:
            self._result.add("bundle", bundle.path, "is missing")
            return None
        try:
            leaves = decode_bundle(bundle, data)
        except TlogError as error:
            self._result.add("bundle", path, f"{error}; leaves {bundle.first_leaf} and following cannot be read")
            return None
        self._against_tile(bundle, path, leaves)
        return leaves

    def _against_tile(self, bundle: Tile, path: str, leaves: list[bytes]) -> None:
        tile = Tile(0, bundle.index, bundle.width)
        stored, where = self._content(tile)
        made = [leaf_hash(leaf) for leaf in leaves]
        if stored is None or stored == encode_hashes(made):
            return
        try:
            hashes = decode_hashes(tile, stored)
        except TlogError as error:
            self._result.add("tile", where, str(error))
            return
        above = self._above(bundle.index, made)
        for place, (one, other) in enumerate(zip(made, hashes, strict=True)):
            if one != other:
                index = bundle.first_leaf + place
                tile_is_wrong = Finding("tile", where, f"the hash of leaf {index} is not that of the leaf")
                leaf_is_wrong = Finding("leaf", f"{path}, leaf {index}", "is not what was hashed into the log")
                if above is None:
                    self._either.append((tile_is_wrong, leaf_is_wrong))
                else:
                    found = tile_is_wrong if above == _subtree(made) else leaf_is_wrong
                    self._result.add(found.kind, found.where, found.detail)

    def _above(self, index: int, made: list[Digest]) -> Digest | None:
        """What the level above says of a full bundle's leaves, to tell whether they or the tile is damaged."""
        if len(made) < TILE_WIDTH:
            return None
        parent_index, place = divmod(index, TILE_WIDTH)
        width = min((self._checkpoint.size >> 8) - parent_index * TILE_WIDTH, TILE_WIDTH)
        tile = Tile(1, parent_index, width)
        stored, _ = self._content(tile)
        try:
            return None if stored is None else decode_hashes(tile, stored)[place]
        except TlogError:
            return None

    def _take(self, first: int, leaves: list[bytes]) -> None:
        for place, data in enumerate(leaves):
            self._tree.append(leaf_hash(data))
            index = first + place
            try:
                leaf = parse_leaf(data)
            except RecordFormatError as error:
                self._result.add("leaf", f"leaf {index}", f"is no record: {error}")
            else:
                self._chains.add(index, leaf, data)

    def _compare(self, made: dict[Tile, bytes]) -> None:
        for tile, content in made.items():
            if tile.level == 0:
                stored, path = self._content(tile)
                if stored is None:
                    self._result.add("tile", path, "is missing")
                continue  # contents of level 0 were compared with the bundle
            stored, path = self._content(tile)
            if stored is None:
                self._result.add("tile", path, "is missing")
            elif stored[: len(content)] != content or len(stored) not in (len(content), TILE_WIDTH * 32):
                self._result.add("tile", path, f"is not what {_span(tile)} make it")

    def _content(self, tile: Tile) -> tuple[bytes | None, str]:
        """The file's content and path. A partial one may have been replaced by the full one since."""
        data = self._read(tile.path)
        if data is None and tile.is_partial:
            full = Tile(tile.level, tile.index)
            data = self._read(full.path)
            return data, full.path if data is not None else tile.path
        return data, tile.path


def _subtree(hashes: list[Digest]) -> Digest:
    tree = TileBuilder()
    for one in hashes:
        tree.append(one)
    return tree.root()


def _span(tile: Tile) -> str:
    each = 1 << (8 * tile.level)
    first = tile.index * TILE_WIDTH * each
    return f"leaves {first} to {first + tile.width * each - 1}"


def locate(findings: list[Finding]) -> Iterator[str]:
    """The findings as lines for people."""
    return (f"{one.kind}: {one.where}: {one.detail}" for one in findings)
