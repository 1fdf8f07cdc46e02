"""OPA behind Envoy, as an ext_authz service: its own plugin where a machine has it, otherwise its engine in one of ours.

OPA's Envoy plugin cannot be installed with its checksum verified: Go's checksum database knows none of its versions. So
targets that name it are judged by what one earlier run on one quiet core had of both, calls/s at 1 and 32 at a time: a
plain grpc.aio proxy (1,972 and 2,857), and Envoy with the plugin, a policy of 8 rules and the log on the console (1,078
and 2,173). Every run has the plain proxy.

`opa-authz` (`opa_authz/main.go`) is shown beside it: OPA's SDK, a policy of 8 rules, OPA's decision log on the console. It
does less than the plugin: headers only, and no message is decoded.
"""

import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sidecar.demo.processes import free_port, listening
from tests.benchmarks import h2load, rivals
from tests.benchmarks.deployment import Deployment
from tests.benchmarks.h2load import LoadError, Seen, Target
from tests.benchmarks.machine import SERVER
from tests.benchmarks.rivals import TOOLS
from tests.benchmarks.rows import Row

SHARE = {1: 1078 / 1972, 32: 2173 / 2857}
"""Envoy with OPA's plugin, as a share of a plain grpc.aio proxy."""
BY_WAY = "by way of the plain proxy"
POLICY = Path(__file__).resolve().parent / "opa_authz" / "policy.rego"
_PERSON = {
    "status": "citizen", "residence": "US", "roles": ["support"], "covered": False, "trained_days_ago": 30,
}  # fmt: skip
_SERVICE = {"operated_from": "US", "classes": ["id_contact"]}


PLAIN = "plain grpc.aio proxy"
PLUGIN, ENGINE = "Envoy + OPA's plugin", "Envoy + OPA's engine in a service of ours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opa:
    """One that runs: where Envoy asks it. `plugin`: it is OPA's own."""

    name: str
    pid: int
    where: Path | str
    plugin: bool

    @property
    def title(self) -> str:
        """For the table."""
        return PLUGIN if self.plugin else ENGINE


def against(
    group: str, what: str, concurrency: int, ours: Sequence[Seen], seen: Mapping[str, Sequence[Seen]], least: float
) -> Iterator[Row]:
    """A rate of ours over that of Envoy with OPA's plugin: measured where it is here, else by way of the plain proxy.

    `seen`: what was seen in the same turns, of `PLAIN` and, if it was there, of `PLUGIN` or `ENGINE`.
    """
    if PLUGIN in seen:
        yield rivals.ratio(group, f"{what}, against {PLUGIN}", concurrency, ours, seen[PLUGIN], least)
        return
    yield rivals.ratio(
        group, f"{what}, against {PLUGIN}", concurrency, ours, seen[PLAIN], least, share=SHARE[concurrency], note=BY_WAY
    )
    if ENGINE in seen:
        yield rivals.ratio(group, f"{what}, against {ENGINE}", concurrency, ours, seen[ENGINE])


def start(deployment: Deployment, name: str) -> Opa | None:
    """Start one; None where there is no program."""
    plugin = shutil.which("opa-envoy-plugin") or shutil.which("opa-envoy-plugin", path=TOOLS / "bin")
    program = TOOLS / "bin" / "opa-authz"
    if plugin is None and not program.exists():
        return None
    folder = deployment.folder / name
    folder.mkdir(mode=0o700)
    _bundle(folder / "bundle.tar.gz", ["amy", str(deployment.user)])
    settings: dict[str, object] = {
        "bundles": {"authz": {"resource": f"file://{folder / 'bundle.tar.gz'}"}},
        "decision_logs": {"console": True},
    }
    if plugin is None:
        socket = folder / "0.sock"
        (folder / "opa.json").write_text(json.dumps(settings), encoding="utf-8")
        deployment.launch(name, [str(program), str(socket), str(folder / "opa.json")], SERVER, socket.exists)
        return Opa(name=name, pid=deployment.pid(name), where=socket, plugin=False)
    port = free_port()
    settings["plugins"] = {"envoy_ext_authz_grpc": {"addr": f"127.0.0.1:{port}", "path": "envoy/authz/allow"}}
    (folder / "opa.json").write_text(json.dumps(settings), encoding="utf-8")
    command = [
        plugin, "run", "--server", f"--config-file={folder / 'opa.json'}", "--addr", f"127.0.0.1:{free_port()}",
        "--disable-telemetry",
    ]  # fmt: skip
    deployment.launch(name, command, SERVER, listening(port))
    return Opa(name=name, pid=deployment.pid(name), where=f"127.0.0.1:{port}", plugin=True)


def proven(deployment: Deployment, one: Opa, target: Target) -> None:
    """It permits the call, refuses it without its ticket or of somebody unknown, and its log has them. LoadError."""
    asked = {key: value for key, value in target.headers.items() if key not in h2load.GRPC}
    if rivals.answer(target) != deployment.reply.read_bytes():
        raise LoadError(f"{one.title} answers something else")
    for wrong in (
        {"x-customhouse-ticket": ""}, {"x-customhouse-purpose": "curiosity"},
        {"authorization": f"Bearer {deployment.world.tokens['user-de']}"},
    ):  # fmt: skip
        rivals.refused(target, tuple((asked | wrong).items()))
    log = (deployment.folder / "logs" / f"{one.name}.log").read_text(encoding="utf-8")
    if log.count("Decision Log") < 4:
        raise LoadError(f"{one.title} has no decision log on its console: {log[-300:]}")


def _bundle(file: Path, people: list[str]) -> None:
    data = {"people": dict.fromkeys(people, _PERSON), "services": {"sidecar.demo.profiles.v1.Profiles": _SERVICE}}
    parts = {"policy.rego": POLICY.read_bytes(), "data.json": json.dumps(data).encode()}
    with tarfile.open(file, "w:gz") as packed:
        for name, content in parts.items():
            held = tarfile.TarInfo(name)
            held.size = len(content)
            packed.addfile(held, io.BytesIO(content))
