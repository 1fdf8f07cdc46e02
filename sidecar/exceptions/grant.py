"""One grant: its format, and what makes it hold.

A grant lets one named person do, for a day at most, what the operator's own rule forbids. It never touches the DSP.
It is a JWS in JSON general serialization (RFC 7515, 7.2.1) with one EdDSA (RFC 8037, Ed25519) signature per approver,
and it holds only if

* at least two approvers signed, all listed in `approvers.yaml`, with distinct ids and distinct keys, and every
  signature verifies; none of them is the person or who asked;
* each protected header is exactly `{"alg":"EdDSA","kid":<approver id>,"typ":"customhouse-exception+json"}`, so an
  approver's signature over anything else is no approval;
* the payload has the known keys only, and its window is at most `max_window` seconds long.

A grant that breaks a rule grants nothing; it is named, and the others are not affected.
"""

import difflib
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.exceptions.approvers import ApproverKeys
from sidecar.vocabulary import CATEGORIES, ExceptionGrant, GrantScope, SubjectClass

MAX_WINDOW = 86_400.0
MAX_GRANT = 16 * 1024
MIN_APPROVERS = 2
TYPE = "customhouse-exception+json"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z", re.ASCII)
_B64URL = re.compile(r"[A-Za-z0-9_-]+")

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=r"^[\x21-\x7e]+\Z")]
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]
_Names = Annotated[tuple[_Id, ...], msgspec.Meta(max_length=64)]
_T = TypeVar("_T")


class GrantError(ValueError):
    """A grant that does not hold, or a claim to one. Says why; holds nobody's data."""


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class _Signature(_Strict, kw_only=True, frozen=True):
    protected: str
    signature: str


class _Jws(_Strict, kw_only=True, frozen=True):
    payload: str
    signatures: Annotated[tuple[_Signature, ...], msgspec.Meta(max_length=8)]


class _Header(_Strict, kw_only=True, frozen=True):
    alg: Literal["EdDSA"]
    kid: _Id
    typ: Literal["customhouse-exception+json"]


class _Scope(_Strict, kw_only=True, frozen=True):
    services: _Names
    categories: _Names
    subjects: SubjectClass


class _Payload(_Strict, kw_only=True, frozen=True):
    id: _Id
    person: _Id
    scope: _Scope
    justification: _Text
    ticket: _Text
    not_before: str
    expires: str
    requested_by: _Id
    max_records: Annotated[int, msgspec.Meta(ge=1, le=2**53)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedGrant:
    """A grant whose signatures hold, with its window in unix seconds. Whether it is in force is a matter of time."""

    grant: ExceptionGrant
    not_before: float
    expires: float

    def in_force(self, now: float) -> bool:
        """Whether `now` lies in the window; its end is outside."""
        return self.not_before <= now < self.expires


def sign_grant(payload: Mapping[str, object], key: Ed25519PrivateKey, approver_id: str,
               signed: bytes | None = None) -> bytes:  # fmt: skip
    """The grant with this approver's signature added.

    `payload` as in the grant's format; `signed` is what earlier approvers produced, whose payload must be the same.
    GrantError when it differs or the approver has signed already.
    """
    encoded = _encode(json.dumps(payload, separators=(",", ":"), ensure_ascii=False).encode())
    previous: tuple[_Signature, ...] = ()
    if signed is not None:
        earlier = _decode(signed, _Jws, "grant")
        if earlier.payload != encoded:
            raise GrantError("the earlier approvals are of another payload")
        previous = earlier.signatures
    protected = _encode(json.dumps({"alg": "EdDSA", "kid": approver_id, "typ": TYPE}, separators=(",", ":")).encode())
    if any(one.protected == protected for one in previous):
        raise GrantError(f"{approver_id} has approved already")
    signature = _encode(key.sign(f"{protected}.{encoded}".encode()))
    added = _Signature(protected=protected, signature=signature)
    return msgspec.json.encode(_Jws(payload=encoded, signatures=(*previous, added)))


def read_grant(data: bytes, approvers: ApproverKeys, *, max_window: float = MAX_WINDOW) -> SignedGrant:
    """The grant in these bytes, whatever the time is. GrantError when it does not hold."""
    if len(data) > MAX_GRANT:
        raise GrantError(f"more than {MAX_GRANT} bytes")
    jws = _decode(data, _Jws, "grant")
    signers = tuple(sorted(_signer(one, jws.payload, approvers) for one in jws.signatures))
    if len(set(signers)) != len(signers) or len(signers) < MIN_APPROVERS:
        raise GrantError(f"needs {MIN_APPROVERS} distinct approvers, each signing once")
    payload = _decode(_unbase64(jws.payload, "payload"), _Payload, "payload")
    parties = {payload.person.casefold(), payload.requested_by.casefold()}
    for signer in signers:
        if signer.casefold() in parties:
            raise GrantError(f"{signer} approves their own exception")
    not_before, expires = _instant(payload.not_before, "not_before"), _instant(payload.expires, "expires")
    if not 0 < expires - not_before <= max_window:
        raise GrantError(f"its window is empty or longer than {max_window:.0f} s")
    for category in payload.scope.categories:
        if category not in CATEGORIES:
            near = difflib.get_close_matches(category, CATEGORIES, n=1, cutoff=0.0)[0]
            raise GrantError(f"unknown category {category!r}; did you mean {near}?")
    scope = GrantScope(services=payload.scope.services, categories=payload.scope.categories,
                       subjects=payload.scope.subjects)  # fmt: skip
    grant = ExceptionGrant(id=payload.id, person=payload.person, scope=scope, justification=payload.justification,
                           ticket=payload.ticket, not_before=payload.not_before, expires=payload.expires,
                           requested_by=payload.requested_by, approvers=signers,
                           max_records=payload.max_records)  # fmt: skip
    return SignedGrant(grant=grant, not_before=not_before, expires=expires)


def verify_grant(data: bytes, approvers: ApproverKeys, now: float, *, max_window: float = MAX_WINDOW) -> ExceptionGrant:
    """The grant in these bytes, if it holds and is in force at `now` (unix seconds). GrantError otherwise."""
    signed = read_grant(data, approvers, max_window=max_window)
    if not signed.in_force(now):
        raise GrantError("it has expired" if now >= signed.expires else "it is not in force yet")
    return signed.grant


def _signer(signature: _Signature, payload: str, approvers: ApproverKeys) -> str:
    header = _decode(_unbase64(signature.protected, "protected header"), _Header, "protected header")
    key = approvers.keys.get(header.kid)
    if key is None:
        raise GrantError(f"{header.kid!r} is no approver")
    try:
        key.verify(_unbase64(signature.signature, "signature"), f"{signature.protected}.{payload}".encode())
    except InvalidSignature:
        raise GrantError(f"the signature of {header.kid} does not verify") from None
    return header.kid


def _instant(text: str, name: str) -> float:
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC).timestamp() if _TIME.fullmatch(text) else None
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise GrantError(f"{name} is no RFC 3339 instant in UTC (…Z)")
    return moment


def _decode(data: bytes, kind: type[_T], part: str) -> _T:
    try:
        json.loads(data.decode(), object_pairs_hook=_once)
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError) as error:
        raise GrantError(f"{part}: {error}") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _unbase64(text: str, part: str) -> bytes:
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4)) if _B64URL.fullmatch(text) and len(text) % 4 != 1 else b""
    if not data or _encode(data) != text:
        raise GrantError(f"{part}: not base64url without padding (RFC 7515, 2)")
    return data
