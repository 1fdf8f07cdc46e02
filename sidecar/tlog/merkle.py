"""Merkle tree hashes and proofs (RFC 6962 section 2.1; verification as in RFC 9162 sections 2.1.3 to 2.1.5).

Sizes count leaves and indexes count from 0; both stay below 2^63. Every hash is a SHA-256 of 32 bytes.

Whoever makes a proof supplies the stored tree as a `NodeGetter`: ``get_node(level, index)`` is the hash of the perfect
subtree over the leaves ``[index * 2**level, (index + 1) * 2**level)``. It is only asked for subtrees that lie wholly
inside the tree; it need not be honest, because the proof is verified against a root.

Whoever verifies needs nothing but the proof and a root that is trusted (see ``checkpoint`` and ``trust``).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import NewType, Self

from sidecar.tlog.encoding import MAX_SIZE
from sidecar.tlog.errors import MerkleError

Digest = NewType("Digest", bytes)
"""A SHA-256 hash: 32 bytes."""

NodeGetter = Callable[[int, int], bytes]
"""``get_node(level, index)``: hash of the perfect subtree over ``[index << level, (index + 1) << level)``."""

HASH_SIZE = 32
EMPTY_ROOT = Digest(sha256(b"").digest())
"""Root of the tree without leaves."""


def leaf_hash(leaf: bytes) -> Digest:
    """Return SHA-256(0x00 || leaf). The prefix keeps a leaf from posing as a node (RFC 6962 section 2.1)."""
    return Digest(sha256(b"\x00" + leaf).digest())


def node_hash(left: bytes, right: bytes) -> Digest:
    """Return SHA-256(0x01 || left || right)."""
    return Digest(sha256(b"\x01" + left + right).digest())


def root_hash(leaf_hashes: Iterable[bytes]) -> Digest:
    """Return the root of the tree over these leaf hashes; `EMPTY_ROOT` for none."""
    tree = CompactRange()
    tree.extend(leaf_hashes)
    return tree.root()


class CompactRange:
    """The least that must be remembered of a tree in order to append to it and to know its root.

    * ``nodes`` are the roots of the perfect subtrees that make up the leaves, largest (leftmost) first: one per bit
      that is set in ``size``, hence at most 63.
    * Appending costs one hash on average, the root as many hashes as there are nodes.
    * Not safe for use from several threads at once.
    """

    __slots__ = ("_nodes", "_size")

    def __init__(self, size: int = 0, nodes: Sequence[bytes] = ()) -> None:
        """Continue a tree of ``size`` leaves. Raise `MerkleError` unless the number of nodes fits the size."""
        _check_size(size)
        _check_hashes(nodes, "compact range")
        if len(nodes) != size.bit_count():
            raise MerkleError(f"compact range of size {size} has {size.bit_count()} nodes, not {len(nodes)}")
        self._size = size
        self._nodes = [Digest(node) for node in nodes]

    @classmethod
    def from_nodes(cls, size: int, get_node: NodeGetter) -> Self:
        """Read the compact range of the stored tree of ``size`` leaves."""
        _check_size(size)
        return cls(size, [get_node(level, index) for level, index in _cover(0, size)])

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote; raise `MerkleError` for anything else."""
        if len(data) % HASH_SIZE != 8:
            raise MerkleError(f"compact range of {len(data)} bytes is not 8 bytes of size and hashes of {HASH_SIZE}")
        nodes = [data[at : at + HASH_SIZE] for at in range(8, len(data), HASH_SIZE)]
        return cls(int.from_bytes(data[:8], "big"), nodes)

    def to_bytes(self) -> bytes:
        """Return the size as 8 big-endian bytes followed by the nodes."""
        return self._size.to_bytes(8, "big") + b"".join(self._nodes)

    @property
    def size(self) -> int:
        """How many leaves were appended."""
        return self._size

    @property
    def nodes(self) -> tuple[Digest, ...]:
        """Roots of the perfect subtrees, largest first."""
        return tuple(self._nodes)

    def append(self, leaf: bytes, visit: Callable[[int, Digest], None] | None = None) -> None:
        """Append one leaf hash.

        ``visit(level, hash)`` is called for the leaf hash (level 0) and then for each perfect subtree which this leaf
        completes, from the bottom up.
        """
        if len(leaf) != HASH_SIZE:
            raise MerkleError(f"leaf hash {self._size} has {len(leaf)} bytes, not {HASH_SIZE}")
        digest = Digest(leaf)
        nodes = self._nodes
        if visit is not None:
            visit(0, digest)
        remaining, level = self._size, 0
        while remaining & 1:
            digest = Digest(sha256(b"\x01" + nodes.pop() + digest).digest())
            remaining, level = remaining >> 1, level + 1
            if visit is not None:
                visit(level, digest)
        nodes.append(digest)
        self._size += 1

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        """Append leaf hashes in order."""
        for leaf in leaf_hashes:
            self.append(leaf)

    def root(self) -> Digest:
        """Return the root of the tree of the leaves so far."""
        return _fold(self._nodes) if self._nodes else EMPTY_ROOT


def root_from_nodes(size: int, get_node: NodeGetter) -> Digest:
    """Return the root of the stored tree of ``size`` leaves."""
    return CompactRange.from_nodes(size, get_node).root()


def inclusion_proof(index: int, size: int, get_node: NodeGetter) -> list[Digest]:
    """Return the proof that leaf ``index`` is in the tree of ``size``: siblings from the leaf upward (PATH, 2.1.1)."""
    _check_range(index, 1, size)
    path: list[Digest] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_subtree(middle, high, get_node))
            high = middle
        else:
            path.append(_subtree(low, middle, get_node))
            low = middle
    path.reverse()
    return path


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Verify that the leaf hash ``leaf`` is at ``index`` in the tree of ``size`` with ``root`` (RFC 9162, 2.1.3.2).

    Raises `MerkleError` otherwise.
    """
    _check_range(index, 1, size)
    _check_hashes((leaf, root, *proof), "inclusion proof")
    place, last, result = index, size - 1, Digest(leaf)
    for sibling in proof:
        if last == 0:
            raise MerkleError(f"inclusion proof of leaf {index} in size {size} has too many hashes ({len(proof)})")
        if place & 1 or place == last:
            result = node_hash(sibling, result)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        place, last = place >> 1, last >> 1
    if last != 0:
        raise MerkleError(f"inclusion proof of leaf {index} in size {size} has too few hashes ({len(proof)})")
    _check_root(result, root, f"inclusion proof of leaf {index} in size {size}")


def consistency_proof(old: int, new: int, get_node: NodeGetter) -> list[Digest]:
    """Return the proof that the tree of size ``old`` is a prefix of the tree of size ``new`` (PROOF, 2.1.2).

    Empty when ``old`` is 0 or equal to ``new``: there is nothing to prove.
    """
    _check_growth(old, new)
    path: list[Digest] = []
    low, high = 0, new if old else 0
    while high != old:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(_subtree(middle, high, get_node))
            high = middle
        else:
            path.append(_subtree(low, middle, get_node))
            low = middle
    if low:
        path.append(_subtree(low, high, get_node))
    path.reverse()
    return path


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Verify that the tree (``new``, ``new_root``) only appended to the tree (``old``, ``old_root``).

    RFC 9162, 2.1.4.2, and the two cases which it leaves out: equal sizes need equal roots, and size 0 needs
    `EMPTY_ROOT`; both need an empty proof. Raises `MerkleError` otherwise.
    """
    _check_growth(old, new)
    _check_hashes((old_root, new_root, *proof), "consistency proof")
    where = f"consistency proof from size {old} to {new}"
    if old in (0, new):
        if proof:
            raise MerkleError(f"{where} must be empty, has {len(proof)} hashes")
        _check_root(EMPTY_ROOT if old == 0 else Digest(new_root), old_root, where)
        return
    path = [*proof] if old & (old - 1) else [old_root, *proof]
    if not path:
        raise MerkleError(f"{where} has no hashes")
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    was = now = Digest(path[0])
    for sibling in path[1:]:
        if last == 0:
            raise MerkleError(f"{where} has too many hashes ({len(proof)})")
        if place & 1 or place == last:
            was, now = node_hash(sibling, was), node_hash(sibling, now)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            now = node_hash(now, sibling)
        place, last = place >> 1, last >> 1
    if last != 0:
        raise MerkleError(f"{where} has too few hashes ({len(proof)})")
    _check_root(was, old_root, f"{where}, old root")
    _check_root(now, new_root, f"{where}, new root")


def range_proof(first: int, count: int, size: int, get_node: NodeGetter) -> list[Digest]:
    """Return the proof that the leaves ``[first, first + count)`` are in the tree of ``size``.

    The tree is cut as RFC 6962 cuts it. The proof holds, from left to right, the hash of each largest subtree without a
    leaf of the range; the verifier computes the others. For one leaf these are the hashes of its inclusion proof. There
    are at most 2 * log2(size) of them, however many leaves the range has.
    """
    _check_range(first, count, size)
    end = first + count
    proof: list[Digest] = []
    pending = [(0, size)]
    while pending:
        low, high = pending.pop()
        if high <= first or end <= low:
            proof.append(_subtree(low, high, get_node))
        elif low < first or end < high:
            middle = low + _split(high - low)
            pending += (middle, high), (low, middle)
    return proof


def verify_range(leaf_hashes: Sequence[bytes], first: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Verify that ``leaf_hashes`` are the leaves from ``first`` on in the tree of ``size`` with ``root``.

    Sound because first, count and size alone fix the shape of the tree and the place of each hash in it: what is left
    to choose enters the root through SHA-256. Raises `MerkleError` for anything else, also for an empty range.
    """
    count = len(leaf_hashes)
    _check_range(first, count, size)
    _check_hashes((root, *leaf_hashes, *proof), "range proof")
    where = f"range proof of {count} leaves from {first} in size {size}"
    supplied = iter(proof)

    def compute(low: int, high: int) -> Digest:
        if high <= first or first + count <= low:
            digest = next(supplied, None)
            if digest is None:
                raise MerkleError(f"{where} has too few hashes ({len(proof)})")
            return Digest(digest)
        if first <= low and high <= first + count:
            return root_hash(leaf_hashes[low - first : high - first])
        middle = low + _split(high - low)
        return node_hash(compute(low, middle), compute(middle, high))

    result = compute(0, size)
    if next(supplied, None) is not None:
        raise MerkleError(f"{where} has too many hashes ({len(proof)})")
    _check_root(result, root, where)


def _split(size: int) -> int:
    """Return the largest power of two below ``size`` (RFC 6962 section 2.1)."""
    return 1 << ((size - 1).bit_length() - 1)


def _cover(low: int, high: int) -> Iterator[tuple[int, int]]:
    """Yield (level, index) of the perfect subtrees of a subtree that RFC 6962 cuts, from left to right.

    In such a subtree ``low`` is a multiple of every power of two up to ``high - low``, so the bits of its size from the
    highest down are its perfect subtrees.
    """
    while low < high:
        level = (high - low).bit_length() - 1
        yield level, low >> level
        low += 1 << level


def _subtree(low: int, high: int, get_node: NodeGetter) -> Digest:
    return _fold([Digest(get_node(level, index)) for level, index in _cover(low, high)])


def _fold(nodes: Sequence[Digest]) -> Digest:
    """Join perfect subtrees, largest first, into one hash: the smallest are joined first."""
    result = nodes[-1]
    for node in reversed(nodes[:-1]):
        result = node_hash(node, result)
    return result


def _check_size(size: int) -> None:
    if not 0 <= size <= MAX_SIZE:
        raise MerkleError(f"tree size {size} is not from 0 to 2^63-1")


def _check_range(first: int, count: int, size: int) -> None:
    _check_size(size)
    if first < 0 or count < 1 or first + count > size:
        raise MerkleError(f"no {count} leaves from index {first} in a tree of size {size}")


def _check_growth(old: int, new: int) -> None:
    _check_size(new)
    if not 0 <= old <= new:
        raise MerkleError(f"no growth from size {old} to size {new}")


def _check_hashes(hashes: Sequence[bytes], what: str) -> None:
    for item in hashes:
        if len(item) != HASH_SIZE:
            raise MerkleError(f"{what} has a hash of {len(item)} bytes, not {HASH_SIZE}")


def _check_root(computed: Digest, root: bytes, where: str) -> None:
    if computed != root:
        raise MerkleError(f"{where} leads to {computed.hex()}, not to {root.hex()}")
