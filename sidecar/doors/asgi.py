"""The in-process door for HTTP: ASGI middleware that guards an application with JSON answers.

Requests are calls of described methods by their route (`attributes.routes`), so the pipeline, the obligations and the
records are those of gRPC. What the application sees is the request as it came, once the message made of it was admitted
unchanged; what leaves is its JSON with what was withheld taken out.

* A request without a route is refused, unless `unguarded` names its path; WebSockets and upgrades are refused.
* Only whole JSON answers leave: anything else is refused, whatever its status; so is an answer beyond `limit` bytes.
* Of an application's error (4xx, 5xx) the status always passes, the body only under a permit free of obligations; so do
  the headers of any answer.
"""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote, unquote

from sidecar.attributes.peers import read_certificate
from sidecar.attributes.routes import HttpRoute, Routes, check_content
from sidecar.doors.problems import problem
from sidecar.enforcement import rich_status
from sidecar.enforcement.call import CALL_ID, Call, Exchange, Final, Metadata, Peer, Reply
from sidecar.enforcement.declarations import INTERCEPTOR
from sidecar.enforcement.intercept import Enforcement
from sidecar.enforcement.metadata import from_caller
from sidecar.enforcement.transport import OperatorLog
from sidecar.errors import Code, ForwardError, InterceptError

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_CODES = {400: Code.INVALID_ARGUMENT, 401: Code.UNAUTHENTICATED, 403: Code.PERMISSION_DENIED, 404: Code.NOT_FOUND,
          409: Code.ABORTED, 412: Code.FAILED_PRECONDITION, 429: Code.RESOURCE_EXHAUSTED, 499: Code.CANCELLED,
          501: Code.UNIMPLEMENTED, 503: Code.UNAVAILABLE, 504: Code.DEADLINE_EXCEEDED}  # fmt: skip
_JSON = "application/json"
_HTTP_STATUS, _HTTP_BODY = "x-http-status", "x-http-body-bin"
_NO_METHOD = "/http/unread"
"""A method that no API has: the refusal of what is no call is the enforcement point's to record."""
_OWN_HEADERS = frozenset({b"content-length", b"content-type", b"transfer-encoding", b"connection"})


class Peers(Protocol):
    """Who is at the other end of an HTTP connection."""

    def of(self, scope: Scope) -> Peer:
        """The peer, as far as the server has verified it."""


class TlsPeers:
    """The client certificate that the server has verified (ASGI TLS extension, `client_cert_chain`: PEM, leaf first)."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives unix seconds."""
        self._clock = clock

    def of(self, scope: Scope) -> Peer:
        """No identity where there is no certificate, one that has expired, or one that the server could not verify."""
        where = ":".join(str(one) for one in scope.get("client") or ())
        tls = (scope.get("extensions") or {}).get("tls") or {}
        pem = next(iter(tls.get("client_cert_chain") or ()), None)
        if pem is None or tls.get("client_cert_error"):  # a server may let such connections in, and say so
            return Peer(address=where)
        read = read_certificate(pem.encode() if isinstance(pem, str) else pem)
        identities = read.identities if self._clock() < read.not_after else ()
        return Peer(identities=identities, certificate_sha256=read.sha256 or None, address=where)


class NamedPeers:
    """Whoever reaches the application is this one workload: for a Unix socket that only it can open."""

    def __init__(self, workload: str) -> None:
        self._peer = Peer(identities=(workload,), address="unix")

    def of(self, scope: Scope) -> Peer:
        """Always that workload."""
        del scope
        return self._peer


@dataclass(slots=True)
class _Answer:
    """What an application has said so far."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False

    @property
    def is_json(self) -> bool:
        """Whether it says that it is JSON, and nothing else is done to it."""
        kinds = [value for key, value in self.headers if key.lower() == b"content-type"]
        encoded = any(key.lower() == b"content-encoding" for key, _ in self.headers)
        return not encoded and len(kinds) == 1 and kinds[0].split(b";")[0].strip().lower() == _JSON.encode()


class Guarded:
    """`Guarded(app, …)` in the place of `app`."""

    def __init__(
        self, app: Application, point: Enforcement, routes: Routes, peers: Peers, log: OperatorLog,
        *, unguarded: Iterable[str] = (), limit: int = 4 << 20,
    ) -> None:  # fmt: skip
        """`unguarded`: exact paths that pass without a decision (a health probe). `limit`: bytes, either way."""
        self._app, self._point, self._routes, self._peers, self._log = app, point, routes, peers, log
        self._unguarded, self._limit = frozenset(unguarded), limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection scope."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in self._unguarded):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": "only described HTTP routes are served"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self._body(receive)
            if body is None:
                return
            call, service, message = self._call(scope, body, receive)
            reply = await self._point.unary(call, message, service)
            status, headers, shown = service.shown(reply)
        except Exception as error:  # noqa: BLE001 - fail closed, whatever it was
            self._log.error("unexpected failure; the call was refused with UNAVAILABLE", stage="intercept",
                            method=str(scope.get("path"))[:200], failure=type(error).__name__)  # fmt: skip
            status, headers, shown = _told(Final(code=Code.UNAVAILABLE, message="the call cannot be handled now"))
        length = (b"content-length", str(len(shown)).encode())
        await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
        await send({"type": "http.response.body", "body": shown})

    def _call(self, scope: Scope, body: bytes, receive: Receive) -> tuple[Call, "_Service", bytes]:
        """The request as a call; one that is none is refused by the enforcement point, so that it is recorded."""
        headers = [(key.decode("latin-1").lower(), value.decode("latin-1")) for key, value in scope["headers"]]
        route: HttpRoute | None = None
        unread: InterceptError | None = None
        method, message = _NO_METHOD, b""
        try:
            route, found = self._routes.find(scope["method"], _path(scope))
            _check_size(body, self._limit)
            check_content(headers, body)
            asked = route.request(found, scope.get("query_string", b"").decode("latin-1"), body)
            method, message = asked.method, asked.message
        except InterceptError as error:
            unread = error
        call = Call(method=method, metadata=from_caller(headers), peer=self._peers.of(scope), door=INTERCEPTOR)
        return call, _Service(self._app, scope, body, message, route, unread, self._limit, receive), message

    async def _body(self, receive: Receive) -> bytes | None:
        """The whole body, one byte beyond the limit at most; None when the caller has gone."""
        found = bytearray()
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                return None
            found += event.get("body", b"")
            if not event.get("more_body") or len(found) > self._limit:
                return bytes(found)


class _Service:
    """The application as the `Upstream` of one request."""

    def __init__(
        self, app: Application, scope: Scope, body: bytes, message: bytes, route: HttpRoute | None,
        unread: InterceptError | None, limit: int, receive: Receive,
    ) -> None:  # fmt: skip
        self._app, self._scope, self._body, self._message = app, scope, body, message
        self._route, self._unread, self._limit, self._events = route, unread, limit, receive
        self._answer = _Answer()
        self._read = b""
        """The answer as a message: while exactly this leaves, the application's JSON leaves as it was written."""

    async def unary(self, method: str, message: bytes, metadata: Metadata, timeout: float | None) -> Reply:
        """Run the application on the request as it came. ForwardError when something of it may not go on, or back."""
        del method, timeout
        if message != self._message or self._route is None:
            raise ForwardError("part of the request may not be sent on, and HTTP requests go whole or not at all")
        scope = {**self._scope, "headers": _headers(self._scope["headers"], metadata)}
        try:
            await self._app(scope, self._receive(), self._take)
        except ForwardError:
            raise
        except Exception as error:
            raise ForwardError("the application failed", operator=f"the application: {type(error).__name__}") from error
        answer = self._answer
        if not answer.whole:
            raise ForwardError("the application ended without an answer")
        headers: Metadata = tuple([(_text(key), _text(value)) for key, value in self._kept()])
        if not 200 <= answer.status < 300:
            code = _CODES.get(answer.status, Code.INVALID_ARGUMENT if answer.status < 500 else Code.UNKNOWN)
            said: Metadata = ((_HTTP_STATUS, str(answer.status)), (_HTTP_BODY, bytes(answer.body)))
            return Reply(message=None, headers=headers, final=Final(code=code, trailing=said))
        if not answer.is_json:
            raise ForwardError("the answer is no JSON, so it cannot be filtered")
        try:
            data = self._read = self._route.answer(bytes(answer.body))
        except InterceptError as error:
            raise ForwardError("the answer cannot be read, so it cannot be filtered", operator=str(error)) from None
        return Reply(message=data, headers=headers, final=Final(code=Code.OK))

    def open(self, method: str, metadata: Metadata, timeout: float | None) -> Exchange:
        """Routes are unary."""
        del method, metadata, timeout
        raise ForwardError("an HTTP route is no stream")

    def reduced(self, final: Final) -> Final:
        """The HTTP status, and nothing of the body."""
        kept = tuple(item for item in final.trailing if item[0] == _HTTP_STATUS)
        return Final(code=final.code, message=rich_status.reduced(final).message, trailing=kept)

    def shown(self, reply: Reply) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """What the caller is sent: status, headers, body."""
        final = reply.final
        headers = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in reply.headers
                   if isinstance(value, str)]  # fmt: skip
        own = [item for item in headers if item[0] == CALL_ID.encode()]
        if reply.message is not None and self._route is not None:
            given = bytes(self._answer.body)
            body = given if reply.message == self._read else self._route.shown(given, reply.message)
            if len(headers) == len(own):  # what the application said about keeping its answer is withheld as well
                own.append((b"cache-control", b"no-store"))
                headers = own
            return self._answer.status, [(b"content-type", _JSON.encode()), *headers], body
        said = dict(final.trailing)
        if final.error_info is None and _HTTP_STATUS in said:
            data = said.get(_HTTP_BODY)
            if isinstance(data, bytes):
                return self._answer.status, [*self._kinds(), *headers], data
            status, said_headers, body = _told(final)
            return self._answer.status, [*own, *said_headers], body
        if self._unread is not None and final.code is Code.UNIMPLEMENTED:
            code = Code.NOT_FOUND if self._unread.code is Code.UNIMPLEMENTED else self._unread.code
            final = Final(code=code, message=f"{self._unread.message}: {final.message}",
                          error_info=final.error_info)  # fmt: skip
        status, said_headers, body = _told(final)
        return status, [*own, *said_headers], body

    def _kept(self) -> list[tuple[bytes, bytes]]:
        """The application's headers, which leave as a service's initial metadata does: where nothing is withheld."""
        given = [(key.lower(), value) for key, value in self._answer.headers]
        return [(key, value) for key, value in given if key not in _OWN_HEADERS and b"customhouse" not in key]

    def _kinds(self) -> list[tuple[bytes, bytes]]:
        return [item for item in self._answer.headers if item[0].lower() == b"content-type"]

    def _receive(self) -> Receive:
        given = False

        async def receive() -> Event:
            nonlocal given
            if given:
                return await self._events()  # nothing, until the caller goes
            given = True
            return {"type": "http.request", "body": self._body, "more_body": False}

        return receive

    async def _take(self, event: Event) -> None:
        answer = self._answer
        if event["type"] == "http.response.start":
            answer.status, answer.headers = event["status"], list(event.get("headers", ()))
        elif event["type"] == "http.response.body":
            answer.body += event.get("body", b"")
            if len(answer.body) > self._limit:
                raise ForwardError("the answer is larger than the sidecar passes on")
            answer.whole = not event.get("more_body", False)
        else:
            raise ForwardError("the application answers in a way that cannot be filtered")


def _told(final: Final) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    status, headers, body = problem(final)
    return status, [(key.encode(), str(value).encode()) for key, value in headers], body


def _path(scope: Scope) -> str:
    """The path as it came, which has to be the one that the application sees. InterceptError, UNIMPLEMENTED."""
    raw, path = scope.get("raw_path"), scope["path"]
    if not raw:
        return quote(path)
    try:
        came = raw.decode("ascii")
        if unquote(came, errors="strict") in (path, scope.get("root_path", "") + path):
            return str(came)
    except UnicodeDecodeError:
        pass
    raise InterceptError("unknown route", code=Code.UNIMPLEMENTED, operator="the path was changed on its way here: "
                         "put the guard outside of what rewrites paths.")  # fmt: skip


def _check_size(body: bytes, limit: int) -> None:
    if len(body) > limit:
        raise InterceptError("the body is larger than the sidecar passes on")


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _headers(given: Iterable[tuple[bytes, bytes]], metadata: Metadata) -> list[tuple[bytes, bytes]]:
    """The caller's own headers that are no metadata (of this connection), and the metadata that is forwarded."""
    kept = [
        (key, value)
        for key, value in given
        if key.lower() in (b"host", b"content-type", b"content-length", b"user-agent")
    ]
    return kept + [(key.encode(), value if isinstance(value, bytes) else value.encode()) for key, value in metadata]
