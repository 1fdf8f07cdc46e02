"""A candidate beside a running sidecar: calls are as without it, its flips are records, and a bad one is only a problem."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from deployment import Deployment, sidecar, wait
from worlds import POLICIES, Tree

from sidecar.cli.running import asked
from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.settings.loader import load
from sidecar.settings.sidecar import SidecarSettings


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("shadow")) as deployment:
        yield deployment


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    """Nobody at work in the United States may see what those in the United States may see now."""
    folder = tmp_path / "candidate"
    shutil.copytree(POLICIES, folder)
    for test in folder.rglob("*_test.rego"):
        test.unlink()
    file = folder / "data" / "personnel" / "data.json"
    data = json.loads(file.read_text())
    data["locations"]["us_subjects"] = ["IE"]
    file.write_text(json.dumps(data))
    (folder / "sidecar" / "personnel_test.rego").write_text(
        'package sidecar.personnel_test\n\ntest_places if {\n\tdata.data.personnel.locations.us_subjects == ["IE"]\n}\n'
    )
    return folder


def shadow_status(deployment: Deployment) -> Mapping[str, Any]:
    """What the command asks for, without starting a process each time."""
    return asked(load(deployment.folder / "variant.yaml", SidecarSettings), "shadow.status")


def get(deployment: Deployment, token: str) -> str:
    request = pb.GetProfileRequest(user_id=deployment.world.cast.us)
    return deployment.call("GetProfile", request, token=token, port="abroad").said


def test_flips_are_shown_and_recorded_while_calls_go_on_as_before(deployed: Deployment, candidate: Path) -> None:
    with deployed.variant(shadow={"bundle": {"folder": str(candidate)}}):
        wait(lambda: shadow_status(deployed)["candidate"] is not None, 60, "the candidate is compared")
        assert get(deployed, "amy") == "OK"
        assert get(deployed, "amy") == "OK"
        assert get(deployed, "niall").startswith("PERMISSION_DENIED not_us_personnel")
        wait(lambda: shadow_status(deployed)["newly_denied"] >= 2, 60, "both of Amy's calls were compared")
        wait(lambda: shadow_status(deployed)["recent"], 60, "the flip is told")
        found = shadow_status(deployed)
        assert found["newly_permitted"] == found["errors"] == found["dropped"] == 0
        assert found["problems"] == []
        shown = sidecar("policy", "shadow", "status", "--config", deployed.folder / "variant.yaml")
        assert shown.returncode == 0
        assert "newly denied" in shown.stdout

        wait(lambda: len(flips(deployed)) >= 1, 60, "the flip is in the store")
    begun = [one for one in recorded(deployed) if one["kind"] == "candidate"]
    assert any(one["candidate"] == found["candidate"] != one["active"] for one in begun)
    flip = flips(deployed)[0]
    assert (flip["flip"], flip["active_effect"], flip["candidate_effect"]) == ("newly_denied", "permit", "deny")
    assert "amy" not in json.dumps(flip)


def recorded(deployment: Deployment) -> list[Tree]:
    return [body["details"] for _, body in deployment.records(type="shadow")]


def flips(deployment: Deployment) -> list[Tree]:
    return [one for one in recorded(deployment) if one["kind"] == "flip"]


def test_a_candidate_that_does_not_load_stops_nothing(deployed: Deployment, candidate: Path) -> None:
    (candidate / "sidecar" / "broken.rego").write_text("package sidecar\n\nthis is no rego\n")
    with deployed.variant(shadow={"bundle": {"folder": str(candidate)}}):
        assert get(deployed, "amy") == "OK"
        wait(lambda: shadow_status(deployed)["problems"], 60, "the problem shows")
        assert any("broken.rego" in str(one) for one in deployed.status("variant.yaml")["problems"])
        ran = sidecar("policy", "shadow", "status", "--config", deployed.folder / "variant.yaml")
        assert ran.returncode == 1
        (candidate / "sidecar" / "broken.rego").unlink()
        wait(lambda: shadow_status(deployed)["candidate"] is not None, 60, "the mended candidate is taken up")
        assert shadow_status(deployed)["problems"] == []


def test_a_source_that_cannot_be_used_stops_nothing(deployed: Deployment, tmp_path: Path) -> None:
    with deployed.variant(shadow={"bundle": {"folder": str(tmp_path / "nowhere")}}):
        assert get(deployed, "amy") == "OK"
        wait(lambda: shadow_status(deployed)["problems"], 60, "the problem shows")
    ran = sidecar("check-config", "--config", deployed.folder / "variant.yaml")
    assert ran.returncode == 2
    assert "shadow.bundle.folder" in ran.stderr


def test_without_a_shadow_there_is_nothing_to_ask(deployed: Deployment) -> None:
    ran = sidecar("policy", "shadow", "status", "--config", deployed.folder / "sidecar.yaml")
    assert ran.returncode == 2
    assert "no shadow is configured" in ran.stderr
