"""Everything the demo needs in one folder: keys, certificates, tokens, people, users, grants, settings.

The folder's `sidecar.yaml` and `oversight.yaml` run again as they are; a private key leaves it never.
"""

import datetime as dt
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import descriptor_pb2

from sidecar.api.v1 import annotations_pb2
from sidecar.demo import papers, staff, users
from sidecar.demo.papers import Desk
from sidecar.demo.pki import Authority, Pair
from sidecar.demo.processes import free_port
from sidecar.demo.profiles.v1 import profiles_pb2
from sidecar.demo.settings import ledger_yaml, oversight_yaml, sidecar_yaml
from sidecar.demo.tokens import STAFF, USERS, IdentityProvider
from sidecar.tlog.key import Signer

ORIGIN = "customhouse.demo/log"
DOMAIN = "spiffe://customhouse.demo/ns"
CONSOLE = f"{DOMAIN}/support/console"
WEB = f"{DOMAIN}/web/app"
RANKER = f"{DOMAIN}/ranking/ranker"
EXPORTER = f"{DOMAIN}/exports/exporter"
SIDECAR = f"{DOMAIN}/profiles/sidecar"
ABROAD = f"{DOMAIN}/profiles/sidecar-abroad"
REVIEWER = f"{DOMAIN}/oversight/reviewer"
PRODUCER = "profiles-ashburn-1"
PRODUCER_ABROAD = "profiles-frankfurt-1"


class SetUpError(Exception):
    """A command of the set-up failed. Says which and why."""


@dataclass(slots=True)
class World:
    """Where everything is, and who the scenes are about."""

    folder: Path
    cast: users.Cast
    ports: dict[str, int]
    certificates: dict[str, Pair]
    ca: Path
    desk: Desk
    tokens: dict[str, str] = field(default_factory=dict)
    staff_idp: IdentityProvider = field(default_factory=lambda: IdentityProvider(STAFF, "staff-1"))
    grant_expires: float = 0.0


def sidecar_command(*arguments: str | Path) -> list[str]:
    """The `sidecar` command of this interpreter."""
    return [sys.executable, "-m", "sidecar", *map(str, arguments)]


def run(*arguments: str | Path) -> str:
    """Run a sidecar command as its user would; its output. SetUpError when it fails."""
    done = subprocess.run(sidecar_command(*arguments), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SetUpError(f"sidecar {' '.join(map(str, arguments))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def make(folder: Path, clock: Callable[[], float], policies: Path, opa: Path | None = None) -> World:
    """Fill a new folder. `clock` is UTC in unix seconds; `policies` the bundle to enforce, by `opa` if that is given."""
    now = dt.datetime.fromtimestamp(clock(), dt.UTC)
    for name in ("keys", "tls", "tokens", "grants", "oversight", "ledger", "run"):
        (folder / name).mkdir(parents=True)
    cast = users.make(folder / "users.sqlite", folder / "users.csv")
    run("subjects", "build", folder / "users.csv", folder / "us-subjects.idx")
    build_directory(folder, now)
    names = ("upstream", "proxy", "abroad", "append", "keys", "query", "ledger")
    world = World(
        folder=folder,
        cast=cast,
        ports={name: free_port() for name in names},
        certificates=_certificates(folder / "tls", now),
        ca=folder / "ca.pem",
        desk=Desk(folder),
    )
    world.ca.write_bytes((folder / "tls" / "corp-ca.pem").read_bytes())
    _keys(folder)
    _tokens(world, clock())
    world.desk.open()
    papers.datasets(folder / "users.sqlite", folder / "datasets.jsonl")
    _descriptors(folder / "profiles.binpb")
    shutil.copytree(policies, folder / "policies")
    _settings(world, opa)
    _register(folder)
    _reviewer(world)
    return world


def build_directory(folder: Path, now: dt.datetime, *, without: str | None = None) -> None:
    """Build the personnel snapshot; with somebody left out, as HR does when they leave."""
    people, entities = staff.write(folder, now.strftime(staff.STAMP), without=without)
    run("directory", "build", people, entities, folder / "people.snapshot")


def _certificates(folder: Path, now: dt.datetime) -> dict[str, Pair]:
    corp = Authority(folder, "corp", now)
    inner = Authority(folder, "upstream-clients", now)
    issued = {
        "upstream": corp.issue("upstream", hosts=["localhost"]),
        "store": corp.issue("store", hosts=["localhost"]),
        "ledger": corp.issue("ledger", hosts=["localhost"]),
        "proxy": corp.issue("proxy", spiffe=SIDECAR, hosts=["localhost"]),
        "abroad": corp.issue("abroad", spiffe=ABROAD, hosts=["localhost"]),
        "to-upstream": inner.issue("to-upstream", spiffe=SIDECAR),
    }
    for name, spiffe in (
        ("console", CONSOLE), ("web", WEB), ("ranker", RANKER), ("exporter", EXPORTER), ("reviewer", REVIEWER),
    ):  # fmt: skip
        issued[name] = corp.issue(name, spiffe=spiffe)
    return issued


def _keys(folder: Path) -> None:
    keys = folder / "keys"
    for name in ("producer", "producer-abroad"):
        run("keys", "new", keys / f"{name}.pem")
    run("keys", "new", folder / "oversight" / "log.pem", "--name", ORIGIN)
    run("keys", "new", folder / "oversight" / "seal.pem", "--sealing")
    (folder / "store-seal.pub").write_bytes((folder / "oversight" / "seal.pem.pub").read_bytes())
    kek = folder / "oversight" / "kek"
    kek.touch(mode=0o600)
    kek.write_bytes(os.urandom(32))
    key = serialization.load_pem_private_key((folder / "oversight" / "log.pem").read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise SetUpError("the log's key is no Ed25519 key")
    vkey = str(Signer(ORIGIN, key).key)
    (folder / "oversight" / "log.vkey").write_text(vkey + "\n", encoding="utf-8")
    (folder / "trust.txt").write_text(f"log {vkey}\nquorum none\n", encoding="utf-8")


def _tokens(world: World, now: float) -> None:
    users_idp = IdentityProvider(USERS, "users-1")
    world.staff_idp.write_jwks(world.folder / "staff-jwks.json")
    users_idp.write_jwks(world.folder / "users-jwks.json")
    forger = IdentityProvider(STAFF, "staff-1")
    for person in ("amy", "uma", "niall", "vic", "lou", "ed", "mei", "stranger"):
        world.tokens[person] = world.staff_idp.token(person, CONSOLE, now)
    world.tokens["amy-expired"] = world.staff_idp.token("amy", CONSOLE, now - 9 * 3600)
    world.tokens["amy-forged"] = forger.token("amy", CONSOLE, now)
    for name, number in (("user-us", world.cast.us), ("user-de", world.cast.german)):
        world.tokens[name] = users_idp.token(str(number), WEB, now)
    for name, token in world.tokens.items():
        file = world.folder / "tokens" / f"{name}.jwt"
        file.touch(mode=0o600)
        file.write_text(token, encoding="utf-8")
    (world.folder / "revoked.jsonl").write_text("", encoding="utf-8")


def _descriptors(file: Path) -> None:
    found = descriptor_pb2.FileDescriptorSet()
    for source in (descriptor_pb2.DESCRIPTOR, annotations_pb2.DESCRIPTOR, profiles_pb2.DESCRIPTOR):
        source.CopyToProto(found.file.add())
    file.write_bytes(found.SerializeToString())


def _settings(world: World, opa: Path | None) -> None:
    folder = world.folder
    command = None if opa is None else str(opa)
    files = {
        "oversight.yaml": oversight_yaml(world.ports, ORIGIN, REVIEWER),
        "ledger.yaml": ledger_yaml(world.ports, [SIDECAR, ABROAD]),
        "sidecar.yaml": sidecar_yaml(world.ports, abroad=False, workloads=_workloads(), opa=command),
        "sidecar-abroad.yaml": sidecar_yaml(world.ports, abroad=True, workloads=_workloads(), opa=command),
    }
    for name, tree in files.items():
        (folder / name).write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    run("ledger", "init", "--config", folder / "ledger.yaml")


def _workloads() -> list[dict[str, object]]:
    return [
        {"id": CONSOLE, "operated_from": "US", "may": ["read", "list", "write"]},
        {"id": WEB, "operated_from": "US", "may": ["read", "list", "write"]},
        {"id": RANKER, "operated_from": "US", "may": ["read", "list"], "acts_alone": True},
        {"id": EXPORTER, "operated_from": "IE", "may": ["read"], "acts_alone": True},
    ]


def _register(folder: Path) -> None:
    for producer, key, identity in (
        (PRODUCER, "producer", SIDECAR), (PRODUCER_ABROAD, "producer-abroad", ABROAD),
    ):  # fmt: skip
        run(
            "oversight", "producer", "add", producer, "--config", folder / "oversight.yaml",
            "--key", folder / "keys" / f"{key}.pem.pub", "--identity", identity,
        )  # fmt: skip


def _reviewer(world: World) -> None:
    """What a reviewer's commands read from the environment: `. DIR/reviewer.env`, then `sidecar oversight search`."""
    pair = world.certificates["reviewer"]
    values = {
        "STORE": f"localhost:{world.ports['query']}", "CA": world.ca, "CERT": pair.cert, "KEY": pair.key,
    }  # fmt: skip
    lines = (f"export CUSTOMHOUSE_REVIEW_{name}={shlex.quote(str(value))}\n" for name, value in values.items())
    (world.folder / "reviewer.env").write_text("".join(lines), encoding="utf-8")
