"""After the scenes: the store is asked, and nothing it says is believed without proof.

Search, verify every record offline, prove that the log only grew, replay the recorded decisions through a candidate
policy, audit all of it, then alter one byte in a copy and see that it shows.
"""

import json
import shutil
import subprocess
from pathlib import Path

from rich.console import Console

from sidecar.demo import candidate
from sidecar.demo.scenes import SYNC_TOO_FAR
from sidecar.demo.show import Proof, Result
from sidecar.demo.stage import Stage, until
from sidecar.demo.world import sidecar_command
from sidecar.oversight import evidence
from sidecar.oversight.reviewer import Reviewer, read_trust
from sidecar.tlog.checkpoint import Checkpoint
from sidecar.tlog.errors import TlogError
from sidecar.tlog.merkle import Digest, verify_consistency

DELIVERY_SECONDS = 60.0


class EpilogueError(Exception):
    """Something that had to happen before anything can be proven did not. Says what."""


def reviewer(stage: Stage) -> Reviewer:
    """The demo's reviewer, with a certificate the store lets in."""
    pair = stage.world.certificates["reviewer"]
    return Reviewer(f"localhost:{stage.world.ports['query']}", stage.world.ca, pair.cert, pair.key)


def opening(stage: Stage) -> bytes:
    """The checkpoint before the play, which a reviewer keeps."""
    with reviewer(stage) as asks:
        return bytes(asks.checkpoint())


def prove(console: Console, stage: Stage, results: list[Result], first: bytes) -> Proof:
    """Do all of it, and say what came of each."""
    console.print("\nThe store is asked, and not believed:", style="bold")
    _delivered(stage)
    log, trust_file = stage.world.folder / "oversight" / "log", stage.world.folder / "trust.txt"
    with reviewer(stage) as asks:
        known = {json.loads(one.leaf)["call_id"] for one in asks.search({}, 0)}
        missing = [one.name for one in results if one.call_id not in known and not one.past_the_sidecar]
        calls = len(known - {None})
        _say(console, f"every call of the play has its records, {calls} calls in all", good=not missing)
        records, verified = _verify_all(asks, trust_file)
        _say(console, f"{records} records verified offline, one proof each", good=verified)
        latest, grown = _consistent(asks, trust_file, first)
        _say(console, f"the log of {latest.size} continues the one from before the play", good=grown)
        findings = [one.kind for one in asks.completeness().findings if one.kind != "silent_producer"]
        _say(console, "no gap, no fork, no unknown tail", good=not findings)
    said, planted = candidate.replay(stage, next(one.call_id for one in results if one.name == SYNC_TOO_FAR))
    _say(console, said, good=planted)
    audit = _audit(log, trust_file, "--database", stage.world.folder / "oversight" / "records.sqlite")
    _say(console, f"audit: {audit.stdout.strip().splitlines()[-1]}", good=audit.returncode == 0)
    tampered = _tamper(log, trust_file, stage.world.folder / "tampered")
    _say(
        console, f"one byte altered in a copy: {tampered.stdout.strip().splitlines()[0]}", good=tampered.returncode == 1
    )
    return Proof(
        records=records,
        checkpoint_size=latest.size,
        all_records_verified=verified and grown,
        tamper_detected=tampered.returncode == 1,
        complete=not missing and not findings and audit.returncode == 0,
        flip_found=planted,
    )


def _say(console: Console, what: str, *, good: bool) -> None:
    console.print(f"  {'ok ' if good else 'NO '} {what}", style="green" if good else "red", markup=False)


def _delivered(stage: Stage) -> None:
    """Wait until both sidecars hold a verified receipt for everything they have recorded."""

    def empty(settings: str) -> bool:
        command = sidecar_command("status", "--json", "--config", stage.world.folder / settings)
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        return bool(answer.stdout) and json.loads(answer.stdout)["spool_records"] == 0

    for settings in ("sidecar.yaml", "sidecar-abroad.yaml"):
        if not until(lambda settings=settings: empty(settings), DELIVERY_SECONDS):  # type: ignore[misc]
            raise EpilogueError(f"records of {settings} did not reach the store in {DELIVERY_SECONDS:.0f} s")


def _verify_all(asks: Reviewer, trust_file: Path) -> tuple[int, bool]:
    trust = read_trust(trust_file)
    size = trust.open_checkpoint(asks.checkpoint()).checkpoint.size
    for index in range(size):
        record, proof = asks.prove(index)
        try:
            evidence.verify(evidence.make(proof, record.leaf, record.salt, record.body), trust)
        except evidence.EvidenceError:
            return index, False
    return size, size > 0


def _consistent(asks: Reviewer, trust_file: Path, first: bytes) -> tuple[Checkpoint, bool]:
    trust = read_trust(trust_file)
    old = trust.open_checkpoint(first).checkpoint
    new = trust.open_checkpoint(asks.checkpoint()).checkpoint
    hashes = [Digest(one) for one in asks.consistency(old.size, new.size)]
    try:
        verify_consistency(old.size, new.size, old.root, new.root, hashes)
    except TlogError:
        return new, False
    return new, True


def _audit(log: Path, trust_file: Path, *more: str | Path) -> subprocess.CompletedProcess[str]:
    command = sidecar_command("oversight", "audit", log, "--trust", trust_file, *more)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _tamper(log: Path, trust_file: Path, copy: Path) -> subprocess.CompletedProcess[str]:
    """Alter one byte inside a record of a copy of the log, and audit that."""
    shutil.copytree(log, copy)
    bundles = sorted(path for path in (copy / "tile" / "entries").rglob("*") if path.is_file())
    newest = max(bundles, key=lambda path: path.stat().st_size)
    data = bytearray(newest.read_bytes())
    at = data.index(b'"seq":') + len(b'"seq":')
    data[at] ^= 1
    newest.write_bytes(data)
    try:
        return _audit(copy, trust_file)
    finally:
        shutil.rmtree(copy)
