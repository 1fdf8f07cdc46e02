"""Witness cosignatures: "at this time, the largest tree I saw of this log was this one" (c2sp.org/tlog-cosignature).

Version 1, Ed25519: the signature of a note line is an 8-byte time and 64 bytes over ``cosignature/v1``, that time and the
whole checkpoint text. The time is the witness's claim, in seconds since 1970; comparing it with a clock is the caller's.
"""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sidecar.tlog.encoding import MAX_SIZE
from sidecar.tlog.errors import NoteError
from sidecar.tlog.key import COSIGNATURE_V1, VerifierKey, key_of_type, verify_ed25519
from sidecar.tlog.note import Signature, check_text

_TIME_SIZE = 8
_SIGNATURE_SIZE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosignature:
    """A cosignature that was verified: whose, and the time it states in seconds since 1970."""

    key: VerifierKey
    time: int

    @classmethod
    def of(cls, key: VerifierKey, signature: Signature) -> "Cosignature":
        """Describe a ``signature`` which ``key``'s `CosignatureVerifier` has verified."""
        return cls(key=key, time=cosignature_time(signature.signature))


def cosignature_time(signature: bytes) -> int:
    """Return the time that a cosignature (without its key id) states; raise `NoteError` if it is none."""
    if len(signature) != _TIME_SIZE + _SIGNATURE_SIZE:
        raise NoteError(f"cosignature has {len(signature)} bytes, not {_TIME_SIZE + _SIGNATURE_SIZE}")
    return _checked(int.from_bytes(signature[:_TIME_SIZE], "big"))


def cosigned_message(text: bytes, time: int) -> bytes:
    """Return the bytes that a witness signs for the checkpoint ``text`` at ``time``."""
    return f"cosignature/v1\ntime {_checked(time)}\n".encode() + text


class CosignatureVerifier:
    """Verifies cosignatures (type 0x04) of one witness key."""

    __slots__ = ("_public", "key")

    def __init__(self, vkey: str | VerifierKey) -> None:
        """Take a vkey; raise `NoteError` if it is malformed or of another type."""
        self.key = key_of_type(vkey, COSIGNATURE_V1)
        self._public = Ed25519PublicKey.from_public_bytes(self.key.public_key)

    def verify(self, text: bytes, signature: bytes) -> None:
        """Raise `NoteError` unless ``signature`` is a cosignature of the checkpoint ``text``."""
        message = cosigned_message(text, cosignature_time(signature))
        verify_ed25519(self._public, signature[_TIME_SIZE:], message, self.key)


class CosignatureSigner:
    """Makes cosignatures. What they state, that the tree continues every one seen before, is the witness's to check."""

    __slots__ = ("_private", "key")

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        self.key = VerifierKey(name, COSIGNATURE_V1, private_key.public_key().public_bytes_raw())
        self._private = private_key

    def cosign(self, text: bytes, time: int) -> Signature:
        """Return the cosignature of the checkpoint ``text`` at ``time``, in seconds since 1970."""
        check_text(text)
        signature = _checked(time).to_bytes(_TIME_SIZE, "big") + self._private.sign(cosigned_message(text, time))
        return Signature(name=self.key.name, key_id=self.key.key_id, signature=signature)


def _checked(time: int) -> int:
    if not 0 <= time <= MAX_SIZE:
        raise NoteError(f"cosignature time {time} is not from 0 to 2^63-1")
    return time
