"""What the supervisor and a worker say to each other: questions and answers over the socket between them.

A socket pair that only these two processes hold; each side asks and answers. A frame is its length (32 bits, big-endian)
and a `Frame` in MessagePack. When either process ends, however it ends, the other one reads the end of the stream.
Imports no grpc.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec

from sidecar.errors import ConfigurationError, IntegrityError
from sidecar.record import RecordType

VERSION = 1
"""Of what is said. A worker from another release that says something else is refused at its start."""
MAX_FRAME = 256 << 20
"""A bundle is at most 96 MiB."""

T = TypeVar("T")
Handler = Callable[[msgspec.Raw], Awaitable[object]]
"""From what was asked to what is answered. ConfigurationError and IntegrityError reach whoever asked."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """An error on its way to the other side. `kind` is `configuration`, `integrity` or the name of another class."""

    kind: str
    what: str
    where: str = ""
    value: str | int | float | None = None
    fix: str = ""

    @classmethod
    def of(cls, error: BaseException) -> "Fault":
        """What is told of an error: all that a person can mend by, and of any other nothing but its kind."""
        if isinstance(error, ConfigurationError):
            value = error.value if isinstance(error.value, str | int | float | None) else str(error.value)
            return cls(kind="configuration", what=error.what, where=error.where, value=value, fix=error.fix)
        if isinstance(error, IntegrityError):
            return cls(kind="integrity", what=error.what, where=error.where, fix=error.fix)
        return cls(kind=type(error).__name__, what="an unexpected failure", fix="Report it with the worker's log")

    def error(self) -> ConfigurationError | IntegrityError:
        """The error, on this side."""
        if self.kind == "integrity":
            return IntegrityError(self.what, where=self.where, fix=self.fix)
        what = self.what if self.kind == "configuration" else f"{self.what} ({self.kind})"
        return ConfigurationError(what, where=self.where, value=self.value, fix=self.fix)


class Frame(msgspec.Struct, array_like=True, frozen=True):
    """`id`: of the question, which its answer repeats; 0 wants none. `name` is empty in an answer."""

    id: int
    name: str
    body: msgspec.Raw
    fault: Fault | None = None


class GoneError(Exception):
    """The other process has ended, or does not answer in time."""


class Channel:
    """One side. `run` reads until the other side is gone; each question is handled in a task of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._handlers: dict[str, Handler] = {}
        self._waiting: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked = 0
        self._encode, self._decode = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Frame)
        self.gone = False

    @classmethod
    async def on(cls, own: socket.socket) -> "Channel":
        """A channel over one end of a socket pair. On the running event loop."""
        return cls(*await asyncio.open_unix_connection(sock=own))

    def answering(self, handlers: Mapping[str, Handler]) -> None:
        """What this side answers, by name; beside what it answers already."""
        self._handlers |= handlers

    async def run(self) -> None:
        """Read until the other side is gone. Whoever waits for an answer is told so."""
        try:
            while True:
                size = int.from_bytes(await self._reader.readexactly(4), "big")
                if size > MAX_FRAME:
                    break
                self._take(self._decode.decode(await self._reader.readexactly(size)))
        except (asyncio.IncompleteReadError, ConnectionError, msgspec.DecodeError):
            pass
        finally:
            self.close()

    def close(self) -> None:
        """End it on this side. Idempotent."""
        self.gone = True
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(GoneError("the process has ended"))
        self._writer.close()

    def tell(self, name: str, body: object = None) -> None:
        """Say it, without an answer; nobody hears it when the other side is gone."""
        self._send(Frame(0, name, self._raw(body)))

    async def ask(self, name: str, body: object = None, within: float | None = None) -> msgspec.Raw:
        """The answer. Raises what the other side raised, or GoneError; that too after `within` seconds."""
        if self.gone:
            raise GoneError("the process has ended")
        self._asked += 1
        number = self._asked
        future: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._send(Frame(number, name, self._raw(body)))
            async with asyncio.timeout(within):
                return await future
        except TimeoutError:
            raise GoneError(f"the process did not answer within {within:g} s") from None
        finally:
            self._waiting.pop(number, None)

    def _raw(self, body: object) -> msgspec.Raw:
        return msgspec.Raw(self._encode.encode(body))

    def _send(self, frame: Frame) -> None:
        if not self.gone:
            data = self._encode.encode(frame)
            self._writer.write(len(data).to_bytes(4, "big") + data)

    def _take(self, frame: Frame) -> None:
        if frame.name:
            task = asyncio.get_running_loop().create_task(self._answer(frame), name=f"channel-{frame.name}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        future = self._waiting.get(frame.id)
        if future is None or future.done():
            return
        if frame.fault is None:
            future.set_result(frame.body.copy())
        else:
            future.set_exception(frame.fault.error())

    async def _answer(self, frame: Frame) -> None:
        handler, body, fault = self._handlers.get(frame.name, _unknown), self._raw(None), None
        try:
            body = self._raw(await handler(frame.body))
        except Exception as error:  # noqa: BLE001 - whatever it is, whoever asked must not wait for ever
            fault = Fault.of(error)
        if frame.id:
            self._send(Frame(frame.id, "", body, fault))


async def _unknown(_body: msgspec.Raw) -> object:
    raise ConfigurationError("nothing that this process answers", fix="Restart the sidecar: its parts differ")


def read(body: msgspec.Raw, kind: type[T]) -> T:
    """What a body holds."""
    return msgspec.msgpack.decode(body, type=kind)


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """To a worker, first of all. `settings` is pickled: it comes from the process that started this one."""

    version: int
    worker: int
    settings: bytes
    policy: "Given"


class Given(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that the supervisor has admitted: a .tar.gz, and what was proved of it by which code.

    `code`: "" where every process has to prove it for itself. `seen`: unix seconds at which its source last held it.
    """

    revision: str
    archive: bytes
    signers: tuple[str, ...]
    tests: int
    tried: int
    code: str
    source: str
    seen: float


class Composed(msgspec.Struct, frozen=True, kw_only=True):
    """From a worker that is ready to open its doors: may it? Answered once it has the policy that all others have."""

    slot: int
    revision: str


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """From a worker whose doors are open."""

    listeners: list[str]


class Activated(msgspec.Struct, frozen=True, kw_only=True):
    """To workers: record who put the policy in force, and where it came from."""

    by: str
    source: str


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """To one worker: record this event."""

    type: RecordType
    details: dict[str, str | int | bool | list[str] | None]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """To workers: a command of the admin socket."""

    name: str
    arguments: list[str]
    who: str
