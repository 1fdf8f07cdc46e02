"""Callers who hold on to what they were given: idle streams, metadata bombs, slow readers. By hand, over mTLS.

Each disturbance is a context manager; what it met is in its `Met` afterwards.
"""

import select
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import grpc
from deployment import Deployment, wait
from proxy_parts import frame, headers, message
from puppet import Seen

from campaigns.flood import connected
from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.demo.service import SERVICE

PER_CONNECTION = 200
LETTER = pb.Message(sender_id=1, recipient_id=1, text="x" * 60_000)


@dataclass(slots=True)
class Met:
    """`begun`: calls or connections; `ended`: those the sidecar ended while they were held."""

    begun: int = 0
    ended: int = 0


def raw(deployment: Deployment, port: str) -> ssl.SSLSocket:
    """A connection with the console's certificate, on which HTTP/2 has begun."""
    pair, world = deployment.world.certificates["console"], deployment.world
    return connected(world.ports[port], str(world.ca), str(pair.cert), str(pair.key))


def opening(deployment: Deployment, stream: int, method: str, token: str | None = "amy") -> bytes:
    """The HEADERS of a call by somebody at work."""
    extra = [(key.encode(), value.encode()) for key, value in deployment.metadata(token)]
    return headers(stream, f"/{SERVICE}/{method}".encode(), extra)


@contextmanager
def idle(deployment: Deployment, met: Met, *, streams: int, port: str = "proxy") -> Iterator[None]:
    """Uploads that are opened and never say anything."""
    made: list[ssl.SSLSocket] = []
    try:
        while met.begun < streams:
            here = min(PER_CONNECTION, streams - met.begun)
            one = raw(deployment, port)
            made.append(one)
            one.sendall(b"".join(opening(deployment, 2 * n + 1, "ImportContacts") for n in range(here)))
            met.begun += here
        yield
        met.ended += sum(_ended(one) for one in made)
    finally:
        for one in made:
            one.close()


@contextmanager
def bombs(deployment: Deployment, met: Met, *, threads: int = 2, port: str = "proxy") -> Iterator[None]:
    """Blocks of headers: too many, too large, without end, and small ones that unpack to large."""
    over = threading.Event()

    def throw() -> None:
        kinds = _bombs(deployment)
        while not over.is_set():
            for kind in kinds:
                if over.is_set():
                    return
                with suppress(OSError), raw(deployment, port) as one:
                    met.begun += 1
                    one.settimeout(2.0)
                    one.sendall(kind)
                    met.ended += _ended(one, 0.2)

    running = [threading.Thread(target=throw) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in running:
            thread.join()


def _bombs(deployment: Deployment) -> list[bytes]:
    path = f"/{SERVICE}/GetProfile".encode()
    begun = opening(deployment, 1, "GetProfile")
    block = begun[9:]
    entry = (
        b"\x40\x01a" + b"\x7f" + bytes([0xE1, 0x1E]) + b"v" * 4064
    )  # a name of one letter, kept in the dynamic table
    return [
        b"".join(headers(2 * n + 1, path, [(b"x-bomb", b"v" * 15_000)], end=True) for n in range(60)),
        b"".join(headers(2 * n + 1, path, [(b"x%d" % k, b"") for k in range(900)], end=True) for n in range(20)),
        frame(1, 0, 1, block) + b"".join(frame(9, 0, 1, b"\0\x01x\x7f\x81\x7e" + b"v" * 16_256) for _ in range(60)),
        frame(1, 0, 1, block) + frame(9, 0, 1, b"") * 20_000,
        b"".join(frame(1, 5, 2 * n + 1, (entry if n == 0 else b"") + b"\xbe" * 12_000) for n in range(30)),
        begun + frame(1, 4, 1, b"\0\x01t\x7f\x81\x7e" + b"v" * 16_256),
    ]


@contextmanager
def slow_readers(deployment: Deployment, met: Met, *, streams: int = 30, port: str = "proxy") -> Iterator[None]:
    """Lists without end, asked for over a window that never opens."""
    going: list[Seen] = []

    def endless(seen: Seen, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        going.append(seen)
        next(requests)
        data = LETTER.SerializeToString()
        while context.is_active():
            met.begun += 1
            yield data

    with deployment.upstream.behaving("ListMessages", endless):
        one = raw(deployment, port)
        try:
            one.sendall(frame(4, 0, 0, struct.pack(">HI", 4, 0)))  # SETTINGS_INITIAL_WINDOW_SIZE: nothing
            request = pb.ListMessagesRequest(user_id=deployment.world.cast.us).SerializeToString()
            for n in range(streams):
                one.sendall(opening(deployment, 2 * n + 1, "ListMessages") + message(2 * n + 1, request))
            wait(lambda: len(going) == streams, 60, "all lists have begun")
            yield
        finally:
            one.close()
        wait(lambda: all(seen.ended.is_set() for seen in going), 60, "the lists end with their readers")


def rapid_resets(deployment: Deployment, met: Met, *, calls: int, port: str = "proxy") -> None:
    """Calls that are reset as soon as they are begun (CVE-2023-44487)."""
    reset = (8).to_bytes(4, "big")
    while met.begun < calls:
        with suppress(OSError), raw(deployment, port) as one:
            one.settimeout(10.0)
            for n in range(0, 500, 50):
                one.sendall(b"".join(
                    opening(deployment, 2 * k + 1, "GetProfile") + frame(3, 0, 2 * k + 1, reset) for k in range(n, n + 50)
                ))  # fmt: skip
                met.begun += 50
                if _ended(one, 0.0):
                    break


def _ended(one: ssl.SSLSocket, seconds: float = 0.0) -> int:
    """How many streams, or the connection itself, the other side has ended so far."""
    found, data, until = 0, b"", time.monotonic() + seconds
    while one.pending() or select.select([one], [], [], max(0.0, until - time.monotonic()))[0]:
        chunk = one.recv(1 << 16)
        if not chunk:
            return found + 1
        data += chunk
    while len(data) >= 9:
        size = int.from_bytes(data[:3], "big")
        found += data[3] == 3 or data[3] == 7 or (data[3] in (0, 1) and bool(data[4] & 1))
        data = data[9 + size :]
    return found
