"""What a decision looks like to a caller of the decision API: messages, encoded as they leave.

An answer is bytes from here on. A batch's or a stream's answer holds it as it is, since in the wire format a message
stands in another as its bytes and their number (protobuf, "Encoding", "Submessages").
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import floor, inf
from typing import NamedTuple

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.enforcement.call import Final
from sidecar.enforcement.metadata import OWN
from sidecar.enforcement.permits import Permit
from sidecar.errors import Code, EnforceError
from sidecar.vocabulary import ReasonCode, SubjectClass

_UNDECIDED = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED, Code.INTERNAL, Code.UNKNOWN})
_CLASSES = {"us": pb.SUBJECT_CLASS_US, "unknown": pb.SUBJECT_CLASS_UNKNOWN}
_WORDS: dict[int, SubjectClass] = {pb.SUBJECT_CLASS_US: "us", pb.SUBJECT_CLASS_UNKNOWN: "unknown"}
_MOST_MADE = 512
Obligations = tuple[Mapping[str, object], ...]
_MET_HERE = frozenset({"require_durability"})


class Answered(NamedTuple):
    """The answer to one question: a `CheckResponse`, encoded. `call_id` is empty where no call came of it."""

    call_id: str
    data: bytes


class Shown(NamedTuple):
    """What is said of a message beside the permit. `forward`, `release`: other bytes than were sent; None: those sent."""

    forward: bytes | None = None
    release: bytes | None = None
    withheld: bool = False


AS_SENT = Shown()


@dataclass(slots=True)
class _Begun:
    """An answer without what a call brings: its two instants are overwritten call after call."""

    obligations: Obligations
    response: pb.CheckResponse
    drops: bool
    until: tuple[float, float] = (inf, inf)
    """The instants, `report_by` first, with which it has been encoded as `data`."""
    data: bytes = b""

    def encoded(self, expires_at: float, report_by: float) -> bytes:
        """With these instants, as often as they are asked for: the items of a batch have them in common."""
        until = report_by, min(expires_at, report_by)
        if until != self.until:
            response = self.response
            _until(response.report_by, report_by)
            _until(response.expires_at, until[1])
            self.until, self.data = until, response.SerializeToString()
        return self.data


class Permits:
    """Renders permits. What is the same for the same obligations is made once. One event loop."""

    def __init__(self) -> None:
        self._made: dict[int, _Begun] = {}

    def rendered(
        self, permit: Permit, *, of_method: bool, checked: bool, report_by: float, shown: Shown = AS_SENT
    ) -> Answered:
        """A permit. EnforceError for an obligation that the API has no words for.

        `checked` methods have their answers filtered here: nothing is left for the caller to do.
        """
        begun, call_id = self._begun(() if of_method and checked else permit.obligations), permit.call_id
        # A field may stand anywhere in a message (protobuf, "Encoding", "Field Order").
        data = begun.encoded(permit.expires_at, report_by) + _part(_CALL_ID, call_id.encode())
        if not of_method and not begun.drops:
            return Answered(call_id, data)
        found = pb.CheckResponse.FromString(data)
        if of_method:
            _of_method(found, permit, shown)
        if permit.dropped:
            for one in found.obligations:
                if one.HasField("drop_records"):
                    one.drop_records.ids.extend(permit.dropped.get(_WORDS[one.drop_records.subjects], ()))
        return Answered(call_id, found.SerializeToString())

    def _begun(self, obligations: Obligations) -> _Begun:
        made = self._made.get(id(obligations))
        if made is not None and made.obligations is obligations:
            return made
        response = pb.CheckResponse(
            decision=pb.DECISION_PERMIT,
            obligations=[_obligation(one) for one in obligations if one["id"] not in _MET_HERE],
        )
        drops = any(one.HasField("drop_records") for one in response.obligations)
        if len(self._made) >= _MOST_MADE:
            self._made.clear()
        # Holding the obligations keeps their id from being given to others.
        made = self._made[id(obligations)] = _Begun(obligations, response, drops)
        return made


def refused(final: Final, call_id: str) -> Answered:
    """A deny, or that nothing could be decided or recorded now."""
    undecided = final.code in _UNDECIDED
    found = pb.CheckResponse(
        decision=pb.DECISION_INDETERMINATE if undecided else pb.DECISION_DENY,
        call_id=call_id, code=int(final.code), message=final.message,
    )  # fmt: skip
    if final.error_info is not None:
        said = final.error_info.metadata
        found.reasons.extend(said["reasons"].split(",") if said.get("reasons") else [final.error_info.reason])
        found.policy_revision = said.get("policy_revision", "")
    if final.retry_after is not None:
        found.retry_after.FromMilliseconds(round(final.retry_after * 1000))
    return Answered(call_id, found.SerializeToString())


def batch(answers: Iterable[tuple[str, Answered]]) -> bytes:
    """A `BatchCheckResponse`, encoded: the answer to each item, by the caller's id of it."""
    return b"".join([
        _part(_RESULTS, _part(_ITEM, name.encode()) + _part(_RESPONSE, answered.data)) for name, answered in answers
    ])  # fmt: skip


def streamed(name: str, answered: Answered) -> bytes:
    """A `CheckStreamResponse` to a question, encoded."""
    return _part(_ASKED, name.encode()) + _part(_CHECK, answered.data)


def _tag(kind: type[Message], field: str) -> bytes:
    """What stands before a field of bytes: its number, and that a length follows."""
    found = kind.DESCRIPTOR.fields_by_name[field].number << 3 | 2
    return bytes((found,))


_RESULTS = _tag(pb.BatchCheckResponse, "results")
_ITEM, _RESPONSE = _tag(pb.BatchResult, "id"), _tag(pb.BatchResult, "response")
_CALL_ID = _tag(pb.CheckResponse, "call_id")
_ASKED, _CHECK = _tag(pb.CheckStreamResponse, "id"), _tag(pb.CheckStreamResponse, "check")


def _part(tag: bytes, data: bytes) -> bytes:
    size = len(data)
    if size < 0x80:
        return b"%b%c%b" % (tag, size, data)
    length = bytearray()
    while size >= 0x80:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return b"%b%b%b" % (tag, bytes(length), data)


def _of_method(found: pb.CheckResponse, permit: Permit, shown: Shown) -> None:
    for key, value in permit.metadata:
        if isinstance(value, str) and (key == "traceparent" or key.startswith(OWN)):
            found.metadata[key] = value
    if shown.forward is not None:
        found.forward = shown.forward
    if shown.release is not None:
        found.release = shown.release
    found.withheld = shown.withheld


def _obligation(one: Mapping[str, object]) -> pb.Obligation:
    match one:
        case {"id": "redact_fields", "categories": list(categories), "fields": list(fields)}:
            return pb.Obligation(redact_fields=pb.RedactFields(categories=categories, fields=fields))
        case {"id": "mask_fields", "categories": list(categories), "fields": list(fields)}:
            return pb.Obligation(mask_fields=pb.MaskFields(categories=categories, fields=fields))
        case {"id": "drop_records", "subjects": ("us" | "unknown") as class_}:
            return pb.Obligation(drop_records=pb.DropRecords(subjects=_CLASSES[class_]))
        case {"id": "limit_records", "max": int(most)}:
            return pb.Obligation(limit_records=pb.LimitRecords(max=most))
        case _:
            raise EnforceError(
                "the permit carries an obligation that cannot be handed on", reason=ReasonCode.OBLIGATION_UNFULFILLABLE,
                operator=f"the decision API has no words for obligation {one.get('id')!r}",
            )  # fmt: skip


def _until(field: Timestamp, seconds: float) -> None:
    whole = floor(seconds)
    field.seconds, field.nanos = whole, int((seconds - whole) * 1e9)
