"""`POST /access/v1/outcome`: how a permitted access ended, as its caller tells it. An extension: AuthZEN has no word for it.

```json
{"call_id": "…", "status": "OK", "messages": {"in": 1, "out": 1},
 "released": {"us": {"records": 1, "by_category": {"id_contact": 1}}}, "dropped": 0, "redacted": {}, "bytes_out": 120,
 "met": {"redact_fields": true}}
```
Only the workload that asked may report, once, within `checks.report_within`. The figures are recorded as its own.
"""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from sidecar.doors.authzen_evaluation import DUTIES, Answer, Asker
from sidecar.doors.authzen_json import Json, MalformedError
from sidecar.doors.waiting import Waiting
from sidecar.enforcement.outcomes import Confirmation
from sidecar.enforcement.pipeline import EnforcementPoint
from sidecar.errors import Code, IdentifyError
from sidecar.record import MessageCounts, Released, ReleasedByClass
from sidecar.vocabulary import CATEGORIES

_Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class _Messages(msgspec.Struct, frozen=True, kw_only=True):
    in_: _Count = msgspec.field(name="in", default=0)
    out: _Count = 0


class _Released(msgspec.Struct, frozen=True, kw_only=True):
    records: _Count = 0
    by_category: dict[str, _Count] = {}


class _ByClass(msgspec.Struct, frozen=True, kw_only=True):
    us: _Released = _Released()
    non_us: _Released = _Released()
    unknown: _Released = _Released()


class _Report(msgspec.Struct, frozen=True, kw_only=True):
    call_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    status: str
    messages: _Messages = _Messages()
    released: _ByClass = _ByClass()
    dropped: _Count = 0
    redacted: dict[str, _Count] = {}
    bytes_out: _Count = 0
    met: dict[str, bool] = {}


class Outcomes:
    """Takes reports."""

    def __init__(self, point: EnforcementPoint, waiting: Waiting) -> None:
        self._point, self._waiting = point, waiting

    async def report(self, asker: Asker, said: Mapping[str, Json]) -> Answer:
        """Record what is reported. 404 for a call that is not this workload's to report, or no more."""
        try:
            report = msgspec.convert(said, _Report)
        except msgspec.ValidationError as error:
            raise MalformedError(f"this is no report: {error}") from None
        confirmation = _confirmation(report)
        try:
            owner = self._point.workload(asker.peer)
        except IdentifyError as error:
            return Answer(status=401, message=error.message)
        inquiry = self._waiting.take(report.call_id, owner)
        if inquiry is None:
            return Answer(status=404, message="no permit of this call waits for your report")
        final = await inquiry.confirm(confirmation)
        if final.code is not Code.OK:
            return Answer(status=503, message=final.message)
        return Answer(decision=True, context={"id": report.call_id, "recorded": "reported"})


def _confirmation(report: _Report) -> Confirmation:
    if report.status not in Code.__members__:
        raise MalformedError("status is not the name of a gRPC status")
    counted = [report.redacted, *(one.by_category for one in _classes(report))]
    if any(name not in CATEGORIES for names in counted for name in names):
        raise MalformedError("there is no such category")
    if any(many > one.records for one in _classes(report) for many in one.by_category.values()):
        raise MalformedError("more records of a category than records")
    if not DUTIES.issuperset(report.met):
        raise MalformedError("met names no obligation of this API")
    us, non_us, unknown = (Released(records=one.records, by_category=one.by_category) for one in _classes(report))
    return Confirmation(
        status=report.status, messages=MessageCounts(in_=report.messages.in_, out=report.messages.out),
        released=ReleasedByClass(us=us, non_us=non_us, unknown=unknown), dropped=report.dropped,
        redacted=report.redacted, bytes_out=report.bytes_out, met=report.met,
    )  # fmt: skip


def _classes(report: _Report) -> tuple[_Released, _Released, _Released]:
    return report.released.us, report.released.non_us, report.released.unknown
