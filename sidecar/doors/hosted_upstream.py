"""Stage 6, forward, inside Envoy: unary calls go through Envoy's own client, streams through gRPC's.

Envoy's client costs a fifth of a gRPC channel, but it has no flow control towards Python: what the service sends is taken
in as fast as it comes, however slow the caller is. For one message, which is bounded and refused beyond its bound, that is
well; a stream would fill the memory. So streams are `GrpcUpstream`'s, whose exchange waits.

What Envoy itself says of a connection is told in generic words, as `enforcement.upstream` does with gRPC's. Envoy writes
`x-envoy-upstream-service-time` into what the service answered, and into nothing else.
"""

import asyncio
import re
from collections.abc import Awaitable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from sidecar.doors import hosted_wire as wire
from sidecar.doors.grpc_frames import FrameError, Frames, frame, only
from sidecar.doors.hosted_body import CallerGone
from sidecar.enforcement import rich_status
from sidecar.enforcement.call import Exchange, Final, Metadata, Reply, Upstream
from sidecar.errors import Code, ForwardError

if TYPE_CHECKING:
    from pyqwest import Response

_SPOKE = "x-envoy-upstream-service-time"
_METHOD = re.compile(r"/[A-Za-z0-9_.]+/[A-Za-z0-9_]+")
_UNREACHED = ("no healthy upstream", "reset reason: remote connection failure", "reset reason: local connection failure",
              "reset reason: connection timeout")  # fmt: skip
"""How Envoy 1.39 says that no connection was made."""
_GONE = "server request completed"
"""How pyvoy 1.3 says that the caller's call has ended, and this one with it."""
_TOLD = {
    Code.UNAVAILABLE: "the connection to the service broke off",
    Code.DEADLINE_EXCEEDED: "the service did not answer before the deadline",
    Code.RESOURCE_EXHAUSTED: "the service's answer is larger than the sidecar passes on",
}
_METHODS = 1024
"""Of so many methods the address is remembered."""
_OWN_HEADERS = [("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "customhouse")]
_LONGEST_HEADER_TIMEOUT = 99_999_999


class _Pairs(list[tuple[str, str]]):
    """Headers in the only way in which Envoy's client looks at them: how many, and one after the other."""

    items = list.__iter__


class Asked:
    """A request as Envoy's client (pyvoy 1.3) reads one: these five names, and no other of `pyqwest.Request`'s.

    Made so, its headers are taken apart once, by the client itself, which leaves out what no header can carry.
    """

    __slots__ = ("content", "headers", "url")
    method = "POST"
    _json = False

    def __init__(self, url: str, headers: list[tuple[str, str]], content: bytes) -> None:
        self.url, self.headers, self.content = url, _Pairs(headers), content


class Transport(Protocol):
    """Envoy's client, bound to one cluster: `pyvoy.asgi.httpclient.HTTPTransport`."""

    def execute(self, request: Any) -> "Awaitable[Response]":
        """Send a request, a `pyqwest.Request` or an `Asked`; its response once the headers are there."""


class EnvoyUpstream:
    """The guarded service, behind the cluster of the Envoy that the sidecar runs in. For calls that Envoy serves only."""

    def __init__(self, transport: Transport, streams: Upstream, limit: int, authority: str) -> None:
        """`streams` serves streams. `limit`: bytes of one message. `authority`: the service's name."""
        self._transport, self._streams, self._limit = transport, streams, limit
        self._base = f"http://{authority}"
        self._url = lru_cache(maxsize=_METHODS)(self._at)

    async def unary(self, method: str, message: bytes, metadata: Metadata, timeout: float | None) -> Reply:
        """A unary call. Cancelling the awaiting task cancels the upstream call. `timeout` in seconds.

        ForwardError when the service cannot be reached, or when the call is not fit to be sent.
        """
        try:
            request = self._request(method, message, metadata, timeout)
            if timeout is None:
                return await self._exchanged(request)
            async with asyncio.timeout(timeout):
                return await self._exchanged(request)
        except TimeoutError:
            return _told(Code.DEADLINE_EXCEEDED)
        except FrameError as error:
            return _told(error.code)

    def open(self, method: str, metadata: Metadata, timeout: float | None) -> Exchange:
        """Open a streaming call."""
        return self._streams.open(method, metadata, timeout)

    def reduced(self, final: Final) -> Final:
        """The same status code with nothing in it that could carry data."""
        return rich_status.reduced(final)

    def _request(self, method: str, message: bytes, metadata: Metadata, timeout: float | None) -> Asked:
        headers = _OWN_HEADERS + wire.sent_text(metadata)
        if timeout is not None:
            headers.append(("grpc-timeout", _header_timeout(timeout)))
        return Asked(self._url(method), headers, frame(message))

    def _at(self, method: str) -> str:
        if not _METHOD.fullmatch(method):
            raise ForwardError("the call cannot be sent on", operator=f"{method!r} is no method's path")
        return self._base + method

    async def _exchanged(self, request: Asked) -> Reply:
        try:
            response = await self._transport.execute(request)
            try:
                messages: list[bytes] = []
                frames: Frames | None = None
                async for piece in response.content:
                    data = bytes(piece)
                    if frames is None and not messages and (message := only(data, self._limit)) is not None:
                        messages.append(message)  # the commonest answer: one piece
                        continue
                    frames = frames or Frames(self._limit)
                    messages = _one(messages + frames.feed(data))
                return _reply(response, messages, cut=frames is not None and frames.partial)
            except BaseException:
                async with response:  # what has not been read to its end must not go on coming
                    raise
        except (FrameError, ForwardError):
            raise
        except Exception as error:  # noqa: BLE001 - the client has many errors, and no service is believed to be there
            if _GONE in str(error):
                raise CallerGone from None
            return _told(Code.UNAVAILABLE)


def _one(messages: list[bytes]) -> list[bytes]:
    if len(messages) > 1:
        raise FrameError("a unary call has one answer", code=Code.INTERNAL)
    return messages


def _reply(response: "Response", messages: list[bytes], *, cut: bool) -> Reply:
    """What the service answered, or Envoy in its place. ForwardError as `_unanswered`."""
    headers = list(response.headers.items())
    trailers = list(response.trailers.items())
    spoke, content = False, ""
    for key, text in headers:
        if key == _SPOKE:
            spoke = True
        elif key == "content-type":
            content = content or text
    if response.status != 200 or not content.startswith("application/grpc"):
        return _foreign(response.status, spoke=spoke)
    said = dict(trailers)
    if "grpc-status" not in said:  # the only block of headers is the end as well
        headers, trailers, said = [], headers, dict(headers)
    code = wire.CODES.get(said.get("grpc-status", ""), Code.UNKNOWN)
    text = wire.unpercent(said.get("grpc-message", ""))
    if not spoke:
        return _unanswered(text)
    if "grpc-status" not in said or (code is Code.OK and (len(messages) != 1 or cut)):
        return _told(Code.INTERNAL)
    return Reply(
        message=messages[0] if code is Code.OK else None,
        headers=wire.of_upstream(headers),
        final=Final(code=code, message=text, trailing=wire.of_upstream(trailers)),
    )


def _header_timeout(seconds: float) -> str:
    """As `grpc-timeout` writes it: eight digits at most, rounded up, and never 0 (which not every server takes)."""
    for unit, factor in (("u", 1e6), ("m", 1e3), ("S", 1.0)):
        number = int(seconds * factor) + 1
        if number <= _LONGEST_HEADER_TIMEOUT:
            return f"{number}{unit}"
    return f"{_LONGEST_HEADER_TIMEOUT}S"


def _told(code: Code) -> Reply:
    return Reply(
        message=None, headers=(), final=Final(code=code, message=_TOLD.get(code, "the call to the service failed"))
    )


def _unanswered(text: str) -> Reply:
    """Envoy answered in the service's place: `text` says why. ForwardError where no connection was made."""
    if any(one in text for one in _UNREACHED):
        raise ForwardError("the service cannot be reached", operator=f"upstream: {text}")
    return _told(Code.UNAVAILABLE)


def _foreign(status: int, *, spoke: bool) -> Reply:
    """An answer that is not gRPC's: the service's own, or a plain word of Envoy's."""
    if not spoke:
        return _told(Code.UNAVAILABLE)
    return Reply(
        message=None,
        headers=(),
        final=Final(code=wire.of_http(status), message=f"the service answered with HTTP status {status}"),
    )
