"""Opens the doors of the settings: which part of the code serves each, and where it listens."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol, runtime_checkable

import grpc

from sidecar.attributes import entities as resources
from sidecar.attributes.routes import Routes
from sidecar.doors.check import ENVELOPE as CHECK_ENVELOPE
from sidecar.doors.check import DecisionApi
from sidecar.doors.envoy_authz import ENVELOPE, AuthorizationHandler
from sidecar.doors.envoy_process import ProcessingHandler
from sidecar.enforcement.declarations import CHECK, PROXY
from sidecar.enforcement.intercept import ProxyHandler
from sidecar.enforcement.listen import Listen, Listener
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import ConfigurationError
from sidecar.main import build
from sidecar.main.composition import Composed
from sidecar.main.given import clock, naming
from sidecar.main.seat import Seat
from sidecar.main.unhandled import Unhandled, ended_in_core


class Opened(Protocol):
    """One open door of one worker."""

    @property
    def address(self) -> str:
        """What to connect to, after `start`."""

    async def start(self) -> None:
        """Listen and serve. ConfigurationError if the address cannot be bound."""

    async def stop(self, grace: float) -> None:
        """Take no new calls; calls under way have `grace` seconds. Idempotent."""


@runtime_checkable
class Leaves(Protocol):
    """A door whose callers can be moved to another worker's before it stops."""

    async def leave(self) -> None:
        """Take no new connections, and wait until those that are open have moved, within a bound of its own."""


class Doors:
    """Makes the doors of one worker, none of them open yet.

    `worker` numbers the workers of a sidecar from 0; `share_port`: several of them listen on one port.
    """

    def __init__(
        self, parts: Composed, counted: Unhandled, log: OperatorLog, *, worker: int = 0, share_port: bool = False
    ) -> None:
        self._parts, self._counted, self._log = parts, counted, log
        self._worker, self._share_port = worker, share_port

    def made(self) -> list[Opened]:
        """One for each listener, in the order of the settings. ConfigurationError names the listener."""
        makers: Mapping[str, Callable[[Listen], Opened]] = {
            "proxy": self._proxy,
            "ext_authz": self._ext_authz,
            "ext_proc": self._ext_proc,
            "check": self._check,
            "authzen": self._authzen,
        }
        if not self._parts.settings.listen:
            raise ConfigurationError("there is no door to open", where="listen", fix="Name a listener.")
        found = []
        for position, one in enumerate(self._parts.settings.listen):
            with naming(f"listen.{position}"):
                found.append(makers[one.door](build.listen(one)))
        return found

    def _proxy(self, at: Listen) -> Opened:
        handler = ProxyHandler(self._parts.point, PROXY, at.peers(clock), self._log, self._counted.handled)
        return self._served(at, handler)

    def _ext_authz(self, at: Listen) -> Opened:
        settings, parts = self._parts.settings, self._parts
        named = None if settings.describe.resources is None else resources.load(settings.describe.resources)
        routes = Routes(named.routes, parts.describer, named.where) if named is not None and named.routes else None
        handler = AuthorizationHandler(
            parts.point, at.peers(clock), limit=settings.limits.message, clock=clock, routes=routes,
            ended=self._counted.handled,
        )  # fmt: skip
        return self._served(at, handler, envelope=ENVELOPE)

    def _ext_proc(self, at: Listen) -> Opened:
        handler = ProcessingHandler(
            self._parts.point, at.peers(clock), self._log, limit=self._parts.settings.limits.message, clock=clock,
            ended=self._counted.handled,
        )  # fmt: skip
        return self._served(at, handler, envelope=ENVELOPE)

    def _check(self, at: Listen) -> Opened:
        parts = self._parts
        api = DecisionApi(parts.point, parts.entities, parts.waiting, clock, self._log, ended=self._counted.handled)
        handler = ProxyHandler(api, CHECK, at.peers(clock), self._log)
        return self._served(at, handler, envelope=CHECK_ENVELOPE)

    def _authzen(self, at: Listen) -> Opened:
        from sidecar.main import authzen  # noqa: PLC0415 - few sidecars have this door, and it is no small one

        authzen.require_library()
        # Only here: a sidecar without this door needs no HTTP library.
        from sidecar.doors.https import HttpsListener  # noqa: PLC0415

        return HttpsListener(
            at, authzen.application(self._parts), build.limits(self._parts.settings), self._log, clock,
            worker=self._worker, share_port=self._share_port,
        )  # fmt: skip

    def _served(self, at: Listen, *handlers: grpc.GenericRpcHandler, envelope: int = 0) -> Listener:
        """`envelope`: bytes by which this door's own messages may be larger than a caller's."""
        limits = build.limits(self._parts.settings)
        limits = replace(limits, message=limits.message + envelope)
        return Listener(at, handlers, limits, self._log, worker=self._worker, share_port=self._share_port)


class Host(Protocol):
    """What carries the doors of one worker."""

    def ended(self) -> Mapping[str, int]:
        """Calls ended so far, by server: for `Unhandled`."""

    def made(self, parts: Composed, counted: Unhandled, log: OperatorLog, seat: Seat) -> list[Opened]:
        """The doors, none of them open yet. ConfigurationError names the listener."""


class GrpcHost:
    """grpc.aio servers in this process."""

    def ended(self) -> Mapping[str, int]:
        """As gRPC core counts them."""
        return ended_in_core()

    def made(self, parts: Composed, counted: Unhandled, log: OperatorLog, seat: Seat) -> list[Opened]:
        """One for each listener, in the order of the settings."""
        return Doors(parts, counted, log, worker=seat.worker, share_port=seat.shared).made()
