"""The shipped policies on the embedded engine: documents, reasons, and what happens when something is not known."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import jsonschema
import msgspec
import pytest
from msgspec import inspect

from sidecar import _native
from sidecar.attributes.countries import COUNTRIES_OF_CONCERN
from sidecar.attributes.coverage import OF_A_US_PERSON
from sidecar.attributes.words import LETTERS
from sidecar.decision import bundle, folder
from sidecar.decision.document import parse_decision
from sidecar.decision.guard import nullable_leaves
from sidecar.identifiers import SENSITIVE
from sidecar.vocabulary import (
    ACTIONS,
    ANNOTATED_CATEGORIES,
    CATEGORIES,
    CLASSES,
    WAIVABLE,
    AccessRequest,
    Decision,
    ReasonCode,
    canonical,
)

POLICIES = Path(__file__).parents[2] / "policies"
REFUSED_ELSEWHERE = {
    # by a stage of the sidecar itself
    "policy_error", "obligation_unfulfillable", "record_unavailable",
    # permits with a note, not a deny
    "migration_window",
}  # fmt: skip


@cache
def loaded() -> bundle.Bundle:
    return folder.load_folder(POLICIES)


@cache
def engine() -> _native.Engine:
    one = loaded()
    return _native.Engine(one.modules, one.data, bundle.ENTRYPOINT, 5.0, nullable_leaves())


@cache
def schema(name: str) -> jsonschema.Draft202012Validator:
    document = json.loads((POLICIES / "schemas" / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


def decide(document: object) -> Decision:
    answer = json.loads(engine().evaluate_json(msgspec.json.encode(document)))
    schema("decision").validate(answer)
    return parse_decision(answer)


def scene(number: int = 0) -> dict:
    return json.loads(canonical(loaded().corpus[number]))


def changed(document: dict, path: str, value: object) -> dict:
    part = document
    *steps, last = path.split(".")
    for step in steps:
        part = part[step]
    part[last] = value
    return document


def codes(decision: Decision) -> set[str]:
    return {reason.code for reason in decision.reasons} if not decision.permits else set()


# --- unknown is never better than known -------------------------------------------------------------------------

UNKNOWN = [
    ("subject.kind", "unidentified_person"),
    ("subject.person.id", "unidentified_person"),
    ("subject.person.us_personnel", "not_us_personnel"),
    ("subject.person.location.country", "person_location"),
    ("subject.person.status", "personnel_ineligible"),
    ("subject.person.vetted_until", "personnel_ineligible"),
    ("subject.engagement.type", "personnel_ineligible"),
    ("subject.engagement.from", "personnel_ineligible"),
    ("subject.engagement.until", "personnel_ineligible"),
    ("subject.as_of", "stale_directory"),
    ("subject.authentication.aal", "authentication_insufficient"),
    ("subject.authentication.time", "authentication_insufficient"),
    ("action.name", "undescribed_method"),
    ("action.service", "undescribed_method"),
    ("action.method", "undescribed_method"),
    ("resource.location.country", "storage_not_allowed"),
    ("resource.location.provider", "storage_not_allowed"),
    ("resource.location.region", "storage_not_allowed"),
    ("context.network.destination.country", "destination_not_allowed"),
    ("context.purpose", "purpose_not_allowed"),
    ("context.ticket", "ticket_missing"),
]


@pytest.mark.parametrize(("path", "code"), UNKNOWN)
def test_an_unknown_leaf_is_refused_for_its_own_reason(path, code):
    assert decide(scene()).permits
    decision = decide(changed(scene(), path, None))
    assert code in codes(decision)


@pytest.mark.parametrize("path", ["subject.workload.id", "subject.workload.operated_from"])
def test_an_unknown_service_is_refused(path):
    number = 12
    assert decide(scene(number)).permits
    expected = {
        "subject.workload.id": {"unidentified_workload"},
        "subject.workload.operated_from": {"class_not_allowed", "dsp_status_unknown"},
    }
    assert codes(decide(changed(scene(number), path, None))) == expected[path]


@pytest.mark.parametrize(
    ("number", "path", "code"),
    [
        (3, "subject.person.location.country", "person_location"),
        (17, "context.network.destination.country", "destination_not_allowed"),
    ],
)
def test_any_known_place_is_not_an_unknown_one(number, path, code):
    assert decide(scene(number)).permits
    assert codes(decide(changed(scene(number), path, None))) == {code}


@pytest.mark.parametrize(("path", "value"), [("context.time", "yesterday"), ("subject.as_of", "2026-11-22"),
                                             ("subject.person.vetted_until", "never")])  # fmt: skip
def test_what_is_no_instant_gives_no_answer(path, value):
    with pytest.raises(_native.EvaluationError):
        decide(changed(scene(), path, value))


def test_a_document_that_is_not_total_is_not_permitted():
    for path in ("subject", "subject.person", "resource", "resource.subjects", "resource.classes", "context.network"):
        document = scene()
        *steps, last = path.split(".")
        part = document
        for step in steps:
            part = part[step]
        del part[last]
        try:
            decision = decide(document)
        except _native.EvaluationError:
            continue
        assert not decision.permits


# --- reasons ----------------------------------------------------------------------------------------------------


def reasons() -> dict:
    return json.loads((POLICIES / "data/reasons/data.json").read_text())


def named_in_rules() -> set[str]:
    found: set[str] = set()
    for name, source in loaded().modules:
        found |= set(re.findall(r'"(sidecar\.[a-z_]+\.[a-z_]+)"', source))
        if name.endswith("classes.rego"):
            found |= {f"sidecar.classes.{lane}" for lane in re.findall(r'^open\("([a-z]+)"', source, re.MULTILINE)}
    # The reasons of a permit that say what it rests on besides its rule.
    return found - {
        "sidecar.decision.default", "sidecar.egress.migration_window", "sidecar.covered_persons.authorized",
        "sidecar.covered_persons.dropped",
    }  # fmt: skip


def test_every_rule_has_a_reason_and_every_reason_a_rule():
    table = reasons()
    assert named_in_rules() == set(table["denying"]) | set(table["permitting"])


def test_reasons_are_of_the_closed_list_and_ordered():
    denying = reasons()["denying"].values()
    assert {one["code"] for one in denying} <= {code.value for code in ReasonCode}
    ranks = [one["rank"] for one in denying]
    assert sorted(set(ranks)) == sorted(ranks)
    assert min(ranks) > 0


def test_every_reason_a_rule_can_give_has_one():
    expected = {code.value for code in ReasonCode} - REFUSED_ELSEWHERE
    assert {one["code"] for one in reasons()["denying"].values()} == expected


def test_what_an_exception_lifts_is_what_the_vocabulary_says():
    source = dict(loaded().modules)["sidecar/exceptions.rego"]
    listed = source.split("waivable := {")[1].split("}")[0]
    assert set(re.findall(r'"([a-z_]+)"', listed)) == WAIVABLE


# --- documents and data ------------------------------------------------------------------------------------------


def leaves_of_schema(node: dict, root: dict, path: str) -> Iterator[tuple[str, bool]]:
    if "$ref" in node:
        node = root["$defs"][node["$ref"].removeprefix("#/$defs/")]
    kind = node.get("type")
    if kind == "object":
        assert node["additionalProperties"] is False
        assert node["required"] == list(node["properties"]), path
        for name, inner in node["properties"].items():
            yield from leaves_of_schema(inner, root, f"{path}.{name}")
    elif kind == "array":
        yield from leaves_of_schema(node["items"], root, f"{path}.*")
    else:
        yield path, (isinstance(kind, list) and "null" in kind) or None in node.get("enum", [])


def leaves_of_vocabulary(kind: inspect.Type, path: str) -> Iterator[tuple[str, bool]]:
    match kind:
        case inspect.StructType():
            for field in kind.fields:
                yield from leaves_of_vocabulary(field.type, f"{path}.{field.encode_name}")
        case inspect.VarTupleType():
            yield from leaves_of_vocabulary(kind.item_type, f"{path}.*")
        case inspect.DictType():
            for category in CATEGORIES:
                yield from leaves_of_vocabulary(kind.value_type, f"{path}.{category}")
        case inspect.UnionType():
            yield path, True
        case _:
            yield path, False


def test_the_schema_has_the_leaves_of_the_vocabulary_in_its_order():
    document = schema("input").schema
    assert list(leaves_of_schema(document, document, "input")) == list(
        leaves_of_vocabulary(inspect.type_info(AccessRequest), "input")
    )


def test_the_loader_is_told_every_leaf_that_may_be_null():
    document = schema("input").schema
    nullable = {path for path, null in leaves_of_schema(document, document, "input") if null}
    wild = {re.sub(rf"\.({'|'.join(CATEGORIES)})$", ".*", path) for path in nullable}
    assert set(nullable_leaves()) == wild


def test_canonical_documents_are_valid_and_others_are_not():
    for request in loaded().corpus:
        schema("input").validate(json.loads(canonical(request)))
    for path, value in [("subject.nationality", "US"), ("context.time", "2026-11-22T12:00:01Z"), ("resource.subjects.us", 1.5),
                        ("action.name", "peek"), ("resource.categories", ["id_shoe_size"])]:  # fmt: skip
        with pytest.raises(jsonschema.ValidationError):
            schema("input").validate(changed(scene(), path, value))
    document = scene()
    del document["context"]["exposure"]["id_contact"]
    with pytest.raises(jsonschema.ValidationError):
        schema("input").validate(document)


def test_every_data_file_says_where_it_comes_from():
    files = sorted((POLICIES / "data").rglob("*.json"))
    assert {path.parent.relative_to(POLICIES / "data").as_posix() for path in files} == {
        "actions", "caching", "categories", "classes", "dsp/authorizations", "dsp/bulk", "dsp/countries", "dsp/mitigation",
        "dsp/parties", "exceptions", "personnel", "profiles", "purposes", "reasons", "regions", "services",
    }  # fmt: skip
    for path in files:
        assert path.name == "data.json"
        source = json.loads(path.read_text())["source"]
        assert isinstance(source, str)
        assert len(source) > 20


def test_data_uses_the_words_of_the_vocabulary():
    data = json.loads(loaded().data)["data"]
    assert tuple(data["actions"]["known"]) == ACTIONS
    assert set(data["classes"]["lanes"]) | {"protected"} == set(CLASSES) == set(data["regions"]["destinations"])
    for lane in data["classes"]["lanes"].values():
        assert set(lane["categories"]) <= set(ANNOTATED_CATEGORIES)
        assert set(lane.get("purposes", [])) <= set(data["purposes"]["purposes"])
    for purpose in data["purposes"]["purposes"].values():
        assert set(purpose["categories"]) <= set(ANNOTATED_CATEGORIES) - {"unclassified"}
        assert set(purpose["classes"]) <= set(CLASSES)
        assert set(purpose["actions"]) <= set(ACTIONS)
        assert set(purpose["categories"].values()) <= {"nothing", "ticket", "approval"}
    assert data["personnel"]["max_directory_age_seconds"] < 86_400


def test_data_of_part_202_agrees_with_what_the_sidecar_works_out():
    dsp = json.loads(loaded().data)["data"]["dsp"]
    assert set(dsp["countries"]["of_concern"]) == COUNTRIES_OF_CONCERN
    assert set(dsp["parties"]["us_person"]) == OF_A_US_PERSON - {"us_person_organised"}
    assert dsp["mitigation"]["identifiers"] == LETTERS
    assert set(dsp["bulk"]["thresholds"]) == SENSITIVE | {
        "covered_personal_identifiers",
        "commerce_order",
        "unclassified",
    }
    assert set(dsp["bulk"]["omic"]["categories"]) == {one for one in SENSITIVE if one.startswith("human_")}
    assert set(dsp["mitigation"]["services"]) <= set(
        json.loads(loaded().data)["data"]["services"]["redact_unclassified"]
    )
    lifted = {code.value for code in ReasonCode if code.value.startswith("dsp_")} - {"dsp_authorization_invalid"}
    for sections in dsp["authorizations"]["lifts"].values():
        for codes_lifted in sections.values():
            assert set(codes_lifted) <= lifted
    assert set(dsp["authorizations"]["lifts"]["exemption"]) == {f"202.{number}" for number in range(501, 512)}


def test_an_equal_question_gets_an_equal_answer():
    for request in loaded().corpus:
        document = canonical(request)
        assert len({engine().evaluate_json(document) for _ in range(3)}) == 1
