"""Keys of signed notes: the public ``vkey`` text, signers and verifiers (c2sp.org/signed-note, Ed25519 only).

Key names follow the specification: not empty, no Unicode blank, no ``+``.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import NewType, Protocol, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sidecar.tlog.encoding import decode_base64, encode_base64
from sidecar.tlog.errors import NoteError

KeyId = NewType("KeyId", bytes)
"""The first four bytes of SHA-256(name || 0x0A || type || public key): tells keys apart, proves nothing."""

ED25519 = 0x01
"""Signature type: Ed25519 over the note's text."""
COSIGNATURE_V1 = 0x04
"""Signature type: timestamped Ed25519 witness cosignature (see ``cosignature``)."""

_KEY_SIZE = 32
_P = 2**255 - 19
_SMALL_ORDER = frozenset(
    {
        0,
        1,
        _P - 1,
        _P,
        _P + 1,
        int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
        int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
    }
)
"""The y coordinates of the curve's points of order 1, 2, 4 and 8, in every encoding of 255 bits (as libsodium lists them)."""
_MAX_VKEY = 1024
_SKEY_PREFIX = "PRIVATE+KEY+"


def check_name(name: str) -> None:
    """Raise `NoteError` unless ``name`` can be a key name."""
    if not name or "+" in name or any(char.isspace() or char < " " for char in name):
        raise NoteError(f"key name is empty or has a blank, a control character or '+': {name[:80]!r}")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise NoteError(f"key name is not UTF-8: {name[:80]!r}") from None


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with its name and signature type. ``str()`` gives the vkey, `parse` reads it."""

    name: str
    type: int
    public_key: bytes

    def __post_init__(self) -> None:
        """Raise `NoteError` for a name, type or key size that this package cannot verify."""
        check_name(self.name)
        if self.type not in (ED25519, COSIGNATURE_V1):
            raise NoteError(f"key {self.name!r} has signature type {self.type:#04x}; known are 0x01 and 0x04")
        if len(self.public_key) != _KEY_SIZE:
            raise NoteError(f"key {self.name!r} has {len(self.public_key)} bytes; an Ed25519 key has {_KEY_SIZE}")
        if int.from_bytes(self.public_key, "little") & (1 << 255) - 1 in _SMALL_ORDER:
            # Verification would accept signatures that anybody can make up, such as 64 zero bytes.
            raise NoteError(f"key {self.name!r} is a point of small order, which anybody can sign for")

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """Read ``name+hex8+base64(type || key)``; raise `NoteError` unless it is exactly that, key id included."""
        parts = vkey.split("+", 2)
        if len(parts) != 3 or len(vkey) > _MAX_VKEY:
            raise NoteError(f"not a verifier key (name+id+key): {vkey[:80]!r}")
        name, key_id, text = parts
        data = decode_base64(text, error=NoteError, what=f"verifier key {name[:80]!r}")
        if not data:
            raise NoteError(f"verifier key {name[:80]!r} is empty")
        key = cls(name, data[0], data[1:])
        if key.key_id.hex() != key_id:
            raise NoteError(f"verifier key {name[:80]!r} has id {key.key_id.hex()}, not {key_id[:80]!r}")
        return key

    @property
    def key_id(self) -> KeyId:
        """The id under which signatures of this key are found."""
        return KeyId(sha256(self.name.encode() + b"\n" + bytes([self.type]) + self.public_key).digest()[:4])

    def __str__(self) -> str:
        """Return the vkey."""
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([self.type]) + self.public_key)}"


class SignatureVerifier(Protocol):
    """What a note is opened with. A signature belongs to it if both name and key id are equal."""

    @property
    def key(self) -> VerifierKey:
        """The key whose signatures it verifies."""

    def verify(self, text: bytes, signature: bytes) -> None:
        """Raise `NoteError` unless ``signature`` (without its key id) is this key's over the note's ``text``."""


class Verifier:
    """Verifies Ed25519 note signatures (type 0x01) of one key."""

    __slots__ = ("_public", "key")

    def __init__(self, vkey: str | VerifierKey) -> None:
        """Take a vkey; raise `NoteError` if it is malformed or of another type."""
        self.key = key_of_type(vkey, ED25519)
        self._public = Ed25519PublicKey.from_public_bytes(self.key.public_key)

    def verify(self, text: bytes, signature: bytes) -> None:
        """Raise `NoteError` unless ``signature`` is 64 bytes signing ``text``."""
        verify_ed25519(self._public, signature, text, self.key)


class NoteSigner(Protocol):
    """What a note is signed with: a `Signer`, or a key that is kept elsewhere."""

    @property
    def key(self) -> VerifierKey:
        """The public half."""

    def sign(self, text: bytes) -> bytes:
        """Return the signature over the note's text, without the key id."""


class Signer:
    """Signs notes with an Ed25519 key (type 0x01). Making the key takes randomness and is the caller's part."""

    __slots__ = ("_private", "key")

    def __init__(self, name: str, private_key: Ed25519PrivateKey) -> None:
        self.key = VerifierKey(name, ED25519, private_key.public_key().public_bytes_raw())
        self._private = private_key

    @classmethod
    def from_skey(cls, skey: str) -> Self:
        """Read ``PRIVATE+KEY+name+hex8+base64(0x01 || seed)``, Go's text of a private key."""
        name, _, rest = skey.removeprefix(_SKEY_PREFIX).partition("+")
        key_id, plus, text = rest.partition("+")
        if not skey.startswith(_SKEY_PREFIX) or not plus:
            raise NoteError("not a signer key (PRIVATE+KEY+name+id+key)")
        try:
            data = decode_base64(text, error=NoteError, what="signer key")
        except NoteError:
            raise NoteError("signer key is not base64") from None
        if len(data) != 1 + _KEY_SIZE or data[0] != ED25519:
            raise NoteError("signer key is not an Ed25519 key (type 0x01 and 32 bytes)")
        signer = cls(name, Ed25519PrivateKey.from_private_bytes(data[1:]))
        if signer.key.key_id.hex() != key_id:
            raise NoteError("signer key does not have the id it states")
        return signer

    def skey(self) -> str:
        """Return Go's text of the private key. It is the secret itself."""
        data = bytes([ED25519]) + self._private.private_bytes_raw()
        return f"{_SKEY_PREFIX}{self.key.name}+{self.key.key_id.hex()}+{encode_base64(data)}"

    def sign(self, text: bytes) -> bytes:
        """Return the 64 bytes of the signature over ``text``."""
        return self._private.sign(text)


def key_of_type(vkey: str | VerifierKey, expected: int) -> VerifierKey:
    """Return the key, parsed if it is text; raise `NoteError` if its signature type is not ``expected``."""
    key = VerifierKey.parse(vkey) if isinstance(vkey, str) else vkey
    if key.type != expected:
        raise NoteError(f"key {key.name!r} has signature type {key.type:#04x}, not {expected:#04x}")
    return key


def verify_ed25519(public: Ed25519PublicKey, signature: bytes, message: bytes, key: VerifierKey) -> None:
    """Raise `NoteError` naming ``key`` unless ``signature`` is valid over ``message``."""
    try:
        public.verify(signature, message)
    except InvalidSignature:
        raise NoteError(f"signature of key {key.name!r} with id {key.key_id.hex()} is wrong") from None
