"""`sidecar policy eval`: one question, answered as a sidecar would judge the answer."""

import io
import json
import sys
from pathlib import Path

import pytest
from policy_bundles import DECISION, write_bundle

from sidecar.administration.policy_document import NEUTRAL, setting
from sidecar.administration.policy_eval import evaluate
from sidecar.decision.replay import read
from sidecar.errors import ConfigurationError

STAFF = '{"subject": {"kind": "personnel", "person": {"us_personnel": true, "roles": ["support"]}}}'


@pytest.fixture
def staff(tmp_path: Path) -> Path:
    (tmp_path / "staff.json").write_text(STAFF)
    return tmp_path / "staff.json"


def test_the_decision_document(shell, tmp_path: Path, staff: Path) -> None:
    ran = shell("policy", "eval", write_bundle(tmp_path / "b"), "--input", staff)
    assert ran.code == 0
    assert ran.out.splitlines()[0] == "permit"
    assert 'obligation recheck_seconds {"seconds": 30}' in ran.out


def test_changes_are_laid_over_the_document(shell, tmp_path: Path, staff: Path) -> None:
    ran = shell("policy", "eval", write_bundle(tmp_path / "b"), "--input", staff, "--set",
                "subject.person.us_personnel=false", "--set", 'subject.person.roles=["support"]', "--json")  # fmt: skip
    document = json.loads(ran.out)
    assert set(document) == {"revision", "entrypoint", "value", "problem"}
    assert [one["rule"] for one in document["value"]["reasons"]] == ["sidecar.trial.vetted"]


def test_a_document_from_a_pipe(shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(STAFF.encode())))
    assert shell("policy", "eval", write_bundle(tmp_path / "b"), "--input", "-").out.startswith("permit")


def test_another_rule(shell, tmp_path: Path, staff: Path) -> None:
    ran = shell(
        "policy", "eval", write_bundle(tmp_path / "b"), "--input", staff, "--entrypoint", "data.sidecar.trial.checks"
    )
    assert ran.code == 0
    assert '"sidecar.trial.vetted": true' in ran.out


@pytest.mark.parametrize(("change", "problem"), [
    (('"not_us_personnel"', '"nope"'), "unknown reason code"),
    (('"ttl_seconds": 0} if', '"ttl_seconds": "0"} if'), "ttl_seconds"),
    (("} else := {", "} else := input.context.ticket if 1 == 2 else := {"), None),
])  # fmt: skip
def test_an_answer_that_no_sidecar_could_act_on_ends_with_1(shell, tmp_path: Path, change, problem) -> None:
    folder = write_bundle(tmp_path / "b", {"sidecar/decision.rego": DECISION.replace(*change)})
    (tmp_path / "nobody.json").write_text("{}")
    ran = shell("policy", "eval", folder, "--input", tmp_path / "nobody.json")
    assert ran.code == (1 if problem else 0)
    assert (problem or "deny") in ran.out


def test_no_answer_ends_with_1(tmp_path: Path) -> None:
    text = DECISION.replace("reasons != []\n", 'reasons != []\n\tinput.context.ticket == "T"\n').replace(
        "} else := {", "} else := {", 1
    )
    folder = write_bundle(
        tmp_path, {"sidecar/decision.rego": text.split("} else")[0] + "}\n" + text[text.index("\nreasons :=") :]}
    )
    answer = evaluate(read(folder), NEUTRAL, "trial")
    assert answer.value is None
    assert "undefined" in answer.problem


def test_mistakes_of_the_user_end_with_2(shell, tmp_path: Path, staff: Path) -> None:
    folder = write_bundle(tmp_path / "b")
    wrong = shell.refused("policy", "eval", folder, "--input", staff, "--entrypoint", "data.absent")
    assert wrong.startswith("configuration: --entrypoint: data.absent is not a rule"), (
        "no file of the bundle is to blame"
    )
    assert "--set" in shell.refused("policy", "eval", folder, "--input", staff, "--set", "subject")
    assert "context.phase" in shell.refused("policy", "eval", folder, "--input", staff, "--set", "context.phase=later")
    (tmp_path / "bad.json").write_text("[")
    assert "not JSON" in shell.refused("policy", "eval", folder, "--input", tmp_path / "bad.json")
    assert shell("policy", "eval", folder, "--input", tmp_path / "absent.json").code == 2


def test_values_of_set_are_json_or_text() -> None:
    assert setting("a.b=3") == ("a.b", 3)
    assert setting("a=null") == ("a", None)
    assert setting("a=T-1=x") == ("a", "T-1=x")
    with pytest.raises(ConfigurationError):
        setting("=x")
