"""What the admin socket answers about the policy: `policy.status`, `policy.activate`, `policy.rollback`."""

from collections.abc import Awaitable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from sidecar.decision.activation import Activated
from sidecar.enforcement.admin import Answer, Command
from sidecar.errors import ConfigurationError
from sidecar.main.given import clock
from sidecar.main.policy_follow import Follower
from sidecar.main.proven import Kept
from sidecar.main.standing import Announce, PolicyStanding

_SHORTEST = 8
"""Digits of a revision that a person may leave it at."""


class PolicyCommands:
    """Asked by whoever may open the socket; every attempt to change the policy is recorded as `admin_action`."""

    def __init__(self, follower: Follower, standing: PolicyStanding, say: Announce) -> None:
        self._follower, self._standing, self._say = follower, standing, say

    def commands(self) -> Mapping[str, Command]:
        """By name."""
        return {"policy.status": self.status, "policy.activate": self.activate, "policy.rollback": self.roll_back}

    async def status(self, arguments: Sequence[str], who: str) -> Answer:
        """What is in force, what its source holds, and what can be gone back to."""
        del arguments, who
        follower, now = self._follower, clock()
        active, kept = self._standing.decisions.active, follower.kept
        current = kept.find(active.revision)
        return {
            "in_force": {
                **_policy(active),
                "since": None if current is None else _time(current.since),
                "by": None if current is None else current.by,
                "source": follower.came_from,
                "engine": self._standing.decisions.name,
                "age_seconds": int(self._standing.policy_age(now)),
                "max_age_seconds": int(self._standing.max_age),
            },
            "source": self._source(active),
            "pinned": None if kept.state.pin is None else {
                "over": kept.state.pin.over, "by": kept.state.pin.by, "since": _time(kept.state.pin.at)
            },
            "history": [_kept(one, active) for one in kept.state.bundles],
            "problem": self._standing.problem,
        }  # fmt: skip

    async def activate(self, arguments: Sequence[str], who: str) -> Answer:
        """Take what the source holds now; with a path, the bundle there."""
        by = f"admin:{who}"

        async def do() -> Activated:
            if len(arguments) > 1 or (arguments and not Path(arguments[0]).is_absolute()):
                raise ConfigurationError("policy.activate takes one absolute path, or none")
            return await (self._follower.put(Path(arguments[0]), by) if arguments else self._follower.take(by))

        return await self._done("policy.activate", by, do())

    async def roll_back(self, arguments: Sequence[str], who: str) -> Answer:
        """Go back to the bundle before, or to the one named by its revision or the first digits of it."""
        by = f"rollback:{who}"

        async def do() -> Activated:
            if len(arguments) > 1:
                raise ConfigurationError("policy.rollback takes one revision, or none")
            return await self._follower.roll_back(self._target(arguments[0] if arguments else None), by)

        return await self._done("policy.rollback", by, do())

    def _target(self, wanted: str | None) -> Kept:
        active, kept = self._standing.decisions.active.revision, self._follower.kept
        if wanted is None:
            # What was gone back from is not what "before" means.
            before = kept.before(active)
            if before is None:
                raise ConfigurationError("no earlier policy is kept", fix="Name one with --to, or activate a bundle.")
            return before
        others = [one for one in kept.state.bundles if one.revision != active]
        digits = wanted.removeprefix("sha256:")
        found = [one for one in others if one.revision.removeprefix("sha256:").startswith(digits)]
        if len(digits) < _SHORTEST or len(found) != 1:
            raise ConfigurationError(
                "not one of the policies that are kept", value=wanted,
                fix="`sidecar policy status` lists them; eight digits of the revision will do.",
            )  # fmt: skip
        return found[0]

    async def _done(self, action: str, by: str, doing: Awaitable[Activated]) -> Answer:
        before = self._standing.decisions.active
        try:
            active = await doing
        except Exception as error:
            await self._say("admin_action", {"action": action, "by": by, "done": False, "revision": None})
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(f"{type(error).__name__}: {error}") from error
        await self._say("admin_action", {"action": action, "by": by, "done": True, "revision": active.revision})
        kept = self._follower.kept
        return {
            **_policy(active),
            "before": before.revision,
            "changed": before.revision != active.revision,
            "pinned": kept.state.pin is not None,
            "problem": kept.problem,
        }

    def _source(self, active: Activated) -> Answer:
        follower = self._follower
        found = follower.found
        if found is None:
            holds = "unreadable"
        elif found.revision == active.revision:
            holds = "in force"
        else:
            holds = "pinned over" if follower.superseded else "refused"
        return {
            "kind": follower.source.kind,
            "where": follower.source.where,
            "holds": holds,
            "revision": None if found is None else found.revision,
            "label": None if found is None else found.label,
        }


def _policy(active: Activated) -> dict[str, object]:
    return {
        "revision": active.revision,
        "label": active.bundle.label,
        "signers": list(active.bundle.signers),
        "tests": active.tests_passed,
        "documents_tried": active.documents_tried,
    }


def _kept(one: Kept, active: Activated) -> dict[str, object]:
    return {
        "revision": one.revision,
        "label": one.label,
        "signers": list(one.signers),
        "since": _time(one.since),
        "by": one.by,
        "source": one.source,
        "in_force": one.revision == active.revision,
    }


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
