"""Permits whose caller has yet to say how the call ended.

* A permit waits until its owner takes it, or until `within` seconds have passed: then its outcome is `unobserved`.
* Only the workload that asked can take it. To anybody else, and after it has been taken or has lapsed, it does not exist.
* What waits when the process stops is `unobserved` too; what waits when it is killed, its successor closes.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice, takewhile
from typing import Final as Constant
from typing import NamedTuple

from sidecar.enforcement.inquiry import EntityInquiry, MethodInquiry
from sidecar.errors import RecordError
from sidecar.vocabulary import ReasonCode

Inquiry = MethodInquiry | EntityInquiry

LOOK_SECONDS: Constant = 0.05
"""How often lapsed permits are looked for."""
_AT_ONCE: Constant = 64
"""Outcomes written together: they share a sync of the disk."""


class _Held(NamedTuple):
    inquiry: Inquiry
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
        self._held[inquiry.call_id] = _Held(inquiry, owner, self._clock() + self.within)
        self._owners[owner] = self._owners.get(owner, 0) + 1

    def look(self, call_id: str, owner: str) -> Inquiry | None:
        """The permit, which goes on waiting; None unless it waits, has not lapsed, and is this owner's."""
        held = self._held.get(call_id)
        if held is None or held.owner != owner or held.until <= self._clock():
            return None
        return held.inquiry

    def take(self, call_id: str, owner: str) -> Inquiry | None:
        """As `look`, and it waits no longer."""
        return None if self.look(call_id, owner) is None else self._out(call_id).inquiry

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
            waiting = []
            for call_id in due:
                if call_id in self._held and self._held[call_id].inquiry.at_once:
                    await self._unobserved(call_id)
                else:
                    waiting.append(call_id)
            await asyncio.gather(*(self._unobserved(one) for one in waiting))
            await asyncio.sleep(0)  # others are served between

    def _due(self, now: float) -> list[str]:
        """The first of those that have lapsed. All wait equally long, so they lapse in the order in which they came."""
        lapsed = takewhile(lambda item: item[1].until <= now, self._held.items())
        return [call_id for call_id, _ in islice(lapsed, _AT_ONCE)]

    async def _unobserved(self, call_id: str) -> None:
        if call_id in self._held:  # the caller may have reported while others' outcomes were written
            await self._out(call_id).inquiry.unobserved()

    def _out(self, call_id: str) -> _Held:
        held = self._held.pop(call_id)
        left = self._owners[held.owner] - 1
        if left:
            self._owners[held.owner] = left
        else:
            del self._owners[held.owner]
        return held
