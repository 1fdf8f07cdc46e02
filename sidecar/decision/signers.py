"""Who may sign bundles, with which key: `signers.yaml`.

```yaml
signers:
  - id: dana
    key: dana.pub            # a PEM public key, a file of one beside this file, or Ed25519's 32 bytes in base64
    algorithm: EdDSA
  - {id: eli, key: eli.pub, algorithm: ES256, until: "2027-06-30T00:00:00Z"}
revoked: [eli]
scope: write                 # optional: the scope that signatures must have
```

An id and a key stand once: k signatures come from k keys. `until` ends every signature of that signer at once, those made
before it as well, because a signature's own date proves nothing.
"""

from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from sidecar.errors import ConfigurationError

PublicKey = Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey
PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey
"""The kinds of keys that sign bundles."""
MAX_SIGNERS: Final = 64
MIN_RSA_BITS: Final = 2048
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """One of them. `until` is in unix seconds."""

    id: str
    key: PublicKey
    algorithm: str
    until: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signers:
    """All of them, those revoked included; `revoked` may name others too."""

    by_id: Mapping[str, Signer]
    revoked: frozenset[str] = frozenset()
    scope: str = ""


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    key: str
    algorithm: str
    until: str | None = None


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    signers: list[_Row]
    revoked: list[str] = []
    scope: str = ""


def signers_of(tree: object, where: str, read: Callable[[str], bytes]) -> Signers:
    """The signers in a parsed file; `read` gives the content of a key file. ConfigurationError names what is wrong."""
    try:
        said = msgspec.convert(tree, _Document)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            f"no list of signers: {error}",
            where=where,
            fix="Write signers: [{id, key, algorithm, until?}], revoked: []",
        ) from None
    if not 1 <= len(said.signers) <= MAX_SIGNERS:
        raise ConfigurationError(f"not 1 to {MAX_SIGNERS} signers", where=where, fix="List those who may sign.")
    found: dict[str, Signer] = {}
    keys: dict[bytes, str] = {}
    for row in said.signers:
        at = f"{where}: {row.id}"
        key = _key(row, at, read)
        raw = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if not row.id or not row.id.isprintable() or row.id.casefold() in {one.casefold() for one in found}:
            raise ConfigurationError("an id that is empty, or stands twice", where=at, fix="Give each signer one id.")
        if raw in keys:
            raise ConfigurationError(
                "two signers with one key", where=at, value=keys[raw], fix="Two signatures must come from two keys."
            )
        keys[raw] = row.id
        found[row.id] = Signer(id=row.id, key=key, algorithm=row.algorithm, until=_until(row, at))
    return Signers(by_id=MappingProxyType(found), revoked=frozenset(said.revoked), scope=said.scope)


def algorithms_of(key: object) -> tuple[str, ...]:
    """The JWS algorithms (RFC 7518, RFC 8037) that fit a public key, the usual one first; none for any other key."""
    if isinstance(key, Ed25519PublicKey):
        return ("EdDSA",)
    if isinstance(key, EllipticCurvePublicKey):
        return (_CURVES[key.curve.name],) if key.curve.name in _CURVES else ()
    return _RSA if isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS else ()


def _key(row: _Row, at: str, read: Callable[[str], bytes]) -> PublicKey:
    try:
        key = _raw(row.key) or load_pem_public_key(
            row.key.encode() if row.key.lstrip().startswith("-----BEGIN") else read(row.key)
        )
    except OSError as error:
        raise ConfigurationError(
            f"the key cannot be read: {error.strerror}", where=at, value=row.key, fix="Correct the path."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(
            "no PEM public key", where=at, fix="Give what `sidecar keys new` wrote as .pub."
        ) from None
    if isinstance(key, PublicKey) and row.algorithm in algorithms_of(key):
        return key
    fits = ", ".join(algorithms_of(key)) or "none: use Ed25519, P-256, P-384, P-521, or RSA of 2048 bits and more"
    raise ConfigurationError(
        "the algorithm does not fit the key", where=at, value=row.algorithm, fix=f"It can do {fits}."
    )


def _raw(text: str) -> PublicKey | None:
    """The key, if this is one in base64 and nothing else: 32 bytes, 44 characters."""
    try:
        raw = b64decode(text, validate=True)
    except ValueError:
        return None
    return Ed25519PublicKey.from_public_bytes(raw) if len(raw) == 32 else None


def _until(row: _Row, at: str) -> float | None:
    if row.until is None:
        return None
    try:
        found = datetime.fromisoformat(row.until)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ConfigurationError(
            "no instant", where=f"{at}: until", value=row.until, fix="Write it as 2027-06-30T00:00:00Z."
        )
    return found.timestamp()
