"""The sidecar inside Envoy: the ASGI application that pyvoy loads. One per Envoy, on one event loop of its own thread.

It is started by `sidecar.main.hosted`, which holds the other end of a socket pair. Before Envoy listens, the whole sidecar
is composed; a failure is told over the socket and stops Envoy. When the other end goes, this one does.
"""

import asyncio
import contextlib
import pickle
import signal
import socket
import sys
from collections.abc import MutableMapping
from typing import Any, cast

import msgspec

from sidecar.doors.asgi import Receive, Scope, Send
from sidecar.errors import ConfigurationError, IntegrityError
from sidecar.main import slots
from sidecar.main.hosted_bootstrap import CLUSTER
from sidecar.main.hosted_doors import HostedDoors
from sidecar.main.process import Stopping, running
from sidecar.main.seat import Seat
from sidecar.main.worker_channel import Channel, Fault, GoneError, read
from sidecar.observability.logs import make_logger, quiet_libraries, unhandled
from sidecar.observability.metrics import CallStats
from sidecar.settings import loader
from sidecar.settings.sidecar import SidecarSettings

CHANNEL = "CUSTOMHOUSE_HOSTED_CHANNEL"
"""Environment: the number of this end of the socket pair."""
_OF_ENVOY = ("LD_PRELOAD", "PYTHONHOME", "PYTHONPATH", CHANNEL)
"""Environment that only the interpreter inside Envoy needs; programs that the sidecar starts must not have it."""
_BEGIN_SECONDS = 30.0
_NO_TIME_LIMIT = 86_400.0
"""Seconds an upstream call may last by Envoy's client, which has to be given a bound. Only unary calls go through it."""


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """To the worker, first of all. `settings` is pickled: it comes from the process that started this one.

    `python`: the interpreter for programs that the sidecar starts; in here `sys.executable` is Envoy.
    """

    worker: int
    shared: bool
    settings: bytes
    python: str


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """The lifespan of this worker, and each request in it."""
    if scope["type"] == "lifespan":
        await _Life(scope["state"]).lived(receive, send)
    else:
        await scope["state"]["doors"](scope, receive, send)


class _Life:
    """From startup to shutdown."""

    def __init__(self, state: MutableMapping[str, Any]) -> None:
        self._state = state
        self._stop = Stopping()
        self._ended = asyncio.Event()
        self._begin: asyncio.Future[Begin] = asyncio.get_running_loop().create_future()

    async def lived(self, receive: Receive, send: Send) -> None:
        """The whole of it. When Envoy is told that it is over, the records are closed."""
        await receive()
        channel = await self._channel()
        try:
            begin = await asyncio.wait_for(self._begin, _BEGIN_SECONDS)
            sys.executable = begin.python
            shutdown = await self._served(begin, channel, receive, send)
        except (ConfigurationError, IntegrityError) as error:
            with contextlib.suppress(GoneError):
                await channel.ask("failed", Fault.of(error), _BEGIN_SECONDS)
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        finally:
            self._ended.set()
        if channel.gone:
            signal.raise_signal(signal.SIGTERM)
        await shutdown
        await send({"type": "lifespan.shutdown.complete"})

    async def _channel(self) -> Channel:
        environment = cast("MutableMapping[str, str]", loader.environment())
        own = socket.socket(fileno=int(environment[CHANNEL]))
        for name in _OF_ENVOY:
            environment.pop(name, None)
        channel = await Channel.on(own)
        channel.answering({"begin": self._on_begin, "drain": self._on_drain, "hurry": self._on_hurry})
        self._reading = asyncio.create_task(channel.run())
        self._reading.add_done_callback(self._orphaned)
        return channel

    async def _served(self, begin: Begin, channel: Channel, receive: Receive, send: Send) -> "asyncio.Future[Any]":
        """Compose, serve and close; gives what waits for Envoy's end."""
        from pyvoy.asgi.httpclient import HTTPTransport  # noqa: PLC0415 - it exists inside Envoy only

        stats = CallStats()
        log = make_logger("sidecar", counts=stats.log_events)
        quiet_libraries(log)
        asyncio.get_running_loop().set_exception_handler(unhandled(log))
        settings: SidecarSettings = pickle.loads(begin.settings)  # noqa: S301 - from the process that started this one
        seat = Seat(worker=begin.worker, slots=slots.ANY if begin.shared else (0,), shared=begin.shared)
        doors = HostedDoors(HTTPTransport(CLUSTER, timeout=_NO_TIME_LIMIT), log)
        self._state["doors"] = doors

        async def listening(address: msgspec.Raw) -> None:
            doors.address = read(address, str)

        channel.answering({"listening": listening})
        async with running(settings, log, stats, seat, self._stop, doors):
            await send({"type": "lifespan.startup.complete"})
            shutdown = asyncio.ensure_future(receive())
            asked = asyncio.ensure_future(self._stop.asked.wait())
            await asyncio.wait({shutdown, asked}, return_when=asyncio.FIRST_COMPLETED)
            asked.cancel()
        return shutdown

    async def _on_begin(self, body: msgspec.Raw) -> None:
        self._begin.set_result(read(body, Begin))

    async def _on_drain(self, _body: msgspec.Raw) -> None:
        """Answered once everything is closed."""
        self._stop.ask()
        await self._ended.wait()

    async def _on_hurry(self, _body: msgspec.Raw) -> None:
        self._stop.asked.set()
        self._stop.now.set()

    def _orphaned(self, _reading: "asyncio.Task[None]") -> None:
        """Whoever started this has ended, and so nobody would stop it: stop, without delay."""
        self._stop.asked.set()
        self._stop.now.set()
