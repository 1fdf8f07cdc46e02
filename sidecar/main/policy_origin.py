"""Where a process has its policy from: the source that it follows itself, or the supervisor that follows it for all."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.decision.engines import EngineMaker
from sidecar.enforcement.transport import OperatorLog
from sidecar.main import policy_start
from sidecar.main.given import clock
from sidecar.main.policy_admission import Admission
from sidecar.main.policy_follow import Follower, Told
from sidecar.main.policy_start import Started
from sidecar.main.seat import Seat
from sidecar.main.sources import Source
from sidecar.main.standing import InForce
from sidecar.main.worker_policy import GivenPolicy

if TYPE_CHECKING:  # the models are pydantic's, and a process that serves has none of it
    from sidecar.settings.sidecar import SidecarSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyOrigin:
    """What a process begins with, and where the next one comes from."""

    started: Started
    own: tuple[Source, Admission] | None
    given: GivenPolicy | None

    def followed(self, standing: InForce, told: Told) -> Follower | None:
        """What follows the source; None where the supervisor does, which is told where the policy stands."""
        if self.own is not None:
            return Follower(*self.own, standing, self.started, told)
        if self.given is not None:
            self.given.connect(standing, told)
        return None


async def policy_origin(settings: "SidecarSettings", log: OperatorLog, maker: EngineMaker, seat: Seat) -> PolicyOrigin:
    """The policy that this process begins with, ready to answer. ConfigurationError."""
    if seat.policy is not None:
        return PolicyOrigin(started=await seat.policy.begin(maker), own=None, given=seat.policy)
    source = policy_start.open_source(settings.policy.bundle)
    entry = policy_start.admission(settings, maker)
    started = await asyncio.to_thread(policy_start.start, source, entry, log, clock())
    return PolicyOrigin(started=started, own=(source, entry), given=None)
