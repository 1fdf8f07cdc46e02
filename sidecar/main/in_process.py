"""The sidecar as a part of the service itself: the same enforcement point and records, without a process of its own.

```python
async with guarding("sidecar.yaml") as guard:
    server = grpc.aio.server(interceptors=[guard.aio_interceptor()])
    app = guard.asgi(app)                                   # HTTP with JSON, by the routes of describe.resources
with guarding_threads("sidecar.yaml") as guard:             # for grpc.server
    server = grpc.server(pool, interceptors=[guard.interceptor()])
```

The settings are those of `sidecar run`, without `listen` and `upstream.address`. Each process takes a free slot of the
spool. A part that ends by itself closes the guard: every call after that is refused, as a sidecar that has stopped would.
What is lost compared to a sidecar: whoever can change the service's process can leave the guard out (docs/in-process.md).
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from sidecar.attributes import entities as resources
from sidecar.attributes.routes import Routes
from sidecar.completions import take_together
from sidecar.doors.asgi import Application, Guarded, NamedPeers, TlsPeers
from sidecar.doors.interceptor import AioInterceptor, SyncInterceptor
from sidecar.enforcement.call import AnswerSink, Call, Final, Reply, Upstream
from sidecar.enforcement.intercept import Enforcement
from sidecar.enforcement.peer import CertificatePeer, NamedPeer, PeerReader
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import Code, ConfigurationError
from sidecar.main.composition import Composed, compose
from sidecar.main.given import clock, naming
from sidecar.main.process import SEND_SECONDS
from sidecar.main.seat import Seat
from sidecar.main.slots import ANY
from sidecar.observability.logs import make_logger
from sidecar.observability.metrics import CallStats
from sidecar.observability.telemetry import Telemetry
from sidecar.settings import loader
from sidecar.settings.environment import environment
from sidecar.settings.sidecar import SidecarSettings

THREADS = 64
"""Calls of plain functions at once, unless said otherwise."""
_CLOSED = Final(code=Code.UNAVAILABLE, message="the guard of this service has stopped", retry_after=1.0)


class Guard:
    """The enforcement point of this process, and the doors to it."""

    def __init__(self, parts: Composed, threads: int) -> None:
        self._parts, self._loop = parts, asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="guarded")
        self._readers = ThreadPoolExecutor(threads, thread_name_prefix="guarded-reader")
        self._point = _Open(parts.point)

    def aio_interceptor(self, workload: str | None = None) -> AioInterceptor:
        """For `grpc.aio.server`, first of its interceptors.

        Callers are known by their client certificates; `workload` is for a Unix socket that only this workload can open.
        """
        return AioInterceptor(self._point, _peers(workload), self._parts.log, self._threads)

    def interceptor(self, workload: str | None = None) -> SyncInterceptor:
        """For `grpc.server`, likewise."""
        return SyncInterceptor(
            self._point, _peers(workload), self._parts.log, self._loop, threads=self._threads, readers=self._readers
        )

    def asgi(self, app: Application, *, workload: str | None = None, unguarded: Iterable[str] = ()) -> Guarded:
        """`app`, guarded by the routes of `describe.resources`. ConfigurationError without any."""
        settings = self._parts.settings
        file = settings.describe.resources
        if file is None:
            raise ConfigurationError(
                "no routes are described", where="describe.resources", fix="Name a file with routes."
            )
        with naming("describe.resources"):
            found = resources.load(file)
            routes = Routes(found.routes, self._parts.describer, found.where)
        peers = TlsPeers(clock) if workload is None else NamedPeers(workload)
        return Guarded(
            app, self._point, routes, peers, self._parts.log, unguarded=unguarded, limit=settings.limits.message
        )

    def status(self) -> dict[str, object]:
        """As `sidecar status` would tell."""
        parts = self._parts
        return {
            "producer": parts.settings.producer.name, "open": self._point.open,
            **parts.standing.status(clock()), **parts.records.status(), "problems": parts.problems(),
        }  # fmt: skip

    def close(self) -> None:
        """From now on every call is refused."""
        self._point.open = False
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._readers.shutdown(wait=False, cancel_futures=True)

    def broken(self, task: "asyncio.Task[None]") -> None:
        """A part of the guard has ended by itself."""
        if not task.cancelled():
            self._point.open = False
            self._parts.log.error("part_ended", part=task.get_name(), error=repr(task.exception()))


class _Open:
    """The enforcement point while nothing of it is missing."""

    def __init__(self, point: Enforcement) -> None:
        self._point, self.open = point, True

    def kind(self, method: str) -> str | None:
        """As the enforcement point says."""
        return self._point.kind(method)

    def unary(self, call: Call, request: bytes, upstream: Upstream | None = None) -> Coroutine[Any, Any, Reply]:
        """A whole unary call."""
        return self._point.unary(call, request, upstream) if self.open else _refused()

    async def stream(
        self, call: Call, requests: AsyncIterator[bytes], answer: AnswerSink, upstream: Upstream | None = None
    ) -> Final:
        """A call of any kind."""
        return await self._point.stream(call, requests, answer, upstream) if self.open else _CLOSED


async def _refused() -> Reply:
    return Reply(message=None, headers=(), final=_CLOSED)


@asynccontextmanager
async def guarding(
    settings: SidecarSettings | Path | str, *, log: OperatorLog | None = None, threads: int = THREADS
) -> AsyncIterator[Guard]:
    """A guard on the running event loop; leaving ends its records. Stop the server first.

    ConfigurationError or IntegrityError when a part cannot start: serve nothing then.
    """
    said = (
        settings
        if isinstance(settings, SidecarSettings)
        else loader.load(Path(settings), SidecarSettings, environment())
    )
    take_together(asyncio.get_running_loop())
    stats = CallStats()
    found = log or make_logger("sidecar", counts=stats.log_events)
    async with AsyncExitStack() as stack:
        telemetry = Telemetry("customhouse-sidecar", environment())
        stack.callback(telemetry.shutdown)
        parts = await compose(said, found, telemetry, stats, stack, Seat(slots=ANY))
        guard = Guard(parts, threads)
        tasks = [asyncio.create_task(one, name=str(getattr(one, "__qualname__", one))) for one in parts.work()]
        for task in tasks:
            task.add_done_callback(guard.broken)
        try:
            yield guard
        finally:
            guard.close()
            await parts.standing.decisions.close()
            await parts.records.drain(SEND_SECONDS)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@contextmanager
def guarding_threads(
    settings: SidecarSettings | Path | str, *, log: OperatorLog | None = None, threads: int = THREADS
) -> Iterator[Guard]:
    """As `guarding`, on an event loop in a thread of its own."""
    ready = threading.Event()
    found: list[Guard | BaseException] = []
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        async with guarding(settings, log=log, threads=threads) as guard:
            found.append(guard)
            ready.set()
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:  # noqa: BLE001 - told to whoever waits
            found.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run, name="guard", daemon=True)
    thread.start()
    ready.wait()
    if not isinstance(found[0], Guard):
        raise found[0]
    try:
        yield found[0]
    finally:
        loop, stop = loops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def _peers(workload: str | None) -> PeerReader:
    return CertificatePeer(clock) if workload is None else NamedPeer(workload)
