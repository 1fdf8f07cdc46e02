"""A spool that is damaged, torn, somebody else's, or cannot be delivered: said, never mended in silence, nothing lost."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import SOON, Deployment, sidecar, wait
from minimal_policy import write_policy

from sidecar.demo.profiles.v1 import profiles_pb2 as pb

CALLS = 12


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("spool")) as deployment:
        yield deployment
        for name in ("variant", "sidecar", "store"):
            assert "Traceback" not in deployment.log(name)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_policy(tmp_path_factory.mktemp("policy")))


def spooled(deployment: Deployment, policy: str, calls: int = CALLS) -> list[str]:
    """Calls of a variant that dies before the store has taken any of their records; their ids."""
    with deployment.variant(policy__bundle__folder=policy):
        deployment.delivered(settings="variant.yaml")
        deployment.processes.kill("store")
        answers = [deployment.call("GetProfile", pb.GetProfileRequest(user_id=1), port="abroad") for _ in range(calls)]
        deployment.processes.kill("variant")
    deployment.stage.start_store()
    assert {one.status for one in answers} == {"OK"}
    return [one.call_id for one in answers]


def newest(deployment: Deployment) -> Path:
    return max((deployment.folder / "spool-abroad" / "0").glob("*.seg"))


def start(deployment: Deployment, **changes: object) -> subprocess.CompletedProcess[str]:
    return sidecar("run", "--config", deployment.write_variant(**changes), seconds=120)


def all_there(deployment: Deployment, call_ids: list[str]) -> None:
    deployment.delivered(settings="variant.yaml")
    calls = deployment.calls()
    for call_id in call_ids:
        assert (calls[call_id].effects, calls[call_id].status) == (["permit"], "OK")
    assert deployment.audit().returncode == 0
    assert [one for one in deployment.incompleteness() if one[0] != "silent_producer"] == []


def test_damage_in_the_middle_stops_the_start_and_changes_nothing(deployed: Deployment, policy: str) -> None:
    call_ids = spooled(deployed, policy)
    segment = newest(deployed)
    good = segment.read_bytes()
    damaged = bytearray(good)
    damaged[len(good) * 2 // 3] ^= 0x10
    segment.write_bytes(damaged)
    before = {file.name: file.read_bytes() for file in segment.parent.iterdir()}
    done = start(deployed, policy__bundle__folder=policy)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"{segment}, offset " in done.stderr
    assert "Restore the file" in done.stderr
    assert {file.name: file.read_bytes() for file in segment.parent.iterdir()} == before
    segment.write_bytes(good)
    with deployed.variant(policy__bundle__folder=policy):
        all_there(deployed, call_ids)


@pytest.mark.parametrize("tail", [b"\x00\x00\x04\x00\xde\xad", bytes(40)], ids=["half a frame", "zeros"])
def test_a_torn_tail_is_cut_and_reported(deployed: Deployment, policy: str, tail: bytes) -> None:
    call_ids = spooled(deployed, policy, 3)
    segment = newest(deployed)
    size = segment.stat().st_size
    with segment.open("ab") as file:
        file.write(tail)
    with deployed.variant(policy__bundle__folder=policy):
        all_there(deployed, call_ids)
    assert segment.name in deployed.log("variant")
    assert "torn_tail_cut" in deployed.log("variant")
    opened = [body["details"] for _, body in deployed.records(producer="profiles-frankfurt-1", type="open")]
    assert f"{segment.name}@{size}+{len(tail)}" in opened[-1]["torn"][0], "the record of the start says so, too"  # type: ignore[index]


def test_a_missing_segment_stops_the_start(deployed: Deployment, policy: str) -> None:
    """Two starts without a store leave two segments; one of them is taken away."""
    with deployed.variant(policy__bundle__folder=policy):
        deployed.delivered(settings="variant.yaml")
    deployed.processes.kill("store")
    call_ids = []
    try:
        for _ in range(2):
            with deployed.variant(policy__bundle__folder=policy):
                answer = deployed.call("GetProfile", pb.GetProfileRequest(user_id=1), port="abroad")
                deployed.processes.kill("variant")
            call_ids.append(answer.call_id)
        segment = sorted((deployed.folder / "spool-abroad" / "0").glob("*.seg"))[-2]
        aside = segment.with_name("aside")
        segment.rename(aside)
        done = start(deployed, policy__bundle__folder=policy)
        aside.rename(segment)
    finally:
        deployed.stage.start_store()
    assert (done.returncode, segment.name in done.stderr, "Traceback" in done.stderr) == (1, True, False)
    with deployed.variant(policy__bundle__folder=policy):
        all_there(deployed, call_ids)


def test_a_spool_of_another_producer_is_not_taken(deployed: Deployment, policy: str) -> None:
    done = start(deployed, policy__bundle__folder=policy, record__spool="spool", admin__socket="run/other")
    assert done.returncode in (1, 2), "the first sidecar holds it"
    assert "Traceback" not in done.stderr
    assert "spool" in done.stderr
    with deployed.variant(policy__bundle__folder=policy):
        deployed.delivered(settings="variant.yaml")
    done = start(deployed, policy__bundle__folder=policy, producer__name="profiles-ashburn-1")
    assert done.returncode == 1
    assert "period keys do not open" in done.stderr or "producer 'profiles-frankfurt-1'" in done.stderr


def test_with_the_wrong_trust_file_no_receipt_holds_and_nothing_is_deleted(
    deployed: Deployment, policy: str, tmp_path: Path
) -> None:
    made = sidecar("keys", "new", tmp_path / "other.pem", "--name", "customhouse.demo/log")
    vkey = next(
        word for line in made.stdout.splitlines() for word in line.split() if word.startswith("customhouse.demo/log+")
    )
    wrong = deployed.folder / "wrong-trust.txt"
    wrong.write_text(f"log {vkey}\nquorum none\n")
    with deployed.variant(policy__bundle__folder=policy, oversight__trust="wrong-trust.txt"):
        answer = deployed.call("GetProfile", pb.GetProfileRequest(user_id=1), port="abroad")
        assert answer.status == "OK", "calls go on: their records are on the disk"
        wait(lambda: "does not hold" in " ".join(problems(deployed)), SOON, "the operator is told")
        assert deployed.status("variant.yaml")["spool_records"] > 0
    with deployed.variant(policy__bundle__folder=policy):
        deployed.delivered(settings="variant.yaml")
        wait(lambda: problems(deployed) == [], SOON, "nothing is wrong any more")
    assert deployed.recorded(answer.call_id).status == "OK"


def problems(deployment: Deployment) -> list[str]:
    return list(deployment.status("variant.yaml")["problems"])  # type: ignore[call-overload]


def test_with_the_wrong_sealing_key_the_store_refuses_and_the_operator_is_told(
    deployed: Deployment, policy: str, tmp_path: Path
) -> None:
    """Last of its kind in a deployment: what was sealed to another key can never be delivered."""
    assert sidecar("keys", "new", tmp_path / "seal.pem", "--sealing").returncode == 0
    with deployed.variant(
        policy__bundle__folder=policy,
        oversight__seal_key=str(tmp_path / "seal.pem.pub"),
        record__spool="spool-sealed-wrong",
    ):
        wait(lambda: bool(problems(deployed)), SOON, "the operator is told")
        told = " ".join(problems(deployed))
        assert deployed.status("variant.yaml")["spool_records"] > 0, "and nothing is thrown away"
    assert "seal" in told, told
