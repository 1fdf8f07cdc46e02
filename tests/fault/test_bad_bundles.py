"""Bundles that somebody got wrong, or made to harm: the old policy stays, the message says why, nothing is half in force."""

import gzip
import io
import json
import os
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from bundle_signing import ed25519_key, write_bundle, write_signers
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from minimal_policy import write_policy
from policy_rig import AMY, Clock, PolicyRig

from sidecar.decision import archive
from sidecar.decision.cache import CachedDecisionPoint, DecisionCache
from sidecar.errors import ConfigurationError, DecideError
from sidecar.main.given import clock
from sidecar.main.sources import file_source
from sidecar.vocabulary import canonical

ALICE, MALLORY = ed25519_key(), ed25519_key()
TEST = "package sidecar.trial_test\n\ntest_one if { 1 == 1 }\n"
GIB = 1 << 30
SECONDS = 60.0


class Scene:
    """A policy in force, followed from a signed .tar.gz, and a place to make the next one."""

    def __init__(self, folder: Path) -> None:
        self.file, self.work = folder / "b.tar.gz", folder / "work"
        self.signers = write_signers(folder / "signers.yaml", {"alice": ALICE})
        self.folder = write_policy(self.work, ttl_seconds=5)
        write_bundle(self.file, self.work, ("alice", ALICE))
        self.rig = PolicyRig(
            file_source(self.file, Clock()), folder / "kept", Ed25519PrivateKey.generate(), signers=self.signers
        )

    def rule(self, text: str, tests: str = TEST) -> None:
        """The next bundle has this rule, and is signed as it should be."""
        (self.work / "sidecar" / "decision.rego").write_text(text)
        (self.work / "sidecar" / "decision_test.rego").write_text(tests)
        self.signed()

    def signed(self) -> None:
        write_bundle(self.file, self.work, ("alice", ALICE))

    def packed(self, *entries: tuple[str, bytes]) -> None:
        """The next archive holds these entries beside those of the bundle."""
        files = archive.read_archive(self.file.read_bytes(), "x")
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as made:
            for name, content in (*files.items(), *entries):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
        self.put(gzip.compress(plain.getvalue(), 1))

    def put(self, content: bytes) -> None:
        beside = self.file.with_name("next")
        beside.write_bytes(content)
        beside.replace(self.file)


def tampered(scene: Scene) -> None:
    write_policy(scene.work, ttl_seconds=9)
    good = archive.read_archive(scene.file.read_bytes(), "x")[".signatures.json"]
    write_bundle(scene.file, scene.work)
    scene.packed((".signatures.json", good))


def forged(scene: Scene) -> None:
    write_policy(scene.work, ttl_seconds=9)
    write_bundle(scene.file, scene.work, ("alice", MALLORY))


def unsigned(scene: Scene) -> None:
    write_policy(scene.work, ttl_seconds=9)
    write_bundle(scene.file, scene.work)


def by_a_revoked_signer(scene: Scene) -> None:
    write_policy(scene.work, ttl_seconds=9)
    write_signers(scene.signers, {"alice": ALICE, "bob": MALLORY}, revoked=["bob"])
    write_bundle(scene.file, scene.work, ("bob", MALLORY))


def wrong_roots(scene: Scene) -> None:
    (scene.work / ".manifest").write_text(json.dumps({"revision": "next", "roots": ["elsewhere"]}))
    files = [(str(path.relative_to(scene.work)), path.read_bytes()) for path in scene.work.rglob("*") if path.is_file()]
    scene.put(archive.write_archive(files))


def zip_slip(scene: Scene) -> None:
    scene.packed(("../../outside.rego", b"package sidecar.outside\n"))


def gigabyte(scene: Scene, name: str = "sidecar/data.json") -> None:
    info = tarfile.TarInfo(name)
    info.size = GIB
    squeeze = zlib.compressobj(1, wbits=31)
    with scene.file.with_name("next").open("wb") as file:
        file.write(squeeze.compress(info.tobuf()))
        for _ in range(256):
            file.write(squeeze.compress(bytes(GIB // 256)))
        file.write(squeeze.flush())
    os.replace(scene.file.with_name("next"), scene.file)


def gigabyte_of_something_else(scene: Scene) -> None:
    gigabyte(scene, "README.md")


PERMIT = (
    '{"effect": "permit", "reasons": [{"code": "a", "message": "", "rule": "r"}], "obligations": [], "advice": [], '
    '"ttl_seconds": 0}'
)
DENY = PERMIT.replace("permit", "deny").replace('"a"', '"not_us_personnel"')


def endless_recursion(scene: Scene) -> None:
    scene.rule("package sidecar\n\ndecision := again\n\nagain := more\n\nmore := again\n")


def endless_comprehension(scene: Scene) -> None:
    numbers = "numbers.range(1, 9999)"
    # What it builds stays empty: on a fast machine its memory would run out before its time.
    loop = f"{{a | some a in {numbers}; some b in {numbers}; some c in {numbers}; some d in {numbers}; d < 0}}"
    scene.rule(f'package sidecar\n\ndecision := {{"effect": "deny", "ttl_seconds": count({loop})}}\n')


def wrong_type(scene: Scene) -> None:
    scene.rule('package sidecar\n\ndecision := "permit"\n')


def wrong_type_for_some(scene: Scene) -> None:
    """Only where somebody acts for nobody: a place that no test of the bundle looks at."""
    scene.rule(
        "package sidecar\n\n"
        f'decision := {DENY} if {{\n\tinput.subject.kind == "personnel"\n}} else := {DENY[:-1]}, "extra": 1}}\n'
    )


TWO = (
    f'package sidecar\n\ndecision := {PERMIT} if {{\n\tinput.subject.person.id == "amy"\n}}\n\n'
    f'decision := {DENY} if {{\n\tinput.action.name == "read"\n}}\n'
)


def two_documents(scene: Scene) -> None:
    test = 'data.sidecar.decision.effect == "permit" with input as {"subject": {"person": {"id": "amy"}}, "action": {"name": "read"}}'
    scene.rule(TWO, f"package sidecar.trial_test\n\ntest_amy if {{\n\t{test}\n}}\n")


def two_defaults(scene: Scene) -> None:
    scene.rule(f"package sidecar\n\ndefault decision := {PERMIT}\n\ndefault decision := false\n")


def fails_its_test(scene: Scene) -> None:
    scene.rule(f"package sidecar\n\ndecision := {PERMIT}\n", "package sidecar.trial_test\n\ntest_no if false\n")


def permits_what_it_does_not_know(scene: Scene) -> None:
    scene.rule(
        f"package sidecar\n\ndecision := {PERMIT} if {{\n\tinput.subject.person.us_personnel == null\n}} else := {DENY}\n"
    )


def half_an_archive(scene: Scene) -> None:
    scene.put(scene.file.read_bytes()[:-200])


def a_folder_in_its_place(scene: Scene) -> None:
    scene.file.unlink()
    scene.file.mkdir()


BAD: dict[Callable[[Scene], None], str] = {
    tampered: "is not the file that was signed",
    forged: "does not verify with the key of alice",
    unsigned: "is not signed",
    by_a_revoked_signer: "bob is revoked",
    wrong_roots: "outside of the manifest's roots",
    zip_slip: "leads out of the bundle",
    gigabyte: "larger than 67108864 bytes",
    gigabyte_of_something_else: "unpacks to more than",
    endless_recursion: "reads itself",
    endless_comprehension: "takes too long",
    wrong_type: "not a decision document",
    wrong_type_for_some: "not a decision document",
    two_documents: "sidecar.trial_test.test_amy (",
    two_defaults: "two defaults",
    fails_its_test: "tests fail",
    permits_what_it_does_not_know: "a deny becomes a permit",
    half_an_archive: "cut short",
    a_folder_in_its_place: "not a regular file",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda one: one.__name__)
async def test_the_old_policy_stays_and_the_message_says_why(tmp_path: Path, spoil: Callable[[Scene], None]) -> None:
    scene = Scene(tmp_path)
    rig = scene.rig
    before, state = rig.revision, rig.kept.state
    cache = DecisionCache(clock=lambda: 0.0)
    point = CachedDecisionPoint(inner=rig.standing.decisions, cache=cache, revisions=rig.standing.revisions)
    data = canonical(AMY)
    await point.decide(AMY, data)
    spoil(scene)
    began = time.monotonic()
    await rig.looks(3)
    assert time.monotonic() - began < SECONDS
    assert BAD[spoil] in (rig.standing.problem or "")
    assert rig.standing.problem, "it is in status and in the metric"
    assert rig.log.events() == ["policy_refused"]
    assert (rig.revision, rig.standing.decisions.active.revision) == (before, before)
    assert rig.kept.state.bundles == state.bundles
    assert rig.events == [], "nothing was recorded or decided anew"
    assert point.peek(data) is not None
    assert await rig.ttl() == 5
    if scene.file.is_file() and spoil is not endless_comprehension:  # ten seconds of trying once are enough
        with pytest.raises(ConfigurationError):
            await rig.do("policy.activate", str(scene.file))
    assert rig.revision == before
    if scene.file.is_dir():
        scene.file.rmdir()
    shutil.rmtree(scene.work)
    write_policy(scene.work, ttl_seconds=6)
    scene.signed()
    await rig.looks(3)
    assert (await rig.ttl(), rig.standing.problem) == (6, None)
    assert rig.standing.policy(clock()).signers == ("alice",)


async def test_two_documents_that_no_test_looks_at_refuse_the_call(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.rule(TWO)
    await scene.rig.looks(3)
    assert scene.rig.standing.problem is None
    with pytest.raises(DecideError, match="gave no decision"):
        await scene.rig.standing.decisions.decide(AMY, canonical(AMY))
