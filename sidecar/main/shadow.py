"""The shadow at work: its candidate followed like the policy, its thread, its records, and what operators see of it.

Nothing that goes wrong here stops the sidecar or touches a call: it is a problem in the status.
"""

import asyncio
import random
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from sidecar.decision import activation
from sidecar.decision.bundle import Bundle
from sidecar.decision.embedded import EmbeddedMaker
from sidecar.decision.engines import EngineMaker, Evaluate
from sidecar.decision.shadow import NOTHING, Counts, Detail, Shadow
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import ConfigurationError
from sidecar.main import engines, policy_start
from sidecar.main.given import FILE_SECONDS, naming, now, reporter
from sidecar.main.sources import Look, Source
from sidecar.main.standing import Announce, InForce
from sidecar.observability.metrics import Gauges

if TYPE_CHECKING:  # the models are pydantic's, and a process that serves has none of it
    from sidecar.settings.sidecar import SidecarSettings

SUMMARY_SECONDS: Final = 60.0
RETRY_SECONDS: Final = 600.0
"""How often a candidate that was refused is tried again: its tests may have failed for want of time."""
_TELL_SECONDS: Final = 1.0
_RECENT: Final = 10


class _Ready:
    """A candidate that has loaded and passed its tests. `close` blocks."""

    def __init__(self, bundle: Bundle, where: str, maker: EngineMaker) -> None:
        """Blocks. ConfigurationError for what could never be put in force."""
        self.bundle = bundle
        self._held = ExitStack()
        active = activation.activate(bundle, where, maker)
        self.tests, self.engine = active.tests_passed, active.engine
        self.evaluate: Evaluate = self._held.enter_context(maker.trial(bundle))

    def close(self) -> None:
        self._held.close()


class ShadowWatch:
    """Follows `source`, lets `shadow` compare, and records what it finds.

    `active` tells the revision in force, `stamp` the time (RFC 3339), `monotonic` seconds. `run` until cancelled.
    """

    def __init__(
        self,
        *,
        shadow: Shadow,
        source: Source,
        maker: EngineMaker,
        active: Callable[[], str],
        say: Announce,
        log: OperatorLog,
        stamp: Callable[[], str],
        monotonic: Callable[[], float],
        sample: float,
    ) -> None:
        self.shadow = shadow
        self._source, self._maker, self._active = source, maker, active
        self._say, self._log, self._stamp, self._monotonic = say, log, stamp, monotonic
        self._sample = sample
        self._ready: _Ready | None = None
        self._since: str | None = None
        self._refused: Bundle | None = None
        self._next = float("-inf")
        self._problem: str | None = None
        self._recent: deque[dict[str, Detail]] = deque(maxlen=_RECENT)
        self._told: tuple[str | None, Counts] = (None, NOTHING)
        self._ends = monotonic() + SUMMARY_SECONDS

    # -- what runs ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Everything, until cancelled."""
        stop = threading.Event()
        thread = threading.Thread(target=self._work, args=(stop,), name="shadow", daemon=True)
        thread.start()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._again(self._followed))
                group.create_task(self._again(self._told_of))
        finally:
            stop.set()
            self._source.interrupt()
            self.shadow.dismiss()
            await asyncio.to_thread(thread.join)
            if self._ready is not None:
                await asyncio.to_thread(self._ready.close)

    def _work(self, stop: threading.Event) -> None:
        rest = 0.0
        while not stop.wait(rest):
            try:
                rest = self.shadow.step()
            except Exception as error:  # noqa: BLE001 - a shadow that fails on one question goes on with the next
                self._log.error("shadow_failed", error=repr(error))
                rest = _TELL_SECONDS

    async def _again(self, step: Callable[[], Awaitable[float]]) -> None:
        """One step after the other, with the rest that each asks for. One that fails is logged: a call needs none."""
        while True:
            try:
                rest = await step()
            except Exception as error:  # noqa: BLE001 - whatever is wrong with the shadow, the sidecar goes on
                self._log.error("shadow_failed", error=repr(error))
                rest = _TELL_SECONDS
            await asyncio.sleep(rest)

    async def _followed(self) -> float:
        found = await asyncio.to_thread(self._look)
        if found is not None:
            await self._adopt(found)
        return self._source.pause

    def _look(self) -> _Ready | None:
        """Look once; a candidate that is ready, or None. Blocks."""
        try:
            found = self._source.look()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the source, the sidecar goes on
            self._refuse(None, error)
            return None
        bundle = found if isinstance(found, Bundle) else None
        if found is Look.UNCHANGED and self._monotonic() >= self._next:
            bundle = self._refused
        if bundle is None:
            return None
        try:
            known = self._ready is not None and self._ready.bundle.revision == bundle.revision
            ready = None if known else _Ready(bundle, f"shadow.bundle: {self._source.where}", self._maker)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a candidate, the sidecar goes on
            self._refuse(bundle, error)
            return None
        self._refused = self._problem = None
        return ready

    def _refuse(self, bundle: Bundle | None, error: Exception) -> None:
        why = str(error) if isinstance(error, ConfigurationError) else f"{type(error).__name__}: {error}"
        self._refused, self._next = bundle, self._monotonic() + RETRY_SECONDS
        if why != self._problem:
            self._log.error("shadow_refused", comparing=self.shadow.revision or "nothing", detail=why)
        self._problem = why

    async def _adopt(self, ready: _Ready) -> None:
        """Compare with this candidate from now on; what was found about the one before is summed up first."""
        await self._summary()
        before, self._ready = self._ready, ready
        self.shadow.adopt(ready.bundle.revision, ready.evaluate)
        self._since = self._stamp()
        self._told = ready.bundle.revision, NOTHING
        self._recent.clear()
        if before is not None:
            await asyncio.to_thread(before.close)
        await ready.engine.close()  # only tried: questions go to `evaluate`
        self._log.warning("shadow_adopted", revision=ready.bundle.revision, tests=ready.tests)
        await self._say("shadow", {
            "kind": "candidate", "candidate": ready.bundle.revision, "label": ready.bundle.label,
            "active": self._active(), "tests": ready.tests, "source": self._source.kind,
        })  # fmt: skip

    async def _told_of(self) -> float:
        await self._flips()
        if self._monotonic() >= self._ends:
            self._ends = self._monotonic() + SUMMARY_SECONDS
            await self._summary()
        return _TELL_SECONDS

    async def _flips(self) -> None:
        for details in self.shadow.take():
            self._recent.append(details)
            await self._say("shadow", details)

    async def _summary(self) -> None:
        """One record of what was added since the last one; none without traffic."""
        await self._flips()
        self.shadow.refill()
        candidate, counts = self.shadow.revision, self.shadow.counts()
        added = counts.since(self._told[1]) if candidate == self._told[0] else counts
        self._told = candidate, counts
        if candidate is not None and (added.asked or added.dropped):
            said = {"kind": "summary", "candidate": candidate, "active": self._active()}
            await self._say("shadow", {**said, **added.details})

    # -- what operators see ------------------------------------------------------------------------------------------

    async def status(self, arguments: Sequence[str] = (), asker: str = "") -> dict[str, object]:
        """For `sidecar policy shadow status`: since the candidate was taken up."""
        del arguments, asker
        counts = self.shadow.counts()
        ready = self._ready
        return {
            "candidate": self.shadow.revision,
            "label": None if ready is None else ready.bundle.label,
            "active": self._active(),
            "since": self._since,
            "source": self._source.where,
            "sample": self._sample,
            "agreement": round(counts.agreed / counts.asked, 6) if counts.asked else None,
            **counts.details,
            "recent": list(self._recent),
            "problems": self.problems(),
        }

    def problems(self) -> list[str]:
        """What an operator has to mend."""
        if self._problem is None:
            return []
        kept = "nothing is compared" if self.shadow.revision is None else "the candidate before is compared"
        return [f"shadow: the candidate is refused, {kept}: {self._problem}"]

    def gauges(self) -> Gauges:
        """For metrics."""
        counts = self.shadow.counts
        return {
            "shadow_asked": ("Answers compared with the candidate's", lambda: float(counts().asked)),
            "shadow_agreed": ("Answers on which the candidate agrees", lambda: float(counts().agreed)),
            "shadow_newly_permitted": (
                "Answers that the candidate would permit instead", lambda: float(counts().flips["newly_permitted"])
            ),
            "shadow_newly_denied": (
                "Answers that the candidate would deny instead", lambda: float(counts().flips["newly_denied"])
            ),
            "shadow_errors": ("Questions without a decision of the candidate", lambda: float(counts().flips["undecided"])),
            "shadow_dropped": ("Answers not compared: the queue was full", lambda: float(counts().dropped)),
            "shadow_refused": ("1 while the candidate is refused", lambda: float(self._problem is not None)),
        }  # fmt: skip


class _Unusable:
    """A source that the settings name in a way that cannot be used: a problem to show, not one to stop for."""

    kind = "settings"
    pause = FILE_SECONDS

    def __init__(self, error: ConfigurationError) -> None:
        self._error = error
        self.where = error.where

    def read(self) -> Bundle:
        raise self._error

    def look(self) -> Bundle | Look:
        raise self._error

    def interrupt(self) -> None:
        """No look waits."""


def opened(settings: "SidecarSettings", standing: InForce, say: Announce, log: OperatorLog) -> ShadowWatch | None:
    """The shadow that the settings ask for; it asks nothing before it runs."""
    said = settings.shadow
    if said is None:
        return None

    def active() -> str:
        return standing.decisions.active.revision

    source: Source
    try:
        source = policy_start.open_source(said.bundle)
    except ConfigurationError as error:
        source = _Unusable(error)
    shadow = Shadow(
        active=active,
        sample=said.sample,
        draw=random.random,
        monotonic=time.monotonic,
        deadline=settings.decision.deadline,
    )
    return ShadowWatch(
        shadow=shadow, source=source, maker=_maker(settings, log), active=active, say=say, log=log, sample=said.sample,
        stamp=lambda: now().isoformat(timespec="seconds").replace("+00:00", "Z"), monotonic=time.monotonic,
    )  # fmt: skip


def check(settings: "SidecarSettings") -> list[str]:
    """What can be said of the shadow without the network: a line, or none. ConfigurationError, unlike at a start."""
    said = settings.shadow
    if said is None:
        return []
    source = policy_start.open_source(said.bundle)
    if said.bundle.folder is None and said.bundle.file is None:
        return [f"shadow         from {source.where}, not asked"]
    with naming(f"shadow.bundle.{source.kind}"):
        active = activation.activate(source.read(), source.where, _maker(settings, None))
    return [f"shadow         {active.revision[:16]}, {active.tests_passed} tests pass"]


def _maker(settings: "SidecarSettings", log: OperatorLog | None) -> EngineMaker:
    """The engine of the policy in force, unless that is an OPA at an address: it has its own bundle, and no other."""
    decision = settings.decision
    if decision.engine == "opa" and decision.opa is not None and decision.opa.url is not None:
        return EmbeddedMaker(decision.deadline)
    return engines.maker(decision.model_copy(update={"verify_with": None}), reporter(log))
