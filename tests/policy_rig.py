"""The policy of a sidecar without its doors: source, admission, what was kept, and what follows."""

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.decision.embedded import EmbeddedMaker
from sidecar.main.given import clock
from sidecar.main.policy_admission import Admission
from sidecar.main.policy_commands import PolicyCommands
from sidecar.main.policy_follow import Follower, Told
from sidecar.main.policy_signers import Signatures
from sidecar.main.policy_start import start
from sidecar.main.proven import KeptPolicies
from sidecar.main.sources import Source
from sidecar.main.standing import InForce
from sidecar.observability.metrics import CallStats
from sidecar.vocabulary import AccessRequest, Action, Environment, Person, Resource, Subject, canonical

AMY = AccessRequest(
    subject=Subject(kind="personnel", person=Person(id="amy")), action=Action(name="read"), resource=Resource(),
    context=Environment(time="2026-01-01T00:00:00Z", phase="request"),
)  # fmt: skip
MAX_AGE = 7 * 86400.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Snapshot:
    """A directory or an index that never changes."""

    error = None

    def __init__(self, revision: str) -> None:
        self.revision = revision

    def age(self, now: float) -> float:
        return 0.0

    def fresh(self, now: float) -> bool:
        return True


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def warning(self, event: str, **details: object) -> None:
        self.lines.append((event, details))

    error = warning

    def events(self) -> list[str]:
        return [event for event, _ in self.lines]


class PolicyRig:
    """A start and what comes after it, on one folder of kept policies; made again, it is a restart."""

    def __init__(
        self, source: Source, folder: Path, key: Ed25519PrivateKey, *, signers: Path | None = None, require: int = 1,
        maker: object = None, monotonic: Clock | None = None, max_age: float = MAX_AGE,
    ) -> None:  # fmt: skip
        self.source, self.log, self.stats = source, Log(), CallStats()
        self.kept = KeptPolicies(folder, key)
        self.entry = Admission(
            maker=maker or EmbeddedMaker(5.0), kept=self.kept,
            signatures=None if signers is None else Signatures(signers, require, clock),
        )  # fmt: skip
        self.started = start(source, self.entry, self.log, clock())
        self.standing = InForce(
            self.started.active, Snapshot("d"), Snapshot("i"), max_age,  # type: ignore[arg-type]
            source=self.started.source, seen=self.started.seen,
        )  # fmt: skip
        self.monotonic = monotonic or Clock()
        self.events: list[object] = []
        told = Told(say=self.say, changed=lambda: self.events.append("changed"), log=self.log, stats=self.stats)
        self.follower = Follower(source, self.entry, self.standing, self.started, told, monotonic=self.monotonic)
        self.commands = PolicyCommands(self.follower, self.standing, self.say).commands()

    async def say(self, kind, details):
        self.events.append((kind, details))

    def said(self, kind: str) -> list[dict[str, object]]:
        return [one[1] for one in self.events if one[0] == kind]

    @property
    def revision(self) -> str:
        return self.standing.policy(clock()).revision or ""

    async def looks(self, times: int = 2) -> None:
        """So many looks at the source; the second sees that what the first saw is at rest."""
        for _ in range(times):
            await self.follower._look()

    async def ttl(self) -> int:
        """What the policy in force answers: minimal policies differ in it."""
        return (await self.standing.decisions.decide(AMY, canonical(AMY))).ttl_seconds

    async def do(self, command: str, *arguments: str, who: str = "root") -> dict[str, object]:
        return dict(await self.commands[command](arguments, who))

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.follower.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(reached: Callable[[], object], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not reached():
            await asyncio.sleep(0.02)
