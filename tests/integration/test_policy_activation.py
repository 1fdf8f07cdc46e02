"""The policy of a running sidecar is replaced: under load, by its source, by a person, and back, over a restart."""

import json
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from bundle_signing import ed25519_key, write_bundle, write_key, write_signers
from deployment import Answer, Deployment, Tree, sidecar, wait
from minimal_policy import write_policy

from sidecar.decision.folder import load_folder
from sidecar.demo.profiles.v1 import profiles_pb2 as pb

SOON = 60.0
SWAPS = 20
THREADS = 3
OWN = 1000
"""Lifetimes from here on are this test's alone: their policies have revisions that no other test's records name."""
DENY = {"effect": "deny", "reasons": [{"code": "not_us_personnel", "message": "not now", "rule": "sidecar.trial"}]}
ALICE, BOB = ed25519_key(), ed25519_key()


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("activation")) as deployment:
        yield deployment


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_policy(tmp_path / "policies")


def get(deployment: Deployment) -> Answer:
    return deployment.call("GetProfile", pb.GetProfileRequest(user_id=deployment.world.cast.us), port="abroad")


def status(deployment: Deployment) -> Tree:
    """What `sidecar policy status` says of the variant."""
    found = sidecar("policy", "status", "--config", deployment.folder / "variant.yaml", "--json")
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def command(deployment: Deployment, *words: str | Path) -> tuple[int, str]:
    done = sidecar("policy", words[0], "--config", deployment.folder / "variant.yaml", *words[1:])
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def in_force(deployment: Deployment) -> str:
    return str(deployment.status("variant.yaml")["policy"])


def swapped(folder: Path, number: int, **decision: object) -> str:
    """Another policy in the place of this folder, by two renames; its revision."""
    beside = write_policy(folder.with_name(f"next-{number}"), **decision)
    revision = load_folder(beside).revision
    folder.rename(folder.with_name(f"old-{number}"))
    beside.rename(folder)
    return revision


class Load:
    """Callers that ask without a pause until told to stop."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment, self._stop = deployment, threading.Event()
        self.answers: list[Answer] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(THREADS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._stop.is_set():
            self.answers.append(get(self._deployment))


def test_replacing_it_twenty_times_under_load_gives_no_wrong_decision_and_no_error(
    deployed: Deployment, source: Path, tmp_path: Path
) -> None:
    """By its source, by going back to the one before, by its source, by a bundle of a person's choice, and so on."""
    write_policy(source, ttl_seconds=OWN)
    effects = {load_folder(source).revision: "permit"}
    with deployed.variant(policy__bundle__folder=str(source)):
        deployed.caller("console", "abroad")
        before = in_force(deployed)
        with Load(deployed) as load:
            for number in range(1, SWAPS + 1):
                now = in_force(deployed)
                decision = DENY if effects[now] == "permit" else {}
                if number % 2:
                    after = swapped(source, number, ttl_seconds=OWN + number, **decision)
                elif number % 4 == 2:
                    after = before
                    assert command(deployed, "rollback", "--to", after)[0] == 0
                else:
                    mine = write_policy(tmp_path / f"mine-{number}", ttl_seconds=OWN + number, **decision)
                    after = write_bundle(tmp_path / "mine.tar.gz", mine).revision
                    assert command(deployed, "activate", tmp_path / "mine.tar.gz")[0] == 0
                effects[after] = "deny" if decision else "permit"
                wait(lambda: in_force(deployed) == after, SOON, "the other policy is in force")  # noqa: B023
                before = now
        deployed.delivered(60, "variant.yaml")
    said = Counter(
        str(body["details"]["by"]).partition(":")[0]  # type: ignore[index]
        for _, body in deployed.records(type="policy_activated")
        if body["details"]["revision"] in effects  # type: ignore[index]
    )
    assert said == {"start": 1, "folder": SWAPS // 2, "rollback": SWAPS // 4, "admin": SWAPS // 4}
    assert wrong(load.answers, deployed, effects) == []
    counted = Counter(answer.status for answer in load.answers)
    assert set(counted) == {"OK", "PERMISSION_DENIED"}
    assert min(counted.values()) > SWAPS


def wrong(answers: list[Answer], deployed: Deployment, effects: dict[str, str]) -> list[object]:
    """Answers that are errors, are not recorded, or differ from what the policy that their records name would say."""
    recorded, found = deployed.calls(), []
    for answer in answers:
        call = recorded.get(answer.call_id)
        if call is None or any(
            one["decision"]["effect"] != effects[one["policy"]["revision"]] for one in call.decisions
        ):  # type: ignore[index]
            found.append((answer, call))
        elif not answer.status == call.status == ("OK" if call.effects[-1] == "permit" else "PERMISSION_DENIED"):
            found.append((answer, call))
    return found


def test_a_signed_file_goes_into_force_only_with_enough_signatures(
    deployed: Deployment, source: Path, tmp_path: Path
) -> None:
    file = tmp_path / "b.tar.gz"
    signers = write_signers(tmp_path / "signers.yaml", {"alice": ALICE, "bob": BOB})
    first = write_bundle(file, source, ("alice", ALICE), ("bob", BOB), now=time.time()).revision
    keys = {"file": str(signers), "require": 2}
    with deployed.variant(policy__bundle={"file": str(file)}, policy__keys=keys, record__spool="signed-spool"):
        assert (in_force(deployed), get(deployed).status) == (first, "OK")
        write_policy(source, **DENY)
        write_key(tmp_path / "alice.pem", ALICE)
        write_key(tmp_path / "bob.pem", BOB)
        assert sidecar("policy", "build", source, "-o", file).returncode == 0
        wait(lambda: "is not signed" in str(status(deployed)["problem"]), SOON, "the unsigned bundle is refused")
        assert sidecar("policy", "sign", file, "--key", tmp_path / "alice.pem", "--as", "alice").returncode == 0
        wait(lambda: "1 of 2" in str(status(deployed)["problem"]), SOON, "one signature is not enough")
        assert (in_force(deployed), get(deployed).status) == (first, "OK")
        code, text = command(deployed, "activate", file)
        assert (code, "1 of 2 signatures" in text) == (1, True)
        assert sidecar("policy", "sign", file, "--key", tmp_path / "bob.pem", "--as", "bob").returncode == 0
        wait(lambda: in_force(deployed) != first, SOON, "the bundle that both have signed is in force")
        answer = get(deployed)
        assert answer.said == "PERMISSION_DENIED not_us_personnel"
        assert status(deployed)["in_force"]["signers"] == ["alice", "bob"]
        deployed.delivered(60, "variant.yaml")
        assert deployed.recorded(answer.call_id).decisions[0]["policy"]["signers"] == ["alice", "bob"]
        tried = [body["details"] for _, body in deployed.records(type="admin_action")]
        user = tried[-1]["by"]
        assert tried[-1] == {"action": "policy.activate", "by": user, "done": False, "revision": None}
        assert str(user).startswith("admin:")
        write_signers(signers, {"alice": ALICE, "bob": BOB}, revoked=["bob"])
        wait(lambda: "would not be accepted now" in str(status(deployed)["problem"]), SOON, "the revocation is noticed")


def test_a_rollback_and_a_lost_source_survive_a_restart(deployed: Deployment, source: Path) -> None:
    first = load_folder(source).revision
    settings: dict[str, object] = {"policy__bundle__folder": str(source), "record__spool": "restart-spool"}
    with deployed.variant(**settings):
        second = swapped(source, 1, **DENY)
        wait(lambda: in_force(deployed) == second, SOON, "the second policy is in force")
        code, text = command(deployed, "rollback")
        assert (code, first in text) == (0, True)
    with deployed.variant(**settings):
        wait(lambda: status(deployed)["source"]["holds"] == "pinned over", SOON, "the source has been looked at")
        said = status(deployed)
        assert said["in_force"]["revision"] == first
        assert said["in_force"]["by"].startswith("rollback:")
    shutil.rmtree(source)
    with deployed.variant(**settings):
        said = status(deployed)
        assert (said["in_force"]["revision"], said["source"]["holds"]) == (first, "unreadable")
        assert get(deployed).status == "OK"
        third = load_folder(write_policy(source, ttl_seconds=3)).revision
        wait(lambda: in_force(deployed) == third, SOON, "a source that is back, with another bundle, is followed")
        lines = command(deployed, "status")[1].splitlines()
        assert lines[0].split() == ["in", "force", third, "trial"]
        assert sum(line.startswith("kept") for line in lines) == 3


def test_a_mounted_volume_is_followed_through_its_swaps(deployed: Deployment, tmp_path: Path) -> None:
    """As Kubernetes does it: a new folder, then one rename of a link."""
    mount = tmp_path / "mount"
    for number, decision in enumerate(({}, DENY)):
        write_policy(mount / f"..{number}", **decision)
    for name in (".manifest", "sidecar"):
        (mount / name).symlink_to(f"..data/{name}")
    (mount / "..data").symlink_to("..0")
    with deployed.variant(policy__bundle__folder=str(mount), record__spool="mounted-spool"):
        assert get(deployed).status == "OK"
        (mount / "..tmp").symlink_to("..1")
        os.replace(mount / "..tmp", mount / "..data")
        wait(lambda: get(deployed).status == "PERMISSION_DENIED", SOON, "the new generation decides")
