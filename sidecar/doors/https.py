"""An HTTPS listener (RFC 9110, RFC 9112; TLS 1.2 or newer) for an application that answers one request with one answer.

Parsing is h11's; this file is the bounds around it:

* a head has 16 KiB and 10 s, a body the listener's limit and 10 s, an idle connection 60 s, a slow reader 10 s, a
  connection an hour, so that a renewed or revoked certificate takes effect;
* one request at a time on a connection; both Content-Length and Transfer-Encoding, or the latter in HTTP/1.0, is a
  request that two readers may take for different ones: refused, and the connection closed (RFC 9112, 6.1);
* with `client_ca` a client certificate is asked for, verified when there is one, and handed on; a connection without
  one is `anonymous`, gets one request, and there are at most 64 of them;
* new certificate files are taken up within a second, by new connections; what cannot be used changes nothing.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sidecar.doors.authzen_http import Application
from sidecar.doors.https_connection import Connection, Patience, Terms
from sidecar.enforcement.certificates import CHECK_SECONDS, ServerTls
from sidecar.enforcement.listen import Listen
from sidecar.enforcement.sockets import SOCKET_MODE, free_path, is_unix, point_to
from sidecar.enforcement.transport import HANDSHAKE_TIMEOUT_MS, Limits, OperatorLog
from sidecar.errors import ConfigurationError

MAX_BODY: Final = 256 << 10
ANONYMOUS: Final = 64
_BACKLOG: Final = 256


class HttpsListener:
    """One open listener of one worker. Everything runs on the event loop that `start` was called on."""

    def __init__(
        self, listen: Listen, application: Application, limits: Limits, log: OperatorLog, clock: Callable[[], float], *,
        worker: int = 0, share_port: bool = False, patience: Patience | None = None,
    ) -> None:  # fmt: skip
        """`clock` gives unix seconds. ConfigurationError if it may not be opened so or its certificate is unusable."""
        listen.check()
        self._listen, self._log, self._limits = listen, log, limits
        self._terms = Terms(
            application=application, peers=listen.peers(clock), log=log, clock=clock, patience=patience or Patience(age=limits.connection_age),
            head=limits.metadata, body=min(limits.message, MAX_BODY), most=limits.streams,
            mutual=listen.tls is not None and listen.tls.client_ca is not None,
        )  # fmt: skip
        self._worker, self._share_port = worker, share_port
        self._context = None if listen.tls is None else _context(listen.tls)
        self._files = None if listen.tls is None else _bytes(listen.tls)
        self._bound = listen.address
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._open: dict[asyncio.Task[None], Connection] = {}

    @property
    def address(self) -> str:
        """What to connect to, after `start`: host:port with the true port, or unix:PATH of this worker's socket."""
        return self._bound

    async def start(self) -> None:
        """Listen and serve. ConfigurationError if the address cannot be bound."""
        self._socket = self._bind()
        self._server = await self._serve()
        if self._listen.tls is not None:
            self._watcher = asyncio.create_task(self._follow(self._listen.tls))

    async def leave(self) -> None:
        """Take no new connections, and wait until those that are open have moved to another worker: none is cut off.

        Each is closed after the answer it waits for; `stop` comes after.
        """
        await self._close_up()
        while self._open:
            await asyncio.wait(self._open)

    async def stop(self, grace: float) -> None:
        """Take no new requests; those under way have `grace` seconds. Idempotent; the least grace given counts."""
        await self._close_up()
        if self._open:
            await asyncio.wait(self._open, timeout=grace)
        left = list(self._open)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _close_up(self) -> None:
        self._terms.closing = True
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            if is_unix(self._bound):
                _gone(Path(self._bound.removeprefix("unix:")))
        for task, connection in list(self._open.items()):
            if not connection.busy:
                task.cancel()

    def _bind(self) -> socket.socket:
        if is_unix(self._listen.address):
            with free_path(Path(self._listen.address.removeprefix("unix:")), self._worker) as path:
                made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                made.bind(str(path))
                path.chmod(SOCKET_MODE)
                made.listen(_BACKLOG)
                point_to(path, self._worker)
                self._bound = f"unix:{path}"
                return made
        host, _, port = self._listen.address.rpartition(":")
        bare = host.removeprefix("[").removesuffix("]")
        try:
            family, _, _, _, place = socket.getaddrinfo(bare, int(port), type=socket.SOCK_STREAM)[0]
            made = socket.create_server(
                (place[0], int(port)), family=family, backlog=_BACKLOG, reuse_port=self._share_port
            )
        except OSError:
            raise ConfigurationError(
                "cannot be listened on", where="listen.address", value=self._listen.address,
                fix="Is another process using it, or is the address not one of this host's?",
            ) from None  # fmt: skip
        self._bound = f"{host}:{made.getsockname()[1]}"
        return made

    async def _serve(self) -> asyncio.Server:
        if self._socket is None:
            raise ConfigurationError("is not bound", where="listen.address", value=self._listen.address)
        start = asyncio.start_unix_server if self._socket.family == socket.AF_UNIX else asyncio.start_server
        # A server closes its socket: with a copy, the next one goes on where this one was.
        mine = self._socket.dup()
        if self._context is None:
            return await start(self._connected, sock=mine)
        handshake = HANDSHAKE_TIMEOUT_MS / 1000
        return await start(self._connected, sock=mine, ssl=self._context, ssl_handshake_timeout=handshake)

    async def _follow(self, tls: ServerTls) -> None:
        """Take up new certificate files."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                found = await asyncio.to_thread(_bytes, tls)
                if found == self._files:
                    continue
                self._files = found
                self._context = await asyncio.to_thread(_context, tls)
            except ConfigurationError as error:
                self._log.error(
                    "new certificate files cannot be used; the certificate in use stays", problem=str(error)
                )
                continue
            old, self._server = self._server, await self._serve()
            if old is not None:
                old.close()
            self._log.warning("certificate taken up", file=str(tls.cert))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        connection = Connection(self._terms, reader, writer)
        full = self._terms.closing or len(self._open) >= self._limits.connections
        if connection.anonymous:
            full = full or sum(one.anonymous for one in self._open.values()) >= ANONYMOUS
        if full:
            writer.transport.abort()
            return
        self._open[task] = connection
        try:
            await connection.run()
        finally:
            del self._open[task]


def _gone(path: Path) -> None:
    path.unlink(missing_ok=True)


def _bytes(tls: ServerTls) -> tuple[bytes | None, ...]:
    return tuple(_read(path) for path in tls.files())


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None  # what is wrong with it is said when it is to be used


def _context(tls: ServerTls) -> ssl.SSLContext:
    """A context of these files, checked. ConfigurationError."""
    _, _, authorities = tls.read()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    context.num_tickets = 0  # a resumed session would not show its certificate again
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(tls.cert, tls.key, password="")
        if authorities is not None:
            context.load_verify_locations(cadata=authorities.decode("ascii", "replace"))
            context.verify_mode = ssl.CERT_OPTIONAL
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ConfigurationError(
            f"cannot be used for TLS: {type(error).__name__}", where=str(tls.cert), fix="Give PEM files that fit."
        ) from None
    return context
