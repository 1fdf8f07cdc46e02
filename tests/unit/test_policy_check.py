"""`sidecar policy check`: every mistake is found at its place, and what is in order is left alone."""

import json
from pathlib import Path

import pytest
from policy_bundles import DECISION, TRIAL, TRIAL_TEST, write_bundle

from sidecar.administration.policy_check import Finding, check
from sidecar.decision.replay import read

POLICIES = Path(__file__).resolve().parents[2] / "policies"


def found(folder: Path) -> list[Finding]:
    return list(check(read(folder)).findings)


def only(folder: Path, code: str) -> Finding:
    """The one finding of this code; there is no other error."""
    findings = found(folder)
    assert {one.code for one in findings if one.level == "error"} <= {code}, findings
    (one,) = [one for one in findings if one.code == code]
    return one


def rule(text: str) -> dict[str, str]:
    """The trial policy with more rules at its end, all of them reached by a test."""
    return {"sidecar/trial.rego": f"{TRIAL}\n{text}\n"}


def row_of(files: dict[str, str], text: str) -> int:
    return files["sidecar/trial.rego"][: files["sidecar/trial.rego"].index(text)].count("\n") + 1


def test_the_shipped_policies_have_no_finding() -> None:
    assert found(POLICIES) == []


def test_a_policy_in_order_has_no_finding(tmp_path: Path) -> None:
    assert found(write_bundle(tmp_path)) == []


@pytest.mark.parametrize(("body", "path", "near"), [
    ("more if input.subject.person.us_personel == true", "input.subject.person.us_personel", "input.subject.person.us_personnel"),
    ('more if { p := input.resource.location; p.provder == "oci" }', "input.resource.location.provder", "input.resource.location.provider"),
    ('more if { some g in input.context.exceptions; g.tickett == "T" }', "input.context.exceptions.*.tickett", "input.context.exceptions.*.ticket"),
    ('more if { every t in input.subject.person.training { t.course == "x" } }', "input.subject.person.training.*.course", ""),
    ("more := {g.nam | some g in input.context.authorizations}", "input.context.authorizations.*.nam", ""),
    ('more if input.context.exposure["id_contacts"] == null', "input.context.exposure.id_contacts", "input.context.exposure.id_contact"),
    ("more if input.subject.roles == []", "input.subject.roles", ""),
    ('more if asks(input.subject.person.training)\nasks(list) if { some t in list; t.untill == "x" }', "input.subject.person.training.*.untill", "until"),
])  # fmt: skip
def test_a_path_that_the_input_document_does_not_have(tmp_path: Path, body: str, path: str, near: str) -> None:
    one = only(write_bundle(tmp_path, rule(body)), "unknown_input")
    assert path in one.message
    assert (near in one.fix) if near else "documents.md" in one.fix or "if that is meant" in one.fix
    assert (one.file, one.level) == ("sidecar/trial.rego", "error")
    assert one.row > TRIAL.count("\n")


@pytest.mark.parametrize("body", [
    "more if input.context.exposure.id_contact == null",
    'more if { some category in ["id_contact"]; input.resource.dataset.population[category] == null }',
    "more if { some t in input.subject.person.training; t.id == data.data.trial.roles[0] }",
    "more if asks(input.subject.person.roles)\nelse := asks(data.data.trial.roles)\nasks(list) if list == []",
])  # fmt: skip
def test_a_path_that_exists_is_none(tmp_path: Path, body: str) -> None:
    assert [one for one in found(write_bundle(tmp_path, rule(body))) if one.level == "error"] == []


@pytest.mark.parametrize(("body", "path"), [
    ("more if data.data.trial.rolls == []", "data.data.trial.rolls"),
    ("more if { terms := data.data.trial; terms.rolls == [] }", "data.data.trial.rolls"),
    ("more if data.data.personel.status == []", "data.data.personel"),
])  # fmt: skip
def test_a_path_that_no_file_defines(tmp_path: Path, body: str, path: str) -> None:
    one = only(write_bundle(tmp_path, rule(body)), "unknown_data")
    assert path in one.message


def test_an_empty_list_says_nothing_about_what_may_stand_in_it(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, rule("more if { some one in data.data.trial.windows; one.until == 3 }"),
                          trial={"roles": ["support"], "windows": []})  # fmt: skip
    assert [one for one in found(folder) if one.level == "error"] == []


def test_a_reason_code_that_a_denial_may_carry(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, {"sidecar/decision.rego": DECISION.replace("not_us_personnel", "not_us_personel")})
    one = only(folder, "unknown_reason")
    assert (one.file, one.row, one.fix) == ("sidecar/decision.rego", 13, "Write not_us_personnel, if that is meant")


def test_a_reason_code_in_data(tmp_path: Path) -> None:
    table = {"denying": {"sidecar.trial.vetted": {"code": "nope"}, "sidecar.trial.role": {"code": "dsp_bulk"},
                         "sidecar.trial.gone": {"code": "dsp_bulk"}}, "permitting": {}}  # fmt: skip
    findings = found(write_bundle(tmp_path, reasons=table))
    assert [(one.code, one.file, one.row) for one in findings] == [
        ("unknown_reason", "data/reasons/data.json", 3), ("reason_without_rule", "data/reasons/data.json", 9),
    ]  # fmt: skip


def test_a_rule_without_a_reason(tmp_path: Path) -> None:
    table = {"denying": {"sidecar.trial.vetted": {"code": "not_us_personnel"}}, "permitting": {}}
    one = only(write_bundle(tmp_path, reasons=table), "rule_without_reason")
    assert (one.file, one.row, one.level) == ("sidecar/trial.rego", 7, "warning")


@pytest.mark.parametrize(("obligation", "what", "near"), [
    ('{"id": "redact_field", "categories": []}', "redact_field", "redact_fields"),
    ('{"id": "redact_fields", "category": []}', "redact_fields.category", "categories"),
    ('{"id": "redact_fields", "categories": ["id_contacts"]}', "categories: id_contacts", "id_contact"),
    ('{"id": "require_durability", "level": "comitted"}', "level: comitted", "committed"),
    ('{"id": "drop_records", "subjects": "non_us"}', "subjects: non_us", ""),
])  # fmt: skip
def test_an_obligation_that_nobody_fulfils(tmp_path: Path, obligation: str, what: str, near: str) -> None:
    folder = write_bundle(
        tmp_path, {"sidecar/trial.rego": TRIAL.replace('{"id": "recheck_seconds", "seconds": 30}', obligation)}
    )
    one = only(folder, "unknown_obligation")
    assert f"`{what}`" in one.message
    assert near in one.fix


def test_a_built_in_that_the_engine_does_not_have(tmp_path: Path) -> None:
    files = rule("more if http.send({}) == 1")
    (one,) = found(write_bundle(tmp_path, files))
    assert (one.file, one.row, one.level) == ("sidecar/trial.rego", row_of(files, "more if"), "error")
    assert "http.send" in one.message


@pytest.mark.parametrize(("body", "what"), [
    ("more if { spare := input.version; true }", "`spare`"),
    ("more := {1 | some left, right in data.data.trial; left == 1}", "`right`"),
    ("more if asks(1, 2)\nasks(a, b) if a == 1", "parameter `b`"),
])  # fmt: skip
def test_what_is_declared_and_never_used(tmp_path: Path, body: str, what: str) -> None:
    findings = [one for one in found(write_bundle(tmp_path, rule(body))) if one.code == "unused"]
    assert [what in one.message for one in findings] == [True]


def test_an_unused_import(tmp_path: Path) -> None:
    text = TRIAL.replace("findings :=", "import data.sidecar.decision_test as spare\n\nfindings :=", 1)
    findings = found(write_bundle(tmp_path, {"sidecar/trial.rego": text}))
    assert [(one.code, one.row) for one in findings] == [("unused", 3)]


def test_a_rule_that_no_test_reaches(tmp_path: Path) -> None:
    files = rule("more if {\n\tinput.version == 2\n}")
    one = only(write_bundle(tmp_path, files), "untested_rule")
    assert (one.row, one.level) == (row_of(files, "more if"), "warning")
    assert "sidecar.trial.more" in one.message


def test_a_file_without_a_test_beside_it(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, {"sidecar/spare.rego": "package sidecar.spare\n\none := 1\n"})
    assert [one.file for one in found(folder) if one.code == "no_test_file"] == ["sidecar/spare.rego"]


def test_a_bundle_without_tests(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path)
    for file in folder.rglob("*_test.rego"):
        file.unlink()
    assert "no_tests" in [one.code for one in found(folder) if one.level == "error"]


def test_two_files_that_annotate_one_package(tmp_path: Path) -> None:
    note = "# METADATA\n# title: x\n# scope: package\n"
    test = f"{note}package sidecar.trial\n\nspare := 1\n"
    folder = write_bundle(tmp_path, {"sidecar/trial.rego": note + TRIAL, "sidecar/two.rego": test})
    one = only(folder, "annotated_twice")
    assert (one.file, one.row) == ("sidecar/two.rego", 3)


# -- the command --------------------------------------------------------------------------------------------------------


def test_errors_end_with_1_and_name_their_place(shell, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, rule("more if input.subject.rolls == []"))
    ran = shell("policy", "check", folder)
    assert ran.code == 1
    assert "✘ sidecar/trial.rego:23:9: unknown_input: input.subject.rolls is not in the input document" in ran.out
    assert f"opa fmt --diff {folder}" in ran.out


def test_warnings_count_only_when_strict(shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = write_bundle(tmp_path / "b", rule("more := 1"), trial={"roles": ["support"]})
    (folder / "sidecar/two.rego").write_text("package sidecar.two\n\none := 1\n")
    assert shell("policy", "check", folder).code == 0
    ran = shell("policy", "check", folder, "--strict")
    assert ran.code == 1
    assert "was not asked: no opa at hand" in ran.out


def test_json(shell, tmp_path: Path) -> None:
    ran = shell("policy", "check", write_bundle(tmp_path, rule("more if input.subject.rolls == []")), "--json")
    document = json.loads(ran.out)
    assert (ran.code, document["ok"], document["opa"]) == (1, False, False)
    assert set(document) == {"revision", "ok", "modules", "tests", "opa", "findings"}
    first = document["findings"][0]
    assert set(first) == {"file", "row", "col", "level", "code", "message", "fix"}


def test_what_is_no_bundle_ends_with_2(shell, tmp_path: Path) -> None:
    assert "manifest" in shell.refused("policy", "check", tmp_path)
    assert "cannot be read" in shell.refused("policy", "check", tmp_path / "absent.tar.gz")


def test_opa_is_asked_too(shell, tmp_path: Path, needs) -> None:
    opa = needs("opa", "run `make tools`")
    # Two definitions of one value: nothing that the embedded loader or the reading here looks for.
    folder = write_bundle(
        tmp_path, {"sidecar/trial_test.rego": TRIAL_TEST + "\nsame := 1\n\nsame := 1 if {\n\tx := 2\n}\n"}
    )
    ran = shell("policy", "check", folder, "--strict", "--opa", opa)
    assert ran.code == 1
    assert "`opa check --strict` was asked too" in ran.out
    assert shell("policy", "check", write_bundle(tmp_path / "fine"), "--strict", "--opa", opa).code == 0


def test_an_opa_that_is_none_ends_with_2(shell, tmp_path: Path) -> None:
    assert "opa" in shell.refused("policy", "check", write_bundle(tmp_path / "b"), "--opa", "/bin/false")
