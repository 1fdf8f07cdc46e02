"""`sidecar webhook` as a process, asked over real HTTPS as the API server asks."""

import http.client
import json
import signal
import socket
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import yaml
from cryptography import x509
from helm_matrix import PER_POD, WEBHOOK
from helm_parts import Helm, containers, example, laid, of_kind
from store_rig import Authority

from sidecar.demo.processes import free_port, listening
from sidecar.demo.world import sidecar_command

NAME = x509.DNSName("guard-customhouse-sidecar-webhook.customhouse-webhook.svc")
POD = {"metadata": {}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}}


class Rig:
    """The arguments and the file that the chart gives it, moved below a folder."""

    def __init__(self, helm: Helm, folder) -> None:
        objects = helm.render("sidecar", laid(example("sidecar", "sidecar"), WEBHOOK, PER_POD))
        self.injection = of_kind(objects, "ConfigMap", "webhook")["data"]["injection.yaml"]
        self.port, self.folder, self.authority = free_port(), folder, Authority()
        (folder / "tls").mkdir()
        (folder / "injection.yaml").write_text(self.injection)
        self.certify(self.authority)
        (container,) = containers(of_kind(objects, "Deployment")["spec"]["template"]["spec"])
        self.arguments = [one.replace("/etc/customhouse", str(folder)).replace("0.0.0.0:8443", f"127.0.0.1:{self.port}")
                          for one in container["args"]]  # fmt: skip

    def certify(self, authority: Authority) -> None:
        """A new pair, as kubelet puts it there: the file is another one."""
        key, cert = authority.issue(NAME)
        for name, data in (("tls.key", key), ("tls.crt", cert)):
            (self.folder / "tls" / f"{name}.new").write_bytes(data)
            (self.folder / "tls" / f"{name}.new").rename(self.folder / "tls" / name)

    def ask(self, body: bytes | None, path: str = "/inject", authority: Authority | None = None) -> tuple[int, bytes]:
        """As the API server: it trusts caBundle and the Service's name."""
        context = ssl.create_default_context(cadata=(authority or self.authority).pem.decode())
        with socket.create_connection(("127.0.0.1", self.port), 60) as plain:
            plain.settimeout(60)
            with context.wrap_socket(plain, server_hostname=NAME.value) as tls:
                connection = http.client.HTTPSConnection(NAME.value)
                connection.sock = tls
                connection.request("GET" if body is None else "POST", path, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                return response.status, response.read()

    @contextmanager
    def running(self):
        with subprocess.Popen(sidecar_command(*self.arguments), stderr=subprocess.PIPE, text=True) as process:
            try:
                until = time.monotonic() + 60
                while not listening(self.port)():
                    assert process.poll() is None, process.stderr.read()
                    assert time.monotonic() < until
                    time.sleep(0.05)
                yield process
            finally:
                process.kill()


def review(pod=POD, uid: str = "u-1") -> bytes:
    request = {"uid": uid, "operation": "CREATE", "kind": {"kind": "Pod"}, "object": pod}
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).encode()


@pytest.fixture
def rig(needs, tmp_path):
    return Rig(Helm(needs("helm", "run `make tools`"), tmp_path), tmp_path)


def test_it_answers_the_api_server_and_stops_when_told(rig):
    with rig.running() as process:
        assert rig.ask(None, "/healthz") == (200, b"")
        assert rig.ask(None, "/inject")[0] == 404
        status, body = rig.ask(review())
        response = json.loads(body)["response"]
        assert (status, response["uid"], response["allowed"]) == (200, "u-1", True)
        with ThreadPoolExecutor(16) as many:
            found = list(many.map(lambda number: rig.ask(review(uid=f"u-{number}")), range(100)))
        assert [json.loads(body)["response"]["uid"] for _, body in found] == [f"u-{number}" for number in range(100)]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        said = [json.loads(line)["event"] for line in process.stderr.read().splitlines()]
        assert said == ["ready", "stopping"], "nothing of a pod is logged"


def test_what_it_cannot_answer_is_an_error_and_so_no_pod(rig):
    """failurePolicy: Fail makes any status but 200 a refusal."""
    with rig.running():
        assert rig.ask(b"{")[0] == 400
        assert rig.ask(review(), path="/other")[0] == 404
        status, body = rig.ask(review({"metadata": {}, "spec": {"containers": [], "hostPID": True}}))
        assert status == 200
        assert json.loads(body)["response"]["allowed"] is False


def test_a_body_too_large_is_refused_unread(rig):
    with rig.running():
        context = ssl.create_default_context(cadata=rig.authority.pem.decode())
        with (
            socket.create_connection(("127.0.0.1", rig.port), 60) as plain,
            context.wrap_socket(plain, server_hostname=NAME.value) as tls,
        ):
            tls.sendall(b"POST /inject HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n")
            assert b" 413 " in tls.recv(4096)


def test_silent_and_slow_clients_stop_nobody_else(rig):
    with rig.running():
        silent = [socket.create_connection(("127.0.0.1", rig.port), 60) for _ in range(40)]
        began = time.monotonic()
        assert rig.ask(review())[0] == 200
        assert time.monotonic() - began < 9, "nobody waited until they were cut off"
        # Each is cut off after ten seconds, handshake or not, however little it sends.
        silent[0].sendall(b"\x16\x03\x01")
        silent[0].settimeout(60)
        assert silent[0].recv(100) == b""
        for one in silent:
            one.close()


def test_plain_http_is_no_way_in(rig):
    with rig.running(), socket.create_connection(("127.0.0.1", rig.port), 60) as plain:
        plain.settimeout(60)
        plain.sendall(b"POST /inject HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        assert b"HTTP/1" not in plain.recv(4096)


def test_a_renewed_certificate_is_taken_up_and_a_broken_one_is_not(rig):
    with rig.running():
        assert rig.ask(review())[0] == 200
        (rig.folder / "tls" / "tls.crt").write_text("not a certificate")
        assert rig.ask(review())[0] == 200, "the old pair is still good"
        after = Authority()
        rig.certify(after)
        assert rig.ask(review(), authority=after)[0] == 200
        with pytest.raises(ssl.SSLError):
            rig.ask(review())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rig: (rig.folder / "injection.yaml").write_text("initContainers: []\n"), "nothing would be guarded"),
        (lambda rig: (rig.folder / "injection.yaml").write_text("a: [\n"), "is not YAML"),
        (lambda rig: (rig.folder / "injection.yaml").unlink(), "cannot be read"),
        (lambda rig: (rig.folder / "tls" / "tls.key").write_text("x"), "cannot be used"),
        (lambda rig: rig.arguments.__setitem__(rig.arguments.index("--listen") + 1, "8443"), "Write host:port"),
    ],
)
def test_what_it_could_not_serve_with_stops_it_at_the_start(rig, shell, change, said):
    change(rig)
    assert said in shell.refused(*rig.arguments)


def test_the_file_is_what_the_chart_makes(rig):
    assert [one["name"] for one in yaml.safe_load(rig.injection)["initContainers"]] == ["customhouse"]
