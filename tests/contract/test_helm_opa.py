"""OPA as the chart starts it, with the real program: it answers the sidecar's token by the bundle's revision, and nobody else."""

import asyncio
import os
import shutil
import subprocess
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from command_line import Shell
from helm_matrix import OPA, OPA_POLLING
from helm_parts import ROOT, Helm, example, laid, of_kind

from sidecar.decision.archive import load_archive
from sidecar.decision.opa import OpaAtUrl
from sidecar.decision.opa_http import Address, BlockingClient
from sidecar.demo.processes import free_port, listening

TOKEN = "0123456789abcdef-a-token-of-the-pod"


@pytest.fixture
def helm(needs, tmp_path) -> Helm:
    return Helm(needs("helm", "run `make tools`"), tmp_path)


def opa_of(helm: Helm, folder: Path, *changes):
    """OPA's container out of the rendered chart, its own policy written below the folder."""
    objects = helm.render("sidecar", laid(example("sidecar", "gateway"), OPA, *changes))
    (folder / "authz").mkdir(exist_ok=True)
    (folder / "authz" / "authz.rego").write_text(of_kind(objects, "ConfigMap", "-opa")["data"]["authz.rego"])
    container = of_kind(objects, "StatefulSet")["spec"]["template"]["spec"]["initContainers"][0]
    mounts = {one["mountPath"] for one in container["volumeMounts"]}
    assert mounts == {"/etc/customhouse-opa", "/etc/customhouse/policy"}, "the bundle and its own policy, no key"
    return container


@pytest.fixture
def as_rendered(helm, tmp_path):
    return opa_of(helm, tmp_path)


@pytest.fixture
def bundle(shell: Shell, tmp_path) -> Path:
    """The shipped policies, as an operator builds them."""
    (tmp_path / "policy").mkdir()
    built = shell("policy", "build", ROOT / "policies", "-o", tmp_path / "policy" / "bundle.tar.gz")
    assert built.code == 0, built.err
    return tmp_path / "policy" / "bundle.tar.gz"


@contextmanager
def running(program: Path, container, folder: Path, token: str):
    port = free_port()
    moved = {"/etc/customhouse-opa": str(folder / "authz"), "/etc/customhouse/policy": str(folder / "policy"),
             "127.0.0.1:8181": f"127.0.0.1:{port}"}  # fmt: skip
    arguments = container["args"]
    for old, new in moved.items():
        arguments = [one.replace(old, new) for one in arguments]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), container["env"][0]["name"]: token}
    with subprocess.Popen(
        [program, *arguments], env=environment, cwd=folder, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Address(host="127.0.0.1", port=port)
        finally:
            process.kill()


def revision_once_up(address: Address, token: str, seconds: float = 60.0) -> str:
    until = time.monotonic() + seconds
    while True:
        client = BlockingClient(address, 30.0, token)
        try:
            found = client.revision()
            if found:
                return found
        except (OSError, ValueError):
            if time.monotonic() > until:
                raise
        finally:
            client.close()
        time.sleep(0.1)


async def test_it_decides_by_the_bundle_for_who_holds_the_token(needs, as_rendered, bundle, tmp_path):
    program = needs("opa", "run `make tools`")
    found = load_archive(bundle.read_bytes(), str(bundle))
    with running(program, as_rendered, tmp_path, TOKEN) as address:
        revision = await asyncio.to_thread(revision_once_up, address, TOKEN)
        assert revision == found.revision
        engine = await asyncio.to_thread(OpaAtUrl(address, 10.0, token=lambda: TOKEN).make, found)
        assert engine.name == "opa"
        await engine.close()
        for wrong in (None, "", "0123456789abcdef-another-token"):
            client = BlockingClient(address, 30.0, wrong)
            with pytest.raises(ValueError, match="401"):
                client.revision()
            client.close()


def test_without_a_token_in_the_secret_it_answers_nobody(needs, as_rendered, bundle, tmp_path):
    program = needs("opa", "run `make tools`")
    with running(program, as_rendered, tmp_path, "") as address:
        until = time.monotonic() + 60
        while not listening(address.port)():
            assert time.monotonic() < until
            time.sleep(0.1)
        client = BlockingClient(address, 30.0, "")
        with pytest.raises(ValueError, match="401"):
            client.revision()
        client.close()


def test_a_new_bundle_at_a_url_is_taken_up(needs, helm, bundle, tmp_path, shell):
    program = needs("opa", "run `make tools`")
    changed = tmp_path / "changed"
    shutil.copytree(ROOT / "policies", changed)
    with (changed / "sidecar" / "decision.rego").open("a") as file:
        file.write("\n# another\n")
    assert shell("policy", "build", changed, "-o", tmp_path / "next.tar.gz").code == 0
    (tmp_path / "policy" / "token").write_text("poll-token")
    asked: list[str | None] = []
    with serving(bundle, asked) as port:
        url = f"http://127.0.0.1:{port}/bundles/bundle.tar.gz?env=live"
        container = opa_of(helm, tmp_path, OPA_POLLING, {"config": {"policy": {"bundle": {"url": url, "ca": ...}}}})
        with running(program, container, tmp_path, TOKEN) as address:
            first = revision_once_up(address, TOKEN)
            (tmp_path / "next.tar.gz").replace(bundle)
            until = time.monotonic() + 60
            while revision_once_up(address, TOKEN) == first:
                assert time.monotonic() < until, "still the old bundle"
                time.sleep(0.2)
    assert set(asked) == {"/bundles/bundle.tar.gz?env=live Bearer poll-token"}


@contextmanager
def serving(file: Path, asked: list[str | None]):
    """A bundle service of one bundle."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(f"{self.path} {self.headers['Authorization']}")
            content = file.read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "application/gzip")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
