"""The stage on which scenes are played: the processes, the clients, and the world they share."""

import datetime as dt
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sidecar.demo.client import Client, Got
from sidecar.demo.processes import Processes, listening
from sidecar.demo.world import World, build_directory, sidecar_command

TICKET = "SUP-1204"


@dataclass(slots=True)
class Stage:
    """What a scene may use. `clock` is UTC in unix seconds."""

    world: World
    processes: Processes
    clock: Callable[[], float]
    clients: dict[tuple[str, str], Client] = field(default_factory=dict)

    def raise_curtain(self) -> None:
        """Start the service, the store, the ledger and both sidecars, all at once: whoever is early waits for the others."""
        folder, ports, tls = self.world.folder, self.world.ports, self.world.folder / "tls"
        service = [
            sys.executable, "-m", "sidecar.demo.service", str(folder / "users.sqlite"),
            f"127.0.0.1:{ports['upstream']}", str(tls / "upstream.pem"), str(tls / "upstream.key"),
            str(tls / "upstream-clients-ca.pem"),
        ]  # fmt: skip
        self.processes.launch("store", sidecar_command("oversight", "run", "--config", folder / "oversight.yaml"))
        self.processes.launch("ledger", sidecar_command("ledger", "run", "--config", folder / "ledger.yaml"))
        self.processes.launch("service", service)
        self.processes.await_ready("store", listening(ports["append"]))
        self.processes.await_ready("ledger", listening(ports["ledger"]))
        for name, settings in (("sidecar", "sidecar.yaml"), ("sidecar-abroad", "sidecar-abroad.yaml")):
            self.processes.launch(name, sidecar_command("run", "--config", folder / settings))
        for name, port in (("service", "upstream"), ("sidecar", "proxy"), ("sidecar-abroad", "abroad")):
            self.processes.await_ready(name, listening(ports[port]))

    def start_store(self) -> None:
        """Start the oversight store."""
        command = sidecar_command("oversight", "run", "--config", self.world.folder / "oversight.yaml")
        self.processes.start("store", command, listening(self.world.ports["append"]))

    def start_sidecar(self, name: str, settings: str, port: str) -> None:
        """Start a sidecar and wait until it serves."""
        command = sidecar_command("run", "--config", self.world.folder / settings)
        self.processes.start(name, command, listening(self.world.ports[port]))

    def client(self, certificate: str, port: str = "proxy") -> Client:
        """The client of a workload, by the name of its certificate."""
        key = (certificate, port)
        if key not in self.clients:
            pair = self.world.certificates.get(certificate)
            target = f"localhost:{self.world.ports[port]}"
            self.clients[key] = Client(target, self.world.ca.read_bytes(), pair)
        return self.clients[key]

    def metadata(self, token: str | None, **claims: str | None) -> list[tuple[str, str]]:
        """What a tool sends for somebody at work: by default a purpose and a ticket; None leaves one out."""
        found = [("authorization", f"Bearer {self.world.tokens[token]}")] if token else []
        sent = {"purpose": "user_support", "ticket": TICKET, **claims}
        return found + [(f"x-customhouse-{key}", value) for key, value in sent.items() if value is not None]

    def rebuild_directory(self, without: str) -> None:
        """As HR's export would, the moment somebody leaves."""
        build_directory(self.world.folder, dt.datetime.fromtimestamp(self.clock(), dt.UTC), without=without)

    def exposure(self, group: str) -> dict[str, int]:
        """What the ledger says a counterparty group has been given, by category."""
        command = sidecar_command("ledger", "exposure", group, "--json", "--config", self.world.folder / "ledger.yaml")
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        found: dict[str, int] = json.loads(answer.stdout)["exposure"] if answer.returncode == 0 else {}
        return found

    def doctor(self) -> subprocess.CompletedProcess[str]:
        """Run `sidecar doctor` on the demo's own settings."""
        command = sidecar_command("doctor", "--config", self.world.folder / "sidecar.yaml")
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def lower_curtain(self) -> None:
        """Stop everything."""
        for client in self.clients.values():
            client.close()
        self.processes.stop_all()


def until(holds: Callable[[], bool], seconds: float) -> bool:
    """Wait until something holds; whether it did in time."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def said(got: Got) -> str:
    """Status and reason in one line."""
    return f"{got.status} {got.reason}".strip()
