"""Opens the doors of the settings: which part of the code serves each, and where it listens."""

from collections.abc import Callable, Mapping
from typing import Protocol

import grpc

from sidecar.enforcement.declarations import PROXY
from sidecar.enforcement.intercept import ProxyHandler
from sidecar.enforcement.listen import Listen, Listener
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import ConfigurationError
from sidecar.main import build
from sidecar.main.build import clock
from sidecar.main.composition import Composed
from sidecar.main.unhandled import Unhandled


class Opened(Protocol):
    """One open door of one worker."""

    @property
    def address(self) -> str:
        """What to connect to, after `start`."""

    async def start(self) -> None:
        """Listen and serve. ConfigurationError if the address cannot be bound."""

    async def stop(self, grace: float) -> None:
        """Take no new calls; calls under way have `grace` seconds. Idempotent."""


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
        found = []
        for position, one in enumerate(self._parts.settings.listen):
            with build.naming(f"listen.{position}"):
                found.append(makers[one.door](build.listen(one)))
        return found

    def _proxy(self, at: Listen) -> Opened:
        return self._served(at, ProxyHandler(self._counted, PROXY, at.peers(clock), self._log))

    def _ext_authz(self, at: Listen) -> Opened:
        raise ConfigurationError("not built yet", value=at.address)

    def _ext_proc(self, at: Listen) -> Opened:
        raise ConfigurationError("not built yet", value=at.address)

    def _check(self, at: Listen) -> Opened:
        raise ConfigurationError("not built yet", value=at.address)

    def _authzen(self, at: Listen) -> Opened:
        raise ConfigurationError("not built yet", value=at.address)

    def _served(self, at: Listen, *handlers: grpc.GenericRpcHandler) -> Listener:
        limits = build.limits(self._parts.settings)
        return Listener(at, handlers, limits, self._log, worker=self._worker, share_port=self._share_port)
