"""One authorization: what alone lifts a denial under 28 CFR part 202, and what makes it hold.

An exemption (subpart E), a general or specific licence (H) or an advisory opinion (I) that somebody accountable claims
for named people or counterparty groups, services, categories and purposes, from one date to another. It is never
inferred from a purpose or a role. It is a signed object (`jws`), and it holds only if

* every signer is listed for its kind; an exemption, which no authority has confirmed, needs two of them, a licence or an
  opinion, whose number anybody can look up, one;
* none of them is its owner, or a person it names; nor does it hold for one of them, or its owner, as one of a group;
* it names people or groups, services, categories and purposes: an empty list would cover nothing;
* it lasts for 366 days at most.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from sidecar.exceptions import jws
from sidecar.exceptions.jws import Id, Names, SignedObjectError, Strict
from sidecar.exceptions.signers import SignerKeys
from sidecar.vocabulary import Authorization

TYPE = "customhouse-authorization+json"
MAX_VALIDITY = 366 * 86_400.0
Kind = Literal["exemption", "general_licence", "specific_licence", "advisory_opinion"]
SIGNERS: Mapping[Kind, int] = {"exemption": 2, "general_licence": 1, "specific_licence": 1, "advisory_opinion": 1}
"""How many must sign."""
_EXEMPT = re.compile(r"202\.5(?:0[1-9]|1[01])(?:\([A-Za-z0-9]{1,5}\))*", re.ASCII)
# No line break, and nothing that a terminal obeys or reorders: it is shown to whoever signs.
_Group = Annotated[
    str,
    msgspec.Meta(
        max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]+\Z"
    ),
]
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)


class AuthorizationPayload(Strict, kw_only=True, frozen=True):
    """What is signed. `paragraph`: of an exemption, such as 202.506(a)(2)(viii); of the others, their number."""

    id: Id
    kind: Kind
    paragraph: Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[\x20-\x7e]+\Z")]
    persons: Names = ()
    groups: Annotated[tuple[_Group, ...], msgspec.Meta(max_length=64)] = ()
    services: Names
    categories: Names
    purposes: Names
    owner: Id
    not_before: str
    expires: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedAuthorization:
    """An authorization whose signatures hold, with its window in unix seconds; its end is outside."""

    payload: AuthorizationPayload
    signers: tuple[str, ...]
    not_before: float
    expires: float

    def in_force(self, now: float) -> bool:
        """Whether `now` lies in the window."""
        return self.not_before <= now < self.expires

    def shown(self, people: Iterable[tuple[str, str | None]]) -> Authorization | None:
        """As a policy sees it, naming those of `people` (id, counterparty group) that it names; None for none.

        Nobody else's id enters the input document. Who belongs to a group shows only here: whoever signed or owns it
        gains nothing from it that way either.
        """
        said = self.payload
        parties = {name.casefold() for name in (said.owner, *self.signers)}
        named = tuple(sorted({
            one for one, group in people
            if one in said.persons or (group in said.groups and one.casefold() not in parties)
        }))  # fmt: skip
        if not named:
            return None
        return Authorization(id=said.id, kind=said.kind, paragraph=said.paragraph, persons=named,
                             services=said.services, categories=said.categories, purposes=said.purposes,
                             owner=said.owner, expires=said.expires)  # fmt: skip


def read_authorization(data: bytes, keys: SignerKeys) -> SignedAuthorization:
    """The authorization in these bytes, whatever the time is. SignedObjectError when it does not hold."""
    payload, signers = jws.verify(data, keys.keys, TYPE, AuthorizationPayload, least=1, role="signer")
    found = checked(payload, signers, keys)
    least = SIGNERS[payload.kind]
    if len(signers) < least:
        raise SignedObjectError(f"needs {least} distinct signers, each signing once")
    return found


def checked(payload: AuthorizationPayload, signers: tuple[str, ...], keys: SignerKeys) -> SignedAuthorization:
    """What the payload means under these signatures, enough of them or not yet. SignedObjectError."""
    _check_signers(payload, signers, keys)
    _check_scope(payload)
    begins, ends = jws.instant(payload.not_before, "not_before"), jws.instant(payload.expires, "expires")
    if not 0 < ends - begins <= MAX_VALIDITY:
        raise SignedObjectError(f"its window is empty or longer than {MAX_VALIDITY / 86_400:.0f} days")
    return SignedAuthorization(payload=payload, signers=signers, not_before=begins, expires=ends)


def _check_signers(payload: AuthorizationPayload, signers: tuple[str, ...], keys: SignerKeys) -> None:
    for signer in signers:
        if not keys.may(signer, payload.kind):
            raise SignedObjectError(f"{signer} may not sign for {payload.kind}")
        if signer.casefold() in {name.casefold() for name in (payload.owner, *payload.persons)}:
            raise SignedObjectError(f"{signer} signs for themselves")


def _check_scope(payload: AuthorizationPayload) -> None:
    if payload.kind == "exemption" and not _EXEMPT.fullmatch(payload.paragraph):
        raise SignedObjectError(f"{payload.paragraph!r} is no exemption: subpart E is 202.501 to 202.511")
    for name in ("services", "categories", "purposes"):
        if not getattr(payload, name):
            raise SignedObjectError(f"it names no {name}, so it covers nothing")
    if not payload.persons and not payload.groups:
        raise SignedObjectError("it names no persons and no groups, so it covers nobody")
    jws.check_categories(payload.categories)
    for purpose in payload.purposes:
        if not _CODE.fullmatch(purpose):
            raise SignedObjectError(f"{purpose!r} is no purpose code")
