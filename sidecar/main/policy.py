"""The decision point that answers from the policy in force, and what puts another one there between two questions."""

import asyncio
from dataclasses import dataclass

from sidecar.decision.activation import Activated
from sidecar.vocabulary import AccessRequest, Decision


@dataclass(slots=True)
class _Held:
    """A policy, and how many questions about it are under way."""

    active: Activated
    asked: int = 0
    retired: bool = False


class Current:
    """A `DecisionPoint` that answers from the bundle in force. One event loop.

    * A question is answered by the bundle that is in force as it is put, also when another takes over meanwhile.
    * The engine of a bundle that is in force no longer is closed after its last question.
    """

    def __init__(self, active: Activated) -> None:
        self._held = _Held(active)
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def active(self) -> Activated:
        """The bundle in force."""
        return self._held.active

    @property
    def name(self) -> str:
        """The engine's word in records."""
        return self._held.active.engine.name

    async def decide(self, request: AccessRequest, canonical: bytes) -> Decision:
        """Decide by the bundle that is in force as the question is put. Raises DecideError."""
        held = self._held
        held.asked += 1
        try:
            return await held.active.engine.decide(request, canonical)
        finally:
            held.asked -= 1
            if held.retired and not held.asked:
                self._close(held)

    def adopt(self, active: Activated) -> None:
        """From now on, this bundle. With the engine of the one before, that engine goes on."""
        if active.engine is self._held.active.engine:
            self._held.active = active
            return
        before, self._held = self._held, _Held(active)
        self._retire(before)

    async def close(self) -> None:
        """No question comes any more: close the engine in force, and wait for those that are being closed."""
        self._retire(self._held)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _retire(self, held: _Held) -> None:
        held.retired = True
        if not held.asked:
            self._close(held)

    def _close(self, held: _Held) -> None:
        task = asyncio.get_running_loop().create_task(held.active.engine.close(), name="engine-close")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
