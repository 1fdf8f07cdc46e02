"""One worker of several, started by the supervisor (`workers`) and by nobody else: `python -m sidecar.main.worker FD`.

FD is its end of the socket pair between the two. It is given its settings and its policy there, asks before it opens its
doors, answers what the supervisor asks, and stops when it is told to or when the supervisor is no more. `work` is all of
it, whatever the process is: `hosted_worker` runs it inside Envoy.
"""

import asyncio
import os
import pickle
import signal
import socket
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import uvloop
from prometheus_client import ProcessCollector

from sidecar.errors import ConfigurationError, IntegrityError
from sidecar.main import worker_channel as said
from sidecar.main.doors import Host
from sidecar.main.process import Running, Stopping, running
from sidecar.main.seat import Seat
from sidecar.main.slots import ANY
from sidecar.main.worker_channel import Channel, Fault, GoneError, Handler
from sidecar.main.worker_metrics import packed
from sidecar.main.worker_policy import GivenPolicy
from sidecar.observability.logs import make_logger, quiet_libraries, unhandled
from sidecar.observability.metrics import CallStats

if TYPE_CHECKING:  # the models are pydantic's, and a process that serves has none of it
    from sidecar.settings.sidecar import SidecarSettings


def main() -> None:
    """Serve until told to stop. Exits 0, or 1 after an error that the supervisor was told."""
    try:
        own = socket.socket(fileno=int(sys.argv[1]))
        own.set_inheritable(False)  # what this process starts must not keep the supervisor's end open
    except (IndexError, ValueError, OSError):
        sys.stderr.write("this is started by `sidecar run --workers N`\n")
        raise SystemExit(2) from None
    for number in (signal.SIGINT, signal.SIGHUP):  # of a terminal, which tells the supervisor as well
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit(uvloop.run(_told_by_signals(own)))


async def _told_by_signals(own: socket.socket) -> int:
    stop = Stopping()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.ask)
    return await work(own, stop)


async def work(own: socket.socket, stop: Stopping, host: Host | None = None) -> int:
    """Serve until `stop`, or until the supervisor says so or ends; 0, or 1 after an error that it was told.

    `own`: this end of the socket pair. `host`: what carries the doors; grpc.aio, by default.
    """
    retire = asyncio.Event()
    channel = await Channel.on(own)
    begun: asyncio.Future[said.Begin] = asyncio.get_running_loop().create_future()

    async def begin(body: msgspec.Raw) -> None:
        found = said.read(body, said.Begin)
        if not begun.done():
            begun.set_result(found)

    async def halt(_body: msgspec.Raw) -> None:
        stop.ask()

    async def give_way(_body: msgspec.Raw) -> None:
        retire.set()

    channel.answering({"begin": begin, "stop": halt, "retire": give_way})
    reading = asyncio.create_task(channel.run(), name="channel")
    reading.add_done_callback(lambda _task: stop.ask())
    try:
        return await _begun(channel, begun, stop, retire, host)
    except (ConfigurationError, IntegrityError) as error:
        return await _failed(channel, Fault.of(error))
    except GoneError:
        return 0 if stop.asked.is_set() else 1
    finally:
        channel.close()
        reading.cancel()


async def _failed(channel: Channel, fault: Fault) -> int:
    """Whoever started this process shows it: once, however many workers found the same."""
    try:
        await channel.ask("failed", fault, within=5.0)
    except GoneError:
        sys.stderr.write(f"{fault.error()}\n")
    return 1


async def _begun(
    channel: Channel, begun: "asyncio.Future[said.Begin]", stop: Stopping, retire: asyncio.Event, host: Host | None
) -> int:
    ends: set[asyncio.Future[object]] = {begun, asyncio.ensure_future(stop.asked.wait())}  # type: ignore[arg-type]
    # However long that takes: it may be a spare. When the supervisor ends, it is told to stop.
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if stop.asked.is_set() or not begun.done():
        return 0
    begin = begun.result()
    if begin.version != said.VERSION:
        raise ConfigurationError(
            "the supervisor is of another release than its workers", fix="Restart the sidecar: a reload is not enough."
        )
    settings: SidecarSettings = pickle.loads(begin.settings)  # noqa: S301 - from the process that started this one
    stats = CallStats()
    log = make_logger("sidecar", counts=stats.log_events).bind(worker=begin.worker)
    quiet_libraries(log)
    asyncio.get_running_loop().set_exception_handler(unhandled(log))
    policy = GivenPolicy(channel, begin.policy, log)

    async def may_open(slot: int) -> None:
        told = asyncio.create_task(stop.asked.wait())
        may = asyncio.create_task(channel.ask("composed", said.Composed(slot=slot, revision=policy.revision)))
        ends: set[asyncio.Task[Any]] = {told, may}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not may.done():
                raise GoneError("told to stop before it served")
            await may
        finally:
            told.cancel()
            may.cancel()

    seat = Seat(worker=begin.worker, slots=ANY, policy=policy, may_open=may_open, shared=True)
    async with running(settings, log, stats, seat, stop, host) as found:
        channel.answering(_answers(found, seat))
        await channel.ask("opened", said.Opened(listeners=[str(one) for one in found.listeners]))
        leaving = asyncio.create_task(_leave(retire, found, stop), name="leave")
        await stop.asked.wait()
        leaving.cancel()
    return 0


async def _leave(retire: asyncio.Event, found: Running, stop: Stopping) -> None:
    """Once a newer generation serves: move callers there, then stop."""
    await retire.wait()
    await found.leave()
    stop.ask()


def _answers(found: Running, seat: Seat) -> Mapping[str, Handler]:
    process = ProcessCollector(registry=None)

    async def status(_body: msgspec.Raw) -> object:
        return {"worker": seat.worker, "pid": os.getpid(), "slot": found.parts.records.slot, **found.status()}

    async def metrics(_body: msgspec.Raw) -> object:
        return packed([*found.families.collect(), *process.collect()])

    async def say(body: msgspec.Raw) -> None:
        event = said.read(body, said.Said)
        await found.parts.records.say(event.type, event.details)

    async def command(body: msgspec.Raw) -> object:
        asked = said.read(body, said.Asked)
        known = found.commands.get(asked.name)
        if known is None:
            raise ConfigurationError("no such command", value=asked.name)
        return dict(await known(asked.arguments, asked.who))

    return {"status": status, "metrics": metrics, "say": say, "command": command}


if __name__ == "__main__":
    main()
