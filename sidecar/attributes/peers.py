"""The calling workload: what a verified client certificate names, and the workloads that are registered.

The listener has verified the certificate's chain (TLS); here its names are read strictly. SPIFFE ids follow the SPIFFE
ID standard, section 2, and X.509-SVID, sections 2 and 4: one URI SAN, a leaf, no query, fragment, port or dot segment.
A certificate that breaks a rule names nobody: guessing which of two names was meant is how callers are confused.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from sidecar.attributes.countries import ASSIGNED
from sidecar.attributes.revoked import Mark, marks_of
from sidecar.errors import ConfigurationError
from sidecar.vocabulary import ACTIONS, Workload

MAX_SPIFFE = 2048
MAX_CERTIFICATE = 64 * 1024
_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}((?:/[A-Za-z0-9._-]+)*)")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PEM = b"-----BEGIN CERTIFICATE-----"


class PeerError(ValueError):
    """A certificate that names nobody. Says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCertificate:
    """`identities`: SPIFFE id first, then DNS names, lower case. `sha256`: of the DER, 32 bytes (RFC 8705, 3.1).

    `not_after` in unix seconds. `problem` says why there is no identity, or is empty.
    """

    identities: tuple[str, ...]
    sha256: bytes
    not_after: float
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredWorkload:
    """One entry of `identity.workloads`. `may`: actions; `acts_alone`: may call without a person's token.

    `relays`: its word on which workload is behind it is believed (an Envoy that itself requires client certificates).
    `asserts`: its word on which person it asks for is believed, without that person's token (a gateway, a PEP).
    """

    id: str
    operated_from: str | None = None
    may: tuple[str, ...] = ()
    acts_alone: bool = False
    relays: bool = False
    asserts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A registered workload, prepared for the call path."""

    workload: Workload
    acts_alone: bool
    relays: bool
    asserts: bool
    marks: frozenset[Mark]


def spiffe_id(text: str) -> str:
    """The text, if it is a SPIFFE id with a path. PeerError otherwise."""
    found = _SPIFFE.fullmatch(text) if len(text) <= MAX_SPIFFE else None
    if found is None:
        raise PeerError(f"{text[:80]!r} is no SPIFFE id")
    segments = found[1].split("/")[1:]
    if not segments or {".", ".."} & set(segments):
        raise PeerError(f"{text[:80]!r} has no path, or one with dot segments")
    return text


def dns_name(text: str) -> str:
    """The name in lower case, if it is one host's. PeerError otherwise (wildcards name no single workload)."""
    name = text.lower()
    if len(name) > 253 or not _DNS.fullmatch(name):  # RFC 1035, 2.3.4
        raise PeerError(f"{text[:80]!r} is no host name")
    return name


def read_certificate(certificate: bytes) -> PeerCertificate:
    """What a PEM or DER certificate names. Never raises: what cannot be read has no identity (see `problem`)."""
    if len(certificate) > MAX_CERTIFICATE:
        return PeerCertificate(identities=(), sha256=b"", not_after=0.0, problem="the certificate is too long")
    return _read(certificate)


def identities_of(certificate: bytes) -> tuple[str, ...]:
    """The SPIFFE id and DNS names of a verified PEM or DER certificate; empty when it names nobody."""
    return read_certificate(certificate).identities


def thumbprint(certificate: bytes) -> bytes | None:
    """SHA-256 of the certificate's DER, 32 bytes (RFC 8705 x5t#S256); None when it cannot be read."""
    return read_certificate(certificate).sha256 or None


@lru_cache(maxsize=1024)  # a pure function of the bytes; connections come back with the same certificates
def _read(certificate: bytes) -> PeerCertificate:
    try:
        pem = certificate.lstrip().startswith(_PEM)
        parsed = x509.load_pem_x509_certificate(certificate) if pem else x509.load_der_x509_certificate(certificate)
        sha256 = parsed.fingerprint(hashes.SHA256())
        not_after = parsed.not_valid_after_utc.timestamp()
    except Exception as error:  # noqa: BLE001 - the parser has many errors without a common class; each means no identity
        return PeerCertificate(identities=(), sha256=b"", not_after=0.0, problem=f"no certificate: {error}")
    try:
        identities = _names(parsed)
    except Exception as error:  # noqa: BLE001 - as above
        return PeerCertificate(identities=(), sha256=sha256, not_after=not_after, problem=str(error))
    return PeerCertificate(identities=identities, sha256=sha256, not_after=not_after)


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        if certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise PeerError("a certificate authority's certificate is nobody's identity")
    except x509.ExtensionNotFound:
        pass
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise PeerError("the certificate has no subject alternative name") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) > 1:
        raise PeerError("more than one URI name (X.509-SVID, section 2)")
    # A URI that is no SPIFFE id refuses the certificate; a wildcard is only left out, for it is a common server name.
    hosts = [host for host in names.get_values_for_type(x509.DNSName) if not host.startswith("*.")]
    found = (*(spiffe_id(uri) for uri in uris), *(dns_name(host) for host in hosts))
    if not found:
        raise PeerError("the certificate has neither a SPIFFE id nor a host name")
    return tuple(dict.fromkeys(found))


class Workloads:
    """The workloads of `identity.workloads`, by id. ConfigurationError for an entry that cannot be right."""

    def __init__(self, entries: Iterable[RegisteredWorkload]) -> None:
        self._callers: dict[str, Caller] = {}
        for position, entry in enumerate(entries):
            where = f"identity.workloads[{position}]"
            caller = _caller(entry, where)
            if entry.id in self._callers:
                raise ConfigurationError("a workload is registered twice", where=where, value=entry.id,
                                         fix="Keep one entry.")  # fmt: skip
            self._callers[entry.id] = caller

    def get(self, name: str) -> Caller | None:
        """The workload registered under this very name, or None."""
        return self._callers.get(name)

    def of(self, identities: tuple[str, ...]) -> Caller | None:
        """The one registered workload among a peer's verified identities; None when there is none, or several."""
        if len(identities) == 1:
            return self._callers.get(identities[0])
        found = [caller for name in identities if (caller := self._callers.get(name)) is not None]
        return found[0] if len(found) == 1 else None


def _caller(entry: RegisteredWorkload, where: str) -> Caller:
    try:
        name = spiffe_id(entry.id) if "/" in entry.id else dns_name(entry.id)
    except PeerError as error:
        raise ConfigurationError(str(error), where=f"{where}.id", value=entry.id,
                                 fix="Write spiffe://trust-domain/path or a host name.") from None  # fmt: skip
    if name != entry.id:
        raise ConfigurationError("host names are lower case", where=f"{where}.id", value=entry.id,
                                 fix=f"Write {name}.")  # fmt: skip
    if entry.operated_from is not None and entry.operated_from not in ASSIGNED:
        raise ConfigurationError("not an ISO 3166-1 alpha-2 country", where=f"{where}.operated_from",
                                 value=entry.operated_from, fix="Write two capitals, such as US.")  # fmt: skip
    for action in entry.may:
        if action not in ACTIONS:
            near = difflib.get_close_matches(action, ACTIONS, n=1, cutoff=0.0)[0]
            raise ConfigurationError("not an action", where=f"{where}.may", value=action,
                                     fix=f"Did you mean {near}? Known: {', '.join(ACTIONS)}")  # fmt: skip
    workload = Workload(id=entry.id, operated_from=entry.operated_from, may=tuple(entry.may))
    return Caller(workload=workload, acts_alone=entry.acts_alone, relays=entry.relays, asserts=entry.asserts,
                  marks=marks_of(issuer="", jti=None, subjects=(entry.id,)))  # fmt: skip
