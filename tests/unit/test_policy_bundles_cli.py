"""`sidecar policy build`, `sign` and `verify`, as a shell sees them."""

import json
import shutil
from pathlib import Path

import pytest
from bundle_signing import ec_key, ed25519_key, write_key, write_signers
from minimal_policy import write_policy

from sidecar.decision.folder import load_folder

ALICE, BOB = ed25519_key(), ec_key()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_policy(tmp_path / "policies")


@pytest.fixture
def built(shell, folder, tmp_path) -> Path:
    assert shell("policy", "build", folder, "-o", tmp_path / "b.tar.gz").code == 0
    write_key(tmp_path / "alice.pem", ALICE)
    write_key(tmp_path / "bob.pem", BOB)
    write_signers(tmp_path / "signers.yaml", {"alice": ALICE, "bob": BOB})
    return tmp_path / "b.tar.gz"


def test_what_is_built_names_its_revision(shell, folder, tmp_path):
    ran = shell("policy", "build", folder, "--output", tmp_path / "b.tar.gz", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out) == {
        "bundle": str(tmp_path / "b.tar.gz"), "revision": load_folder(folder).revision, "label": "trial", "policies": 1,
        "tests": 1, "bytes": (tmp_path / "b.tar.gz").stat().st_size,
    }  # fmt: skip
    before = (tmp_path / "b.tar.gz").read_bytes()
    assert load_folder(folder).revision in shell("policy", "build", folder, "-o", tmp_path / "b.tar.gz").out
    assert (tmp_path / "b.tar.gz").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"policies", "b.tar.gz"}


def test_a_folder_that_is_no_bundle_is_not_built(shell, folder, tmp_path):
    (folder / ".manifest").unlink()
    assert "the bundle has no manifest" in shell.refused("policy", "build", folder, "-o", tmp_path / "b.tar.gz")
    assert not (tmp_path / "b.tar.gz").exists()


def test_one_signs_then_another_and_both_are_verified(shell, built, tmp_path):
    verify = ("policy", "verify", built, "--keys", tmp_path / "signers.yaml", "--require", "2")
    ran = shell(*verify)
    assert (ran.code, ran.out, "is not signed" in ran.err) == (1, "", True)
    revision = json.loads(
        shell("policy", "sign", built, "--key", tmp_path / "alice.pem", "--as", "alice", "--json").out
    )
    ran = shell(*verify)
    assert (ran.code, ran.out, "1 of 2" in ran.err) == (1, "", True)
    assert shell("policy", "sign", built, "--key", tmp_path / "bob.pem", "--as", "bob").code == 0
    ran = shell(*verify, "--json")
    assert ran.code == 0
    assert json.loads(ran.out)["signers"] == ["alice", "bob"]
    assert json.loads(ran.out)["revision"] == revision["revision"]
    assert "signers          alice, bob" in shell(*verify).out


def test_a_folder_is_signed_where_it_stands(shell, folder, built, tmp_path):
    assert shell("policy", "sign", folder, "--key", tmp_path / "alice.pem", "--as", "alice").code == 0
    verify = ("policy", "verify", folder, "--keys", tmp_path / "signers.yaml")
    assert shell(*verify).code == 0
    shutil.copy(folder / "sidecar" / "decision.rego", folder / "sidecar" / "more.rego")
    assert "does not list sidecar/more.rego" in shell(*verify).err


def test_a_scope_is_asked_for(shell, built, tmp_path):
    write_signers(tmp_path / "signers.yaml", {"alice": ALICE}, scope="write")
    sign = ("policy", "sign", built, "--key", tmp_path / "alice.pem", "--as", "alice")
    verify = ("policy", "verify", built, "--keys", tmp_path / "signers.yaml")
    assert shell(*sign).code == 0
    assert "for the scope '', not 'write'" in shell(*verify).err
    assert shell(*sign, "--scope", "write").code == 0
    assert shell(*verify).code == 0


def test_keys_that_cannot_sign_are_named(shell, built, tmp_path):
    sign = ("policy", "sign", built, "--as", "alice", "--key")
    assert "cannot be read" in shell.refused(*sign, tmp_path / "none.pem")
    assert "no PEM key" in shell.refused(*sign, tmp_path / "alice.pem.pub")
    assert shell("keys", "new", tmp_path / "seal", "--sealing").code == 0
    assert "this kind of key does not sign" in shell.refused(*sign, tmp_path / "seal")


def test_signers_that_cannot_be_used_are_a_mistake_not_a_finding(shell, built, tmp_path):
    assert "cannot be read" in shell.refused("policy", "verify", built, "--keys", tmp_path / "none.yaml")


def test_a_running_sidecar_is_asked_over_its_admin_socket(shell, tmp_path):
    for words in (("status",), ("activate",), ("rollback", "--to", "sha256:12345678")):
        assert "none.yaml" in shell.refused("policy", *words, "--config", tmp_path / "none.yaml")
