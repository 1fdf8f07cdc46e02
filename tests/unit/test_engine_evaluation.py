"""How the embedded engine evaluates: bounded in time, without memory of earlier calls, from several threads."""

import base64
import json
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sidecar import _native

pytestmark = pytest.mark.unit

RUNAWAY = """package t

p := count(found) if {
    input.run
    found := [1 | some a in input.l; some b in input.l; some c in input.l; a + b + c == 1]
} else := 0
"""
RUN = {"run": True, "l": list(range(400))}


def load(source: str, data: object = None, deadline: float = 1.0) -> _native.Engine:
    return _native.Engine([("t.rego", source)], json.dumps(data or {}).encode(), "data.t.p", deadline)


def test_deadline_ends_an_evaluation_and_leaves_the_engine_usable() -> None:
    engine = load(RUNAWAY, deadline=0.05)
    for _ in range(3):
        start = time.perf_counter()
        with pytest.raises(_native.DeadlineExceeded):
            engine.evaluate(RUN)
        assert 0.05 <= time.perf_counter() - start < 2.0
        assert engine.evaluate({"run": False, "l": []}) == 0
        assert engine.evaluate({"run": True, "l": [0, 1]}) == 3


@pytest.mark.parametrize(
    "body",
    [
        "p if { every a in input.l { every b in input.l { every c in input.l { a + b + c >= 0 } } } }",
        "p if { input.l[_] + input.l[_] + input.l[_] < 0 }",
        "f(x) := count([1 | some a in input.l; some b in input.l; a + b == x])\n\np := sum([f(x) | some x in input.l])",
        "s contains [a, b, c] if {\n  some a in input.l\n  some b in input.l\n  some c in input.l\n}\n\np := count(s)",
        "p if not q\n\nq if { some a in input.l; some b in input.l; some c in input.l; a + b + c < 0 }",
    ],
)
def test_deadline_holds_wherever_the_time_goes(body: str) -> None:
    engine = load(f"package t\n\n{body}\n", deadline=0.05)
    with pytest.raises(_native.DeadlineExceeded):
        engine.evaluate(RUN)


def test_gil_is_free_while_a_policy_runs() -> None:
    engine = load(RUNAWAY, deadline=1.0)
    steps = 0
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(engine.evaluate, RUN)
        while not late.done():
            steps += 1
            time.sleep(0.001)
        with pytest.raises(_native.DeadlineExceeded):
            late.result()
    assert steps > 5


def test_nothing_of_an_evaluation_is_left_for_the_next() -> None:
    rules = "s contains x if some x in input.l\n\no[k] := v if some k, v in input.m\n"
    engine = load(f'package t\n\n{rules}\np := [s, o, object.get(input, "a", 0)]\n')
    first = {"l": [1, 2], "m": {"x": 1}, "a": 5}
    assert engine.evaluate(first) == [[1, 2], {"x": 1}, 5]
    assert engine.evaluate({}) == [[], {}, 0]
    with pytest.raises(_native.EvaluationError):
        engine.evaluate({"l": 1})
    assert engine.evaluate({"m": {"y": 2}}) == [[], {"y": 2}, 0]
    assert engine.evaluate(first) == [[1, 2], {"x": 1}, 5]


def test_an_interrupted_iteration_leaves_no_value_behind() -> None:
    """The engine keeps the element of a running `[_]` in a table; an error must not leave it there."""
    engine = load('package t\n\np := "hit" if { input.l[_] == "secret"; lower(input.x) == "a" }\n')
    with pytest.raises(_native.EvaluationError):
        engine.evaluate({"l": ["secret"], "x": 1})
    with pytest.raises(_native.Undefined):
        engine.evaluate({"l": [], "x": "a"})


def test_one_engine_answers_many_threads() -> None:
    engine = load("package t\n\np := [y | some x in input.l; y := x * 2]\n")
    start = threading.Barrier(8)

    def work(number: int) -> bool:
        start.wait()
        return all(engine.evaluate({"l": [number, i]}) == [number * 2, i * 2] for i in range(300))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_conflicting_rules_are_an_error_with_its_place() -> None:
    engine = load("package t\n\np := 1 if input.a\n\np := 2 if input.b\n")
    with pytest.raises(_native.EvaluationError, match=r"t\.rego:\d+:\d+: "):
        engine.evaluate({"a": True, "b": True})


def test_undefined_is_told_from_null() -> None:
    engine = load("package t\n\np := input.a\n")
    assert engine.evaluate({"a": None}) is None
    with pytest.raises(_native.Undefined):
        engine.evaluate({})


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({"a": 1.0}, TypeError),
        ({"a": math.nan}, TypeError),
        ({"a": b"x"}, TypeError),
        ({"a": {1, 2}}, TypeError),
        ({"a": object()}, TypeError),
        ({1: "a"}, TypeError),
        ({"a": 2**63}, ValueError),
        ({"a": -(2**63) - 1}, ValueError),
        ({"a": "\ud800"}, UnicodeEncodeError),
    ],
)
def test_input_of_other_types_is_refused(document: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        load("package t\n\np := 1\n").evaluate(document)


def test_deep_input_is_refused_and_not_fatal() -> None:
    engine = load("package t\n\np := 1\n")
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="64 levels"):
        engine.evaluate({"a": deep})
    for text in (b"[" * 100_000, b'{"a":' * 100_000):
        with pytest.raises(ValueError, match="64 levels"):
            engine.evaluate_json(text)


@pytest.mark.parametrize("text", [b"", b"{", b"{} {}", b'{"a": 1, "a": 2}', b'{"a": 0.5}', b"\xff", b'{"a": NaN}'])
def test_json_input_is_read_strictly(text: bytes) -> None:
    with pytest.raises(ValueError, match="line 1"):
        load("package t\n\np := 1\n").evaluate_json(text)


def test_values_survive_the_way_in_and_out() -> None:
    engine = load("package t\n\np := input\n")
    document = {
        "n": None,
        "t": True,
        "f": False,
        "i": -(2**63),
        "j": 2**63 - 1,
        "s": 'é\n"日',
        "l": [[], {}],
        "o": {"": ""},
    }
    assert engine.evaluate(document) == document
    assert json.loads(engine.evaluate_json(json.dumps(document).encode())) == document
    assert engine.evaluate({"t": (1, (2,))}) == {"t": [1, [2]]}


@pytest.mark.parametrize("value", ["{1: 2}", "{[1]: 2}", "[input.big + 1]"])
def test_answers_that_json_would_change_are_errors(value: str) -> None:
    with pytest.raises(_native.EvaluationError, match="the answer holds"):
        load(f"package t\n\np := {value}\n").evaluate({"big": 2**63 - 1})


def test_a_hundred_thousand_entries_load_and_are_found() -> None:
    people = {f"p-{n}": {"country": "US", "level": n} for n in range(100_000)}
    engine = load("package t\n\np := data.directory.people[input.id].level\n", {"directory": {"people": people}})
    assert engine.evaluate({"id": "p-99999"}) == 99_999
    with pytest.raises(_native.Undefined):
        engine.evaluate({"id": "p-100000"})


TESTED = """package t_test

import data.other
import data.t

base := {"a": 1}

test_with_input if t.p with input as {"a": 1}

test_with_rule if t.p with input as base

test_with_data if t.q with data.limits.max as 1

test_not if not t.p with input as {"a": 2}

test_virtual if t.q with data.t.p as true with data.limits.max as 9

test_bound if {
    document := object.union(base, {"a": 3})
    not t.p with input as document
}

test_false if t.p with input as {"a": 2}

test_fails if other.r with input as {"a": 1}

test_set := "no"

helper_is_no_test := false
"""
UNDER_TEST = """package t

default p := false

p if input.a == 1

q if data.limits.max == 1

q if p
"""


def test_tests_run_with_their_documents() -> None:
    failing = 'package other\n\nr if lower(input.a) == "x"\n'
    modules = [("t.rego", UNDER_TEST), ("other.rego", failing), ("t_test.rego", TESTED)]
    engine = _native.Engine(modules, b'{"limits": {"max": 5}}', "data.t.p")
    results = {name: (package, passed, error) for package, name, passed, error, _ in engine.run_tests()}
    passing = {"test_with_input", "test_with_rule", "test_with_data", "test_not", "test_virtual", "test_bound"}
    assert {name for name, (_, passed, _) in results.items() if passed} == passing
    assert set(results) == passing | {"test_false", "test_fails", "test_set"}
    assert all(package == "t_test" for package, _, _ in results.values())
    assert results["test_false"][2] is None
    assert "other.rego:3:11: `lower`" in str(results["test_fails"][2])
    assert engine.run_tests("other") == []
    assert all(micros >= 0 for *_, micros in engine.run_tests("t_test"))
    assert engine.evaluate({"a": 1}) is True


def test_a_built_in_that_compares_pairs_is_bounded_because_nothing_can_interrupt_it() -> None:
    engine = load("package t\n\np := count(net.cidr_contains_matches(input.a, input.b))\n")
    network = "10.0.0.0/8"
    assert engine.evaluate({"a": [network] * 100, "b": [network] * 100}) == 10_000
    with pytest.raises(_native.EvaluationError, match="10000 pairs"):
        engine.evaluate({"a": [network] * 101, "b": [network] * 100})


def test_tokens_within_tokens_end() -> None:
    def part(text: str) -> str:
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    token = ".".join((part('{"alg": "none"}'), part('{"sub": "a"}'), ""))
    engine = load("package t\n\np := io.jwt.decode(input.token)\n")
    for depth in range(7):
        if depth <= 4:
            assert engine.evaluate({"token": token}) == [{"alg": "none"}, {"sub": "a"}, ""]
        else:
            with pytest.raises(_native.EvaluationError, match="nested deeper"):
                engine.evaluate({"token": token})
        token = ".".join((part('{"cty": "JWT"}'), part(f'"{token}"'), ""))
