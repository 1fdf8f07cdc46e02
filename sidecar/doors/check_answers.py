"""What a decision looks like to a caller of the decision API."""

from collections.abc import Mapping
from math import floor

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.enforcement.call import Final
from sidecar.enforcement.inquiry import Permit
from sidecar.enforcement.metadata import OWN
from sidecar.errors import Code, EnforceError
from sidecar.vocabulary import ReasonCode, SubjectClass

_UNDECIDED = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED, Code.INTERNAL, Code.UNKNOWN})
_CLASSES = {"us": pb.SUBJECT_CLASS_US, "unknown": pb.SUBJECT_CLASS_UNKNOWN}
_WORDS: dict[int, SubjectClass] = {pb.SUBJECT_CLASS_US: "us", pb.SUBJECT_CLASS_UNKNOWN: "unknown"}
_MOST_MADE = 512
Obligations = tuple[Mapping[str, object], ...]
_MET_HERE = frozenset({"require_durability"})


class Permits:
    """Renders permits. What is the same for the same obligations is made once and copied."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Obligations, pb.CheckResponse]] = {}

    def rendered(self, permit: Permit, *, of_method: bool, checked: bool, report_by: float) -> pb.CheckResponse:
        """A permit. EnforceError for an obligation that the API has no words for.

        `checked` methods have their answers filtered here: nothing is left for the caller to do.
        """
        found = pb.CheckResponse()
        found.MergeFrom(self._begun(() if of_method and checked else permit.obligations))
        found.call_id = permit.call_id
        if permit.dropped:
            for one in found.obligations:
                if one.HasField("drop_records"):
                    one.drop_records.ids.extend(permit.dropped.get(_WORDS[one.drop_records.subjects], ()))
        if of_method:
            for key, value in permit.metadata:
                if isinstance(value, str) and (key == "traceparent" or key.startswith(OWN)):
                    found.metadata[key] = value
        _until(found.report_by, report_by)
        _until(found.expires_at, min(permit.expires_at, report_by))
        return found

    def _begun(self, obligations: Obligations) -> pb.CheckResponse:
        made = self._made.get(id(obligations))
        if made is not None and made[0] is obligations:
            return made[1]
        response = pb.CheckResponse(
            decision=pb.DECISION_PERMIT,
            obligations=[_obligation(one) for one in obligations if one["id"] not in _MET_HERE],
        )
        if len(self._made) >= _MOST_MADE:
            self._made.clear()
        self._made[id(obligations)] = (obligations, response)  # holding them keeps their id from being given to others
        return response


def refused(final: Final, call_id: str) -> pb.CheckResponse:
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
    return found


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


def _until(field: object, seconds: float) -> None:
    whole = floor(seconds)
    field.seconds, field.nanos = whole, int((seconds - whole) * 1e9)  # type: ignore[attr-defined]
