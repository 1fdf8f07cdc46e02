"""Bundles and signatures, held against OPA itself: it takes what we write, and we take what it writes."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from bundle_signing import NOW, ec_key, ed25519_key, rsa_key, signed, write_bundle, write_key, write_signers

from sidecar.decision import archive, signatures
from sidecar.decision.activation import activate
from sidecar.decision.embedded import EmbeddedMaker
from sidecar.decision.folder import load_folder
from sidecar.errors import ConfigurationError
from sidecar.main.policy_signers import read_signers
from sidecar.main.sources import load_file

POLICIES = Path(__file__).parents[2] / "policies"
KEYS = {"ES256": ec_key, "RS256": rsa_key, "EdDSA": ed25519_key}
SECONDS = 60


@pytest.fixture(scope="session")
def opa(needs) -> Path:
    return needs("opa", "run `make tools`")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(POLICIES, tmp_path / "policies"))


def ran(*command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(one) for one in command], capture_output=True, text=True, timeout=SECONDS, check=False, cwd=cwd
    )


def built_by_opa(opa: Path, folder: Path, target: Path, *more: object) -> Path:
    done = ran(opa, "build", "-b", ".", "-o", target, *more, cwd=folder)
    assert done.returncode == 0, done.stderr
    return target


def test_opa_answers_from_what_we_build(opa, folder, tmp_path):
    found = write_bundle(tmp_path / "b.tar.gz", folder)
    request = dict(found.files)["schemas/corpus.json"]
    (tmp_path / "input.json").write_text(json.dumps(json.loads(request)[0]))
    said = [
        ran(opa, "eval", "-b", bundle, "-i", tmp_path / "input.json", "data.sidecar.decision", "--format", "raw")
        for bundle in (folder, tmp_path / "b.tar.gz")
    ]
    assert said[0].returncode == said[1].returncode == 0, said[1].stderr
    assert said[0].stdout == said[1].stdout
    assert json.loads(said[1].stdout)["effect"] in ("permit", "deny")


def test_opa_tests_and_rebuilds_what_we_build(opa, folder, tmp_path):
    found = write_bundle(tmp_path / "b.tar.gz", folder)
    assert ran(opa, "test", "-b", tmp_path / "b.tar.gz").returncode == 0
    assert ran(opa, "build", "-b", tmp_path / "b.tar.gz", "-o", tmp_path / "again.tar.gz").returncode == 0
    again = json.loads(archive.read_archive((tmp_path / "again.tar.gz").read_bytes(), "x")[".manifest"])
    assert (again["revision"], again["metadata"]["label"]) == (found.revision, found.label)


def test_we_answer_from_what_opa_builds(opa, folder, tmp_path):
    """Its data is merged into one file at the top, its names begin with a slash, and the corpus is left out."""
    found = load_file(built_by_opa(opa, folder, tmp_path / "b.tar.gz", "--revision", "seven"))
    ours = load_folder(folder)
    assert (found.label, found.corpus, found.modules) == ("seven", (), ours.modules)
    assert json.loads(found.data) == json.loads(ours.data)
    assert activate(found, "x", EmbeddedMaker(0.5)).tests_passed > 100


@pytest.mark.parametrize("algorithm", KEYS)
def test_opa_verifies_what_we_sign(opa, folder, tmp_path, algorithm):
    key = KEYS[algorithm]()
    path = write_key(tmp_path / "key.pem", key)
    write_bundle(tmp_path / "b.tar.gz", folder, ("alice", key))

    def verified(public: Path) -> bool:
        done = ran(
            opa, "build", "-b", tmp_path / "b.tar.gz", "-o", tmp_path / "out.tar.gz", "--verification-key", public,
            "--verification-key-id", "alice", "--signing-alg", algorithm,
        )  # fmt: skip
        return done.returncode == 0

    assert verified(tmp_path / "key.pem.pub")
    write_key(path, KEYS[algorithm]())
    assert not verified(tmp_path / "key.pem.pub")


@pytest.mark.parametrize("algorithm", KEYS)
def test_we_verify_what_opa_signs(opa, folder, tmp_path, algorithm):
    key = KEYS[algorithm]()
    path = write_key(tmp_path / "key.pem", key)
    target = built_by_opa(
        opa, folder, tmp_path / "b.tar.gz",
        "--signing-key", path, "--signing-alg", algorithm, "--verification-key-id", "alice",
    )  # fmt: skip
    signers = read_signers(write_signers(tmp_path / "signers.yaml", {"alice": key}))
    assert signatures.verify(load_file(target), signers, require=1, now=NOW, where="x") == ("alice",)
    other = read_signers(write_signers(tmp_path / "signers.yaml", {"alice": KEYS[algorithm]()}))
    with pytest.raises(ConfigurationError, match="does not verify"):
        signatures.verify(load_file(target), other, require=1, now=NOW, where="x")


def test_a_folder_that_opa_signs(opa, folder, tmp_path):
    """`opa sign` lists what stands beside the bundle too, and names the signer by a claim only."""
    key = ec_key()
    (tmp_path / "claims.json").write_text('{"keyid": "alice", "iss": "build"}')
    done = ran(
        opa, "sign", "-b", ".", "-o", ".", "--signing-key", write_key(tmp_path / "key.pem", key),
        "--signing-alg", "ES256", "--claims-file", tmp_path / "claims.json", cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    signers = read_signers(write_signers(tmp_path / "signers.yaml", {"alice": key}))
    assert signatures.verify(load_folder(folder), signers, require=1, now=NOW, where="x") == ("alice",)
    (folder / "sidecar" / "facts.rego").write_text("package sidecar.facts\n")
    with pytest.raises(ConfigurationError, match="is not the file that was signed"):
        signatures.verify(load_folder(folder), signers, require=1, now=NOW, where="x")


@pytest.mark.parametrize("text", ["<&>", "\N{LINE SEPARATOR}", 'é\x7f\x01\t"\\/', "\N{OLD PERSIAN SIGN A}"])
def test_both_digest_strings_alike(opa, folder, tmp_path, text):
    (folder / "data" / "more").mkdir()
    (folder / "data" / "more" / "data.json").write_text(json.dumps({text: [text, -1, 0, 9007199254740993]}))
    key = ec_key()
    target = built_by_opa(
        opa, folder, tmp_path / "b.tar.gz", "--signing-key", write_key(tmp_path / "key.pem", key),
        "--signing-alg", "ES256", "--verification-key-id", "alice",
    )  # fmt: skip
    signers = read_signers(write_signers(tmp_path / "signers.yaml", {"alice": key}))
    assert signatures.verify(load_file(target), signers, require=1, now=NOW, where="x") == ("alice",)


def test_two_signatures_are_one_too_many_for_opa(opa, folder, tmp_path):
    """Stated in docs/adr/0015-bundles.md: a bundle that OPA is to verify carries one signature."""
    keys = {"alice": ec_key(), "bob": ec_key()}
    write_bundle(tmp_path / "b.tar.gz", folder, *keys.items())
    write_key(tmp_path / "key.pem", keys["alice"])
    done = ran(
        opa, "build", "-b", tmp_path / "b.tar.gz", "-o", tmp_path / "out.tar.gz", "--verification-key",
        tmp_path / "key.pem.pub", "--verification-key-id", "alice", "--signing-alg", "ES256",
    )  # fmt: skip
    assert "multiple JWTs not supported" in done.stdout + done.stderr
    assert ran(opa, "eval", "-b", tmp_path / "b.tar.gz", "1").returncode == 0
    found = signed(load_file(tmp_path / "b.tar.gz"))
    signers = read_signers(write_signers(tmp_path / "signers.yaml", keys))
    assert signatures.verify(found, signers, require=2, now=NOW, where="x") == ("alice", "bob")
