"""The admin socket: how `sidecar status` asks a running sidecar. Unix socket, mode 0700, owner only.

One line in (`status`), one JSON document out, then it closes. It changes nothing and shows no personal data.
"""

import asyncio
import json
import os
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

    async def start(self) -> None:
        """Listen. ConfigurationError when the path cannot be used; a stale socket of ours is replaced."""
        try:
            self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            if self._path.is_socket():
                self._path.unlink()
            before = os.umask(0o077)
            try:
                self._server = await asyncio.start_unix_server(self._answer, str(self._path), limit=256)
            finally:
                os.umask(before)
        except OSError as error:
            raise ConfigurationError(
                f"the admin socket cannot be opened: {error.strerror}", where=str(self._path), fix="Check admin.socket."
            ) from None

    async def stop(self) -> None:
        """Close and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

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
