"""RFC 6962 hashes and proofs: published vectors, the RFC's own definitions as reference, and properties."""

from collections.abc import Callable, Sequence
from hashlib import sha256

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tlog_vectors import COMPACT, CONSISTENCY, INCLUSION, LEAVES, ROOTS

from sidecar.tlog.encoding import MAX_SIZE
from sidecar.tlog.errors import MerkleError, TlogError
from sidecar.tlog.merkle import (
    EMPTY_ROOT,
    CompactRange,
    Digest,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    range_proof,
    root_from_nodes,
    root_hash,
    verify_consistency,
    verify_inclusion,
    verify_range,
)


def reference_root(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, word for word."""
    if not leaves:
        return sha256().digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + reference_root(leaves[:k]) + reference_root(leaves[k:])).digest()


def reference_path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 6962 section 2.1.1, word for word."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*reference_path(m, leaves[:k]), reference_root(leaves[k:])]
    return [*reference_path(m - k, leaves[k:]), reference_root(leaves[:k])]


def reference_subproof(m: int, leaves: Sequence[bytes], complete: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962 section 2.1.2, word for word."""
    if m == len(leaves):
        return [] if complete else [reference_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return [*reference_subproof(m, leaves[:k], complete), reference_root(leaves[k:])]
    return [*reference_subproof(m - k, leaves[k:], False), reference_root(leaves[:k])]


def leaves_of(size: int) -> list[bytes]:
    return [b"leaf %d" % number for number in range(size)]


def getter(leaves: Sequence[bytes]) -> Callable[[int, int], bytes]:
    def get_node(level: int, index: int) -> bytes:
        covered = leaves[index << level : (index + 1) << level]
        assert len(covered) == 1 << level, "only perfect subtrees inside the tree may be asked for"
        return reference_root(covered)

    return get_node


@st.composite
def ranges(draw: st.DrawFn, most: int = 70) -> tuple[int, int, int]:
    """(first, count, size) of a range of leaves inside a tree."""
    size = draw(st.integers(1, most))
    first = draw(st.integers(0, size - 1))
    return first, draw(st.integers(1, size - first)), size


@st.composite
def growths(draw: st.DrawFn, least: int = 0, most: int = 70) -> tuple[int, int]:
    """(old, new) sizes of a tree that grew, or stayed as it was."""
    new = draw(st.integers(least, most))
    return draw(st.integers(least, new)), new


def flipped(data: bytes, bit: int) -> bytes:
    at, mask = divmod(bit % (len(data) * 8), 8)
    return data[:at] + bytes([data[at] ^ 1 << mask]) + data[at + 1 :]


def test_published_roots() -> None:
    tree = CompactRange()
    assert ROOTS[0] == EMPTY_ROOT == tree.root()
    for size, leaf in enumerate(LEAVES, start=1):
        tree.append(leaf_hash(leaf))
        assert (tree.size, tree.root()) == (size, ROOTS[size])
        assert root_hash(leaf_hash(item) for item in LEAVES[:size]) == ROOTS[size]
    assert node_hash(leaf_hash(LEAVES[0]), leaf_hash(LEAVES[1])) == ROOTS[2]


@pytest.mark.parametrize(("size", "nodes"), COMPACT.items())
def test_published_compact_ranges(size: int, nodes: list[str]) -> None:
    tree = CompactRange()
    tree.extend(leaf_hash(leaf) for leaf in LEAVES[:size])
    assert [node.hex() for node in tree.nodes] == nodes


@pytest.mark.parametrize(("index", "size", "hashes"), INCLUSION)
def test_published_inclusion_proofs(index: int, size: int, hashes: list[str]) -> None:
    assert [item.hex() for item in inclusion_proof(index, size, getter(LEAVES))] == hashes
    verify_inclusion(leaf_hash(LEAVES[index]), index, size, [bytes.fromhex(item) for item in hashes], ROOTS[size])


@pytest.mark.parametrize(("old", "new", "hashes"), CONSISTENCY)
def test_published_consistency_proofs(old: int, new: int, hashes: list[str]) -> None:
    assert [item.hex() for item in consistency_proof(old, new, getter(LEAVES))] == hashes
    verify_consistency(old, new, ROOTS[old], ROOTS[new], [bytes.fromhex(item) for item in hashes])


def test_every_proof_of_small_trees_is_the_rfc_s() -> None:
    leaves = leaves_of(20)
    for size in range(21):
        root = reference_root(leaves[:size])
        assert root_from_nodes(size, getter(leaves)) == root
        for index in range(size):
            proof = inclusion_proof(index, size, getter(leaves))
            assert proof == reference_path(index, leaves[:size])
            verify_inclusion(leaf_hash(leaves[index]), index, size, proof, root)
            assert sorted(range_proof(index, 1, size, getter(leaves))) == sorted(proof)
        for old in range(1, size + 1):
            proof = consistency_proof(old, size, getter(leaves))
            assert proof == reference_subproof(old, leaves[:size], complete=True)
            verify_consistency(old, size, reference_root(leaves[:old]), root, proof)


def test_every_range_of_small_trees_proves() -> None:
    leaves = leaves_of(17)
    hashes = [leaf_hash(leaf) for leaf in leaves]
    for size in range(1, 18):
        root = reference_root(leaves[:size])
        for first in range(size):
            for count in range(1, size - first + 1):
                proof = range_proof(first, count, size, getter(leaves))
                assert len(proof) <= 2 * size.bit_length()
                verify_range(hashes[first : first + count], first, size, proof, root)
        assert range_proof(0, size, size, getter(leaves)) == []


@given(st.integers(0, 600))
def test_compact_range_is_the_rfc_s_root(size: int) -> None:
    leaves = leaves_of(size)
    tree = CompactRange()
    tree.extend(map(leaf_hash, leaves))
    assert tree.root() == reference_root(leaves)
    assert len(tree.nodes) == size.bit_count()
    copy = CompactRange.from_bytes(tree.to_bytes())
    assert (copy.size, copy.nodes) == (size, tree.nodes) == (size, CompactRange.from_nodes(size, getter(leaves)).nodes)
    tree.append(leaf_hash(b"next"))
    assert copy.root() == reference_root(leaves)
    assert tree.root() == reference_root([*leaves, b"next"])


@given(st.integers(0, 100))
def test_append_visits_every_subtree_it_completes(size: int) -> None:
    leaves = leaves_of(size + 1)
    tree = CompactRange()
    tree.extend(map(leaf_hash, leaves[:size]))
    seen: list[tuple[int, Digest]] = []
    tree.append(leaf_hash(leaves[size]), lambda level, digest: seen.append((level, digest)))
    levels = [level for level in range(8) if (size + 1) % (1 << level) == 0]
    assert seen == [(level, reference_root(leaves[size + 1 - (1 << level) : size + 1])) for level in levels]


@given(ranges())
def test_inclusion_proofs_verify(case: tuple[int, int, int]) -> None:
    index, _, size = case
    leaves = leaves_of(size)
    proof = inclusion_proof(index, size, getter(leaves))
    verify_inclusion(leaf_hash(leaves[index]), index, size, proof, reference_root(leaves))


@given(ranges(), st.data())
def test_inclusion_proofs_bind_everything(case: tuple[int, int, int], data: st.DataObject) -> None:
    index, _, size = case
    leaves = leaves_of(size)
    root, leaf = reference_root(leaves), leaf_hash(leaves[index])
    proof: list[bytes] = [*inclusion_proof(index, size, getter(leaves))]
    bit = data.draw(st.integers(0, 255))
    wrong_index = data.draw(st.integers(-1, size + 1).filter(lambda other: other != index))
    wrong: list[tuple[bytes, int, list[bytes], bytes]] = [
        (flipped(leaf, bit), index, proof, root),
        (leaf, index, proof, flipped(root, bit)),
        (leaf, wrong_index, proof, root),
        (leaf, index, [*proof, root], root),
        (leaf[:-1], index, proof, root),
        (leaf, index, proof, root + b"\0"),
    ]
    for at, item in enumerate(proof):
        wrong += [
            (leaf, index, [*proof[:at], flipped(item, bit), *proof[at + 1 :]], root),
            (leaf, index, [*proof[:at], *proof[at + 1 :]], root),
            (leaf, index, [*proof[:at], item[:31], *proof[at + 1 :]], root),
        ]
    for bad_leaf, bad_index, bad_proof, bad_root in wrong:
        with pytest.raises(MerkleError):
            verify_inclusion(bad_leaf, bad_index, size, bad_proof, bad_root)


@given(growths())
def test_consistency_proofs_verify(case: tuple[int, int]) -> None:
    old, new = case
    leaves = leaves_of(new)
    proof = consistency_proof(old, new, getter(leaves))
    verify_consistency(old, new, reference_root(leaves[:old]), reference_root(leaves), proof)


@given(growths(), st.integers(0, 255))
def test_consistency_proofs_bind_everything(case: tuple[int, int], bit: int) -> None:
    old, new = case
    leaves = leaves_of(new)
    was, now = reference_root(leaves[:old]), reference_root(leaves)
    proof: list[bytes] = [*consistency_proof(old, new, getter(leaves))]
    wrong = [(flipped(was, bit), now, proof), (was, now, [*proof, now]), (was[1:], now, proof), (was, b"", proof)]
    if old:
        wrong.append((was, flipped(now, bit), proof))
    for at, item in enumerate(proof):
        wrong += [
            (was, now, [*proof[:at], flipped(item, bit), *proof[at + 1 :]]),
            (was, now, [*proof[:at], *proof[at + 1 :]]),
        ]
    for bad_was, bad_now, bad_proof in wrong:
        with pytest.raises(MerkleError):
            verify_consistency(old, new, bad_was, bad_now, bad_proof)


@given(growths(least=1), st.integers(0, 60))
def test_a_tree_that_changed_a_leaf_is_not_consistent(case: tuple[int, int], any_place: int) -> None:
    old, new = case
    place = any_place % old
    leaves = leaves_of(new)
    forged = [*leaves[:place], b"forged", *leaves[place + 1 :]]
    for source in (leaves, forged):
        with pytest.raises(MerkleError):
            verify_consistency(
                old,
                new,
                reference_root(leaves[:old]),
                reference_root(forged),
                consistency_proof(old, new, getter(source)),
            )


@given(growths(least=1, most=40), st.integers(1, 9), st.data())
def test_consistency_proofs_bind_the_sizes(case: tuple[int, int], more: int, data: st.DataObject) -> None:
    old, new = case[0], case[1] + more
    leaves = leaves_of(new)
    proof = consistency_proof(old, new, getter(leaves))
    other = data.draw(st.integers(-1, new + 1).filter(lambda size: size != old))
    with pytest.raises(MerkleError):
        verify_consistency(other, new, reference_root(leaves[:old]), reference_root(leaves), proof)


@given(ranges(most=300))
def test_range_proofs_verify(case: tuple[int, int, int]) -> None:
    first, count, size = case
    leaves = leaves_of(size)
    proof = range_proof(first, count, size, getter(leaves))
    hashes = [leaf_hash(leaf) for leaf in leaves[first : first + count]]
    verify_range(hashes, first, size, proof, reference_root(leaves))
    assert len(proof) <= 2 * size.bit_length()


@given(ranges(most=50), st.data())
def test_range_proofs_bind_everything(case: tuple[int, int, int], data: st.DataObject) -> None:
    first, count, size = case
    leaves = leaves_of(size)
    root = reference_root(leaves)
    hashes: list[bytes] = [leaf_hash(leaf) for leaf in leaves[first : first + count]]
    proof: list[bytes] = [*range_proof(first, count, size, getter(leaves))]
    bit = data.draw(st.integers(0, 255))
    elsewhere = data.draw(st.integers(-1, size + 1).filter(lambda other: other != first))
    wrong: list[tuple[list[bytes], int, list[bytes], bytes]] = [
        (hashes, first, proof, flipped(root, bit)),
        (hashes, first, [*proof, root], root),
        (hashes, first, [root, *proof], root),
        (hashes, elsewhere, proof, root),
        (hashes[:-1], first, proof, root),
        (hashes[1:], first, proof, root),
        (hashes[1:], first + 1, proof, root),
        ([*hashes, hashes[-1]], first, proof, root),
        (hashes, first, proof, root[:31]),
    ]
    for at, item in enumerate(hashes):
        wrong.append(([*hashes[:at], flipped(item, bit), *hashes[at + 1 :]], first, proof, root))
    for at, item in enumerate(proof):
        wrong += [
            (hashes, first, [*proof[:at], flipped(item, bit), *proof[at + 1 :]], root),
            (hashes, first, [*proof[:at], *proof[at + 1 :]], root),
            (hashes, first, [*proof[:at], item + b"\0", *proof[at + 1 :]], root),
        ]
    for bad_hashes, bad_first, bad_proof, bad_root in wrong:
        with pytest.raises(MerkleError):
            verify_range(bad_hashes, bad_first, size, bad_proof, bad_root)


@given(ranges(most=50), st.integers(-1, 120))
def test_range_proofs_bind_the_shape(case: tuple[int, int, int], other: int) -> None:
    """Another size is refused, unless both trees cut the range alike: then the root decides, and it is of one tree."""
    first, count, size = case
    leaves = leaves_of(120)
    assume(other != size)
    proof = range_proof(first, count, size, getter(leaves))
    hashes = [leaf_hash(leaf) for leaf in leaves[first : first + count]]
    with pytest.raises(MerkleError):
        verify_range(hashes, first, other, proof, reference_root(leaves[: max(other, 0)]))


def test_a_node_cannot_pose_as_a_leaf() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)


@pytest.mark.parametrize(
    "call",
    [
        lambda: CompactRange(-1),
        lambda: CompactRange(MAX_SIZE + 1),
        lambda: CompactRange(3, [EMPTY_ROOT]),
        lambda: CompactRange(1, [b"short"]),
        lambda: CompactRange().append(b"short"),
        lambda: CompactRange.from_bytes(b""),
        lambda: CompactRange.from_bytes(bytes(7)),
        lambda: CompactRange.from_bytes(bytes(8) + bytes(32)),
        lambda: CompactRange.from_bytes(b"\xff" * 8 + bytes(32 * 64)),
        lambda: inclusion_proof(1, 1, getter([])),
        lambda: inclusion_proof(-1, 1, getter([])),
        lambda: inclusion_proof(0, 0, getter([])),
        lambda: consistency_proof(2, 1, getter([])),
        lambda: consistency_proof(-1, 1, getter([])),
        lambda: range_proof(0, 0, 1, getter([])),
        lambda: range_proof(0, 2, 1, getter([])),
        lambda: verify_range([], 0, 1, [], EMPTY_ROOT),
        lambda: verify_consistency(2, 1, EMPTY_ROOT, EMPTY_ROOT, []),
        lambda: verify_consistency(3, 5, EMPTY_ROOT, EMPTY_ROOT, []),
        lambda: verify_consistency(0, 5, ROOTS[1], ROOTS[5], []),
        lambda: verify_consistency(0, 5, EMPTY_ROOT, ROOTS[5], [ROOTS[1]]),
        lambda: verify_consistency(5, 5, ROOTS[5], ROOTS[4], []),
        lambda: verify_inclusion(ROOTS[1], 0, MAX_SIZE + 1, [], ROOTS[1]),
    ],
)
def test_refused(call: Callable[[], object]) -> None:
    with pytest.raises(MerkleError):
        call()


def test_sizes_up_to_the_limit_terminate() -> None:
    path = [EMPTY_ROOT] * 63
    for index in (0, MAX_SIZE // 2, MAX_SIZE - 1):
        with pytest.raises(MerkleError, match="leads to|too|empty"):
            verify_inclusion(EMPTY_ROOT, index, MAX_SIZE, path, EMPTY_ROOT)
        with pytest.raises(MerkleError, match="leads to|too|empty"):
            verify_consistency(index + 1, MAX_SIZE, EMPTY_ROOT, ROOTS[1], path)
        with pytest.raises(MerkleError, match="leads to|too|empty"):
            verify_range([EMPTY_ROOT], index, MAX_SIZE, path, EMPTY_ROOT)


hashes_or_not = st.lists(st.binary(min_size=32, max_size=32) | st.binary(max_size=40), max_size=5)


@given(st.integers(-5, 2**64), st.integers(-5, 2**64), hashes_or_not, hashes_or_not, st.binary(max_size=600))
def test_only_tlog_errors_escape(one: int, two: int, proof: list[bytes], leaves: list[bytes], data: bytes) -> None:
    calls: list[Callable[[], object]] = [
        lambda: verify_inclusion(EMPTY_ROOT, one, two, proof, EMPTY_ROOT),
        lambda: verify_consistency(one, two, EMPTY_ROOT, EMPTY_ROOT, proof),
        lambda: verify_range(leaves, one, two, proof, EMPTY_ROOT),
        lambda: CompactRange.from_bytes(data),
    ]
    for call in calls:
        try:
            call()
        except TlogError:
            pass
