"""The doors of the settings as one application inside Envoy: the proxy, and beside it the decision API and ext_authz."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.attributes import entities as resources
from sidecar.attributes.routes import Routes
from sidecar.doors.asgi import Receive, Scope, Send
from sidecar.doors.check import ENVELOPE as CHECK_ENVELOPE
from sidecar.doors.check import SERVICE as CHECK_SERVICE
from sidecar.doors.check import DecisionApi
from sidecar.doors.envoy_authz import CHECK as EXT_AUTHZ_METHOD
from sidecar.doors.envoy_authz import ENVELOPE, AuthorizationHandler
from sidecar.doors.hosted import HostedDoor
from sidecar.doors.hosted_authz import HostedAuthorization
from sidecar.doors.hosted_http import HostedHttp
from sidecar.doors.hosted_peers import ForwardedPeer, HostedPeers, NamedWorkload, Unverified
from sidecar.doors.hosted_upstream import EnvoyUpstream, Transport
from sidecar.enforcement.call import Door
from sidecar.enforcement.declarations import CHECK, EXT_AUTHZ, PROXY
from sidecar.enforcement.intercept import Enforcement
from sidecar.enforcement.listen import Listen
from sidecar.enforcement.peer import UnverifiedPeer
from sidecar.enforcement.sockets import connections, is_unix
from sidecar.enforcement.transport import OperatorLog
from sidecar.enforcement.upstream import NoUpstream
from sidecar.errors import ConfigurationError
from sidecar.main import build
from sidecar.main.composition import Composed
from sidecar.main.doors import Opened
from sidecar.main.given import clock
from sidecar.main.hosted_admin import EnvoyAdmin
from sidecar.main.seat import Seat
from sidecar.main.unhandled import Unhandled

if TYPE_CHECKING:  # the models are pydantic's, and a process that serves has none of it
    from sidecar.settings.sidecar import SidecarSettings

HOSTED = ("proxy", "check", "ext_authz", "authzen")
"""Doors that Envoy can host."""
_MOVE_SECONDS = 10.0
"""Callers may need this long to move once they are asked to; Envoy's `drain_timeout` is 5 s."""
_WATCH_SECONDS = 0.1
_AUTHZEN = ("/access/v1/", "/.well-known/authzen-configuration")


def only_listen(settings: "SidecarSettings") -> Listen:
    """The one place where all doors of a hosted sidecar are. ConfigurationError where there are several, or none."""
    for position, one in enumerate(settings.listen):
        if one.door not in HOSTED:
            raise ConfigurationError(
                "is not hosted in Envoy", where=f"listen.{position}.door", value=one.door,
                fix="Leave out --host envoy, or give this door to a sidecar of its own.",
            )  # fmt: skip
    found = [build.listen(one) for one in settings.listen]
    doors = [one.door for one in settings.listen]
    if not found or any(one != found[0] for one in found):
        raise ConfigurationError(
            "with --host envoy all doors are on one listener", where="listen",
            fix="Give every door the same address and tls, or workload; or leave out --host envoy.",
        )  # fmt: skip
    if len(set(doors)) != len(doors):
        raise ConfigurationError("a door stands there twice", where="listen", fix="Name each door once.")
    return found[0]


def peers(listen: Listen) -> HostedPeers:
    """How the peers of the listener are known."""
    if listen.tls is not None and listen.tls.client_ca is not None:
        return ForwardedPeer(clock)
    return Unverified() if listen.workload is None else NamedWorkload(listen.workload)


class HostedDoors:
    """The application, and the one open door of this worker. Use it as the `host` of `process.running`."""

    def __init__(
        self, transport: Transport, admin: EnvoyAdmin, bound: str, listening: Callable[[int], Awaitable[str]]
    ) -> None:
        """`bound`: host:port or unix:PATH, as the kernel knows it. `listening` has Envoy listen as this worker; where."""
        self._transport, self._admin, self._bound, self._listening = transport, admin, bound, listening
        self._doors: dict[str, HostedDoor | HostedHttp] = {}
        self._connection_age = 0.0
        self._away = False
        self.address = ""
        """What to connect to, after `start`."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """What serves one request: the door whose paths these are, else the proxy, else nobody."""
        path: str = scope["path"]
        for prefix, door in self._doors.items():
            if path.startswith(prefix):
                return door(scope, receive, send)
        return _nobody(send)

    def ended(self) -> Mapping[str, int]:
        """For `Unhandled`: requests that have ended here."""
        return {"hosted": sum(door.ended for door in self._doors.values())}

    def made(self, parts: Composed, counted: Unhandled, log: OperatorLog, seat: Seat) -> list[Opened]:
        """This, as a door of the worker. ConfigurationError as `only_listen`."""
        self._worker = seat.worker
        listen = only_listen(parts.settings)
        self._log, self._connection_age = log, build.limits(parts.settings).connection_age
        makers = {
            "check": self._check, "ext_authz": self._ext_authz, "authzen": self._authzen, "proxy": self._proxy,
        }  # fmt: skip
        named = {one.door for one in parts.settings.listen}
        for name, make in makers.items():  # the proxy last: its paths are all that are left
            if name in named:
                make(parts, counted, listen)
        return [self]

    async def start(self) -> None:
        """Have Envoy listen. ConfigurationError when it does not."""
        self.address = await self._listening(self._worker)

    async def leave(self) -> None:
        """Take no new connections, and wait until those that are open have moved to another worker: no call is lost.

        Each is asked to with its next answer, or once it is `Limits.connection_age` old. On a Unix socket, callers of
        `worker-N` find the new worker when they reconnect.
        """
        await self._send_away()
        waited, longest = 0.0, self._connection_age + _MOVE_SECONDS
        while waited < longest and await asyncio.to_thread(connections, self._bound) > 0:
            await asyncio.sleep(_WATCH_SECONDS)
            waited += _WATCH_SECONDS

    async def stop(self, grace: float) -> None:
        """Take no new calls; calls under way have `grace` seconds, then they are given up."""
        await self._send_away()
        await asyncio.gather(*(door.drain(grace) for door in set(self._doors.values())))

    async def _send_away(self) -> None:
        if self._away or not self.address:
            return
        self._away = True
        await self._admin.send_away()
        if is_unix(self.address):  # Envoy leaves it behind; nobody else has the name while Envoy answers on it
            await asyncio.to_thread(Path(self.address.removeprefix("unix:")).unlink, missing_ok=True)
        await self._admin.listen_no_more()

    def _proxy(self, parts: Composed, counted: Unhandled, listen: Listen) -> None:
        name = parts.settings.upstream.address or ""
        upstream = EnvoyUpstream(
            self._transport,
            parts.upstream or NoUpstream(),
            limit=parts.settings.limits.message,
            authority="localhost" if name.startswith("unix:") else name,
        )
        self._add("/", counted, PROXY, parts, listen, upstream=upstream)

    def _check(self, parts: Composed, counted: Unhandled, listen: Listen) -> None:
        api = DecisionApi(parts.point, parts.entities, parts.waiting, clock, self._log, ended=counted.handled)
        self._add(f"/{CHECK_SERVICE}/", api, CHECK, parts, listen, envelope=CHECK_ENVELOPE)

    def _ext_authz(self, parts: Composed, counted: Unhandled, listen: Listen) -> None:
        settings = parts.settings
        named = None if settings.describe.resources is None else resources.load(settings.describe.resources)
        routes = Routes(named.routes, parts.describer, named.where) if named is not None and named.routes else None
        handler = AuthorizationHandler(
            parts.point, UnverifiedPeer(), limit=settings.limits.message, clock=clock, routes=routes
        )
        service = HostedAuthorization(handler, counted.handled)
        self._add(EXT_AUTHZ_METHOD.rpartition("/")[0] + "/", service, EXT_AUTHZ, parts, listen, envelope=ENVELOPE)

    def _authzen(self, parts: Composed, counted: Unhandled, listen: Listen) -> None:
        from sidecar.main import authzen  # noqa: PLC0415 - as with the other host

        del counted  # its requests are no calls
        door = HostedHttp(authzen.application(parts), peers(listen), parts.settings.limits.message, self._log)
        self._doors |= dict.fromkeys(_AUTHZEN, door)

    def _add(
        self, prefix: str, served: Enforcement, door: Door, parts: Composed, listen: Listen, *,
        upstream: EnvoyUpstream | None = None, envelope: int = 0,
    ) -> None:  # fmt: skip
        limits = build.limits(parts.settings)
        limits = replace(limits, message=limits.message + envelope)
        self._doors[prefix] = HostedDoor(served, door, peers(listen), upstream, limits, self._log)


async def _nobody(send: Send) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"no door here\n", "more_body": False})
