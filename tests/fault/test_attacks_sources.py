"""Places that misbehave: a server that never comes to an end, a place that flips. Nobody is held up, and it is said."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bundle_signing import ed25519_key, write_bundle, write_signers
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from minimal_policy import write_policy
from policy_rig import Clock, PolicyRig

from sidecar.errors import ConfigurationError
from sidecar.main import policy_http
from sidecar.main.policy_http import Asked, HttpSource
from sidecar.main.sources import Look, file_source

SOON = 60.0
PAUSE = 0.05
ALICE = ed25519_key()
OK = b"HTTP/1.1 200 OK\r\n"


class Raw:
    """Accepts, reads once, and then says what a test wants, bit by bit, until nobody listens any more."""

    def __init__(self, parts: Callable[[], Iterator[bytes]]) -> None:
        self._parts, self._listener = parts, socket.create_server(("127.0.0.1", 0))
        self.port, self.connected = self._listener.getsockname()[1], threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(65536)
                self.connected.set()
                for part in self._parts():
                    connection.sendall(part)
                    time.sleep(PAUSE)
            except OSError:
                return

    def stop(self) -> None:
        self._listener.close()


def for_ever(part: bytes, head: bytes = b"") -> Callable[[], Iterator[bytes]]:
    def parts() -> Iterator[bytes]:
        yield head
        while True:
            yield part

    return parts


NEVER = {
    "drips_its_handshake": for_ever(b"x", b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb"),
    "drips_its_first_line": for_ever(b"H"),
    "drips_a_header": for_ever(b"x", OK + b"X-More: "),
    "asks_for_patience": for_ever(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "drips_its_body": for_ever(b"x", OK + b"Content-Length: 1000000\r\n\r\n"),
    "body_without_an_end": for_ever(b"x", OK + b"\r\n"),
    "chunks_without_an_end": for_ever(b"1\r\nx\r\n", OK + b"Transfer-Encoding: chunked\r\n\r\n"),
    "drips_the_size_of_a_chunk": for_ever(b"0", OK + b"Transfer-Encoding: chunked\r\n\r\n"),
    "trailers_without_an_end": for_ever(b"X-More: 1\r\n", OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"),
}


@pytest.fixture
def serve() -> Iterator[Callable[..., HttpSource]]:
    servers: list[Raw] = []

    def made(parts: Callable[[], Iterator[bytes]], scheme: str = "http") -> HttpSource:
        servers.append(Raw(parts))
        found = HttpSource(Asked(url=f"{scheme}://127.0.0.1:{servers[0].port}/b", poll=30.0), jitter=lambda: 0.5)
        found.server = servers[0]  # type: ignore[attr-defined]
        return found

    yield made
    for one in servers:
        one.stop()


def scheme(name: str) -> str:
    return "https" if "handshake" in name else "http"


def in_a_thread(ask: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    found: list[object] = []

    def run() -> None:
        try:
            found.append(ask())
        except ConfigurationError as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, found


@pytest.mark.parametrize("name", NEVER)
def test_a_server_that_never_comes_to_an_end_is_left(serve, monkeypatch, name: str) -> None:
    """However it goes on: each step is quick enough for a socket's own time limit."""
    monkeypatch.setattr(policy_http, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(policy_http, "BODY_SECONDS", 0.5)
    asking, found = in_a_thread(serve(NEVER[name], scheme(name)).look)
    asking.join(SOON)
    assert len(found) == 1, "the look came to an end"
    assert isinstance(found[0], ConfigurationError)
    assert "more than 0.5 s" in str(found[0])
    assert found[0].where.startswith("http")


@pytest.mark.parametrize("name", ["drips_its_handshake", "drips_a_header", "drips_its_body", "trailers_without_an_end"])
def test_a_person_does_not_wait_for_a_slow_server(serve, name: str) -> None:
    """`rollback` has the turn as soon as the look under way ends: it ends at once."""
    source = serve(NEVER[name], scheme(name))
    asking, found = in_a_thread(source.look)
    assert source.server.connected.wait(SOON)
    time.sleep(3 * PAUSE)
    began = time.monotonic()
    while asking.is_alive() and time.monotonic() - began < SOON:
        source.interrupt()
        asking.join(0.1)
    assert found == [Look.UNSETTLED]


def test_a_reading_that_a_person_asked_for_is_not_ended_by_another(serve, tmp_path: Path) -> None:
    write_bundle(tmp_path / "b.tar.gz", write_policy(tmp_path / "policies"))
    content = (tmp_path / "b.tar.gz").read_bytes()

    def parts() -> Iterator[bytes]:
        yield OK + b"Content-Length: %d\r\n\r\n" % len(content)
        for at in range(0, len(content), 200):
            yield content[at : at + 200]

    source = serve(parts)
    asking, found = in_a_thread(source.read)
    while asking.is_alive():
        source.interrupt()
        asking.join(0.02)
    assert found[0].label == "trial"  # type: ignore[attr-defined]


async def test_a_place_that_flips_between_good_and_bad_keeps_the_good_one(tmp_path: Path) -> None:
    """And between two good ones, always one of them as a whole, with its own signers."""
    file, signers = tmp_path / "b.tar.gz", write_signers(tmp_path / "signers.yaml", {"alice": ALICE})
    made: dict[str, tuple[bytes, int | None]] = {}
    for name, ttl, signed in (("good", 5, True), ("other", 6, True), ("unsigned", 7, False)):
        folder = write_policy(tmp_path / name, ttl_seconds=ttl)
        write_bundle(file, folder, *([("alice", ALICE)] if signed else []))
        made[name] = file.read_bytes(), ttl if signed else None
    made["half"] = made["other"][0][:-300], None

    def put(name: str) -> None:
        beside = file.with_name("next")
        beside.write_bytes(made[name][0])
        beside.replace(file)

    put("good")
    rig = PolicyRig(file_source(file, Clock()), tmp_path / "kept", Ed25519PrivateKey.generate(), signers=signers)
    expected = 5
    for name in ("unsigned", "good", "half", "unsigned", "half", "good", "other", "unsigned", "good", "half"):
        put(name)
        await rig.looks(3)
        expected = made[name][1] or expected
        assert await rig.ttl() == expected
        assert rig.standing.decisions.active.bundle.signers == ("alice",)
        assert (rig.standing.problem is None) == (made[name][1] is not None)
    put("other")
    await rig.looks(1)
    put("good")
    await rig.looks(1)
    assert await rig.ttl() == 5, "what changes between two looks is not taken"
