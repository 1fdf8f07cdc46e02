"""`sidecar policy test`: OPA's conventions, tables of cases, time and coverage."""

import json
from itertools import count
from pathlib import Path

import jsonschema
import pytest
import yaml
from policy_bundles import TRIAL_TEST, write_bundle

from sidecar.administration.policy_cases import judge, read_cases
from sidecar.administration.policy_document import neutral, request, with_value
from sidecar.administration.policy_test import Run, run
from sidecar.decision.replay import read
from sidecar.errors import ConfigurationError, DecideError
from sidecar.vocabulary import AccessRequest, canonical

ROOT = Path(__file__).resolve().parents[2]
POLICIES = ROOT / "policies"
TESTS = """
test_wrong if {
	answer := 1 + 1
	answer == 3
	answer == 4
}

test_error if {
	answer := time.parse_rfc3339_ns("no instant")
	answer == 1
}

todo_test_later if 1 == 2

helper_test if 1 == 2
"""


def evaluated(folder: Path, **options: object) -> Run:
    ticks = count()
    return run(read(folder), str(folder), clock=lambda: next(ticks) / 1000, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path, {"sidecar/trial_test.rego": TRIAL_TEST + TESTS})


def test_rules_named_test_are_run_and_told_apart(folder: Path) -> None:
    result = evaluated(folder)
    assert {one.name: one.outcome for one in result.tests} == {
        "test_permit": "pass", "test_deny": "pass", "test_nobody_without_a_role": "pass", "test_wrong": "fail",
        "test_error": "error", "todo_test_later": "skip",
    }  # fmt: skip
    assert result.failed == 2
    assert all(one.seconds > 0 for one in result.tests if one.outcome != "skip")


def test_a_failing_test_names_its_first_false_condition_and_the_values_in_it(folder: Path) -> None:
    (one,) = [one for one in evaluated(folder).tests if one.name == "test_wrong"]
    source = (folder / one.file).read_text().splitlines()
    assert one.failure is not None
    assert (one.failure.text, one.failure.values) == ("answer == 3", (("answer", 2),))
    assert source[one.failure.row - 1].strip() == "answer == 3"
    assert source[one.row - 1].startswith("test_wrong")


def test_an_error_in_a_test_is_told(folder: Path) -> None:
    (one,) = [one for one in evaluated(folder).tests if one.name == "test_error"]
    assert "18:36" in one.error


@pytest.mark.parametrize(("pattern", "names"), [
    ("test_permit$", ["test_permit"]),
    (r"^data\.sidecar\.decision_test\.", ["test_permit", "test_deny"]),
    ("later", ["todo_test_later"]),
])  # fmt: skip
def test_only_what_matches_is_run(folder: Path, pattern: str, names: list[str]) -> None:
    assert [one.name for one in evaluated(folder, pattern=pattern).tests] == names


def test_what_is_not_chosen_is_not_evaluated(folder: Path) -> None:
    whole = evaluated(folder, pattern="test_permit|test_deny", coverage=True)
    part = evaluated(folder, pattern="test_deny", coverage=True)
    assert part.percent < whole.percent


def test_nothing_to_run_is_an_error(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="no test and no case"):
        evaluated(folder, pattern="test_absent")
    with pytest.raises(ConfigurationError, match="not a regular expression"):
        evaluated(folder, pattern="(")


def test_coverage_lists_the_lines_that_nothing_evaluated(tmp_path: Path) -> None:
    rule = "\nspare(x) if {\n\tx == 1\n\ty := x + 1\n\ty == 2\n}\n\nused if spare(2)\n"
    test = TRIAL_TEST + "\ntest_used if not data.sidecar.trial.used\n"
    folder = write_bundle(tmp_path)
    trial = folder / "sidecar/trial.rego"
    trial.write_text(trial.read_text() + rule)
    (folder / "sidecar/trial_test.rego").write_text(test)
    (one,) = [one for one in evaluated(folder, coverage=True).coverage if one.file == "sidecar/trial.rego"]
    lines = trial.read_text().splitlines()
    assert [lines[row - 1].strip() for row in one.missed] == ["y := x + 1", "y == 2"]
    assert {rule.path: len(rule.missed) for rule in one.rules if rule.missed} == {"sidecar.trial.spare": 2}


def test_the_shipped_tests_and_cases_pass_and_cover_nearly_every_line() -> None:
    table = yaml.safe_load((POLICIES / "sidecar/cases.yaml").read_text())
    result = evaluated(POLICIES, cases=read_cases(table, "cases", _no_file), coverage=True)
    assert result.failed == 0
    assert len(result.tests) > 150
    assert len(result.cases) == len(table["cases"])
    assert result.percent >= 98


# -- cases --------------------------------------------------------------------------------------------------------------


def _no_file(name: str) -> bytes:
    raise FileNotFoundError(name)


def _permit(document: bytes) -> bytes:
    person = json.loads(document)["subject"]["person"]["id"]
    if person is None:
        return json.dumps({"effect": "deny", "reasons": [{"code": "unidentified_person", "message": "who?", "rule": "a.b"}],
                           "obligations": [], "advice": [], "ttl_seconds": 0}).encode()  # fmt: skip
    if person == "nobody":
        return b'{"effect": "maybe"}'
    if person == "late":
        raise DecideError("x", operator="too late")
    return json.dumps({"effect": "permit", "reasons": [{"code": "fine", "message": "m", "rule": "a.c"}],
                       "obligations": [{"id": "recheck_seconds", "seconds": 1}, {"id": "strange"}], "advice": [],
                       "ttl_seconds": 0}).encode()  # fmt: skip


def judged(expect: dict[str, object], **case: object) -> object:
    table = {"cases": [{"name": "one", "expect": expect, **case}]}
    (one,) = read_cases(table, "cases", _no_file)
    return judge(one, _permit, lambda: 0.0)


@pytest.mark.parametrize(("expect", "case", "differences"), [
    ({"effect": "deny"}, {}, ()),
    ({"effect": "deny", "reasons": ["unidentified_person"], "rules": ["a.b"], "obligations": []}, {}, ()),
    ({"effect": "permit"}, {}, ("effect",)),
    ({"effect": "deny", "reasons": ["dsp_bulk"]}, {}, ("reasons",)),
    ({"effect": "deny", "reasons": []}, {}, ("reasons",)),
    ({"effect": "permit", "obligations": ["strange", "recheck_seconds"]}, {"set": {"subject.person.id": "a"}}, ()),
    ({"effect": "permit", "obligations": ["recheck_seconds"]}, {"base": {"subject": {"person": {"id": "a"}}}}, ("obligations",)),
    ({"effect": "permit", "rules": ["a.d"]}, {"set": {"subject.person.id": "a"}}, ("rules",)),
    ({"effect": "deny"}, {"set": {"subject.person.id": "nobody"}}, ("effect",)),
    ({"effect": "deny"}, {"set": {"subject.person.id": "late"}}, ("effect",)),
])  # fmt: skip
def test_a_case_compares_what_it_expects_and_nothing_else(expect, case, differences) -> None:
    one = judged(expect, **case)
    assert one.differences == differences
    assert one.passed is (differences == ())


def test_bases_by_name_by_file_and_in_place() -> None:
    table = {
        "bases": {"staff": {"subject": {"kind": "personnel"}}},
        "cases": [
            {"name": "a", "base": "staff", "expect": {"effect": "deny"}},
            {
                "name": "b",
                "base": "there.json",
                "set": {"context.exceptions.0.ticket": "T-2"},
                "expect": {"effect": "deny"},
            },
            {"name": "c", "base": {"context": {"phase": "request"}}, "expect": {"effect": "deny"}},
            {"name": "d", "expect": {"effect": "deny"}},
        ],
    }
    grant = {"id": "G", "person": "p", "scope": {}, "justification": "j", "ticket": "T-1", "not_before": "x",
             "expires": "y", "requested_by": "q", "approvers": []}  # fmt: skip
    body = json.dumps({"input": {"context": {"exceptions": [grant]}}, "decision": {}}).encode()
    cases = read_cases(table, "cases", lambda name: {"there.json": body}[name])
    assert cases[0].request.subject.kind == "personnel"
    assert cases[1].request.context.exceptions[0].ticket == "T-2"
    assert cases[2].request.context.phase == "request"
    assert json.loads(canonical(cases[3].request)) == neutral()


@pytest.mark.parametrize(("table", "said"), [
    ({}, "cases"),
    ({"cases": []}, "no cases"),
    ({"cases": [{"name": "a", "expect": {}}]}, "effect"),
    ({"cases": [{"name": "a", "expect": {"effect": "allow"}}]}, "allow"),
    ({"cases": [{"name": "a", "expect": {"effect": "deny"}, "with": 1}]}, "with"),
    ({"cases": [{"name": "a", "expect": {"effect": "deny"}}] * 2}, "one name"),
    ({"cases": [{"name": "a", "expect": {"effect": "deny"}, "base": "absent"}]}, "absent"),
    ({"cases": [{"name": "a", "expect": {"effect": "deny"}, "set": {"subject.persn.id": 1}}]}, "Write subject.person"),
    ({"cases": [{"name": "a", "expect": {"effect": "deny"}, "set": {"subject.person.id": 1}}]}, "subject.person.id"),
    ({"cases": [{"name": "a", "expect": {"effect": "deny"}, "base": {"context": {"exposure": {"x": 1}}}}]}, "exposure"),
])  # fmt: skip
def test_a_bad_table_names_the_case_and_the_mistake(table: object, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read_cases(table, "cases", _no_file)


def test_the_schema_takes_what_the_reader_takes() -> None:
    schema = json.loads((POLICIES / "schemas/cases.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load((POLICIES / "sidecar/cases.yaml").read_text()), schema)
    for wrong in (
        {},
        {"cases": []},
        {"cases": [{"name": "a", "expect": {}}]},
        {"cases": [{"name": "a", "expect": {"effect": "deny"}, "with": 1}]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_the_neutral_document_knows_nothing() -> None:
    document = neutral()
    assert request(document, "x") == request(with_value(document, "input.context.ticket", None, "x"), "x")
    assert isinstance(request(document, "x"), AccessRequest)
    assert document["subject"]["kind"] is None


# -- the command --------------------------------------------------------------------------------------------------------


def test_what_fails_is_shown_beside_what_was_expected(shell, folder: Path) -> None:
    (folder / "trial_cases.yaml").write_text(
        "cases: [{name: staff, base: {subject: {kind: personnel, person: {us_personnel: true}}}, expect: {effect: permit, reasons: [fine]}}]"
    )
    ran = shell("policy", "test", folder)
    assert ran.code == 1
    assert "✘ sidecar/trial_test.rego:11 sidecar.trial_test.test_wrong" in ran.out
    assert "answer == 3" in ran.out
    assert "answer = 2" in ran.out
    assert "todo_test_later: still to be written" in ran.out
    assert "✘ case staff" in ran.out
    assert "not_us_personnel: no (sidecar.trial.role)" in ran.out
    assert "5 tests, 1 case: 3 failed, 1 still to be written" in ran.out


def test_a_floor(shell, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path)
    assert shell("policy", "test", folder, "--floor", 50).code == 0
    ran = shell("policy", "test", folder, "--run", "permit", "--floor", 100)
    assert ran.code == 1
    assert "(floor 100 %: not reached)" in ran.out
    assert "not reached: " in ran.out


def test_json(shell, folder: Path) -> None:
    document = json.loads(shell("policy", "test", folder, "--json", "--coverage").out)
    assert set(document) == {"revision", "ok", "tests", "cases", "coverage", "percent", "floor"}
    assert document["ok"] is False
    assert {one["outcome"] for one in document["tests"]} == {"pass", "fail", "error", "skip"}


def test_mistakes_of_the_user_end_with_2(shell, folder: Path) -> None:
    wrong = shell.refused("policy", "test", folder, "--run", "absent")
    assert "--run: no test and no case matches (found 'absent')" in wrong
    assert shell("policy", "test", folder, "--cases", folder / "absent.yaml").code == 2
    (folder / "twice.yaml").write_text("cases: []\ncases: []\n")
    assert "twice" in shell.refused("policy", "test", folder, "--cases", folder / "twice.yaml")
