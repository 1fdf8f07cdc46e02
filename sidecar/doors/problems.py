"""Refusals as HTTP clients understand them: problem details (RFC 9457) with reason codes and call id, no rule text."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from sidecar.enforcement.call import Final, Metadata
from sidecar.errors import Code

_STATUS: Mapping[Code, HTTPStatus] = MappingProxyType({
    Code.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    Code.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST,
    Code.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    Code.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    Code.FAILED_PRECONDITION: HTTPStatus.FORBIDDEN,
    Code.UNIMPLEMENTED: HTTPStatus.FORBIDDEN,
    Code.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    Code.ABORTED: HTTPStatus.CONFLICT,
    Code.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    Code.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
})  # fmt: skip
"""As googleapis google/rpc/code.proto maps them, but that an approval which is outstanding (FAILED_PRECONDITION) and a
method that nobody knows are forbidden: neither is mended by another request. Any other code is 500."""


def http_status(code: Code) -> int:
    """The HTTP status under which a refusal is told."""
    return int(_STATUS.get(code, HTTPStatus.INTERNAL_SERVER_ERROR))


def problem(final: Final) -> tuple[int, Metadata, bytes]:
    """A refusal: status, headers, body. `code` is the gRPC status, `reasons` are the codes of the closed list."""
    number = http_status(final.code)
    document: dict[str, object] = {
        "type": "about:blank", "title": HTTPStatus(number).phrase, "status": number, "detail": final.message,
        "code": final.code.name,
    }  # fmt: skip
    if final.error_info is not None:
        info = final.error_info
        document["reasons"] = info.metadata.get("reasons", info.reason).split(",")
        document["call_id"] = info.metadata.get("call_id", "")
    headers: Metadata = (("content-type", "application/problem+json"), ("cache-control", "no-store"))
    if final.retry_after is not None:  # RFC 9110, 10.2.3: whole seconds
        headers = (*headers, ("retry-after", str(max(1, round(final.retry_after)))))
    return number, headers, json.dumps(document).encode()
