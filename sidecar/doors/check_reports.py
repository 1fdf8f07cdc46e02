"""ReportOutcome: how permitted calls ended, as their callers say."""

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.doors.waiting import Waiting
from sidecar.enforcement.outcomes import Confirmation
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import Code, InterceptError
from sidecar.record import MessageCounts, Released, ReleasedByClass
from sidecar.vocabulary import CATEGORIES

_MOST = 1 << 53
"""JSON readers keep whole numbers up to here (RFC 8259, section 6)."""
_CALLERS = frozenset({"redact_fields", "mask_fields", "drop_records", "limit_records"})
_CATEGORIES = frozenset(CATEGORIES)
_CODES = frozenset(int(code) for code in Code)


class Reports:
    """Takes reports for permits that wait."""

    def __init__(self, waiting: Waiting, log: OperatorLog) -> None:
        self._waiting, self._log = waiting, log

    async def take(self, outcome: pb.Outcome, owner: str) -> pb.Reported:
        """Record the outcome of one call of this workload's; never raises but for cancellation."""
        try:
            said = confirmation(outcome)
        except InterceptError as error:
            return pb.Reported(call_id=outcome.call_id, code=int(error.code), message=error.message)
        inquiry = self._waiting.take(outcome.call_id, owner)
        if inquiry is None:
            if outcome.call_id in self._waiting:
                self._log.warning("a workload reported a call that it may not report", workload=owner,
                                  call_id=outcome.call_id)  # fmt: skip
            return pb.Reported(
                call_id=outcome.call_id, code=int(Code.NOT_FOUND), message="no such call of yours waits for a report"
            )
        final = await inquiry.confirm(said)
        return pb.Reported(call_id=outcome.call_id, code=int(final.code), message=final.message)


def confirmation(outcome: pb.Outcome) -> Confirmation:
    """What a report says. InterceptError for a code, category, obligation or number that cannot be."""
    if outcome.code not in _CODES:
        raise InterceptError("no such gRPC status code")
    if not _CALLERS.issuperset(outcome.met):
        raise InterceptError("an obligation is reported that no permit of this API carries")
    return Confirmation(
        status=Code(outcome.code).name,
        messages=MessageCounts(in_=_number(outcome.messages_in), out=_number(outcome.messages_out)),
        released=ReleasedByClass(
            us=_released(outcome.us), non_us=_released(outcome.non_us), unknown=_released(outcome.unknown)
        ),
        dropped=_number(outcome.dropped),
        redacted={_category(name): _number(many) for name, many in sorted(outcome.redacted.items())},
        bytes_out=_number(outcome.bytes_out),
        met=dict(outcome.met),
    )


def _released(said: pb.Released) -> Released:
    by_category = {_category(name): _number(many) for name, many in sorted(said.by_category.items())}
    if any(many > said.records for many in by_category.values()):
        raise InterceptError("more records of a category than records")
    return Released(records=_number(said.records), by_category=by_category)


def _category(name: str) -> str:
    if name not in _CATEGORIES:
        raise InterceptError("no such category")
    return name


def _number(value: int) -> int:
    if value > _MOST:
        raise InterceptError("a number beyond 2^53")
    return value
