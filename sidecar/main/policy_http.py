"""A bundle behind an http(s) address, asked for as OPA does (openpolicyagent.org, "Bundle service API").

`If-None-Match` with the tag of what is held; `Prefer: modes=snapshot;wait=N` where the settings allow waiting, and
waiting only with a server that says it does (`Content-Type: application/vnd.openpolicyagent.bundles`). Bounded in size
and time, no proxies, no cookies, redirects only within the address's own scheme, host and port.
"""

import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from urllib.parse import SplitResult, urljoin, urlsplit

from sidecar.decision.archive import MAX_ARCHIVE_BYTES, load_archive
from sidecar.decision.bundle import Bundle
from sidecar.errors import ConfigurationError
from sidecar.main.given import FILE_SECONDS
from sidecar.main.sources import Look

ANSWER_SECONDS = 10.0
"""How long a connection, and an answer that was not asked to wait, may take to begin."""
BODY_SECONDS = 60.0
HEAD_SECONDS = 20.0
"""How long TLS and the head of an answer may take in all, however small the steps, beside what was agreed to wait."""
FIRST_RETRY_SECONDS = 1.0
MAX_TOKEN = 8 << 10
_REDIRECTS = 3
_CHUNK = 64 << 10
_LONG_POLLING = "application/vnd.openpolicyagent.bundles"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How the address is asked: settings, in seconds and paths."""

    url: str
    poll: float
    wait: float | None = None
    ca: Path | None = None
    token_file: Path | None = None


class HttpSource:
    """See the module. One thread looks, any may interrupt."""

    kind = "url"

    def __init__(self, asked: Asked, *, jitter: Callable[[], float]) -> None:
        """`jitter` gives numbers in [0, 1). ConfigurationError for an address or a file that cannot be used."""
        self._asked, self._jitter = asked, jitter
        self._url = check_address(asked.url, "policy.bundle.url")
        self._tls = _trust(asked.ca) if self._url.scheme == "https" else None
        self._tag: str | None = None
        self._digest = b""
        self._waits = False
        self._failures = 0
        self._guard = threading.Lock()
        self._open: socket.socket | None = None
        self._looking = self._interrupted = False

    @property
    def where(self) -> str:
        """The address without its query, which may hold a signature."""
        return self._url._replace(query="", fragment="").geturl()

    @property
    def pause(self) -> float:
        """Little where the server waits for us; after failures ever longer, up to `poll`; never all sidecars at once."""
        if self._failures:
            longest = min(self._asked.poll, FIRST_RETRY_SECONDS * 2.0 ** (self._failures - 1))
            return longest * (0.5 + self._jitter() / 2)
        return FILE_SECONDS if self._waits else self._asked.poll * (0.9 + self._jitter() / 5)

    def read(self) -> Bundle:
        """Ask without a tag."""
        self._tag, self._digest = None, b""
        found = self._fetched(wait=None)
        if isinstance(found, Look):
            raise self._failed("the server does not send the bundle")
        return found

    def look(self) -> Bundle | Look:
        """Ask once, waiting where that was agreed."""
        with self._guard:
            self._looking, self._interrupted = True, False
        try:
            return self._fetched(wait=self._asked.wait if self._waits else None)
        finally:
            with self._guard:
                self._looking = False

    def interrupt(self) -> None:
        """End a look under way: nobody waits for a slow server to be allowed to act."""
        with self._guard:
            if self._looking:
                self._interrupted = True
                self._cut()

    def _cut(self) -> None:
        if self._open is None:
            return
        try:
            # Of TLS sockets too: their own shutdown is not for two threads.
            socket.socket.shutdown(self._open, socket.SHUT_RDWR)
        except OSError:
            return  # it has ended by itself

    @contextmanager
    def _within(self, seconds: float, what: str) -> Iterator[None]:
        """ConfigurationError, and the connection is cut, after so long: the time limits of sockets count per byte."""
        late = threading.Event()

        def cut() -> None:
            late.set()
            with self._guard:
                self._cut()

        timer = threading.Timer(seconds, cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (ConfigurationError, OSError, HTTPException):
            if not late.is_set():
                raise
        finally:
            timer.cancel()
        if late.is_set():
            raise self._failed(f"{what} more than {seconds:g} s")

    def _fetched(self, wait: float | None) -> Bundle | Look:
        try:
            found = self._ask(wait)
        except (ConfigurationError, OSError, HTTPException, ValueError) as error:
            if self._looking and self._interrupted:
                return Look.UNSETTLED
            self._failures, self._waits, self._tag, self._digest = min(self._failures + 1, 30), False, None, b""
            if isinstance(error, ConfigurationError):
                raise
            raise self._failed(f"it cannot be fetched: {error}") from None
        self._failures = 0
        return found

    def _ask(self, wait: float | None) -> Bundle | Look:
        url = self._url
        for _ in range(_REDIRECTS + 1):
            connection, answer = self._connection(url), None
            try:
                answer = self._head(connection, url, wait)
                if answer.status not in (301, 302, 303, 307, 308):
                    return self._taken(answer)
                url = self._redirected(url, answer.getheader("Location"))
            finally:
                with self._guard:
                    self._open = None
                if answer is not None:
                    answer.close()
                connection.close()
        raise self._failed(f"more than {_REDIRECTS} redirects")

    def _connection(self, url: SplitResult) -> HTTPConnection:
        host = url.hostname or ""
        if self._tls is None:
            return HTTPConnection(host, url.port, timeout=ANSWER_SECONDS)
        return HTTPSConnection(host, url.port, timeout=ANSWER_SECONDS, context=self._tls)

    def _head(self, connection: HTTPConnection, url: SplitResult, wait: float | None) -> HTTPResponse:
        with self._within(HEAD_SECONDS + (wait or 0.0), "the head of the answer took"):
            self._connect(connection, wait)
            return self._answer(connection, url, wait)

    def _connect(self, connection: HTTPConnection, wait: float | None) -> None:
        plain = socket.create_connection((connection.host, connection.port), ANSWER_SECONDS)
        connection.sock = plain
        if self._tls is not None:
            connection.sock = self._tls.wrap_socket(
                plain, server_hostname=connection.host, do_handshake_on_connect=False
            )
        with self._guard:
            if self._looking and self._interrupted:
                raise ConnectionAbortedError("interrupted")
            self._open = connection.sock
        if isinstance(connection.sock, ssl.SSLSocket):
            connection.sock.do_handshake()
        if wait is not None:
            connection.sock.settimeout(wait + ANSWER_SECONDS)

    def _answer(self, connection: HTTPConnection, url: SplitResult, wait: float | None) -> HTTPResponse:
        # The first question says how long we would wait, too: by its answer the server tells whether it can.
        said = self._asked.wait if self._tag is None else wait
        headers = {
            "Accept": "application/gzip, application/octet-stream, application/vnd.openpolicyagent.bundles",
            "Accept-Encoding": "identity",
            "Prefer": "modes=snapshot" + ("" if said is None else f";wait={max(1, int(said))}"),
            "User-Agent": "customhouse-sidecar",
        }
        if self._tag is not None:
            headers["If-None-Match"] = self._tag
        if self._asked.token_file is not None:
            headers["Authorization"] = f"Bearer {_token(self._asked.token_file)}"
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        connection.request("GET", path, headers=headers)
        return connection.getresponse()

    def _redirected(self, url: SplitResult, location: str | None) -> SplitResult:
        to = urlsplit(urljoin(url.geturl(), location or ""))
        if _origin(to) != _origin(self._url):
            raise self._failed(f"it redirects to another place, {to.scheme}://{to.hostname}", "Name that place itself")
        return to

    def _taken(self, answer: HTTPResponse) -> Bundle | Look:
        if answer.status == 304 and self._tag is not None:
            return Look.UNCHANGED
        if answer.status != 200:
            raise self._failed(f"the server answers {answer.status} {answer.reason[:60]}", _WHY.get(answer.status, ""))
        content = self._body(answer)
        digest = hashlib.sha256(content).digest()
        known = digest == self._digest
        bundle = None if known else load_archive(content, self.where)
        self._waits = self._asked.wait is not None and answer.getheader("Content-Type") == _LONG_POLLING
        self._tag, self._digest = _tag(answer.getheader("ETag")), digest
        return Look.UNCHANGED if bundle is None else bundle

    def _body(self, answer: HTTPResponse) -> bytes:
        parts: list[bytes] = []
        size = answer.length or 0
        if size <= MAX_ARCHIVE_BYTES:
            size = 0
            with self._within(BODY_SECONDS, "it took"):
                while size <= MAX_ARCHIVE_BYTES and (chunk := answer.read1(_CHUNK)):
                    parts.append(chunk)
                    size += len(chunk)
        if size > MAX_ARCHIVE_BYTES:
            raise self._failed(f"it is larger than {MAX_ARCHIVE_BYTES} bytes", "Trim the bundle's data")
        if answer.length:
            raise self._failed("the answer was cut short", "Look at the server's log")
        return b"".join(parts)

    def _failed(self, what: str, fix: str = "") -> ConfigurationError:
        return ConfigurationError(what, where=self.where, fix=fix or "Is the address right, and the server up?")


_WHY = {
    401: "Check policy.bundle.token_file: the server does not accept the token",
    403: "The token may not read the bundle",
    404: "Nothing is there: check policy.bundle.url",
}


def check_address(url: str, key: str) -> SplitResult:
    """The address, if it may be used. ConfigurationError for plain http that leaves the machine, and for a password."""
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    plain = parts.scheme == "http" and host in _LOOPBACK
    shown = parts._replace(query="", netloc=parts.netloc.rpartition("@")[2]).geturl()
    if not host or not (parts.scheme == "https" or plain):
        raise ConfigurationError(
            "not an https address",
            where=key,
            value=shown,
            fix="Use https://; plain http is for loopback addresses only.",
        )
    if parts.username is not None:
        raise ConfigurationError("a name or password in the address", where=key, value=shown, fix="Use token_file.")
    return parts


def _origin(url: SplitResult) -> tuple[str, str | None, int]:
    return url.scheme, url.hostname, url.port or (443 if url.scheme == "https" else 80)


def _trust(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"no certificate authorities: {error}", where="policy.bundle.ca", value=str(ca), fix="Give a PEM file."
        ) from None


def _token(file: Path) -> str:
    """The token as it is in the file now: whoever renews it writes it there."""
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_TOKEN + 1).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text or len(text) > MAX_TOKEN or not text.isprintable() or " " in text:
        raise ConfigurationError(
            "holds no bearer token that can be read", where=f"policy.bundle.token_file: {file}",
            fix="One line of printable ASCII, readable by the sidecar.",
        )  # fmt: skip
    return text


def _tag(tag: str | None) -> str | None:
    return tag if tag is not None and tag.isascii() and tag.isprintable() else None
