"""The admin socket: how the command line asks a running sidecar. Unix socket, mode 0700, owner only.

One line in, one JSON document out, then it closes. The line is a command's name, or a JSON list of the name and its
arguments. The kernel says who asks (SO_PEERCRED, unix(7)); what they may do is decided by who may open the socket.
"""

import asyncio
import errno
import json
import os
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from sidecar.errors import ConfigurationError

Answer = Mapping[str, object]
Command = Callable[[Sequence[str], str], Awaitable[Answer]]
"""From arguments and who asks to the answer. ConfigurationError is answered as {"error": …}."""
_LINE_SECONDS = 2.0
_MAX_LINE = 16 << 10
_PEER = struct.Struct("3i")


class AdminSocket:
    """Answers by `commands`, by name."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self._path, self._commands = path, dict(commands)
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
                self._server = await asyncio.start_unix_server(self._answer, str(self._path), limit=_MAX_LINE)
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
            answer = await self._do(line, _who(writer))
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (TimeoutError, ValueError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _do(self, line: bytes, who: str) -> Answer:
        name, arguments = _words(line)
        command = self._commands.get(name)
        if command is None:
            return {"error": f"the commands are: {', '.join(sorted(self._commands))}"}
        try:
            return await command(arguments, who)
        except ConfigurationError as error:
            return {"error": str(error)}


def _words(line: bytes) -> tuple[str, Sequence[str]]:
    """The command and its arguments; an empty name for what is neither form."""
    text = line.strip()
    if not text.startswith(b"["):
        return text.decode("ascii", "replace"), ()
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return "", ()
    if not words or not all(isinstance(word, str) for word in words):
        return "", ()
    return words[0], words[1:]


def _who(writer: asyncio.StreamWriter) -> str:
    """The name of the user on the other end, or the number of one without a name."""
    _pid, uid, _gid = _PEER.unpack(
        writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    )
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
