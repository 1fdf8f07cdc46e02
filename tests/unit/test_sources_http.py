"""A bundle behind an address: asked for as OPA asks, bounded, and never from another place than the settings name."""

import datetime as dt
import http.server
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_signing import write_bundle
from minimal_policy import write_policy

from sidecar.decision import archive
from sidecar.demo.pki import Authority
from sidecar.errors import ConfigurationError
from sidecar.main import policy_http
from sidecar.main.policy_http import Asked, HttpSource
from sidecar.main.sources import Look

POLL = 30.0
LONG = "application/vnd.openpolicyagent.bundles"


class Server:
    """Answers as a test wants, and remembers what it was asked. `answer` gives status, headers and body."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.content, self.tag, self.kind = b"", '"1"', "application/gzip"
        self.answer: Callable[[str, dict[str, str]], tuple[int, dict[str, str], bytes]] = self.usual
        self.changed, self.dripping = threading.Event(), 0.0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                headers = {key.lower(): value for key, value in self.headers.items()}
                outer.asked.append((self.path, headers))
                status, more, body = outer.answer(self.path, headers)
                self.send_response(status)
                for key, value in more.items():
                    self.send_header(key, value)
                if "Content-Length" not in more and status != 304:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    for at in range(0, len(body), 64) if outer.dripping else ():
                        self.wfile.write(body[at : at + 64])
                        time.sleep(outer.dripping)
                    if not outer.dripping:
                        self.wfile.write(body)
                except OSError:
                    return

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'http' if tls is None else 'https'}://localhost:{self._server.server_port}/bundles/b.tar.gz"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def usual(self, _path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        known = headers.get("if-none-match") == self.tag
        if known and "wait=" in headers.get("prefer", "") and self.kind == LONG:
            known = not self.changed.wait(20)
        more = {"ETag": self.tag, "Content-Type": self.kind}
        return (304, more, b"") if known else (200, more, self.content)

    def stop(self) -> None:
        self.changed.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_policy(tmp_path / "policies")


@pytest.fixture
def server(folder: Path, tmp_path: Path):
    one = Server()
    write_bundle(tmp_path / "b.tar.gz", folder)
    one.content = (tmp_path / "b.tar.gz").read_bytes()
    yield one
    one.stop()


def source(server: Server, **more: object) -> HttpSource:
    return HttpSource(Asked(url=server.url, poll=POLL, **more), jitter=lambda: 0.5)


def changed(server: Server, folder: Path, tag: str = '"2"') -> None:
    write_policy(folder, ttl_seconds=9)
    write_bundle(folder.parent / "b.tar.gz", folder)
    server.content, server.tag = (folder.parent / "b.tar.gz").read_bytes(), tag


def finding(one: HttpSource) -> str:
    with pytest.raises(ConfigurationError) as caught:
        one.look()
    assert caught.value.where.startswith("http")
    assert caught.value.fix
    return str(caught.value)


def test_it_is_read_once_and_again_when_its_tag_changes(server, folder):
    one = source(server)
    first = one.read()
    assert one.look() is Look.UNCHANGED
    assert server.asked[-1][1]["if-none-match"] == '"1"'
    assert "if-none-match" not in server.asked[0][1]
    assert {headers["prefer"] for _, headers in server.asked} == {"modes=snapshot"}
    changed(server, folder)
    assert one.look().revision != first.revision
    assert one.look() is Look.UNCHANGED
    assert one.pause == POLL


def test_without_a_tag_the_bytes_say_whether_it_is_another(server, folder):
    server.answer = lambda _path, _headers: (200, {}, server.content)
    one = source(server)
    one.read()
    assert one.look() is Look.UNCHANGED
    changed(server, folder)
    assert not isinstance(one.look(), Look)


def test_it_waits_with_a_server_that_says_it_can(server, folder):
    server.kind = LONG
    one = source(server, wait=17.5)
    first = one.read()
    assert one.pause <= 1.0
    began = time.monotonic()
    threading.Timer(0.3, lambda: (changed(server, folder), server.changed.set())).start()
    found = one.look()
    assert time.monotonic() - began >= 0.2
    assert found.revision != first.revision
    assert server.asked[-1][1]["prefer"] == "modes=snapshot;wait=17"


def test_it_does_not_wait_with_any_other(server):
    one = source(server, wait=17.0)
    one.read()
    assert one.pause == POLL
    assert one.look() is Look.UNCHANGED
    assert server.asked[-1][1]["prefer"] == "modes=snapshot"


@pytest.mark.parametrize("delay", [0.0, 0.4])
def test_a_wait_can_be_ended(server, delay):
    server.kind = LONG
    one = source(server, wait=60.0)
    one.read()
    seen: list[object] = []
    looking = threading.Thread(target=lambda: seen.append(one.look()))
    looking.start()
    time.sleep(delay)
    began = time.monotonic()
    while looking.is_alive() and time.monotonic() - began < 40:
        one.interrupt()
        looking.join(0.1)
    assert time.monotonic() - began < 30
    assert seen == [Look.UNSETTLED]
    server.changed.set()
    assert one.read().label == "trial"


def test_after_a_failure_the_bundle_is_given_again(server):
    one = source(server)
    one.read()
    usual, server.answer = server.answer, lambda _path, _headers: (503, {}, b"")
    assert "answers 503" in finding(one)
    server.answer = usual
    assert one.look().label == "trial"


def test_failures_are_tried_again_soon_then_more_seldom(server):
    server.answer = lambda _path, _headers: (500, {}, b"")
    one = source(server)
    pauses = []
    for _ in range(8):
        finding(one)
        pauses.append(one.pause)
    assert pauses == [0.75, 1.5, 3.0, 6.0, 12.0, 22.5, 22.5, 22.5]


def test_pauses_differ_from_sidecar_to_sidecar(server):
    least, most = (
        HttpSource(Asked(url=server.url, poll=POLL), jitter=lambda one=one: one).pause for one in (0.0, 0.999)
    )
    assert (least, round(most)) == (27.0, 33)


@pytest.mark.parametrize(
    ("status", "words"), [(401, "token_file"), (403, "may not read"), (404, "Nothing is there"), (304, "answers 304")]
)
def test_what_the_server_says_is_told(server, status, words):
    server.answer = lambda _path, _headers: (status, {}, b"")
    assert words in finding(source(server))


def test_what_is_no_bundle(server):
    server.content = b"<html>"
    assert "not a .tar.gz" in finding(source(server))


def test_it_is_bounded(server, monkeypatch):
    server.answer = lambda _path, _headers: (200, {"Content-Length": str(archive.MAX_ARCHIVE_BYTES + 1)}, b"x")
    assert "larger than" in finding(source(server))
    monkeypatch.setattr(policy_http, "MAX_ARCHIVE_BYTES", 100)
    server.answer = lambda _path, _headers: (200, {"Transfer-Encoding": "chunked", "Content-Length": ""}, b"")

    def endless(_path: str, _headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        return (
            200,
            {"Transfer-Encoding": "chunked", "Content-Length": "0"},
            b"40\r\n" + b"x" * 64 + b"\r\n40\r\n" + b"x" * 64,
        )

    server.answer = endless
    assert "larger than 100 bytes" in finding(source(server))


def test_a_server_that_drips_is_left(server, monkeypatch):
    monkeypatch.setattr(policy_http, "BODY_SECONDS", 0.3)
    server.dripping = 0.2
    assert "took more than" in finding(source(server))


def test_a_server_that_says_nothing_is_left(server, monkeypatch):
    monkeypatch.setattr(policy_http, "ANSWER_SECONDS", 0.3)
    server.answer = lambda _path, _headers: (time.sleep(1.0), (200, {}, b""))[1]
    assert "timed out" in finding(source(server))


def test_an_answer_cut_short_is_no_bundle(server):
    server.answer = lambda _path, _headers: (200, {"Content-Length": str(len(server.content) + 5)}, server.content)
    assert "cut short" in finding(source(server))


def test_nobody_there(server):
    one = source(server)
    server.stop()
    assert "cannot be fetched" in finding(one)


# -- where it goes ----------------------------------------------------------------------------------------------------


def test_redirects_stay_within_the_place(server):
    def moved(path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        if path == "/bundles/b.tar.gz":
            return 302, {"Location": "/elsewhere?x=1"}, b""
        return server.usual(path, headers)

    server.answer = moved
    assert source(server).read().label == "trial"
    assert server.asked[-1][0] == "/elsewhere?x=1"


@pytest.mark.parametrize(
    "to", ["https://localhost/b", "http://127.0.0.1:1/b", "http://localhost:1/b", "file:///etc/passwd"]
)
def test_redirects_to_another_place_are_refused(server, to):
    server.answer = lambda _path, _headers: (307, {"Location": to}, b"")
    assert "redirects to another place" in finding(source(server))


def test_redirects_have_an_end(server):
    server.answer = lambda path, _headers: (307, {"Location": path}, b"")
    assert "more than 3 redirects" in finding(source(server))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://bundles.corp/b.tar.gz", "Use https://; plain http is for loopback"),
        ("http://127.0.0.1.corp/b", "loopback"),
        ("http://169.254.169.254/b", "loopback"),
        ("ftp://localhost/b", "not an https address"),
        ("https://", "not an https address"),
        ("https://[", "not an https address"),
        ("https://host:99999/b", "not an https address"),
        ("https://me:secret@host/b", "a name or password"),
    ],
)
def test_addresses_that_are_not_used(url, words):
    with pytest.raises(ConfigurationError) as caught:
        HttpSource(Asked(url=url, poll=POLL), jitter=lambda: 0.5)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_query_is_sent_and_not_shown(server):
    server.url += "?signature=secret"
    one = source(server)
    one.read()
    assert server.asked[-1][0].endswith("?signature=secret")
    server.answer = lambda _path, _headers: (500, {}, b"")
    assert "secret" not in finding(one) + one.where


def test_the_token_is_read_each_time(server, tmp_path):
    token = tmp_path / "token"
    token.write_text("first\n")
    one = source(server, token_file=token)
    one.read()
    token.write_text("second\n")
    one.look()
    assert [headers["authorization"] for _, headers in server.asked] == ["Bearer first", "Bearer second"]
    for bad in ("", "a b", "a\nX-Other: 1", "é", "x" * 9000):
        token.write_text(bad)
        with pytest.raises(ConfigurationError, match="no bearer token") as caught:
            one.look()
        assert bad[:5] == "" or bad[:5] not in str(caught.value).replace(str(token), "")
    token.unlink()
    with pytest.raises(ConfigurationError, match="no bearer token"):
        one.look()


def test_its_certificate_is_checked_against_the_configured_authority(folder, tmp_path):
    authority, other = (Authority(tmp_path, name, dt.datetime.now(dt.UTC)) for name in ("one", "two"))
    pair = authority.issue("server", hosts=["localhost"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    server = Server(context)
    try:
        write_bundle(tmp_path / "b.tar.gz", folder)
        server.content, server.kind = (tmp_path / "b.tar.gz").read_bytes(), LONG
        one = source(server, ca=authority.cert, wait=30.0)
        assert one.read().label == "trial"
        looking = threading.Thread(target=one.look)
        looking.start()
        time.sleep(0.3)
        while looking.is_alive():  # a wait over TLS ends as well
            one.interrupt()
            looking.join(0.1)
        for ca in (None, other.cert):
            assert "CERTIFICATE_VERIFY_FAILED" in finding(source(server, ca=ca))
        with pytest.raises(ConfigurationError, match="no certificate authorities"):
            source(server, ca=tmp_path / "missing.pem")
    finally:
        server.stop()
