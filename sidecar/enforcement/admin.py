"""The admin socket: how `sidecar status` asks a running sidecar. Unix socket, mode 0700, owner only.

One line in (`status`), one JSON document out, then it closes. It changes nothing and shows no personal data.
"""

import asyncio
import errno
import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from sidecar.errors import ConfigurationError

Status = Mapping[str, object]
_LINE_SECONDS = 2.0


class AdminSocket:
    """Answers status questions. `status` must not block."""

    def __init__(self, path: Path, status: Callable[[], Status]) -> None:
        self._path, self._status = path, status
        self._server: asyncio.Server | None = None
        self._own: tuple[int, int] | None = None

    async def start(self) -> None:
        """Listen. ConfigurationError when the path cannot be used; a socket on which nobody answers is replaced."""
        try:
            self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            if self._path.is_socket():
                self._replace()
            before = os.umask(0o077)
            try:
                self._server = await asyncio.start_unix_server(self._answer, str(self._path), limit=256)
            finally:
                os.umask(before)
            self._own = self._identity()
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from None

    async def stop(self) -> None:
        """Close and remove the socket; one that a successor has put there stays."""
        if self._server is not None:
            self._server.close()
            if self._own == self._identity():
                self._path.unlink(missing_ok=True)

    def _replace(self) -> None:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            if probe.connect_ex(str(self._path)) not in (errno.ECONNREFUSED, errno.ENOENT):
                raise self._unusable("another process answers on it")
        self._path.unlink(missing_ok=True)

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _unusable(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"the admin socket cannot be opened: {why}", where=str(self._path), fix="Check admin.socket."
        )

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), _LINE_SECONDS)
            known = line.strip() == b"status"
            answer = self._status() if known else {"error": "the only question is: status"}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (TimeoutError, ValueError, ConnectionError):
            pass
        finally:
            writer.close()
