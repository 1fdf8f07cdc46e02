"""What a token says, checked and typed: RFC 7519 claims, RFC 8693 actors, RFC 7800 / 8705 confirmation.

Nothing here is an attribute of a person. Claims name who is meant, say how they proved it, and may take away from
what the directory says (`Restrictions`); they never add to it.

Assurance (NIST SP 800-63B): `acr` decides where the issuer's table knows it; otherwise `amr` (RFC 8176) with `mfa`,
or with methods of two different factors, counts as level 2, any other as level 1. Level 3 is never inferred.
"""

import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Literal

import msgspec

from sidecar.attributes.countries import ASSIGNED
from sidecar.attributes.revoked import Mark, marks_of
from sidecar.vocabulary import Authentication

IssuerKind = Literal["personnel", "data_subject"]
MAX_ID = 256
MAX_ACTORS = 8
MAX_METHODS = 16
MAX_LEEWAY = 30.0
LATEST = 253_402_300_799.0
"""9999-12-31T23:59:59Z: no later instant can be written in RFC 3339."""

ASSURANCE: Mapping[str, int] = MappingProxyType({
    **{f"http://idmanagement.gov/ns/assurance/aal/{level}": level for level in (1, 2, 3)},
    **{f"urn:nist:800-63:aal:{level}": level for level in (1, 2, 3)},
    **{f"aal{level}": level for level in (1, 2, 3)},
})  # fmt: skip
"""Authentication context classes known by name. An issuer's own go into `Issuer.assurance`."""

_FACTORS = MappingProxyType({
    **dict.fromkeys(("pwd", "pin", "kba"), "know"),
    **dict.fromkeys(("hwk", "swk", "otp", "sms", "tel", "sc", "pop"), "have"),
    **dict.fromkeys(("face", "fpt", "iris", "retina", "vbm"), "are"),
})  # fmt: skip
_PERSON_ID = re.compile(r"[\x21-\x7e]{1,256}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")


class TokenError(ValueError):
    """A token nobody should believe. The sentence holds no part of the token and may go to the caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """An identity provider and what is believed of it.

    `issuer` is the exact `iss`. `subject_claim` holds the personnel id, or the data subject's own id, whose namespace
    is `subject_kind` (as in the annotation `subject_id`). `assurance` adds to `ASSURANCE`. `max_lifetime` is the
    longest `exp - iat` in seconds.
    """

    issuer: str
    kind: IssuerKind
    audience: str
    algorithms: tuple[str, ...]
    subject_claim: str = "sub"
    subject_kind: str = "person"
    assurance: Mapping[str, int] = field(default_factory=dict)
    max_lifetime: float = 86_400.0


class Restrictions(msgspec.Struct, frozen=True, kw_only=True):
    """What a token takes away: the predicate, a place that must agree with the directory's, all roles but these."""

    not_us_personnel: bool = False
    country: str | None = None
    roles: frozenset[str] | None = None


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """One `act` of the chain. `person` is None where the id cannot be a personnel id (another namespace)."""

    name: str
    person: str | None
    authentication: Authentication
    restrictions: Restrictions | None


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """A verified token's claims. `valid_from` and `valid_until` (unix seconds) include the leeway."""

    issuer: Issuer
    subject: str
    actors: tuple[Actor, ...]
    authentication: Authentication
    restrictions: Restrictions | None
    marks: frozenset[Mark]
    certificate: bytes | None
    clients: tuple[str, ...]
    valid_from: float
    valid_until: float


def read_claims(payload: dict[str, object], *, issuer: Issuer, issuers: Mapping[str, Issuer], now: float,
                leeway: float) -> Claims:  # fmt: skip
    """The claims of a payload whose signature has been verified with a key of `issuer`. TokenError otherwise."""
    if _text(payload, "iss", required=True) != issuer.issuer:
        raise TokenError("the token is from another issuer")
    valid_from, valid_until = _window(payload, issuer, now, leeway)
    _check_audience(payload, issuer)
    sub = _text(payload, "sub", required=True)
    subject = _text(payload, issuer.subject_claim, required=True)
    if issuer.kind == "personnel" and not _PERSON_ID.fullmatch(subject):
        raise TokenError(f"claim {issuer.subject_claim} is no personnel id")
    actors = _actors(payload, issuer, issuers, now + leeway)
    names = (sub, subject, *(actor.name for actor in actors), *(actor.person for actor in actors if actor.person))
    jti = _text(payload, "jti") or None
    clients = tuple(value for name in ("azp", "client_id") if (value := _text(payload, name)))
    return Claims(issuer=issuer, subject=subject, actors=actors,
                  authentication=_authentication(payload, issuer, now + leeway),
                  restrictions=_restrictions(payload), marks=marks_of(issuer=issuer.issuer, jti=jti, subjects=names),
                  certificate=_confirmation(payload), clients=clients, valid_from=valid_from,
                  valid_until=valid_until)  # fmt: skip


def _text(claims: Mapping[str, object], name: str, *, required: bool = False) -> str:
    value = claims.get(name)
    if value is None and not required and name not in claims:
        return ""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID or _CONTROL.search(value):
        raise TokenError(f"claim {name} is missing or no string of 1 to {MAX_ID} characters")
    return value


def _instant(claims: Mapping[str, object], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LATEST:
        raise TokenError(f"claim {name} is no instant")
    return float(value)


def _window(payload: dict[str, object], issuer: Issuer, now: float, leeway: float) -> tuple[float, float]:
    expires, issued = _instant(payload, "exp"), _instant(payload, "iat")
    if expires is None or issued is None:
        raise TokenError("claim exp or iat is missing")
    starts = _instant(payload, "nbf")
    valid_from = max(issued, issued if starts is None else starts) - leeway
    if now < valid_from:
        raise TokenError("the token is not valid yet")
    if now >= expires + leeway:
        raise TokenError("the token has expired")
    if not 0 <= expires - issued <= issuer.max_lifetime:
        raise TokenError("the token's life is too long or negative")
    return valid_from, expires + leeway


def _check_audience(payload: dict[str, object], issuer: Issuer) -> None:
    audience = payload.get("aud")
    wanted = [audience] if isinstance(audience, str) else audience
    if not isinstance(wanted, list) or not all(isinstance(one, str) for one in wanted):
        raise TokenError("claim aud is missing or no list of strings")
    if issuer.audience not in wanted:
        raise TokenError("the token is for another audience")


def _confirmation(payload: dict[str, object]) -> bytes | None:
    if "cnf" not in payload:
        return None
    confirmation = payload["cnf"]
    thumbprint = confirmation.get("x5t#S256") if isinstance(confirmation, dict) else None
    if not isinstance(thumbprint, str) or not _THUMBPRINT.fullmatch(thumbprint):
        # A bound token whose binding cannot be checked (a DPoP key, say) must not be taken as a plain bearer token.
        raise TokenError("claim cnf holds no x5t#S256 certificate thumbprint")
    return urlsafe_b64decode(thumbprint + "=")


def _authentication(claims: Mapping[str, object], issuer: Issuer, latest: float) -> Authentication:
    methods = _strings(claims, "amr")
    if methods is not None and (len(methods) > MAX_METHODS or any(len(method) > MAX_ID for method in methods)):
        raise TokenError("claim amr is too long")
    moment = _instant(claims, "auth_time")
    if moment is not None and moment > latest:
        raise TokenError("claim auth_time is in the future")
    context = _text(claims, "acr")
    level = issuer.assurance.get(context, ASSURANCE.get(context))
    if level is None and methods:
        factors = {_FACTORS.get(method) for method in methods} - {None}
        level = 2 if "mfa" in methods or len(factors) > 1 else 1
    when = None if moment is None else datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Authentication(aal=level, methods=() if methods is None else tuple(sorted(set(methods))), time=when)


def _restrictions(claims: Mapping[str, object]) -> Restrictions | None:
    # A restriction that cannot be understood refuses the token: ignoring it would lift it.
    predicate = claims.get("us_personnel", True)
    if not isinstance(predicate, bool):
        raise TokenError("claim us_personnel is neither true nor false")
    country = None
    if "location" in claims:
        location = claims["location"]
        country = location.get("country") if isinstance(location, dict) else None
        if not isinstance(country, str) or country not in ASSIGNED:
            raise TokenError("claim location holds no ISO 3166-1 alpha-2 country")
    roles = _strings(claims, "roles")
    if predicate and country is None and roles is None:
        return None
    return Restrictions(not_us_personnel=not predicate, country=country,
                        roles=None if roles is None else frozenset(roles))  # fmt: skip


def _strings(claims: Mapping[str, object], name: str) -> list[str] | None:
    if name not in claims:
        return None
    value = claims[name]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise TokenError(f"claim {name} is no list of strings")
    return value


def _actors(payload: dict[str, object], issuer: Issuer, issuers: Mapping[str, Issuer],
            latest: float) -> tuple[Actor, ...]:  # fmt: skip
    actors: list[Actor] = []
    holder: Mapping[str, object] = payload
    while "act" in holder:
        claims = holder["act"]
        if not isinstance(claims, dict):
            raise TokenError("claim act is no object")
        if len(actors) == MAX_ACTORS:
            raise TokenError(f"more than {MAX_ACTORS} actors")
        actors.append(_actor(claims, issuer, issuers, latest))
        holder = claims
    return tuple(actors)


def _actor(claims: dict[str, object], issuer: Issuer, issuers: Mapping[str, Issuer], latest: float) -> Actor:
    name = _text(claims, "sub", required=True)
    source = issuer
    if "iss" in claims:
        named = issuers.get(_text(claims, "iss", required=True))
        if named is None:
            raise TokenError("an actor is from an unknown issuer")
        source = named
    person = _text(claims, source.subject_claim) if source.kind == "personnel" else ""
    known = person if _PERSON_ID.fullmatch(person) else None
    # exp, nbf and aud have no meaning inside act (RFC 8693, 4.1); how the actor signed in does.
    return Actor(name=name, person=known, authentication=_authentication(claims, source, latest),
                 restrictions=_restrictions(claims))  # fmt: skip
