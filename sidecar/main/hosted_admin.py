"""What the sidecar asks of the Envoy that it runs in: Envoy's admin interface, on a socket of the sidecar's own."""

import asyncio
import contextlib
import http.client
import os
import socket
from pathlib import Path
from typing import Final

_ANSWER_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.01


class EnvoyAdmin:
    """One Envoy's admin interface. Asked in threads: Envoy itself answers on its own."""

    def __init__(self, path: Path) -> None:
        """`path`: of its socket."""
        self._path = path

    async def live(self, seconds: float) -> bool:
        """Wait until Envoy takes connections; whether it does within so many seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while await self._asked("GET", "/ready") != b"LIVE\n":
            if loop.time() >= end:
                return False
            await asyncio.sleep(_LOOK_SECONDS)
        return True

    async def send_away(self) -> None:
        """Callers are told with their next answer to go elsewhere; what they have under way they may end here."""
        await self._asked("POST", "/drain_listeners?graceful&skip_exit")

    async def listen_no_more(self) -> None:
        """Take no new connections. Those that are open stay open."""
        await self._asked("POST", "/drain_listeners")

    async def _asked(self, verb: str, path: str) -> bytes:
        """What it answers; empty while nobody does."""

        def ask() -> bytes:
            with contextlib.closing(_Connection(self._path)) as connection:
                connection.request(verb, path)
                return connection.getresponse().read()

        try:
            return await asyncio.to_thread(ask)
        except (OSError, http.client.HTTPException):
            return b""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("envoy", timeout=_ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))
