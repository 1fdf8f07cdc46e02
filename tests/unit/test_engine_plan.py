"""The plan of a policy against regorus' interpreter: one meaning, whichever evaluates, and strict reading of what it skips."""

import json
import random
import threading
from pathlib import Path
from typing import Any

import engine_rego
import pytest
from engine_cases import ACCEPTED, DATA, Accepted
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_opa import ERROR, UNDEFINED

from sidecar import _native
from sidecar.decision.bundle import ENTRYPOINT
from sidecar.decision.folder import load_folder
from sidecar.decision.guard import generated_inputs, nullable_leaves
from sidecar.vocabulary import canonical

pytestmark = pytest.mark.unit

POLICIES = Path("policies")


def answer(engine: _native.Engine, document: bytes) -> Any:
    try:
        return json.loads(engine.evaluate_json(document))
    except _native.Undefined:
        return UNDEFINED
    except _native.EvaluationError:
        return ERROR


def loaded(
    source: str, data: object = None, entry: str = "data.t.p", leaves: tuple[str, ...] = (), **how: Any
) -> _native.Engine:
    return _native.Engine(
        [("t.rego", f"package t\n\n{source}\n")], json.dumps(data or {}).encode(), entry, 5.0, leaves, **how
    )


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_every_accepted_construct_has_a_plan_that_answers_as_the_table_says(case: Accepted) -> None:
    leaves = getattr(case, "nullable", ())
    engine = _native.Engine(
        [("t.rego", "package t\n" + case.source)], json.dumps(DATA).encode(), "data.t.p", 5.0, leaves
    )
    assert engine.planned
    interpreter = _native.Engine(
        [("t.rego", "package t\n" + case.source)], json.dumps(DATA).encode(), "data.t.p", 5.0, leaves, interpreted=True
    )
    assert not interpreter.planned
    for document, want in case.want:
        asked = json.dumps(document).encode()
        assert answer(engine, asked) == want, document
        assert answer(interpreter, asked) == want, document


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_generated_policies_mean_the_same_to_both(seed: int) -> None:
    rng = random.Random(seed)
    data = json.dumps(engine_rego.DATA).encode()
    found = {"loaded": 0, "value": 0}
    for _ in range(6000):
        if found["loaded"] >= 60:
            break
        nullable = rng.sample(engine_rego.LEAVES, rng.choice([0, 0, 1, 2]))
        modules = [("u.rego", engine_rego.other_package(rng)), ("t.rego", engine_rego.module(rng))]
        leaves = [f"input.{leaf}" for leaf in nullable]
        try:
            plan = _native.Engine(modules, data, "data.t.entry", 5.0, leaves)
        except _native.LoadError:
            continue
        interpreter = _native.Engine(modules, data, "data.t.entry", 5.0, leaves, interpreted=True)
        assert plan.planned
        found["loaded"] += 1
        for _ in range(12):
            document = json.dumps(engine_rego.document(rng, nullable)).encode()
            ours, theirs = answer(plan, document), answer(interpreter, document)
            found["value"] += theirs not in (UNDEFINED, ERROR)
            # The interpreter evaluates rules that nobody asked for, and fails where one of them does.
            assert ours == theirs or theirs == ERROR, f"{modules}\n{document!r}\nplan {ours!r}, interpreter {theirs!r}"
    assert found["loaded"] >= 60
    assert found["value"] > found["loaded"]


def test_the_shipped_policies_mean_the_same_to_both() -> None:
    bundle = load_folder(POLICIES)
    plan, interpreter = (
        _native.Engine(bundle.modules, bundle.data, ENTRYPOINT, 5.0, nullable_leaves(), interpreted=interpreted)
        for interpreted in (False, True)
    )
    assert plan.planned
    for request in (*bundle.corpus, *generated_inputs(33, 400, bundle.corpus)):
        document = canonical(request)
        assert answer(plan, document) == answer(interpreter, document), document


CONFLICTS = {
    "complete": "p := 1 if input.a\n\np := 2 if input.b",
    "one body, two values": "p := x if some x in input.l",
    "function": "p := f(1)\n\nf(x) := x if input.a\n\nf(x) := 2 if {\n  input.b\n  x == 1\n}",
    "object rule": 'p := o\n\no[k] := 1 if some k in ["x"]\n\no["y"] := 5 if input.a\n\no["y"] := 6 if input.b',
    "object comprehension": 'p := {"k": x | some x in input.l}',
}


@pytest.mark.parametrize("rule", CONFLICTS.values(), ids=CONFLICTS)
def test_two_values_for_one_rule_or_key_are_an_error_and_equal_ones_are_not(rule: str) -> None:
    document = b'{"a": true, "b": true, "l": [3, 4]}'
    agreeing = b'{"a": true, "l": [3, 3]}'
    for interpreted in (False, True):
        engine = loaded(rule, interpreted=interpreted)
        assert answer(engine, document) == ERROR
        assert answer(engine, agreeing) != ERROR


def test_an_else_is_tried_when_the_value_before_it_is_undefined() -> None:
    engine = loaded("p := f(1)\n\nf(x) := input.a if {\n  x == 1\n} else := 2")
    assert answer(engine, b"{}") == 2
    assert answer(engine, b'{"a": 7}') == 7


def test_a_failing_rule_that_nobody_reads_is_not_felt() -> None:
    rules = 'p := "fine"\n\nq := time.parse_rfc3339_ns(input.t)'
    assert answer(loaded(rules), b'{"t": "no time"}') == "fine"


def test_iterations_bind_anew_for_each_element_and_each_definition() -> None:
    engine = loaded(
        "p := [[x, y, z] | some x, y in input.l; z := [w | some w in y; w > x]]\n",
    )
    assert answer(engine, b'{"l": [[0, 1], [1, 2, 3], []]}') == [[0, [0, 1], [1]], [1, [1, 2, 3], [2, 3]], [2, [], []]]


def test_a_deadline_ends_a_plan_and_the_next_one_answers() -> None:
    source = "p := count([1 | some a in input.l; some b in input.l; some c in input.l; a + b + c == 1])"
    engine = _native.Engine([("t.rego", f"package t\n\n{source}\n")], b"{}", "data.t.p", 0.05)
    assert engine.planned
    with pytest.raises(_native.DeadlineExceeded):
        engine.evaluate_json(json.dumps({"l": list(range(900))}).encode())
    assert engine.evaluate_json(b'{"l": [1, 0]}') == b"3"


STACKS = {
    "iterations": "p if {\n" + "\n".join(f"some x{i} in [1]" for i in range(900)) + "\n}",
    "rules": "\n\n".join(f"p{i} := [p{i + 1}]" if i % 2 else f"p{i} := p{i + 1}" for i in range(170)) + "\n\np170 := 1\n\np := count([p0])",
    "comprehensions": "\n\n".join(
        f"f{i}(x) := count({{y | some y in [f{i + 1}(x)]}})" for i in range(100)
    ) + "\n\nf100(x) := x\n\np := f0(1)",
}  # fmt: skip


@pytest.mark.parametrize("source", STACKS.values(), ids=STACKS)
def test_what_loads_fits_a_stack_of_two_mebibytes_by_plan(source: str) -> None:
    engine = loaded(source)
    assert engine.planned
    answers: list[object] = []
    before = threading.stack_size(2 * 1024 * 1024)
    try:
        worker = threading.Thread(target=lambda: answers.append(answer(engine, b"{}")))
        worker.start()
        worker.join()
    finally:
        threading.stack_size(before)
    assert answers in ([True], [1])


# -- names across files and packages --------------------------------------------------------------------------------------


def test_imports_mean_the_same_to_both() -> None:
    other = 'package u\n\no := {"k": false}\n\ns contains "a"\n\nf(x) := [x]\n'
    source = "import data.u.o\n\nimport data.u.s as z\n\nimport data.u.f as g\n\nimport data.base.x.y as w\n\np := [o.k, z.a, g(w), o[input.k]]"
    for interpreted in (False, True):
        engine = _native.Engine(
            [("u.rego", other), ("t.rego", f"package t\n\n{source}\n")], b'{"base": {"x": {"y": 3}}}', "data.t.p", 5.0,
            interpreted=interpreted,
        )  # fmt: skip
        assert answer(engine, b'{"k": "k"}') == [False, "a", [3], False]


@pytest.mark.parametrize(
    ("code", "second"),
    [
        ("import_twice", "import data.base.b as q\n\np := [q, r]"),  # the interpreter takes one import for the other
        ("shadows_import", 'q := {"x": 9}\n\np := r'),  # OPA finds the import first, the rule is found first here
    ],
)
def test_one_name_in_two_files_of_a_package_is_one_thing(code: str, second: str) -> None:
    first = "package t\n\nimport data.base.a as q\n\nr := q.x\n"
    with pytest.raises(_native.LoadError) as caught:
        _native.Engine(
            [("a.rego", first), ("b.rego", f"package t\n\n{second}\n")],
            b'{"base": {"a": {"x": 1}, "b": {"x": 2}}}', "data.t.p", 5.0,
        )  # fmt: skip
    assert [(one["code"], one["file"]) for one in caught.value.problems] == [(code, "b.rego")]


# -- what is read of a document -----------------------------------------------------------------------------------------

READS = """p := {
	"a": [1 | object.get(input.a, "k", 0) == 0],
	"b": [x | x := input.b.c],
	"l": [x | x := input.b.l[1]],
	"d": [x | x := input["b"]["d"]],
	"g": [x | x := input.e.f.g],
	"h": [x | x := input.h],
}"""
"""`input.a` and `input.h` whole, the others in parts, one of them by number."""


@pytest.mark.parametrize(
    "document",
    [
        b'{"z": 1.5}', b'{"z": {"a": 1, "b": 2, "a": 3}}', b'{"z": 1, "z": 1}', b'{"z": 18446744073709551615}',
        b'{"z": ' + b"[" * 100 + b"]" * 100 + b"}", b'{"z": "\xff"}', b'{"z": "\\ud800"}', b'{"z": 1} x', b'{"z": 01}',
        b'{"z": [1,]}', b'{"b": {"z": 1e3}}', b'{"b": {"a": 1, "c": 2, "a": 3}}', b'{"b": {"l": [1, 2.5]}}', b"", b"{",
        b'{"a": 1, "a": 1}', b'{"h": {"x": 1, "x": 1}}',
    ],
)  # fmt: skip
def test_what_no_rule_reads_is_read_as_strictly(document: bytes) -> None:
    for interpreted in (False, True):
        with pytest.raises(ValueError):  # noqa: PT011 - the text is serde's
            loaded(READS, interpreted=interpreted).evaluate_json(document)


_LEAF = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "k", "x"])
_VALUE = st.recursive(
    _LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("kcdlfg"), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from("abehyz"), _VALUE, max_size=6) | _VALUE)
def test_the_parts_kept_are_those_of_the_whole_document(document: object) -> None:
    plan, interpreter = loaded(READS), loaded(READS, interpreted=True)
    written = json.dumps(document).encode()
    found = answer(plan, written)
    assert found == answer(interpreter, written)
    try:
        assert plan.evaluate(document) == found
    except _native.EvaluationError:
        assert found in (UNDEFINED, ERROR)
