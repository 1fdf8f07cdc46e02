"""Envoy's headers and the enforcement point's metadata: what both Envoy doors make of one and of the other."""

import base64
import binascii
import re
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final as Constant
from urllib.parse import quote_from_bytes, unquote_to_bytes

from sidecar.api.envoy.v3.parts_pb2 import HeaderMap, HeaderValueOption
from sidecar.attributes.peers import MAX_CERTIFICATE, PeerCertificate, read_certificate
from sidecar.enforcement import rich_status
from sidecar.enforcement.call import CALL_ID, Final, Metadata, Peer
from sidecar.enforcement.metadata import INPUTS, OWN, from_caller

Headers = list[tuple[str, str]]
"""Lower-case names, values as they came (a byte is a character); pseudo-headers begin with a colon."""

_TRANSPORT = frozenset({
    "content-type", "content-length", "te", "user-agent", "host", "transfer-encoding",
    "grpc-timeout", "grpc-encoding", "grpc-accept-encoding",
})  # fmt: skip
"""What a service needs for reading the call at all, and Envoy forwards as it is."""
_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")
_SECONDS: Mapping[str, float] = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_SAFE = bytes(one for one in range(0x20, 0x7F) if one != ord("%"))
_OVERWRITE: Constant = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_APPEND: Constant = HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
_LONGEST: Constant = 3 * MAX_CERTIFICATE
"""Characters that URL-encoding makes of a certificate that is read at all."""


def read(headers: HeaderMap) -> Headers:
    """A header map of Envoy's. Repeated headers stay repeated."""
    return [
        (one.key.lower(), one.raw_value.decode("latin-1") if one.raw_value else one.value) for one in headers.headers
    ]


def first(headers: Headers, name: str) -> str:
    """The value of a header; empty where there is none."""
    for key, value in headers:
        if key == name:
            return value
    return ""


def is_grpc(headers: Headers) -> bool:
    """Whether the body is a sequence of protobuf messages (PROTOCOL-HTTP2.md, "Content-Type"). gRPC-Web is not."""
    media = first(headers, "content-type").partition(";")[0].strip().lower()
    return media in ("application/grpc", "application/grpc+proto")


def metadata(headers: Headers) -> Metadata:
    """What of a caller's headers the enforcement point sees."""
    return from_caller(pairs(headers))


def pairs(headers: Headers) -> list[tuple[str, str | bytes]]:
    """Headers as gRPC would give them: without pseudo-headers, binary ones decoded, undecodable ones left out."""
    found: list[tuple[str, str | bytes]] = []
    for key, value in headers:
        if key.endswith("-bin"):
            if not key.startswith(":"):
                found += _decoded(key, value)
        elif not key.startswith(":"):
            found.append((key, value))
    return found


def _decoded(key: str, value: str) -> Iterable[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for part in value.split(","):
        try:
            found.append((key, base64.b64decode(part.strip() + "=" * (-len(part.strip()) % 4), validate=True)))
        except (binascii.Error, ValueError):
            continue
    return found


def withheld(headers: Headers, seen: Metadata) -> list[str]:
    """The names of headers that Envoy may not forward: those the enforcement point has not seen whole."""
    known = {key for key, _ in seen}
    return sorted({
        key for key, value in headers
        if key not in _TRANSPORT
        and not key.startswith(":")
        and (key not in known or not (value.isascii() and value.isprintable()))
    })  # fmt: skip


def added(forward: Metadata) -> Metadata:
    """Of what the service is to be sent, that which the sidecar itself says."""
    return tuple([
        item for item in forward if item[0] == "traceparent" or (item[0].startswith(OWN) and item[0] not in INPUTS)
    ])  # fmt: skip


def options(items: Metadata, *, raw: bool) -> list[HeaderValueOption]:
    """Headers to set, whatever stood there before; repeated ones stay repeated. `raw`: as ext_proc reads them."""
    found, begun = [], set[str]()
    for key, value in items:
        text = as_text(value)
        option = HeaderValueOption(append_action=_APPEND if key in begun else _OVERWRITE)
        begun.add(key)
        option.header.key = key
        if raw:
            option.header.raw_value = text.encode("latin-1")
        else:
            option.header.value = text
        found.append(option)
    return found


def as_text(value: str | bytes) -> str:
    """A metadata value as it stands in a header (PROTOCOL-HTTP2.md, "Binary-Header")."""
    return value if isinstance(value, str) else base64.b64encode(value).decode("ascii").rstrip("=")


def status(final: Final) -> Metadata:
    """A call's end as gRPC's trailers (PROTOCOL-HTTP2.md, "Responses")."""
    message = (("grpc-message", quote_from_bytes(final.message.encode(), safe=_SAFE)),) if final.message else ()
    return (("grpc-status", str(int(final.code))), *message, *rich_status.trailing(final))


def call_id(final: Final) -> Metadata:
    """The id of the call's records, as a header; nothing where the refusal names none."""
    found = "" if final.error_info is None else final.error_info.metadata.get("call_id", "")
    return ((CALL_ID, found),) if found else ()


def deadline(headers: Headers, remaining: float | None = None) -> float | None:
    """When the caller gives up (`grpc-timeout`), or whoever asks for them, in monotonic seconds; None for never."""
    found = _TIMEOUT.fullmatch(first(headers, "grpc-timeout"))
    ends = [] if remaining is None else [remaining]
    if found is not None:
        ends.append(int(found[1]) * _SECONDS[found[2]])
    return time.monotonic() + min(ends) if ends else None


@lru_cache(maxsize=256)  # a pure function of the text; callers come back with the same certificates
def _read(certificate: str) -> PeerCertificate:
    return read_certificate(unquote_to_bytes(certificate))


def behind(certificate: str, principal: str | None, address: str, now: float) -> Peer:
    """The workload behind an Envoy that is believed, from the certificate it has verified (PEM, URL-encoded).

    As a listener of our own reads it: a certificate with two URI names, a lapsed one, or none names nobody. `principal`
    is what Envoy calls the peer, one of the certificate's names; None where Envoy does not say.
    """
    found = _read(certificate) if len(certificate) <= _LONGEST else read_certificate(b"")
    named = principal is None or principal in found.identities or principal.lower() in found.identities
    identities = found.identities if named and now < found.not_after else ()
    return Peer(identities=identities, certificate_sha256=found.sha256 or None, address=address)
