"""Certificates of the ledger's listener and of its clients: read, and read again when their files change."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from sidecar import pem
from sidecar.errors import ConfigurationError

Pems = tuple[bytes, bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Certificate chain, key, and the authorities that the other side is checked against (PEM)."""

    cert: Path
    key: Path
    ca: Path

    def read(self) -> Pems:
        """Certificate, key and authorities, checked. ConfigurationError names the file that cannot be used."""
        return *pem.pair(self.cert, self.key), pem.authorities(self.ca)


class Followed:
    """The files' contents as they are now. New ones that cannot be used leave those in use; `problem` says why."""

    def __init__(self, files: Files) -> None:
        """ConfigurationError when they cannot be used now."""
        self._files = files
        self.pems = files.read()
        self.problem = ""

    def look(self) -> bool:
        """Whether there are new ones, which `pems` now holds."""
        try:
            pems = self._files.read()
        except ConfigurationError as error:
            self.problem = str(error)
            return False
        self.problem = ""
        changed, self.pems = pems != self.pems, pems
        return changed


def server_credentials(followed: Followed) -> grpc.ServerCredentials:
    """Mutual TLS, always. Each handshake uses what `followed` holds then."""
    used = [followed.pems]

    def changed() -> grpc.ServerCertificateConfiguration | None:
        if followed.pems is used[0]:
            return None
        used[0] = followed.pems
        return _configuration(followed.pems)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(followed.pems),
        changed,  # type: ignore[arg-type]  # None means no change (gRFC L58); the stubs do not know
        require_client_authentication=True,
    )


def identities(auth_context: Mapping[str, Iterable[bytes]]) -> frozenset[str]:
    """The subject alternative names (URI, DNS) of the peer's verified certificate."""
    names = auth_context.get("x509_subject_alternative_name", ())
    return frozenset(name.decode("utf-8", "replace") for name in names)


def _configuration(pems: Pems) -> grpc.ServerCertificateConfiguration:
    cert, key, ca = pems
    return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=ca)
