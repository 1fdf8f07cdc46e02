"""The outcome of a call whose answer did not pass through the sidecar: as its caller tells it, or untold."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter

from sidecar.observability.calls import CallSpan
from sidecar.record import MessageCounts, OutcomeBody, ReleasedByClass

UNOBSERVED = "unobserved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """How the call ended, as the caller says. `status` is a gRPC status name; figures as in an outcome record."""

    status: str
    messages: MessageCounts
    released: ReleasedByClass = ReleasedByClass()
    dropped: int = 0
    redacted: Mapping[str, int] = field(default_factory=dict)
    bytes_out: int = 0


def unseen(call_id: str, span: CallSpan, said: Confirmation | None) -> OutcomeBody:
    """The record of it. None: nobody has said anything, which is not a complete outcome."""
    duration = round((perf_counter() - span.started) * 1e3, 3)
    if said is None:
        return OutcomeBody(
            call_id=call_id, status=UNOBSERVED, messages=MessageCounts(in_=0, out=0), released=ReleasedByClass(),
            dropped=0, redacted={}, bytes_out=0, duration_ms=duration, complete=False, seen="unobserved",
        )  # fmt: skip
    return OutcomeBody(
        call_id=call_id, status=said.status, messages=said.messages, released=said.released, dropped=said.dropped,
        redacted=dict(said.redacted), bytes_out=said.bytes_out, duration_ms=duration, complete=True, seen="reported",
    )  # fmt: skip


def refused(call_id: str, span: CallSpan, status: str) -> OutcomeBody:
    """The record of a question that was refused: nothing went anywhere."""
    return OutcomeBody(
        call_id=call_id, status=status, messages=MessageCounts(in_=0, out=0), released=ReleasedByClass(), dropped=0,
        redacted={}, bytes_out=0, duration_ms=round((perf_counter() - span.started) * 1e3, 3), complete=True,
    )  # fmt: skip
