"""gRPC over HTTP/2 as an ASGI server hands it over (grpc PROTOCOL-HTTP2.md): headers, timeouts, status. Pure."""

import base64
import binascii
import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import unquote

from sidecar.enforcement import rich_status
from sidecar.enforcement.call import Final, Metadata
from sidecar.enforcement.metadata import from_caller, from_upstream
from sidecar.errors import Code, InterceptError

Headers = list[tuple[bytes, bytes]]

FORWARDED = b"x-forwarded-client-cert"
"""What Envoy says of a connection's verified client certificate; whatever a caller sends under this name it removes."""
HEADER_OVERHEAD = 32
"""What each header counts for besides its bytes (RFC 7541, 4.1)."""
_ENVOY = "x-envoy-"
_KEPT, _LONGEST_KEPT = 1024, 64
"""So many names of headers, each of so many bytes at most, are looked up once and remembered."""
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_PLAIN = re.compile(r"[ -$&-~]*")
_HTTP_CODES = {400: Code.INTERNAL, 401: Code.UNAUTHENTICATED, 403: Code.PERMISSION_DENIED, 404: Code.UNIMPLEMENTED,
               429: Code.UNAVAILABLE, 502: Code.UNAVAILABLE, 503: Code.UNAVAILABLE, 504: Code.UNAVAILABLE}  # fmt: skip
CODES = {str(int(code)): code for code in Code}
"""The codes by how `grpc-status` writes them."""

_STATUSES = {code: (b"grpc-status", str(int(code)).encode()) for code in Code}


class WireError(InterceptError):
    """The headers are no gRPC call. Nothing of the call is used."""


def timeout(text: bytes) -> float:
    """`grpc-timeout` in seconds. WireError INTERNAL for what is none."""
    found = _TIMEOUT.fullmatch(text)
    if found is None:
        raise WireError("grpc-timeout is malformed", code=Code.INTERNAL)
    return int(found[1]) * _UNITS[found[2]]


def _binary(text: str) -> bytes | None:
    """A binary value, padded or not; None for what is no base64."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def pairs(items: Iterable[tuple[str, str]]) -> list[tuple[str, str | bytes]]:
    """Headers as metadata, in order. A `-bin` key's comma-separated values are values of their own; broken ones are left out."""
    found: list[tuple[str, str | bytes]] = []
    for key, text in items:
        if key.endswith("-bin"):
            read = (_binary(one.strip()) for one in text.split(","))
            found += [(key, one) for one in read if one is not None]
        elif not key.startswith((":", _ENVOY)):
            found.append((key, text))
    return found


def of_caller(headers: Iterable[tuple[bytes, bytes]]) -> Metadata:
    """What the enforcement point sees of a caller's headers, in order: `from_caller` of `pairs`.

    Remembered are names under which nothing is heard. No value is: it may be a secret, or somebody's own.
    """
    heard = [
        (key.decode("latin-1"), value.decode("latin-1"))
        for key, value in headers
        if len(key) > _LONGEST_KEPT or not _unheard(key)
    ]
    return from_caller(pairs(heard))


@lru_cache(maxsize=_KEPT)
def _unheard(key: bytes) -> bool:
    """Whether nothing that a caller says under this name is heard: it depends on nothing else."""
    return not from_caller(pairs([(key.decode("latin-1"), "")]))


def of_upstream(headers: Iterable[tuple[str, str]]) -> Metadata:
    """What of the upstream's headers or trailers may be shown on: `from_upstream` of `pairs`, remembered as `of_caller`."""
    shown = [item for item in headers if len(item[0]) > _LONGEST_KEPT or not _unshown(item[0])]
    return from_upstream(pairs(shown)) if shown else ()


@lru_cache(maxsize=_KEPT)
def _unshown(key: str) -> bool:
    """Whether nothing under this name is shown on."""
    return not from_upstream(pairs([(key, "")]))


def sent(metadata: Metadata) -> Headers:
    """Metadata as headers."""
    return [(key.encode("latin-1"), text.encode("latin-1")) for key, text in sent_text(metadata)]


def sent_text(metadata: Metadata) -> list[tuple[str, str]]:
    """Metadata as headers, in text."""
    return [
        (key, base64.b64encode(one).rstrip(b"=").decode("ascii") if isinstance(one, bytes) else one)
        for key, one in metadata
    ]


def status(final: Final, own: Metadata = ()) -> Headers:
    """A call's end as headers: `grpc-status`, `grpc-message`, and what goes with it."""
    found: Headers = [_STATUSES[final.code]]
    if final.message:
        found.append((b"grpc-message", percent(final.message)))
    return found + sent((*rich_status.trailing(final), *own))


def percent(message: str) -> bytes:
    """`grpc-message`: UTF-8, percent-encoded but for printable ASCII without the percent sign."""
    if _PLAIN.fullmatch(message):
        return message.encode("ascii")
    return b"".join(
        bytes((one,)) if 0x20 <= one <= 0x7E and one != 0x25 else b"%%%02X" % one
        for one in message.encode("utf-8", "replace")
    )


def unpercent(text: str) -> str:
    """The opposite; what is no UTF-8 is replaced, what is no escape stays as it is."""
    return unquote(text, errors="replace")


def of_http(number: int) -> Code:
    """The code of an answer that is not gRPC's (grpc http-grpc-status-mapping.md)."""
    return _HTTP_CODES.get(number, Code.UNKNOWN)
