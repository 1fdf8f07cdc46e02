"""Which of a sidecar's processes this one is: the only one, a worker among others, or part of a service."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sidecar.main.worker_policy import GivenPolicy


async def _at_once(_slot: int) -> None:
    """Nobody has to be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """By default the only process of a sidecar.

    `worker` numbers the workers from 0. `slots` are those of the spool that it may take, the first that is free: several
    processes of one producer say `slots.ANY`. `policy` is what the supervisor gives; None: it follows the policy's source
    itself. `may_open` is awaited, with the slot, before the doors open. `shared`: other workers listen on the same ports,
    and the supervisor answers on the admin socket and for metrics.
    """

    worker: int = 0
    slots: Sequence[int] = (0,)
    policy: GivenPolicy | None = None
    may_open: Callable[[int], Awaitable[None]] = _at_once
    shared: bool = False


ALONE = Seat()
