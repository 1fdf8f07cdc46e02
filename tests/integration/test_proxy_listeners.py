"""Listeners: TLS, client certificates, Unix sockets, and requests no gRPC client would send."""

import asyncio
import os
import socket
import ssl
import stat
import time

import grpc
import pytest
from proxy_parts import Authority, RawClient, Remembering, Service, headers, message, patiently, running, until

from sidecar.enforcement.certificates import ServerTls
from sidecar.enforcement.listen import Listen, Listener
from sidecar.enforcement.transport import Limits
from sidecar.enforcement.upstream import ClientTls, GrpcUpstream
from sidecar.errors import Code, ConfigurationError, ForwardError

pytestmark = pytest.mark.integration
WEB = "spiffe://corp/ns/web"


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path, "corp")


def client(authority, cert=None, key=None):
    return grpc.ssl_channel_credentials(authority.ca.read_bytes(), key and key.read_bytes(), cert and cert.read_bytes())


def tls(authority, *, name="sidecar", mutual=True):
    cert, key = authority.issue(name, dns=["localhost"])
    return ServerTls(cert=cert, key=key, client_ca=authority.ca if mutual else None)


async def test_a_client_certificate_names_the_caller(authority):
    cert, key = authority.issue("web", uris=[WEB])
    listen = Listen(address="localhost:0", tls=tls(authority))
    async with running(listen=listen, credentials=client(authority, cert, key)) as it:
        assert await it.unary("Echo", b"x", timeout=60) == b"x"
        peer = it.point.calls[0].peer
        assert peer.identities == (WEB,)
        assert len(peer.certificate_sha256) == 32
        call = it.stream("First", timeout=60)
        await call.initial_metadata()
        assert it.point.calls[1].peer == peer
        call.cancel()


async def test_an_expired_certificate_names_nobody_on_an_open_connection(authority):
    cert, key = authority.issue("web", uris=[WEB])
    now = [time.time()]
    listen = Listen(address="localhost:0", tls=tls(authority))
    async with running(listen=listen, credentials=client(authority, cert, key), clock=lambda: now[0]) as it:
        await it.unary("Echo", b"x", timeout=60)
        now[0] += 7200
        await it.unary("Echo", b"x", timeout=60)
        assert [call.peer.identities for call in it.point.calls] == [(WEB,), ()]


async def test_callers_of_another_authority_or_without_certificate_never_get_in(authority, tmp_path):
    other = Authority(tmp_path, "other")
    cert, key = other.issue("intruder", uris=[WEB])
    listen = Listen(address="localhost:0", tls=tls(authority))
    for credentials in (client(authority, cert, key), client(authority)):
        async with running(listen=listen, credentials=credentials) as it:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await it.unary("Echo", b"x", timeout=60)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert it.point.calls == []


async def test_plaintext_to_a_tls_listener_gets_nothing(authority):
    listen = Listen(address="localhost:0", tls=tls(authority))
    async with running(listen=listen, credentials=client(authority)) as it:
        plain = grpc.aio.insecure_channel(it.listener.address)
        with pytest.raises(grpc.aio.AioRpcError):
            await plain.unary_unary("/t.S/Echo")(b"x", timeout=3)
        await plain.close()
        assert it.point.calls == []


async def test_tls_without_client_ca_verifies_nobody(authority):
    cert, key = authority.issue("web", uris=[WEB])
    listen = Listen(address="localhost:0", tls=tls(authority, mutual=False))
    async with running(listen=listen, credentials=client(authority, cert, key)) as it:
        await it.unary("Echo", b"x", timeout=60)
        assert it.point.calls[0].peer.identities == ()
        assert it.point.calls[0].peer.certificate_sha256 is None


async def served(address):
    """DER of the certificate that the listener shows now."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return der


async def test_a_renewed_certificate_is_taken_up_without_restart_and_a_bad_one_is_not(authority):
    config = tls(authority, mutual=False)
    async with running(listen=Listen(address="localhost:0", tls=config), credentials=client(authority)) as it:
        first = await served(it.listener.address)
        await asyncio.sleep(1.1)
        authority.issue("sidecar", dns=["localhost"])
        second = await served(it.listener.address)
        assert second != first
        await asyncio.sleep(1.1)
        config.key.write_bytes(b"half a key")
        assert await served(it.listener.address) == second
        assert any("cannot be used" in event for event, _ in it.log.lines)
        assert await it.unary("Echo", b"x", timeout=60) == b"x"


# -- the upstream's side --------------------------------------------------------------------------------------------


async def guarded(authority):
    """A service that accepts only the sidecar's certificate."""
    service = Service()
    server = grpc.aio.server(handlers=[service])
    cert, key = authority.issue("service", dns=["profiles.corp"])
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), cert.read_bytes())], authority.ca.read_bytes(), require_client_auth=True
    )
    port = server.add_secure_port("localhost:0", credentials)
    await server.start()
    return server, service, f"localhost:{port}"


async def test_the_upstream_is_reached_with_our_certificate_and_only_if_it_is_who_it_should_be(authority, tmp_path):
    server, service, address = await guarded(authority)
    cert, key = authority.issue("sidecar", uris=["spiffe://corp/sidecar"])
    good = ClientTls(ca=authority.ca, cert=cert, key=key, server_name="profiles.corp")
    stranger = Authority(tmp_path, "stranger")
    wrong = [
        ClientTls(ca=authority.ca, cert=cert, key=key),  # another name than localhost
        ClientTls(ca=authority.ca, server_name="profiles.corp"),  # no certificate of ours
        ClientTls(ca=stranger.ca, cert=cert, key=key, server_name="profiles.corp"),
    ]
    try:
        upstream = GrpcUpstream(address, good, Limits())
        await upstream.connect(60)
        reply = await upstream.unary("/t.S/Echo", b"x", (), 60)
        assert (reply.message, reply.final.code) == (b"x", Code.OK)
        await upstream.close()
        for one in wrong:
            upstream = GrpcUpstream(address, one, Limits())
            with pytest.raises(ForwardError):
                await upstream.unary("/t.S/Echo", b"y", (), 5)
            await upstream.close()
        assert service.seen == [("echo", b"x")]
    finally:
        await server.stop(0)


async def test_new_upstream_certificates_are_taken_up_and_open_calls_end_on_the_old_connection(authority):
    server, service, address = await guarded(authority)
    cert, key = authority.issue("sidecar")
    upstream = GrpcUpstream(
        address, ClientTls(ca=authority.ca, cert=cert, key=key, server_name="profiles.corp"), Limits()
    )
    try:
        exchange = upstream.open("/t.S/Bidi", (), 60)
        await exchange.write(b"a")
        assert await exchange.read() == b"a"
        assert not await upstream.renew(drain=5)
        authority.issue("sidecar")
        old = upstream.channel
        assert await upstream.renew(drain=30)
        assert upstream.channel is not old
        assert (await upstream.unary("/t.S/Echo", b"x", (), 60)).message == b"x"
        await exchange.write(b"b")
        assert await exchange.read() == b"b"
        await exchange.close_send()
        assert await exchange.read() is None
        assert (await exchange.final()).code is Code.OK
        await until(lambda: closed(old))
        key.write_bytes(b"")
        cert.unlink()
        with pytest.raises(ConfigurationError):
            await upstream.renew(drain=5)
        assert (await upstream.unary("/t.S/Echo", b"x", (), 60)).message == b"x"
    finally:
        await upstream.close()
        await server.stop(0)


def closed(channel):
    try:
        return channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN
    except grpc.aio.UsageError:
        return True


async def test_closing_ends_open_calls_as_unavailable():
    service = Service()
    server = grpc.aio.server(handlers=[service])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    upstream = GrpcUpstream(f"127.0.0.1:{port}", None, Limits())
    exchange = upstream.open("/t.S/First", (), None)
    await exchange.headers()
    slow = asyncio.create_task(upstream.unary("/t.S/Slow", b"", (), None))
    await until(lambda: service.seen)
    await upstream.close()
    assert await exchange.read() is None
    assert (await exchange.final()).code is Code.UNAVAILABLE
    assert (await slow).final.code is Code.UNAVAILABLE
    await server.stop(0)


# -- Unix sockets ---------------------------------------------------------------------------------------------------


async def test_a_socket_names_its_workload_and_only_owner_and_group_may_open_it(tmp_path):
    folder = tmp_path / "proxy"
    async with running(listen=Listen(address=f"unix:{folder}", workload=WEB)) as it:
        assert it.listener.address == f"unix:{folder}/0.sock"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o750
        assert stat.S_IMODE((folder / "0.sock").stat().st_mode) == 0o660
        assert await it.unary("Echo", b"x", timeout=60) == b"x"
        assert it.point.calls[0].peer.identities == (WEB,)
        assert it.point.calls[0].peer.address == "unix"


async def test_generations_do_not_steal_each_others_socket(tmp_path):
    listen = Listen(address=f"unix:{tmp_path / 'proxy'}", workload=WEB)
    async with running(listen=listen) as old:
        async with running(listen=listen) as new:
            assert new.listener.address == f"unix:{tmp_path}/proxy/0-1.sock"
            assert await old.unary("Echo", b"o", timeout=60) == b"o"
            assert await new.unary("Echo", b"n", timeout=60) == b"n"
            assert [call.method for call in old.point.calls] == ["/t.S/Echo"]
        assert await old.unary("Echo", b"o", timeout=60) == b"o"


async def test_a_dead_socket_is_replaced_and_anything_else_is_left_alone(tmp_path):
    folder = tmp_path / "proxy"
    folder.mkdir(mode=0o750)
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(folder / "0.sock"))
    dead.close()
    async with running(listen=Listen(address=f"unix:{folder}", workload=WEB)) as it:
        assert it.listener.address.endswith("/0.sock")
        assert await it.unary("Echo", b"x", timeout=60) == b"x"
    (folder / "0.sock").write_text("mine")
    with pytest.raises(ConfigurationError, match="not a socket"):
        await Listener(Listen(address=f"unix:{folder}", workload=WEB), [], Limits(), Remembering()).start()
    assert (folder / "0.sock").read_text() == "mine"


async def test_a_port_in_use_is_a_configuration_error(authority):
    async with running() as it:
        for config in (None, tls(authority)):
            listen = Listen(address=it.listener.address, plaintext=True, tls=config)
            with pytest.raises(ConfigurationError, match="cannot be listened on"):
                await Listener(listen, [], Limits(), Remembering()).start()


async def test_workers_share_a_port_only_when_told_to():
    listen = Listen(address="127.0.0.1:0", plaintext=True)
    first = Listener(listen, [], Limits(), Remembering(), share_port=True)
    await first.start()
    second = Listener(
        Listen(address=first.address, plaintext=True), [], Limits(), Remembering(), worker=1, share_port=True
    )
    await second.start()
    assert second.address == first.address
    await first.stop(0)
    await second.stop(0)
    await second.stop(0)


# -- what no gRPC client sends --------------------------------------------------------------------------------------


async def test_a_method_name_that_is_not_utf8_does_not_stop_the_door():
    """It stops a grpc.aio server for good (grpcio 1.85). Calls under way go on, new ones are served at once."""
    async with running() as it:
        open_ = it.stream("Bidi")
        await open_.write(b"a")
        assert await open_.read() == b"a"
        for number in range(3):
            raw = RawClient(it.listener.address)
            raw.send(headers(1, b"/t.S/\xff\xfe"), message(1, b"x"))
            await until(lambda: len(it.log.lines) > number)  # noqa: B023
            raw.close()
            fresh = grpc.aio.insecure_channel(it.listener.address, options=[("grpc.use_local_subchannel_pool", 1)])
            assert await fresh.unary_unary("/t.S/Echo")(b"x", timeout=60, wait_for_ready=True) == b"x"
            await fresh.close()
            await open_.write(b"b")
            assert await open_.read() == b"b"
        assert [details["failure"] for _, details in it.log.lines] == ["UnicodeDecodeError"] * 3
        await open_.done_writing()
        assert await open_.read() is grpc.aio.EOF


async def test_the_unix_socket_survives_it_too(tmp_path):
    async with running(listen=Listen(address=f"unix:{tmp_path / 'proxy'}", workload=WEB)) as it:
        first = it.listener.address
        raw = socket.socket(socket.AF_UNIX)
        raw.connect(first.removeprefix("unix:"))
        raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0" + headers(1, b"/t.S/\xff") + message(1, b"x"))
        await until(lambda: it.log.lines)
        await asyncio.sleep(0.3)
        raw.close()

        async def ask():  # it may be opened again under another name
            private = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(it.listener.address, options=private) as fresh:
                return await fresh.unary_unary("/t.S/Echo")(b"x", timeout=60)

        assert await patiently(ask, grpc.StatusCode.UNAVAILABLE) == b"x"
        assert os.path.exists(it.listener.address.removeprefix("unix:"))


GARBAGE = {
    "flags": lambda: headers(1, b"/t.S/Echo") + b"\0\0\7\0\1\0\0\0\1" + b"\7\0\0\0\2hi",
    "cut": lambda: headers(1, b"/t.S/Echo") + b"\0\0\7\0\1\0\0\0\1" + b"\0\0\0\0\5hi",
    "no message": lambda: headers(1, b"/t.S/Echo", end=True),
    "no path": lambda: headers(1, b"") + message(1, b"x"),
    "odd path": lambda: headers(1, b"no-slash") + message(1, b"x"),
    "bad value": lambda: (
        headers(1, b"/t.S/Echo", [(b"x-a", b"\xff\xfe"), (b"authorization", b"\xff")]) + message(1, b"x")
    ),
    "bad base64": lambda: headers(1, b"/t.S/Echo", [(b"x-a-bin", b"!!!")]) + message(1, b"x"),
    "upper case": lambda: headers(1, b"/t.S/Echo", [(b"X-A", b"1")]) + message(1, b"x"),
    "huge length": lambda: headers(1, b"/t.S/Echo") + b"\0\0\5\0\0\0\0\0\1" + b"\0\xff\xff\xff\xff",
    "bad gzip": lambda: headers(1, b"/t.S/Echo", [(b"grpc-encoding", b"gzip")]) + b"\0\0\7\0\1\0\0\0\1\1\0\0\0\2hi",
    "bad timeout": lambda: headers(1, b"/t.S/Echo", [(b"grpc-timeout", b"soon")]) + message(1, b"x"),
    "noise": lambda: os.urandom(2000),
}


@pytest.mark.parametrize("what", GARBAGE)
async def test_garbage_hurts_nobody_else(what):
    async with running() as it:
        raw = RawClient(it.listener.address)
        raw.send(GARBAGE[what]())
        await asyncio.sleep(0.2)
        assert await it.unary("Echo", b"x", timeout=60) == b"x"
        raw.close()
        assert it.log.lines == []
        for call in it.point.calls:
            assert all(value.isascii() for _, value in call.metadata)


async def test_a_thousand_idle_calls_leave_room_for_others():
    async with running(limits=Limits(streams=1100, streams_per_connection=1000)) as it:
        idle = [RawClient(it.listener.address) for _ in range(10)]
        for raw in idle:
            raw.send(*(headers(1 + 2 * n, b"/t.S/Bidi") for n in range(100)))
        await until(lambda: len(it.point.calls) == 1000)
        assert await it.unary("Echo", b"x", timeout=60) == b"x"
        for raw in idle:
            raw.close()
        await until(lambda: len(it.point.ended) == 1000)
