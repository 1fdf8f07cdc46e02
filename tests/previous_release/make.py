"""Freezes what this release leaves on disk and on the wire, for later releases to read.

    python tests/previous_release/make.py 0.2

Run it at a release, from its own tree, with `tests` on the path (`PYTHONPATH=.:tests`). It runs a whole deployment: some
calls are delivered, published and proven; then the store is stopped, some more calls are made, and the sidecar is killed,
so that its spool holds what has not been delivered and calls without an outcome. Nothing in here is anybody's: people,
users and keys are the demo's, and the keys are made anew each time.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from deployment import ROOT, Deployment, sidecar, wait
from google.protobuf import descriptor_pb2

from sidecar.demo.processes import listening
from sidecar.demo.profiles.v1.profiles_pb2 import GetProfileRequest
from sidecar.demo.world import sidecar_command

HERE = Path(__file__).resolve().parent
PROTOS = ("annotations", "ledger", "oversight")
FROZEN = (
    "people.snapshot", "us-subjects.idx", "trust.txt", "ca.pem", "store-seal.pub", "keys/producer.pem", "keys/producer.pem.pub",
    "ledger/ledger.sqlite", "ledger/secret", "ledger.yaml", "authorizations.jsonl", "attestations.jsonl", "licence-signers.yaml",
    "approvers.yaml", "revoked.jsonl", "datasets.jsonl", "profiles.binpb", "sidecar.yaml", "oversight.yaml",
)  # fmt: skip
FOLDERS = ("spool", "oversight", "grants")


def main(version: str) -> None:
    """Freeze into the folder of this version. It must not be there yet."""
    into = HERE / version
    into.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        deployment = Deployment(Path(folder) / "world")
        with deployment as running:
            record(running, into)
            ended(running)
        for name in FROZEN:
            copy(deployment.folder / name, into / name)
        for name in FOLDERS:
            shutil.copytree(deployment.folder / name, into / name)
    bundles(into)
    descriptors(into / "descriptors.binpb")
    for file in into.rglob("*"):
        if file.is_file() and (file.name == "lock" or file.name.endswith(".lock")):
            file.unlink()


def record(running: Deployment, into: Path) -> None:
    """Calls that are permitted, denied and not understood; all of them published, and one proven."""
    running.grant("LEG-1")
    ledger = sidecar_command("ledger", "run", "--config", running.folder / "ledger.yaml")
    running.processes.start("ledger", ledger, listening(running.world.ports["ledger"]))
    cast = running.world.cast
    answers = {
        "permit": running.call("GetProfile", GetProfileRequest(user_id=cast.us)),
        "deny": running.call("GetProfile", GetProfileRequest(user_id=cast.us), token="niall"),
        "unidentified": running.call("GetProfile", GetProfileRequest(user_id=cast.us), token=None),
        "ticket": running.call(
            "GetProfile", GetProfileRequest(user_id=cast.us), purpose="legal_process", ticket="LEG-9"
        ),
    }
    for one in answers.values():
        running.recorded(one.call_id)
    running.delivered()
    calls = {name: {"call_id": one.call_id, "status": one.status} for name, one in answers.items()}
    rows = [json.dumps({"leaf": leaf, "body": body}) for leaf, body in running.records()]
    (into / "records.jsonl").write_text("\n".join(rows) + "\n")
    (into / "calls.json").write_text(json.dumps(calls, indent=1) + "\n")
    pair = running.world.certificates["reviewer"]
    reviewer = [
        "--store",
        f"localhost:{running.world.ports['query']}",
        "--ca",
        running.world.ca,
        "--cert",
        pair.cert,
        "--key",
        pair.key,
    ]
    asked(into / "search.jsonl", "oversight", "search", *reviewer, "--limit", "0", "--json")
    proof = sidecar("oversight", "prove", "3", *reviewer, "--output", into / "record-3.tlog-proof")
    assert proof.returncode == 0, proof.stderr


def ended(running: Deployment) -> None:
    """The store goes, calls go on, and the sidecar is killed."""
    running.processes.stop("store")
    running.processes.stop("ledger")
    wait(lambda: not running.status()["store_connected"], 20, "the sidecar has seen it")
    for _ in range(3):
        running.call("GetProfile", GetProfileRequest(user_id=running.world.cast.us))
    running.processes.kill("sidecar")


def asked(file: Path, *arguments: str | Path) -> None:
    """A command's standard output."""
    ran = sidecar(*arguments)
    assert ran.returncode == 0, ran.stderr
    file.write_text(ran.stdout)


def bundles(into: Path) -> None:
    """The policies as a signed bundle, and who may sign."""
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", into / "signer.pem"], check=True, capture_output=True
    )
    subprocess.run(
        ["openssl", "pkey", "-in", into / "signer.pem", "-pubout", "-out", into / "signer.pub"],
        check=True,
        capture_output=True,
    )
    (into / "signers.yaml").write_text("signers:\n  - id: dana\n    key: signer.pub\n    algorithm: EdDSA\n")
    for command in (
        ("build", ROOT / "policies", "--output", into / "policies.tar.gz"),
        ("sign", into / "policies.tar.gz", "--key", into / "signer.pem", "--as", "dana"),
    ):
        ran = sidecar("policy", *command)
        assert ran.returncode == 0, ran.stderr


def descriptors(file: Path) -> None:
    """The protos as a FileDescriptorSet, without comments."""
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", f"--descriptor_set_out={file}", "--include_imports",
               *(f"sidecar/api/v1/{name}.proto" for name in PROTOS)]  # fmt: skip
    subprocess.run(command, check=True, cwd=ROOT)
    found = descriptor_pb2.FileDescriptorSet.FromString(file.read_bytes())
    own = [one for one in found.file if one.package.startswith("sidecar.")]
    file.write_bytes(descriptor_pb2.FileDescriptorSet(file=own).SerializeToString(deterministic=True))


def copy(source: Path, target: Path) -> None:
    """One file that there is."""
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


if __name__ == "__main__":
    main(sys.argv[1])
