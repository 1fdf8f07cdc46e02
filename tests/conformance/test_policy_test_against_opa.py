"""`sidecar policy test` says what `opa test` says, of the shipped policies and of policies that somebody broke."""

import json
import subprocess
from pathlib import Path

import pytest
from policy_bundles import TRIAL_TEST, write_bundle

from sidecar.administration.policy_test import run
from sidecar.decision.replay import read

POLICIES = Path(__file__).resolve().parents[2] / "policies"
BROKEN = "\ntest_false if 1 == 2\n\ntest_undefined if input.absent\n\ntodo_test_later if 1 == 2\n\nhelper if 1 == 2\n"


def of_opa(opa: Path, folder: Path, *more: str) -> dict[tuple[str, str], str]:
    ran = subprocess.run(
        [opa, "test", "-b", str(folder), "--format", "json", *more], capture_output=True, text=True, timeout=120
    )
    found = {}
    for one in json.loads(ran.stdout):
        outcome = "skip" if one.get("skip") else "fail" if one.get("fail") else "error" if "error" in one else "pass"
        found[one["package"].removeprefix("data."), one["name"]] = outcome
    return found


def of_ours(folder: Path, pattern: str = "") -> dict[tuple[str, str], str]:
    result = run(read(folder), "x", clock=lambda: 0.0, pattern=pattern)
    return {(one.package, one.name): one.outcome for one in result.tests}


@pytest.mark.parametrize("pattern", ["", "residency", r"^data\.sidecar\.classes_test\."])
def test_the_same_results_on_the_shipped_policies(needs, pattern: str) -> None:
    opa = needs("opa", "run `make tools`")
    ours = of_ours(POLICIES, pattern)
    assert ours == of_opa(opa, POLICIES, *(["-r", pattern] if pattern else []))
    assert ours
    assert set(ours.values()) == {"pass"}


def test_the_same_results_on_tests_that_fail(needs, tmp_path: Path) -> None:
    opa = needs("opa", "run `make tools`")
    folder = write_bundle(tmp_path, {"sidecar/trial_test.rego": TRIAL_TEST + BROKEN})
    ours = of_ours(folder)
    assert ours == of_opa(opa, folder)
    assert {"pass", "fail", "skip"} == set(ours.values())
