"""The sidecar inside Envoy: the ASGI application that pyvoy loads. One per Envoy, on one event loop of its own thread.

It is a worker as any other (`worker.work`), started by `sidecar.main.hosted`. Before Envoy listens the whole sidecar is
composed; a failure is told to the supervisor and stops Envoy. Once its records are closed, it ends its Envoy.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import Coroutine, MutableMapping
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from sidecar.doors.asgi import Receive, Scope, Send
from sidecar.enforcement.sockets import free_path, point_to
from sidecar.errors import ConfigurationError
from sidecar.main import worker
from sidecar.main.hosted_admin import EnvoyAdmin
from sidecar.main.hosted_bootstrap import CLUSTER
from sidecar.main.hosted_doors import HostedDoors
from sidecar.main.hosted_turns import take_turns
from sidecar.main.process import Stopping
from sidecar.settings.environment import environment

GIVEN: Final = "CUSTOMHOUSE_HOSTED"
"""Environment: `Given`."""
READY_SECONDS: Final = 60.0
_OF_ENVOY = ("LD_PRELOAD", "PYTHONHOME", "PYTHONPATH", GIVEN)
"""Environment that only the interpreter inside Envoy needs; programs that the sidecar starts must not have it."""
_NO_TIME_LIMIT = 86_400.0
"""Seconds an upstream call may last by Envoy's client, which has to be given a bound. Only unary calls go through it."""


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """What whoever starts Envoy tells the worker inside it.

    `channel`: the number of its end of the socket pair. `admin`: Envoy's admin socket. `bind`: host:port, or the path of
    the socket that Envoy makes, to be renamed. `python`: the interpreter for programs that the sidecar starts; inside
    Envoy `sys.executable` is Envoy.
    """

    channel: int
    admin: str
    bind: str
    python: str

    def text(self) -> str:
        """As it stands in the environment."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def read(cls, text: str) -> Self:
        """The opposite."""
        return msgspec.json.decode(text, type=cls)


class _Worker:
    """What pyvoy calls. It gives the coroutine that serves, so that none stands between that and the task it runs in."""

    _asgi_single_callable = True
    """Says to pyvoy (as to others, asgiref's `guarantee_single_callable`) that this is an ASGI 3 application."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """The lifespan of this worker, and each request in it."""
        if scope["type"] == "lifespan":
            return _Life(scope["state"], receive, send).lived()
        doors: HostedDoors = scope["state"]["doors"]
        return doors(scope, receive, send)


application = _Worker()


class _Life:
    """From startup to shutdown."""

    def __init__(self, state: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        self._state, self._receive, self._send = state, receive, send
        self._stop = Stopping()
        self._shutdown: asyncio.Future[Any] | None = None
        """That Envoy ends; None until it has been told to serve."""

    async def lived(self) -> None:
        """The whole of it. When Envoy is told that it is over, the records are closed."""
        from pyvoy.asgi.httpclient import HTTPTransport  # noqa: PLC0415 - it exists inside Envoy only

        await self._receive()
        given = _given()
        take_turns()
        self._admin = EnvoyAdmin(Path(given.admin))

        async def listening(number: int) -> str:
            return await self._listening(given, number)

        bound = f"unix:{given.bind}" if Path(given.bind).is_absolute() else given.bind
        doors = HostedDoors(HTTPTransport(CLUSTER, timeout=_NO_TIME_LIMIT), self._admin, bound, listening)
        self._state["doors"] = doors
        try:
            await worker.work(socket.socket(fileno=given.channel), self._stop, doors)
        finally:
            await self._ended()

    async def _listening(self, given: Given, number: int) -> str:
        """Let Envoy listen as this worker, now that all is composed; where. ConfigurationError when it does not."""
        await self._send({"type": "lifespan.startup.complete"})
        self._shutdown = asyncio.ensure_future(self._receive())
        self._shutdown.add_done_callback(lambda _done: self._stop.ask())
        if not await self._admin.live(READY_SECONDS):
            raise ConfigurationError(
                f"the Envoy that hosts the sidecar was not ready after {READY_SECONDS:g} s", where="--host envoy",
                fix="Its own lines in the log say why; `sidecar check-config` tries the settings without it.",
            )  # fmt: skip
        made = Path(given.bind)
        if not made.is_absolute():
            return given.bind
        return await asyncio.to_thread(_published, made, number)

    async def _ended(self) -> None:
        if self._shutdown is None:
            await self._send({"type": "lifespan.startup.failed", "message": "the sidecar does not serve"})
            return
        if not self._shutdown.done():
            signal.raise_signal(signal.SIGTERM)
        await self._shutdown
        await self._send({"type": "lifespan.shutdown.complete"})


def _given() -> Given:
    found = environment()
    given = Given.read(found[GIVEN])
    for name in _OF_ENVOY:
        found.pop(name, None)
    sys.executable = given.python
    return given


def _published(made: Path, number: int) -> str:
    """The socket that Envoy has made, under the name of this worker; that is `unix:PATH`."""
    with free_path(made.parent, number) as path:
        made.rename(path)
    point_to(path, number)
    return f"unix:{path}"
