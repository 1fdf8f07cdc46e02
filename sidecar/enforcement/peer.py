"""Who is at the other end, as far as the transport has verified it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol
from urllib.parse import unquote

from sidecar.attributes.peers import read_certificate
from sidecar.enforcement.call import Peer

_SCHEMES = ("ipv4:", "ipv6:")


class Transport(Protocol):
    """The part of a gRPC servicer context that says who is calling."""

    def peer(self) -> str:
        """Address as gRPC writes it: `ipv4:…`, `ipv6:%5B…%5D:…`, `unix:…`."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What the handshake established; `x509_pem_cert` holds the client's verified certificate."""


class PeerReader(Protocol):
    """How a listener's peers are known."""

    def of(self, transport: Transport) -> Peer:
        """The peer of one call. Raises nothing: what was not verified is absent."""


class NamedPeer:
    """A Unix socket listener without client certificates: whoever can open the socket is the workload it is for."""

    def __init__(self, workload: str) -> None:
        self._peer = Peer(identities=(workload,), address="unix")

    def of(self, transport: Transport) -> Peer:
        """Always the workload that the listener names."""
        del transport
        return self._peer


class UnverifiedPeer:
    """Nothing was verified: plaintext, or TLS that asks for no client certificate."""

    def of(self, transport: Transport) -> Peer:
        """Only an address."""
        return Peer(address=address(transport.peer()))


class CertificatePeer:
    """Mutual TLS. A certificate that has expired since its connection was made names nobody any more."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives unix seconds."""
        self._clock = clock

    def of(self, transport: Transport) -> Peer:
        """The certificate's identities and thumbprint; no identity when it names none that can be believed."""
        pem = next(iter(transport.auth_context().get("x509_pem_cert", ())), None)
        where = address(transport.peer())
        if pem is None:
            return Peer(address=where)
        read = read_certificate(pem)
        identities = read.identities if self._clock() < read.not_after else ()
        return Peer(identities=identities, certificate_sha256=read.sha256 or None, address=where)


def address(peer: str) -> str:
    """A peer as gRPC writes it, as host:port or `unix`."""
    if peer.startswith(_SCHEMES):
        return unquote(peer[5:])
    return "unix" if peer.startswith("unix") else peer
