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
_OF_A_CALL = frozenset({b"content-type", b"te", b"grpc-timeout", b"grpc-encoding"})
_KEPT, _LONGEST_KEPT = 1024, 64
"""So many names of headers, each of so many bytes at most, are looked up once and remembered."""
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_PRINTABLE = bytes(range(0x20, 0x7F))
"""What gRPC can carry as text. To take it away from a value is twice as fast as to match it."""
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


class Head:
    """A request's headers, walked once. What of them is a call's own is taken apart here and judged by the door.

    `metadata`: what the enforcement point sees (`of_caller`). `size`: bytes of all but Envoy's own word. `content`: the
    first `content-type`; `forwarded`: each `x-forwarded-client-cert`; of the others the last counts.
    """

    __slots__ = ("content", "encoding", "forwarded", "metadata", "size", "timeout", "trailers")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.encoding, self.trailers = b"identity", False
        self.content: bytes | None = None
        self.timeout: bytes | None = None
        self.forwarded: list[bytes] = []
        others: Headers = []
        size = 0
        for header in headers:
            key, value = header
            if key == FORWARDED:
                self.forwarded.append(value)
                continue
            size += len(key) + len(value) + HEADER_OVERHEAD
            if key not in _OF_A_CALL:
                others.append(header)
            elif key == b"content-type":
                self.content = value if self.content is None else self.content
            elif key == b"te":
                self.trailers = value == b"trailers"
            elif key == b"grpc-timeout":
                self.timeout = value
            else:
                self.encoding = value
        self.size = size
        self.metadata = of_caller(others)

    @property
    def is_grpc(self) -> bool:
        """Whether the body says that it is gRPC."""
        said = self.content or b""
        return said == b"application/grpc" or said.startswith((b"application/grpc+", b"application/grpc;"))


def of_caller(headers: Iterable[tuple[bytes, bytes]]) -> Metadata:
    """What the enforcement point sees of a caller's headers, in order: `from_caller` of `pairs`.

    Remembered are names, as they are heard. No value is: it may be a secret, or somebody's own.
    """
    found: list[tuple[str, str | bytes]] = []
    for key, value in headers:
        name = (_heard if len(key) <= _LONGEST_KEPT else _heard.__wrapped__)(key)
        if not name:
            continue
        text = value.decode("latin-1")
        if name.endswith("-bin") or value.translate(None, _PRINTABLE):
            found += from_caller(pairs([(name, text)]))
        else:
            found.append((name, text))
    return tuple(found)


@lru_cache(maxsize=_KEPT)
def _heard(key: bytes) -> str:
    """The name, where something that a caller says under it is heard: it depends on nothing else. Otherwise nothing."""
    name = key.decode("latin-1")
    return name if from_caller(pairs([(name, "")])) else ""


def of_upstream(headers: Iterable[tuple[str, str]]) -> Metadata:
    """What of the upstream's headers or trailers may be shown on: `from_upstream` of `pairs`, remembered as `of_caller`."""
    found: list[tuple[str, str | bytes]] = []
    for key, text in headers:
        if not (_shown if len(key) <= _LONGEST_KEPT else _shown.__wrapped__)(key):
            continue
        if text.isascii() and text.isprintable() and not key.endswith("-bin"):
            found.append((key, text))
        else:
            found += from_upstream(pairs([(key, text)]))
    return tuple(found)


@lru_cache(maxsize=_KEPT)
def _shown(key: str) -> bool:
    """Whether something under this name is shown on."""
    return bool(from_upstream(pairs([(key, "")])))


def sent(metadata: Iterable[tuple[str, str | bytes]]) -> Headers:
    """Metadata as headers."""
    return [
        (key.encode("latin-1"), one.encode("latin-1") if isinstance(one, str) else _unpadded(one))
        for key, one in metadata
    ]


def sent_text(metadata: Metadata) -> list[tuple[str, str]]:
    """Metadata as headers, in text."""
    return [(key, one if isinstance(one, str) else _unpadded(one).decode("ascii")) for key, one in metadata]


def _unpadded(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def status(final: Final, own: Iterable[tuple[str, str | bytes]] = ()) -> Headers:
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
    return unquote(text, errors="replace") if text else text


def of_http(number: int) -> Code:
    """The code of an answer that is not gRPC's (grpc http-grpc-status-mapping.md)."""
    return _HTTP_CODES.get(number, Code.UNKNOWN)
