"""JSON Web Tokens (RFC 7519) as RFC 8725 and RFC 9068 would have them used.

Verification, step by step:

1. at most 8 KiB, three base64url segments, none empty: before anything is parsed;
2. a token verified before, whose key is still in force, needs no more than its times checked again;
3. header: strict JSON without duplicate keys; `typ` at+jwt or JWT; no `crit`, `b64`, `enc` or `zip`; a `kid`;
   `jku`, `x5u`, `jwk` and `x5c` are never looked at;
4. payload: strict JSON; `iss` is looked up among the configured issuers, exactly;
5. the key is that issuer's key of that `kid`; `alg` must be the one algorithm bound to the key;
6. the signature is verified;
7. the claims are checked (`claims`): `exp iat iss aud sub` required, leeway at most 30 s.

What is kept of a token is its claims, under its SHA-256, until it expires or its key goes. ECDSA signatures are not
unique ((r, n-s) verifies too), so a token's hash identifies nothing but a cache entry; revocation goes by `jti` and
`sub`.
"""

import asyncio
import hashlib
import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NoReturn
from weakref import ReferenceType, ref

import msgspec
from jwt import PyJWTError
from jwt.api_jws import PyJWS

from sidecar.attributes.claims import MAX_LEEWAY, Claims, Issuer, TokenError, read_claims
from sidecar.attributes.jwks import KEY_TYPES, MAX_KID, BoundKey, KeyRing, RingStatus
from sidecar.attributes.revoked import Mark, Revocations, marks_of
from sidecar.errors import ConfigurationError, IdentifyError
from sidecar.json_names import once
from sidecar.vocabulary import ReasonCode

MAX_TOKEN = 8 * 1024
CACHE_ENTRIES = 65_536
MAX_DEPTH = 16
TYPES = frozenset({"at+jwt", "jwt", "application/at+jwt", "application/jwt"})
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_FORBIDDEN = frozenset({"crit", "b64", "enc", "zip"})


class _Kept(msgspec.Struct, frozen=True):
    claims: Claims
    ring: KeyRing
    key: BoundKey


class Grounds(msgspec.Struct, frozen=True):
    """What a verified token rested on besides its own times: the issuer's keys, and the list of what is revoked.

    To be taken before the token is verified, since the list is read in another thread. Without a token there are no keys.
    """

    revocations: Revocations
    revoked: ReferenceType[frozenset[Mark]]
    """Weak: thousands may be kept, and none of them may keep a list that another has replaced (they are long)."""
    ring: KeyRing | None
    keys: Mapping[str, BoundKey] | None

    def hold(self, now: float) -> bool:
        """Whether verifying again at `now` (unix seconds) would rest on the very same, still young enough."""
        revocations, ring = self.revocations, self.ring
        return (
            revocations.marks is self.revoked()
            and now <= revocations.good_until
            and (ring is None or (ring.keys is self.keys and now <= ring.good_until))
        )


class TokenVerifier:
    """Verifies tokens of several issuers.

    `rings` holds one key ring per `Issuer.issuer`. `verify` is for the call path: no I/O, no waiting. `run` refreshes
    keys and the revocation list until cancelled. `max_token` bounds a token in bytes, within `MAX_TOKEN`.
    """

    def __init__(self, *, issuers: Sequence[Issuer], rings: Mapping[str, KeyRing], revocations: Revocations,
                 leeway: float = 10.0, entries: int = CACHE_ENTRIES, max_token: int = MAX_TOKEN) -> None:  # fmt: skip
        self._issuers = MappingProxyType({issuer.issuer: issuer for issuer in issuers})
        _check(issuers, self._issuers, rings, leeway)
        self._rings, self._revocations = rings, revocations
        self._leeway, self._entries, self._max_token = leeway, entries, min(max_token, MAX_TOKEN)
        self._kept: dict[bytes, _Kept] = {}
        self._jws = PyJWS(algorithms=list(KEY_TYPES),
                          options={"verify_signature": True, "enforce_minimum_key_length": True})  # fmt: skip

    @property
    def size(self) -> int:
        """How many verified tokens are kept."""
        return len(self._kept)

    def verify(self, token: str, now: float) -> Claims:
        """The claims of this token at `now` (unix seconds).

        IdentifyError: UNAUTHENTICATED for a token not to be believed, UNAVAILABLE when the issuer's keys or the
        revocation list are too old to tell.
        """
        if len(token) > self._max_token:
            _refuse(f"the token is longer than {self._max_token} bytes")
        digest = digest_of(token)
        if digest is None:
            _refuse("the token is no compact JWS")
        kept = self._kept.get(digest)
        if kept is None or not kept.ring.holds(kept.key):
            kept = self._first(token, digest, now)
        claims = kept.claims
        kept.ring.check_fresh(now)
        if not claims.valid_from <= now < claims.valid_until:
            self._kept.pop(digest, None)
            _refuse("the token has expired" if now >= claims.valid_until else "the token is not valid yet")
        if self._revocations.check(claims.marks, now):
            _refuse("the token is revoked")
        return claims

    def revoked(self) -> frozenset[Mark]:
        """The list of what is revoked, as it is now; for `grounds`."""
        return self._revocations.marks

    def grounds(self, claims: Claims | None, revoked: frozenset[Mark]) -> Grounds:
        """What `verify` found these claims on; None: what lets a workload pass. `revoked`: the list as it was before."""
        if claims is None:
            return Grounds(self._revocations, ref(revoked), None, None)
        ring = self._rings[claims.issuer.issuer]
        return Grounds(self._revocations, ref(revoked), ring, ring.keys)

    def check_workload(self, marks: frozenset[Mark], now: float) -> None:
        """IdentifyError when the calling workload is revoked, or the list cannot tell."""
        if self._revocations.check(marks, now):
            _refuse("the workload is revoked", reason=ReasonCode.UNIDENTIFIED_WORKLOAD)

    def check_person(self, name: str, now: float) -> None:
        """IdentifyError when tokens of this person would be refused as revoked, whoever issued them."""
        for issuer in self._issuers:
            if self._revocations.check(marks_of(issuer=issuer, jti=None, subjects=(name,)), now):
                _refuse("the person's tokens are revoked")

    def keys(self) -> dict[str, RingStatus]:
        """How each issuer's keys stand."""
        return {issuer: ring.status() for issuer, ring in self._rings.items()}

    def problems(self) -> list[str]:
        """What is wrong with the issuers' keys and the revocation list at present."""
        found = [f"{one.source}: {one.error}" for one in (ring.status() for ring in self._rings.values()) if one.error]
        return found if self._revocations.error is None else [*found, f"revoked: {self._revocations.error}"]

    async def run(self) -> None:
        """Keep keys and revocations fresh until cancelled."""
        async with asyncio.TaskGroup() as group:
            for ring in self._rings.values():
                group.create_task(ring.run())
            group.create_task(self._revocations.run())

    def _first(self, token: str, digest: bytes, now: float) -> _Kept:
        self._kept.pop(digest, None)
        try:
            kept = self._verify(token, now)
        except TokenError as error:
            _refuse(str(error))
        if len(self._kept) >= self._entries:  # oldest first: tokens live about equally long
            del self._kept[next(iter(self._kept))]
        self._kept[digest] = kept
        return kept

    def _verify(self, token: str, now: float) -> _Kept:
        if not _COMPACT.fullmatch(token):
            raise TokenError("the token is no compact JWS")
        first, second, _ = token.split(".")
        header, payload = _object(first, "header"), _object(second, "payload")
        kid, algorithm = _check_header(header)
        named = payload.get("iss")
        issuer = self._issuers.get(named) if isinstance(named, str) else None
        if issuer is None:
            raise TokenError("the token is from an unknown issuer")
        ring = self._rings[issuer.issuer]
        key = ring.key(kid, now)
        if key is None:
            raise TokenError("the token is signed with an unknown key")
        if algorithm != key.algorithm:
            raise TokenError("the token's algorithm is not the key's")
        try:
            self._jws.decode(token, key.jwk, algorithms=[key.algorithm])
        except (PyJWTError, ValueError, TypeError):
            raise TokenError("the token's signature is not valid") from None
        claims = read_claims(payload, issuer=issuer, issuers=self._issuers, now=now, leeway=self._leeway)
        return _Kept(claims, ring, key)


def digest_of(token: str) -> bytes | None:
    """SHA-256 of a token, under which it is remembered; the token itself is not. None where it can be no JWS."""
    return hashlib.sha256(token.encode()).digest() if token.isascii() else None


def _check(issuers: Sequence[Issuer], known: Mapping[str, Issuer], rings: Mapping[str, KeyRing], leeway: float) -> None:
    if len(known) != len(issuers):
        raise ConfigurationError("an issuer is named twice", where="identity.issuers",
                                 value=sorted(issuer.issuer for issuer in issuers),
                                 fix="Give each issuer one entry.")  # fmt: skip
    if missing := known.keys() - rings.keys():
        raise ConfigurationError("an issuer without keys", where="identity.issuers", value=min(missing),
                                 fix="Name its jwks.")  # fmt: skip
    if not 0 <= leeway <= MAX_LEEWAY:
        raise ConfigurationError("not a leeway", where="identity.leeway", value=leeway,
                                 fix=f"Give 0 to {MAX_LEEWAY:.0f} seconds.")  # fmt: skip


def _check_header(header: dict[str, object]) -> tuple[str, str]:
    kind, kid, algorithm = header.get("typ"), header.get("kid"), header.get("alg")
    if not isinstance(kind, str) or not kind.isascii() or kind.lower() not in TYPES:
        raise TokenError("the token's typ is neither at+jwt nor JWT")
    if _FORBIDDEN & header.keys():
        raise TokenError("the token's header asks for what is not supported (crit, b64, enc or zip)")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID:
        raise TokenError("the token names no key (kid)")
    if not isinstance(algorithm, str):
        raise TokenError("the token names no algorithm")
    return kid, algorithm


def _object(segment: str, part: str) -> dict[str, object]:
    if len(segment) % 4 == 1:
        raise TokenError(f"the token's {part} is not base64url")
    data = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    try:
        msgspec.json.decode(data)  # strict where json is not: encoding, surrogates, NaN, numbers out of range
        document = json.loads(data.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError):  # msgspec.DecodeError, UnicodeDecodeError and TokenError are ValueErrors
        raise TokenError(f"the token's {part} is not strict JSON") from None
    if not isinstance(document, dict) or not _shallow(document, MAX_DEPTH):
        raise TokenError(f"the token's {part} is no object, or nested too deep")
    return document


def _shallow(value: object, levels: int) -> bool:
    # A bound of our own: how deep the parsers can go depends on the stack they are called from.
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not inner or (levels > 0 and all(_shallow(one, levels - 1) for one in inner))


def _refuse(why: str, *, reason: ReasonCode = ReasonCode.UNIDENTIFIED_PERSON) -> NoReturn:
    raise IdentifyError(why, reason=reason)
