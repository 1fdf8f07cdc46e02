"""The policy's source, looked at again and again, and the one place where another policy is put in force.

* What a source holds is put in force when it passes (`policy_admission`); what does not is refused, and the bundle in force
  stays. Nothing is half in force: the engine, its name in records and the cache change between two questions.
* What a person has put in force (`put`, `roll_back`) stays until the source holds another bundle than it held then, or
  `take` is said: the pin, which survives a restart.
* The policy's age is counted from when the source was last seen to hold what is in force; while pinned, from when it was
  last seen to hold what was pinned over. A source that nobody can read, or that holds what is refused, confirms nothing;
  nor does anything confirm a bundle whose signatures count no longer.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sidecar.decision.activation import Activated
from sidecar.decision.bundle import Bundle
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import ConfigurationError
from sidecar.main.given import FILE_SECONDS, clock
from sidecar.main.policy_admission import Admission
from sidecar.main.policy_start import Started
from sidecar.main.proven import Kept, Pin
from sidecar.main.sources import Look, Source, load
from sidecar.main.standing import Announce, PolicyStanding
from sidecar.observability.metrics import CallStats

RETRY_SECONDS = 600.0
"""How often a bundle that was refused is tried again: its tests may have failed for want of time."""
CONFIRM_SECONDS = 60.0
"""How often the signatures of what is in force are looked at again: their time may run out."""
_INTERRUPT_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Whom to tell: the records, the open calls, the log and the counters."""

    say: Announce
    changed: Callable[[], None]
    log: OperatorLog
    stats: CallStats


class Follower:
    """See the module. One event loop; sources, signatures and bundles are read in threads."""

    def __init__(
        self,
        source: Source,
        entry: Admission,
        standing: PolicyStanding,
        started: Started,
        told: Told,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`standing` has `started.active` in force."""
        self.source, self.kept = source, entry.kept
        self._entry, self._standing, self._told, self._monotonic = entry, standing, told, monotonic
        self.found: Bundle | None = started.found
        self._from, self._problem = started.source, started.problem
        self._disowned: str | None = None
        self._retry = monotonic() + RETRY_SECONDS if started.problem is not None else float("-inf")
        self._confirm = monotonic() + CONFIRM_SECONDS
        self._turn = asyncio.Lock()
        self._closing = False
        self._tell(started.problem)

    @property
    def came_from(self) -> str:
        """Where the bundle in force came from."""
        return self._from

    @property
    def superseded(self) -> bool:
        """Whether the source holds the bundle that a person has put another one over."""
        pin = self.kept.state.pin
        return pin is not None and self.found is not None and pin.over == self.found.revision

    async def run(self) -> None:
        """Look at the source whenever it is due, and at the signers every second. Until cancelled."""
        looking: asyncio.Task[None] | None = None
        due = self._monotonic()
        try:
            while True:
                await asyncio.sleep(FILE_SECONDS)
                if looking is not None and looking.done():
                    looking.result()
                    looking, due = None, self._monotonic() + max(0.0, self.source.pause - FILE_SECONDS)
                if looking is None and self._monotonic() >= due:
                    looking = asyncio.create_task(self._look(), name="policy-look")
                await self._check_signers()
        finally:
            self._closing = True
            while looking is not None and not looking.done():
                self.source.interrupt()
                await asyncio.wait({looking}, timeout=_INTERRUPT_SECONDS)

    # -- what a person asks for --------------------------------------------------------------------------------------

    async def take(self, by: str) -> Activated:
        """Look at the source now, and put in force what it holds, whatever was pinned.

        ConfigurationError, and a pin stays, where the source cannot be read or holds what does not pass.
        """
        async with self._at_once():
            self._retry = float("-inf")
            try:
                self.found = await asyncio.to_thread(self.source.read)
            except ConfigurationError as error:
                self._unreadable(error)
                raise
            await self._judge(by, anew=True)
            if self._problem is not None:
                raise ConfigurationError(self._problem)
            return self._standing.decisions.active

    async def put(self, path: Path, by: str) -> Activated:
        """Put the bundle in this folder or .tar.gz in force, over what the source holds. ConfigurationError."""
        async with self._at_once():
            bundle = await asyncio.to_thread(load, path)
            return await self._pinned(bundle, by, str(path), leaving=False)

    async def roll_back(self, kept: Kept, by: str) -> Activated:
        """Put a bundle in force again that was so before, over what the source holds. ConfigurationError."""
        async with self._at_once():
            return await self._pinned(await asyncio.to_thread(self.kept.load, kept), by, kept.source, leaving=True)

    async def _pinned(self, bundle: Bundle, by: str, source: str, *, leaving: bool) -> Activated:
        active = await asyncio.to_thread(self._entry.admit, bundle, source)
        over = self._last_held()
        pin = None if over == active.revision else Pin(over=over, by=by, at=clock())
        leaving = leaving and active.revision != self._standing.decisions.active.revision
        await self._put(active, by, source, pin, leaving=leaving)
        return active

    def _last_held(self) -> str:
        """The revision that the source holds, or held when it could last be read."""
        if self.found is not None:
            return self.found.revision
        pin = self.kept.state.pin
        return self._standing.decisions.active.revision if pin is None else pin.over

    @asynccontextmanager
    async def _at_once(self) -> AsyncIterator[None]:
        """Have the turn, without waiting for a look that waits."""
        taking = asyncio.ensure_future(self._turn.acquire())
        try:
            while not taking.done():
                self.source.interrupt()
                await asyncio.wait({taking}, timeout=_INTERRUPT_SECONDS)
            yield
        finally:
            if not taking.cancel():
                self._turn.release()

    # -- what the source holds ---------------------------------------------------------------------------------------

    async def _look(self) -> None:
        async with self._turn:
            try:
                seen = await asyncio.to_thread(self.source.look)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the bundle in force stays
                self._unreadable(error)
                return
            if isinstance(seen, Bundle):
                self.found, self._retry = seen, float("-inf")
            if seen is not Look.UNSETTLED and not self._closing:
                await self._judge(self.source.kind)

    def _unreadable(self, error: Exception) -> None:
        self.found = None
        self._tell(str(error) if isinstance(error, ConfigurationError) else f"{type(error).__name__}: {error}")

    async def _judge(self, by: str, *, anew: bool = False) -> None:
        """Put in force what was found, if it is another and passes; `anew`: also what was pinned over."""
        found, active = self.found, self._standing.decisions.active
        if found is None:
            return
        if found.revision != active.revision and (anew or not self.superseded):
            if self._monotonic() >= self._retry:
                await self._try(found, by)
            return
        if found.revision == active.revision and found.signatures != active.bundle.signatures:
            await self._signed_anew(found, active, by)
            return
        if found.revision == active.revision:
            await asyncio.to_thread(self.kept.unpin)
        self._tell(None)
        await self._confirmed()

    async def _try(self, found: Bundle, by: str) -> None:
        where = self.source.where
        try:
            active = await asyncio.to_thread(self._entry.admit, found, where)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the bundle in force stays
            self._retry = self._monotonic() + RETRY_SECONDS
            self._tell(str(error) if isinstance(error, ConfigurationError) else f"{where}: {type(error).__name__}")
            return
        await self._put(active, by, where, None)

    async def _signed_anew(self, found: Bundle, active: Activated, by: str) -> None:
        """The source holds the bundle in force with other signatures: the engine stays, its signers change."""
        try:
            signers = await asyncio.to_thread(self._entry.signers, found, self.source.where)
        except ConfigurationError as error:
            self._tell(str(error))
            return
        await self._put(replace(active, bundle=replace(found, signers=signers)), by, self.source.where, None)

    async def _confirmed(self) -> None:
        if self._disowned is None:
            self._standing.seen(clock())
            await asyncio.to_thread(self.kept.seen, clock())

    async def _put(self, active: Activated, by: str, source: str, pin: Pin | None, *, leaving: bool = False) -> None:
        """In force, and kept first: after a crash in between, the next start goes on with it."""
        await asyncio.to_thread(self.kept.keep, active, by=by, source=source, now=clock(), pin=pin, leaving=leaving)
        # No await between these: a decision, its revision in the record and the cache change together.
        self._from, self._disowned = source, None
        self._standing.put(active, seen=clock())
        self._told.changed()
        self._tell(None)
        bundle = active.bundle
        self._told.log.warning(
            "policy_activated", revision=active.revision, label=bundle.label, signers=list(bundle.signers),
            tests=active.tests_passed, by=by,
        )  # fmt: skip
        await self._standing.activated(self._told.say, by, source)

    # -- whose signatures it has -------------------------------------------------------------------------------------

    async def _check_signers(self) -> None:
        """Look again at the signatures of what is in force, when the signers change and from time to time."""
        if self._entry.signatures is None:
            return
        changed = await asyncio.to_thread(self._entry.keys_changed)
        if not changed and self._monotonic() < self._confirm:
            return
        self._confirm = self._monotonic() + CONFIRM_SECONDS
        if changed:
            self._retry = float("-inf")
        active = self._standing.decisions.active
        try:
            signers = await asyncio.to_thread(self._entry.signers, active.bundle, self._from)
        except ConfigurationError as error:
            if active is self._standing.decisions.active and self._disowned is None:
                self._disown(active, str(error))
            return
        if active is self._standing.decisions.active:
            self._disowned = None
            if signers != active.bundle.signers:
                self._standing.put(replace(active, bundle=replace(active.bundle, signers=signers)), seen=None)
            self._standing.tell(self._shown())

    def _disown(self, active: Activated, why: str) -> None:
        self._disowned = why
        self._told.log.error("policy_disowned", in_force=active.revision, detail=why)
        self._told.stats.event("policy_disowned")
        self._standing.tell(self._shown())

    def _tell(self, problem: str | None) -> None:
        """Say once, everywhere, why what the source holds is not in force."""
        if problem is not None and problem != self._problem:
            self._told.log.error("policy_refused", in_force=self._standing.decisions.active.revision, detail=problem)
            self._told.stats.event("policy_refused")
        self._problem = problem
        self._standing.tell(self._shown())

    def _shown(self) -> str | None:
        if self._disowned is not None:
            return f"what is in force would not be accepted now, and decides until policy.max_age: {self._disowned}"
        if self._problem is None:
            return None
        what = "cannot be read" if self.found is None else "holds a bundle that is refused"
        return f"the {self.source.kind} {what}, the policy before stays in force: {self._problem}"
