"""Every shipped policy, on generated inputs, in both engines: equal decision documents, and figures that say on what."""

import dataclasses
import json
from pathlib import Path

import policy_parity
import pytest
from conftest import Needs
from policy_parity import Parity
from reference_opa import running

from sidecar.decision.folder import load_folder


@pytest.fixture(scope="module")
def parity(needs: Needs) -> Parity:
    return policy_parity.measure(needs("opa", "run `make tools`"))


def test_both_engines_answer_every_input_alike(parity: Parity):
    assert parity.inputs >= 5_000
    assert parity.differing == []


def test_the_inputs_make_the_policies_say_everything_they_can(parity: Parity):
    assert min(parity.effects["permit"], parity.effects["deny"]) > parity.inputs // 10
    reasons = json.loads(Path("policies/data/reasons/data.json").read_text())
    named = {*reasons["denying"], *reasons["permitting"]}
    seen = {f"{package}.{rule}" for package, rules in parity.rules.items() for rule in rules}
    assert len(named & seen) >= 0.95 * len(named), sorted(named - seen)
    assert {"redact_fields", "mask_fields", "drop_records", "limit_records"} <= set(parity.obligations)


def test_the_committed_figures_are_these(parity: Parity):
    fix = "run `python -m tests.engine_tables --write parity` after a change to policies, corpus or vocabulary"
    assert policy_parity.FILE.read_text() == policy_parity.table(parity), fix


def test_a_policy_that_differs_in_one_rule_is_found(needs: Needs):
    """The comparison itself: the embedded engine is given another policy than OPA."""
    bundle = load_folder(policy_parity.POLICIES)
    changed = tuple(
        (name, source.replace("sidecar.personnel.status", "sidecar.personnel.standing"))
        for name, source in bundle.modules
    )
    assert changed != bundle.modules
    with running(needs("opa", "run `make tools`"), "--bundle", str(policy_parity.POLICIES)) as opa:
        documents = policy_parity.inputs(bundle, 500)
        found = policy_parity.compare(opa, documents, dataclasses.replace(bundle, modules=changed))
    assert 0 < len(found.differing) < 500
