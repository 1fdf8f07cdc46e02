"""An HTTPS listener with an application that a test bends, and certificates for both sides."""

import asyncio
import datetime as dt
import shutil
import ssl
import time
from contextlib import asynccontextmanager

import pytest
from authzen_parts import Log, Wire, client_context, http

from sidecar.demo.pki import Authority
from sidecar.doors.authzen_http import HttpResponse
from sidecar.doors.https import HttpsListener
from sidecar.doors.https_connection import Patience
from sidecar.enforcement.certificates import ServerTls
from sidecar.enforcement.listen import Listen
from sidecar.enforcement.transport import Limits

WEB = "spiffe://corp/ns/web"
QUICK = Patience(head=0.5, body=0.5, idle=0.7, send=0.5, linger=0.2)


class Echo:
    """Answers with what it got; `slow` and `fail` bend it."""

    def __init__(self):
        self.seen, self.hold, self.fail, self.answered = [], None, None, 0

    def route(self, head):
        return "/x" if head.path == "/x" else ""

    def early(self, head):
        if head.path == "/early":
            return HttpResponse(status=418, body=b"early")
        return HttpResponse(status=401) if head.anonymous else None

    def refused(self, head, status, message):
        return HttpResponse(status=status, body=message.encode(), content_type="text/plain")

    async def answer(self, head, body):
        self.seen.append((head, body))
        if self.hold is not None:
            await self.hold.wait()
        if self.fail is not None:
            raise self.fail
        self.answered += 1
        return HttpResponse(status=200, body=b'{"ok":true}' if body != b"big" else b"x" * (8 << 20))


class World:
    def __init__(self, folder):
        now = dt.datetime.now(dt.UTC)
        self.folder = folder
        self.authority = Authority(folder, "corp", now)
        self.server = self.authority.issue("server", hosts=["localhost"])
        self.web = self.authority.issue("web", spiffe=WEB)
        self.other = Authority(folder, "other", now)
        self.stranger = self.other.issue("stranger", spiffe=WEB)
        self.ca = folder / "client-ca.pem"
        shutil.copy(self.authority.cert, self.ca)

    def client(self, pair="web", **bounds):
        return client_context(self.authority.cert, getattr(self, pair) if pair else None, **bounds)

    def tls(self):
        return ServerTls(cert=self.server.cert, key=self.server.key, client_ca=self.ca)


@asynccontextmanager
async def served(world, *, app=None, patience=QUICK, limits=None, listen=None, log=None):
    app = app or Echo()
    listen = listen or Listen(address="127.0.0.1:0", tls=world.tls())
    listener = HttpsListener(listen, app, limits or Limits(), log or Log(), time.time, patience=patience)
    await listener.start()
    try:
        yield listener, app
    finally:
        await listener.stop(0.2)


@asynccontextmanager
async def wire(listener, context):
    made = await Wire.open(listener.address, context)
    try:
        yield made
    finally:
        await made.close()


async def until(holds, seconds=60.0):
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < seconds
        await asyncio.sleep(0.02)


async def turned_away(listener, context):
    """In TLS 1.3 the client learns it only with the first bytes it reads."""
    with pytest.raises((ssl.SSLError, OSError, asyncio.IncompleteReadError)):
        await _one_answer(listener, context)


async def _one_answer(listener, context):
    async with wire(listener, context) as one:
        await one.send(http("/x"))
        await one.answer()
