"""How a refusal looks: to the record (a decision document) and to the caller (a status, without rule text)."""

from sidecar.enforcement.call import ErrorInfo, Final
from sidecar.errors import Code, EnforceError, InterceptError, RecordError, StageError
from sidecar.vocabulary import Decision, Effect, Reason, ReasonCode, status_of

DENY = Effect.DENY
SCHEMA = Decision(
    effect=Effect.PERMIT,
    reasons=(Reason(code="schema", message="schemas hold no personal data", rule="sidecar/reflection"),),
)
"""What is recorded when an identified caller reads schemas."""
SEARCH = Decision(
    effect=Effect.PERMIT,
    reasons=(Reason(code="search", message="who or what may is told, nothing is reached", rule="sidecar/search"),),
)
"""What is recorded when an identified caller searches for what would be permitted."""
ASKED_FOR = Decision(
    effect=Effect.PERMIT,
    reasons=(Reason(code="access_request", message="an exception is asked for, or no more", rule="sidecar/request"),),
)
"""What is recorded when an identified caller asks for an exception, or takes that back."""
RETRY_SECONDS = 1.0
_ORDER = {code: place for place, code in enumerate(ReasonCode)}
_BY_STAGE = {
    "intercept": ReasonCode.UNCLASSIFIED_DATA,
    "identify": ReasonCode.UNIDENTIFIED_PERSON,
    "describe": ReasonCode.UNDESCRIBED_METHOD,
    "decide": ReasonCode.POLICY_ERROR,
    "record": ReasonCode.RECORD_UNAVAILABLE,
    "enforce": ReasonCode.OBLIGATION_UNFULFILLABLE,
}
"""The reason recorded where a stage names only a status: bytes that cannot be read cannot be classified either."""


def reason(error: StageError, rule: str) -> Reason:
    """The error as a reason of a decision document."""
    return Reason(code=_code(error), message=error.message, rule=rule)


def _code(error: StageError) -> str:
    if error.reason:
        return error.reason
    return ReasonCode.UNDESCRIBED_METHOD if error.code is Code.UNIMPLEMENTED else _BY_STAGE.get(error.stage, "")


def decision(error: StageError) -> Decision:
    """The deny that the sidecar itself pronounces when a stage refuses."""
    return Decision(effect=DENY, reasons=(reason(error, f"sidecar/{error.stage}"),))


def denied(made: Decision, call_id: str, revision: str | None) -> Final:
    """What a caller sees of a policy's deny: its codes, the call's id and the policy's revision."""
    codes = sorted({one.code for one in made.reasons}, key=lambda code: _ORDER.get(ReasonCode(code), 0))
    info = {"call_id": call_id, "policy_revision": revision or "", "reasons": ",".join(codes)}
    code = status_of(frozenset(codes))
    preconditions = (("APPROVAL", call_id, "an approval is outstanding"),) if code is Code.FAILED_PRECONDITION else ()
    return Final(
        code=code,
        message=f"refused: {', '.join(codes)} (call {call_id})",
        error_info=ErrorInfo(reason=codes[0], metadata=info),
        preconditions=preconditions,
    )


def failed(error: StageError, call_id: str, revision: str | None = None) -> Final:
    """What a caller sees when a stage could not do its work."""
    code = _code(error)
    info = (
        ErrorInfo(reason=code, metadata={"call_id": call_id, "policy_revision": revision or "", "stage": error.stage})
        if code
        else None
    )
    retry = RETRY_SECONDS if isinstance(error, RecordError) or error.code is Code.UNAVAILABLE else None
    return Final(code=error.code, message=f"{error.message} (call {call_id})", error_info=info, retry_after=retry)


def unreadable(method: str, error: InterceptError) -> EnforceError:
    """An answer that cannot be read, and so not filtered."""
    return EnforceError(
        "the answer cannot be read, so it cannot be filtered",
        reason=ReasonCode.OBLIGATION_UNFULFILLABLE,
        operator=f"{method}: the upstream's answer does not match its descriptor: {error.operator}. "
        "Give the sidecar the descriptors the upstream was built from.",
    )


def unrecorded(error: Exception) -> RecordError:
    """Why there is no durable outcome, whatever the recorder raised."""
    if isinstance(error, RecordError):
        return error
    return RecordError("the access cannot be recorded now", operator=f"the recorder failed: {type(error).__name__}")


def withheld(call_id: str) -> Final:
    """The whole answer was a record that an obligation dropped."""
    code = ReasonCode.OBLIGATION_UNFULFILLABLE
    return Final(
        code=Code.PERMISSION_DENIED,
        message=f"refused: the answer holds nothing that may leave (call {call_id})",
        error_info=ErrorInfo(reason=code, metadata={"call_id": call_id}),
    )
