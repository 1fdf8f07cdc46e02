"""Listeners: one gRPC server for each place the sidecar listens on.

A request whose path is not UTF-8 stops a grpc.aio server (grpcio 1.85: the serving task ends with UnicodeDecodeError).
Calls under way go on, so each listener watches its server and puts another in its place at once.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from sidecar.enforcement.certificates import ReloadingCertificate, ServerTls
from sidecar.enforcement.peer import CertificatePeer, NamedPeer, PeerReader, UnverifiedPeer
from sidecar.enforcement.sockets import (
    SOCKET_MODE,
    connections,
    free_path,
    is_loopback,
    is_unix,
    point_to,
    stop_accepting,
)
from sidecar.enforcement.transport import Limits, OperatorLog
from sidecar.errors import ConfigurationError

WATCH_SECONDS = 0.1
DRAIN_SECONDS = 60.0
_AGE_VARIES = 1.1
"""gRPC varies the age of connections by a tenth, so that they do not all reconnect at once (gRFC A9)."""
_MOVE_SECONDS = 1.0

Handlers = Sequence[grpc.GenericRpcHandler]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """Where to listen, and how peers are known there.

    `address` is host:port (port 0: any free one) or unix:DIRECTORY. `workload` is the one workload that a Unix socket
    is for. `plaintext` allows TCP without TLS on a loopback address, for development: such callers have no identity.
    """

    address: str
    tls: ServerTls | None = None
    workload: str | None = None
    plaintext: bool = False

    def check(self) -> None:
        """ConfigurationError for a listener whose callers could not be told apart from anybody else."""
        if is_unix(self.address):
            if self.workload is None and (self.tls is None or self.tls.client_ca is None):
                raise _refused(
                    "would not know who calls", self.address, "Name its workload, or give tls with client_ca."
                )
            if self.workload is not None and self.tls is not None and self.tls.client_ca is not None:
                raise _refused("has two ways to know who calls", self.address, "Leave out workload or client_ca.")
            return
        loopback = is_loopback(self.address)
        if self.workload is not None:
            raise _refused(
                "names a workload, but anybody can open it", self.address, "Use a Unix socket, or client_ca."
            )
        if self.tls is None and not (self.plaintext and loopback):
            raise _refused(
                "would carry personal data and tokens in the clear", self.address,
                "Give tls {cert, key, client_ca}; plaintext is for loopback addresses only, and only on request.",
            )  # fmt: skip

    def peers(self, clock: Callable[[], float]) -> PeerReader:
        """How the peers of this listener are known. `clock` gives unix seconds."""
        if self.tls is not None and self.tls.client_ca is not None:
            return CertificatePeer(clock)
        return UnverifiedPeer() if self.workload is None else NamedPeer(self.workload)


class Listener:
    """One open listener of one worker.

    `worker` numbers the workers of a sidecar from 0; `share_port` is for more than one of them. Everything runs on the
    event loop that `start` was called on.
    """

    def __init__(
        self,
        listen: Listen,
        handlers: Handlers,
        limits: Limits,
        log: OperatorLog,
        *,
        worker: int = 0,
        share_port: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """ConfigurationError if the listener may not be opened this way or its certificate cannot be used."""
        listen.check()
        self._listen, self._handlers, self._limits, self._log = listen, handlers, limits, log
        self._worker, self._share_port = worker, share_port
        self._certificate = None if listen.tls is None else ReloadingCertificate(listen.tls, log, clock)
        self._server: grpc.aio.Server | None = None
        self._stopping: grpc.aio.Server | None = None
        self._leaving = False
        self._watcher: asyncio.Task[None] | None = None
        self._retired: set[asyncio.Task[None]] = set()
        self._bound = listen.address

    @property
    def address(self) -> str:
        """What to connect to, after `start`: host:port with the true port, or unix:PATH of this worker's socket."""
        return self._bound

    async def start(self) -> None:
        """Listen and serve. ConfigurationError if the address cannot be bound."""
        self._server = await self._serve()
        self._watcher = asyncio.create_task(self._watch())

    async def leave(self) -> None:
        """Take no new connections, and wait until those that are open have moved to another worker: no call is lost.

        Each is asked to once it is `Limits.connection_age` old, and may end what it has under way; `stop` comes after.
        On a Unix socket, callers of `worker-N` find the new worker when they reconnect.
        """
        self._leaving = True
        if not is_unix(self._bound):
            stop_accepting(self._bound)
        waited, longest = 0.0, self._limits.connection_age * _AGE_VARIES + _MOVE_SECONDS
        while waited < longest and await asyncio.to_thread(connections, self._bound) > 0:
            await asyncio.sleep(WATCH_SECONDS)
            waited += WATCH_SECONDS

    async def stop(self, grace: float) -> None:
        """Take no new calls; calls under way have `grace` seconds, then they are cancelled.

        Idempotent; called again with less grace, the lesser one counts.
        """
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
            self._watcher = None
        self._stopping, self._server = self._server or self._stopping, None
        if self._stopping is not None:
            await self._stopping.stop(grace)
        for task in self._retired:
            task.cancel()
        await asyncio.gather(*self._retired, return_exceptions=True)

    async def _serve(self) -> grpc.aio.Server:
        server = grpc.aio.server(
            handlers=tuple(self._handlers),
            options=self._limits.server_options(share_port=self._share_port),
            maximum_concurrent_rpcs=self._limits.streams,
        )
        if is_unix(self._listen.address):
            with free_path(Path(self._listen.address.removeprefix("unix:")), self._worker) as path:
                self._bind(server, f"unix:{path}")
                path.chmod(SOCKET_MODE)
                self._bound = f"unix:{path}"
        else:
            host, _, asked = self._bound.rpartition(":")
            self._bound = f"{host}:{self._bind(server, f'{host}:{asked}')}"
        await server.start()
        if is_unix(self._bound):
            point_to(Path(self._bound.removeprefix("unix:")), self._worker)
        return server

    def _bind(self, server: grpc.aio.Server, address: str) -> int:
        try:
            if self._certificate is None:
                return server.add_insecure_port(address)
            return server.add_secure_port(address, self._certificate.credentials())
        except RuntimeError:
            raise ConfigurationError(
                "cannot be listened on", where="listen.address", value=address,
                fix="Is another process using it, or is the address not one of this host's?",
            ) from None  # fmt: skip

    async def _watch(self) -> None:
        """Put a new server in the place of one that has stopped by itself."""
        while self._server is not None and not self._leaving:
            try:
                await self._server.wait_for_termination(WATCH_SECONDS)
            except Exception as error:  # noqa: BLE001 - whatever stopped it, callers must be served
                self._log.error(
                    "the server of a listener stopped by itself and is replaced; calls under way go on",
                    listener=self._listen.address, failure=type(error).__name__,
                )  # fmt: skip
                await self._replace(self._server)

    async def _replace(self, stopped: grpc.aio.Server) -> None:
        task = asyncio.create_task(stopped.stop(DRAIN_SECONDS))
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)
        while True:
            try:
                self._server = await self._serve()
            except ConfigurationError as error:
                self._log.error("a listener cannot be opened again yet", problem=str(error))
                await asyncio.sleep(WATCH_SECONDS)
            else:
                return


def _refused(what: str, address: str, fix: str) -> ConfigurationError:
    return ConfigurationError(what, where="listen.address", value=address, fix=fix)
