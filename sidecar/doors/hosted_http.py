"""Plain HTTP inside Envoy: the AuthZEN door's application, a whole request in and a whole answer out."""

import asyncio

from sidecar.doors.asgi import Receive, Scope, Send
from sidecar.doors.authzen_http import Application, HttpHead, HttpResponse, answered
from sidecar.doors.hosted_peers import HostedPeers
from sidecar.doors.hosted_wire import FORWARDED
from sidecar.enforcement.transport import OperatorLog

BODY_SECONDS = 10.0
"""A body that has not come by then is not waited for."""
_ENVOYS = ("x-envoy-", "x-forwarded-")


class _TooLargeError(Exception):
    """The body is beyond the limit."""


class HostedHttp:
    """The application, as Envoy hands requests to it. Of one event loop. A listener with `client_ca` verifies everybody."""

    def __init__(self, application: Application, peers: HostedPeers, limit: int, log: OperatorLog) -> None:
        """`limit`: bytes of a body."""
        self._application, self._peers, self._limit, self._log = application, peers, limit, log
        self._open: set[asyncio.Task[None]] = set()
        self._stopping = False
        self.ended = 0
        """Nothing: requests of this door are counted elsewhere, and not as calls."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, in a task that can be cancelled. Raises nothing."""
        head = self._head(scope)
        task = asyncio.create_task(self._answered(head, receive, send))
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("an answer failed", failure=type(error).__name__, path=self._application.route(head))

    async def drain(self, grace: float) -> None:
        """Refuse new requests; those under way have `grace` seconds, then they are cancelled."""
        self._stopping = True
        if self._open:
            await asyncio.wait(set(self._open), timeout=grace)
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _head(self, scope: Scope) -> HttpHead:
        headers = [
            (key.decode("latin-1"), value.decode("latin-1")) for key, value in scope["headers"] if key != FORWARDED
        ]
        forwarded = [value for key, value in scope["headers"] if key == FORWARDED]
        client = scope.get("client")
        return HttpHead(
            method=scope["method"],
            path=scope["raw_path"].decode("latin-1"),
            headers=tuple([one for one in headers if not one[0].startswith(_ENVOYS)]),
            peer=self._peers.of(forwarded, f"{client[0]}:{client[1]}" if client else ""),
        )

    async def _answered(self, head: HttpHead, receive: Receive, send: Send) -> None:
        response = await self._response(head, receive)
        headers = [
            ("content-type", response.content_type), ("content-length", str(len(response.body))),
            ("cache-control", "no-store"), ("x-content-type-options", "nosniff"), *response.headers,
        ]  # fmt: skip
        encoded = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in headers]
        await send({"type": "http.response.start", "status": response.status, "headers": encoded})
        await send({"type": "http.response.body", "body": response.body, "more_body": False})

    async def _response(self, head: HttpHead, receive: Receive) -> HttpResponse:
        if self._stopping:
            return self._application.refused(head, 503, "the sidecar is stopping")
        early = self._application.early(head)
        if early is not None:
            return early
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await self._body(receive)
        except _TooLargeError:
            return self._application.refused(head, 413, f"a body has at most {self._limit} bytes")
        except TimeoutError:
            return self._application.refused(head, 408, "the body did not come in time")
        return await answered(self._application, head, body, self._log)

    async def _body(self, receive: Receive) -> bytes:
        """CancelledError when the client has gone. The server's future must not be cancelled: another thread sets it."""
        found, more = bytearray(), True
        while more:
            event = await asyncio.shield(asyncio.ensure_future(receive()))
            if event["type"] != "http.request":
                raise asyncio.CancelledError
            found += event.get("body", b"")
            more = event.get("more_body", False)
            if len(found) > self._limit:
                raise _TooLargeError
        return bytes(found)
