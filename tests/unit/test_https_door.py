"""The HTTPS listener: who is at the other end, and what is a request."""

import ssl

import pytest
from authzen_parts import Log, Wire, http
from https_parts import WEB, Echo, World, served, turned_away, wire

from sidecar.doors.https import ANONYMOUS
from sidecar.doors.https_connection import Patience
from sidecar.enforcement.transport import Limits


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("pki"))


# -- who ---------------------------------------------------------------------------------------------------------------


async def test_the_verified_certificate_names_the_peer(world):
    async with served(world) as (listener, app), wire(listener, world.client()) as one:
        for _ in range(2):  # on one connection
            await one.send(http("/x", {"a": 1}))
            status, headers, body = await one.answer()
            assert (status, body, headers["content-type"]) == (200, b'{"ok":true}', "application/json")
            assert headers["cache-control"] == "no-store" and "date" in headers
    head, body = app.seen[0]
    assert (head.peer.identities, len(head.peer.certificate_sha256), body) == ((WEB,), 32, b'{"a": 1}')
    assert head.peer.address.startswith("127.0.0.1:") and not head.anonymous


async def test_without_a_certificate_one_request_is_answered_and_no_body_read(world):
    async with served(world) as (listener, app), wire(listener, world.client(None)) as one:
        await one.send(http("/x", b"secret"))
        assert (await one.answer())[0] == 401
        assert await one.ended()
    assert not app.seen


async def test_a_certificate_of_somebody_else_s_authority_gets_nothing(world):
    async with served(world) as (listener, app):
        await turned_away(listener, world.client("stranger"))
    assert not app.seen


async def test_old_tls_is_refused(world):
    old = world.client(maximum_version=ssl.TLSVersion.TLSv1_2)
    async with served(world) as (listener, _), wire(listener, old) as one:
        await one.send(http("/early"))
        assert (await one.answer())[0] == 418
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        older = world.client(minimum_version=ssl.TLSVersion.TLSv1_1, maximum_version=ssl.TLSVersion.TLSv1_1)
    older.set_ciphers("ALL:@SECLEVEL=0")
    async with served(world) as (listener, _):
        with pytest.raises((ssl.SSLError, OSError)):
            await Wire.open(listener.address, older)


async def test_no_session_is_resumed_so_each_connection_shows_its_certificate(world):
    context = world.client(maximum_version=ssl.TLSVersion.TLSv1_3)
    async with served(world) as (listener, _):
        async with wire(listener, context) as one:
            await one.send(http("/early"))
            await one.answer()
            assert not one.writer.get_extra_info("ssl_object").session.has_ticket


async def test_anonymous_connections_are_few(world):
    patient = Patience(head=20)
    async with served(world, patience=patient) as (listener, _):
        idle = [await Wire.open(listener.address, world.client(None)) for _ in range(ANONYMOUS)]
        async with wire(listener, world.client(None)) as one:
            assert await one.ended()
        async with wire(listener, world.client()) as known:
            await known.send(http("/x"))
            assert (await known.answer())[0] == 200
        for one in idle:
            one.writer.transport.abort()


# -- what is a request -------------------------------------------------------------------------------------------------

POST = b"POST /x HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(("data", "status"), [
    (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n", 400),
    (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n", 400),
    (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
    (POST + b"Content-Length: 1, 2\r\n\r\nab", 400),
    (POST + b"Content-Length: +1\r\n\r\na", 400),
    (POST + b"Content-Length: 0x1\r\n\r\na", 400),
    (POST + b"Transfer-Encoding: identity\r\n\r\n", 501),
    (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    (POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", 400),
    (b"POST /x HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST /x HTTP/1.1\r\n\r\n", 400),
    (b"POST /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"POST /x HTTP/1.1\r\nHost: a\r\nx\x00y: b\r\n\r\n", 400),
    (b"POST  /x  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    (b"\x16\x03\x01\x02\x00\x01\x00" * 20 + b"\r\n\r\n", 400),
    (b"GET /x HTTP/1.1\r\nHost: a\r\ny: " + b"b" * 20_000 + b"\r\n\r\n", 431),
])  # fmt: skip
async def test_what_is_no_request_ends_the_connection(world, data, status):
    async with served(world) as (listener, app), wire(listener, world.client()) as one:
        await one.send(data)
        assert (await one.answer())[0] == status
        assert await one.ended()
    assert not app.seen


async def test_bodies_in_chunks_and_pipelined_requests(world):
    chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\ntrailer: 1\r\n\r\n"
    async with served(world) as (listener, app), wire(listener, world.client()) as one:
        await one.send(chunked + http("/second", b"2"))
        assert (await one.answer())[0] == (await one.answer())[0] == 200
    assert [(head.path, body) for head, body in app.seen] == [("/x", b"abcde"), ("/second", b"2")]


async def test_a_query_is_no_part_of_the_path(world):
    async with served(world) as (listener, app), wire(listener, world.client()) as one:
        await one.send(http("/x?a=b"))
        await one.answer()
    assert app.seen[0][0].path == "/x"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_beyond_the_limit_is_not_kept(world, chunked):
    size = 5000
    begun = POST + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"Content-Length: %d\r\n\r\n" % size)
    data = b"1388\r\n" + b"x" * size + b"\r\n" if chunked else b"x" * size
    async with served(world, limits=Limits(message=4096)) as (listener, app), wire(listener, world.client()) as one:
        await one.send(begun + data)
        status, headers, _ = await one.answer()
        assert (status, headers["connection"]) == (413, "close")
    assert not app.seen


async def test_who_waits_to_be_told_to_continue_is_told(world):
    async with served(world) as (listener, _), wire(listener, world.client()) as one:
        await one.send(POST + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n")
        assert (await one.answer())[0] == 100
        await one.send(b"a")
        assert (await one.answer())[0] == 200


async def test_a_failing_application_is_a_500_without_a_word_about_it(world):
    app, log = Echo(), Log()
    app.fail = ValueError("the secret is 42")
    async with served(world, app=app, log=log) as (listener, _), wire(listener, world.client()) as one:
        await one.send(http("/x"))
        status, _, body = await one.answer()
        assert status == 500 and b"42" not in body and b"Traceback" not in body
        app.fail = None
        await one.send(http("/x"))
        assert (await one.answer())[0] == 200
    assert log.lines == [("an answer failed", {"failure": "ValueError", "path": "/x"})]
