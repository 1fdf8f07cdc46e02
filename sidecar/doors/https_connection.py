"""One connection of an HTTPS listener: requests read within bounds, one after the other, and answered."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

import h11

from sidecar.doors.authzen_http import Application, HttpHead, HttpResponse, answered
from sidecar.enforcement.peer import PeerReader
from sidecar.enforcement.transport import CONNECTION_AGE_MS, OperatorLog

_READ: Final = 1 << 16
_LINGER: Final = 1 << 20
_PIECES: Final = 4096
_OCTETS = "latin-1"
_VERSIONS = frozenset({b"1.0", b"1.1"})
_READABLE = frozenset({h11.IDLE, h11.SEND_RESPONSE})
_READ_OUT = frozenset({h11.DONE, h11.MUST_CLOSE, h11.CLOSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a client may take, in seconds."""

    head: float = 10.0
    body: float = 10.0
    idle: float = 60.0
    send: float = 10.0
    linger: float = 1.0
    age: float = CONNECTION_AGE_MS / 1000


@dataclass(slots=True, kw_only=True)
class Terms:
    """What all connections of a listener have in common. Sizes in bytes; `clock` gives unix seconds.

    `mutual`: client certificates are asked for. `under_way`: requests that are being answered; at most `most`.
    """

    application: Application
    peers: PeerReader
    log: OperatorLog
    clock: Callable[[], float]
    patience: Patience
    head: int
    body: int
    most: int
    mutual: bool
    closing: bool = False
    under_way: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A connection as a `PeerReader` reads one."""

    where: str
    certificate: bytes | None

    def peer(self) -> str:
        return self.where

    def auth_context(self) -> dict[str, list[bytes]]:
        return {} if self.certificate is None else {"x509_pem_cert": [self.certificate]}  # DER is read as well


class _RefusedError(Exception):
    """The request is not taken, and the connection ends."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Connection:
    """One connection. `busy`: a request is under way; `anonymous`: it could show a certificate, and has not."""

    def __init__(self, terms: Terms, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._terms, self._reader, self._writer = terms, reader, writer
        self._seen = _seen(writer)
        self.anonymous = terms.mutual and self._seen.certificate is None
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=terms.head)
        self._until = time.monotonic() + terms.patience.age
        self.busy = self._bodiless = False

    async def run(self) -> None:
        """Until either side has had enough."""
        wait = self._terms.patience.head
        try:
            while await self._exchange(wait):
                wait = self._terms.patience.idle
        except (OSError, TimeoutError, EOFError, h11.ProtocolError):
            pass  # they have gone, or were too slow to be told anything
        finally:
            if self.busy:
                self._writer.transport.abort()
            else:
                self._writer.close()

    async def _exchange(self, wait: float) -> bool:
        """One request and its answer. Whether another may follow."""
        if self._http.trailing_data[0]:
            await asyncio.sleep(0)  # others do not wait for all that is pipelined here
        else:
            async with asyncio.timeout(wait):
                self._http.receive_data(await self._reader.read(_READ))
        self.busy = True
        self._terms.under_way += 1
        try:
            return await self._one()
        finally:
            self._terms.under_way -= 1

    async def _one(self) -> bool:
        head: HttpHead | None = None
        try:
            async with asyncio.timeout(self._terms.patience.head):
                event = await self._event()
            if not isinstance(event, h11.Request):
                self.busy = False
                return False
            head, self._bodiless = self._head(event), event.method == b"HEAD"
            return await self._send(await self._answer(event, head), last=self._ends())
        except h11.RemoteProtocolError as error:
            status, message = error.error_status_hint, "this is no HTTP/1.1 that is read here"
        except _RefusedError as error:
            status, message = error.status, error.message
        except TimeoutError:
            status, message = 408, "the request took too long"
        return await self._send(self._terms.application.refused(head, status, message), last=True)

    async def _answer(self, request: h11.Request, head: HttpHead) -> HttpResponse:
        terms = self._terms
        if request.http_version not in _VERSIONS:
            raise _RefusedError(505, "this is HTTP/1.1")
        if sum(len(name) + len(value) for name, value in head.headers) > terms.head:  # h11 bounds what is incomplete
            raise _RefusedError(431, f"a head has at most {terms.head} bytes")
        lengths, chunked = head.values("content-length"), head.values("transfer-encoding")
        if chunked and (lengths or request.http_version < b"1.1"):
            raise _RefusedError(400, "a body has one length")
        if terms.under_way > terms.most:
            raise _RefusedError(503, "too many requests are under way")
        response = terms.application.early(head)
        if response is not None:
            if not chunked and lengths in ([], ["0"]):
                await self._event()  # the end of what has no body: the connection can go on
            return response
        if lengths and int(lengths[0]) > terms.body:  # h11 has checked that it is one number
            raise _RefusedError(413, f"a body has at most {terms.body} bytes")
        body = await self._body()
        return await answered(terms.application, head, body, terms.log)

    async def _body(self) -> bytes:
        if self._http.they_are_waiting_for_100_continue:
            await self._write(self._http.send(h11.InformationalResponse(status_code=100, headers=[])))
        found, pieces = bytearray(), 0
        async with asyncio.timeout(self._terms.patience.body):
            while True:
                event = await self._event()
                if isinstance(event, h11.EndOfMessage):
                    return bytes(found)
                if isinstance(event, h11.ConnectionClosed):
                    raise EOFError  # noqa: TRY004 - they have gone
                found += event.data if isinstance(event, h11.Data) else b""
                pieces += 1
                if pieces > _PIECES:  # chunks of a byte each cost a thousand times what they carry
                    raise _RefusedError(413, f"a body comes in at most {_PIECES} pieces")
                if len(found) > self._terms.body:
                    raise _RefusedError(413, f"a body has at most {self._terms.body} bytes")

    async def _event(self) -> object:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._http.receive_data(await self._reader.read(_READ))

    def _head(self, request: h11.Request) -> HttpHead:
        path, _, _ = request.target.decode(_OCTETS).partition("?")
        headers = tuple([(name.decode(_OCTETS), value.decode(_OCTETS)) for name, value in request.headers])
        return HttpHead(
            method=request.method.decode(_OCTETS), path=path, headers=headers, peer=self._terms.peers.of(self._seen),
            anonymous=self.anonymous,
        )  # fmt: skip

    def _ends(self) -> bool:
        """Whether this answer is the connection's last."""
        unread = self._http.their_state is not h11.DONE
        return unread or self.anonymous or self._terms.closing or time.monotonic() >= self._until

    async def _send(self, response: HttpResponse, *, last: bool) -> bool:
        if self._http.our_state not in _READABLE:
            return False
        headers = [
            ("content-type", response.content_type), ("content-length", str(len(response.body))),
            ("date", formatdate(self._terms.clock(), usegmt=True)), ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"), *response.headers,
        ]  # fmt: skip
        if last:
            headers.append(("connection", "close"))
        parts = [self._http.send(h11.Response(status_code=response.status, headers=headers, reason=b""))]
        if response.body and not self._bodiless:  # RFC 9110, 9.3.2
            parts.append(self._http.send(h11.Data(data=response.body)))
        parts.append(self._http.send(h11.EndOfMessage()))
        await self._write(b"".join([one for one in parts if one]))
        self.busy = False
        if last:
            await self._linger()
            return False
        if self._http.our_state is not h11.DONE:  # the client has asked for the end
            return False
        self._http.start_next_cycle()
        return True

    async def _write(self, data: bytes | None) -> None:
        self._writer.write(data or b"")
        async with asyncio.timeout(self._terms.patience.send):
            await self._writer.drain()

    async def _linger(self) -> None:
        """Read on for a moment: closed with bytes unread, a connection is reset and the answer lost (RFC 9112, 9.6)."""
        left = 0 if self._http.their_state in _READ_OUT else _LINGER
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._terms.patience.linger):
                while left > 0 and (data := await self._reader.read(_READ)):
                    left -= len(data)


def _seen(writer: asyncio.StreamWriter) -> _Seen:
    secure, place = writer.get_extra_info("ssl_object"), writer.get_extra_info("peername")
    certificate = secure.getpeercert(binary_form=True) if secure else None
    if not isinstance(place, tuple):
        return _Seen(where="unix:", certificate=certificate)
    kind, host = ("ipv6", f"[{place[0]}]") if ":" in place[0] else ("ipv4", place[0])
    return _Seen(where=f"{kind}:{host}:{place[1]}", certificate=certificate)
