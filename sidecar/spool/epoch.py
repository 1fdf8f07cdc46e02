"""A start of the producer: its id, and the key under which it seals openings."""

import os
from collections.abc import Callable
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from sidecar.record import (
    EPOCH_KEY_INFO,
    SALT_SIZE,
    RecordType,
    body_digest,
    digest_bytes,
    leaf_bytes,
    leaf_start,
    openings_aad,
)
from sidecar.spool.frame import NONCE_SIZE, Item
from sidecar.spool.slot import Draft

_POOL = 16 * 1024
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class RandomPool:
    """Random bytes, drawn from the system in large pieces: one call for many salts. Each byte is handed out once."""

    __slots__ = ("_at", "_bytes", "_source")

    def __init__(self, source: Callable[[int], bytes] = os.urandom) -> None:
        self._source = source
        self._bytes = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """`size` fresh bytes."""
        start = self._at
        end = start + size
        if end > len(self._bytes):
            self._bytes = self._source(max(_POOL, size))
            start, end = 0, size
        self._at = end
        return self._bytes[start:end]


def uuid7(time: datetime, random: bytes) -> str:
    """A UUID version 7 (RFC 9562 section 5.7): milliseconds since 1970, then 74 of the 80 random bits."""
    value = (int(time.timestamp() * 1000) & (1 << 48) - 1) << 80 | int.from_bytes(random, "big")
    value = value & ~(0xF << 76) | 7 << 76
    digits = f"{value & ~(3 << 62) | 2 << 62:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class Epoch:
    """One start. The key lives in this object only; on disk and on the wire it is sealed to the store (RFC 9180)."""

    __slots__ = ("_aad", "_cipher", "_random", "_starts", "id", "producer", "sealed_key", "slot")

    def __init__(self, *, producer: str, slot: int, time: datetime, store_key: bytes, random: RandomPool) -> None:
        """`store_key`: the store's sealing key, X25519, 32 raw bytes, pinned in the configuration."""
        self.producer = producer
        self.slot = slot
        self.id = uuid7(time, random.take(10))
        key = random.take(32)
        self.sealed_key: bytes = _SUITE.encrypt(key, X25519PublicKey.from_public_bytes(store_key), EPOCH_KEY_INFO)
        self._cipher = AESGCM(key)
        self._random = random
        self._starts: dict[RecordType, bytes] = {}
        # Everything of the associated data but the seq and its length, the same for all records of the epoch.
        self._aad = openings_aad(producer, slot, self.id, 0)[:-5]

    def item(self, draft: Draft, seq: int, prev: bytes | None) -> Item:
        """The record at this place of the chain; `prev` is the base64 hash of the leaf before. RecordFormatError."""
        kind, time, call_id, body, openings, _ = draft
        start = self._starts.get(kind)
        if start is None:
            start = self._starts[kind] = leaf_start(kind, self.producer, self.slot, self.id)
        salt = self._random.take(SALT_SIZE)
        leaf = leaf_bytes(start, seq, prev, time, call_id, digest_bytes(body_digest(salt, body)))
        if not openings:
            return Item(leaf, salt, body, b"", b"")
        nonce, sealed = self.seal(seq, openings)
        return Item(leaf, salt, body, nonce, sealed)

    def seal(self, seq: int, openings: bytes) -> tuple[bytes, bytes]:
        """(nonce, ciphertext) of a record's openings.

        The nonce is random, not the seq: a seq whose write failed is used again for another record.
        """
        nonce = self._random.take(NONCE_SIZE)
        text = b"%d" % seq
        return nonce, self._cipher.encrypt(nonce, openings, b"%b%b%b" % (self._aad, len(text).to_bytes(4, "big"), text))
