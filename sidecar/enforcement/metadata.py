"""Which metadata crosses the sidecar, either way (gRPC over HTTP/2, "Custom-Metadata"; RFC 9110 section 7.6.1).

A value that gRPC cannot carry (outside printable ASCII, keys without `-bin`) is dropped: whoever needed it is then
refused for lack of it, in the ordinary and recorded way. Of `authorization` an empty value stays instead: without it, a
bad token would be as good as none, and a workload that may act alone would act on whatever word it passed on.
"""

import re
from collections.abc import Iterable

from sidecar._native import Listener
from sidecar.enforcement.call import Metadata

INPUTS = frozenset({
    "x-customhouse-purpose", "x-customhouse-justification", "x-customhouse-ticket", "x-customhouse-exception",
})  # fmt: skip
"""The words of the sidecar's own that a caller may say."""
OWN = "x-customhouse-"
_IDENTITY = "authorization"
DETAILS = "grpc-status-details-bin"
_HOP = frozenset({
    "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
    "transfer-encoding", "upgrade", "http2-settings", "host", "content-type", "content-length", "user-agent",
})  # fmt: skip
"""Of one connection only, or written anew by the transport for each side."""
_FORGED = frozenset({
    "x-forwarded-client-cert", "x_forwarded_client_cert",
    "x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url",
})  # fmt: skip
"""What would make a service believe in another caller, or take the request for another than the one decided about."""
_OURS = "customhouse"
"""Stands in every key that begins with `OWN`, also where it is spelt with `_`, which gateways (CGI, WSGI) take for `-`."""
_DROPPED = _HOP | _FORGED
_CARRIED = re.compile("[ -~]*").fullmatch
"""What gRPC can carry as text: printable ASCII."""

_LISTENER = Listener(_DROPPED, "grpc-", _OURS, INPUTS, _IDENTITY)
"""Walks through a caller's metadata, once at each call."""
Pairs = Iterable[tuple[str, str | bytes]]


def from_caller(pairs: Pairs) -> Metadata:
    """What of a caller's metadata the enforcement point sees, in order; repeated keys stay repeated."""
    return _LISTENER.heard(pairs)


def from_upstream(pairs: Pairs) -> Metadata:
    """What of the upstream's headers or trailers may be shown on: nothing in the sidecar's name."""
    return tuple([
        (key, value)
        for key, value in pairs
        if key not in _DROPPED
        and not key.startswith(OWN)
        and (not key.startswith("grpc-") or key == DETAILS)
        and (isinstance(value, bytes) or _CARRIED(value) is not None)
    ])  # fmt: skip
