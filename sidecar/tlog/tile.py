"""Tiles and entry bundles of a tiled log: names, contents, writing and reading (c2sp.org/tlog-tiles).

A tile of level L and index N holds up to 256 consecutive hashes, each the root of a perfect subtree of 256**L leaves;
only a *full* tile is hashed into the level above. An entry bundle has the place of a level-0 tile and holds the leaves
themselves. A tile or bundle with fewer than 256 items is *partial*, named after its width, and never changes either:
the next size has another name.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sidecar.tlog.encoding import MAX_SIZE
from sidecar.tlog.errors import TileError
from sidecar.tlog.merkle import HASH_SIZE, CompactRange, Digest, node_hash

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
ENTRIES = -1
"""The ``level`` of entry bundles."""
MAX_ENTRY_SIZE = 0xFFFF
"""Most bytes in one leaf: its length is a uint16."""

_MAX_LEVEL = 63
_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?\Z",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """The name of one tile, or of one entry bundle if ``level`` is `ENTRIES`. ``width`` counts its items, 1 to 256."""

    level: int
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        """Raise `TileError` for what cannot be a tile."""
        if not (ENTRIES <= self.level <= _MAX_LEVEL and 0 <= self.index <= MAX_SIZE and 1 <= self.width <= TILE_WIDTH):
            raise TileError(f"no tile has level {self.level}, index {self.index} and width {self.width}")

    @property
    def is_partial(self) -> bool:
        """Whether it has fewer than 256 items."""
        return self.width < TILE_WIDTH

    @property
    def full(self) -> "Tile":
        """The full tile at the same place: it may be read in place of this partial one."""
        return Tile(self.level, self.index)

    @property
    def first_leaf(self) -> int:
        """Index of the first leaf that it covers. A bundle holds the leaves from here on, ``width`` of them."""
        return self.index << TILE_HEIGHT * (max(self.level, 0) + 1)

    @property
    def path(self) -> str:
        """Relative path, such as ``tile/0/x001/x234/067`` or ``tile/entries/000.p/17``."""
        level = "entries" if self.level == ENTRIES else str(self.level)
        digits = f"{self.index:03d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        index = "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])
        return f"tile/{level}/{index}" + (f".p/{self.width}" if self.is_partial else "")


def parse_path(path: str) -> Tile:
    """Return the tile with this path; raise `TileError` unless it is exactly the path of a tile or bundle."""
    match = _PATH.match(path)
    if match is None:
        raise TileError(f"not the path of a tile or entry bundle: {path[:200]!r}")
    level = ENTRIES if match["level"] == "entries" else int(match["level"])
    index = int(match["index"].replace("x", "").replace("/", ""))
    tile = Tile(level, index, int(match["width"] or TILE_WIDTH))
    if tile.path != path:
        raise TileError(f"not the one path of its tile, which is {tile.path}: {path[:200]!r}")
    return tile


def tile_at(level: int, index: int, size: int) -> Tile:
    """Return the tile (or bundle) at this place in a tree of ``size``; raise `TileError` if it is empty there."""
    width = min((size >> TILE_HEIGHT * max(level, 0)) - index * TILE_WIDTH, TILE_WIDTH)
    if width < 1:
        raise TileError(f"a tree of size {size} has no tile of level {level} and index {index}")
    return Tile(level, index, width)


def changed_bundles(old: int, new: int) -> Iterator[Tile]:
    """Yield the entry bundles which a tree of size ``new`` has and one of size ``old`` has not, in order."""
    return _changed(ENTRIES, old, new)


def changed_tiles(old: int, new: int) -> Iterator[Tile]:
    """Yield the tiles which a tree of size ``new`` has and one of size ``old`` has not, level by level from 0."""
    level = 0
    while new >> TILE_HEIGHT * level:
        yield from _changed(level, old, new)
        level += 1


def encode_hashes(hashes: Sequence[bytes]) -> bytes:
    """Return the content of a tile of these 1 to 256 hashes."""
    if not 1 <= len(hashes) <= TILE_WIDTH or any(len(item) != HASH_SIZE for item in hashes):
        raise TileError(f"a tile holds 1 to {TILE_WIDTH} hashes of {HASH_SIZE} bytes")
    return b"".join(hashes)


def decode_hashes(tile: Tile, data: bytes) -> list[Digest]:
    """Return the hashes of ``tile`` from its content, or from the content of its full tile."""
    if len(data) not in (tile.width * HASH_SIZE, TILE_WIDTH * HASH_SIZE):
        raise TileError(f"{tile.path} has {len(data)} bytes, not {tile.width * HASH_SIZE}")
    return [Digest(data[at : at + HASH_SIZE]) for at in range(0, tile.width * HASH_SIZE, HASH_SIZE)]


def encode_bundle(leaves: Sequence[bytes]) -> bytes:
    """Return the content of an entry bundle of these 1 to 256 leaves: big-endian uint16 length, leaf, and so on."""
    if not 1 <= len(leaves) <= TILE_WIDTH:
        raise TileError(f"an entry bundle holds 1 to {TILE_WIDTH} leaves, not {len(leaves)}")
    parts: list[bytes] = []
    for place, leaf in enumerate(leaves):
        if len(leaf) > MAX_ENTRY_SIZE:
            raise TileError(f"leaf {place} of the bundle has {len(leaf)} bytes, more than {MAX_ENTRY_SIZE}")
        parts += (len(leaf).to_bytes(2, "big"), leaf)
    return b"".join(parts)


def decode_bundle(tile: Tile, data: bytes) -> list[bytes]:
    """Return the leaves of the bundle ``tile`` from its content, or from the content of its full bundle."""
    leaves: list[bytes] = []
    at = 0
    while at < len(data):
        start = at + 2
        at = start + int.from_bytes(data[at:start], "big")
        if start > len(data) or at > len(data):
            raise TileError(f"{tile.path} ends inside leaf {len(leaves)}")
        leaves.append(data[start:at])
    if len(leaves) not in (tile.width, TILE_WIDTH):
        raise TileError(f"{tile.path} has {len(leaves)} leaves, not {tile.width}")
    return leaves[: tile.width]


class NodeReader:
    """Serves `merkle.NodeGetter` for the tree of ``size`` from its tiles.

    ``read(tile)`` returns the content of a tile which the tree of this size has; it may return the full tile in place
    of a partial one. Tiles that were read are kept as long as the reader. The content is not authenticated here: what
    is computed from it must be compared with a root that is trusted.
    """

    __slots__ = ("_read", "_size", "_tiles")

    def __init__(self, size: int, read: Callable[[Tile], bytes]) -> None:
        self._size = size
        self._read = read
        self._tiles: dict[Tile, list[Digest]] = {}

    def hashes(self, level: int, index: int) -> list[Digest]:
        """Return the hashes of the tile at this place; raise `TileError` if it is missing or malformed."""
        tile = tile_at(level, index, self._size)
        if tile not in self._tiles:
            self._tiles[tile] = decode_hashes(tile, self._read(tile))
        return self._tiles[tile]

    def __call__(self, level: int, index: int) -> Digest:
        """Return the hash of the perfect subtree over the leaves ``[index << level, (index + 1) << level)``."""
        if level < 0 or index < 0:
            raise TileError(f"no subtree has level {level} and index {index}")
        tile_level, height = divmod(level, TILE_HEIGHT)
        tile_index, place = divmod(index << height, TILE_WIDTH)
        hashes = self.hashes(tile_level, tile_index)[place : place + (1 << height)]
        if len(hashes) != 1 << height:
            raise TileError(f"a tree of size {self._size} has no perfect subtree of level {level} and index {index}")
        while len(hashes) > 1:
            hashes = [node_hash(hashes[at], hashes[at + 1]) for at in range(0, len(hashes), 2)]
        return hashes[0]


class TileBuilder:
    """Grows a log's tree and gives the tiles that must be written before a checkpoint of it may be published.

    * `append` takes leaf hashes; `take` gives every tile that is new since the last `take`, with its content.
    * Memory: the right edge (under 256 hashes for each level) and the full tiles not yet taken.
    * A crash before `take`'s tiles are written loses nothing: `load` the last published size again.
    """

    __slots__ = ("_complete", "_edge", "_taken", "_tree")

    def __init__(self) -> None:
        self._tree = CompactRange()
        self._edge: list[list[Digest]] = []
        self._complete: dict[Tile, bytes] = {}
        self._taken = 0

    @classmethod
    def load(cls, size: int, read: Callable[[Tile], bytes]) -> "TileBuilder":
        """Continue the stored tree of ``size`` from its right edge.

        The tiles are not authenticated here: before appending, the caller must compare `root` with the checkpoint that
        was signed for this size.
        """
        builder = cls()
        nodes = NodeReader(size, read)
        builder._tree = CompactRange.from_nodes(size, nodes)
        for level in range(_levels(size)):
            index, width = divmod(size >> TILE_HEIGHT * level, TILE_WIDTH)
            builder._edge.append(list(nodes.hashes(level, index)) if width else [])
        builder._taken = size
        return builder

    @property
    def size(self) -> int:
        """How many leaves the tree has."""
        return self._tree.size

    def root(self) -> Digest:
        """Return the root of the tree as it is now."""
        return self._tree.root()

    def append(self, leaf: bytes) -> None:
        """Append one leaf hash."""
        self._tree.append(leaf, self._visit)

    def take(self) -> dict[Tile, bytes]:
        """Return the new tiles and their contents: all full ones, then the partial ones, each from level 0 up."""
        tiles = dict(sorted(self._complete.items()))
        for level, hashes in enumerate(self._edge):
            scale = TILE_HEIGHT * level
            if hashes and self._tree.size >> scale != self._taken >> scale:
                index = (self._tree.size >> scale) // TILE_WIDTH
                tiles[Tile(level, index, len(hashes))] = encode_hashes(hashes)
        self._complete.clear()
        self._taken = self._tree.size
        return tiles

    def _visit(self, level: int, digest: Digest) -> None:
        """Keep the hashes that tiles hold: every eighth level of the tree."""
        if level % TILE_HEIGHT:
            return
        place = level // TILE_HEIGHT
        if place == len(self._edge):
            self._edge.append([])
        hashes = self._edge[place]
        hashes.append(digest)
        if len(hashes) == TILE_WIDTH:
            index = self._tree.size >> TILE_HEIGHT * (place + 1)
            self._complete[Tile(place, index)] = encode_hashes(hashes)
            hashes.clear()


def _changed(level: int, old: int, new: int) -> Iterator[Tile]:
    if not 0 <= old <= new <= MAX_SIZE:
        raise TileError(f"no growth from size {old} to size {new}")
    scale = TILE_HEIGHT * max(level, 0)
    had, has = old >> scale, new >> scale
    for index in range(had // TILE_WIDTH, -(-has // TILE_WIDTH) if has > had else 0):
        yield tile_at(level, index, new)


def _levels(size: int) -> int:
    """Return how many levels of tiles a tree of ``size`` has."""
    return -(-size.bit_length() // TILE_HEIGHT)
