"""The policy of all workers, followed once: in the supervisor.

One process reads the source, checks signatures, runs the bundle's tests, keeps what was in force, and holds a person's
pin. What it admits every worker makes ready first (`prepare`); only when all of them have, it is kept and put in force in
each. So no bundle is in force in some workers only, beyond the time a message takes, and a worker that starts in between
begins with what is in force, pinned or not. Imports no grpc.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, Protocol

from sidecar.decision.activation import Activated
from sidecar.decision.archive import exact, write_archive
from sidecar.decision.bundle import Bundle
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import ConfigurationError, IntegrityError
from sidecar.main.policy_admission import Admission
from sidecar.main.policy_start import Started
from sidecar.main.proven import proving_code
from sidecar.main.standing import Announce
from sidecar.main.worker_channel import Activated as ActivatedBy
from sidecar.main.worker_channel import Given, GoneError, Said
from sidecar.record import RecordType

PREPARE_SECONDS = 120.0
"""How long a worker may take to make a policy ready: with an engine that is another program it runs all tests again."""
SUCCESSOR_SECONDS = 3.0
"""About how long a worker takes to start."""
PUT_SECONDS = 10.0
"""A worker that has not put the policy in force by then is ended, and its successor begins with it."""


class Member(Protocol):
    """A worker that decides calls, or is about to."""

    @property
    def number(self) -> int:
        """Of the worker."""

    async def ask(self, name: str, body: object = None, within: float | None = None) -> object:
        """See `Channel.ask`."""

    def tell(self, name: str, body: object = None) -> None:
        """See `Channel.tell`."""

    def kill(self) -> None:
        """End it at once."""


@dataclass(frozen=True, slots=True)
class _Answering:
    """What stands where a process that decides has its `Current`."""

    active: Activated

    @property
    def name(self) -> str:
        """The engine's word in records."""
        return self.active.engine.name


class GroupPolicy:
    """What is in force in all workers. One event loop. It is to the `Follower` what `InForce` is in a single process."""

    def __init__(
        self,
        started: Started,
        max_age: float,
        log: OperatorLog,
        *,
        resumable: bool,
        successor: float = SUCCESSOR_SECONDS,
    ) -> None:
        """`started` is in force from the start; `resumable`: what was proved here holds for the workers' engines too.

        `successor`: seconds after which a worker that has ended is there again.
        """
        self.decisions = _Answering(started.active)
        self._max_age, self._log, self._resumable, self._successor = max_age, log, resumable, successor
        self._seen_at, self._problem = started.seen, started.problem
        self.given = self._packed(started.active, started.source)
        self._members: set[Member] = set()
        self._putting: set[asyncio.Task[None]] = set()

    # -- workers -----------------------------------------------------------------------------------------------------

    async def join(self, member: Member, begun_with: Given) -> None:
        """Count this worker in, once it has the policy in force; it may open its doors then.

        GoneError when it cannot be given it.
        """
        given = begun_with
        while given is not self.given:
            given = self.given
            await self._given_to(member, given)
        # No await between these: what is put in force from now on reaches it.
        self._members.add(member)
        member.tell("tell", self._problem)
        member.tell("seen", self._seen_at)

    async def _given_to(self, member: Member, given: Given) -> None:
        try:
            await member.ask("put", given, PREPARE_SECONDS)
        except (ConfigurationError, IntegrityError) as error:
            raise GoneError(str(error)) from None

    def leave(self, member: Member) -> None:
        """This worker has ended."""
        self._members.discard(member)

    async def prepare(self, active: Activated, source: str) -> None:
        """Have every worker make it ready. ConfigurationError when one cannot: then nothing has changed anywhere.

        A worker that ends meanwhile may have ended by it: it is tried once more with its successor.
        """
        given, gone, members = self._packed(active, source), "", list(self._members)
        for wait in (self._successor, 0.0):
            members = list(self._members)
            failed = await _each(members, "prepare", given, PREPARE_SECONDS)
            if members and not failed:
                return
            refused = {one: why for one, why in failed.items() if not isinstance(why, GoneError)}
            for member, why in refused.items():
                await self._abort(members)
                raise self._refused(source, f"worker {member.number} cannot use it: {why}")
            gone = next((f"worker {member.number} ended while it tried it" for member in failed), gone)
            await asyncio.sleep(wait)
        await self._abort(members)
        raise self._refused(source, gone or "no worker is there to try it")

    async def _abort(self, members: list[Member]) -> None:
        await _each([one for one in members if one in self._members], "abort", None, PUT_SECONDS)

    def _refused(self, source: str, why: str) -> ConfigurationError:
        fix = "Nothing has changed: the policy before stays in force in every worker"
        return ConfigurationError(why, where=source, fix=fix)

    async def say(self, kind: RecordType, details: Mapping[str, str | int | bool | list[str] | None]) -> None:
        """Have one of the workers record an event."""
        for member in sorted(self._members, key=lambda one: one.number):
            try:
                await member.ask("say", Said(type=kind, details=dict(details)), PUT_SECONDS)
            except (GoneError, ConfigurationError):
                continue
            return
        self._log.error("event_owed", type=kind, detail="no worker can record it")

    # -- as the follower sees it -------------------------------------------------------------------------------------

    def put(self, active: Activated, *, seen: float | None) -> None:
        """From now on, this bundle, in every worker."""
        self.decisions = _Answering(active)
        self._seen_at = self._seen_at if seen is None else seen
        self.given = self._packed(active, self.given.source)
        for member in self._members:
            self._do(self._put(member, self.given))

    async def _put(self, member: Member, given: Given) -> None:
        try:
            await member.ask("put", given, PUT_SECONDS)
        except GoneError:
            member.kill()
        except (ConfigurationError, IntegrityError) as error:
            self._log.error("worker_behind", revision=given.revision, detail=str(error))
            member.kill()

    async def activated(self, say: Announce, by: str, source: str) -> None:
        """Record which policy is in force from now on: in each worker's own records, since each decides by it."""
        del say
        self.given = _from(self.given, source)
        await asyncio.gather(*self._putting)
        await _each(list(self._members), "activated", ActivatedBy(by=by, source=source), PUT_SECONDS)

    def seen(self, now: float) -> None:
        """The source holds the bundle in force."""
        self._seen_at = now
        for member in self._members:
            member.tell("seen", now)

    def tell(self, problem: str | None) -> None:
        """Why the source's bundle is not the one in force; None while it is."""
        if problem != self._problem:
            self._problem = problem
            for member in self._members:
                member.tell("tell", problem)

    def policy_age(self, now: float) -> float:
        """Seconds since the source was last seen to hold the bundle in force."""
        return max(0.0, now - self._seen_at)

    @property
    def problem(self) -> str | None:
        """As last told."""
        return self._problem

    @property
    def max_age(self) -> float:
        """Past this age, in seconds, every call is refused."""
        return self._max_age

    def _packed(self, active: Activated, source: str) -> Given:
        return Given(
            revision=active.revision, archive=write_archive(exact(active.bundle)), signers=active.bundle.signers,
            tests=active.tests_passed, tried=active.documents_tried,
            code=proving_code(active.engine.name) if self._resumable else "", source=source, seen=self._seen_at,
        )  # fmt: skip

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="policy-put")
        self._putting.add(task)
        task.add_done_callback(self._putting.discard)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAdmission(Admission):
    """Admission that ends with every worker ready to answer from the bundle. Called in threads, as `Admission`."""

    group: GroupPolicy
    loop: asyncio.AbstractEventLoop

    def admit(self, bundle: Bundle, where: str) -> Activated:
        """As `Admission`; the engine that it was tried with here is closed: none of the supervisor's decides calls."""
        active = Admission.admit(self, bundle, where)
        self._wait(active.engine.close())
        self._wait(self.group.prepare(active, where))
        return active

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            asyncio.run_coroutine_threadsafe(work, self.loop).result()
        except CancelledError:
            raise ConfigurationError("the sidecar is stopping") from None


def group_admission(entry: Admission, group: GroupPolicy) -> GroupAdmission:
    """`entry`, for all workers. On the event loop."""
    return GroupAdmission(
        maker=entry.maker, kept=entry.kept, signatures=entry.signatures, resumable=entry.resumable, group=group,
        loop=asyncio.get_running_loop(),
    )  # fmt: skip


async def _each(
    members: list[Member], name: str, body: object, within: float
) -> dict[Member, GoneError | ConfigurationError | IntegrityError]:
    """Ask all of them at once; the errors, by member."""
    failed: dict[Member, GoneError | ConfigurationError | IntegrityError] = {}

    async def one(member: Member) -> None:
        try:
            await member.ask(name, body, within)
        except (GoneError, ConfigurationError, IntegrityError) as error:
            failed[member] = error

    await asyncio.gather(*map(one, members))
    return failed


def _from(given: Given, source: str) -> Given:
    return Given(
        revision=given.revision, archive=given.archive, signers=given.signers, tests=given.tests, tried=given.tried,
        code=given.code, source=source, seen=given.seen,
    )  # fmt: skip
