"""What was in force is kept with what was proved of it, survives a restart, and cannot be slipped in by another."""

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from bundle_signing import ed25519_key, write_bundle, write_signers
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from minimal_policy import write_policy
from policy_rig import Clock, PolicyRig

from sidecar.decision import activation
from sidecar.decision.embedded import EmbeddedMaker
from sidecar.decision.folder import load_folder
from sidecar.errors import ConfigurationError, DecideError
from sidecar.main.given import clock
from sidecar.main.proven import KEPT, KeptPolicies, Pin
from sidecar.main.sources import file_source, folder_source

DAY = 86400.0


class Counting(EmbeddedMaker):
    """Counts how often tests are run."""

    tested = 0

    def run_tests(self, bundle):
        type(self).tested += 1
        return super().run_tests(bundle)


@pytest.fixture(autouse=True)
def _from_zero():
    Counting.tested = 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_policy(tmp_path / "policies")


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def make(folder, tmp_path, key):
    def made(**more) -> PolicyRig:
        monotonic = Clock()
        given = {"maker": Counting(5.0), "key": key, **more}
        return PolicyRig(
            folder_source(folder, monotonic), tmp_path / "kept", given.pop("key"), monotonic=monotonic, **given
        )

    return made


def active(folder: Path):
    return activation.activate(load_folder(folder), "x", EmbeddedMaker(5.0))


def state(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "state"


# -- what was proved --------------------------------------------------------------------------------------------------


def test_a_second_start_takes_the_first_one_s_word(make):
    first, second = make(), make()
    assert Counting.tested == 1
    assert second.started.active.tests_passed == first.started.active.tests_passed == 1
    assert second.started.active.documents_tried == first.started.active.documents_tried > 0


def test_another_bundle_is_activated_in_full(make, folder):
    make()
    write_policy(folder, ttl_seconds=3)
    make()
    assert Counting.tested == 2


def test_an_engine_that_is_not_part_of_the_code_proves_nothing_for_later(make):
    make()
    one = make()
    object.__setattr__(one.entry, "resumable", False)
    one.entry.admit(one.started.found, "x")
    assert Counting.tested == 2


@pytest.mark.parametrize("how", ["mac", "state", "key", "garbage", "missing", "code", "truncated"])
def test_a_word_that_is_in_doubt_is_not_taken(make, tmp_path, how):
    make()
    file = state(tmp_path)
    content = file.read_bytes()
    if how == "missing":
        file.unlink()
    elif how in ("garbage", "truncated"):
        file.write_bytes(b"{" if how == "garbage" else content[:-3])
    elif how == "mac":
        file.write_bytes(msgspec.json.encode({**msgspec.json.decode(content), "mac": "0" * 64}))
    elif how == "state":
        file.write_bytes(content.replace(b'"tests":1', b'"tests":9'))
    elif how == "code":
        found = KeptPolicies(tmp_path / "kept", make().kept._key and Ed25519PrivateKey.generate())
        assert found.state.bundles == ()
    before = Counting.tested
    one = make(key=Ed25519PrivateKey.generate()) if how in ("key", "code") else make()
    assert Counting.tested == before + 1
    assert one.started.active.tests_passed == 1


def test_other_code_has_proved_nothing(make, monkeypatch):
    make()
    monkeypatch.setattr("sidecar.main.proven._code", lambda: "other")
    make()
    assert Counting.tested == 2


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_the_last_five_are_kept_and_the_files_of_others_deleted(folder, tmp_path, key):
    kept = KeptPolicies(tmp_path / "kept", key)
    revisions = []
    for number in range(KEPT + 2):
        write_policy(folder, ttl_seconds=number)
        one = active(folder)
        kept.keep(one, by="folder", source="x", now=float(number), pin=None)
        revisions.insert(0, one.revision)
    again = KeptPolicies(tmp_path / "kept", key)
    assert [one.revision for one in again.state.bundles] == revisions[:KEPT]
    assert len(list((tmp_path / "kept").glob("*.tar.gz"))) == KEPT
    assert again.load(again.state.bundles[-1]).revision == revisions[KEPT - 1]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "kept").glob("*")} == {0o600}


def test_what_is_put_in_force_again_comes_first(folder, tmp_path, key):
    kept = KeptPolicies(tmp_path / "kept", key)
    first = active(folder)
    write_policy(folder, ttl_seconds=3)
    for number, one in enumerate((first, active(folder), first)):
        kept.keep(one, by="folder", source="x", now=float(number), pin=None)
    assert [one.since for one in kept.state.bundles] == [2.0, 1.0]


def test_a_bundle_is_kept_to_the_byte_with_its_signatures(folder, tmp_path, key):
    kept = KeptPolicies(tmp_path / "kept", key)
    one = active(folder)
    signed = replace(one, bundle=replace(one.bundle, signatures=b"{}", signers=("alice",)))
    kept.keep(signed, by="folder", source="x", now=1.0, pin=Pin(over="sha256:1", by="ann", at=1.0))
    again = KeptPolicies(tmp_path / "kept", key)
    found = again.load(again.state.bundles[0])
    assert (found.files, found.signatures) == (one.bundle.files, b"{}")
    assert again.state.bundles[0].signers == ("alice",)
    assert again.state.pin == Pin(over="sha256:1", by="ann", at=1.0)


def test_a_kept_bundle_that_was_changed_is_not_loaded(folder, tmp_path, key):
    kept = KeptPolicies(tmp_path / "kept", key)
    kept.keep(active(folder), by="folder", source="x", now=1.0, pin=None)
    for path in (tmp_path / "kept").glob("*.tar.gz"):
        path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ConfigurationError, match="missing or damaged"):
        kept.load(kept.state.bundles[0])


def test_what_cannot_be_written_is_told_and_is_in_force_all_the_same(make, tmp_path):
    (tmp_path / "kept").write_text("")
    one = make()
    assert one.started.active.tests_passed == 1
    assert str(tmp_path / "kept") in (one.kept.problem or "")


def test_seeing_it_is_written_down_from_time_to_time_only(folder, tmp_path, key):
    kept = KeptPolicies(tmp_path / "kept", key)
    kept.keep(active(folder), by="folder", source="x", now=1000.0, pin=None)
    kept.seen(1030.0)
    assert KeptPolicies(tmp_path / "kept", key).state.seen == 1000.0
    kept.seen(1061.0)
    assert KeptPolicies(tmp_path / "kept", key).state.seen == 1061.0
    kept.seen(900.0)  # the clock was set back
    assert KeptPolicies(tmp_path / "kept", key).state.seen == 900.0


# -- a start without its source ---------------------------------------------------------------------------------------


async def test_a_start_goes_on_with_the_last_good_one_and_says_so(make, folder):
    first = make()
    shutil.rmtree(folder)
    second = make()
    assert second.revision == first.revision
    assert await second.ttl() == 0
    assert second.log.events() == ["policy_last_good"]
    assert "cannot be read" in second.standing.problem
    write_policy(folder, ttl_seconds=4)
    await second.looks()
    assert (await second.ttl(), second.standing.problem) == (4, None)


async def test_a_start_on_a_source_that_holds_what_is_refused_does_too(make, folder):
    first = make()
    (folder / "sidecar" / "decision_test.rego").write_text("package sidecar.trial_test\n\ntest_no if false\n")
    second = make()
    assert second.revision == first.revision
    await second.looks()
    assert "tests fail" in second.standing.problem


async def test_its_age_goes_on_too(make, folder):
    first = make()
    first.kept.state = msgspec.structs.replace(first.kept.state, seen=clock() - 8 * DAY)
    first.kept._write()
    shutil.rmtree(folder)
    second = make()
    with pytest.raises(DecideError, match="too old"):
        second.standing.policy(clock())
    assert any("past policy.max_age" in one for one in second.standing.problems(clock()))
    write_policy(folder)
    await second.looks()
    assert second.standing.policy(clock()).revision == first.revision


def test_without_anything_kept_there_is_no_start(make, folder):
    shutil.rmtree(folder)
    with pytest.raises(ConfigurationError, match=r"policy\.bundle\.folder: .*cannot be read"):
        make()


def test_what_was_kept_needs_the_same_signatures(folder, tmp_path, key):
    alice, bob = ed25519_key(), ed25519_key()
    signers = write_signers(tmp_path / "signers.yaml", {"alice": alice, "bob": bob})
    file = tmp_path / "b.tar.gz"

    def made() -> PolicyRig:
        return PolicyRig(file_source(file, Clock()), tmp_path / "kept", key, signers=signers)

    write_bundle(file, folder, ("alice", alice))
    first = made()
    file.unlink()
    assert made().revision == first.revision
    write_signers(signers, {"alice": alice, "bob": bob}, revoked=["alice"])
    with pytest.raises(ConfigurationError, match="alice is revoked") as caught:
        made()
    assert "cannot be read" in str(caught.value)


async def test_a_pin_whose_bundle_is_lost_is_no_reason_to_take_what_was_gone_back_from(make, folder, tmp_path):
    one = make()
    write_policy(folder, ttl_seconds=7)
    await one.looks()
    await one.do("policy.rollback")
    for path in (tmp_path / "kept").glob("*.tar.gz"):
        path.unlink()
    with pytest.raises(ConfigurationError, match="Give the source another revision"):
        make()
    write_policy(folder, ttl_seconds=8)
    assert await make().ttl() == 8
