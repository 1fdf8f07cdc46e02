"""The shapes between a door and the enforcement point: neither grpc nor ASGI is seen here."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

import msgspec

from sidecar.errors import Code

Metadata = tuple[tuple[str, str | bytes], ...]
"""Lower-case keys; bytes only for keys that end in `-bin`."""

CALL_ID = "x-customhouse-call-id"
"""Metadata key under which upstream and caller learn the id of a call's records."""

DOMAIN = "customhouse"
"""`google.rpc.ErrorInfo.domain` of every refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Who is at the other end of the connection, as far as the transport has verified it.

    `identities`: SPIFFE URI SANs and DNS SANs of a client certificate the listener has verified, or the one workload
    that a Unix socket listener names; empty when nothing was verified. `certificate_sha256`: SHA-256 of the client
    certificate's DER (RFC 8705 x5t#S256), 32 bytes.
    """

    identities: tuple[str, ...] = ()
    certificate_sha256: bytes | None = None
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """A way in, and which obligations it can fulfil. `sees_answers`: what the service answers passes through it."""

    name: str
    fulfils: frozenset[str]
    sees_answers: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call as a door hands it over.

    `method` is "/package.Service/Method". `deadline` is on the monotonic clock (`time.monotonic()` seconds), None when
    the caller set none. `asserted`: the person on whose behalf the peer says it asks, without that person's token; only
    workloads registered with `asserts` are believed. `claimed`: whom the caller says this is; whoever it turns out to
    be (the token's subject, or the workload) has to be called so.
    """

    method: str
    metadata: Metadata
    peer: Peer
    door: Door
    deadline: float | None = None
    asserted: str | None = None
    claimed: str | None = None


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """`google.rpc.ErrorInfo` of a refusal: the reason code, call id and policy revision. No rule text."""

    reason: str
    metadata: dict[str, str] = {}


class Final(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ends.

    `trailing` is what the upstream sent and the caller may see (it may hold `grpc-status-details-bin`). For the
    sidecar's own refusals `error_info` is set and the door renders it, with `retry_after` seconds as
    `google.rpc.RetryInfo` and each of `preconditions` (type, subject, description) as a PreconditionFailure violation.
    """

    code: Code
    message: str = ""
    trailing: Metadata = ()
    error_info: ErrorInfo | None = None
    retry_after: float | None = None
    preconditions: tuple[tuple[str, str, str], ...] = ()


OK = Final(code=Code.OK)
"""Ended well, with nothing more to say."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A whole unary answer. `message` is None unless the code is OK."""

    message: bytes | None
    headers: Metadata
    final: Final


class AnswerSink(Protocol):
    """Where the enforcement point puts the answer of a streaming call. Both wait while the caller is slow."""

    async def headers(self, metadata: Metadata) -> None:
        """Send initial metadata. At most once, before the first message."""

    async def message(self, data: bytes) -> None:
        """Send one message. Raises asyncio.CancelledError when the caller has gone."""


class Exchange(Protocol):
    """One open streaming call to the upstream. Works for all four kinds of method (the wire is the same)."""

    async def write(self, message: bytes) -> None:
        """Send one request message; waits while the upstream is slow. Does nothing once the call has ended."""

    async def close_send(self) -> None:
        """Say that no more request messages follow."""

    async def headers(self) -> Metadata:
        """The upstream's initial metadata, when it comes; empty when the call ends without."""

    async def read(self) -> bytes | None:
        """The next answer message, None after the last. An upstream error is no exception here: see `final`."""

    async def final(self) -> Final:
        """The upstream's status and trailers, after `read` gave None. ForwardError if it was never reached."""

    def cancel(self) -> None:
        """Give the call up. Idempotent; a no-op once it has ended."""


class Upstream(Protocol):
    """The guarded service. ForwardError when it cannot be reached at all (and it has said nothing itself)."""

    async def unary(self, method: str, message: bytes, metadata: Metadata, timeout: float | None) -> Reply:
        """A unary call. Cancelling the awaiting task cancels the upstream call. `timeout` in seconds."""

    def open(self, method: str, metadata: Metadata, timeout: float | None) -> Exchange:
        """Open a streaming call."""

    def reduced(self, final: Final) -> Final:
        """The same status code with nothing in it that could carry data.

        Generic message, and of details and trailers only the allow-listed types (RetryInfo, ErrorInfo without
        metadata).
        """


Requests = AsyncIterator[bytes]
