"""Tiles and bundles: the specification's examples, a real log of another implementation, and properties."""

from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.tlog.encoding import MAX_SIZE, encode_base64
from sidecar.tlog.errors import TileError, TlogError
from sidecar.tlog.merkle import (
    CompactRange,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    range_proof,
    root_from_nodes,
    root_hash,
    verify_consistency,
    verify_inclusion,
    verify_range,
)
from sidecar.tlog.tile import (
    ENTRIES,
    MAX_ENTRY_SIZE,
    NodeReader,
    Tile,
    TileBuilder,
    changed_bundles,
    changed_tiles,
    decode_bundle,
    decode_hashes,
    encode_bundle,
    encode_hashes,
    parse_path,
    tile_at,
)

tiles = st.builds(Tile, st.integers(ENTRIES, 63), st.integers(0, MAX_SIZE), st.integers(1, 256))


def hash_of(number: int) -> bytes:
    return leaf_hash(b"leaf %d" % number)


def store_of(size: int) -> dict[Tile, bytes]:
    """Every tile of the tree of ``size``, made at once."""
    builder = TileBuilder()
    for number in range(size):
        builder.append(hash_of(number))
    return builder.take()


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 1234067), "tile/0/x001/x234/067"),
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 0, 1), "tile/0/000.p/1"),
        (Tile(1, 999, 255), "tile/1/999.p/255"),
        (Tile(63, 1000), "tile/63/x001/000"),
        (Tile(ENTRIES, 273, 112), "tile/entries/273.p/112"),
        (Tile(ENTRIES, 1234067), "tile/entries/x001/x234/067"),
        (Tile(0, MAX_SIZE), "tile/0/x009/x223/x372/x036/x854/x775/807"),
    ],
)
def test_paths(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert parse_path(path) == tile


@given(tiles)
def test_a_path_names_one_tile(tile: Tile) -> None:
    assert parse_path(tile.path) == tile
    assert tile.is_partial is (tile.width < 256)
    assert tile.full == Tile(tile.level, tile.index, 256)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "checkpoint",
        "tile/0",
        "/tile/0/000",
        "tile/0/000/",
        "tile/0/000\n",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/067",
        "tile/0/001/067",
        "tile/0/x001",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/999",
        "tile/0/000.p/",
        "tile/entries/../000",
        "tile/data/000",
        "tile/0/\u0661\u0661\u0661",
        "tile/0/x009/x223/x372/x036/x854/x775/808",
        "tile/0/x001/x000/x000/x000/x000/x000/x000/000",
    ],
)
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(TileError):
        parse_path(path)


@given(st.text() | st.from_regex(r"tile/[0-9]{1,3}/(x[0-9]{3}/){0,9}[0-9]{3}(\.p/[0-9]{1,4})?", fullmatch=True))
def test_only_tlog_errors_escape_from_paths(path: str) -> None:
    try:
        assert parse_path(path).path == path
    except TlogError:
        pass


@pytest.mark.parametrize(
    "call",
    [
        lambda: Tile(-2, 0),
        lambda: Tile(64, 0),
        lambda: Tile(0, -1),
        lambda: Tile(0, MAX_SIZE + 1),
        lambda: Tile(0, 0, 0),
        lambda: Tile(0, 0, 257),
        lambda: tile_at(0, 0, 0),
        lambda: tile_at(0, 1, 256),
        lambda: tile_at(1, 0, 255),
        lambda: list(changed_tiles(5, 4)),
        lambda: list(changed_bundles(-1, 4)),
        lambda: encode_hashes([]),
        lambda: encode_hashes([b"short"]),
        lambda: encode_hashes([bytes(32)] * 257),
        lambda: decode_hashes(Tile(0, 0, 2), bytes(32)),
        lambda: decode_hashes(Tile(0, 0, 2), bytes(65)),
        lambda: decode_hashes(Tile(0, 0, 2), bytes(3 * 32)),
        lambda: encode_bundle([]),
        lambda: encode_bundle([b""] * 257),
        lambda: encode_bundle([bytes(MAX_ENTRY_SIZE + 1)]),
        lambda: decode_bundle(Tile(ENTRIES, 0, 1), b""),
        lambda: decode_bundle(Tile(ENTRIES, 0, 1), b"\x00"),
        lambda: decode_bundle(Tile(ENTRIES, 0, 1), b"\x00\x01"),
        lambda: decode_bundle(Tile(ENTRIES, 0, 1), b"\x00\x00\x00\x00"),
        lambda: decode_bundle(Tile(ENTRIES, 0, 1), b"\x00\x00\x00"),
    ],
)
def test_refused(call: Callable[[], object]) -> None:
    with pytest.raises(TileError):
        call()


def test_the_specification_s_example_of_70000_leaves() -> None:
    found = list(changed_tiles(0, 70_000))
    assert found[:273] == [Tile(0, index) for index in range(273)]
    assert found[273:] == [Tile(0, 273, 112), Tile(1, 0), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert list(changed_tiles(0, 256)) == [Tile(0, 0), Tile(1, 0, 1)]
    assert len(list(changed_bundles(0, 70_000))) == 274


def test_places_of_leaves() -> None:
    assert Tile(ENTRIES, 3, 7).first_leaf == Tile(0, 3).first_leaf == 768
    assert Tile(1, 2).first_leaf == 131_072


@given(st.integers(0, 200_000), st.integers(0, 200_000))
@example(256, 256)
@example(0, 65_536)
def test_changed_is_what_the_new_size_has_and_the_old_has_not(one: int, two: int) -> None:
    old, new = sorted((one, two))

    def expected(size: int) -> set[Tile]:
        """The specification's words: full tiles, then one partial of floor(s / 256**l) mod 256."""
        found = set()
        for level in range(4):
            full, rest = divmod(size // 256**level, 256)
            found |= {Tile(level, index) for index in range(full)}
            found |= {Tile(level, full, rest)} if rest else set()
        return found

    changed = list(changed_tiles(old, new))
    assert changed == sorted(expected(new) - expected(old))
    bundles = list(changed_bundles(old, new))
    assert bundles == [Tile(ENTRIES, tile.index, tile.width) for tile in changed if tile.level == 0]


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=256))
def test_bundles_hold_any_leaves(leaves: list[bytes]) -> None:
    data = encode_bundle(leaves)
    assert len(data) == sum(2 + len(leaf) for leaf in leaves)
    assert decode_bundle(Tile(ENTRIES, 0, len(leaves)), data) == leaves


def test_the_longest_leaf_fits() -> None:
    leaf = bytes(MAX_ENTRY_SIZE)
    assert encode_bundle([leaf])[:2] == b"\xff\xff"
    assert decode_bundle(Tile(ENTRIES, 0, 1), encode_bundle([leaf])) == [leaf]


def test_a_full_resource_stands_in_for_a_partial_one() -> None:
    leaves = [b"%d" % number for number in range(256)]
    assert decode_bundle(Tile(ENTRIES, 0, 3), encode_bundle(leaves)) == leaves[:3]
    hashes = [hash_of(number) for number in range(256)]
    assert decode_hashes(Tile(0, 0, 3), encode_hashes(hashes)) == hashes[:3]


@given(tiles, st.binary(max_size=400))
def test_only_tlog_errors_escape_from_contents(tile: Tile, data: bytes) -> None:
    for decode in (decode_bundle, decode_hashes):
        try:
            items = decode(tile, data)
        except TlogError:
            continue
        assert len(items) == tile.width


# The log in testdata/log of github.com/transparency-dev/tessera v1.0.4 (Apache-2.0), written by Tessera.
TESSERA_BUNDLE = bytes.fromhex(
    "00036f6e65000374776f000574687265650004666f757200046669766500037369780005736576656e000365697400046e61696e000374656e"
    "0006696c6576656e00057477656c660008746872656574656e0007666f757274656e000666697674656e"
)
TESSERA_ROOTS = {
    1: "0Nc2CrefWKseHj/mStd+LqC8B+NrX0btIiPt2SmN+ek=",
    5: "gy5gl3aksFyiCO95a/1vLXz88A3dRq+0l9Sxte8ZqZQ=",
    15: "rKbDipCvhuX1GZ7g5BBe8sA6BbJ7ja/1nk427v383cs=",
}


def test_a_bundle_written_by_tessera() -> None:
    leaves = decode_bundle(Tile(ENTRIES, 0, 15), TESSERA_BUNDLE)
    assert leaves[:3] == [b"one", b"two", b"three"]
    assert encode_bundle(leaves) == TESSERA_BUNDLE
    for size, root in TESSERA_ROOTS.items():
        assert encode_base64(root_hash(map(leaf_hash, leaves[:size]))) == root


SIZES = [0, 1, 2, 255, 256, 257, 511, 512, 1000, 65_535, 65_536, 65_537, 70_000]


@pytest.fixture(scope="module")
def forest() -> dict[Tile, bytes]:
    """Every tile which a tree that stopped at each of `SIZES` has published."""
    builder = TileBuilder()
    stored: dict[Tile, bytes] = {}
    for old, size in zip([0, *SIZES], SIZES, strict=False):
        for number in range(old, size):
            builder.append(hash_of(number))
        taken = builder.take()
        assert set(taken) == set(changed_tiles(old, size))
        assert not set(taken) & set(stored)
        stored |= taken
    return stored


@pytest.mark.parametrize("size", SIZES)
def test_trees_are_read_back_from_tiles(forest: dict[Tile, bytes], size: int) -> None:
    expected = CompactRange()
    expected.extend(map(hash_of, range(size)))
    nodes = NodeReader(size, forest.__getitem__)
    assert root_from_nodes(size, nodes) == expected.root()
    loaded = TileBuilder.load(size, forest.__getitem__)
    assert (loaded.size, loaded.root(), loaded.take()) == (size, expected.root(), {})


@settings(max_examples=60)
@given(st.sampled_from(SIZES[1:]), st.data())
def test_proofs_from_tiles_verify(forest: dict[Tile, bytes], size: int, data: st.DataObject) -> None:
    nodes = NodeReader(size, forest.__getitem__)
    root = root_from_nodes(size, nodes)
    first = data.draw(st.integers(0, size - 1))
    count = data.draw(st.integers(1, min(size - first, 600)))
    old = data.draw(st.sampled_from([other for other in SIZES if other <= size]))
    verify_inclusion(hash_of(first), first, size, inclusion_proof(first, size, nodes), root)
    hashes = [hash_of(number) for number in range(first, first + count)]
    verify_range(hashes, first, size, range_proof(first, count, size, nodes), root)
    old_root = root_from_nodes(old, NodeReader(old, forest.__getitem__))
    verify_consistency(old, size, old_root, root, consistency_proof(old, size, nodes))


@settings(max_examples=30)
@given(st.integers(0, 1200), st.integers(0, 1200), st.booleans())
def test_growing_in_steps_writes_the_same_tiles(first: int, second: int, reload: bool) -> None:
    stored = store_of(first)
    builder = TileBuilder.load(first, stored.__getitem__) if reload else TileBuilder()
    if not reload:
        for number in range(first):
            builder.append(hash_of(number))
        assert builder.take() == stored
    for number in range(first, first + second):
        builder.append(hash_of(number))
    taken = builder.take()
    assert set(taken) == set(changed_tiles(first, first + second))
    assert builder.take() == {}
    whole = store_of(first + second)
    assert {tile: data for tile, data in (stored | taken).items() if tile in whole} == whole


def test_a_reader_reads_each_tile_once_and_takes_full_ones_for_partial_ones() -> None:
    stored = store_of(300)
    full = stored[Tile(0, 0)]
    reads: list[Tile] = []

    def read(tile: Tile) -> bytes:
        reads.append(tile)
        return full

    nodes = NodeReader(200, read)
    assert nodes(7, 0) == root_hash(map(hash_of, range(128)))
    assert nodes(0, 199) == hash_of(199)
    assert reads == [Tile(0, 0, 200)]


@pytest.mark.parametrize(("level", "index"), [(0, 200), (7, 1), (8, 0), (0, 256), (-1, 0), (0, -1), (600, 0)])
def test_a_reader_serves_only_perfect_subtrees(level: int, index: int) -> None:
    stored = store_of(200)
    with pytest.raises(TileError):
        NodeReader(200, stored.__getitem__)(level, index)
