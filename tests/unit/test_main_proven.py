"""A policy that this code has activated before is resumed, and nothing else is."""

import shutil
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.decision import bundle
from sidecar.errors import ConfigurationError
from sidecar.main.proven import ProvenPolicy

POLICIES = Path(__file__).resolve().parents[2] / "policies"


class Settings:
    """As much of the settings as is read."""

    def __init__(self, folder: Path) -> None:
        self.policy = self.bundle = self
        self.folder = folder
        self.decision = self
        self.deadline = 5.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(POLICIES, tmp_path / "policies"))


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def fails_in_full(folder: Path) -> str:
    """Make a test of the bundle fail; the digest of what stands there then."""
    (folder / "sidecar" / "broken_test.rego").write_text("package sidecar.broken_test\n\ntest_no if false\n")
    return bundle.load_folder(folder).revision


def test_a_second_start_takes_the_first_one_s_word(tmp_path: Path, folder: Path, key: Ed25519PrivateKey) -> None:
    first = ProvenPolicy(tmp_path / "note", key).activate(Settings(folder))
    second = ProvenPolicy(tmp_path / "note", key).activate(Settings(folder))
    assert (second.revision, second.tests_passed, second.documents_tried) == (
        first.revision, first.tests_passed, first.documents_tried,
    )  # fmt: skip
    assert first.tests_passed > 100


def test_another_bundle_is_activated_in_full(tmp_path: Path, folder: Path, key: Ed25519PrivateKey) -> None:
    ProvenPolicy(tmp_path / "note", key).activate(Settings(folder))
    fails_in_full(folder)
    with pytest.raises(ConfigurationError, match="tests fail"):
        ProvenPolicy(tmp_path / "note", key).activate(Settings(folder))


@pytest.mark.parametrize("how", ["revision", "mac", "key", "garbage", "missing"])
def test_a_note_that_proves_nothing_is_not_believed(
    tmp_path: Path, folder: Path, key: Ed25519PrivateKey, how: str
) -> None:
    note = tmp_path / "note"
    ProvenPolicy(note, key).activate(Settings(folder))
    revision = fails_in_full(folder)
    found = msgspec.json.decode(note.read_bytes())
    if how == "key":  # somebody with a key of their own writes the whole note
        other = Ed25519PrivateKey.generate()
        forger = ProvenPolicy(note, other)
        found = {"revision": revision, "tests": 1, "tried": 1, "mac": forger._mac(revision, 1, 1)}
    found["revision"] = revision
    if how == "mac":
        found["mac"] = "0" * 64
    note.write_bytes(b"{" if how == "garbage" else msgspec.json.encode(found))
    if how == "missing":
        note.unlink()
    with pytest.raises(ConfigurationError, match="tests fail"):
        ProvenPolicy(note, key).activate(Settings(folder))


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path: Path, folder: Path, key: Ed25519PrivateKey) -> None:
    (tmp_path / "file").write_text("")
    assert ProvenPolicy(tmp_path / "file" / "note", key).activate(Settings(folder)).tests_passed > 100
