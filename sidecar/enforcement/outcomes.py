"""Outcomes: of a call whose answers passed here, of one that its caller tells of, of one of which nobody tells."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from time import perf_counter

import msgspec

from sidecar.observability.calls import CallSpan
from sidecar.record import MessageCounts, ObligationMet, OutcomeBody, ReleasedByClass

UNOBSERVED = "unobserved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """How the call ended, as the caller says. `status` is a gRPC status name; figures as in an outcome record.

    `met`: obligations that were the caller's to meet, by name.
    """

    status: str
    messages: MessageCounts
    released: ReleasedByClass = field(default_factory=ReleasedByClass)
    dropped: int = 0
    redacted: Mapping[str, int] = field(default_factory=dict)
    bytes_out: int = 0
    met: Mapping[str, bool] = field(default_factory=dict)


class Shown(msgspec.Struct, frozen=True):
    """What passed here, as an outcome record counts it."""

    messages: MessageCounts
    released: ReleasedByClass
    dropped: int
    redacted: dict[str, int]
    bytes_out: int


def beyond(said: Confirmation, shown: Shown) -> bool:
    """Whether the caller says that more left than was shown here."""
    pairs = ((said.released.us, shown.released.us), (said.released.non_us, shown.released.non_us),
             (said.released.unknown, shown.released.unknown))  # fmt: skip
    return said.messages.out > shown.messages.out or any(told.records > here.records for told, here in pairs)


_NOTHING = Shown(MessageCounts(in_=0, out=0), ReleasedByClass(), 0, {}, 0)


def observed(call_id: str, span: CallSpan, status: str, shown: Shown) -> OutcomeBody:
    """The record of a call whose every answer passed here."""
    return OutcomeBody(
        call_id=call_id, status=status, messages=shown.messages, released=shown.released, dropped=shown.dropped,
        redacted=shown.redacted, bytes_out=shown.bytes_out,
        duration_ms=int((perf_counter() - span.started) * 1e6) / 1e3, complete=True,
    )  # fmt: skip


def unseen(
    call_id: str, span: CallSpan, said: Confirmation | None, shown: Shown | None = None, ordered: Iterable[str] = ()
) -> OutcomeBody:
    """The record of another. `said` None: nobody has told how it ended, which is no complete outcome.

    `shown`: what of it was shown here before it left, which is then recorded, whatever is said. `ordered`: obligations
    that were the caller's to meet; one of which nothing is said was not met.
    """
    if said is None:
        found = observed(call_id, span, UNOBSERVED, shown or _NOTHING)
        return msgspec.structs.replace(found, complete=False, seen="unobserved")
    told = Shown(said.messages, said.released, said.dropped, dict(said.redacted), said.bytes_out)
    all_met = {**dict.fromkeys(ordered, False), **said.met}
    met = tuple([ObligationMet(id=name, met=all_met[name]) for name in sorted(all_met)])
    found = observed(call_id, span, said.status, shown or told)
    return msgspec.structs.replace(found, seen="reported", obligations=met or msgspec.UNSET)


def cut_short(call_id: str, span: CallSpan, status: str, shown: Shown | None) -> OutcomeBody:
    """The record of a call that was refused after something of it had been permitted, which its caller may have done.

    `shown`: what passed here, on the caller's word that nothing else left; None: nobody saw what came of it.
    """
    if shown is None:
        return unseen(call_id, span, None)
    return msgspec.structs.replace(observed(call_id, span, status, shown), seen="reported")


def refused(call_id: str, span: CallSpan, status: str) -> OutcomeBody:
    """The record of a question that was refused: nothing went anywhere."""
    return observed(call_id, span, status, _NOTHING)
