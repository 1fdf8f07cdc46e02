"""A service with the guard inside, against the same service without it: on grpc.aio, over a Unix socket.

`python -m tests.benchmarks.in_process SOCKET REPLY [SETTINGS]` serves it; with settings it is guarded. The handler gets a
decoded message and answers with one, as a service's does. When the process gets SIGUSR1 it writes into the file REPLY.count
how many calls reached the handler, and how many records wait.
"""

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import psutil
import uvloop

from sidecar.demo.profiles.v1 import profiles_pb2, profiles_pb2_grpc
from sidecar.demo.world import CONSOLE
from sidecar.main.in_process import Guard, guarding
from tests.benchmarks import h2load, rivals
from tests.benchmarks.calls import levels
from tests.benchmarks.deployment import METHOD, Deployment
from tests.benchmarks.h2load import LoadError
from tests.benchmarks.machine import SERVER
from tests.benchmarks.rivals import CONCURRENCIES, SETTLE_SECONDS, Rival
from tests.benchmarks.rows import Row
from tests.benchmarks.scale import Scale

GROUP = "in process: a grpc.aio service with the guard inside, over a Unix socket"
BARE = "the service without the guard"
GUARDED = {"miss": "guarded, written, cache miss", "hit": "guarded, written, cache hit"}
LEAST = 0.7
_COUNT_SECONDS = 10.0


def measure(deployment: Deployment, scale: Scale, say: Callable[[str], None]) -> list[Row]:
    """All of them, in turns, at concurrency 1 and 32. LoadError where one does not answer as it should."""
    found = dict(_started(deployment))
    seen, refusals = rivals.turns(found, scale, say)
    rows = [
        rivals.row(GROUP, what, concurrency, one, seen[what, concurrency], refusals.note(what, concurrency))
        for concurrency in CONCURRENCIES for what, one in found.items()
    ]  # fmt: skip
    for concurrency in CONCURRENCIES:
        for cache, what in GUARDED.items():
            ours, bare = seen[what, concurrency], seen[BARE, concurrency]
            rows.append(
                rivals.ratio(GROUP, f"guarded, cache {cache}, against unguarded", concurrency, ours, bare, LEAST)
            )
    for name in ("in-process-bare", *(f"in-process-{cache}" for cache in GUARDED)):
        deployment.stop(name)
    return rows


def _started(deployment: Deployment) -> Iterator[tuple[str, Rival]]:
    yield BARE, _service(deployment, "in-process-bare")
    for cache, what in GUARDED.items():
        name = f"in-process-{cache}"
        settings = deployment.settings(
            name, listen=[], upstream__address=None, admin=None, metrics=None, describe__reflection="off",
            **levels("written"), **({"decision__cache__entries": 0} if cache == "miss" else {}),
        )  # fmt: skip
        one = _service(deployment, name, settings)
        kept = tuple(pair for pair in deployment.request.metadata if pair[0] != "x-customhouse-purpose")
        rivals.refused(one.target, kept)
        yield what, one


def _service(deployment: Deployment, name: str, *settings: Path) -> Rival:
    folder = deployment.folder / name
    folder.mkdir(mode=0o700, exist_ok=True)
    socket, reply = folder / "0.sock", folder / "reply"
    reply.write_bytes(deployment.reply.read_bytes())
    command = [sys.executable, "-m", "tests.benchmarks.in_process", str(socket), str(reply), *map(str, settings)]
    deployment.launch(name, command, SERVER, socket.exists)
    asked, pid = deployment.request, deployment.pid(name)
    target = h2load.grpc(f"http://localhost{METHOD}", asked.body, asked.metadata, socket)
    answered = profiles_pb2.Profile.FromString(rivals.answer(target))
    whole = profiles_pb2.Profile.FromString(reply.read_bytes())
    if answered.handle != whole.handle or (settings and answered.government_id == whole.government_id):
        raise LoadError(f"{name} answers something else")
    return Rival(
        target=target, pids=(pid,), counted=lambda: (_told(pid, reply)[0],) * 2, settle=lambda: _settle(pid, reply)
    )  # fmt: skip


def _settle(pid: int, reply: Path) -> None:
    """Wait until the store has its records."""
    until = time.monotonic() + SETTLE_SECONDS
    while _told(pid, reply)[1] > 0 and time.monotonic() < until:
        time.sleep(0.1)


def _told(pid: int, reply: Path) -> tuple[int, int]:
    """Calls that reached the handler, and records that the store does not have yet."""
    count = reply.with_suffix(".count")
    count.unlink(missing_ok=True)
    psutil.Process(pid).send_signal(signal.SIGUSR1)
    until = time.monotonic() + _COUNT_SECONDS
    while not count.exists():
        if time.monotonic() > until:
            raise LoadError(f"{reply.parent.name} does not say how many calls it handled")
        time.sleep(0.01)
    handled, unsent = count.read_text(encoding="ascii").split()
    return int(handled), int(unsent)


class Profiles(profiles_pb2_grpc.ProfilesServicer):
    """Answers from memory."""

    def __init__(self, reply: bytes) -> None:
        self._reply, self.handled = profiles_pb2.Profile.FromString(reply), 0

    async def GetProfile(
        self, request: profiles_pb2.GetProfileRequest, context: grpc.aio.ServicerContext
    ) -> profiles_pb2.Profile:
        """The one profile, whoever is asked for."""
        self.handled += 1
        return self._reply

    def tell(self, file: Path, guard: Guard | None) -> None:
        """Write how many calls were handled, and how many records wait."""
        unsent = 0 if guard is None else guard.status()["spool_records"]
        beside = file.with_suffix(".new")
        beside.write_text(f"{self.handled} {unsent}", encoding="ascii")
        beside.rename(file)


async def serve(socket: str, reply: Path, settings: str | None) -> None:
    """Until SIGTERM."""
    stop, service = asyncio.Event(), Profiles(reply.read_bytes())
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    async with AsyncExitStack() as stack:
        guard = None if settings is None else await stack.enter_async_context(guarding(settings))
        loop.add_signal_handler(signal.SIGUSR1, service.tell, reply.with_suffix(".count"), guard)
        server = grpc.aio.server(interceptors=[] if guard is None else [guard.aio_interceptor(CONSOLE)])
        profiles_pb2_grpc.add_ProfilesServicer_to_server(service, server)
        server.add_insecure_port(f"unix:{socket}")
        await server.start()
        await stop.wait()
        await server.stop(2.0)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], Path(sys.argv[2]), (sys.argv[3:] or [None])[0]))
