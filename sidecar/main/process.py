"""The sidecar as a process: composed, started, watched, and stopped in the right order."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import uvloop

from sidecar.enforcement.admin import AdminSocket, Command
from sidecar.enforcement.transport import OperatorLog
from sidecar.main import check as checked
from sidecar.main.build import clock
from sidecar.main.composition import Composed, compose
from sidecar.main.doors import Doors, Opened
from sidecar.main.policy_commands import PolicyCommands
from sidecar.main.unhandled import Unhandled
from sidecar.observability import metrics
from sidecar.observability.logs import make_logger, quiet_libraries, unhandled
from sidecar.observability.traces import Telemetry
from sidecar.settings import loader
from sidecar.settings.sidecar import SidecarSettings

DRAIN_SECONDS = 10.0
SEND_SECONDS = 3.0


def run(settings: SidecarSettings) -> None:
    """Serve until SIGTERM or SIGINT. ConfigurationError or IntegrityError when a part cannot start."""
    stats = CallStats()
    log = make_logger("sidecar", counts=stats.log_events)
    quiet_libraries(log)
    uvloop.run(_serve(settings, log, stats))


def check(settings: SidecarSettings) -> list[str]:
    """Build everything that needs no network; a line for each part. ConfigurationError or IntegrityError."""
    return checked.lines(settings)


async def _serve(settings: SidecarSettings, log: OperatorLog) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.set_exception_handler(unhandled(log))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings, log) as status:
        log.warning("ready", **{key: value for key, value in status().items() if key != "problems"})
        await stop.wait()
        log.warning("stopping", drain_seconds=DRAIN_SECONDS)


@asynccontextmanager
async def running(settings: SidecarSettings, log: OperatorLog) -> AsyncIterator[Callable[[], dict[str, object]]]:
    """Everything, running; gives what tells its status. Leaving stops the doors first and the records last."""
    if settings.identity.bind_to_workload == "none":
        log.warning("stated_risk", detail="identity.bind_to_workload is none: whoever steals a token can use it")
    async with AsyncExitStack() as stack:
        telemetry = Telemetry("customhouse-sidecar", loader.environment())
        stack.callback(telemetry.shutdown)
        parts = await compose(settings, log, telemetry, stack)
        counted = Unhandled(parts.point, log)
        stack.push_async_callback(_gathered, _watched([*parts.work(), counted.run()], log))
        stack.push_async_callback(parts.records.drain, SEND_SECONDS)
        # What a second engine has yet to check is checked while it can still be recorded.
        stack.push_async_callback(parts.standing.decisions.close)
        listeners = await _listeners(Doors(parts, counted, log), stack)

        def status() -> dict[str, object]:
            return {
                "producer": settings.producer.name,
                "listeners": [one.address for one in listeners],
                **parts.standing.status(clock()),
                **parts.records.status(),
                "problems": parts.problems(),
            }

        await _outside(parts, telemetry, counted, status, stack)
        yield status


async def _listeners(doors: Doors, stack: AsyncExitStack) -> list[Opened]:
    listeners = doors.made()
    for listener in listeners:
        await listener.start()

    async def stop() -> None:
        await asyncio.gather(*(listener.stop(DRAIN_SECONDS) for listener in listeners))

    stack.push_async_callback(stop)
    return listeners


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
    stack: AsyncExitStack,
) -> None:
    """What operators read: metrics and the admin socket."""
    settings = parts.settings
    gauges = {**parts.standing.gauges(), **parts.records.gauges(), **counted.gauges()}
    if parts.ledger is not None:
        gauges |= parts.ledger.gauges()
    if parts.shadow is not None:
        gauges |= parts.shadow.gauges()
    if telemetry.meter is not None:
        metrics.export(telemetry.meter, parts.stats, gauges)
    if settings.metrics is not None:
        host, _, port = settings.metrics.listen.rpartition(":")
        stack.callback(metrics.serve(parts.stats, gauges, host, int(port)))
    if settings.admin is not None:
        commands = PolicyCommands(parts.policy, parts.standing, parts.records.say).commands()
        shadowed = {} if parts.shadow is None else {"shadow.status": parts.shadow.status}
        admin = AdminSocket(settings.admin.socket, {"status": _asked(status), **commands, **shadowed})
        await admin.start()
        stack.push_async_callback(admin.stop)


def _asked(status: Callable[[], dict[str, object]]) -> Command:
    async def answer(_arguments: Sequence[str], _who: str) -> dict[str, object]:
        return status()

    return answer
