"""One attestation: that the CISA security requirements (28 CFR 202.248, 202.401) are met for named services.

Signed by the officer who attests, and by nobody in their place; for 366 days at most, since the requirements ask for a
yearly review. Without one in force the requirements are not met: equivalent controls do not count (401(c)(2)).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sidecar.exceptions import jws
from sidecar.exceptions.authorizations import MAX_VALIDITY
from sidecar.exceptions.jws import Id, Names, SignedObjectError, Strict
from sidecar.exceptions.signers import SignerKeys
from sidecar.vocabulary import SecurityRequirements

TYPE = "customhouse-attestation+json"


class AttestationPayload(Strict, kw_only=True, frozen=True):
    """What the officer signs. `version` is that of the requirements, such as 2025-01."""

    id: Id
    version: Id
    services: Names
    officer: Id
    attested_at: str
    valid_until: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedAttestation:
    """An attestation whose signature holds, with its window in unix seconds; its end is outside."""

    payload: AttestationPayload
    signers: tuple[str, ...]
    not_before: float
    expires: float

    def in_force(self, now: float) -> bool:
        """Whether `now` lies in the window."""
        return self.not_before <= now < self.expires

    def shown(self) -> SecurityRequirements:
        """As a policy sees it."""
        said = self.payload
        return SecurityRequirements(version=said.version, attested_at=said.attested_at, valid_until=said.valid_until)


def read_attestation(data: bytes, keys: SignerKeys) -> SignedAttestation:
    """The attestation in these bytes, whatever the time is. SignedObjectError when it does not hold."""
    payload, signers = jws.verify(data, keys.keys, TYPE, AttestationPayload, least=1, role="signer")
    return checked(payload, signers, keys)


def checked(payload: AttestationPayload, signers: Iterable[str], keys: SignerKeys) -> SignedAttestation:
    """What the payload means under these signatures. SignedObjectError."""
    signers = tuple(signers)
    if signers != (payload.officer,):
        raise SignedObjectError(f"it is for its officer, {payload.officer}, to sign, and for nobody else")
    if not keys.may(payload.officer, "attestation"):
        raise SignedObjectError(f"{payload.officer} may not sign for attestation")
    if not payload.services:
        raise SignedObjectError("it names no services, so it attests nothing")
    begins, ends = jws.instant(payload.attested_at, "attested_at"), jws.instant(payload.valid_until, "valid_until")
    if not 0 < ends - begins <= MAX_VALIDITY:
        raise SignedObjectError(f"its window is empty or longer than {MAX_VALIDITY / 86_400:.0f} days")
    return SignedAttestation(payload=payload, signers=signers, not_before=begins, expires=ends)
