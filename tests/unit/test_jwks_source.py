"""Where key sets come from: bounded files and addresses."""

import datetime as dt
import http.server
import os
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sidecar.attributes.keysource import MAX_BYTES, FetchError, file_source, https_source
from sidecar.errors import ConfigurationError

pytestmark = pytest.mark.unit


def test_a_file_is_read_once_and_again_when_it_changes(tmp_path):
    path = tmp_path / "jwks.json"
    path.write_bytes(b"one")
    fetch = file_source(path)
    data, tag = fetch(None)
    assert data == b"one"
    assert fetch(tag) is None
    replacement = tmp_path / "new"
    replacement.write_bytes(b"two")
    replacement.rename(path)
    assert fetch(tag)[0] == b"two"


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    with pytest.raises(FetchError, match="No such file"):
        file_source(tmp_path / "none")(None)
    with pytest.raises(FetchError, match="not a regular file"):
        file_source(tmp_path)(None)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FetchError, match="not a regular file"):
        file_source(pipe)(None)
    large = tmp_path / "large"
    large.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(FetchError, match="more than 65536 bytes"):
        file_source(large)(None)


@pytest.mark.parametrize(
    "url",
    ["http://idp.corp/jwks", "file:///etc/passwd", "ftp://idp/jwks", "https://", "", "https://user:pw@idp/jwks", "https://["],
)  # fmt: skip
def test_only_https_addresses_are_taken(url):
    with pytest.raises(ConfigurationError, match="not an https address"):
        https_source(url)


def test_a_missing_authority_file_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigurationError, match="no certificate authorities"):
        https_source("https://idp/jwks", ca_file=tmp_path / "none.pem")


@dataclass
class Certificates:
    authority: Path
    leaf: Path
    key: Path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("authority", "localhost")]
    now = dt.datetime.now(dt.UTC)

    def made(subject, key, ca):
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(names[0]).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(hours=1))
        builder = builder.not_valid_after(now + dt.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        return builder.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    files = Certificates(folder / "ca.pem", folder / "leaf.pem", folder / "key.pem")
    files.authority.write_bytes(made(names[0], root, ca=True))
    files.leaf.write_bytes(made(names[1], leaf, ca=False))
    files.key.write_bytes(
        leaf.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append(dict(self.headers))
        self.server.answer(self)

    def log_message(self, *_args):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        found.seen = []
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def reply(status, body=b"", **headers):
    def answer(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def url_of(server):
    return f"http://127.0.0.1:{server.server_address[1]}/jwks"


def test_an_address_is_asked_with_its_etag(server):
    server.answer = reply(200, b"keys", ETag='"v1"')
    fetch = https_source(url_of(server))
    assert fetch(None) == (b"keys", '"v1"')
    server.answer = reply(304)
    assert fetch('"v1"') is None
    assert server.seen[1]["If-None-Match"] == '"v1"'
    assert "If-None-Match" not in server.seen[0]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (reply(500), "status 500"),
        (reply(404), "status 404"),
        (reply(304), "status 304"),
        (reply(302, Location="http://127.0.0.1:1/other"), "status 302"),
        (reply(307, Location="file:///etc/passwd"), "status 307"),
        (reply(200, b" " * (MAX_BYTES + 1)), "more than 65536 bytes"),
    ],
)
def test_bad_answers_are_failures(server, answer, why):
    server.answer = answer
    with pytest.raises(FetchError, match=why):
        https_source(url_of(server))(None)


def test_an_answer_without_end_is_cut_off_by_size(server):
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(1000):
                handler.wfile.write(b"x" * 8192)
        except OSError:
            handler.close_connection = True

    server.answer = endless
    with pytest.raises(FetchError, match="more than"):
        https_source(url_of(server))(None)


def test_a_dripping_answer_is_cut_off_by_time(server):
    def drip(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(400):
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(0.05)
        except OSError:
            handler.close_connection = True

    server.answer = drip
    started = time.monotonic()
    with pytest.raises(FetchError, match="too slow"):
        https_source(url_of(server), timeout=0.3)(None)
    assert time.monotonic() - started < 15


def test_no_answer_and_no_listener_are_failures(server):
    server.answer = lambda _handler: time.sleep(0.6)
    with pytest.raises(FetchError, match="cannot be fetched"):
        https_source(url_of(server), timeout=0.2)(None)
    with pytest.raises(FetchError, match="cannot be fetched"):
        https_source("http://127.0.0.1:1/jwks")(None)


def test_a_header_that_is_no_http_is_a_failure(server):
    def garbage(handler):
        handler.wfile.write(b"\x00\x01garbage\r\n\r\n")
        handler.close_connection = True

    server.answer = garbage
    with pytest.raises(FetchError, match="cannot be fetched"):
        https_source(url_of(server))(None)


def test_proxies_of_the_environment_are_not_used(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    server.answer = reply(200, b"keys")
    assert https_source(url_of(server))(None) == (b"keys", None)


def test_a_certificate_nobody_vouches_for_is_a_failure(server, certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.leaf, certificates.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.answer = reply(200, b"keys")
    server.handle_error = lambda *_args: None
    url = url_of(server).replace("http:", "https:").replace("127.0.0.1", "localhost")
    with pytest.raises(FetchError, match="CERTIFICATE_VERIFY_FAILED"):
        https_source(url)(None)
    assert https_source(url, ca_file=certificates.authority)(None) == (b"keys", None)
    with pytest.raises(FetchError, match="cannot be fetched"):
        https_source(url.replace("localhost", "127.0.0.1"), ca_file=certificates.authority)(None)
