"""`sidecar policy explain`: what fired and what failed first, over the shipped policies and over shapes they lack."""

import functools
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from policy_bundles import TRIAL, write_bundle

from sidecar.administration.policy_document import merged, neutral, request, with_value
from sidecar.administration.policy_explain import Explainer, Explanation, Named
from sidecar.administration.policy_why import Cause
from sidecar.decision.replay import read
from sidecar.vocabulary import AccessRequest

_SPEC = importlib.util.spec_from_file_location("policy_inputs", Path(__file__).with_name("policy_inputs.py"))
inputs = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(inputs)
POLICIES = Path(__file__).resolve().parents[2] / "policies"
GRANT = {"id": "EX-1", "person": "alice", "scope": {"services": ["sidecar.demo.profiles.v1.Profiles"],
         "categories": ["behaviour", "id_contact"], "subjects": "us"}, "justification": "incident", "ticket": "HELP-1",
         "not_before": "2026-11-22T10:00:00Z", "expires": "2026-11-22T20:00:00Z", "requested_by": "chen",
         "approvers": ["dora", "emil"], "max_records": 3}  # fmt: skip


@functools.cache
def explainer() -> Explainer:
    return Explainer(read(POLICIES), "policies")


def call(**changes: object) -> AccessRequest:
    """The call that the shipped table permits, with changes: `person__status="left"` is `subject.person.status`."""
    table = yaml.safe_load((POLICIES / "sidecar/cases.yaml").read_text())
    document = merged(neutral(), table["bases"]["support"])
    for name, value in changes.items():
        path = name.replace("__", ".")
        path = (
            f"subject.{path}"
            if path.startswith(("person", "engagement", "authentication", "workload", "kind"))
            else path
        )
        document = with_value(document, path, value, "test")
    return request(document, "test")


def explained(**changes: object) -> Explanation:
    return explainer().explain(call(**changes))


def lines(cause: Cause) -> Iterator[Cause]:
    yield cause
    for one in cause.causes:
        yield from lines(one)


def named(explanation: Explanation, name: str) -> Named:
    (one,) = [one for one in explanation.named if one.name == name]
    return one


def test_a_permit_names_its_rule_and_nothing_else() -> None:
    explanation = explained()
    assert explanation.decision is not None
    assert explanation.decision["effect"] == "permit"
    assert [(one.name, one.told) for one in explanation.named] == [("sidecar.residency.us_personnel", True)]


FAILING = [
    # rule, changes, the first condition that fails, a value in it
    ("sidecar.residency.us_subjects", {"person__us_personnel": False}, "input.subject.person.us_personnel == true", ("input.subject.person.us_personnel", False)),
    ("sidecar.residency.us_subjects", {"person__us_personnel": None}, "input.subject.person.us_personnel == true", ("input.subject.person.us_personnel", None)),
    ("sidecar.residency.person", {"person__id": None}, None, ("input.subject.person.id", None)),
    ("sidecar.residency.person", {"person__id": ""}, None, ("input.subject.person.id", "")),
    ("sidecar.residency.unknown_subjects", {"person__us_personnel": False, "resource__subjects__us": 0, "resource__subjects__unknown": 2}, "input.subject.person.us_personnel == true", ("subjects.unknown", 2)),
    ("sidecar.residency.operated_from", {"kind": "workload", "workload__operated_from": "SG"}, "input.subject.workload.operated_from in data.data.regions.operated_from", ("input.subject.workload.operated_from", "SG")),
    ("sidecar.residency.may", {"kind": "workload", "action__name": "write"}, None, ("action", "write")),
    ("sidecar.residency.own", {"kind": "data_subject"}, "input.resource.subjects.own == call.named", ("input.resource.subjects.own", 0)),
    ("sidecar.residency.own_action", {"kind": "data_subject", "resource__subjects__own": 1, "action__name": "admin"}, None, ("action", "admin")),
    ("sidecar.description.method", {"action__name": "peek"}, None, ("action", "peek")),
    ("sidecar.personnel.status", {"person__status": "left"}, None, ("status", "left")),
    ("sidecar.personnel.vetting", {"person__vetted_until": None}, "until != null", ("until", None)),
    ("sidecar.personnel.vetting", {"person__vetted_until": "2026-11-22T11:00:00Z"}, "time.parse_rfc3339_ns(until) > now", ("until", "2026-11-22T11:00:00Z")),
    ("sidecar.personnel.training", {"person__training": []}, "every course in courses { course in valid }", ("valid", [])),
    ("sidecar.personnel.engagement", {"engagement__type": "investment"}, "input.subject.engagement.type in types", ("input.subject.engagement.type", "investment")),
    ("sidecar.personnel.engagement", {"engagement__until": None}, "until != null", ("until", None)),
    ("sidecar.personnel.directory", {"subject__as_of": "2026-11-21T11:30:00Z"}, "age <= terms.max_directory_age_seconds * 1000000000", ("age", 88200 * 10**9)),
    ("sidecar.personnel.authentication", {"authentication__aal": None}, "is_number(aal)", ("aal", None)),
    ("sidecar.personnel.authentication", {"authentication__aal": 1}, "aal >= terms.min_aal", ("aal", 1)),
    ("sidecar.personnel.location", {"person__location__country": "FR"}, "input.subject.person.location.country in places.us_subjects", ("input.subject.person.location.country", "FR")),
    ("sidecar.purpose.action", {"action__name": "export"}, None, ("action", "export")),
    ("sidecar.purpose.role", {"person__roles": ["analyst"]}, None, None),
    ("sidecar.purpose.ticket", {"context__ticket": None}, None, ("input.context.ticket", None)),
    ("sidecar.egress.storage", {"resource__location__region": "elsewhere"}, "places[place.provider][place.region] == place.country", ("place.region", "elsewhere")),
    ("sidecar.egress.destination", {"context__network__destination__country": "SG"}, "input.context.network.destination.country in list.countries", ("input.context.network.destination.country", "SG")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "changes", "condition", "value"), FAILING, ids=lambda one: one if isinstance(one, str) else None
)
def test_the_condition_that_failed_first_is_named_with_its_line_and_values(rule, changes, condition, value) -> None:
    one = named(explained(**changes), rule)
    assert one.told
    assert f'"{rule}"' in (POLICIES / one.cause.file).read_text().splitlines()[one.cause.row - 1]
    found = list(lines(one.cause))
    if condition is not None:
        (line,) = [line for line in found if line.text == condition and not line.holds]
        assert condition.split("{")[0].strip() in (POLICIES / line.file).read_text().splitlines()[line.row - 1]
    if value is not None:
        assert value in [(given.text, given.value) for line in found for given in line.values if not given.undefined]


def test_a_name_that_a_branch_gives_is_told_by_the_branches_of_its_rule() -> None:
    one = named(explained(context__purpose=None), "sidecar.purpose.stated")
    assert (one.told, one.cause.holds) == (True, True)
    failed = [
        (line.text, [(given.text, given.undefined) for given in line.values])
        for line in one.cause.causes
        if not line.holds
    ]
    assert failed == [
        ("call.judged == false", [("call.judged", False)]),
        ("terms := data.data.purposes.purposes[stated]", [("data.data.purposes.purposes[stated]", True), ("stated", False)]),
    ]  # fmt: skip


def test_a_permit_is_told_by_what_held() -> None:
    one = named(explained(), "sidecar.residency.us_personnel")
    assert one.cause.holds
    held = {line.text for line in lines(one.cause) if line.holds}
    assert {"call.personnel == true", "call.cleared == true", "input.subject.person.us_personnel == true"} <= held


def test_a_whole_deny_is_followed_to_the_input_it_comes_from() -> None:
    one = named(explained(person__us_personnel=False), "sidecar.residency.us_subjects")
    texts = [line.text for line in lines(one.cause)]
    assert one.cause.text == '"sidecar.residency.us_subjects": [call.exposed, call.us] != [true, true]'
    for text in (
        "exposed := [barred, drop] == [true, false]",
        "us := subjects.us > 0",
        '"protected" in input.resource.classes',
    ):
        assert text in texts
    assert texts.count("us := subjects.us > 0") == 1


def test_what_an_exception_lifted_is_told_as_such() -> None:
    explanation = explained(person__us_personnel=False, context__exceptions=[GRANT])
    assert [(one.name, one.told) for one in explanation.named] == [
        ("sidecar.exceptions.valid", True), ("sidecar.residency.us_subjects", False),
    ]  # fmt: skip


def test_a_rule_that_cannot_be_worked_out_is_found(tmp_path: Path) -> None:
    text = TRIAL.replace(
        '"sidecar.trial.role": has(data.data.trial.roles)',
        '"sidecar.trial.role": time.parse_rfc3339_ns(input.resource.categories[0])',
    )
    explanation = Explainer(read(write_bundle(tmp_path, {"sidecar/trial.rego": text})), "trial").explain(call())
    assert explanation.decision is None
    assert explanation.error.startswith("sidecar/trial.rego:7:")
    assert explanation.named == ()


def test_the_branches_of_the_decision_say_why_it_was_not_another() -> None:
    explanation = explained(person__status="left")
    (rule,) = [one for one in explanation.rules if (one.package, one.name) == ("sidecar", "decision")]
    failed = [line.text for branch in rule.branches for line in branch.lines if not line.holds]
    assert failed[0] == "findings == set()"
    assert [branch.state for branch in rule.branches] == ["failed", "failed", "fired", "past"]
    (values,) = [one.value for branch in rule.branches[:1] for line in branch.lines for one in line.values]
    assert values == ["sidecar.personnel.status"]


def test_each_call_of_a_function_is_told_with_its_arguments() -> None:
    explanation = explained(person__status="left", person__location__country="FR", person__us_personnel=False)
    places = [one for one in explanation.rules if one.name == "leaves_for"]
    assert [list(one.arguments) for one in places] == [["list"]]
    assert places[0].value is True


@pytest.mark.parametrize("seed", [3, 4])
def test_what_fired_is_what_the_decision_says(seed: int) -> None:
    """Found from the rules that fired, never from the reasons: both are the same, but for what a grant lifts."""
    permits = 0
    for one in inputs.Calls(seed).stream(40):
        explanation = explainer().explain(one)
        decision = explanation.decision
        assert decision is not None
        rules = {reason["rule"] for reason in decision["reasons"]}  # type: ignore[index, union-attr]
        assert {name.name for name in explanation.named if name.told} == rules
        untold = {name.name for name in explanation.named if not name.told}
        if untold:
            assert one.context.exceptions or _dsp(untold), untold
        permits += decision["effect"] == "permit"
        for name in explanation.named:
            source = (POLICIES / name.cause.file).read_text().splitlines()
            assert (
                name.name.rpartition(".")[2] in source[name.cause.row - 1]
                or name.name.rpartition(".")[0] in source[name.cause.row - 1]
            )
    assert permits


def _dsp(names: set[str]) -> bool:
    """Of 28 CFR part 202, whose findings an authorization or the security requirements lift."""
    return all(
        name.startswith(("sidecar.bulk.", "sidecar.covered_persons.", "sidecar.government_related.")) for name in names
    )


# -- shapes that the shipped policies lack ------------------------------------------------------------------------------


def shaped(tmp_path: Path, text: str, **changes: object) -> Explanation:
    rule = f"{TRIAL}\n{text}\n".replace(
        '"sidecar.trial.role": has(data.data.trial.roles)', '"sidecar.trial.role": more'
    )
    return Explainer(read(write_bundle(tmp_path, {"sidecar/trial.rego": rule})), "trial").explain(call(**changes))


def failing(explanation: Explanation) -> list[tuple[str, dict[str, object]]]:
    one = named(explanation, "sidecar.trial.role")
    return [
        (line.text, {given.text: given.value for given in line.values}) for line in lines(one.cause) if not line.holds
    ][1:]


@pytest.mark.parametrize(("text", "condition", "values"), [
    ("more if minus(input.resource.categories) else := false\n\nminus(list) if {\n\t-1 in list\n}", "-1 in list", {"list": ["behaviour", "id_contact", "public"]}),
    ('more if {\n\tsome one in input.subject.person.roles\n\tstartswith(one, "s")\n\tone == "x"\n} else := false', 'one == "x"', {"one": "support"}),
    ("more if {\n\tdouble(3) == 7 # not so\n} else := false\n\ndouble(x) := x * 2", "double(3) == 7", {"double(3)": 6}),
    ('more if kind("b", 1) else := false\n\nkind("a", x) if x == 1\n\nkind("b", x) if x == 2', "x == 2", {"x": 1}),
    ('more if {\n\tevery role in input.subject.person.roles {\n\t\tlisted := role in ["x"]\n\t\tlisted == true\n\t}\n} else := false', None, {"input.subject.person.roles": ["support"]}),
    ('more if {\n\tfound := {one | some one in input.resource.categories; double(one) == "public-"}\n\tcount(found) == 2\n} else := false\n\ndouble(x) := concat("", [x, "-"])', "count(found) == 2", {"found": ["public"]}),
    ('more if {\n\tinput.subject.kind == "workload"\n} else if {\n\tinput.subject.kind == "data_subject"\n} else := false', 'input.subject.kind == "data_subject"', {"input.subject.kind": "personnel"}),
    ('more if {\n\tnames := {"a": 1}\n\tnames[input.subject.kind] == 1\n} else := false', "names[input.subject.kind] == 1", {"input.subject.kind": "personnel"}),
    ("more if {\n\tlisted := input.action.name in data.data.trial.roles\n\tnot listed\n\tlisted == true\n} else := false", "listed == true", {"listed": False}),
])  # fmt: skip
def test_every_shape_of_a_condition(
    tmp_path: Path, text: str, condition: str | None, values: dict[str, object]
) -> None:
    if "listed := input" in text:
        text = text.replace("input.action.name in data.data.trial.roles", '"x" in roles').replace(
            "\tlisted", "\troles := data.data.trial.roles\n\tlisted", 1
        )
    found = failing(shaped(tmp_path, text))
    if condition is not None:
        assert condition in [one[0] for one in found]
        (given,) = [one[1] for one in found if one[0] == condition]
    else:
        (given,) = [one[1] for one in found if one[0].startswith("every")]
    assert {key: given[key] for key in values} == values


def test_sets_and_defaults_are_rules_too(tmp_path: Path) -> None:
    text = 'default more := false\n\nmore if count(kinds) == 2\n\nkinds contains kind if {\n\tsome kind in input.resource.categories\n\tkind == "public"\n}\n'
    explanation = shaped(tmp_path, text)
    assert ("count(kinds) == 2", {"kinds": ["public"]}) in failing(explanation)
    (kinds,) = [one for one in explanation.rules if one.name == "kinds"]
    assert (kinds.value, kinds.fired) == (["public"], True)


def test_a_branch_that_another_forestalled_is_not_evaluated(tmp_path: Path) -> None:
    """It would fail with an error, and the decision does not."""
    text = 'more := false if {\n\tinput.context.ticket == "HELP-1"\n} else if {\n\tt := input.context.ticket\n\tis_string(t)\n\ttime.parse_rfc3339_ns(t) > 1\n} else := false\n'
    explanation = shaped(tmp_path, text)
    assert explanation.decision is not None
    (more,) = [one for one in explanation.rules if one.name == "more"]
    assert [branch.state for branch in more.branches] == ["fired", "past", "past"]


def test_a_mere_list_of_names_asserts_none(tmp_path: Path) -> None:
    text = 'more := false if {\n\tcount(known) == 2\n} else := true\n\nknown := {"sidecar.trial.vetted", "sidecar.trial.other"}\n'
    assert [one.name for one in shaped(tmp_path, text).named] == ["sidecar.trial.role"]


# -- the command --------------------------------------------------------------------------------------------------------


def test_a_case_by_name(shell) -> None:
    ran = shell("policy", "explain", POLICIES, "--case", "training has lapsed")
    assert ran.code == 0
    assert "personnel_ineligible: a required training is missing or has lapsed (sidecar.personnel.training)" in ran.out
    assert "every course in courses { course in valid }" in ran.out
    assert "valid = []" in ran.out
    assert "--all" in ran.out
    assert "meant?" in shell.refused("policy", "explain", POLICIES, "--case", "training has lapse")


def test_an_input_with_changes_as_json(shell, tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_text('{"subject": {"kind": "personnel", "person": {"id": "a"}}}')
    ran = shell("policy", "explain", POLICIES, "--input", file, "--set", "context.purpose=curiosity", "--json")
    document = json.loads(ran.out)
    assert set(document) == {"revision", "decision", "error", "named", "rules"}
    assert "sidecar.purpose.stated" in [one["name"] for one in document["named"]]
    assert all({"name", "told", "cause"} == set(one) for one in document["named"])


def test_mistakes_of_the_user_end_with_2(shell, tmp_path: Path) -> None:
    assert "--input" in shell.refused("policy", "explain", POLICIES)
    assert "--store" in shell.refused("policy", "explain", POLICIES, "--record", "0190")
    file = tmp_path / "input.json"
    file.write_text('{"subject": {"kind": "robot"}}')
    assert "subject.kind" in shell.refused("policy", "explain", POLICIES, "--input", file)
    assert "Write subject.person" in shell.refused(
        "policy", "explain", POLICIES, "--case", "training has lapsed", "--set", "subject.persn.id=1"
    )
