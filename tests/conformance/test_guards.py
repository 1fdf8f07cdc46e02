"""Negation over undefined, which no conformance case covers: under `not`, the engine inside takes undefined for false.

Three guards stand before it, and each has a test that fails without it: the loader's rule for `not` (here), the total
input document (here), and the trial at activation (`tests/unit/test_bundle.py`, `tests/unit/test_engine_comparison.py`).
"""

import json
from pathlib import Path

import pytest
from reference_opa import ERROR, UNDEFINED, ReferenceOpa

from sidecar import _native
from sidecar.decision.guard import nullable_leaves
from sidecar.vocabulary import AccessRequest, Action, Environment, Resource, Subject, canonical

POLICIES = Path("policies")
DATA = {"base": {"denied": {"a": True}, "list": ["a"]}}

# What permits where a part is absent if `not` makes true of undefined; and the same question, bound first.
NEGATED = [
    ('not startswith(input.x, "a")', 'v := startswith(input.x, "a")\n  not v'),
    ('not input.x in ["a"]', 'v := input.x\n  hit := v in ["a"]\n  not hit'),
    ("not input.x in data.base.list", "v := input.x\n  l := data.base.list\n  hit := v in l\n  not hit"),
    ("not input.x > 3", "v := input.x > 3\n  not v"),
    ('not input.x != "a"', 'v := input.x != "a"\n  not v'),
    ("not input.x + 1 == 4", "v := (input.x + 1) == 4\n  not v"),
    ('not {"k": input.x} == {"k": "a"}', 'v := {"k": input.x} == {"k": "a"}\n  not v'),
    ("not barred(input.x)", "v := barred(input.x)\n  not v"),
    ("not data.base.denied[input.x]", "k := input.x\n  not data.base.denied[k]"),
    ('not [input.x, "a"] == ["a", "a"]', 'v := [input.x, "a"] == ["a", "a"]\n  not v'),
    ("not count(input.x) == 0", "v := count(input.x)\n  w := v == 0\n  not w"),
]
FUNCTION = 'barred(x) if x == "a" else := false'
DOCUMENTS = [{}, {"x": "a"}, {"x": "b"}, {"x": 3}, {"x": 4}, {"y": 1}, {"x": []}]


def module(body: str) -> str:
    return f"package guarded\n\n{FUNCTION}\n\nallow if {{\n  {body}\n}}\n"


def load(source: str) -> _native.Engine:
    return _native.Engine([("p.rego", source)], json.dumps(DATA).encode(), "data.guarded.allow", 5.0)


@pytest.mark.parametrize(("negated", "bound"), NEGATED)
def test_not_over_what_may_be_undefined_is_refused_and_the_advice_agrees(opa: ReferenceOpa, negated: str, bound: str):
    assert opa.put("/v1/data/base", json.dumps(DATA["base"]), "application/json")
    assert opa.put("/v1/policies/guarded", module(negated))
    # What OPA says, and the engine inside would not: nothing known, nothing permitted.
    assert opa.answer("guarded/allow", {}) == UNDEFINED
    with pytest.raises(_native.LoadError) as refused:
        load(module(negated))
    assert {problem["code"] for problem in refused.value.problems} == {"negation"}
    assert opa.put("/v1/policies/guarded", module(bound))
    engine = load(module(bound))
    for document in DOCUMENTS:
        theirs = opa.answer("guarded/allow", document)
        try:
            ours = engine.evaluate(document)
        except _native.Undefined:
            ours = UNDEFINED
        except _native.EvaluationError:
            ours = ERROR
        assert ours == theirs, document


def test_every_path_that_a_shipped_policy_reads_stands_in_the_emptiest_document():
    """The total input: with a leaf left out when it is unknown, rules would meet undefined paths."""
    emptiest = AccessRequest(
        subject=Subject(),
        action=Action(),
        resource=Resource(),
        context=Environment(time="2026-01-01T00:00:00Z", phase="request"),
    )
    document = json.loads(canonical(emptiest))
    modules = [
        (str(path), path.read_text()) for path in POLICIES.rglob("*.rego") if not path.name.endswith("_test.rego")
    ]
    outline = json.loads(_native.outline(modules))
    assert outline["problems"] == []
    read = {one["path"] for found in outline["modules"] for one in found["inputs"]}
    assert len(read) > 40
    assert [path for path in sorted(read) if not stands(document, path.split(".")[1:])] == []


def stands(value: object, rest: list[str]) -> bool:
    """Whether the path leads somewhere; below a list or a null there is nothing to look at."""
    if not rest or value is None or isinstance(value, list):
        return True
    assert isinstance(value, dict), rest
    if rest[0] == "*":
        return all(stands(one, rest[1:]) for one in value.values())
    return rest[0] in value and stands(value[rest[0]], rest[1:])


@pytest.mark.parametrize("leaf", nullable_leaves())
def test_the_loader_knows_every_leaf_that_may_be_null(leaf: str):
    source = f"package t\n\np if {leaf.replace('.*', '[0]')} < 3\n"
    with pytest.raises(_native.LoadError) as refused:
        _native.Engine([("p.rego", source)], b"{}", "data.t.p", 5.0, nullable_leaves())
    assert {problem["code"] for problem in refused.value.problems} == {"null_leaf"}
