"""`sidecar doctor` in a whole deployment: everything holds, and then one thing after the other does not."""

import datetime as dt
import json
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml
from deployment import Deployment, sidecar
from worlds import changed

from sidecar.cli import doctor_around, doctor_store
from sidecar.cli.findings import Finding
from sidecar.demo.pki import Authority
from sidecar.demo.processes import listening
from sidecar.demo.world import sidecar_command
from sidecar.settings.loader import load
from sidecar.settings.sidecar import SidecarSettings

Found = dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("doctor")) as running:
        ledger = sidecar_command("ledger", "run", "--config", running.folder / "ledger.yaml")
        running.processes.start("ledger", ledger, listening(running.world.ports["ledger"]))
        running.delivered()
        yield running


def doctor(deployment: Deployment, **changes: object) -> Found:
    """The findings by check, with changed settings beside the running sidecar's; without the calls to the service."""
    tree = yaml.safe_load((deployment.folder / "sidecar.yaml").read_text())
    file = deployment.folder / "doctor.yaml"
    file.write_text(yaml.safe_dump(changed(tree, {key.replace("__", "."): value for key, value in changes.items()})))
    settings = load(file, SidecarSettings, {})
    return checked(one.document() for one in (*doctor_store.examined(settings), *doctor_around.examined(settings)))


def checked(findings: Iterable[dict[str, str]]) -> Found:
    """By check; each says what, and where it does not hold what to do."""
    found = {one["check"]: one for one in findings}
    for one in found.values():
        assert one["what"]
        assert one["fix"] or one["state"] == "ok", one
    return found


def asked(deployment: Deployment, *before: str) -> tuple[int, Found]:
    """The command itself, as an operator runs it."""
    command = [*before, *sidecar_command("doctor", "--config", deployment.folder / "sidecar.yaml", "--json")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    said = json.loads(ran.stdout)
    found = checked(said["findings"])
    assert said["failed"] == sum(one["state"] == "failed" for one in found.values())
    assert said["warnings"] == sum(one["state"] == "warning" for one in found.values())
    assert ran.returncode == (1 if said["failed"] else 0)
    return ran.returncode, found


def failed(found: Found) -> set[str]:
    return {name for name, one in found.items() if one["state"] == "failed"}


def test_everything_holds(deployment: Deployment) -> None:
    code, found = asked(deployment)
    assert code == 0, found
    assert {one["state"] for one in found.values()} <= {"ok", "warning"}
    assert found.keys() >= {
        "settings", "upstream answers the sidecar", "upstream refuses a caller without a certificate",
        "upstream refuses another certificate", "oversight store", "key service", "store answers the sidecar",
        "store's sealing key", "store's log key", "clock", "ledger", "spool", "certificate of listen.0", "certificate of upstream",
        "certificate of oversight", "certificate of ledger", "key producer.key", "key listen.0.tls.key", "directory",
        "subject index", "policy source", "admin socket",
    }  # fmt: skip
    assert "has signed the last checkpoint" in found["store's log key"]["what"]
    assert sum(name.startswith("keys of ") for name in found) == 2


def test_another_sealing_key_and_another_log_key(deployment: Deployment, tmp_path: Path) -> None:
    assert sidecar("keys", "new", tmp_path / "other.pem", "--sealing").returncode == 0
    text = (deployment.folder / "trust.txt").read_text()
    pinned = next(word for word in text.split() if word.count("+") >= 2)
    name = pinned.partition("+")[0]
    made = sidecar("keys", "new", tmp_path / "log.pem", "--name", name)
    other = next(word for word in made.stdout.split() if word.startswith(f"{name}+"))
    trust = tmp_path / "trust.txt"
    trust.write_text(text.replace(pinned, other))
    found = doctor(deployment, oversight__seal_key=str(tmp_path / "other.pem.pub"), oversight__trust=str(trust))
    assert failed(found) == {"store's sealing key", "store's log key"}, found
    assert "another way than this connection" in found["store's sealing key"]["fix"]


def test_a_certificate_that_ends_soon_warns_and_one_that_has_ended_fails(
    deployment: Deployment, tmp_path: Path
) -> None:
    now = dt.datetime.now(dt.UTC)
    for name, begun, state in (
        ("soon", now, "warning"),
        ("ended", now - dt.timedelta(days=3), "failed"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        pair = Authority(folder, "ca", begun).issue("proxy", hosts=["localhost"])
        changes = {"listen": [{"door": "proxy", "address": "127.0.0.1:1", "tls": {
            "cert": str(pair.cert), "key": str(pair.key), "client_ca": "ca.pem"}}]}  # fmt: skip
        found = doctor(deployment, **changes)
        if found["certificate of listen.0"]["state"] != state:
            pytest.fail(f"{name}: {found['certificate of listen.0']}")


def test_keys_that_others_can_read(deployment: Deployment, tmp_path: Path) -> None:
    key = tmp_path / "producer.pem"
    shutil.copyfile(deployment.folder / "keys/producer.pem", key)
    for mode, state in ((0o600, "ok"), (0o640, "warning"), (0o604, "failed"), (0o660, "failed")):
        key.chmod(mode)
        found = doctor(deployment, producer__key=str(key))
        assert found["key producer.key"]["state"] == state, oct(mode)
        assert state == "ok" or found["key producer.key"]["fix"] == f"chmod 600 {key}"


def test_an_issuer_that_cannot_be_reached(deployment: Deployment) -> None:
    tree = yaml.safe_load((deployment.folder / "sidecar.yaml").read_text())
    issuers = tree["identity"]["issuers"]
    issuers[0]["jwks"] = {"url": "http://127.0.0.1:1/keys"}
    found = doctor(deployment, identity__issuers=issuers)
    name = f"keys of {issuers[0]['issuer']}"
    assert failed(found) >= {name}
    assert found[name]["where"] == "http://127.0.0.1:1/keys"


def test_what_is_too_old_and_what_is_not_there(deployment: Deployment) -> None:
    found = doctor(deployment, identity__directory__max_age="1s", subjects__max_age="1s",
                      policy__bundle={"folder": "no-policies"}, ledger__address="localhost:1")  # fmt: skip
    assert failed(found) >= {"directory", "subject index", "policy source", "ledger"}
    assert "sidecar directory build" in found["directory"]["fix"]
    assert "sidecar subjects build" in found["subject index"]["fix"]


def test_an_admin_socket_that_others_can_open(deployment: Deployment, tmp_path: Path) -> None:
    path = tmp_path / "admin"
    with socket.socket(socket.AF_UNIX) as listening_:
        listening_.bind(str(path))
        path.chmod(0o770)
        found = doctor(deployment, admin__socket=str(path))
        assert failed(found) == {"admin socket"}
        path.chmod(0o700)
        assert failed(doctor(deployment, admin__socket=str(path))) == set()
    found = doctor(deployment, admin__socket=str(tmp_path / "none"))
    assert found["admin socket"]["state"] == "warning"


def test_a_clock_that_is_wrong(deployment: Deployment, needs) -> None:
    faketime = needs("faketime", "apt-get install faketime")
    code, found = asked(deployment, faketime, "-f", "+60s")
    assert found["clock"]["state"] == "failed", found["clock"]
    assert "behind" in found["clock"]["what"]
    assert code == 1


def test_a_finding_in_a_line_says_where_what_and_what_to_do() -> None:
    found = Finding("clock", False, "the store's is 60 s ahead", "clock", "Let both hosts follow a time service.")
    assert found.detail == "clock: the store's is 60 s ahead. Let both hosts follow a time service."
    assert (found.state, Finding("x", True, "y", warns=True).state, Finding("x", True, "y").state) == (
        "failed",
        "warning",
        "ok",
    )
