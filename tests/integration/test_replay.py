"""Recorded calls of a running deployment, replayed from the store through a candidate with one change planted."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import Deployment, sidecar
from worlds import POLICIES

from sidecar.demo.profiles.v1 import profiles_pb2 as pb

GATE = ("--fail-on", "newly-permitted-non-us")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Deployment, dict[str, str]]]:
    """Amy may, Niall in Ireland may not, and a stranger is nobody; their calls' ids."""
    with Deployment(tmp_path_factory.mktemp("replay")) as deployment:
        request = pb.GetProfileRequest(user_id=deployment.world.cast.us)
        answers = {token: deployment.call("GetProfile", request, token=token) for token in ("amy", "niall", "stranger")}
        assert [one.status for one in answers.values()] == ["OK", "PERMISSION_DENIED", "PERMISSION_DENIED"]
        for one in answers.values():
            deployment.recorded(one.call_id)
        yield deployment, {name: one.call_id for name, one in answers.items()}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped policies, but whoever is at work in Ireland counts like US personnel."""
    folder = tmp_path_factory.mktemp("candidate") / "policies"
    shutil.copytree(POLICIES, folder)
    residency, personnel = folder / "sidecar" / "residency.rego", folder / "data" / "personnel" / "data.json"
    rule = "input.subject.person.us_personnel == true"
    source = residency.read_text()
    assert source.count(rule) == 1
    residency.write_text(source.replace(rule, "input.subject.person.us_personnel in {true, false}"))
    data = json.loads(personnel.read_text())
    data["locations"]["us_subjects"].append("IE")
    personnel.write_text(json.dumps(data))
    return folder


def reviewer(deployment: Deployment) -> list[str | Path]:
    world, pair = deployment.world, deployment.world.certificates["reviewer"]
    return ["--store", f"localhost:{world.ports['query']}", "--ca", world.ca, "--cert", pair.cert, "--key", pair.key]


def test_the_store_s_records_show_the_one_flip_that_was_planted(
    played: tuple[Deployment, dict[str, str]], planted: Path
) -> None:
    deployment, calls = played
    ran = sidecar("policy", "replay", "--against", planted, *GATE, "--since", "1h", "--json", *reviewer(deployment))
    assert ran.returncode == 1, ran.stderr
    found = json.loads(ran.stdout)
    assert found["newly_permitted_non_us"] == found["flips"]["newly_permitted"] == 1, ran.stdout
    assert found["flips"]["newly_denied"] == found["flips"]["undecided"] == 0
    flip = found["examples"][0]
    assert (flip["call_id"], flip["person"], flip["us_personnel"]) == (calls["niall"], "niall", False)
    assert {one["code"] for one in flip["before"]["reasons"]} >= {"not_us_personnel"}
    assert found["not_replayed"]["decided by sidecar/identify"] == 1  # the stranger: no policy was asked


def test_the_policy_that_decided_reproduces_its_own_records(played: tuple[Deployment, dict[str, str]]) -> None:
    deployment, _ = played
    ran = sidecar("policy", "replay", "--against", POLICIES, "--fail-on", "any", "--json", *reviewer(deployment))
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found["agreed"] == found["replayed"] >= 2
    assert list(found["policies"]) == [found["candidate"]["revision"]]


def test_what_search_prints_replays_from_a_file_like_the_store_itself(
    played: tuple[Deployment, dict[str, str]], planted: Path, tmp_path: Path
) -> None:
    deployment, calls = played
    file, flips = tmp_path / "records.jsonl", tmp_path / "flips.jsonl"
    printed = sidecar("oversight", "search", "--limit", "0", "--json", *reviewer(deployment))
    file.write_text(printed.stdout)
    ran = sidecar("policy", "replay", "--against", planted, "--from", file, "--jobs", "2", "--out", flips, *GATE)
    assert ran.returncode == 1, ran.stderr
    assert "niall" in ran.stdout
    assert "newly-permitted-non-us: 1" in ran.stderr
    assert [json.loads(one)["call_id"] for one in flips.read_text().splitlines()] == [calls["niall"]]


def test_a_reviewer_is_told_that_there_is_nothing_to_replay(
    played: tuple[Deployment, dict[str, str]], planted: Path
) -> None:
    deployment, _ = played
    ran = sidecar("policy", "replay", "--against", planted, "--person", "nobody", *reviewer(deployment))
    assert ran.returncode == 1
    assert "no decision was replayed" in ran.stderr


def test_nothing_is_due_where_nobody_brokered(played: tuple[Deployment, dict[str, str]]) -> None:
    """28 CFR 202.1104 is about data brokerage: the refusal of an employee's own call is none."""
    ran = sidecar("oversight", "due", *reviewer(played[0]))
    assert (ran.returncode, ran.stdout.strip()) == (0, "nothing to report")
