"""Client interceptors that attach to every call who asks and what for, in the metadata that the sidecar reads.

```python
asks = Asking(token=lambda: session.token(), purpose="user_support", ticket="SUP-1234")
channel = grpc.intercept_channel(grpc.secure_channel(…), asks.interceptor())
channel = grpc.aio.secure_channel(…, interceptors=asks.aio_interceptors())
```

What a call brings itself stays: an interceptor never puts its own words in the place of the caller's. A token goes only
over channels with TLS or a Unix socket; that is the channel's to see to, as with any metadata.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any, NamedTuple

import grpc

Words = Sequence[tuple[str, str | bytes]]
TokenSource = Callable[[], str | Awaitable[str]]
PURPOSE, JUSTIFICATION = "x-customhouse-purpose", "x-customhouse-justification"
TICKET, EXCEPTION = "x-customhouse-ticket", "x-customhouse-exception"
_AUTHORIZATION = "authorization"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who asks and what for. `token` gives a fresh bearer token for each call (awaited by the aio interceptors)."""

    token: TokenSource | None = None
    purpose: str | None = None
    justification: str | None = None
    ticket: str | None = None
    exception: str | None = None

    def interceptor(self) -> "AttachingInterceptor":
        """For `grpc.intercept_channel`. TypeError at the call when the token has to be awaited."""
        return AttachingInterceptor(self)

    def aio_interceptors(self) -> list[grpc.aio.ClientInterceptor]:
        """For the `interceptors` of a `grpc.aio` channel: one for each kind of method, as grpc.aio asks for."""
        return [_UnaryUnary(self), _UnaryStream(self), _StreamUnary(self), _StreamStream(self)]

    def words(self, given: Iterable[tuple[str, str | bytes]] | None, token: str | None) -> Words:
        """The metadata of a call that brings `given`."""
        found = list(given or ())
        there = {key for key, _ in found}
        own = (
            (_AUTHORIZATION, None if token is None else f"Bearer {token}"),
            (PURPOSE, self.purpose), (JUSTIFICATION, self.justification), (TICKET, self.ticket),
            (EXCEPTION, self.exception),
        )  # fmt: skip
        return [*found, *((key, value) for key, value in own if value is not None and key not in there)]


class _Details(NamedTuple):
    """`grpc.ClientCallDetails`, which grpc leaves to the application to make."""

    method: str
    timeout: float | None
    metadata: Words
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class AttachingInterceptor(
    grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):  # fmt: skip
    """All four kinds of call of a `grpc` channel."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    def _attached(self, details: Any) -> Any:
        token = None if self._asking.token is None else self._asking.token()
        if token is not None and not isinstance(token, str):
            raise TypeError("this token has to be awaited: use the aio interceptors")
        return _Details(
            details.method, details.timeout, self._asking.words(details.metadata, token), details.credentials,
            details.wait_for_ready, details.compression,
        )  # fmt: skip

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """One request, one answer."""
        return continuation(self._attached(client_call_details), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """One request, a stream of answers."""
        return continuation(self._attached(client_call_details), request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """A stream of requests, one answer."""
        return continuation(self._attached(client_call_details), request_iterator)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Streams both ways."""
        return continuation(self._attached(client_call_details), request_iterator)


class _Aio:
    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    async def _attached(self, details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        token = None if self._asking.token is None else self._asking.token()
        if isawaitable(token):
            token = await token
        metadata = grpc.aio.Metadata(*self._asking.words(details.metadata, token))
        return grpc.aio.ClientCallDetails(
            details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
        )


class _UnaryUnary(_Aio, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(await self._attached(client_call_details), request)


class _UnaryStream(_Aio, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(await self._attached(client_call_details), request)


class _StreamUnary(_Aio, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(await self._attached(client_call_details), request_iterator)


class _StreamStream(_Aio, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(await self._attached(client_call_details), request_iterator)
