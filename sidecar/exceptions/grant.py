"""One grant: its format, and what makes it hold.

A grant lets one named person do, for a day at most, what the operator's own rule forbids. It never touches the DSP.
It is a signed object (`jws`), and it holds only if

* at least two approvers signed, all listed in `approvers.yaml`, with distinct ids and distinct keys, and every
  signature verifies; none of them is the person or who asked;
* the payload has the known keys only, and its window is at most `max_window` seconds long.

A grant that breaks a rule grants nothing; it is named, and the others are not affected.

One approver takes a grant back with a `Revocation`, a signed object of another type: it names the grant, and holds for
good.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.exceptions import jws
from sidecar.exceptions.approvers import ApproverKeys
from sidecar.exceptions.jws import Id, Names, SignedObjectError, Strict, Text
from sidecar.vocabulary import ExceptionGrant, GrantScope, SubjectClass

MAX_WINDOW = 86_400.0
MIN_APPROVERS = 2
TYPE = "customhouse-exception+json"
REVOCATION_TYPE = "customhouse-revocation+json"


class _Scope(Strict, kw_only=True, frozen=True):
    services: Names
    categories: Names
    subjects: SubjectClass


class GrantPayload(Strict, kw_only=True, frozen=True):
    """What approvers sign."""

    id: Id
    person: Id
    scope: _Scope
    justification: Text
    ticket: Text
    not_before: str
    expires: str
    requested_by: Id
    max_records: Annotated[int, msgspec.Meta(ge=1, le=2**53)] | None = None


class Revocation(Strict, kw_only=True, frozen=True):
    """What an approver signs who takes a grant back: its id, why, and when (RFC 3339)."""

    grant: Id
    reason: Text
    revoked_at: str


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
    """The grant with this approver's signature added to those in `signed`. SignedObjectError as `jws.sign`."""
    return jws.sign(payload, key, approver_id, TYPE, signed)


def sign_revocation(revocation: Revocation, key: Ed25519PrivateKey, approver_id: str) -> bytes:
    """The revocation, signed."""
    return jws.sign(msgspec.to_builtins(revocation), key, approver_id, REVOCATION_TYPE)


def read_grant(data: bytes, approvers: ApproverKeys, *, max_window: float = MAX_WINDOW) -> SignedGrant:
    """The grant in these bytes, whatever the time is. SignedObjectError when it does not hold."""
    payload, signers = jws.verify(data, approvers.keys, TYPE, GrantPayload, least=MIN_APPROVERS, role="approver")
    return checked(payload, signers, max_window=max_window)


def read_revocation(data: bytes, approvers: ApproverKeys) -> Revocation:
    """The revocation in these bytes. SignedObjectError when it does not hold."""
    found, _ = jws.verify(data, approvers.keys, REVOCATION_TYPE, Revocation, least=1, role="approver")
    jws.instant(found.revoked_at, "revoked_at")
    return found


def checked(payload: GrantPayload, signers: tuple[str, ...], *, max_window: float = MAX_WINDOW) -> SignedGrant:
    """What the payload means under these signatures, or under none yet. SignedObjectError for what can never hold."""
    parties = {payload.person.casefold(), payload.requested_by.casefold()}
    for signer in signers:
        if signer.casefold() in parties:
            raise SignedObjectError(f"{signer} approves their own exception")
    not_before, expires = jws.instant(payload.not_before, "not_before"), jws.instant(payload.expires, "expires")
    if not 0 < expires - not_before <= max_window:
        raise SignedObjectError(f"its window is empty or longer than {max_window:.0f} s")
    jws.check_categories(payload.scope.categories)
    scope = GrantScope(services=payload.scope.services, categories=payload.scope.categories,
                       subjects=payload.scope.subjects)  # fmt: skip
    grant = ExceptionGrant(id=payload.id, person=payload.person, scope=scope, justification=payload.justification,
                           ticket=payload.ticket, not_before=payload.not_before, expires=payload.expires,
                           requested_by=payload.requested_by, approvers=signers,
                           max_records=payload.max_records)  # fmt: skip
    return SignedGrant(grant=grant, not_before=not_before, expires=expires)


def verify_grant(data: bytes, approvers: ApproverKeys, now: float, *, max_window: float = MAX_WINDOW) -> ExceptionGrant:
    """The grant in these bytes, if it holds and is in force at `now` (unix seconds). SignedObjectError otherwise."""
    signed = read_grant(data, approvers, max_window=max_window)
    if not signed.in_force(now):
        raise SignedObjectError("it has expired" if now >= signed.expires else "it is not in force yet")
    return signed.grant
