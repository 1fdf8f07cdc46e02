"""`sidecar doctor`: what it says of upstreams, sockets, disks and listeners that are or are not as they should be."""

import os
import socket
from collections.abc import Callable, Iterator
from concurrent import futures
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from command_line import Shell
from settings_files import SIDECAR

from sidecar.cli import doctor
from sidecar.cli.doctor import examine
from sidecar.cli.findings import Finding, tried
from sidecar.demo.pki import Authority, Pair
from sidecar.settings.loader import load
from sidecar.settings.sidecar import ClientTls, SidecarSettings

NOW = datetime.now(UTC)


class Pki:
    """The upstream's authority, that of callers, and certificates of both."""

    def __init__(self, folder: Path) -> None:
        self.own, self.callers = Authority(folder, "own", NOW), Authority(folder, "callers", NOW)
        self.upstream = self.own.issue("upstream", hosts=["localhost"])
        self.sidecar = self.own.issue("to-upstream", spiffe="spiffe://corp/sidecar")
        self.proxy = self.callers.issue("proxy", hosts=["localhost"])


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


Serve = Callable[..., str]


@pytest.fixture
def serve(pki: Pki) -> Iterator[Serve]:
    """Starts a gRPC server without methods; gives its address. `clients`: the CA whose certificates it asks for."""
    servers = []

    def start(clients: Path | None, *, hangs: bool = False) -> str:
        server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Hanging()] if hangs else [])
        pair = (pki.upstream.key.read_bytes(), pki.upstream.cert.read_bytes())
        credentials = grpc.ssl_server_credentials(
            [pair], None if clients is None else clients.read_bytes(), require_client_auth=clients is not None
        )
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None).wait()


class Hanging(grpc.GenericRpcHandler):
    """Answers when the test is over."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        def wait(_request: bytes, context: grpc.ServicerContext) -> bytes:
            context.abort(grpc.StatusCode.CANCELLED, "late") if self._ended(context) else None
            return b""

        return grpc.unary_unary_rpc_method_handler(wait)

    @staticmethod
    def _ended(context: grpc.ServicerContext) -> bool:
        over = futures.Future[bool]()
        context.add_callback(lambda: over.set_result(True))
        return over.result(20)


def tls(pki: Pki, pair: Pair | None) -> ClientTls:
    return ClientTls.model_construct(
        ca=pki.own.cert, cert=pair and pair.cert, key=pair and pair.key, server_name="localhost"
    )


def upstream(address: str, found: ClientTls | None, another: Pair | None = None) -> dict[str, Finding]:
    pair = None if another is None else (another.cert, another.key)
    return {one.name.removeprefix("upstream "): one for one in doctor._upstream(address, found, pair)}


class TestUpstream:
    def test_one_that_accepts_only_the_sidecar(self, pki: Pki, serve: Serve) -> None:
        found = upstream(serve(pki.own.cert), tls(pki, pki.sidecar), pki.proxy)
        assert {name: one.good for name, one in found.items()} == {
            "answers the sidecar": True, "refuses a caller without a certificate": True, "refuses another certificate": True,
        }  # fmt: skip
        assert found["answers the sidecar"].detail == "UNIMPLEMENTED"

    def test_one_that_accepts_anybody(self, pki: Pki, serve: Serve) -> None:
        address = serve(None)
        found = upstream(address, tls(pki, pki.sidecar), pki.proxy)
        assert {name: one.good for name, one in found.items()} == {
            "answers the sidecar": True, "refuses a caller without a certificate": False,
            "refuses another certificate": False,
        }  # fmt: skip
        for name in ("refuses a caller without a certificate", "refuses another certificate"):
            assert f"{address} answered UNIMPLEMENTED: it can be reached past the sidecar" in found[name].detail
            assert "upstream.tls" in found[name].detail

    def test_one_that_accepts_every_certificate_of_a_shared_authority(
        self, pki: Pki, serve: Serve, tmp_path: Path
    ) -> None:
        both = tmp_path / "both.pem"
        both.write_bytes(pki.own.cert.read_bytes() + pki.callers.cert.read_bytes())
        found = upstream(serve(both), tls(pki, pki.sidecar), pki.proxy)
        assert found["refuses a caller without a certificate"].good
        assert not found["refuses another certificate"].good

    def test_one_that_does_not_know_the_sidecar(self, pki: Pki, serve: Serve) -> None:
        found = upstream(serve(pki.callers.cert), tls(pki, pki.sidecar))
        assert not found["answers the sidecar"].good

    def test_one_that_is_down(self, pki: Pki) -> None:
        found = upstream("127.0.0.1:1", tls(pki, pki.sidecar))
        assert not found["answers the sidecar"].good
        assert "no answer from 127.0.0.1:1" in found["answers the sidecar"].detail

    def test_one_that_hangs_is_not_taken_for_one_that_refuses(
        self, pki: Pki, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(doctor, "_SECONDS", 0.5)
        found = upstream(serve(None, hangs=True), tls(pki, pki.sidecar))
        assert not found["refuses a caller without a certificate"].good
        assert "neither answered nor refused" in found["refuses a caller without a certificate"].detail

    def test_one_with_somebody_else_s_certificate(self, pki: Pki, serve: Serve) -> None:
        other = ClientTls.model_construct(ca=pki.callers.cert, cert=None, key=None, server_name="localhost")
        assert not upstream(serve(None), other)["answers the sidecar"].good

    def test_one_without_tls(self) -> None:
        (found,) = upstream("127.0.0.1:1", None).values()
        assert not found.good
        assert "anybody who reaches it is let in" in found.detail

    def test_a_missing_file_is_a_finding(self, pki: Pki, tmp_path: Path) -> None:
        missing = ClientTls.model_construct(ca=tmp_path / "none.pem", cert=None, key=None, server_name=None)
        found = upstream("127.0.0.1:1", missing)["answers the sidecar"]
        assert (found.good, found.detail) == (False, f"{tmp_path}/none.pem: No such file or directory")


class TestSocket:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Iterator[Path]:
        path = tmp_path / "run" / "service"
        path.parent.mkdir()
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            server.listen()
            yield path

    def found(self, path: Path) -> Finding:
        (found,) = doctor._upstream(f"unix:{path}", None, None)
        return found

    @pytest.mark.parametrize("mode", [0o700, 0o770, 0o775, 0o755])
    def test_others_may_not_write_to_it(self, path: Path, mode: int) -> None:
        path.chmod(mode)
        assert self.found(path).good

    def test_others_may_not_reach_it(self, path: Path) -> None:
        path.chmod(0o777)
        path.parent.chmod(0o750)
        assert self.found(path).good

    def test_one_that_everybody_can_open(self, path: Path) -> None:
        path.chmod(0o777)
        for folder in [path.parent, *path.parent.parents]:
            if folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o001:
                folder.chmod(folder.stat().st_mode | 0o001)
        found = self.found(path)
        assert not found.good
        assert "can be opened by every user of this host" in found.detail

    def test_no_socket(self, tmp_path: Path) -> None:
        assert "is no socket" in self.found(tmp_path / "none").detail


class TestSpool:
    def test_the_free_space_of_where_it_will_be(self, tmp_path: Path) -> None:
        found = tried("spool", lambda: doctor._spool(tmp_path / "not" / "yet" / "there", 1 << 20))
        assert found.good
        assert "of the 1 MiB that record.max_bytes allows" in found.detail

    def test_too_little(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(doctor, "_FREE_BYTES", 1 << 80)
        found = tried("spool", lambda: doctor._spool(tmp_path, 1 << 80))
        assert not found.good
        assert "Make room" in found.detail


class TestExamine:
    def settings(self, folder: Path, **changes: Any) -> SidecarSettings:
        tree = yaml.safe_load(SIDECAR)
        tree["upstream"]["tls"] = None
        for key, value in changes.items():
            section, _, name = key.partition("__")
            tree[section][name] = value
        (folder / "sidecar.yaml").write_text(yaml.safe_dump(tree))
        return load(folder / "sidecar.yaml", SidecarSettings, {})

    def findings(self, settings: SidecarSettings, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
        code = examine(settings)
        return code, capsys.readouterr().out.splitlines()

    def test_everything_is_tried_though_the_first_fails(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
            settings = self.settings(tmp_path, oversight__address=address, oversight__keys="127.0.0.1:1",
                                     record__spool="spool")  # fmt: skip
            code, lines = self.findings(settings, capsys)
        assert code == 1
        said = {line.split(":")[0]: line for line in lines}
        assert list(said)[:4] == ["FAIL settings", "FAIL upstream", "ok   oversight store", "FAIL key service"]
        assert said.keys() >= {
            "FAIL store answers the sidecar", "FAIL store's log key", "ok   spool", "FAIL certificate of oversight",
            "FAIL key producer.key", "FAIL directory", "FAIL subject index", "FAIL policy source", "ok   callers on unix",
        }  # fmt: skip
        assert str(tmp_path) in lines[0]
        assert "127.0.0.1:1: Connection refused. Start what listens there" in said["FAIL key service"]
        assert "known as spiffe://corp/ns/web" in said["ok   callers on unix"]

    def test_tokens_that_anybody_can_use(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        settings = self.settings(tmp_path, identity__bind_to_workload="none", oversight__address="127.0.0.1:1")
        _, lines = self.findings(settings, capsys)
        assert any(line.startswith("FAIL tokens: ") and "whoever steals one" in line for line in lines)

    def test_a_listener_without_certificates_of_callers(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        listeners = [{"door": "proxy", "address": "[::1]:8443", "tls": {"cert": "a", "key": "b"}}]
        tree = yaml.safe_load(SIDECAR) | {"listen": listeners}
        (tmp_path / "sidecar.yaml").write_text(yaml.safe_dump(tree))
        _, lines = self.findings(load(tmp_path / "sidecar.yaml", SidecarSettings, {}), capsys)
        assert any(line.startswith("FAIL callers on [::1]:8443: no client certificate") for line in lines)

    def test_the_listener_s_certificate_is_another_unless_it_is_the_same(self, tmp_path: Path) -> None:
        tree = yaml.safe_load(SIDECAR)
        (tmp_path / "sidecar.yaml").write_text(yaml.safe_dump(tree))
        settings = load(tmp_path / "sidecar.yaml", SidecarSettings, {})
        assert doctor._another(settings) == (tmp_path / "tls/proxy.pem", tmp_path / "tls/proxy.key")
        tree["upstream"]["tls"]["cert"] = "tls/proxy.pem"
        (tmp_path / "sidecar.yaml").write_text(yaml.safe_dump(tree))
        assert doctor._another(load(tmp_path / "sidecar.yaml", SidecarSettings, {})) is None

    def test_as_a_command(self, shell: Shell, tmp_path: Path) -> None:
        self.settings(tmp_path, oversight__address="127.0.0.1:1", oversight__keys="127.0.0.1:1", record__spool="spool")
        ran = shell("doctor", "--config", tmp_path / "sidecar.yaml")
        assert (ran.code, ran.err) == (1, "")
        assert "FAIL oversight store: 127.0.0.1:1: Connection refused" in ran.out
