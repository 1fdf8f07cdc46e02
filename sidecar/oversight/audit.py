"""The verified reader: reads a whole log as anybody may, believes nothing, and says what is wrong and where.

1. The checkpoint is signed by a log the reader trusts, with the quorum it asks for.
2. Every entry bundle and every tile is exactly what its leaves make it; the leaves' root is the checkpoint's. Where it
   is not, the damaged file, and in a bundle the damaged leaf, is named.
3. Every leaf is a record of this version, and every producer's chain has no gap and no fork (`chains`). Chains are
   judged only when every leaf could be read.

It needs the tlog-tiles files only (a folder, a mirror, a URL), not the store's database and none of its code.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import count

from sidecar.oversight.chains import Chains
from sidecar.record import RecordFormatError, parse_leaf
from sidecar.tlog.checkpoint import Checkpoint
from sidecar.tlog.errors import TileError, TlogError
from sidecar.tlog.merkle import HASH_SIZE, Digest, leaf_hash
from sidecar.tlog.tile import (
    TILE_WIDTH,
    Tile,
    TileBuilder,
    changed_bundles,
    decode_bundle,
    decode_hashes,
    encode_bundle,
    encode_hashes,
    tile_at,
)
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
    """What an audit found. `checkpoint` is None when not even that could be believed.

    `leaves` counts those that could be read; `omitted` the findings beyond the first thousand.
    """

    checkpoint: Checkpoint | None = None
    leaves: int = 0
    findings: list[Finding] = field(default_factory=list)
    producers: dict[str, int] = field(default_factory=dict)
    omitted: int = 0

    @property
    def sound(self) -> bool:
        """Nothing altered, nothing missing."""
        return self.checkpoint is not None and not self.findings

    def add(self, kind: str, where: str, detail: str) -> None:
        """Add a finding; beyond a thousand they are only counted, the first ones tell enough."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(kind, where, detail))
        else:
            self.omitted += 1


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
    def __init__(self, read: Read, checkpoint: Checkpoint, result: Audit, progress: Callable[[int, int], None]) -> None:
        self._read, self._checkpoint, self._result, self._progress = read, checkpoint, result, progress
        self._tree = TileBuilder()
        self._chains = Chains()
        self._unread = 0

    def run(self) -> None:
        """Read everything once, in order."""
        size = self._checkpoint.size
        for bundle in changed_bundles(0, size):
            hashes = self._bundle(bundle)
            if hashes is None:
                self._result.add("root", "checkpoint", f"the tree of size {size} cannot be computed: leaves "
                                 f"{bundle.first_leaf} and following can be read nowhere")  # fmt: skip
                break
            for one in hashes:
                self._tree.append(one)
            self._compare(self._tree.take())
            self._progress(self._tree.size, size)
        else:
            if self._tree.root() != self._checkpoint.root:
                self._result.add("root", "checkpoint", f"the leaves of size {size} have another root than was signed")
        self._result.leaves = self._tree.size - self._unread
        self._result.producers = self._chains.counts()
        if self._tree.size < size or self._unread:
            return  # every leaf that could not be read would show as a gap; what could not be read has been named
        for problem in self._chains.problems():
            self._result.add(problem.kind, problem.where, problem.detail)

    def _bundle(self, bundle: Tile) -> list[Digest] | None:
        """The leaf hashes to build on; None when neither the bundle nor its tile can be read."""
        tile = Tile(0, bundle.index, bundle.width)
        stored, where = self._hashes(tile)
        data, path = self._content(bundle)
        if data is None:
            self._result.add("bundle", bundle.path, f"is missing: {_span(tile)}")
        else:
            try:
                leaves = decode_bundle(bundle, data)
                if path == bundle.path and bundle.is_partial and len(encode_bundle(leaves)) != len(data):
                    raise TileError(f"{path} has more than {bundle.width} leaves")
            except TlogError as error:
                self._result.add("bundle", path, f"{error}; {_span(tile)} cannot be read")
            else:
                return self._judged(bundle, leaves, stored, (path, where))
        if stored is not None:
            self._unread += bundle.width  # in the tree by their hashes only
        return stored

    def _judged(
        self, bundle: Tile, leaves: list[bytes], stored: list[Digest] | None, paths: tuple[str, str]
    ) -> list[Digest]:
        """Hold the leaves against the tile's hashes; where they differ, find out which of the two is damaged."""
        path, where = paths
        made = [leaf_hash(leaf) for leaf in leaves]
        right = made if stored in (None, made) else self._right(bundle.index, made, stored or [])
        for index, leaf, one, other in zip(count(bundle.first_leaf), leaves, made, stored or made, strict=False):
            if one == other:
                self._take(index, leaf, path)
            elif right is made:
                self._result.add("tile", where, f"the hash of leaf {index} is not that of the leaf")
                self._take(index, leaf, path)
            else:
                said = "is not what was hashed into the log" if right else (
                    f"and its hash in {where} do not belong together, and what was signed tells neither right"
                )  # fmt: skip
                self._result.add("leaf", f"{path}, leaf {index}", said)
                self._unread += 1
        return right or made

    def _right(self, index: int, made: list[Digest], stored: list[Digest]) -> list[Digest] | None:
        """Which of the two leads to what was hashed above them: the next level or, at the end, the signed root."""
        if len(made) < TILE_WIDTH or (index + 1) * TILE_WIDTH == self._checkpoint.size:
            return next((one for one in (made, stored) if self._root_with(one) == self._checkpoint.root), None)
        parent, place = divmod(index, TILE_WIDTH)
        above, _ = self._hashes(tile_at(1, parent, self._checkpoint.size), report=False)
        return None if above is None else next((one for one in (made, stored) if _subtree(one) == above[place]), None)

    def _root_with(self, last: list[Digest]) -> Digest:
        """The whole tree's root, were these its last leaves."""
        tree = deepcopy(self._tree)
        for one in last:
            tree.append(one)
        return tree.root()

    def _take(self, index: int, data: bytes, path: str) -> None:
        try:
            leaf = parse_leaf(data)
        except RecordFormatError as error:
            self._result.add("leaf", f"{path}, leaf {index}", f"is no record: {error}")
        else:
            self._chains.add(index, leaf, data)

    def _compare(self, made: dict[Tile, bytes]) -> None:
        """Hold the levels above the leaves' against what the leaves make them. Level 0 was held against the leaves."""
        for tile, content in made.items():
            if tile.level == 0 or tile != tile_at(tile.level, tile.index, self._checkpoint.size):
                continue  # partial tiles of smaller trees are no part of this one
            stored, path = self._hashes(tile)
            if stored is not None and encode_hashes(stored) != content:
                self._result.add("tile", path, f"is not what {_span(tile)} make it")

    def _hashes(self, tile: Tile, *, report: bool = True) -> tuple[list[Digest] | None, str]:
        """A tile's hashes and where they were read; None, and a finding, when they cannot be."""
        data, path = self._content(tile)
        try:
            if data is None:
                raise TileError("is missing")
            if path == tile.path and len(data) != tile.width * HASH_SIZE:
                raise TileError(f"has {len(data)} bytes, not {tile.width * HASH_SIZE}")
            return decode_hashes(tile, data), path
        except TlogError as error:
            if report:
                self._result.add("tile", path, str(error))
            return None, path

    def _content(self, tile: Tile) -> tuple[bytes | None, str]:
        """The file's content and path. A partial one may have been replaced by the full one since."""
        data = self._read(tile.path)
        if data is None and tile.is_partial:
            data = self._read(tile.full.path)
            return data, tile.path if data is None else tile.full.path
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
