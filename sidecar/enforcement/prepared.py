"""What follows from a decision at a door, worked out once for each decision the cache holds.

A cached decision is the same object call after call; its duties, its encoding and how its obligations are met do not
change either.
"""

from dataclasses import dataclass

import msgspec

from sidecar.enforcement import refusals
from sidecar.enforcement.call import Door
from sidecar.enforcement.obligations import Duties
from sidecar.errors import EnforceError
from sidecar.record import ObligationMet
from sidecar.vocabulary import AnyObligation, Decision, UnknownObligation

MAX_KEPT = 4096
_BY_EXCEPTION = "exception"
"""The code among a permit's reasons when an exception stood in for what the rules deny."""
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A decision as it is enforced and recorded. `error`: why this door could not meet a permit, now a deny.

    `by_exception`: an exception stood in for what the rules deny. `effect` and `reason` (its first code): for metrics.
    """

    decision: Decision
    duties: Duties
    encoded: msgspec.Raw
    obligations: tuple[ObligationMet, ...]
    error: EnforceError | None
    permits: bool
    by_exception: bool
    effect: str
    reason: str


class Preparations:
    """Prepares decisions for doors, and remembers those it has seen. One event loop."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, frozenset[str]], tuple[Decision, Prepared]] = {}

    def of(self, decision: Decision, door: Door) -> Prepared:
        """The decision, prepared. A permit that the door cannot fulfil becomes a deny `obligation_unfulfillable`."""
        # By what the door fulfils: one door may promise more to one caller than to another.
        key = (id(decision), door.fulfils)
        kept = self._kept.get(key)
        if kept is not None and kept[0] is decision:
            return kept[1]
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        made = prepare(decision, door)
        self._kept[key] = (decision, made)  # holding the decision keeps its id from being given to another
        return made


def prepare(decision: Decision, door: Door) -> Prepared:
    """Work it out, without remembering."""
    if not decision.permits:
        return _prepared(decision, Duties.none(), None)
    try:
        return _prepared(decision, Duties.of(decision.obligations, door.fulfils), None)
    except EnforceError as error:
        reasons = (refusals.reason(error, "sidecar/enforce"),)
        denied = msgspec.structs.replace(decision, effect=refusals.DENY, reasons=reasons, ttl_seconds=0)
        return _prepared(denied, Duties.none(), error)


def _prepared(decision: Decision, duties: Duties, error: EnforceError | None) -> Prepared:
    met = tuple(ObligationMet(id=_name(one), met=decision.permits) for one in decision.obligations)
    by_exception = any(one.code == _BY_EXCEPTION for one in decision.reasons)
    return Prepared(
        decision, duties, msgspec.Raw(_encode(decision)), met, error, decision.permits, by_exception,
        str(decision.effect), decision.reasons[0].code if decision.reasons else "",
    )  # fmt: skip


def _name(obligation: AnyObligation) -> str:
    return obligation.name if isinstance(obligation, UnknownObligation) else str(obligation.__struct_config__.tag)
