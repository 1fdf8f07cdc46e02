"""The policy folder, looked at again and again, and the decision point that answers from what was last activated."""

import time
from collections.abc import Callable
from pathlib import Path

from sidecar.decision import bundle
from sidecar.decision.bundle import Activated, Mark
from sidecar.errors import ConfigurationError
from sidecar.vocabulary import AccessRequest, Decision

REREAD_SECONDS = 60.0
"""How often a folder that looks unchanged is read in full."""
RETRY_SECONDS = 600.0
"""How often a bundle that was refused is tried again: its tests may have failed for want of time."""


class Current:
    """A `DecisionPoint` that answers from the bundle in force. One event loop; `adopt` swaps between two questions."""

    def __init__(self, active: Activated) -> None:
        self._active = active

    @property
    def active(self) -> Activated:
        """The bundle in force."""
        return self._active

    @property
    def name(self) -> str:
        """The engine's word in records."""
        return self._active.engine.name

    async def decide(self, request: AccessRequest, canonical: bytes) -> Decision:
        """Decide by the bundle that is in force as the question is put. Raises DecideError."""
        return await self._active.engine.decide(request, canonical)

    def adopt(self, active: Activated) -> None:
        """From now on, this bundle."""
        self._active = active


class PolicyFolder:
    """`policy.bundle.folder`: says whether it still holds the bundle in force, and activates another.

    `look` blocks (files are read, a new bundle runs its tests), raises nothing, and is for one thread at a time.

    * A folder whose files have changed is read when it looks the same at two looks in a row, and once more after it
      was read: what somebody is still copying there is left alone.
    * What does not load, or fails its tests, is refused; the bundle in force stays.
    """

    def __init__(
        self,
        folder: Path,
        active: Activated,
        *,
        deadline_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`deadline_seconds` is the time a decision of a new bundle may take."""
        self._folder, self._deadline, self._monotonic = folder, deadline_seconds, monotonic
        self._revision = active.revision
        self._mark: Mark | None = None
        self._unreadable = False
        self._next = float("-inf")
        self.problem: str | None = None
        """Why the folder's bundle is not the one in force; None while it is, or while the folder is at rest for less
        than a look."""
        self.holds = False
        """Whether the last look found the bundle in force there."""

    def look(self) -> Activated | None:
        """Look once; a bundle to put in force, or None."""
        self.holds = False
        try:
            mark = bundle.mark(self._folder)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the folder, the bundle in force stays
            # One look may fall between the two renames of somebody who swaps the folder.
            self.problem = _why(error, self._folder) if self._unreadable else self.problem
            self._mark, self._unreadable = None, True
            return None
        self._unreadable = False
        if mark != self._mark:
            self._mark, self._next = mark, float("-inf")
            return None
        if self._monotonic() < self._next:
            self.holds = self.problem is None
            return None
        try:
            return self._read(mark)
        except Exception as error:  # noqa: BLE001 - as above
            self.problem, self._next = _why(error, self._folder), self._monotonic() + RETRY_SECONDS
            return None

    def _read(self, mark: Mark) -> Activated | None:
        """Read in full. ConfigurationError for what cannot be put in force."""
        if bundle.revision(self._folder) == self._revision:
            self.holds, self.problem, self._next = True, None, self._monotonic() + REREAD_SECONDS
            return None
        found = bundle.load_folder(self._folder)
        if bundle.mark(self._folder) != mark:
            self._mark = None
            return None
        active = bundle.activate_loaded(found, self._folder, deadline_seconds=self._deadline)
        self._revision = active.revision
        self.holds, self.problem, self._next = True, None, self._monotonic() + REREAD_SECONDS
        return active


def _why(error: Exception, folder: Path) -> str:
    return str(error) if isinstance(error, ConfigurationError) else f"{folder}: {type(error).__name__}: {error}"
