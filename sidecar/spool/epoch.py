"""A start of the producer: its id, and the key under which it seals openings."""

from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from sidecar._native import Framer, RandomPool
from sidecar.record import EPOCH_KEY_INFO

__all__ = ["Epoch", "RandomPool", "uuid7"]

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def uuid7(time: datetime, random: bytes) -> str:
    """A UUID version 7 (RFC 9562 section 5.7): milliseconds since 1970, then 74 of the 80 random bits."""
    value = (int(time.timestamp() * 1000) & (1 << 48) - 1) << 80 | int.from_bytes(random, "big")
    value = value & ~(0xF << 76) | 7 << 76
    digits = f"{value & ~(3 << 62) | 2 << 62:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class Epoch:
    """One start. The key lives in `framer` only; on disk and on the wire it is sealed to the store (RFC 9180).

    `framer` makes the records at a place of the chain: their frames one behind the other, and the SHA-256 of the last
    leaf. Each record gets a salt of its own, and openings a random nonce, not the seq: a seq whose write failed is used
    again for another record.
    """

    __slots__ = ("framer", "id", "producer", "sealed_key", "slot")

    def __init__(self, *, producer: str, slot: int, time: datetime, store_key: bytes, random: RandomPool) -> None:
        """`store_key`: the store's sealing key, X25519, 32 raw bytes, pinned in the configuration."""
        self.producer = producer
        self.slot = slot
        self.id = uuid7(time, random.take(10))
        key = random.take(32)
        self.sealed_key: bytes = _SUITE.encrypt(key, X25519PublicKey.from_public_bytes(store_key), EPOCH_KEY_INFO)
        self.framer = Framer(producer, slot, self.id, key, random)
