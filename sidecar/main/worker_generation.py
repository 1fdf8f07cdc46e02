"""Workers that were started with the same settings: kept running, and let go together. Imports no grpc."""

import asyncio
import contextlib
import pickle
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import ConfigurationError, IntegrityError
from sidecar.main import worker_channel as said
from sidecar.main.worker_channel import Channel, Fault, Given, GoneError
from sidecar.main.worker_policy_group import GroupPolicy
from sidecar.main.worker_spares import Spares
from sidecar.settings.loader import settled
from sidecar.settings.sidecar import SidecarSettings

State = Literal["starting", "serving", "draining", "ended"]

STEADY_SECONDS = 1.0
"""A worker that ends sooner than this after it was ready has died at once, as one that was never ready has."""
MOST_UNREADY = 3
"""After so many in a row that were never ready, and with no other worker that serves, the sidecar gives up."""
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_AFTER_READY = 0.1, 30.0, 1.0
END_SECONDS = 10.0
"""What a worker has beyond the bound of its drain, to write and send its records, before it is killed."""
LEAVE_SECONDS = 25 * 3600.0
"""More than any worker waits for its callers to move: `limits.connection_age` is at most a day, give or take a tenth."""
Failure = ConfigurationError | IntegrityError


class Worker:
    """One worker process, and what is known of it. A `Member` of its group while it serves."""

    def __init__(self, number: int, group: GroupPolicy, log: OperatorLog, ready: Callable[[], None]) -> None:
        """`ready` is told when its doors are open."""
        self.number, self._group, self._log = number, group, log
        self.state: State = "starting"
        self.slot: int | None = None
        self.pid: int | None = None
        self.listeners: list[str] = []
        self.fault: Fault | None = None
        self.ready_at: float | None = None
        self.code: int | None = None
        self._ready = ready
        self._given: Given = group.given
        self._channel: Channel | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def run(self, settings: bytes, spares: Spares) -> None:
        """Start it, and return when it has ended. `settings`: pickled. Raises as `Program.started`."""
        found = await spares.take()
        self._given = self._group.given
        self._process, self._channel, self.pid = found.process, found.channel, found.process.pid
        self._channel.answering({"composed": self._composed, "opened": self._opened, "failed": self._failed})
        self._channel.tell(
            "begin", said.Begin(version=said.VERSION, worker=self.number, settings=settings, policy=self._given)
        )
        if self.state == "draining":
            self._channel.tell("stop")  # asked to go while it was being started
        try:
            self.code = await self._process.wait()
        finally:
            self.state = "ended"
            self._group.leave(self)
            await found.end()

    async def ask(self, name: str, body: object = None, within: float | None = None) -> msgspec.Raw:
        """See `Channel.ask`."""
        if self._channel is None:
            raise GoneError("the process has not begun")
        return await self._channel.ask(name, body, within)

    def tell(self, name: str, body: object = None) -> None:
        """See `Channel.tell`."""
        if self._channel is not None:
            self._channel.tell(name, body)

    def kill(self) -> None:
        """End it at once: what it owes, its successor writes."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def let_go(self) -> None:
        """No new calls, and the bound for those under way; said again, at once."""
        self.state = "draining"
        self._group.leave(self)
        self.tell("stop")

    def retire(self, group: GroupPolicy) -> "asyncio.Task[None]":
        """A newer generation serves: move callers there, and go. Until then its policy, `group`, counts here too."""
        self._group.leave(self)
        self._group, self.state = group, "draining"
        return asyncio.get_running_loop().create_task(self._retire(group), name="retire")

    async def _retire(self, group: GroupPolicy) -> None:
        try:
            await group.join(self, self._given)
        except GoneError:
            self.tell("stop")
        else:
            self.tell("retire")

    async def _composed(self, body: msgspec.Raw) -> None:
        self.slot = said.read(body, said.Composed).slot
        await self._group.join(self, self._given)

    async def _opened(self, body: msgspec.Raw) -> None:
        self.listeners = said.read(body, said.Opened).listeners
        self.ready_at = time.monotonic()
        if self.state == "starting":
            self.state = "serving"
        self._ready()

    async def _failed(self, body: msgspec.Raw) -> None:
        self.fault = said.read(body, Fault)


class Generation:
    """As many workers as the settings say. One event loop; `start` once, then `stop` once."""

    def __init__(
        self, settings: SidecarSettings, spares: Spares, group: GroupPolicy, log: OperatorLog, number: int = 1
    ) -> None:
        """`spares` are its own from now on: `stop` closes them."""
        self.settings, self._spares, self.group, self.number, self._log = settings, spares, group, number, log
        self._pickled = pickle.dumps(settled(settings))
        self.workers: dict[int, Worker] = {}
        self.restarts = dict.fromkeys(range(settings.workers), 0)
        self.gave_up: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()
        """Set with the error that no worker gets past."""
        self._keepers: list[asyncio.Task[None]] = []
        self._ready, self._halt = asyncio.Event(), asyncio.Event()
        self._started = False

    async def start(self) -> None:
        """Start all; returns when every one is ready. Raises what the first one failed with; none is left then."""
        self._keepers = [
            asyncio.create_task(self._keep(number), name=f"worker-{number}") for number in range(self.settings.workers)
        ]
        for keeper in self._keepers:
            keeper.add_done_callback(self._unkept)
        ready = asyncio.create_task(self._ready.wait())
        ends: set[asyncio.Future[Any]] = {ready, self.gave_up}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise self.gave_up.result()
            self._started = True
        finally:
            ready.cancel()
            if not self._started:
                await self.stop(now=True)

    async def retire(self, group: GroupPolicy, stop: asyncio.Event, now: asyncio.Event) -> None:
        """Move callers to a newer generation, whose policy is `group`, and return when every worker has gone.

        Once `stop` is set they are let go without waiting for their callers to move; once `now` is, at once.
        """
        self._halt.set()
        await self._spares.close()
        joining = [worker.retire(group) for worker in self.workers.values() if worker.state == "serving"]
        await asyncio.gather(*joining)
        for worker in self.workers.values():
            if worker.state == "starting":
                worker.let_go()
        hurrying = asyncio.create_task(stop.wait())
        ends: set[asyncio.Future[Any]] = {hurrying, asyncio.gather(*self._keepers)}
        await asyncio.wait(ends, timeout=LEAVE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        await self.stop(hurry=now)

    async def stop(self, *, now: bool = False, hurry: asyncio.Event | None = None) -> None:
        """Let every worker go, and return when they have gone; `now`, or once `hurry` is set, without the bound."""
        self._halt.set()
        await self._spares.close()
        for worker in self.workers.values():
            if worker.state != "ended":
                worker.let_go()
        if now:
            self._tell_again()
        bound = END_SECONDS + (0.0 if now else self.settings.drain)
        hurrying = asyncio.create_task(self._hurried(hurry))
        try:
            await asyncio.wait(self._keepers, timeout=bound)
            for worker in self.workers.values():
                if worker.state != "ended":
                    self._log.error("worker_killed", worker=worker.number, after_seconds=round(bound))
                    worker.kill()
            await asyncio.gather(*self._keepers, return_exceptions=True)
        finally:
            hurrying.cancel()

    def lost(self, part: "asyncio.Task[None]") -> None:
        """A part that all workers need has ended by itself: a sidecar that has lost a part must not go on."""
        if not part.cancelled() and not self.gave_up.done():
            self._log.error("part_ended", part=part.get_name(), error=repr(part.exception()))
            self.gave_up.set_result(ConfigurationError(
                "the policy's source is not followed any more", fix="Start the sidecar again, and report the line `part_ended`"
            ))  # fmt: skip

    def states(self) -> Mapping[str, int]:
        """How many workers are in which state."""
        found = dict.fromkeys(("starting", "serving", "draining"), 0)
        for worker in self.workers.values():
            if worker.state in found:
                found[worker.state] += 1
        return found

    async def ask(
        self, name: str, body: object = None, within: float = 2.0, state: State = "serving"
    ) -> dict[int, msgspec.Raw]:
        """The answers of the workers in this state that answer in time, by worker."""
        serving = {number: one for number, one in sorted(self.workers.items()) if one.state == state}
        asked = {number: asyncio.create_task(one.ask(name, body, within)) for number, one in serving.items()}
        await asyncio.gather(*asked.values(), return_exceptions=True)
        return {number: one.result() for number, one in asked.items() if one.exception() is None}

    async def _hurried(self, hurry: asyncio.Event | None) -> None:
        if hurry is not None:
            await hurry.wait()
            self._tell_again()

    def _tell_again(self) -> None:
        for worker in self.workers.values():
            worker.tell("stop")

    def _one_ready(self) -> None:
        if len(self.workers) == self.settings.workers and all(one.ready_at for one in self.workers.values()):
            self._ready.set()
            if self.settings.spare and not self._halt.is_set():
                self._spares.fill()

    async def _keep(self, number: int) -> None:
        """Start this worker again whenever it has ended, until the generation stops."""
        at_once = unready = 0
        while not self._halt.is_set():
            worker = self.workers[number] = Worker(number, self.group, self._log, self._one_ready)
            try:
                await worker.run(self._pickled, self._spares)
            except OSError as error:
                worker.fault = Fault(kind="configuration", what=f"no worker can be started: {error.strerror}")
            except (ConfigurationError, IntegrityError) as error:
                worker.fault = Fault.of(error)
            if self._halt.is_set():
                return
            self._report(worker)
            served = None if worker.ready_at is None else time.monotonic() - worker.ready_at
            at_once = 0 if served is not None and served >= STEADY_SECONDS else at_once + 1
            unready = 0 if served is not None else unready + 1
            if not self._started or (unready >= MOST_UNREADY and not self.states()["serving"]):
                self._give_up(worker)
                return
            self.restarts[number] += 1
            if at_once > 1:
                longest = _LONGEST_PAUSE if served is None else _LONGEST_AFTER_READY
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._halt.wait(), min(longest, _FIRST_PAUSE * 2**at_once))

    def _unkept(self, keeper: "asyncio.Task[None]") -> None:
        """A worker that nobody starts again must not be forgotten."""
        if not keeper.cancelled() and keeper.exception() is not None and not self.gave_up.done():
            self._log.error("part_ended", part=keeper.get_name(), error=repr(keeper.exception()))
            self.gave_up.set_result(ConfigurationError(
                "a worker cannot be started", fix="Start the sidecar again, and report the line `part_ended`"
            ))  # fmt: skip

    def _report(self, worker: Worker) -> None:
        # At the start there is one error for all of them, and whoever runs the command sees it.
        if self._started:
            self._log.error(
                "worker_ended", worker=worker.number, pid=worker.pid, ended=_how(worker.code), slot=worker.slot,
                detail=None if worker.fault is None else str(worker.fault.error()),
            )  # fmt: skip

    def _give_up(self, worker: Worker) -> None:
        if self.gave_up.done():
            return
        found = worker.fault.error() if worker.fault is not None else None
        self.gave_up.set_result(found or ConfigurationError(
            f"worker {worker.number} ended before it could serve ({_how(worker.code)})", fix="Its log says more"
        ))  # fmt: skip


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit {code}"
