"""The HTTPS listener: how long anything may take, and how it ends."""

import asyncio
import shutil
import socket
import time

import pytest
from authzen_parts import Log, Wire, http
from https_parts import WEB, Echo, World, served, turned_away, until, wire

from sidecar.doors.https import HttpsListener
from sidecar.doors.https_connection import Patience
from sidecar.enforcement.certificates import ServerTls
from sidecar.enforcement.listen import Listen
from sidecar.enforcement.transport import Limits
from sidecar.errors import ConfigurationError

POST = b"POST /x HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("pki"))


# -- how long ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("begin", "status"), [
    (b"", None), (b"POST /x HTT", 408), (POST + b"x-", 408), (POST + b"Content-Length: 9\r\n\r\nabc", 408),
    (POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", 408),
])  # fmt: skip
async def test_a_slow_client_is_not_waited_for(world, begin, status):
    async with served(world) as (listener, app), wire(listener, world.client()) as one:
        begun = time.monotonic()
        await one.send(begin)
        dripping = asyncio.create_task(_drip(one)) if b"x-" in begin else None
        if status is not None:
            assert (await one.answer())[0] == status
        assert await one.ended()
        assert time.monotonic() - begun < 30
        if dripping:
            dripping.cancel()
    assert not app.seen


async def _drip(one):
    """A byte now and then: what a slow loris sends."""
    try:
        while True:
            await one.send(b"a")
            await asyncio.sleep(0.1)
    except OSError:
        pass


async def test_an_idle_connection_is_closed_and_a_reader_who_does_not_read_too(world):
    async with served(world) as (listener, _):
        async with wire(listener, world.client()) as one:
            await one.send(http("/x"))
            await one.answer()
            assert await one.ended()
        deaf = await Wire.open(listener.address, world.client())
        deaf.writer.transport.pause_reading()
        for _ in range(3):
            await deaf.send(http("/x", b"big"))
        await until(lambda: not listener._open)
        deaf.writer.transport.abort()


async def test_a_connection_has_an_age(world):
    async with served(world, patience=Patience(age=0)) as (listener, _), wire(listener, world.client()) as one:
        await one.send(http("/x"))
        assert (await one.answer())[1]["connection"] == "close"
        assert await one.ended()


async def test_requests_beyond_the_limit_are_told_to_come_again(world):
    app = Echo()
    app.hold = asyncio.Event()
    async with served(world, app=app, limits=Limits(streams=1), patience=Patience()) as (listener, _):
        async with wire(listener, world.client()) as one, wire(listener, world.client()) as two:
            await one.send(http("/x"))
            await until(lambda: app.seen)
            await two.send(http("/x"))
            assert (await two.answer())[0] == 503
            app.hold.set()
            assert (await one.answer())[0] == 200


# -- how it ends -------------------------------------------------------------------------------------------------------


async def test_stopping_lets_a_request_finish_and_takes_no_more(world):
    app = Echo()
    app.hold = asyncio.Event()
    async with served(world, app=app, patience=Patience()) as (listener, _):
        async with wire(listener, world.client()) as one, wire(listener, world.client()) as idle:
            await one.send(http("/x"))
            await until(lambda: app.seen and len(listener._open) == 2)
            stopping = asyncio.create_task(listener.stop(10))
            assert await idle.ended()
            with pytest.raises(OSError):
                await Wire.open(listener.address, world.client())
            app.hold.set()
            status, headers, _ = await one.answer()
            assert (status, headers["connection"]) == (200, "close")
            await stopping
        await listener.stop(1)


async def test_leaving_cuts_nobody_off(world):
    app = Echo()
    app.hold = asyncio.Event()
    async with served(world, app=app, patience=Patience()) as (listener, _), wire(listener, world.client()) as one:
        await one.send(http("/x"))
        await until(lambda: app.seen)
        leaving = asyncio.create_task(listener.leave())
        await asyncio.sleep(0.2)
        assert not leaving.done()
        with pytest.raises(OSError):
            await Wire.open(listener.address, world.client())
        app.hold.set()
        assert (await one.answer())[:1] == (200,)
        await asyncio.wait_for(leaving, 60)


async def test_stopping_does_not_wait_longer_than_it_was_told(world):
    app = Echo()
    app.hold = asyncio.Event()
    async with served(world, app=app) as (listener, _), wire(listener, world.client()) as one:
        await one.send(http("/x"))
        await until(lambda: app.seen)
        begun = time.monotonic()
        await listener.stop(0.2)
        assert time.monotonic() - begun < 30 and app.answered == 0


async def test_new_certificate_files_are_taken_up_and_bad_ones_are_not(world, tmp_path):
    for file in (world.server.cert, world.server.key, world.ca):
        shutil.copy(file, tmp_path / file.name)
    cert, key, ca = (tmp_path / one.name for one in (world.server.cert, world.server.key, world.ca))
    log = Log()
    listen = Listen(address="127.0.0.1:0", tls=ServerTls(cert=cert, key=key, client_ca=ca))
    async with served(world, listen=listen, log=log, patience=Patience()) as (listener, _):
        async with wire(listener, world.client()) as before:
            ca.write_bytes(b"nothing")
            await until(lambda: any("cannot be used" in event for event, _ in log.lines))
            await before.send(http("/x"))
            assert (await before.answer())[0] == 200
            ca.write_bytes(world.other.cert.read_bytes())
            await until(lambda: ("certificate taken up", {"file": str(cert)}) in log.lines)
            async with wire(listener, world.client("stranger")) as after:
                await after.send(http("/x"))
                assert (await after.answer())[0] == 200
            await turned_away(listener, world.client())
            await before.send(http("/x"))
            assert (await before.answer())[0] == 200
    assert sum("cannot be used" in event for event, _ in log.lines) == 1


async def test_a_socket_names_its_workload_and_leaves_nothing_behind(world, tmp_path):
    listen = Listen(address=f"unix:{tmp_path / 'run'}", workload=WEB)
    async with served(world, listen=listen) as (listener, app):
        async with wire(listener, None) as one:
            await one.send(http("/x"))
            assert (await one.answer())[0] == 200
        assert app.seen[0][0].peer.identities == (WEB,)
        assert (tmp_path / "run" / "worker-0").resolve() == (tmp_path / "run" / "0.sock")
    assert not list((tmp_path / "run").glob("*.sock"))


async def test_what_cannot_be_opened_is_said(world, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = Listen(address=f"127.0.0.1:{taken.getsockname()[1]}", tls=world.tls())
        listener = HttpsListener(listen, Echo(), Limits(), Log(), time.time)
        with pytest.raises(ConfigurationError, match="listened on"):
            await listener.start()
    with pytest.raises(ConfigurationError):
        HttpsListener(Listen(address="0.0.0.0:0", plaintext=True), Echo(), Limits(), Log(), time.time)
    missing = ServerTls(cert=tmp_path / "no.pem", key=world.server.key)
    with pytest.raises(ConfigurationError, match="no.pem"):
        HttpsListener(Listen(address="127.0.0.1:0", tls=missing), Echo(), Limits(), Log(), time.time)
