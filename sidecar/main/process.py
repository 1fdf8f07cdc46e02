"""The sidecar as a process: composed, started, watched, and stopped in the right order."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import uvloop

from sidecar.completions import take_together
from sidecar.enforcement.admin import AdminSocket, Command
from sidecar.enforcement.transport import OperatorLog
from sidecar.main.composition import Composed, compose
from sidecar.main.doors import GrpcHost, Host, Leaves, Opened
from sidecar.main.gauges import whole
from sidecar.main.given import clock
from sidecar.main.heap import settle
from sidecar.main.policy_commands import PolicyCommands
from sidecar.main.records import Records
from sidecar.main.seat import ALONE, Seat
from sidecar.main.unhandled import Unhandled
from sidecar.observability.exposition import Exposition
from sidecar.observability.logs import make_logger, quiet_libraries, settled_for_good, unhandled
from sidecar.observability.metrics import CallStats
from sidecar.observability.outside import show
from sidecar.observability.telemetry import Telemetry
from sidecar.settings.environment import environment
from sidecar.spool.slot import held

if TYPE_CHECKING:  # the models are pydantic's, and a process that serves has none of it
    from sidecar.settings.sidecar import SidecarSettings

SEND_SECONDS = 3.0
_TELL_SECONDS = 1.0
"""So long before the bound of the drain, streams that are still open are ended with a status that says why."""


def run(settings: "SidecarSettings") -> None:
    """Serve until SIGTERM or SIGINT. ConfigurationError or IntegrityError when a part cannot start."""
    stats = CallStats()
    log = make_logger("sidecar", counts=stats.log_events)
    quiet_libraries(log)
    uvloop.run(_serve(settings, log, stats))


def check(settings: "SidecarSettings") -> list[str]:
    """Build everything that needs no network; a line for each part. ConfigurationError or IntegrityError."""
    from sidecar.main.check import lines  # noqa: PLC0415 - a process that serves has no use for it

    return lines(settings)


async def _serve(settings: "SidecarSettings", log: OperatorLog, stats: CallStats) -> None:
    stop, loop = Stopping(), asyncio.get_running_loop()
    loop.set_exception_handler(unhandled(log))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.ask)
    settled_for_good(loop, log)
    with held(settings.record.spool):
        async with running(settings, log, stats, stop=stop) as found:
            log.warning("ready", **{key: value for key, value in found.status().items() if key != "problems"})
            await stop.asked.wait()
            log.warning("stopping", drain_seconds=settings.drain)


class Stopping:
    """Whether this process is to stop: calls under way have the bound of the drain; asked twice, they have no time."""

    def __init__(self) -> None:
        self.asked, self.now = asyncio.Event(), asyncio.Event()

    def ask(self) -> None:
        """Stop; said again, at once."""
        if self.asked.is_set():
            self.now.set()
        self.asked.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A sidecar process that serves: what it tells of itself, and what it can be asked besides."""

    status: Callable[[], dict[str, object]]
    families: Exposition
    commands: Mapping[str, Command]
    listeners: Sequence[str]
    parts: Composed
    leave: Callable[[], Awaitable[None]]
    """Take no new connections, and wait until callers have moved to other workers."""


@asynccontextmanager
async def running(
    settings: "SidecarSettings", log: OperatorLog, stats: CallStats, seat: Seat = ALONE, stop: Stopping | None = None,
    host: Host | None = None,
) -> AsyncIterator[Running]:  # fmt: skip
    """Everything, running. Leaving stops the doors first and the records last. `host`: grpc.aio, by default."""
    stop, host = stop or Stopping(), host or GrpcHost()
    take_together(asyncio.get_running_loop())
    if settings.identity.bind_to_workload == "none":
        log.warning("stated_risk", detail="identity.bind_to_workload is none: whoever steals a token can use it")
    async with AsyncExitStack() as stack:
        telemetry = Telemetry("customhouse-sidecar", environment())
        stack.callback(telemetry.shutdown)
        parts = await compose(settings, log, telemetry, stats, stack, seat)
        counted = Unhandled(parts.point, log, host.ended)
        stack.push_async_callback(_gathered, _watched([*parts.work(), counted.run()], log))
        stack.push_async_callback(_sent, parts.records, stop)
        # What a second engine has yet to check is checked while it can still be recorded.
        stack.push_async_callback(parts.standing.decisions.close)
        # Nobody can report any more what was permitted and not reported yet.
        stack.push_async_callback(parts.waiting.close)
        settle()
        await seat.may_open(parts.records.slot)
        listeners = await _listeners(host.made(parts, counted, log, seat), parts, stop, stack)

        def status() -> dict[str, object]:
            return {
                "producer": settings.producer.name,
                "listeners": [one.address for one in listeners],
                **parts.standing.status(clock()),
                **parts.records.status(),
                "problems": parts.problems(),
            }

        families, commands = await _outside(parts, telemetry, counted, status, seat, stack)
        yield Running(
            status=status, families=families, commands=commands, listeners=[one.address for one in listeners],
            parts=parts, leave=lambda: _left(listeners),
        )  # fmt: skip


async def _left(listeners: Sequence[Opened]) -> None:
    await asyncio.gather(*(one.leave() for one in listeners if isinstance(one, Leaves)))


async def _listeners(listeners: list[Opened], parts: Composed, stop: Stopping, stack: AsyncExitStack) -> list[Opened]:
    stack.push_async_callback(_drained, listeners, parts, stop)
    for listener in listeners:
        await listener.start()
    return listeners


async def _drained(listeners: Sequence[Opened], parts: Composed, stop: Stopping) -> None:
    """No new calls; those under way have the bound, and streams are told before it; none of it once it is to be now."""
    bound = parts.settings.drain
    draining: asyncio.Future[list[None]] = asyncio.gather(*(listener.stop(bound) for listener in listeners))
    hurried: asyncio.Future[Any] = asyncio.ensure_future(stop.now.wait())
    ends: set[asyncio.Future[Any]] = {draining, hurried}
    try:
        for seconds in (bound - min(_TELL_SECONDS, bound / 4), None):
            await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if draining.done():
                break
            parts.point.dismiss()
        if not draining.done():
            await asyncio.gather(*(listener.stop(0.0) for listener in listeners))
        await draining
    finally:
        hurried.cancel()


async def _sent(records: Records, stop: Stopping) -> None:
    await records.drain(0.0 if stop.now.is_set() else SEND_SECONDS)


def _watched(work: list[Coroutine[Any, Any, None]], log: OperatorLog) -> list[asyncio.Task[None]]:
    """Background tasks. One that ends by itself stops the process: a sidecar that has lost a part must not go on."""
    loop = asyncio.get_running_loop()

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            log.error("part_ended", part=task.get_name(), error=repr(task.exception()))
            signal.raise_signal(signal.SIGTERM)

    tasks = [loop.create_task(one, name=str(getattr(one, "__qualname__", one))) for one in work]
    for task in tasks:
        task.add_done_callback(ended)
    return tasks


async def _gathered(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _outside(
    parts: Composed,
    telemetry: Telemetry,
    counted: Unhandled,
    status: Callable[[], dict[str, object]],
    seat: Seat,
    stack: AsyncExitStack,
) -> tuple[Exposition, Mapping[str, Command]]:
    """What operators read: metrics and the admin socket. Where there are several workers, the supervisor has both."""
    settings = parts.settings
    gauges = {**parts.standing.gauges(), **parts.records.gauges(), **counted.gauges()}
    if parts.ledger is not None:
        gauges |= parts.ledger.gauges()
    if parts.shadow is not None:
        gauges |= parts.shadow.gauges()
    gauges |= whole(settings, cache=parts.cache, tokens=parts.tokens, problems=parts.problems, clock=clock)
    listen = None if settings.metrics is None or seat.shared else settings.metrics.listen
    families = show(parts.stats, gauges, listen, telemetry, stack)
    commands: dict[str, Command] = {"status": _asked(status)}
    if parts.policy is not None:
        commands |= PolicyCommands(parts.policy, parts.standing, parts.records.say).commands()
    if parts.shadow is not None:
        commands["shadow.status"] = parts.shadow.status
    if settings.admin is not None and not seat.shared:
        admin = AdminSocket(settings.admin.socket, commands)
        await admin.start()
        stack.push_async_callback(admin.stop)
    return families, commands


def _asked(status: Callable[[], dict[str, object]]) -> Command:
    async def answer(_arguments: Sequence[str], _who: str) -> dict[str, object]:
        return status()

    return answer
