"""Which policy, directory and index are in force, how old they are, and what follows when one of them changes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from sidecar.attributes.directory import Directory
from sidecar.attributes.subjects_index import SubjectIndex
from sidecar.decision.bundle import Activated
from sidecar.errors import DecideError
from sidecar.main.build import FILE_SECONDS, clock
from sidecar.observability.metrics import Gauges
from sidecar.record import PolicyRef, RecordType
from sidecar.vocabulary import ReasonCode

Announce = Callable[[RecordType, Mapping[str, str | int | bool | list[str] | None]], Awaitable[None]]


class InForce:
    """The `Standing` of the pipeline."""

    def __init__(self, active: Activated, directory: Directory, index: SubjectIndex, max_age: float) -> None:
        """`max_age` of the policy in seconds, from its activation by this process."""
        self._active, self._directory, self._index, self._max_age = active, directory, index, max_age
        self._policy = PolicyRef(revision=active.revision)
        self._since = clock()

    def policy(self, now: float) -> PolicyRef:
        """The active policy. DecideError past its greatest age."""
        if now - self._since > self._max_age:
            raise DecideError(
                "the policy is too old to decide by",
                reason=ReasonCode.POLICY_ERROR,
                operator=f"policy {self._active.revision} has been active longer than policy.max_age. Renew the bundle.",
            )
        return self._policy

    def directory(self) -> str | None:
        """Revision of the directory."""
        return self._directory.revision

    def index(self) -> str | None:
        """Revision of the subject index."""
        return self._index.revision

    def status(self, now: float) -> dict[str, object]:
        """For `sidecar status`."""
        return {
            "policy": self._active.revision,
            "policy_age_seconds": int(now - self._since),
            "directory": self._directory.revision,
            "directory_age_seconds": int(self._directory.age(now)),
            "index": self._index.revision,
            "index_age_seconds": int(self._index.age(now)),
        }

    def problems(self, now: float) -> list[str]:
        """What an operator has to mend."""
        found = [
            f"{name}: {part.error}"
            for name, part in (("directory", self._directory), ("subject index", self._index))
            if part.error is not None
        ]
        if not self._directory.fresh(now):
            found.append("directory: too old, so personnel are refused. Build and install a new snapshot")
        if not self._index.fresh(now):
            found.append("subject index: too old, so every data subject is unknown. Build and install a new one")
        if now - self._since > self._max_age:
            found.append("policy: past policy.max_age, so every call is refused. Renew the bundle")
        return found

    def gauges(self) -> Gauges:
        """For metrics."""
        return {
            "policy_age_seconds": ("Age of the active policy", lambda: clock() - self._since),
            "directory_age_seconds": ("Age of the directory snapshot", lambda: self._directory.age(clock())),
            "index_age_seconds": ("Age of the subject index", lambda: self._index.age(clock())),
        }

    async def announce(self, say: Announce) -> None:
        """Record what is in force at the start."""
        details: dict[str, str | int | bool | list[str] | None] = {
            "revision": self._active.revision,
            "tests": self._active.tests_passed,
            "by": "start",
        }
        await say("policy_activated", details)
        await say("directory_activated", {"revision": self._directory.revision})
        await say("index_activated", {"revision": self._index.revision})

    async def follow(self, say: Announce, changed: Callable[[], None]) -> None:
        """Look at the files every second; record each activation, then call `changed`. Runs until cancelled."""
        followed: tuple[tuple[RecordType, Directory | SubjectIndex], ...] = (
            ("directory_activated", self._directory),
            ("index_activated", self._index),
        )
        while True:
            await asyncio.sleep(FILE_SECONDS)
            for kind, part in followed:
                if await asyncio.to_thread(part.reload_if_changed):
                    changed()
                    await say(kind, {"revision": part.revision})
