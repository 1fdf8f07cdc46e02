"""Whole sidecars that let OPA decide, or check what they decide: as their users run them."""

import json
import sqlite3
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from deployment import SOON, Deployment, sidecar, wait
from minimal_policy import write_policy

from sidecar.demo.profiles.v1 import profiles_pb2 as pb

LIAR = """#!{python}
import gzip, os, sys
with open({count!r}, "a") as file:
    file.write("x" * ("run" in sys.argv))
if "run" in sys.argv and os.path.getsize({count!r}) > {honest}:
    with open("bundle.tar.gz", "rb") as file:
        bundle = gzip.decompress(file.read())
    told = bundle.replace(b'"ttl_seconds": 0', b'"ttl_seconds": 7')
    assert told != bundle and len(told) == len(bundle)
    with open("bundle.tar.gz", "wb") as file:
        file.write(gzip.compress(told))
os.execv({opa!r}, ["opa", *sys.argv[1:]])
"""
"""An OPA that runs another policy under the same revision, from its second server on: while it is tried, it is honest."""


@pytest.fixture(scope="module")
def program(needs) -> str:
    return str(needs("opa", "run `make tools`"))


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, program: str) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("opa")) as deployment:
        write_policy(deployment.folder / "only-amy")
        yield deployment


def lying(deployment: Deployment, name: str, opa: str) -> str:
    script = deployment.folder / f"liar-{name}"
    script.write_text(
        LIAR.format(python=sys.executable, count=str(deployment.folder / f"{name}.count"), honest=1, opa=opa)
    )
    script.chmod(stat.S_IRWXU)
    return str(script)


def ask(deployment: Deployment, port: str = "abroad"):
    return deployment.call("GetProfile", pb.GetProfileRequest(user_id=deployment.world.cast.us), port=port)


def disagreements(deployment: Deployment) -> list[dict[str, object]]:
    return [body["details"] for _, body in deployment.records() if body.get("type") == "engine_disagreement"]


def test_opa_decides_and_every_scene_is_the_same(program: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = sidecar("demo", "--engine", "opa", "--data", tmp_path / "data", "--json", report, seconds=600)
    assert done.returncode == 0, done.stdout + done.stderr
    scenes = json.loads(report.read_text())["scenes"]
    assert len(scenes) > 20
    assert [scene["name"] for scene in scenes if scene["got"] != scene["expected"]] == []
    with sqlite3.connect(tmp_path / "data" / "oversight" / "records.sqlite") as database:
        bodies = [json.loads(row[0]) for row in database.execute("SELECT body FROM body")]
    database.close()
    engines = [body["engine"] for body in bodies if "engine" in body]
    assert len(engines) > len(scenes)
    assert set(engines) == {"opa"}


def test_engines_that_agree_let_calls_pass_and_opa_down_refuses_where_both_must_agree(
    deployed: Deployment, program: str
) -> None:
    before = len(disagreements(deployed))
    with deployed.variant(
        policy__bundle={"folder": "only-amy"}, decision__verify_with="opa", decision__opa={"command": program},
        decision__on_disagreement="refuse",
    ):  # fmt: skip
        assert ask(deployed).said == "OK"
        sidecar_process = psutil.Process(deployed.processes.pid("variant"))
        (opa,) = [one for one in sidecar_process.children() if "run" in one.cmdline()]
        opa.suspend()
        assert ask(deployed).said == "UNAVAILABLE policy_error"
        opa.resume()
        wait(lambda: ask(deployed).said == "OK", SOON, "calls are answered again")
    assert not opa.is_running() or opa.status() == psutil.STATUS_ZOMBIE
    assert len(disagreements(deployed)) == before


def test_a_disagreement_is_recorded_while_the_first_engine_s_answer_counts(deployed: Deployment, program: str) -> None:
    before = len(disagreements(deployed))
    with deployed.variant(
        policy__bundle={"folder": "only-amy"}, decision__verify_with="opa",
        decision__opa={"command": lying(deployed, "record", program)},
    ):  # fmt: skip
        answer = ask(deployed)
        assert answer.said == "OK"
        deployed.delivered(settings="variant.yaml")
        wait(lambda: len(disagreements(deployed)) > before, SOON, "the disagreement is recorded")
    found = disagreements(deployed)[-1]
    assert (found["first_engine"], found["second_engine"]) == ("embedded", "opa")
    assert (found["first_effect"], found["second_effect"]) == ("permit", "permit")
    assert deployed.recorded(answer.call_id).effects == ["permit"]


def test_where_both_must_agree_a_disagreement_refuses_and_is_recorded(deployed: Deployment, program: str) -> None:
    before = len(disagreements(deployed))
    with deployed.variant(
        policy__bundle={"folder": "only-amy"}, decision__verify_with="opa", decision__on_disagreement="refuse",
        decision__opa={"command": lying(deployed, "refuse", program)},
    ):  # fmt: skip
        answer = ask(deployed)
        assert answer.said == "UNAVAILABLE policy_error"
        deployed.delivered(settings="variant.yaml")
        wait(lambda: len(disagreements(deployed)) > before, SOON, "the disagreement is recorded")
    recorded = deployed.recorded(answer.call_id)
    assert recorded.effects == ["deny"]
    assert recorded.codes == ["policy_error"]
    assert disagreements(deployed)[-1]["input_sha256"]
