"""What the benchmarks run against: the demo's world, a store, a fixed upstream, and sidecars with settings of their own.

Everything listens on Unix sockets towards load and upstream, because h2load has no client certificates: the figures
are those of a sidecar without TLS on either side. Records go to the store over mutual TLS, as always.
"""

import itertools
import json
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sidecar.demo import world
from sidecar.demo.processes import Processes, free_port, listening
from sidecar.demo.profiles.v1 import profiles_pb2
from sidecar.demo.world import CONSOLE, SIDECAR, sidecar_command
from sidecar.oversight.producers import add_producer
from tests.benchmarks.load import Request
from tests.benchmarks.machine import LOAD, SERVER, behind, on_core, rss
from tests.benchmarks.scale import FEW

POLICIES = Path(__file__).resolve().parents[2] / "policies"
METHOD = "/sidecar.demo.profiles.v1.Profiles/GetProfile"
_SINCE = "2026-01-01T00:00:00Z"


def profile(user: int) -> bytes:
    """The answer about a user: about 200 bytes, one record, eleven fields of which the policy withholds some."""
    return profiles_pb2.Profile(
        user_id=user, country="US", handle="adabrandt", display_name="Ada Brandt", email="adabrandt@mail.example",
        phone="+15551234567", login="adabrandt.login", government_id="900-11-1234", city="Columbus",
        last_address="198.51.100.3", watched=["chess", "gardens", "trains"],
        last_payment=profiles_pb2.Payment(card_last_four="1234", amount="12.50 USD"),
    ).SerializeToString()  # fmt: skip


def request(token: str, user: int) -> Request:
    """An ordinary guarded call: somebody from support reads a user's profile for a ticket."""
    metadata = (
        ("authorization", f"Bearer {token}"), ("x-customhouse-purpose", "user_support"),
        ("x-customhouse-ticket", "SUP-1204"),
    )  # fmt: skip
    return Request(
        method=METHOD, metadata=metadata, body=profiles_pb2.GetProfileRequest(user_id=user).SerializeToString()
    )


@dataclass(frozen=True, slots=True)
class Server:
    """A server under test."""

    name: str
    socket: Path
    pid: int
    metrics: int | None = None

    def rss(self) -> float:
        """Resident memory in MiB."""
        return rss(self.pid)

    def scrape(self) -> dict[str, float]:
        """The sidecar's metrics: series as written -> value."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def answered(self) -> tuple[float, float]:
        """Calls permitted and answered OK, and all others, since the start."""
        calls = {name: value for name, value in self.scrape().items() if name.startswith("customhouse_calls_total")}
        good = sum(value for name, value in calls.items() if 'effect="permit"' in name and 'status_code="OK"' in name)
        return good, sum(calls.values()) - good

    def settle(self, seconds: float) -> float:
        """Wait until the store has all records, so that one server's backlog is not another's load; how many are left."""
        if self.metrics is None:
            return 0.0
        end = time.monotonic() + seconds
        while (left := self._unsent()) > 0 and time.monotonic() < end:
            time.sleep(0.1)
        return left

    def _unsent(self) -> float:
        """Of all workers, where there are several."""
        found = [value for name, value in self.scrape().items() if name.startswith("customhouse_spool_records")]
        return sum(found) if found else 1.0


class Deployment:
    """Use as a context manager: whatever was started is stopped at the end."""

    def __init__(self, folder: Path) -> None:
        """Make the world (keys, certificates, people, users) in an empty folder; start store and upstream."""
        self.folder = folder
        self.world = world.make(folder, time.time, POLICIES)
        self.user = self.world.cast.us
        self.request = request(self.world.tokens["amy"], self.user)
        self._processes = Processes(folder / "logs")
        self._reply = self.reply = folder / "reply"
        self._reply.write_bytes(profile(self.user))
        self._upstream = folder / "up" / "0.sock"

    def __enter__(self) -> Self:
        try:
            with on_core(LOAD):
                command = sidecar_command("oversight", "run", "--config", self.folder / "oversight.yaml")
                self._processes.start("store", command, listening(self.world.ports["append"]))
                behind(self._processes.pid("store"))
            self._peer("upstream", "echo", self._upstream, LOAD)
        except BaseException:
            self._processes.stop_all()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.stop_all()

    def peer(self, name: str, kind: str) -> Server:
        """Start one of `peers` as a server under test."""
        socket = self.folder / name / "0.sock"
        return Server(name, socket, self._peer(name, kind, socket, SERVER))

    def settings(self, name: str, **changes: object) -> Path:
        """A settings file for a sidecar of this name, a producer of its own; dotted keys with `__` are set."""
        tree = yaml.safe_load((self.folder / "sidecar.yaml").read_text(encoding="utf-8"))
        (self.folder / name).mkdir(mode=0o700)
        tree |= {
            "producer": {"name": name, "key": f"keys/{name}.pem"},
            "listen": [{"door": "proxy", "address": f"unix:{self.folder / name}", "workload": CONSOLE}],
            "upstream": {"address": f"unix:{self._upstream}", "location": tree["upstream"]["location"]},
            "record": {"spool": f"spool-{name}"},
            "admin": {"socket": f"run/{name}"},
            "metrics": {"listen": f"127.0.0.1:{free_port()}"},
            # A busy machine is measured as slow, not as a policy that did not answer.
            "decision": {"deadline": "5s"},
        }
        for dotted, value in changes.items():
            *parents, last = dotted.split("__")
            place = tree
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        self._register(name)
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(tree), encoding="utf-8")
        return file

    def sidecar(self, name: str, **changes: object) -> Server:
        """Start a sidecar under test with these settings."""
        return self.start(name, self.settings(name, **changes))

    def start(self, name: str, settings: Path) -> Server:
        """Start a sidecar from its settings file."""
        socket = self.folder / name / "0.sock"
        self.launch(name, sidecar_command("run", "--config", settings), SERVER, socket.exists)
        return Server(name, socket, self.pid(name), self.metrics_port(settings))

    def launch(self, name: str, command: list[str], core: int, ready: Callable[[], bool]) -> None:
        """Start a process on a core, and wait until it is ready."""
        with on_core(core):
            self._processes.start(name, command, ready)

    def pid(self, name: str) -> int:
        """The process id of what was started."""
        return self._processes.pid(name)

    @staticmethod
    def metrics_port(settings: Path) -> int:
        """Where a sidecar's metrics are."""
        listen = yaml.safe_load(settings.read_text(encoding="utf-8"))["metrics"]["listen"]
        return int(listen.rpartition(":")[2])

    def stop(self, name: str) -> None:
        """Stop one server."""
        self._processes.stop(name)

    def build(self, name: str, people: int, ids: int) -> dict[str, str]:
        """A directory of so many people, the `FEW` and amy among them, and an index of so many ids; settings for both."""
        folder = self.folder / name
        folder.mkdir()
        template, entities = (folder.parent / file for file in ("people.jsonl", "entities.jsonl"))
        amy = json.loads(template.read_text(encoding="utf-8").splitlines()[0])
        with (folder / "people.jsonl").open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(amy | {"id": person}) + "\n" for person in _names(people))
        with (folder / "users.csv").open("w", encoding="utf-8") as out:
            out.write("id,country,as_of\n")
            out.writelines(
                f"{number},{'US' if number % 2 == self.user % 2 else 'DE'},{_SINCE}\n" for number in range(1, ids + 1)
            )
        snapshot, index = folder / "people.snapshot", folder / "subjects.idx"
        with on_core(LOAD):
            world.run("directory", "build", folder / "people.jsonl", entities, snapshot)
            world.run("subjects", "build", folder / "users.csv", index)
        (folder / "users.csv").unlink()
        return {"identity__directory__file": str(snapshot), "subjects__index": str(index)}

    def _peer(self, name: str, kind: str, socket: Path, core: int) -> int:
        socket.parent.mkdir(mode=0o700)
        command = [
            sys.executable, "-m", "tests.benchmarks.peers", kind, str(socket), str(self._reply), str(self._upstream)
        ]  # fmt: skip
        with on_core(core):
            self._processes.start(name, command, socket.exists)
        return self._processes.pid(name)

    def _register(self, name: str) -> None:
        key = Ed25519PrivateKey.generate()
        file = self.folder / "keys" / f"{name}.pem"
        file.touch(mode=0o600)
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        registry = self.folder / "oversight" / "producers.json"
        add_producer(registry, name=name, public_key=key.public_key(), identity=SIDECAR, now=_SINCE)


def _names(count: int) -> Iterator[str]:
    yield "amy"
    yield from few()
    yield from itertools.islice((f"q{number:06d}" for number in itertools.count()), count - FEW)


def few() -> list[str]:
    """Made-up colleagues, whose number makes `FEW` with amy."""
    return [f"p{number:06d}" for number in range(FEW - 1)]
