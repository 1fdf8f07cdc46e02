"""Which policy, directory and index are in force, how old they are, and what follows when one of them changes."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Protocol, TypeVar

from sidecar.attributes.directory import Directory
from sidecar.attributes.subjects_index import SubjectIndex
from sidecar.decision.activation import Activated
from sidecar.errors import DecideError
from sidecar.main.given import FILE_SECONDS, clock
from sidecar.main.policy import Current
from sidecar.observability.metrics import Gauges
from sidecar.record import PolicyRef, RecordType
from sidecar.vocabulary import ReasonCode

Announce = Callable[[RecordType, Mapping[str, str | int | bool | list[str] | None]], Awaitable[None]]

E = TypeVar("E")


def recording(write: Callable[[E], Coroutine[None, None, None]]) -> Callable[[E], None]:
    """What takes an event on the event loop and has it written, without waiting for that. Made on the event loop."""
    loop = asyncio.get_running_loop()
    pending: set[asyncio.Task[None]] = set()

    def record(event: E) -> None:
        task = loop.create_task(write(event))
        pending.add(task)  # the loop itself holds no task
        task.add_done_callback(pending.discard)

    return record


class Changes:
    """Passes on, from any thread, that something which open calls rest on has changed. Made on the event loop.

    What reads files is made before there is an enforcement point to be told: until `connect` nothing is passed on.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told: Callable[[], None] | None = None

    def connect(self, told: Callable[[], None]) -> None:
        """Whom to tell, on the event loop, from now on."""
        self._told = told

    def tell(self) -> None:
        """Something has changed."""
        self._loop.call_soon_threadsafe(self._pass_on)

    def _pass_on(self) -> None:
        if self._told is not None:
            self._told()


class Answering(Protocol):
    """Whatever decides by the policy in force."""

    @property
    def active(self) -> Activated:
        """The bundle in force."""

    @property
    def name(self) -> str:
        """The engine's word in records."""


class PolicyStanding(Protocol):
    """Where a policy is put in force: in this process (`InForce`), or in every worker (`worker_policy_group`)."""

    @property
    def decisions(self) -> Answering:
        """What decides by it."""

    def put(self, active: Activated, *, seen: float | None) -> None:
        """From now on, this bundle."""

    def seen(self, now: float) -> None:
        """The source holds the bundle in force."""

    def tell(self, problem: str | None) -> None:
        """Why the source's bundle is not the one in force; None while it is."""

    def policy_age(self, now: float) -> float:
        """Seconds since the source was last seen to hold the bundle in force."""

    @property
    def problem(self) -> str | None:
        """As last told."""

    @property
    def max_age(self) -> float:
        """Past this age, in seconds, every call is refused."""

    async def activated(self, say: Announce, by: str, source: str) -> None:
        """Record which policy is in force from now on."""


class InForce:
    """The `Standing` of the pipeline.

    The age of the policy is counted from when its source was last seen to hold it (`policy_follow`): while the source is
    healthy a bundle stays in force for ever, and one that its source no longer holds (or that nobody can read) for
    `max_age` seconds.
    """

    def __init__(
        self,
        active: Activated,
        directory: Directory,
        index: SubjectIndex,
        max_age: float,
        *,
        source: str = "",
        seen: float | None = None,
    ) -> None:
        """`active` came from `source`, which was `seen` (unix seconds; None: just now) to hold it."""
        self.decisions = Current(active)
        self._directory, self._index, self._max_age = directory, index, max_age
        self._revision, self._policy = active.revision, _ref(active)
        self._source = source
        self._seen_at = clock() if seen is None else seen
        self._problem: str | None = None

    def policy(self, now: float) -> PolicyRef:
        """The active policy. DecideError past its greatest age."""
        if now - self._seen_at > self._max_age:
            raise DecideError(
                "the policy is too old to decide by",
                reason=ReasonCode.POLICY_ERROR,
                operator=f"policy {self._policy.revision} has not been seen at its source for longer than "
                f"policy.max_age: {self._problem or 'nobody looks'}. Give the source a bundle that passes.",
            )
        return self._policy

    def put(self, active: Activated, *, seen: float | None) -> None:
        """From now on, this bundle; `seen` at its source at this time (unix seconds; None: no news of that)."""
        self.decisions.adopt(active)
        self._revision, self._policy = active.revision, _ref(active)
        self._seen_at = self._seen_at if seen is None else seen

    def seen(self, now: float) -> None:
        """The source holds the bundle in force."""
        self._seen_at = now

    def tell(self, problem: str | None) -> None:
        """Why the source's bundle is not the one in force; None while it is."""
        self._problem = problem

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

    def directory(self) -> str | None:
        """Revision of the directory."""
        return self._directory.revision

    def index(self) -> str | None:
        """Revision of the subject index."""
        return self._index.revision

    def revisions(self) -> tuple[str, str, str]:
        """Revisions of policy, directory and index: what a cached decision was made under."""
        return self._revision, self._directory.revision, self._index.revision

    def status(self, now: float) -> dict[str, object]:
        """For `sidecar status`."""
        return {
            "policy": self.decisions.active.revision,
            "policy_label": self.decisions.active.bundle.label,
            "policy_signers": list(self._policy.signers),
            "policy_age_seconds": int(self.policy_age(now)),
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
        if self._problem is not None:
            found.append(f"policy: {self._problem}")
        if not self._directory.fresh(now):
            found.append("directory: too old, so personnel are refused. Build and install a new snapshot")
        if not self._index.fresh(now):
            found.append("subject index: too old, so every data subject is unknown. Build and install a new one")
        if now - self._seen_at > self._max_age:
            found.append("policy: past policy.max_age, so every call is refused. Give its source a bundle that passes")
        return found

    def gauges(self) -> Gauges:
        """For metrics."""
        return {
            "policy_age_seconds": ("Since the policy was last seen at its source", lambda: self.policy_age(clock())),
            "policy_max_age_seconds": ("Past this age every call is refused", lambda: self._max_age),
            "policy_refused": (
                "1 while the policy's source confirms nothing",
                lambda: float(self._problem is not None),
            ),
            "directory_age_seconds": ("Age of the directory snapshot", lambda: self._directory.age(clock())),
            "index_age_seconds": ("Age of the subject index", lambda: self._index.age(clock())),
        }

    async def announce(self, say: Announce) -> None:
        """Record what is in force at the start."""
        await self.activated(say, "start", self._source)
        await say("directory_activated", {"revision": self._directory.revision})
        await say("index_activated", {"revision": self._index.revision})

    async def activated(self, say: Announce, by: str, source: str) -> None:
        """Record which policy is in force from now on."""
        active = self.decisions.active
        await say("policy_activated", {
            "revision": active.revision, "label": active.bundle.label, "signers": list(active.bundle.signers),
            "tests": active.tests_passed, "by": by, "source": source,
        })  # fmt: skip

    async def follow(self, say: Announce, changed: Callable[[], None]) -> None:
        """Look at the snapshots every second; record each activation, then call `changed`. Runs until cancelled."""
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


def _ref(active: Activated) -> PolicyRef:
    return PolicyRef(revision=active.revision, signers=active.bundle.signers)
