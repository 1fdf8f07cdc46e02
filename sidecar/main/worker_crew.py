"""A generation of workers and the policy that they share, with what follows it. Imports no grpc."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from sidecar.enforcement.admin import Answer, Command
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import ConfigurationError
from sidecar.main import engines, policy_start
from sidecar.main.given import clock, reporter, unchanged
from sidecar.main.policy_commands import PolicyCommands
from sidecar.main.policy_follow import Follower, Told
from sidecar.main.worker_generation import Failure, Generation
from sidecar.main.worker_policy_group import GroupPolicy, group_admission
from sidecar.main.worker_program import Program
from sidecar.main.worker_spares import Spares
from sidecar.observability.metrics import CallStats
from sidecar.settings.sidecar import SidecarSettings

__all__ = ["Crew", "Failure"]


@dataclass(slots=True, kw_only=True)
class Crew:
    """All of it, serving. `stop` once."""

    settings: SidecarSettings
    generation: Generation
    follower: Follower
    commands: Mapping[str, Command]
    _following: "asyncio.Task[None]" = field(repr=False)
    _busy: bool = False

    @classmethod
    async def started(
        cls, settings: SidecarSettings, program: Program, log: OperatorLog, stats: CallStats, number: int
    ) -> Self:
        """Admit the policy, start the workers with it, and follow its source. Whatever fails leaves nothing behind.

        ConfigurationError or IntegrityError, as a single process would say it.
        """
        entry = policy_start.admission(settings, engines.maker(settings.decision, reporter(log)))
        source = policy_start.open_source(settings.policy.bundle)
        spares = Spares(program)
        spares.start(settings.workers)  # they import their program while the policy is tested here
        try:
            started = await asyncio.to_thread(policy_start.start, source, entry, log, clock())
            await started.active.engine.close()  # it was tried with it: none of the supervisor's decides calls
            group = GroupPolicy(started, settings.policy.max_age, log, resumable=entry.resumable)
        except BaseException:
            await spares.close()
            raise
        generation = Generation(settings, spares, group, log, number)
        await generation.start()
        told = Told(say=group.say, changed=unchanged, log=log, stats=stats)
        follower = Follower(source, group_admission(entry, group), group, started, told)
        following = asyncio.create_task(follower.run(), name="policy")
        following.add_done_callback(generation.lost)
        return cls(
            settings=settings, generation=generation, follower=follower,
            commands=PolicyCommands(follower, group, group.say).commands(),
            _following=following,
        )  # fmt: skip

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Another generation begins: nobody changes the policy of this one, or the two would differ."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    async def command(self, name: str, arguments: list[str], who: str) -> Answer:
        """A command about the policy. ConfigurationError."""
        if self._busy and name != "policy.status":
            raise ConfigurationError("the sidecar is being reloaded", fix="Try again in a few seconds.")
        return await self.commands[name](arguments, who)

    def problems(self) -> list[str]:
        """What an operator has to mend, of what no worker knows."""
        found = []
        if self.follower.kept.problem is not None:
            found.append(
                f"policy: it would not survive a restart, since it cannot be kept: {self.follower.kept.problem}"
            )
        for number, worker in sorted(self.generation.workers.items()):
            if worker.state != "serving":
                times = self.generation.restarts[number]
                why = "" if worker.fault is None else f": {worker.fault.error()}"
                found.append(f"worker {number} is {worker.state}, started again {times} times{why}")
        return found

    async def retire(self, newer: "Crew", stop: asyncio.Event, now: asyncio.Event) -> None:
        """`newer` serves: follow no more, and move the callers of these workers there."""
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)
        await self.generation.retire(newer.generation.group, stop, now)

    async def stop(self, *, now: bool = False, hurry: asyncio.Event | None = None) -> None:
        """Follow no more, and let the workers go."""
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)
        await self.generation.stop(now=now, hurry=hurry)
