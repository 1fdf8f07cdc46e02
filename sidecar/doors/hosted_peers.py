"""Who is at the other end of a connection that Envoy has accepted.

Envoy verifies the client's certificate against the listener's `client_ca`, refuses connections without one, and writes
what it verified into `x-forwarded-client-cert`, after it has removed whatever the caller sent under that name (mode
SANITIZE_SET; on a connection without a verified certificate the header is removed and none is written). The listener's
way of knowing peers is fixed when it is opened: only a listener with `client_ca` looks at the header at all.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Protocol
from urllib.parse import unquote_to_bytes

from sidecar.attributes.peers import MAX_CERTIFICATE, PeerCertificate, read_certificate
from sidecar.enforcement.call import Peer

_CERTIFICATE, _HASH = b'Cert="', b"Hash="
_NOBODY = PeerCertificate(identities=(), sha256=b"", not_after=0.0, problem="Envoy names no certificate")


class HostedPeers(Protocol):
    """How a listener's peers are known."""

    def of(self, forwarded: list[bytes], address: str) -> Peer:
        """The peer of one call. `forwarded`: what Envoy says of the client's certificate. Raises nothing."""


class ForwardedPeer:
    """Mutual TLS. A certificate that has expired since its connection was made names nobody any more."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives unix seconds."""
        self._clock = clock

    def of(self, forwarded: list[bytes], address: str) -> Peer:
        """The certificate's identities and thumbprint; nobody where Envoy does not name exactly one."""
        read = _read(forwarded[0]) if len(forwarded) == 1 else _NOBODY
        identities = read.identities if self._clock() < read.not_after else ()
        return Peer(identities=identities, certificate_sha256=read.sha256 or None, address=address)


class NamedWorkload:
    """A Unix socket without client certificates: whoever can open it is the workload it is for."""

    def __init__(self, workload: str) -> None:
        self._peer = Peer(identities=(workload,), address="unix")

    def of(self, forwarded: list[bytes], address: str) -> Peer:
        """Always the workload that the listener names."""
        del forwarded, address
        return self._peer


class Unverified:
    """Nothing was verified: plaintext, or TLS that asks for no client certificate."""

    def of(self, forwarded: list[bytes], address: str) -> Peer:
        """Only an address."""
        del forwarded
        return Peer(address=address)


@lru_cache(maxsize=1024)  # a pure function of the bytes; connections come back with the same certificates
def _read(forwarded: bytes) -> PeerCertificate:
    """One element, `By=…;Hash=…;Cert="…"` (Envoy, "x-forwarded-client-cert"), whose hash is that of its certificate."""
    head, _, rest = forwarded.partition(_CERTIFICATE)
    quoted, closed, after = rest.partition(b'"')
    if not quoted or not closed or after or len(quoted) > 3 * MAX_CERTIFICATE:
        return _NOBODY
    read = read_certificate(unquote_to_bytes(quoted))
    said = [part.removeprefix(_HASH) for part in head.split(b";") if part.startswith(_HASH)]
    return read if said == [read.sha256.hex().encode()] else _NOBODY
