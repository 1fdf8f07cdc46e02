"""A policy bundle of one rule, for tests that need a decision the real policy never makes."""

import json
from pathlib import Path

_RULE = """package sidecar

decision := {decision} if {{
\tinput.subject.person.id == "amy"
}} else := {{
\t"effect": "deny",
\t"reasons": [{{"code": "not_us_personnel", "message": "only Amy", "rule": "sidecar.trial"}}],
\t"obligations": [],
\t"advice": [],
\t"ttl_seconds": 0,
}}
"""
_TEST = """package sidecar.trial_test

test_nobody_else if {
\tanswer := data.sidecar.decision with input as {"subject": {"person": {"id": "bob"}}}
\tanswer.effect == "deny"
}
"""
PERMIT = {"effect": "permit", "reasons": [{"code": "trial", "message": "Amy may", "rule": "sidecar.trial"}],
          "obligations": [], "advice": [], "ttl_seconds": 0}  # fmt: skip


def write_policy(folder: Path, obligations: list[dict[str, object]] | None = None, **decision: object) -> Path:
    """Write a bundle that permits Amy everything with these obligations. `decision` replaces keys of the document."""
    document = {**PERMIT, "obligations": obligations or [], **decision}
    (folder / "sidecar").mkdir(parents=True, exist_ok=True)
    (folder / ".manifest").write_text(json.dumps({"revision": "trial", "roots": ["sidecar"], "rego_version": 1}))
    (folder / "sidecar" / "decision.rego").write_text(_RULE.format(decision=json.dumps(document)))
    (folder / "sidecar" / "decision_test.rego").write_text(_TEST)
    return folder
