"""What tools read from the engine: the outline of sources, and which rows were evaluated."""

import json
from pathlib import Path
from typing import Any

import pytest

from sidecar import _native
from sidecar.decision.folder import load_folder
from sidecar.decision.guard import nullable_leaves
from sidecar.vocabulary import canonical

POLICIES = Path(__file__).parents[2] / "policies"

SOURCE = """package sidecar.shop

import data.base.lists as known

default rank := 0

rank := 1 if {
	input.action.name == "read"
	some item in input.resource.categories
	"a" in known.open[item]
}

names contains name if some name in input.context.exceptions[_].approvers

table[key] := known.limits[key][2] if some key in ["a", "b"]

verdict(x) := {"code": "ok", "n": x} if {
	startswith(x, "a")
} else := {"code": "late"} if {
	known.rank(x) > data.other.floor
} else := null

test_rank if rank == 0
"""


def outline(*sources: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_native.outline([(f"{n}.rego", source) for n, source in enumerate(sources)]))
    return found


def test_rules_with_their_kinds_places_and_statements():
    module = outline(SOURCE)["modules"][0]
    assert (module["file"], module["package"]) == ("0.rego", "sidecar.shop")
    assert [(r["name"], r["kind"], r["row"], r["end_row"], len(r["bodies"]), r["test"]) for r in module["rules"]] == [
        ("rank", "default", 5, 5, 0, False),
        ("rank", "complete", 7, 11, 1, False),
        ("names", "set", 13, 13, 1, False),
        ("table", "object", 15, 15, 1, False),
        ("verdict", "function", 17, 21, 3, False),
        ("test_rank", "complete", 23, 23, 1, True),
    ]
    rank = module["rules"][1]["bodies"][0]["statements"]
    assert [(s["row"], s["end_row"], s["col"], s["text"]) for s in rank] == [
        (8, 8, 2, 'input.action.name == "read"'),
        (9, 9, 2, "some item in input.resource.categories"),
        (10, 10, 2, '"a" in known.open[item]'),
    ]


def test_what_it_reads_calls_and_names_with_aliases_written_out():
    module = outline(SOURCE)["modules"][0]
    paths = lambda key: [(one["row"], one["path"]) for one in module[key]]  # noqa: E731
    assert paths("inputs") == [
        (8, "input.action.name"),
        (9, "input.resource.categories"),
        (13, "input.context.exceptions.*.approvers"),
    ]
    assert paths("data") == [
        (10, "data.base.lists.open.*"),
        (15, "data.base.lists.limits.*.*"),
        (20, "data.other.floor"),
    ]
    assert [(one["row"], one["name"]) for one in module["calls"]] == [(18, "startswith"), (20, "data.base.lists.rank")]
    assert [(one["row"], one["key"], one["value"]) for one in module["pairs"]] == [
        (17, "code", "ok"),
        (19, "code", "late"),
    ]


def test_modules_that_the_loader_refuses_have_an_outline():
    refused = 'package t\n\np if not startswith(input.x, "a")\n\nq := http.send({"url": input.y})\n'
    with pytest.raises(_native.LoadError):
        _native.Engine([("0.rego", refused)], b"{}", "data.t.p")
    module = outline(refused)["modules"][0]
    assert [one["name"] for one in module["calls"]] == ["startswith", "http.send"]
    assert [one["path"] for one in module["inputs"]] == ["input.x", "input.y"]


def test_what_cannot_be_parsed_is_a_problem_and_the_others_are_read():
    found = outline(
        "package a\n\np if {", "package b\n\np := 1\n", "package c\n\x00", "", "package d\n\np := " + "[" * 99
    )
    assert [module["package"] for module in found["modules"]] == ["b"]
    assert [(p["file"], p["row"], p["code"]) for p in found["problems"]] == [
        ("0.rego", 3, "rego_parse"),
        ("2.rego", 2, "bad_character"),
        ("3.rego", 1, "rego_parse"),
        ("4.rego", 3, "too_deep"),
    ]
    assert all(problem["message"] for problem in found["problems"])


def test_the_shipped_policies_and_their_tests_are_all_in_the_outline():
    bundle = load_folder(POLICIES)
    found = json.loads(_native.outline(bundle.modules + bundle.tests))
    assert found["problems"] == []
    assert [module["file"] for module in found["modules"]] == [name for name, _ in bundle.modules + bundle.tests]
    tests = [(m["package"], r["name"]) for m in found["modules"] for r in m["rules"] if r["test"]]
    engine = _native.Engine(bundle.modules + bundle.tests, bundle.data, "data.sidecar.decision", 5.0, nullable_leaves())
    assert sorted(tests) == sorted((package, name) for package, name, *_ in engine.run_tests())


COVERED = """package t

p := "one" if {
	input.a == 1
	input.b == 2
} else := "two" if {
	input.a == 3
	f(input.b) == 4
}

f(x) := y if {
	y := x + 1
}
"""
UNUSED = "package u\n\nq if {\n\tinput.a == 1\n}\n"


def covering() -> _native.Engine:
    return _native.Engine([("t.rego", COVERED), ("u.rego", UNUSED)], b"{}", "data.t.p", 5.0, coverage=True)


def rows(engine: _native.Engine, file: str) -> tuple[list[int], list[int]]:
    return next((covered, missed) for name, covered, missed in engine.covered() if name == file)


def test_rows_are_gathered_over_evaluations_until_forgotten():
    engine = covering()
    assert rows(engine, "t.rego") == ([], [3, 4, 5, 7, 8, 11, 12])
    with pytest.raises(_native.Undefined):
        engine.evaluate({"a": 1, "b": 1})
    assert rows(engine, "t.rego") == ([4, 5, 7], [3, 8, 11, 12])
    assert engine.evaluate({"a": 3, "b": 3}) == "two"
    assert engine.evaluate_json(b'{"a": 1, "b": 2}') == b'"one"'
    assert rows(engine, "t.rego") == ([3, 4, 5, 7, 8, 11, 12], [])
    assert rows(engine, "u.rego") == ([], [4])
    engine.clear_covered()
    assert rows(engine, "t.rego")[0] == []


def test_rows_up_to_a_failure_count():
    engine = covering()
    with pytest.raises(_native.EvaluationError):
        engine.evaluate({"a": 3, "b": "text"})
    assert 12 in rows(engine, "t.rego")[0]


def test_without_coverage_nothing_is_gathered():
    engine = _native.Engine([("t.rego", COVERED)], b"{}", "data.t.p", 5.0)
    assert engine.evaluate({"a": 1, "b": 2}) == "one"
    assert engine.covered() == []
    engine.clear_covered()


def test_coverage_changes_no_answer():
    bundle = load_folder(POLICIES)
    made = [
        _native.Engine(bundle.modules, bundle.data, "data.sidecar.decision", 5.0, nullable_leaves(), coverage=coverage)
        for coverage in (False, True)
    ]
    for request in bundle.corpus:
        plain, covered = (engine.evaluate_json(canonical(request)) for engine in made)
        assert plain == covered
