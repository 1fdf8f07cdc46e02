"""Small policy bundles for tests of the author's tools: a policy of one rule, and whatever a test adds to it."""

import json
from pathlib import Path

DECISION = """package sidecar

decision := {"effect": "deny", "reasons": reasons, "obligations": [], "advice": [], "ttl_seconds": 0} if {
	reasons != []
} else := {
	"effect": "permit",
	"reasons": [{"code": "fine", "message": "nothing denies", "rule": "sidecar.trial.permit"}],
	"obligations": data.sidecar.trial.obligations,
	"advice": [],
	"ttl_seconds": 0,
}

reasons := [{"code": "not_us_personnel", "message": "no", "rule": name} | some name in data.sidecar.trial.findings]
"""
DECISION_TEST = """package sidecar.decision_test

doc := {"subject": {"person": {"us_personnel": true, "roles": ["support"]}, "kind": "personnel"}, "context": {"exceptions": []}}

test_permit if {
	answer := data.sidecar.decision with input as doc
	answer.effect == "permit"
}

test_deny if {
	other := object.union(doc, {"subject": {"person": {"us_personnel": false}}})
	answer := data.sidecar.decision with input as other
	answer.effect == "deny"
}
"""
TRIAL = """package sidecar.trial

findings := {name | some name, ok in checks; ok != true}

checks := {
	"sidecar.trial.vetted": us_personnel,
	"sidecar.trial.role": has(data.data.trial.roles),
}

us_personnel if {
	input.subject.kind == "personnel"
	input.subject.person.us_personnel == true
} else := false

has(roles) if {
	some role in input.subject.person.roles
	listed := role in roles
	listed == true
} else := false

obligations := [{"id": "recheck_seconds", "seconds": 30}]
"""
TRIAL_TEST = """package sidecar.trial_test

import data.sidecar.decision_test as fixtures

test_nobody_without_a_role if {
	other := object.union(fixtures.doc, {"subject": {"person": {"roles": []}}})
	found := data.sidecar.trial.findings with input as other
	found == {"sidecar.trial.role"}
}
"""


def write_bundle(folder: Path, files: dict[str, str] | None = None, **data: object) -> Path:
    """A bundle that permits US personnel with a listed role. `files` adds or replaces; `data` replaces tables."""
    tables = {"trial": {"roles": ["support"]}, **data}
    texts = {
        ".manifest": json.dumps({"revision": "trial", "roots": ["sidecar", "data"], "rego_version": 1}),
        "sidecar/decision.rego": DECISION, "sidecar/decision_test.rego": DECISION_TEST,
        "sidecar/trial.rego": TRIAL, "sidecar/trial_test.rego": TRIAL_TEST,
        **{f"data/{name}/data.json": json.dumps(table, indent=1) for name, table in tables.items()},
        **(files or {}),
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
