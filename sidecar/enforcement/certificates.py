"""A listener's certificate: loaded, checked, and taken up again when its files change."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from sidecar import pem
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import ConfigurationError

CHECK_SECONDS = 1.0
_Stamp = tuple[tuple[int, int, int], ...]
_Pems = tuple[bytes, bytes, bytes | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """Certificate chain and key of a listener (PEM). With `client_ca` callers must show a certificate it signed."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    def files(self) -> tuple[Path, ...]:
        """The files, in the order cert, key, client_ca."""
        return (self.cert, self.key) if self.client_ca is None else (self.cert, self.key, self.client_ca)

    def read(self) -> _Pems:
        """The files' contents, checked: they parse and the key is the certificate's. ConfigurationError."""
        return *pem.pair(self.cert, self.key), None if self.client_ca is None else pem.authorities(self.client_ca)


class ReloadingCertificate:
    """Server credentials that follow their files.

    gRPC asks at each handshake; the files are looked at no more than once a second. New files that cannot be used are
    reported once and the certificate in use stays. Connections that are already open keep what they were made with.
    """

    def __init__(self, tls: ServerTls, log: OperatorLog, clock: Callable[[], float]) -> None:
        """`clock` is monotonic seconds. ConfigurationError when the files cannot be used now."""
        self._tls, self._log, self._clock = tls, log, clock
        self._lock = threading.Lock()
        self._stamp = _stamp(tls)
        self._pems = tls.read()
        self._looked = clock()

    def credentials(self) -> grpc.ServerCredentials:
        """For `add_secure_port`. A client certificate is required exactly when there is a `client_ca`."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._pems),
            self.changed,  # type: ignore[arg-type]  # None means no change (gRFC L58); the stubs do not know
            require_client_authentication=self._tls.client_ca is not None,
        )

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The configuration to use from now on, or None for no change. Called on gRPC's threads; raises nothing."""
        with self._lock:
            now = self._clock()
            if now - self._looked < CHECK_SECONDS:
                return None
            self._looked = now
            return self._look()

    def _look(self) -> grpc.ServerCertificateConfiguration | None:
        try:
            stamp = _stamp(self._tls)
            if stamp == self._stamp:
                return None
            self._stamp = stamp
            pems = self._tls.read()
        except ConfigurationError as error:
            self._log.error("new certificate files cannot be used; the certificate in use stays", problem=str(error))
            return None
        if pems == self._pems:
            return None
        self._pems = pems
        self._log.warning("certificate taken up", file=str(self._tls.cert))
        return _configuration(pems)


def _configuration(pems: _Pems) -> grpc.ServerCertificateConfiguration:
    cert, key, client_ca = pems
    return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=client_ca)


def _stamp(tls: ServerTls) -> _Stamp:
    stamps = []
    for path in tls.files():
        try:
            stat = path.stat()
        except OSError:
            stamps.append((0, 0, 0))
        else:
            stamps.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(stamps)
