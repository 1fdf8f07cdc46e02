"""`sidecar policy new service`: the starter compiles, passes check and test, and says no until it is filled in."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor

from sidecar.administration.policy_cases import read_cases
from sidecar.administration.policy_check import check
from sidecar.administration.policy_document import merged, neutral, request
from sidecar.administration.policy_eval import evaluate
from sidecar.administration.policy_test import run
from sidecar.decision.replay import read
from sidecar.demo.profiles.v1 import profiles_pb2

POLICIES = Path(__file__).resolve().parents[2] / "policies"
SERVICE = "sidecar.demo.profiles.v1.RiderNotes"


def _files(file: FileDescriptor, found: dict[str, FileDescriptor]) -> dict[str, FileDescriptor]:
    for one in file.dependencies:
        _files(one, found)
    found[file.name] = file
    return found


@pytest.fixture
def descriptors(tmp_path: Path) -> Path:
    """The demonstration API, its service under another name."""
    made = descriptor_pb2.FileDescriptorSet()
    for file in _files(profiles_pb2.DESCRIPTOR, {}).values():
        proto = made.file.add()
        file.CopyToProto(proto)
        if proto.service:
            proto.service[0].name = "RiderNotes"
    file = tmp_path / "riders.binpb"
    file.write_bytes(made.SerializeToString())
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(POLICIES, tmp_path / "policies"))


@pytest.fixture
def started(shell, folder: Path, descriptors: Path) -> Path:
    ran = shell("policy", "new", "service", SERVICE, "--descriptors", descriptors, "--into", folder)
    assert ran.code == 0, ran.err
    for name in (
        "services/rider_notes.rego",
        "services/rider_notes_test.rego",
        "services/rider_notes_cases.yaml",
        "data/rider_notes/data.json",
    ):
        assert f"written: {folder / name}" in ran.out
    assert f"sidecar policy test {folder} --run rider_notes --coverage" in ran.out
    return folder


def test_the_starter_has_no_finding_and_passes_its_tests(started: Path) -> None:
    bundle = read(started)
    assert check(bundle).findings == ()
    table = yaml.safe_load((started / "services/rider_notes_cases.yaml").read_text())
    result = run(bundle, "x", clock=lambda: 0.0, pattern="rider_notes|nobody in particular|staff abroad", coverage=True,
                 cases=read_cases(table, "x", lambda name: b""))  # fmt: skip
    assert result.failed == 0
    assert len(result.tests) == 7
    assert len(result.cases) >= 6
    assert [one.missed for one in result.coverage if one.file == "services/rider_notes.rego"] == [()]


def test_the_starter_is_as_opa_would_have_it(started: Path, needs) -> None:
    import subprocess

    opa = needs("opa", "run `make tools`")
    for command in (
        ("fmt", "--list", "--fail", started / "services"),
        ("check", "--strict", "-b", started),
        ("test", "-b", started, "-r", "rider_notes"),
    ):
        ran = subprocess.run([opa, *command], capture_output=True, text=True, timeout=600)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_everything_sensitive_is_held_back_until_somebody_is_named(started: Path) -> None:
    table = yaml.safe_load((POLICIES / "sidecar/cases.yaml").read_text())
    call = merged(merged(neutral(), table["bases"]["support"]), {"action": {"service": SERVICE}})
    (redact,) = evaluate(read(started), request(call, "x"), "x").value["obligations"]
    assert redact == {"id": "redact_fields", "categories": ["behaviour", "id_contact"]}
    file = started / "data/rider_notes/data.json"
    data = json.loads(file.read_text())
    assert all(need == {"roles": [], "purposes": []} for need in data["needs"].values())
    data["needs"]["id_contact"] = {"roles": ["support"], "purposes": ["user_support"]}
    file.write_text(json.dumps(data))
    (redact,) = evaluate(read(started), request(call, "x"), "x").value["obligations"]
    assert redact["categories"] == ["behaviour"]


def test_streams_are_rechecked_and_nothing_else_is_changed(started: Path) -> None:
    data = json.loads((started / "data/rider_notes/data.json").read_text())
    assert set(data["recheck_seconds"]) == {"ListMessages", "ImportContacts", "Sync"}
    for file in POLICIES.rglob("*"):
        if file.is_file():
            assert (started / file.relative_to(POLICIES)).read_bytes() == file.read_bytes()


def test_nothing_is_overwritten(shell, started: Path, descriptors: Path) -> None:
    (started / "services/rider_notes.rego").unlink()
    said = shell.refused("policy", "new", "service", SERVICE, "--descriptors", descriptors, "--into", started)
    assert "nothing is overwritten" in said
    assert not (started / "services/rider_notes.rego").exists()


@pytest.mark.parametrize(("arguments", "said"), [
    ((SERVICE,), "--descriptors or --config"),
    (("a.b.Absent", "--descriptors", "SET"), SERVICE),
    ((SERVICE, "--descriptors", "ABSENT"), "cannot be read"),
    ((SERVICE, "--descriptors", "SET", "--into", "EMPTY"), "Copy the shipped policies"),
])  # fmt: skip
def test_mistakes_of_the_user_end_with_2(
    shell, folder: Path, descriptors: Path, tmp_path: Path, arguments, said
) -> None:
    places = {"SET": descriptors, "ABSENT": tmp_path / "absent", "EMPTY": tmp_path / "empty"}
    given = [places.get(one, one) for one in arguments]
    into = [] if "--into" in arguments else ["--into", folder]
    assert said in shell.refused("policy", "new", "service", *given, *into)


def test_json(shell, folder: Path, descriptors: Path) -> None:
    ran = shell("policy", "new", "service", SERVICE, "--descriptors", descriptors, "--into", folder, "--json")
    document = json.loads(ran.out)
    assert set(document) == {"service", "slug", "files", "methods", "categories", "remarks"}
    assert (document["slug"], document["methods"]) == ("rider_notes", 5)
