"""A real Envoy in front of the deployment's service, asking a sidecar by the file that `sidecar envoy-config` wrote."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from deployment import Answer, Deployment, sidecar

from sidecar.demo.processes import free_port, listening
from sidecar.demo.world import sidecar_command

ENVOY = "spiffe://corp/ns/envoy"
HOW = "run `make tools`"
Needs = Callable[[str, str], Path]


class Envoyed:
    """One Envoy with one sidecar behind it: what `deployment.call` reaches with port="envoy"."""

    def __init__(self, deployment: Deployment, program: Path, mode: str, port: str = "envoy") -> None:
        self.deployment, self.program, self.mode, self.port = deployment, program, mode, port
        self.folder = deployment.folder
        self.bootstrap = self.folder / f"{port}-{mode}.yaml"
        deployment.world.ports[port] = free_port()

    def settings(self, **changes: object) -> Path:
        """The sidecar's settings: a socket for Envoy, whose word on callers counts."""
        workloads = yaml.safe_load((self.folder / "sidecar.yaml").read_text())["identity"]["workloads"]
        door = {"door": self.mode, "address": "unix:run/envoy", "workload": ENVOY}
        known = {
            "listen": [door],
            "identity__workloads": [*workloads, {"id": ENVOY, "operated_from": "US", "relays": True}],
        }
        return self.deployment.write_variant(**{**known, **changes})

    def write(self, *more: str | Path) -> None:
        """Let the command write the bootstrap, with the proxy's certificate for callers."""
        tls, world = self.folder / "tls", self.deployment.world
        pair = world.certificates["proxy"]
        done = sidecar("envoy-config", "--config", self.folder / "variant.yaml", "--mode", self.mode, "--out", self.bootstrap,
                       "--listen", f"127.0.0.1:{world.ports[self.port]}", "--cert", pair.cert, "--key", pair.key,
                       "--client-ca", tls / "corp-ca.pem", *more)  # fmt: skip
        assert done.returncode == 0, done.stderr

    def start_sidecar(self) -> None:
        """Start the sidecar, and wait until it says that it is there."""
        command = sidecar_command("run", "--config", self.folder / "variant.yaml")
        self.deployment.processes.start("variant", command, lambda: bool(self.deployment._answers("variant.yaml")))

    def start(self) -> None:
        """Start Envoy."""
        command = [
            str(self.program),
            "-c",
            str(self.bootstrap),
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "-l",
            "warning",
        ]
        self.deployment.processes.start(self.port, command, listening(self.deployment.world.ports[self.port]))

    def stop(self, *names: str) -> None:
        """Stop what runs of these."""
        for name in names or (self.port, "variant"):
            if name in self.deployment.processes._running:
                self.deployment.processes.stop(name)

    def validate(self) -> subprocess.CompletedProcess[str]:
        """What Envoy says of the bootstrap without serving."""
        command = [str(self.program), "--mode", "validate", "-c", str(self.bootstrap), "-l", "warning"]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def call(self, method: str, *requests: object, **how: object) -> Answer:
        """A call through Envoy."""
        return self.deployment.call(method, *requests, port=self.port, **how)  # type: ignore[arg-type]

    def hang_up(self) -> None:
        """Close the callers' connections."""
        for key in [key for key in self.deployment._callers if key[1] == self.port]:
            self.deployment._callers.pop(key).close()

    def log(self) -> str:
        """What Envoy wrote."""
        return self.deployment.log(self.port)


@contextmanager
def beside(one: Envoyed, change: Callable[[dict], None], port: str = "other-envoy") -> Iterator[Envoyed]:
    """A second Envoy at the same sidecar, with a changed bootstrap; `call` goes through it."""
    other = Envoyed(one.deployment, one.program, one.mode, port)
    tree = yaml.safe_load(one.bootstrap.read_text())
    listener(tree)["address"]["socket_address"]["port_value"] = one.deployment.world.ports[port]
    change(tree)
    other.bootstrap.write_text(yaml.safe_dump(tree))
    try:
        other.start()
        yield other
    finally:
        other.hang_up()
        other.stop(port)


def listener(tree: dict) -> dict:
    """The listener of a bootstrap."""
    return tree["static_resources"]["listeners"][0]


def http_filter(tree: dict) -> dict:
    """The settings of the filter that asks the sidecar."""
    filters = listener(tree)["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    return filters[-2]["typed_config"]


@contextmanager
def enveloped(deployment: Deployment, needs: Needs, mode: str, **changes: object) -> Iterator[Envoyed]:
    """Envoy and its sidecar, running. `changes`: of the sidecar's settings."""
    one = Envoyed(deployment, needs("envoy", HOW), mode)
    one.settings(**changes)
    one.write()
    try:
        one.start_sidecar()
        one.start()
        yield one
    finally:
        one.hang_up()
        one.stop()
