"""A sidecar of two workers: one thing to its callers, its operators and the store."""

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from deployment import sidecar
from minimal_policy import write_policy
from worker_rig import KINDS, SIDECAR, Load, Several, doubled, findings, unrecorded, until

from sidecar.decision.folder import load_folder
from sidecar.demo.processes import free_port

DENY = {"effect": "deny", "reasons": [{"code": "not_us_personnel", "message": "not now", "rule": "sidecar.trial"}]}


@pytest.fixture(scope="module", params=KINDS)
def deployed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    folder = tmp_path_factory.mktemp("workers")
    policies = write_policy(folder / "policies")
    with request.param(folder / "world", policy__bundle__folder=str(policies)) as deployment:
        yield deployment


def policies(deployment: Several) -> Path:
    return deployment.folder.parent / "policies"


def replaced(deployment: Several, **decision: object) -> str:
    """Another policy at its source, and in force everywhere; its revision."""
    folder = policies(deployment)
    beside = write_policy(folder.with_name("next"), **decision)
    revision = load_folder(beside).revision
    old = folder.with_name(f"old-{time.monotonic_ns()}")
    folder.rename(old)
    beside.rename(folder)
    shutil.rmtree(old)
    until(lambda: deployment.status()["policy"] == revision, "the policy is in force in all workers")
    return revision


def test_it_says_once_that_it_is_ready_and_its_status_is_that_of_one_process_with_its_workers(
    deployed: Several,
) -> None:
    assert deployed.told("ready") == 1
    assert deployed.said("ready")[0]["workers"] == 2
    found = deployed.status()
    both = found["workers"]
    assert [one["worker"] for one in both] == [0, 1]
    assert len({one["slot"] for one in both}) == len({one["pid"] for one in both}) == 2
    alone = set(both[0]) - {"worker", "pid", "slot", "state", "restarts"}
    assert alone <= set(found), "the keys of a single process"
    assert found["spool_bytes"] == sum(one["spool_bytes"] for one in both)
    assert found["problems"] == []
    assert sidecar("status", "--config", deployed.folder / "sidecar.yaml").returncode == 0


def test_connections_go_to_both_and_each_has_a_chain_of_its_own(deployed: Several) -> None:
    answers = [deployed.profile() for _ in range(24)]
    assert {one.status for one in answers} == {"OK"}
    deployed.delivered()
    mine = {one.call_id for one in answers}
    slots = Counter(leaf["slot"] for leaf, _ in deployed.records(type="outcome") if leaf["call_id"] in mine)
    assert len(slots) == 2, "24 connections at one of two workers: once in 8 million runs"
    assert unrecorded(deployed, answers) == []
    assert doubled(deployed) == []


def test_one_page_of_metrics_has_every_worker(deployed: Several) -> None:
    deployed.profile()
    page = deployed.page()
    assert {one.labels["worker"] for one in page} == {"0", "1", "supervisor"}
    started = {one.labels["worker"] for one in page if one.name == "process_start_time_seconds"}
    assert started == {"0", "1", "supervisor"}
    states = {one.labels["state"]: one.value for one in page if one.name == "customhouse_workers"}
    assert states == {"starting": 0, "serving": 2, "draining": 0}
    assert sum(one.value for one in page if one.name == "customhouse_calls_total") >= 1


def test_a_policy_is_put_in_force_and_taken_back_in_all_workers(deployed: Several) -> None:
    before = str(deployed.status()["policy"])
    deployed.delivered()
    earlier = len(deployed.records(type="admin_action"))
    denying = write_policy(deployed.folder.parent / "denying", **DENY)
    done = deployed.admin("policy.activate", str(denying))
    assert done.get("changed") is True, done
    # No waiting: what was answered holds in every worker by then.
    assert {one["policy"] for one in deployed.answers_of_workers()} == {done["revision"]}
    assert {deployed.profile().status for _ in range(12)} == {"PERMISSION_DENIED"}
    assert deployed.admin("policy.status")["pinned"] is not None
    back = deployed.admin("policy.rollback")
    assert back["revision"] == before
    assert {deployed.profile().status for _ in range(12)} == {"OK"}
    deployed.delivered()
    told = [(leaf["slot"], body["details"]["by"].partition(":")[0])  # type: ignore[index]
            for leaf, body in deployed.records(type="policy_activated")]  # fmt: skip
    assert Counter(by for _, by in told) >= Counter({"start": 2, "admin": 2, "rollback": 2})
    actions = [body["details"]["action"] for _, body in deployed.records(type="admin_action")[earlier:]]  # type: ignore[index]
    assert actions == ["policy.activate", "policy.rollback"], "once each, not once a worker"


def test_a_worker_that_is_started_again_has_the_pinned_policy(deployed: Several) -> None:
    denying = write_policy(deployed.folder.parent / "pinned", ttl_seconds=7, **DENY)
    revision = deployed.admin("policy.activate", str(denying))["revision"]
    pids = deployed.worker_pids()
    restarted = deployed.told("worker_ended")
    os.kill(pids[0], signal.SIGKILL)
    until(lambda: deployed.told("worker_ended") > restarted and len(deployed.answers_of_workers()) == 2, "it is back")
    seen: set[str] = set()

    def all_denied() -> bool:
        """A worker answers its supervisor before its door is open: a connection to it may be UNAVAILABLE until then."""
        now = {deployed.profile().status for _ in range(12)}
        seen.update(now)
        return now == {"PERMISSION_DENIED"}

    try:
        assert {one["policy"] for one in deployed.answers_of_workers()} == {revision}
        until(all_denied, "both workers deny")
        assert seen <= {"PERMISSION_DENIED", "UNAVAILABLE"}
    finally:
        back = deployed.admin("policy.rollback")
    assert back["revision"] != revision


def waiting(deployment: Several) -> list[psutil.Process]:
    """Processes of the sidecar that are no workers yet."""
    workers = set(deployment.worker_pids())
    below = psutil.Process(deployment.processes.pid(SIDECAR)).children()
    return [one for one in below if one.pid not in workers and one.status() != psutil.STATUS_ZOMBIE]


def test_a_process_that_waits_takes_the_place_of_a_worker_that_ends(deployed: Several) -> None:
    until(lambda: len(waiting(deployed)) == 1, "there is a spare")
    (spare,) = waiting(deployed)
    ended, first = deployed.told("worker_ended"), deployed.worker_pids()[0]
    os.kill(first, signal.SIGKILL)
    until(lambda: deployed.told("worker_ended") > ended and len(deployed.answers_of_workers()) == 2, "it is back")
    assert spare.pid in deployed.worker_pids() and first not in deployed.worker_pids()
    until(lambda: len(waiting(deployed)) == 1, "there is another spare")
    assert waiting(deployed)[0].pid != spare.pid


def test_a_policy_that_is_refused_changes_nothing_anywhere(deployed: Several) -> None:
    before = deployed.status()["policy"]
    broken = write_policy(deployed.folder.parent / "broken")
    (broken / "sidecar" / "trial.rego").write_text("package sidecar.trial\n\nx := ")
    assert "error" in deployed.admin("policy.activate", str(broken))
    assert {one["policy"] for one in deployed.answers_of_workers()} == {before}
    assert deployed.profile().status == "OK"


def test_a_policy_from_the_source_is_in_force_in_both_with_no_wrong_answer(deployed: Several) -> None:
    effects = {str(deployed.status()["policy"]): "OK"}
    with Load(deployed, threads=4) as load:
        for number in range(4):
            denies = number % 2 == 0
            effects[replaced(deployed, ttl_seconds=100 + number, **(DENY if denies else {}))] = (
                "PERMISSION_DENIED" if denies else "OK"
            )
    assert set(load.counted()) - {"UNAVAILABLE"} == {"OK", "PERMISSION_DENIED"}
    answered = [one for one in load.answers if one.status != "UNAVAILABLE"]
    # On a busy machine a new connection may not be made in time; what has reached the sidecar is answered.
    assert [one for one in load.answers if one.status == "UNAVAILABLE" and one.call_id] == []
    deployed.delivered()
    recorded = deployed.calls()
    for answer in answered:
        revisions = {one["policy"]["revision"] for one in recorded[answer.call_id].decisions}  # type: ignore[index]
        assert answer.status in {effects[one] for one in revisions}, answer


def test_a_reload_takes_other_settings_up_and_loses_no_call(deployed: Several) -> None:
    slots = {one["slot"] for one in deployed.status()["workers"]}
    with Load(deployed) as load:
        deployed.configure(limits__streams=512, spare=False)
        assert deployed.reload()
        assert waiting(deployed) == [], "nor is there one that nobody wants"
        deployed.configure(limits__streams=None, spare=None)
        assert deployed.reload()
    assert set(load.counted()) <= {"OK", "UNAVAILABLE"}, load.counted()
    assert load.counted()["OK"] > 50
    found = deployed.status()
    assert found["generation"] == 3
    assert {one["slot"] for one in found["workers"]} == slots, "what the first generation left is taken again"
    deployed.delivered()
    # The old workers send what is left while they drain, and the new ones settle what they leave.
    until(lambda: unrecorded(deployed, load.answers) == [], "every answered call has its records")
    assert doubled(deployed) == []
    until(lambda: findings(deployed) == [], "no epoch is left open")
    cut = Counter(answer.text[:120] for answer in load.answers if answer.status != "OK")
    print(f"\ntwo reloads: {load.counted()}; {dict(cut)}")


def test_settings_that_are_wrong_are_refused_and_what_ran_goes_on(deployed: Several) -> None:
    pids = deployed.worker_pids()
    deployed.configure(subjects__index="missing.idx")
    try:
        assert not deployed.reload()
        assert "missing.idx" in deployed.said("reload_refused")[-1]["detail"]
        deployed.configure(unknown="key")
        assert not deployed.reload()
    finally:
        deployed.configure(subjects__index="us-subjects.idx", unknown=None)
    assert deployed.worker_pids() == pids
    assert deployed.profile().status == "OK"


def test_a_second_sidecar_on_the_same_spool_is_refused(deployed: Several) -> None:
    done = sidecar("run", "--config", deployed.folder / "sidecar.yaml", "--workers", "2", *deployed.host)
    assert (done.returncode, done.stderr.count("another sidecar uses this spool")) == (2, 1), done.stderr
    done = sidecar("run", "--config", deployed.folder / "sidecar.yaml")
    assert (done.returncode, done.stderr.count("another sidecar uses this spool")) == (2, 1), done.stderr


@pytest.mark.parametrize("what", ["missing", "port", "policy"])
def test_an_error_at_the_start_is_shown_once(deployed: Several, tmp_path: Path, what: str) -> None:
    file = deployed.folder / f"wrong-{what}.yaml"
    tree = yaml.safe_load((deployed.folder / "sidecar.yaml").read_text())
    tree |= {"record": {**tree["record"], "spool": str(tmp_path / "spool")}, "admin": {"socket": str(tmp_path / "a")}}
    tree["metrics"]["listen"] = f"127.0.0.1:{free_port()}"
    if what == "missing":
        tree["subjects"]["index"] = "missing.idx"
    elif what == "port":
        tree["listen"][0]["address"] = f"127.0.0.1:{deployed.world.ports['append']}"
    else:
        tree["policy"]["bundle"] = {"folder": str(tmp_path)}
    file.write_text(yaml.safe_dump(tree))
    done = sidecar("run", "--config", file, "--workers", "2", *deployed.host)
    # gRPC core says by itself, in each process, that it cannot bind.
    errors = [line for line in done.stderr.splitlines() if not line.startswith("{") and "add_port.cc" not in line]
    assert done.returncode == 2
    assert len(errors) == 1 and errors[0].startswith("configuration: "), done.stderr
    assert "Traceback" not in done.stderr
