"""`sidecar webhook`: the HTTPS endpoint that the API server asks about pods before it creates them.

It answers from one file, read at the start, and keeps no state. Whatever it cannot answer is an error to the API server,
which then creates no pod (failurePolicy: Fail).
"""

import contextlib
import signal
import socket
import ssl
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

from sidecar.administration.injection import Injection, ReviewError, answer, read
from sidecar.errors import ConfigurationError
from sidecar.observability.logs import make_logger
from sidecar.settings.strict_yaml import StrictYamlError, parse

MOST_BYTES = 8 << 20
"""Of a review. The API server takes objects of 3 MiB at most (etcd), and sends old and new."""
SECONDS = 10.0
"""For a whole connection, handshake and answer included."""
MOST_AT_ONCE = 64


class Certificate:
    """The certificate in two files, taken up anew when they change; a broken new pair leaves the old one in use."""

    def __init__(self, cert: Path, key: Path) -> None:
        """ConfigurationError when it cannot be used."""
        self._cert, self._key = cert, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._stamp = self._look()
        try:
            self.context.load_cert_chain(cert, key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"cannot be used: {error.strerror or error}", where=f"{cert}, {key}",
                                     fix="Give --cert and --key, a PEM pair.") from None  # fmt: skip

    def refresh(self) -> str:
        """Take up a new pair; what is wrong with it, or nothing."""
        stamp = self._look()
        if stamp == self._stamp:
            return ""
        self._stamp = stamp
        try:
            # Tried apart first: a context whose chain was half loaded would serve nobody.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._cert, self._key)
            self.context.load_cert_chain(self._cert, self._key)
        except (OSError, ssl.SSLError) as error:
            return error.strerror or str(error)
        return ""

    def _look(self) -> tuple[tuple[int, int], ...]:
        try:
            found = [one.stat() for one in (self._cert, self._key)]
        except OSError:
            return ()
        return tuple((one.st_mtime_ns, one.st_ino) for one in found)


class Webhook(ThreadingHTTPServer):
    """Serves POST /inject and GET /healthz. A thread for each connection, and at most MOST_AT_ONCE of them."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], certificate: Certificate, injection: Injection) -> None:
        """ConfigurationError when nothing can listen there."""
        self.certificate, self.injection, self.log = certificate, injection, make_logger("webhook")
        self._free = threading.BoundedSemaphore(MOST_AT_ONCE)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            raise ConfigurationError(f"cannot listen there: {error.strerror or error}", where="--listen",
                                     value=f"{address[0]}:{address[1]}") from None  # fmt: skip

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Turn away what is too much, so that a flood is not a thread each."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """The handshake is here, in the connection's own thread: a client that stays silent stops nobody else."""
        if not isinstance(request, socket.socket):
            return
        tls = request
        over = threading.Timer(SECONDS, lambda: _cut(tls))
        over.start()
        try:
            self._report(self.certificate.refresh())
            tls = self.certificate.context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
            tls.do_handshake()
            super().process_request_thread(tls, client_address)
        except OSError:
            self.shutdown_request(tls)
        finally:
            over.cancel()
            self._free.release()

    def _report(self, problem: str) -> None:
        if problem:
            self.log.error("new certificate files cannot be used; those in use stay", problem=problem)

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that broke off is nothing to report."""


def _cut(connection: socket.socket) -> None:
    """End a connection that takes too long: whoever sends a byte now and then would hold its place for ever."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """One request a connection (HTTP/1.0): a kept one could be closed here just when the API server uses it again."""

    server: Webhook
    timeout: ClassVar[float] = SECONDS
    server_version, sys_version = "customhouse", ""

    def do_GET(self) -> None:
        """Whether it serves."""
        self._say(HTTPStatus.OK if self.path == "/healthz" else HTTPStatus.NOT_FOUND, b"")

    def do_POST(self) -> None:
        """Answer a review."""
        length = self.headers.get("Content-Length", "")
        if self.path.partition("?")[0] != "/inject":
            self._refuse(HTTPStatus.NOT_FOUND, "no such path")
        elif not (length.isascii() and length.isdigit()):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "no length")
        elif int(length) > MOST_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too large")
        else:
            self._answer(self.rfile.read(int(length)))

    def _answer(self, body: bytes) -> None:
        try:
            self._say(HTTPStatus.OK, answer(body, self.server.injection))
        except ReviewError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        """Say why."""
        self.server.log.warning("not answered", status=int(status), reason=why)
        self._say(status, why.encode() + b"\n", "text/plain")

    def _say(self, status: HTTPStatus, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Nothing of a pod goes into a log."""


def opened(injection: Path, listen: str, cert: Path, key: Path) -> Webhook:
    """The webhook, listening. ConfigurationError."""
    host, _, port = listen.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ConfigurationError("is no address", where="--listen", value=listen, fix="Write host:port.")
    try:
        tree = parse(injection.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot be read: {error}", where=str(injection), fix="Give --injection.") from None
    except StrictYamlError as error:
        raise ConfigurationError(f"is not YAML: {error}", where=str(injection)) from None
    found = read(tree, str(injection))
    return Webhook((host.strip("[]"), int(port)), Certificate(cert, key), found)


def serve(webhook: Webhook) -> None:
    """Serve until SIGTERM or SIGINT; what was asked by then is answered."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    thread = threading.Thread(target=webhook.serve_forever, daemon=True)
    thread.start()
    host, port = webhook.server_address[:2]
    webhook.log.warning(
        "ready", listen=f"{host!s}:{port}", containers=[one["name"] for one in webhook.injection.containers]
    )
    stop.wait()
    webhook.log.warning("stopping")
    webhook.shutdown()
    webhook.server_close()
