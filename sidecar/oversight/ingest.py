"""Checks a batch before anything is stored: numbered steps, no input or output, no clock.

A batch passes only if the registered key signed its header, the header's root is the root of its leaves, every leaf is
byte-strict and agrees with the header, every body is what its leaf commits to, and each leaf names the one before it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sidecar.oversight.storage import Item, Link
from sidecar.record import (
    MAX_BATCH,
    MAX_BODY,
    SALT_SIZE,
    EventBody,
    Leaf,
    RecordFormatError,
    batch_message,
    decode_digest,
    leaf_digest,
    parse_leaf,
)
from sidecar.tlog.merkle import leaf_hash, root_hash

Refusal = Literal["unknown_producer", "bad_signature", "bad_batch", "bad_leaf", "equivocation", "unavailable"]
NONCE_SIZE = 12
MAX_SEALED = 128 * 1024
"""Sealed openings of `record.MAX_SUBJECTS` subjects are about 58 kB."""
_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)
_event = msgspec.json.Decoder(EventBody)


class RefusedError(Exception):
    """The batch is not accepted; nothing of it is stored. `retry`: whether sending it again later can help."""

    def __init__(self, code: Refusal, message: str, *, retry: bool = False) -> None:
        super().__init__(message)
        self.code: Refusal = code
        self.message = message
        self.retry = retry


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A batch's header, read from the bytes that were signed (`raw`)."""

    raw: bytes
    producer: str
    slot: int
    epoch: str
    first_seq: int
    count: int
    root: bytes
    clock: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedBatch:
    """A batch that passed, with what the sequencer needs of its leaves. The tuples run parallel to `items`.

    `prevs` and `digests` are raw SHA-256 (chain), `hashes` are Merkle leaf hashes.
    """

    header: Header
    signature: bytes
    items: tuple[Item, ...]
    prevs: tuple[bytes | None, ...]
    digests: tuple[bytes, ...]
    hashes: tuple[bytes, ...]
    types: tuple[str, ...]
    link: Link | None


def check_epoch(epoch: str) -> None:
    """Raise RefusedError unless it is a UUIDv7 in its text form."""
    if _UUID7.fullmatch(epoch) is None:
        raise RefusedError("bad_batch", f"epoch {epoch[:40]!r} is not a UUIDv7 in lower-case text")


def check_batch(header: Header, signature: bytes, items: Sequence[Item], key: Ed25519PublicKey) -> CheckedBatch:
    """Return the batch if it is what the holder of `key` signed and is well-formed; raise RefusedError otherwise.

    1. The signature is the key's over the header.
    2. The header names an epoch and a count from 1 to `MAX_BATCH` that fits the items.
    3. Every leaf is exactly a leaf of version 1, at its place: producer, slot, epoch, seq.
    4. Every leaf but the first of an epoch names a predecessor; inside the batch it is the leaf before.
    5. Every body, with its salt, is what the leaf commits to, and no part is over its size.
    6. The header's root is the RFC 6962 root of the leaves.
    """
    try:
        key.verify(signature, batch_message(header.raw))
    except InvalidSignature:
        raise RefusedError("bad_signature", "the header's signature is not by the registered key") from None
    check_epoch(header.epoch)
    if not 1 <= header.count <= MAX_BATCH or header.count != len(items):
        raise RefusedError("bad_batch", f"count {header.count} with {len(items)} items; 1 to {MAX_BATCH} are allowed")
    leaves = [_check_item(header, place, item) for place, item in enumerate(items)]
    digests = tuple(leaf_digest(item.leaf) for item in items)
    prevs = tuple(None if leaf.prev is None else decode_digest(leaf.prev, "prev") for leaf in leaves)
    for place in range(1, len(leaves)):
        if prevs[place] != digests[place - 1]:
            raise RefusedError("bad_batch", f"leaf {leaves[place].seq} does not name the leaf before it in the batch")
    if prevs[0] is None and header.first_seq != 0:
        raise RefusedError("bad_leaf", f"leaf {header.first_seq} names no predecessor")
    hashes = tuple(leaf_hash(item.leaf) for item in items)
    if root_hash(hashes) != header.root:
        raise RefusedError("bad_batch", "the header's root is not the root of the leaves")
    return CheckedBatch(
        header=header, signature=signature, items=tuple(items), prevs=prevs, digests=digests, hashes=hashes,
        types=tuple(leaf.type for leaf in leaves), link=_link(leaves[0], items[0]),
    )  # fmt: skip


def _check_item(header: Header, place: int, item: Item) -> Leaf:
    seq = header.first_seq + place
    try:
        leaf = parse_leaf(item.leaf)
        committed = decode_digest(leaf.body, "body")
    except RecordFormatError as error:
        raise RefusedError("bad_leaf", f"leaf {seq}: {error}") from None
    if (leaf.producer, leaf.slot, leaf.epoch, leaf.seq) != (header.producer, header.slot, header.epoch, seq):
        raise RefusedError("bad_leaf", f"leaf {seq} is of another producer, slot, epoch or seq than its header")
    if len(item.salt) != SALT_SIZE or not 0 < len(item.body) <= MAX_BODY:
        raise RefusedError("bad_batch", f"record {seq}: a salt has {SALT_SIZE} bytes, a body 1 to {MAX_BODY}")
    if sha256(item.salt + item.body).digest() != committed:
        raise RefusedError("bad_leaf", f"record {seq}: the body is not the one that the leaf commits to")
    if bool(item.nonce) != bool(item.sealed) or len(item.nonce) not in (0, NONCE_SIZE) or len(item.sealed) > MAX_SEALED:
        raise RefusedError("bad_batch", f"record {seq}: sealed openings need a nonce of {NONCE_SIZE} bytes")
    return leaf


def _link(leaf: Leaf, item: Item) -> Link | None:
    """What an epoch's `open` says about the epoch before. Absent or unreadable says nothing: the tail stays unknown."""
    if leaf.seq != 0 or leaf.type != "open":
        return None
    try:
        details = _event.decode(item.body).details
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    epoch, seq = details.get("previous_epoch"), details.get("previous_seq")
    if isinstance(epoch, str) and isinstance(seq, int) and not isinstance(seq, bool) and seq >= 0:
        return Link(epoch=epoch, last_seq=seq)
    return None
