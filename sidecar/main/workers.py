"""A sidecar of several workers: the supervisor.

It decides no call and imports no grpc. It follows the policy for all workers (`worker_policy_group`), starts them again
when they end (`worker_generation`), and answers on the admin socket and for metrics for all of them.

* Each worker is a process of its own, started afresh (`worker`), with a slot of the spool, an epoch and chain of records,
  and listening sockets of its own. On TCP they share the port (SO_REUSEPORT); the kernel deals out connections.
* SIGHUP reads the settings again and starts another generation of workers beside the one that serves. Once all of it is
  ready, the old one stops listening and ends what it has under way. What cannot start leaves everything as it was.
* SIGTERM lets the workers go within the bound `drain`; a second one, at once. A supervisor that dies takes its workers
  with it: they read the end of their socket and drain.
* An error at the start is raised once, whoever found it; later a worker that cannot start is tried again for as long as
  another one serves.
"""

import asyncio
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop

from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import ConfigurationError, IntegrityError
from sidecar.main.worker_crew import Crew, Failure
from sidecar.main.worker_outside import Outside
from sidecar.main.worker_program import Program, PythonProgram
from sidecar.observability.logs import make_logger, unhandled
from sidecar.observability.metrics import CallStats
from sidecar.settings.sidecar import SidecarSettings
from sidecar.spool.slot import held

Again = Callable[[], SidecarSettings]
"""Reads the settings again. ConfigurationError."""
Host = Callable[[SidecarSettings, OperatorLog], Program]
"""What the workers with these settings are. ConfigurationError when they cannot be that."""


def in_python(_settings: SidecarSettings, _log: OperatorLog) -> Program:
    """Each worker is an interpreter with grpc.aio's servers."""
    return PythonProgram()


def run(settings: SidecarSettings, again: Again, host: Host = in_python) -> None:
    """Serve until SIGTERM or SIGINT. ConfigurationError or IntegrityError when the workers cannot start."""
    uvloop.run(_Supervisor(settings, again, host).serve())


class _Supervisor:
    def __init__(self, settings: SidecarSettings, again: Again, host: Host) -> None:
        self._settings, self._again, self._host = settings, again, host
        self._stats = CallStats()
        self._log = make_logger("sidecar", counts=self._stats.log_events)
        self._stop, self._now = asyncio.Event(), asyncio.Event()
        self._failed: asyncio.Future[Failure] | None = None
        self._crew: Crew | None = None
        self._retiring: dict[asyncio.Task[None], Crew] = {}
        self._reloading: asyncio.Task[None] | None = None
        self._once_more = False
        self._spools: dict[Path, ExitStack] = {}
        self._outside = Outside(self._stats, lambda: self._crew, self._retiring.values())

    async def serve(self) -> None:
        """The whole life of the sidecar."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(unhandled(self._log))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        self._failed = loop.create_future()
        try:
            await self._begin()
            ends: set[asyncio.Future[Any]] = {loop.create_task(self._stop.wait()), self._failed}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            self._log.warning("stopping", drain_seconds=self._settings.drain)
        finally:
            await self._end()
        if self._failed.done():
            raise self._failed.result()

    async def _begin(self) -> None:
        """The first generation. A signal to stop ends it at once."""
        self._hold(self._settings)
        if self._settings.identity.bind_to_workload == "none":
            self._log.warning(
                "stated_risk", detail="identity.bind_to_workload is none: whoever steals a token can use it"
            )
        starting = asyncio.create_task(self._started(self._settings, 1))
        stopped = asyncio.create_task(self._stop.wait())
        ends: set[asyncio.Task[Any]] = {starting, stopped}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return
        self._crew = starting.result()
        await self._outside.move(self._settings)
        found = await self._outside.status()
        self._log.warning("ready", **{key: value for key, value in found.items() if key not in ("problems", "workers")},
                          workers=self._settings.workers)  # fmt: skip

    async def _started(self, settings: SidecarSettings, number: int) -> Crew:
        program = self._host(settings, self._log)
        if self._crew is None:
            program.claim()
        crew = await Crew.started(settings, program, self._log, self._stats, number)
        crew.generation.gave_up.add_done_callback(lambda gave_up: self._given_up(crew, gave_up.result()))
        return crew

    def _given_up(self, crew: Crew, failure: Failure) -> None:
        if self._failed is not None and crew is self._crew and not self._failed.done():
            self._failed.set_result(failure)

    def _ask(self) -> None:
        """Stop; asked again, at once."""
        if self._stop.is_set():
            self._now.set()
        self._stop.set()

    # -- another generation ------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._renew(), name="reload")
        else:
            self._once_more = True

    async def _renew(self) -> None:
        again = True
        while again and self._crew is not None:
            self._once_more = False
            self._log.warning("reload_begun", generation=self._crew.generation.number + 1)
            try:
                await self._replace(self._crew)
            except (ConfigurationError, IntegrityError) as error:
                self._log.error("reload_refused", detail=str(error))
            again = self._once_more

    async def _replace(self, old: Crew) -> None:
        settings = await asyncio.to_thread(self._again)
        self._hold(settings)
        try:
            with old.busy():
                crew = await self._started(settings, old.generation.number + 1)
                try:
                    await self._outside.move(settings)
                except BaseException:
                    await crew.stop(now=True)
                    raise
        except BaseException:
            if not self._retiring:
                self._release(self._settings)
            raise
        self._crew, self._settings = crew, settings
        self._log.warning("reloaded", generation=crew.generation.number, workers=settings.workers)
        task = asyncio.create_task(self._retire(old, crew), name="retire")
        self._retiring[task] = old
        task.add_done_callback(lambda _task: self._retiring.pop(task))

    async def _retire(self, old: Crew, crew: Crew) -> None:
        await old.retire(crew, self._stop, self._now)
        if len(self._retiring) == 1:
            self._release(self._settings)
        self._log.warning("generation_ended", generation=old.generation.number)

    def _hold(self, settings: SidecarSettings) -> None:
        """Keep other sidecars off its spool. ConfigurationError when one is there, or a port cannot be shared."""
        for position, one in enumerate(settings.listen):
            if not one.address.startswith("unix:") and one.address.endswith(":0"):
                raise ConfigurationError(
                    "each worker would have another port", where=f"listen.{position}.address", value=one.address,
                    fix="Name the port that all workers are to share.",
                )  # fmt: skip
        spool = settings.record.spool.absolute()
        if spool not in self._spools:
            stack = ExitStack()
            stack.enter_context(held(spool))
            self._spools[spool] = stack

    def _release(self, kept: SidecarSettings) -> None:
        """Give back the spools that nobody uses any more."""
        for spool in [one for one in self._spools if one != kept.record.spool.absolute()]:
            self._spools.pop(spool).close()

    # -- the end -----------------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        if self._reloading is not None:
            self._reloading.cancel()
            await asyncio.gather(self._reloading, return_exceptions=True)
        if self._crew is not None:
            await self._crew.stop(hurry=self._now)
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await self._outside.close()
        for stack in self._spools.values():
            stack.close()
