"""Permits whose caller has yet to say how the call ended.

* A permit waits until its owner takes it, or until `within` seconds have passed: then its outcome is `unobserved`.
* Only the workload that asked can take it. To anybody else, and after it has been taken or has lapsed, it does not exist.
* What waits when the process stops is `unobserved` too; what waits when it is killed, its successor closes.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice, takewhile
from typing import Final as Constant

import msgspec

from sidecar.enforcement.inquiry import EntityInquiry, MethodInquiry
from sidecar.enforcement.unreported import Unreported, unobserved
from sidecar.errors import RecordError
from sidecar.vocabulary import Level, ReasonCode

Inquiry = MethodInquiry | EntityInquiry
Waiter = Inquiry | Unreported
"""A permit that waits: the inquiry itself where more may be asked about the call, otherwise what is left of it."""

LOOK_SECONDS: Constant = 0.02
"""How often lapsed permits are looked for: what lapses between two looks is written within a few milliseconds."""
_AT_ONCE: Constant = 64
"""Outcomes written together: they share a write and a sync of the disk, and others are served between."""


class _Held(msgspec.Struct, frozen=True, gc=False):
    waiter: Waiter
    owner: str
    until: float


class Waiting:
    """The permits of one worker that wait. One event loop."""

    def __init__(
        self, clock: Callable[[], float], within: float, most: int, *, look: float = LOOK_SECONDS,
        per_owner: int | None = None,
    ) -> None:  # fmt: skip
        """`clock` is monotonic, `within` and `look` seconds; `most` wait at once, `per_owner` of one workload."""
        self._clock, self.within, self._most, self._look = clock, within, most, look
        self._per_owner = most if per_owner is None else per_owner
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._owners: dict[str, int] = {}
        self._closed = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._held)

    def __contains__(self, call_id: object) -> bool:
        """Whether a permit with this id waits, whoever owns it."""
        return call_id in self._held

    def put(self, inquiry: Inquiry, owner: str) -> None:
        """Keep a permit before it is handed out. RecordError when no more can wait: then it must not be handed out."""
        if self._closed or len(self._held) >= self._most or self._owners.get(owner, 0) >= self._per_owner:
            why = "the sidecar stops" if self._closed else f"{len(self._held)} permits wait to be reported"
            raise RecordError(
                "no more permits can wait to be reported now", reason=ReasonCode.RECORD_UNAVAILABLE,
                operator=f"{why}, {self._owners.get(owner, 0)} of them {owner}'s. Callers have to send ReportOutcome; "
                "checks.waiting says how many may wait, checks.report_within how long.",
            )  # fmt: skip
        self._held[inquiry.call_id] = _Held(inquiry.handed_out(), owner, self._clock() + self.within)
        self._owners[owner] = self._owners.get(owner, 0) + 1

    def look(self, call_id: str, owner: str) -> Waiter | None:
        """The permit, which goes on waiting; None unless it waits, has not lapsed, and is this owner's."""
        held = self._held.get(call_id)
        if held is None or held.owner != owner or held.until <= self._clock():
            return None
        return held.waiter

    def take(self, call_id: str, owner: str) -> Waiter | None:
        """As `look`, and it waits no longer."""
        return None if self.look(call_id, owner) is None else self._out(call_id)

    async def run(self) -> None:
        """Write the outcomes of those that have lapsed. Runs until cancelled."""
        while True:
            await asyncio.sleep(self._look)
            await self._expire(self._clock())

    async def close(self) -> None:
        """Whatever still waits has an outcome when this returns, and nothing waits any more. Idempotent."""
        self._closed = True
        await self._expire(float("inf"))

    async def _expire(self, now: float) -> None:
        while due := self._due(now):
            together, waiting = dict[Level, list[str]](), []
            for call_id in due:
                held = self._held.get(call_id)
                if held is None:
                    continue  # the caller has reported while others' outcomes were written
                if isinstance(held.waiter, Unreported):
                    together.setdefault(held.waiter.level, []).append(call_id)
                elif held.waiter.at_once:
                    await self._unobserved(call_id)
                else:
                    waiting.append(call_id)
            for names in together.values():
                await self._unobserved_together(names)
            if waiting:
                await asyncio.gather(*(self._unobserved(one) for one in waiting))
            await asyncio.sleep(0)  # others are served between

    def _due(self, now: float) -> list[str]:
        """The first of those that have lapsed. All wait equally long, so they lapse in the order in which they came."""
        lapsed = takewhile(lambda item: item[1].until <= now, self._held.items())
        return [call_id for call_id, _ in islice(lapsed, _AT_ONCE)]

    async def _unobserved(self, call_id: str) -> None:
        waiter = self._out(call_id) if call_id in self._held else None
        if waiter is not None and not isinstance(waiter, Unreported):
            await waiter.unobserved()

    async def _unobserved_together(self, names: Sequence[str]) -> None:
        # None is taken out before the records are as good as written: nothing is waited for between the two.
        found = [self._out(one) for one in names if one in self._held]
        if calls := [one for one in found if isinstance(one, Unreported)]:
            await unobserved(calls)

    def _out(self, call_id: str) -> Waiter:
        held = self._held.pop(call_id)
        left = self._owners[held.owner] - 1
        if left:
            self._owners[held.owner] = left
        else:
            del self._owners[held.owner]
        return held.waiter
