"""Signed objects: a JSON payload under one Ed25519 signature for each person who signs it.

A JWS in JSON general serialization (RFC 7515, 7.2.1) with EdDSA (RFC 8037). Each protected header is exactly
`{"alg":"EdDSA","kid":<who signs>,"typ":<what it is>}`, so that a signature made over one kind of object is none over
another. Keys that nobody knows, a name that stands twice, padding and left-over bits are refused.
"""

import difflib
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sidecar.json_names import once
from sidecar.vocabulary import CATEGORIES

MAX_OBJECT = 16 * 1024
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z", re.ASCII)
_B64URL = re.compile(r"[A-Za-z0-9_-]+")

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=r"^[\x21-\x7e]+\Z")]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]
Names = Annotated[tuple[Id, ...], msgspec.Meta(max_length=64)]
T = TypeVar("T")


class SignedObjectError(ValueError):
    """A signed object that does not hold, or a claim to one. Says why; holds nobody's data."""


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A payload, or a part of one."""


class _Signature(Strict, kw_only=True, frozen=True):
    protected: str
    signature: str


class _Jws(Strict, kw_only=True, frozen=True):
    payload: str
    signatures: Annotated[tuple[_Signature, ...], msgspec.Meta(max_length=8)]


class _Header(Strict, kw_only=True, frozen=True):
    alg: Literal["EdDSA"]
    kid: Id
    typ: str


def sign(payload: Mapping[str, object], key: Ed25519PrivateKey, signer: str, typ: str,
         signed: bytes | None = None) -> bytes:  # fmt: skip
    """The object with this person's signature added.

    `signed` is what earlier signers produced, whose payload must be the same. SignedObjectError when it differs or
    this one has signed already.
    """
    encoded = _encode(json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode())
    previous: tuple[_Signature, ...] = ()
    if signed is not None:
        earlier = decode(signed, _Jws, "object")
        if earlier.payload != encoded:
            raise SignedObjectError("the earlier signatures are of another payload")
        previous = earlier.signatures
    protected = _encode(json.dumps({"alg": "EdDSA", "kid": signer, "typ": typ}, separators=(",", ":")).encode())
    if any(one.protected == protected for one in previous):
        raise SignedObjectError(f"{signer} has signed already")
    signature = _encode(key.sign(f"{protected}.{encoded}".encode()))
    added = _Signature(protected=protected, signature=signature)
    return msgspec.json.encode(_Jws(payload=encoded, signatures=(*previous, added)))


def verify(data: bytes, keys: Mapping[str, Ed25519PublicKey], typ: str, payload: type[T], *, least: int,
           role: str) -> tuple[T, tuple[str, ...]]:  # fmt: skip
    """The payload, and who signed it, in order: at least so many, all among `keys`, each once, every signature good.

    `role` is the word for a signer in errors. SignedObjectError when the object does not hold.
    """
    if len(data) > MAX_OBJECT:
        raise SignedObjectError(f"more than {MAX_OBJECT} bytes")
    jws = decode(data, _Jws, "object")
    signers = tuple(sorted(_signer(one, jws.payload, keys, typ, role) for one in jws.signatures))
    if len(set(signers)) != len(signers) or len(signers) < least:
        raise SignedObjectError(f"needs {least} distinct {role}s, each signing once")
    return decode(_unbase64(jws.payload, "payload"), payload, "payload"), signers


def unverified(data: bytes) -> tuple[dict[str, object], str, tuple[str, ...]]:
    """(payload, typ, who says to have signed), believing nothing: to be shown to who is about to sign."""
    jws = decode(data, _Jws, "object")
    headers = [decode(_unbase64(one.protected, "header"), _Header, "header") for one in jws.signatures]
    if len({one.typ for one in headers}) != 1:
        raise SignedObjectError("its signatures are of no kind, or of several")
    payload = decode(_unbase64(jws.payload, "payload"), dict[str, object], "payload")
    return payload, headers[0].typ, tuple(one.kid for one in headers)


def instant(text: str, name: str) -> float:
    """Unix seconds of an RFC 3339 instant in UTC. SignedObjectError otherwise."""
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC).timestamp() if _TIME.fullmatch(text) else None
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise SignedObjectError(f"{name} is no RFC 3339 instant in UTC (…Z)")
    return moment


def check_categories(categories: Iterable[str]) -> None:
    """SignedObjectError for a category that nobody knows: it would cover nothing, or not what was meant."""
    for category in categories:
        if category not in CATEGORIES:
            near = difflib.get_close_matches(category, CATEGORIES, n=1, cutoff=0.0)[0]
            raise SignedObjectError(f"unknown category {category!r}; did you mean {near}?")


def decode(data: bytes, kind: type[T], part: str) -> T:
    """Strict JSON of this type. SignedObjectError."""
    try:
        json.loads(data.decode(), object_pairs_hook=once)
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError) as error:
        raise SignedObjectError(f"{part}: {error}") from None


def _signer(signature: _Signature, payload: str, keys: Mapping[str, Ed25519PublicKey], typ: str, role: str) -> str:
    header = decode(_unbase64(signature.protected, "protected header"), _Header, "protected header")
    if header.typ != typ:
        raise SignedObjectError(f"protected header: typ is not {typ}")
    key = keys.get(header.kid)
    if key is None:
        raise SignedObjectError(f"{header.kid!r} is no {role}")
    try:
        key.verify(_unbase64(signature.signature, "signature"), f"{signature.protected}.{payload}".encode())
    except InvalidSignature:
        raise SignedObjectError(f"the signature of {header.kid} does not verify") from None
    return header.kid


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _unbase64(text: str, part: str) -> bytes:
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4)) if _B64URL.fullmatch(text) and len(text) % 4 != 1 else b""
    if not data or _encode(data) != text:
        raise SignedObjectError(f"{part}: not base64url without padding (RFC 7515, 2)")
    return data
