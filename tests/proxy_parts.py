"""Parts of proxy tests: a pass-through enforcement point, a log that remembers, HTTP/2 by hand, certificates."""

import asyncio
import datetime as dt
import socket
import struct
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from sidecar.enforcement.call import Call, Final, Reply
from sidecar.enforcement.declarations import PROXY
from sidecar.enforcement.intercept import ProxyHandler
from sidecar.enforcement.listen import Listen, Listener
from sidecar.enforcement.transport import Limits
from sidecar.enforcement.upstream import GrpcUpstream
from sidecar.errors import ForwardError

CALL_ID = ("x-customhouse-call-id", "0197-test")


class PassThrough:
    """Forwards everything to the upstream and decides nothing. Remembers the calls it saw and how they ended."""

    def __init__(self, upstream, unary=frozenset(), headers=(CALL_ID,)):
        self.upstream, self.unary_methods, self.headers = upstream, unary, headers
        self.calls: list[Call] = []
        self.ended: list[str] = []
        self.closed = 0

    def kind(self, method):
        if method in self.unary_methods:
            return "unary"
        return None if "Unknown" in method else "stream"

    async def unary(self, call, request, upstream=None):
        self.calls.append(call)
        try:
            reply = await self.upstream.unary(call.method, request, call.metadata, left(call))
        except ForwardError as error:
            return Reply(message=None, headers=self.headers, final=Final(code=error.code, message=error.message))
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        return Reply(message=reply.message, headers=(*reply.headers, *self.headers), final=reply.final)

    async def stream(self, call, requests, answer, upstream=None):
        self.calls.append(call)
        exchange = self.upstream.open(call.method, call.metadata, left(call))

        async def up():
            async for message in requests:
                await exchange.write(message)
            self.closed += 1
            await exchange.close_send()

        pump = asyncio.create_task(up())
        try:
            await answer.headers((*await exchange.headers(), *self.headers))
            while (message := await exchange.read()) is not None:
                await answer.message(message)
            return await exchange.final()
        except ForwardError as error:
            return Final(code=error.code, message=error.message)
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        finally:
            pump.cancel()
            exchange.cancel()


def left(call):
    return None if call.deadline is None else max(0.0, call.deadline - time.monotonic())


class Remembering:
    """An operator's log that keeps its lines."""

    def __init__(self):
        self.lines: list[tuple[str, dict]] = []

    def error(self, event, **details):
        self.lines.append((event, details))

    warning = error


# -- HTTP/2 by hand (RFC 9113), for what no gRPC client would send --------------------------------------------------


def frame(type_, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([type_, flags]) + struct.pack(">I", stream) + payload


def _integer(value, prefix):
    if value < (1 << prefix) - 1:
        return bytes([value])
    out, value = [(1 << prefix) - 1], value - ((1 << prefix) - 1)
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def headers(stream, path, extra=(), end=False):
    fields = [
        (b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x"),
        (b"content-type", b"application/grpc"), (b"te", b"trailers"), *extra,
    ]  # fmt: skip
    block = b"".join(b"\0" + _integer(len(n), 7) + n + _integer(len(v), 7) + v for n, v in fields)
    return frame(1, 5 if end else 4, stream, block)


def message(stream, data, end=True):
    return frame(0, int(end), stream, b"\0" + struct.pack(">I", len(data)) + data)


class RawClient:
    """One HTTP/2 connection, frames sent as they are given."""

    def __init__(self, address):
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))

    def send(self, *frames):
        self._socket.sendall(b"".join(frames))

    def receive(self, seconds):
        """All frames that come within the time, as (type, flags, stream, payload)."""
        self._socket.settimeout(seconds)
        data = b""
        try:
            while chunk := self._socket.recv(65536):
                data += chunk
        except TimeoutError:
            pass
        frames = []
        while len(data) >= 9:
            size = int.from_bytes(data[:3], "big")
            frames.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
            data = data[9 + size :]
        return frames

    def close(self):
        self._socket.close()


# -- certificates ---------------------------------------------------------------------------------------------------


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str):
        self.folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._builder(self._subject, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.ca = folder / f"{name}-ca.pem"
        self.ca.write_bytes(certificate.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def _builder(self, subject, key):
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
        )

    def issue(self, name, *, dns=(), uris=()):
        """Writes name.pem and name.key; gives their paths."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [*map(x509.DNSName, dns), *map(x509.UniformResourceIdentifier, uris)]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(subject, key)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        cert_path, key_path = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert_path.write_bytes(certificate.public_bytes(Encoding.PEM))
        key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return cert_path, key_path


# -- an upstream and everything around it ---------------------------------------------------------------------------

RICH = b"\x08\x09\x12\x04nope\x1a\x09\x0a\x07x/t.Odd"
"""google.rpc.Status{code: 9, message: "nope", details: [Any{type_url: "x/t.Odd"}]}"""


class Service(grpc.GenericRpcHandler):
    """The guarded service: bytes in, bytes out; what a method does is in its name. Notes what it sees."""

    def __init__(self):
        self.seen: list[tuple] = []
        self.sent = 0

    def service(self, details):
        handler = getattr(self, "on_" + details.method.rpartition("/")[2].lower(), None)
        if handler is None or "Proxy" in details.method:
            return None
        if handler.__name__ in ("on_echo", "on_fail", "on_slow", "on_meta", "on_large", "on_cancel", "on_abort"):
            return grpc.unary_unary_rpc_method_handler(handler)
        return grpc.stream_stream_rpc_method_handler(handler)

    async def on_echo(self, request, context):
        self.seen.append(("echo", request))
        return request

    async def on_meta(self, request, context):
        await context.send_initial_metadata(
            (("x-up", "1"), ("x-up-bin", b"\x00\xff"), ("x-customhouse-call-id", "forged"))
        )
        context.set_trailing_metadata((("x-end", "2"), ("x-end-bin", b"\xfe\x00"), ("x-customhouse-person", "forged")))
        self.seen.append(("meta", tuple(map(tuple, context.invocation_metadata())), context.time_remaining()))
        return b"ok"

    async def on_fail(self, request, context):
        await context.send_initial_metadata((("x-up", "1"),))
        context.set_trailing_metadata((("grpc-status-details-bin", RICH), ("x-end", "2")))
        context.set_code(list(grpc.StatusCode)[int(request)])
        context.set_details("nöpe, 100%\n")
        return b""

    async def on_abort(self, request, context):
        await context.abort(grpc.StatusCode.UNAVAILABLE, "mine", (("x-end", "2"),))

    async def on_cancel(self, request, context):
        await context.abort(grpc.StatusCode.CANCELLED, "by the service")

    async def on_large(self, request, context):
        return bytes(int(request))

    async def on_slow(self, request, context):
        self.seen.append(("slow", context.time_remaining()))
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.seen.append(("slow cancelled",))
            raise

    async def on_bidi(self, requests, context):
        async for request in requests:
            await context.write(request)
        self.seen.append(("bidi closed",))

    async def on_upload(self, requests, context):
        """A client stream: answers only at a clean end."""
        count = 0
        try:
            async for _ in requests:
                count += 1
            for _ in range(20):  # see `intercept._Requests`: here too a cancellation first looks like an end
                await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            self.seen.append(("upload cancelled", count))
            raise
        self.seen.append(("upload complete", count))
        await context.write(str(count).encode())

    async def on_count(self, requests, context):
        """A server stream: n messages, then status code c. Request "n c"."""
        request = await anext(requests)
        number, code = map(int, request.split())
        for n in range(number):
            await context.write(b"%d" % n)
        context.set_trailing_metadata((("x-end", "2"),))
        if code:
            context.set_code(list(grpc.StatusCode)[code])
            context.set_details("after some")

    async def on_first(self, requests, context):
        """Headers at once, a message only when asked for."""
        await context.send_initial_metadata((("x-up", "1"),))
        async for request in requests:
            await context.write(request)

    async def on_early(self, requests, context):
        """Ends with an error after five answers, whatever else is being sent."""
        await anext(requests)
        for n in range(5):
            await context.write(b"%d" % n)
        context.set_code(grpc.StatusCode.FAILED_PRECONDITION)
        context.set_details("early")

    async def on_flood(self, requests, context):
        try:
            while True:
                await context.write(bytes(64 << 10))
                self.sent += 1
        finally:
            self.seen.append(("flood ended",))

    async def on_sink(self, requests, context):
        """Reads nothing until told by the end of the test."""
        await asyncio.sleep(30)


UNARY = frozenset(f"/t.S/{name}" for name in ("Echo", "Meta", "Fail", "Slow", "Large", "Cancel", "Abort", "Nothing"))


@dataclass
class Running:
    service: Service
    point: PassThrough
    listener: Listener
    upstream: GrpcUpstream
    server: grpc.aio.Server
    upstream_address: str
    log: Remembering
    channel: grpc.aio.Channel

    def unary(self, name, request=b"", **options):
        return self.channel.unary_unary(f"/t.S/{name}")(request, **options)

    def stream(self, name, **options):
        return self.channel.stream_stream(f"/t.S/{name}")(**options)


@asynccontextmanager
async def running(*, limits=Limits(), listen=None, credentials=None, options=(), unary=UNARY, clock=time.time):
    """Client, proxy and upstream in this loop."""
    service, log = Service(), Remembering()
    roomy = [("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0), ("grpc.max_metadata_size", 1 << 16)]
    server = grpc.aio.server(handlers=[service], options=roomy)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    upstream = GrpcUpstream(address, None, limits)
    point = PassThrough(upstream, unary)
    listen = listen or Listen(address="127.0.0.1:0", plaintext=True)
    listener = Listener(listen, [ProxyHandler(point, PROXY, listen.peers(clock), log)], limits, log)
    await listener.start()
    options = [("grpc.max_receive_message_length", -1), *options]
    if credentials is None:
        channel = grpc.aio.insecure_channel(listener.address, options=options)
    else:
        channel = grpc.aio.secure_channel(listener.address, credentials, options=options)
    try:
        yield Running(service, point, listener, upstream, server, address, log, channel)
    finally:
        await channel.close()
        await listener.stop(0.5)
        await upstream.close()
        await server.stop(0)


async def until(condition, seconds=60.0):
    """Wait until something has happened; fails when it does not."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.01)


async def patiently(ask, code, seconds=60.0):
    """What `ask()` answers in the end: as long as it fails with this code, it is asked again."""
    end = time.monotonic() + seconds
    while True:
        try:
            return await ask()
        except grpc.aio.AioRpcError as error:
            if error.code() is not code or time.monotonic() > end:
                raise
        await asyncio.sleep(0.05)


async def collect(call):
    """All messages of a stream, and the status it ended with."""
    messages = []
    try:
        while (message_ := await call.read()) is not grpc.aio.EOF:
            messages.append(message_)
    except grpc.aio.AioRpcError:
        pass
    return messages, await call.code()
