"""Parts of proxy tests: a pass-through enforcement point, a log that remembers, HTTP/2 by hand, certificates."""

import asyncio
import datetime
import socket
import struct
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from sidecar.enforcement.call import Call, Final, Reply
from sidecar.errors import Code, ForwardError

CALL_ID = ("x-customhouse-call-id", "0197-test")


class PassThrough:
    """Forwards everything to the upstream and decides nothing. Remembers the calls it saw and how they ended."""

    def __init__(self, upstream, unary=frozenset(), headers=(CALL_ID,)):
        self.upstream, self.unary_methods, self.headers = upstream, unary, headers
        self.calls: list[Call] = []
        self.ended: list[str] = []

    def kind(self, method):
        if method in self.unary_methods:
            return "unary"
        return None if "Unknown" in method else "stream"

    async def unary(self, call, request):
        self.calls.append(call)
        try:
            reply = await self.upstream.unary(call.method, request, call.metadata, left(call))
        except ForwardError as error:
            return Reply(message=None, headers=self.headers, final=Final(code=error.code, message=error.message))
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        return Reply(message=reply.message, headers=(*reply.headers, *self.headers), final=reply.final)

    async def stream(self, call, requests, answer):
        self.calls.append(call)
        exchange = self.upstream.open(call.method, call.metadata, left(call))

        async def up():
            async for message in requests:
                await exchange.write(message)
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
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
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


REFUSED = Final(code=Code.PERMISSION_DENIED, message="refused")
