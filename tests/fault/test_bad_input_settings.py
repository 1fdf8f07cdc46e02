"""What a start refuses, and in which words; and what a running sidecar refuses when its inputs age or its clock jumps.

A refused start ends with exit code 2 (settings, policy) or 1 (a damaged file), names file, key or line, and what to do.
"""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from deployment import SOON, Answer, Deployment, sidecar, wait
from minimal_policy import PERMIT, write_policy
from worlds import POLICIES, changed, make_world

from sidecar.demo.processes import free_port
from sidecar.demo.profiles.v1 import profiles_pb2 as pb

FAKETIME = "install faketime (Debian: apt-get install faketime)"


# -- starts that are refused -----------------------------------------------------------------------------------------------


class Folder:
    """A world in which nothing runs."""

    def __init__(self, folder: Path) -> None:
        self.world, self.path = make_world(folder), folder
        self.policy = write_policy(folder / "policy")  # a small one starts sooner

    def start(self, *, command: str = "run", **changes: object) -> subprocess.CompletedProcess[str]:
        tree = yaml.safe_load((self.path / "sidecar.yaml").read_text())
        tree["policy"]["bundle"]["folder"] = str(self.policy)
        file = self.path / "changed.yaml"
        file.write_text(
            yaml.safe_dump(changed(tree, {key.replace("__", "."): value for key, value in changes.items()}))
        )
        return sidecar(command, "--config", file, seconds=120)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "world")


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, (done.stdout, done.stderr)
    said = " ".join(line for line in done.stderr.splitlines() if not line.startswith("{"))
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in said, said


def copied(folder: Folder) -> Path:
    return Path(shutil.copytree(POLICIES, folder.path / "own-policies"))


def edit(file: Path, old: str, new: str) -> int:
    """Replace once; the line it stands on."""
    text = file.read_text()
    assert text.count(old) == 1, old
    file.write_text(text.replace(old, new))
    return text[: text.index(old)].count("\n") + 1


def test_a_policy_that_does_not_compile_is_refused_with_file_and_line(folder: Folder) -> None:
    policies = copied(folder)
    line = edit(
        policies / "sidecar" / "residency.rego",
        "call.workload == true\n\taction := input.action.name",
        "call.workload == == true",
    )
    done = folder.start(policy__bundle__folder=str(policies))
    refused(done, 2, "residency.rego", f":{line}")
    assert not (folder.path / "spool" / "0").exists(), "nothing was begun"


def test_a_policy_with_a_construct_on_which_engines_differ_is_refused(folder: Folder) -> None:
    policies = copied(folder)
    text = (policies / "sidecar" / "egress.rego").read_text()
    (policies / "sidecar" / "egress.rego").write_text(
        text + '\nloose if {\n\tnot startswith(input.subject.person.status, "a")\n}\n'
    )
    refused(folder.start(policy__bundle__folder=str(policies)), 2, "egress.rego", f":{text.count(chr(10)) + 3}")


def test_a_policy_whose_tests_fail_is_refused_with_their_names(folder: Folder) -> None:
    policies = copied(folder)
    with (policies / "sidecar" / "egress_test.rego").open("a") as file:
        file.write("\ntest_the_moon_is_cheese if {\n\t1 == 2\n}\n")
    refused(folder.start(policy__bundle__folder=str(policies)), 2, "tests fail", "test_the_moon_is_cheese")


def test_policies_without_tests_or_denials_are_refused(folder: Folder, tmp_path: Path) -> None:
    untested = write_policy(tmp_path / "untested")
    (untested / "sidecar" / "decision_test.rego").unlink()
    refused(folder.start(policy__bundle__folder=str(untested)), 2, "no tests")
    open_house = write_policy(tmp_path / "open")
    file = open_house / "sidecar" / "decision.rego"
    file.write_text(f"package sidecar\n\ndecision := {json.dumps(PERMIT)}\n")
    (open_house / "sidecar" / "decision_test.rego").write_text(
        "package sidecar.trial_test\n\ntest_it if {\n\t1 == 1\n}\n"
    )
    refused(folder.start(policy__bundle__folder=str(open_house)), 2, "denied")
    refused(folder.start(policy__bundle__folder=str(tmp_path / "nowhere")), 2, "nowhere")


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"identity__directory__file": "nobody.snapshot"}, 2, ["nobody.snapshot"]),
        ({"subjects__index": "nothing.idx"}, 2, ["nothing.idx"]),
        ({"identity__directory__file": "us-subjects.idx"}, 1, ["us-subjects.idx"]),
        ({"oversight__trust": "ca.pem"}, 2, ["ca.pem", "is no trust file"]),
        ({"oversight__trust": "nothing.txt"}, 2, ["nothing.txt", "cannot be read"]),
        ({"oversight__seal_key": "keys/producer.pem.pub"}, 2, ["producer.pem.pub", "X25519"]),
        ({"producer__key": "store-seal.pub"}, 2, ["store-seal.pub"]),
        ({"upstream__tls__ca": "nothing.pem"}, 2, ["nothing.pem"]),
        ({"describe__descriptors__file": "ca.pem"}, 2, ["ca.pem"]),
        ({"recrod": {"spool": "x"}}, 2, ["recrod", "did you mean 'record'"]),
        ({"record__max_bytes": "8GB"}, 2, ["record.max_bytes", "8GB", "MiB"]),
        ({"shadow": {"bundle": "x"}}, 2, ["shadow.bundle: "]),
        ({"decision__deadline": "0s"}, 2, ["decision.deadline"]),
        ({"identity__bind_to_workload": "sometimes"}, 2, ["bind_to_workload", "sometimes"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_settings_that_cannot_be_meant_are_refused(
    folder: Folder, changes: dict[str, object], code: int, words: list[str]
) -> None:
    refused(folder.start(**changes), code, *words)


@pytest.mark.parametrize("name", ["people.snapshot", "us-subjects.idx"])
def test_a_damaged_snapshot_or_index_is_refused(folder: Folder, name: str) -> None:
    file = folder.path / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x40
    file.write_bytes(data)
    refused(folder.start(), 1, name, "offset")
    file.write_bytes(data[: len(data) // 2])
    refused(folder.start(), 1, name)


# -- what a running one refuses --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("settings")) as deployment:
        yield deployment
        for name in ("variant", "sidecar", "store"):
            assert "Traceback" not in deployment.log(name)


def ask(deployment: Deployment, **more: object) -> Answer:
    return deployment.call("GetProfile", pb.GetProfileRequest(user_id=deployment.world.cast.us), port="abroad", **more)  # type: ignore[arg-type]


def test_a_stale_directory_refuses_personnel_and_only_them(deployed: Deployment) -> None:
    with deployed.variant(identity__directory__max_age="1s"):
        wait(lambda: ask(deployed).said == "UNAVAILABLE stale_directory", SOON, "the directory is too old")
        answer = ask(deployed)
        assert answer.retry
        own = ask(deployed, token="user-us", certificate="web", purpose=None, ticket=None)
        assert own.status == "OK", own.said
        assert "directory" in problems(deployed)
    recorded = deployed.recorded(answer.call_id)
    assert (recorded.status, recorded.codes) == ("UNAVAILABLE", ["stale_directory"])
    assert deployed.upstream.calls_of(answer.call_id) == []


def test_with_a_stale_index_every_data_subject_is_unknown(deployed: Deployment) -> None:
    with deployed.variant(subjects__max_age="1s"):
        time.sleep(1.2)
        request = pb.GetProfileRequest(user_id=deployed.world.cast.german)
        answer = deployed.call("GetProfile", request, port="abroad", token="niall")
        assert "subjects_unknown" in answer.info["reasons"].split(",")
        assert "index" in problems(deployed)


def test_a_directory_that_is_damaged_while_running_is_not_taken_up(deployed: Deployment) -> None:
    with deployed.variant():
        good = damaged(deployed, "people.snapshot", (deployed.folder / "people.snapshot").read_bytes()[:-100])
        try:
            wait(lambda: "directory" in problems(deployed), SOON, "it is noticed")
            assert ask(deployed).status == "OK", "the snapshot before it is in force until it is too old"
        finally:
            damaged(deployed, "people.snapshot", good)
        wait(lambda: problems(deployed) == "", SOON, "it is mended")


def damaged(deployment: Deployment, name: str, data: bytes) -> bytes:
    """Put other bytes in a file's place; what it held."""
    file, beside = deployment.folder / name, deployment.folder / f"{name}.new"
    before = file.read_bytes()
    beside.write_bytes(data)
    beside.rename(file)
    return before


def problems(deployment: Deployment) -> str:
    return "; ".join(deployment.status("variant.yaml")["problems"])  # type: ignore[arg-type]


def test_a_damaged_list_of_revocations_refuses_everybody_and_the_operator_sees_why(
    deployed: Deployment, tmp_path: Path
) -> None:
    with deployed.variant(policy__bundle__folder=str(write_policy(tmp_path))):
        assert ask(deployed).status == "OK"
        before = damaged(deployed, "revoked.jsonl", b'{"jti": ')
        try:
            wait(lambda: ask(deployed).said == "UNAVAILABLE stale_directory", SOON, "it is noticed")
            assert "revoked" in problems(deployed)
        finally:
            damaged(deployed, "revoked.jsonl", before)
        wait(lambda: ask(deployed).status == "OK", SOON, "it is mended")
        wait(lambda: problems(deployed) == "", SOON, "nothing is wrong any more")


def test_a_damaged_list_of_approvers_grants_nothing_and_the_operator_sees_why(
    deployed: Deployment, tmp_path: Path
) -> None:
    with deployed.variant(policy__bundle__folder=str(write_policy(tmp_path))):
        before = damaged(deployed, "approvers.yaml", b"approvers: nobody")
        try:
            wait(
                lambda: "approvers.yaml" in deployed.log("variant") or "approvers.yaml" in problems(deployed),
                SOON,
                "it is noticed",
            )
            wait(lambda: "approvers.yaml" in problems(deployed), SOON, "it is shown")
            assert ask(deployed, exception="EX-1").status != "OK"
        finally:
            damaged(deployed, "approvers.yaml", before)


def test_without_a_period_key_nothing_is_permitted(deployed: Deployment) -> None:
    """A first start that cannot reach the key service: it serves, and refuses."""
    nowhere = f"localhost:{free_port()}"
    with deployed.variant(oversight__keys=nowhere, oversight__address=nowhere, record__spool="spool-keyless"):
        answer = ask(deployed)
        assert (answer.said, answer.retry) == ("UNAVAILABLE record_unavailable", True)
        assert "period keys" in problems(deployed)
    assert answer.call_id not in {seen.call_id for seen in deployed.upstream.seen}


def test_with_the_keys_of_an_earlier_start_the_store_may_be_away(deployed: Deployment) -> None:
    with deployed.variant():
        assert ask(deployed).status == "OK"
        deployed.delivered(settings="variant.yaml")
    deployed.processes.kill("store")
    try:
        with deployed.variant():
            answer = ask(deployed)
            assert answer.status == "OK"
            assert deployed.status("variant.yaml")["store_connected"] is False
            deployed.stage.start_store()
            deployed.delivered(settings="variant.yaml")
    finally:
        if "store" not in deployed.processes._running:
            deployed.stage.start_store()
    assert deployed.recorded(answer.call_id).status == "OK"


def test_an_obligation_that_nobody_knows_refuses(deployed: Deployment, tmp_path: Path) -> None:
    with deployed.variant(policy__bundle__folder=str(write_policy(tmp_path, [{"id": "watermark"}]))):
        answer = ask(deployed)
    assert answer.said == "PERMISSION_DENIED obligation_unfulfillable"
    recorded = deployed.recorded(answer.call_id)
    assert recorded.effects == ["deny"]
    assert recorded.decisions[0]["obligations"] == [{"id": "watermark", "met": False}]
    assert deployed.upstream.calls_of(answer.call_id) == []
    assert "watermark" in deployed.log("variant")


@pytest.mark.parametrize("wrong", [{"effect": "maybe"}, {"reasons": []}, {"surprise": 1}], ids=str)
def test_a_decision_of_the_wrong_shape_is_no_decision(
    deployed: Deployment, tmp_path: Path, wrong: dict[str, object]
) -> None:
    """Refused at the start where activation can see it; where it cannot, every such call is, and the record says so."""
    folder = write_policy(tmp_path, **wrong)
    deployed.write_variant(policy__bundle__folder=str(folder))
    if sidecar("check-config", "--config", deployed.folder / "variant.yaml").returncode == 2:
        return
    with deployed.variant(policy__bundle__folder=str(folder)):
        answer = ask(deployed)
    assert (answer.said, answer.retry) == ("UNAVAILABLE policy_error", True)
    recorded = deployed.recorded(answer.call_id)
    assert (recorded.effects, recorded.status) == (["deny"], "UNAVAILABLE")
    assert deployed.upstream.calls_of(answer.call_id) == []


def test_a_clock_that_jumps_refuses_what_is_then_too_old_and_nothing_is_lost(
    deployed: Deployment, needs: Callable[[str, str], Path]
) -> None:
    needs("faketime", FAKETIME)
    library = next(iter(sorted(Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1"))), None)
    assert library is not None, "faketime is installed without its library"
    hand = deployed.folder / "clock"
    hand.write_text("+0")
    command = [
        "env",
        f"LD_PRELOAD={library}",
        f"FAKETIME_TIMESTAMP_FILE={hand}",
        "FAKETIME_NO_CACHE=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
    ]
    said, ids = {}, []
    with deployed.variant(command):
        for jump in ("+0", "+2h", "-2h", "+9h", "+0"):
            hand.write_text(jump)
            wait(lambda: ask(deployed).status == ("OK" if jump == "+0" else ask(deployed).status), SOON, jump)  # noqa: B023
            answer = ask(deployed)
            said.setdefault(jump, answer.said)
            ids.append((answer.call_id, answer.status))
        deployed.delivered(settings="variant.yaml")
    print(f"\nafter a jump: {said}")
    assert said["+0"] == "OK"
    assert said["+2h"] == "UNAVAILABLE stale_directory"
    assert said["-2h"].split()[0] in ("UNAUTHENTICATED", "UNAVAILABLE"), "a token from the future is none"
    assert said["+9h"].split()[0] in ("UNAUTHENTICATED", "UNAVAILABLE")
    for call_id, status in ids:
        assert deployed.recorded(call_id).status == status
    chain = [
        leaf["seq"]
        for leaf, _ in deployed.records(producer="profiles-frankfurt-1")
        if leaf["epoch"] == epoch_of(deployed, ids[0][0])
    ]
    assert chain == list(range(len(chain))), "one chain, whatever the clock said"


def epoch_of(deployment: Deployment, call_id: str) -> object:
    return next(leaf["epoch"] for leaf, _ in deployment.records(call_id=call_id))
