"""What the previous releases left on disk, read by today's code: and carried on, as after an upgrade."""

import json
import shutil
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from deployment import Deployment, sidecar

from sidecar.attributes.directory import Directory
from sidecar.attributes.subjects_index import SubjectIndex
from sidecar.demo.profiles.v1.profiles_pb2 import GetProfileRequest
from sidecar.enforcement.periods import PeriodKeys
from sidecar.spool.log import Spool
from sidecar.spool.slot import SpoolOptions

RELEASES = sorted(
    file.parent for file in (Path(__file__).resolve().parents[1] / "previous_release").glob("*/calls.json")
)
LEAST_UNDELIVERED = 6
"""Three calls were made after the store had gone: a decision and an outcome each, at least."""


@pytest.fixture(params=RELEASES, ids=lambda release: release.name)
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A release's files, to be written to."""
    return shutil.copytree(request.param, tmp_path / "release")


def test_there_is_a_release_to_read() -> None:
    assert RELEASES


def test_the_log_and_its_bodies_are_sound(release: Path) -> None:
    ran = sidecar("oversight", "audit", release / "oversight/log", "--trust", release / "trust.txt",
                  "--database", release / "oversight/records.sqlite", "--json")  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert json.loads(ran.stdout)["findings"] == []


def test_a_proof_verifies(release: Path) -> None:
    proof = next(release.glob("*.tlog-proof"))
    ran = sidecar("oversight", "verify", proof, "--trust", release / "trust.txt")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_proof_that_was_changed_does_not(release: Path) -> None:
    proof = next(release.glob("*.tlog-proof"))
    data = proof.read_bytes().replace(b"profiles-ashburn-1", b"profiles-ashburn-2")
    changed = proof.with_name("changed.tlog-proof")
    changed.write_bytes(data if data != proof.read_bytes() else data[:-20] + data[-19:])
    assert sidecar("oversight", "verify", changed, "--trust", release / "trust.txt").returncode != 0


async def test_the_spool_of_a_killed_sidecar_is_recovered(release: Path) -> None:
    options = SpoolOptions(folder=release / "spool", producer="profiles-ashburn-1", max_bytes=8 << 30)
    spool = Spool.open(options, store_key=b"s" * 32, now=lambda: datetime.now(UTC), monotonic=time.monotonic)
    try:
        assert spool.depth_records >= LEAST_UNDELIVERED
        assert not spool.recovered.torn
    finally:
        await spool.close()


def test_sealed_period_keys_open(release: Path) -> None:
    key = load_pem_private_key((release / "keys/producer.pem").read_bytes(), None)
    made = datetime.fromisoformat(json.loads((release / "records.jsonl").read_text().splitlines()[0])["leaf"]["time"])
    keys = PeriodKeys(
        producer="profiles-ashburn-1",
        private_key=key,
        file=release / "spool/period-keys",  # type: ignore[arg-type]
        channel=lambda: None,
        now=lambda: made,
        jitter=lambda: 0.0,
    )  # type: ignore[arg-type, return-value]
    keys.load()
    found = keys.current(made)
    assert found is not None
    assert len(found.key) == 32


def test_snapshots_load(release: Path) -> None:
    directory = Directory(release / "people.snapshot", 3600.0)
    assert directory.revision is not None
    assert directory.error is None
    index = SubjectIndex(release / "us-subjects.idx", 3600.0)
    assert index.revision is not None
    assert index.error is None


def test_signed_bundles_verify(release: Path) -> None:
    bundle, signers = release / "policies.tar.gz", release / "signers.yaml"
    ran = sidecar("policy", "verify", bundle, "--keys", signers)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    kept = next((release / "spool/policies").glob("*.tar.gz"))
    assert sidecar("policy", "check", kept).returncode == 0


def test_recorded_decisions_replay_without_a_flip(release: Path) -> None:
    """Through the policies that made them: today's engine answers today what it answered then."""
    rows = [json.loads(line) for line in (release / "search.jsonl").read_text().splitlines()]
    decided = Counter(str(row["leaf"]["type"]) for row in rows)["decision"]
    ran = sidecar(
        "policy", "replay", "--against", release / "policies.tar.gz", "--from", release / "search.jsonl", "--json"
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads(ran.stdout)
    assert set(found["flips"].values()) == {0}, found
    assert found["replayed"] == found["agreed"] >= 3
    assert decided >= 4


def test_the_ledger_verifies(release: Path) -> None:
    ran = sidecar("ledger", "verify", "--config", release / "ledger.yaml")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_settings_still_mean_what_they_did(release: Path) -> None:
    """Keys are added, never taken away or given another meaning, without a major release."""
    from sidecar.settings.ledger import LedgerSettings
    from sidecar.settings.loader import load
    from sidecar.settings.oversight import OversightSettings
    from sidecar.settings.sidecar import SidecarSettings

    assert load(release / "sidecar.yaml", SidecarSettings, {}).producer.name == "profiles-ashburn-1"
    assert load(release / "oversight.yaml", OversightSettings, {}).log.interval == 0.5
    assert load(release / "ledger.yaml", LedgerSettings, {}).sidecars


def test_an_upgraded_sidecar_delivers_what_its_predecessor_left_to_an_upgraded_store(
    release: Path, tmp_path: Path
) -> None:
    """Store first, then sidecar, on the files of the release: nothing is lost, doubled or unproven, and calls go on."""
    before = json.loads((release / "calls.json").read_text())
    deployment = Deployment(tmp_path / "world")
    for name in ("oversight", "spool"):
        shutil.rmtree(deployment.folder / name, ignore_errors=True)
        shutil.copytree(release / name, deployment.folder / name)
    for name in ("trust.txt", "store-seal.pub", "keys/producer.pem", "keys/producer.pem.pub"):
        shutil.copyfile(release / name, deployment.folder / name)
    kept = yaml.safe_load((release / "oversight.yaml").read_text())["log"]["origin"]
    settings = deployment.folder / "oversight.yaml"
    tree = yaml.safe_load(settings.read_text())
    tree["log"]["origin"] = kept
    settings.write_text(yaml.safe_dump(tree, sort_keys=False))
    with deployment as running:
        answer = running.call("GetProfile", GetProfileRequest(user_id=running.world.cast.us))
        assert answer.status == "OK", running.log("sidecar")
        running.delivered(40)
        assert running.recorded(answer.call_id).status == "OK"
        for one in before.values():
            assert running.recorded(one["call_id"]).status == one["status"]
        found = running.calls()
        assert len(found) >= len(before) + 3 + 1, "the calls that were made while the store was away"
        assert all(len(one.outcomes) == 1 for one in found.values())
        assert {kind for kind, _ in running.incompleteness()} == set()
        audited = running.audit()
        assert audited.returncode == 0, audited.stdout
