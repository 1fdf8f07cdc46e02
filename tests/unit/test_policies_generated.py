"""Generated calls: the mission holds, nothing unknown helps, and OPA gives the same documents."""

import importlib.util
import json
import shutil
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from sidecar import _native
from sidecar.decision import bundle, folder
from sidecar.decision.document import parse_decision
from sidecar.decision.guard import check_null_leaves, nullable_leaves
from sidecar.vocabulary import AccessRequest, canonical

HERE = Path(__file__).parent
POLICIES = HERE.parents[1] / "policies"
COUNT = 2000


def _sibling(name: str):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generated = _sibling("policy_inputs")


@cache
def calls() -> tuple[AccessRequest, ...]:
    return tuple(generated.Calls(20261122).stream(COUNT))


@cache
def engine() -> _native.Engine:
    loaded = folder.load_folder(POLICIES)
    return _native.Engine(loaded.modules, loaded.data, bundle.ENTRYPOINT, 5.0, nullable_leaves())


@cache
def answers() -> tuple[dict, ...]:
    return tuple(json.loads(engine().evaluate_json(canonical(call))) for call in calls())


def test_the_mission_holds():
    for call, answer in zip(calls(), answers(), strict=True):
        assert generated.broken_promise(call, parse_decision(answer)) is None, (canonical(call), answer)


def test_the_calls_reach_every_part_of_the_policies():
    effects = Counter(answer["effect"] for answer in answers())
    assert effects["permit"] > COUNT / 50, effects
    rules = {reason["rule"] for answer in answers() for reason in answer["reasons"]}
    table = json.loads((POLICIES / "data/reasons/data.json").read_text())
    assert set(table["denying"]) | set(table["permitting"]) <= rules
    obligations = {one["id"] for answer in answers() for one in answer["obligations"]}
    assert obligations == {
        "redact_fields",
        "mask_fields",
        "drop_records",
        "limit_records",
        "recheck_seconds",
        "require_durability",
    }


def test_no_unknown_leaf_helps():
    permitted = [call for call, answer in zip(calls(), answers(), strict=True) if answer["effect"] == "permit"][:15]
    denied = [call for call, answer in zip(calls(), answers(), strict=True) if len(answer["reasons"]) == 1][:40]
    assert check_null_leaves(engine().evaluate_json, permitted + denied, where="generated") > 1000


@cache
def opa() -> str:
    own = POLICIES.parent / ".tools/bin/opa"
    found = str(own) if own.exists() else shutil.which("opa")
    if found is None:
        pytest.skip("OPA is not here: GOBIN=$PWD/.tools/bin go install github.com/open-policy-agent/opa@v1.22.2")
    return found


def run(*arguments: str) -> str:
    return subprocess.run([opa(), *arguments], check=True, capture_output=True, text=True, timeout=600).stdout


def test_opa_gives_the_same_documents(tmp_path):
    inputs = tmp_path / "generated.json"
    inputs.write_text(json.dumps({"generated": [json.loads(canonical(call)) for call in calls()]}))
    query = "[d | some one in data.generated; d := data.sidecar.decision with input as one]"
    answer = run("eval", "--strict-builtin-errors", "-f", "raw", "-b", str(POLICIES), "-d", str(inputs), query)
    expected = json.loads(answer)
    assert len(expected) == COUNT
    for call, theirs, ours in zip(calls(), expected, answers(), strict=True):
        assert ours == theirs, canonical(call)


def test_opa_accepts_the_policies_and_their_tests_pass_there():
    run("check", "--strict", "-b", str(POLICIES))
    run("fmt", "--fail", "--list", str(POLICIES))
    results = json.loads(run("test", "--format", "json", "-b", str(POLICIES)))
    assert [one["name"] for one in results if one.get("fail") or one.get("error")] == []
    ours = {(package, name) for package, name, *_ in _tests()}
    assert ours == {(one["package"].removeprefix("data."), one["name"]) for one in results}


def _tests() -> list[tuple[str, str, bool, str | None, int]]:
    loaded = folder.load_folder(POLICIES)
    tested = _native.Engine(loaded.modules + loaded.tests, loaded.data, bundle.ENTRYPOINT, 5.0, nullable_leaves())
    return tested.run_tests()


def test_the_tests_of_the_policies_pass_here():
    results = _tests()
    assert [(package, name, error) for package, name, passed, error, _ in results if not passed] == []
    assert len(results) > 100


def test_the_tests_cover_the_policies():
    report = json.loads(run("test", "--coverage", "--format", "json", "-b", str(POLICIES)))
    missed = {
        name: one["not_covered"]
        for name, one in report["files"].items()
        if one.get("not_covered") and not name.endswith("_test.rego")
    }
    assert missed == {}
