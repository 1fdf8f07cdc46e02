"""What becomes of it when two engines differ, or one of them could not be asked."""

import time
from collections.abc import Callable

from sidecar.decision.verified import Disagreement, Unchecked
from sidecar.enforcement.transport import OperatorLog
from sidecar.main.standing import Announce
from sidecar.observability.metrics import CallStats
from sidecar.vocabulary import Decision

_QUIET_SECONDS = 60.0
"""Between two log lines about decisions that were not checked: there is one for each call."""


class Disagreements:
    """Where two engines differ: logged, counted, and recorded as `engine_disagreement`. No personal data is said.

    What was not checked is counted, and logged from time to time.
    """

    def __init__(self, log: OperatorLog, stats: CallStats, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._log, self._stats, self._monotonic = log, stats, monotonic
        self._say: Announce | None = None
        self._quiet = float("-inf")

    def connect(self, say: Announce) -> None:
        """Where to record, from now on: a bundle is loaded before the records have begun."""
        self._say = say

    async def differ(self, found: Disagreement) -> None:
        """Two engines have answered one question, otherwise each."""
        details: dict[str, str | int | bool | list[str] | None] = {
            "input_sha256": found.input_sha256, "policy": found.revision,
            **_said("first", found.engines[0], found.first), **_said("second", found.engines[1], found.second),
        }  # fmt: skip
        self._stats.event("engine_disagreement")
        self._log.error("engine_disagreement", **details)
        if self._say is not None:
            await self._say("engine_disagreement", details)

    def unchecked(self, why: Unchecked, detail: str) -> None:
        """A decision that should have been checked was not."""
        self._stats.event("engine_unchecked", why)
        now = self._monotonic()
        if now >= self._quiet:
            self._quiet = now + _QUIET_SECONDS
            self._log.warning("engine_unchecked", why=why, detail=detail)


def _said(which: str, engine: str, decision: Decision) -> dict[str, str | list[str]]:
    codes = sorted({reason.code for reason in decision.reasons})
    return {f"{which}_engine": engine, f"{which}_effect": str(decision.effect), f"{which}_reasons": codes}
