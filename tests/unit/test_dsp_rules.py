"""28 CFR part 202 on the embedded engine: what is not known, and the rules against a second telling of them."""

import importlib.util
import json
from collections import Counter
from functools import cache
from pathlib import Path

import msgspec
import pytest

from sidecar import _native
from sidecar.decision import bundle, folder
from sidecar.decision.guard import nullable_leaves
from sidecar.vocabulary import AccessRequest, canonical

HERE = Path(__file__).parent
POLICIES = HERE.parents[1] / "policies"
COUNT = 1500


def _sibling(name: str):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


inputs, part_202 = _sibling("policy_inputs"), _sibling("part_202")


@cache
def engine() -> _native.Engine:
    loaded = folder.load_folder(POLICIES)
    return _native.Engine(loaded.modules, loaded.data, bundle.ENTRYPOINT, 5.0, nullable_leaves())


def decide(request: AccessRequest | dict) -> dict:
    document = canonical(request) if isinstance(request, AccessRequest) else msgspec.json.encode(request)
    return json.loads(engine().evaluate_json(document))


def dsp(decision: dict) -> set[str]:
    return {one["code"] for one in decision["reasons"] if one["code"].startswith("dsp_")}


# --- the rules, told twice --------------------------------------------------------------------------------------------


@cache
def judged() -> tuple[tuple[AccessRequest, dict], ...]:
    calls = inputs.Calls(202)
    return tuple((call, decide(call)) for call in (calls.part_202() for _ in range(COUNT)))


def test_the_rules_say_what_the_part_says():
    for call, decision in judged():
        expected = part_202.verdict(call)
        assert dsp(decision) == expected.codes, canonical(call)
        if expected.codes:
            assert decision["effect"] == "deny"
        if decision["effect"] == "permit":
            named = [one["message"] for one in decision["reasons"] if one["code"] == "authorization"]
            assert [message.split()[2] for message in named] == (
                [expected.authorization] if expected.authorization else []
            )
            cleared = {
                one for duty in decision["obligations"] if duty["id"] == "redact_fields" for one in duty["categories"]
            }
            assert expected.cleared <= cleared, canonical(call)
            dropped = {duty["subjects"] for duty in decision["obligations"] if duty["id"] == "drop_records"}
            assert dropped == ({"us", "unknown"} if expected.dropped else set())
        if expected.counted:
            assert decision["ttl_seconds"] == 0


def test_the_calls_reach_every_part_of_the_part():
    found = Counter(code for _, decision in judged() for code in dsp(decision))
    assert len(found) == 8, found
    assert min(found.values()) >= 5, found
    permits = [call for call, decision in judged() if decision["effect"] == "permit"]
    expected = [part_202.verdict(call) for call in permits]
    assert sum(bool(one.authorization) for one in expected) >= 5
    assert sum(bool(one.cleared) for one in expected) >= 5
    assert sum(one.dropped for one in expected) >= 5
    assert sum(one.counted and not one.cleared and not one.authorization for one in expected) >= 20


def test_no_exception_lifts_anything_of_the_part():
    for call, decision in judged():
        if dsp(decision):
            without = msgspec.structs.replace(call, context=msgspec.structs.replace(call.context, exceptions=()))
            assert dsp(decide(without)) == dsp(decision)


# --- what is not known -------------------------------------------------------------------------------------------------


@cache
def _corpus() -> tuple[dict, ...]:
    return tuple(json.loads(canonical(one)) for one in folder.load_folder(POLICIES).corpus)


def scene(**changes) -> dict:
    """A covered person who may: neither bulk nor government-related, counted; with changes by dotted path."""
    document = next(
        one
        for one in _corpus()
        if one["subject"]["person"]["covered_person"]["value"] == "yes" and decide(one)["effect"] == "permit"
    )
    document = json.loads(json.dumps(document))
    for path, value in changes.items():
        part = document
        *steps, last = path.split("__")
        for step in steps:
            part = part[step]
        part[last] = value
    return document


def test_the_scene_is_a_permit_that_counts():
    decision = decide(scene())
    assert (decision["effect"], decision["ttl_seconds"]) == ("permit", 0)
    assert dsp(decide(scene(subject__person__covered_person={"value": "no", "basis": None, "as_of": None}))) == set()


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        # 202.211: status
        ({"subject__person__covered_person__value": "unknown"}, {"dsp_status_unknown"}),
        ({"subject__person__covered_person__basis": None}, set()),
        ({"subject__workload__operated_from": None}, {"dsp_status_unknown"}),
        # 202.210: agreement
        ({"subject__engagement__type": None}, {"dsp_status_unknown"}),
        ({"subject__engagement__type": "none"}, {"dsp_status_unknown"}),
        # 202.205: nobody counts
        ({"context__exposure__personal_financial": None}, {"dsp_status_unknown"}),
        ({"context__exposure__combined": None}, {"dsp_status_unknown"}),
        ({"context__exposure__personal_health": None}, set()),
        # 202.201: nobody says what the grant reaches
        ({"resource__dataset__population__personal_financial": None}, {"dsp_status_unknown"}),
        ({"resource__dataset__population__personal_health": None}, set()),
        ({"resource__dataset__id": None}, set()),
    ],
)
def test_what_is_not_known_of_a_covered_persons_call(changes, codes):
    assert dsp(decide(scene(**changes))) == codes


BROKER = {
    "subject__person__covered_person": {"value": "no", "basis": "foreign_not_covered", "as_of": None},
    "subject__engagement__type": "brokerage",
    "subject__engagement__onward_clause_ref": "MSA-7",
}


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({}, set()),
        ({"context__exposure__personal_financial": None}, set()),
        ({"subject__engagement__onward_clause_ref": None}, set()),
        ({"subject__engagement__onward_clause_ref": None, "context__exposure__personal_financial": 10001}, {"dsp_onward_terms_missing"}),
        ({"subject__engagement__onward_clause_ref": None, "context__exposure__personal_financial": None}, {"dsp_onward_terms_missing"}),
        ({"subject__engagement__onward_clause_ref": None, "resource__dataset__population__personal_financial": None},
         {"dsp_onward_terms_missing"}),
        ({"subject__engagement__onward_clause_ref": None, "subject__engagement__type": None, "context__exposure__personal_financial": 10001},
         {"dsp_onward_terms_missing"}),
        ({"subject__person__covered_person__basis": None, "subject__engagement__onward_clause_ref": None,
          "context__exposure__personal_financial": 10001}, {"dsp_onward_terms_missing"}),
    ],
)  # fmt: skip
def test_302_what_is_not_known_of_a_brokers_call(changes, codes):
    assert dsp(decide(scene(**BROKER | changes))) == codes


CLEARED = {"context__exposure__personal_financial": 10001}
REQUIREMENTS = {"version": "2025-01", "attested_at": "2026-01-01T00:00:00Z", "valid_until": "2027-01-01T00:00:00Z"}


def test_401_c_2_requirements_with_an_unknown_part_are_not_met():
    held = decide(scene(**CLEARED, context__security_requirements=REQUIREMENTS))
    assert held["effect"] == "permit"
    assert {"id": "redact_fields", "categories": ["personal_financial"]} in held["obligations"]
    for part in REQUIREMENTS:
        decision = decide(scene(**CLEARED, context__security_requirements=REQUIREMENTS | {part: None}))
        assert dsp(decision) == {"dsp_bulk", "dsp_security_requirements_unmet"}


@pytest.mark.parametrize("path", ["subject__person__id", "action__service", "context__purpose"])
def test_an_authorization_does_not_cover_what_is_not_known(path):
    grant = {
        "id": "AU-1", "kind": "exemption", "paragraph": "202.506", "persons": ["alice"], "services": [scene()["action"]["service"]],
        "categories": ["personal_financial"], "purposes": ["trust_and_safety"], "owner": "counsel", "expires": "2027-01-01T00:00:00Z",
    }  # fmt: skip
    assert decide(scene(**CLEARED, context__authorizations=[grant]))["effect"] == "permit"
    decision = decide(scene(**CLEARED, context__authorizations=[grant], **{path: None}))
    assert "dsp_authorization_invalid" in dsp(decision)


def test_without_a_ledger_a_contact_is_refused_to_whom_the_part_concerns():
    changes = {
        "resource__categories": ["id_contact"], "resource__listed_identifiers": ["d"],
        "context__exposure": dict.fromkeys(scene()["context"]["exposure"]),
    }  # fmt: skip
    assert dsp(decide(scene(**changes))) == {"dsp_status_unknown"}
    person = {"value": "no", "basis": "us_person_status", "as_of": None}
    assert decide(scene(**changes, subject__person__covered_person=person))["effect"] == "permit"
