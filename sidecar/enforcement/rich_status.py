"""`google.rpc.Status` (googleapis google/rpc/status.proto, error_details.proto): rendering refusals, reducing answers."""

import re

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo, PreconditionFailure, RetryInfo
from google.rpc.status_pb2 import Status

from sidecar.enforcement.call import DOMAIN, Final, Metadata
from sidecar.enforcement.metadata import DETAILS
from sidecar.errors import Code

_REASON = re.compile(r"[A-Z][A-Z0-9_]{0,61}[A-Z0-9]")
_DOMAIN = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}")
_LONGEST_RETRY = 86_400


def trailing(final: Final) -> Metadata:
    """The trailers of a call's end: the upstream's that may be seen, or the sidecar's own rich status."""
    if final.error_info is None and final.retry_after is None and not final.preconditions:
        return final.trailing
    others = tuple(item for item in final.trailing if item[0] != DETAILS)
    return (*others, (DETAILS, render(final)))


def render(final: Final) -> bytes:
    """A refusal as `google.rpc.Status`: ErrorInfo, then RetryInfo, then PreconditionFailure, as far as present."""
    status = Status(code=int(final.code), message=final.message)
    if final.error_info is not None:
        info = ErrorInfo(reason=final.error_info.reason, domain=DOMAIN, metadata=final.error_info.metadata)
        status.details.add().Pack(info)
    if final.retry_after is not None:
        retry = RetryInfo()
        retry.retry_delay.FromNanoseconds(round(final.retry_after * 1e9))
        status.details.add().Pack(retry)
    if final.preconditions:
        failure = PreconditionFailure()
        for type_, subject, description in final.preconditions:
            failure.violations.add(type=type_, subject=subject, description=description)
        status.details.add().Pack(failure)
    rendered: bytes = status.SerializeToString()
    return rendered


def reduced(final: Final) -> Final:
    """The same status code, with nothing of the upstream's that could carry data.

    The message is generic. Of the details, one RetryInfo (whole milliseconds, a day at most) and one ErrorInfo
    (reason and domain, if they look like the constants that the type asks for) are written anew; all else is gone.
    """
    if final.code is Code.OK:
        return Final(code=Code.OK)
    message = f"the service answered {final.code.name}"
    carried = next((value for key, value in final.trailing if key == DETAILS), None)
    kept = _allowed(carried) if isinstance(carried, bytes) else []
    if not kept:
        return Final(code=final.code, message=message)
    status = Status(code=int(final.code), message=message)
    for detail in kept:
        status.details.add().Pack(detail)
    return Final(code=final.code, message=message, trailing=((DETAILS, status.SerializeToString()),))


def _allowed(carried: bytes) -> list[ErrorInfo | RetryInfo]:
    kept: dict[type, ErrorInfo | RetryInfo] = {}
    try:
        for any_ in Status.FromString(carried).details:
            detail: ErrorInfo | RetryInfo | None = None
            if any_.Is(ErrorInfo.DESCRIPTOR):
                detail = _error_info(ErrorInfo.FromString(any_.value))
            elif any_.Is(RetryInfo.DESCRIPTOR):
                detail = _retry_info(RetryInfo.FromString(any_.value))
            if detail is not None:
                kept.setdefault(type(detail), detail)
    except DecodeError:
        return []
    return list(kept.values())


def _error_info(said: ErrorInfo) -> ErrorInfo | None:
    if not _REASON.fullmatch(said.reason):
        return None
    return ErrorInfo(reason=said.reason, domain=said.domain if _DOMAIN.fullmatch(said.domain) else "")


def _retry_info(said: RetryInfo) -> RetryInfo:
    delay = said.retry_delay
    millis = min(max(delay.seconds * 1000 + delay.nanos // 1_000_000, 0), _LONGEST_RETRY * 1000)
    retry = RetryInfo()
    retry.retry_delay.FromMilliseconds(millis)
    return retry
