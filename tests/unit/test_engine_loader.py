"""What the loader of the embedded engine refuses, and that it says where and what to do."""

import json
import random
import threading

import pytest
from engine_cases import ACCEPTED, DATA, ERROR, REFUSED, UNDEFINED, Accepted, Refused

from sidecar import _native

pytestmark = pytest.mark.unit
DATA_JSON = json.dumps(DATA).encode()


def load(source, data=DATA_JSON, nullable=(), entrypoint="data.t.p", deadline=1.0):
    return _native.Engine([("t.rego", "package t\n" + source)], data, entrypoint, deadline, list(nullable))


def answer(engine, document):
    try:
        return engine.evaluate(document)
    except _native.Undefined:
        return UNDEFINED
    except _native.EvaluationError:
        return ERROR


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.source[:60])
def test_refused_with_code_and_line(case: Refused) -> None:
    with pytest.raises(_native.LoadError) as caught:
        load(case.source, nullable=case.nullable)
    found = [(problem["code"], problem["line"]) for problem in caught.value.problems]
    assert (case.code, case.line) in found, str(caught.value)
    assert all(problem["file"] == "t.rego" and problem["message"] for problem in caught.value.problems)
    assert f"t.rego:{case.line}:" in str(caught.value)


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_accepted_answers_as_opa_does(case: Accepted) -> None:
    engine = load(case.source)
    for document, want in case.want:
        assert answer(engine, document) == want, document


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_json_and_python_answers_are_equal(case: Accepted) -> None:
    engine = load(case.source)
    for document, want in case.want:
        if want not in (UNDEFINED, ERROR):
            assert json.loads(engine.evaluate_json(json.dumps(document).encode())) == want


def test_every_problem_is_listed_at_once() -> None:
    modules = [
        ("a.rego", 'package a\n\np := 0.5\n\nq if not startswith(input.x, "a")\n'),
        ("b.rego", "package b\n\np := time.now_ns()\n"),
    ]
    with pytest.raises(_native.LoadError) as caught:
        _native.Engine(modules, b"{}", "data.a.p")
    assert [(p["file"], p["line"], p["code"]) for p in caught.value.problems] == [
        ("a.rego", 3, "not_an_integer"),
        ("a.rego", 5, "negation"),
        ("b.rego", 3, "builtin"),
    ]
    assert len(str(caught.value).splitlines()) == 3


def test_parse_errors_of_all_modules_are_listed() -> None:
    with pytest.raises(_native.LoadError) as caught:
        _native.Engine([("a.rego", "package a\np :="), ("b.rego", "package b\n\nq if {")], b"{}", "data.a.p")
    assert [(p["file"], p["code"]) for p in caught.value.problems] == [
        ("a.rego", "rego_parse"),
        ("b.rego", "rego_parse"),
    ]


@pytest.mark.parametrize(
    ("entrypoint", "source"),
    [
        ("data.t.missing", "p := 1"),
        ("data.t", "p := 1"),
        ("t.p", "p := 1"),
        ("data.t.p", "p contains 1"),
        ("data.t.p", "p(x) := x"),
    ],
)
def test_entrypoint_is_a_rule_with_one_value(entrypoint: str, source: str) -> None:
    with pytest.raises(_native.LoadError, match="entrypoint"):
        load(source, entrypoint=entrypoint)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"[]", "must be an object"),
        (b'{"a": 0.5}', "not an integer"),
        (b'{"a": 1e400}', "range"),
        (b'{"a": 9223372036854775808}', "not an integer"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}", "deeper"),
        (b'{"a": ' + b"[" * 100_000, "deeper"),
        (b'{"a": "\xff"}', "unicode"),
        (b"{} {}", "trailing"),
        (b"", "EOF"),
    ],
)
def test_data_is_read_strictly(data: bytes, what: str) -> None:
    with pytest.raises(_native.LoadError, match=what):
        load("p := 1", data=data)


def test_no_key_of_data_is_magic() -> None:
    data = {"x": {"$serde_json::private::Number": "1"}}
    assert load("p := data.x", data=json.dumps(data).encode()).evaluate({}) == data["x"]


@pytest.mark.parametrize(
    ("data", "line"),
    [({"t": {"p": False}}, 2), ({"t": {"p": {"deeper": 1}}}, 2), ({"t": 1}, 2)],
)
def test_data_never_stands_in_for_a_rule(data: dict[str, object], line: int) -> None:
    with pytest.raises(_native.LoadError) as caught:
        load("p := true", data=json.dumps(data).encode())
    assert [(p["code"], p["line"]) for p in caught.value.problems] == [("data_conflict", line)]


def test_data_beside_the_rules_of_a_package_is_found() -> None:
    assert load("p := data.t.limits.max", data=b'{"t": {"limits": {"max": 3}}}').evaluate({}) == 3


@pytest.mark.parametrize("leaf", ["a.b", "input", "input.", "input..a", "data.a"])
def test_nullable_leaves_are_paths_of_input(leaf: str) -> None:
    with pytest.raises(_native.LoadError, match="input.a.b"):
        load("p := 1", nullable=[leaf])


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_deadline_is_a_positive_number(seconds: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        load("p := 1", deadline=seconds)


def test_recursion_through_packages_names_every_rule_of_the_cycle() -> None:
    modules = [("a.rego", "package a\n\nimport data.b\n\np if b.q\n"), ("b.rego", "package b\n\nq if data.a.p\n")]
    with pytest.raises(_native.LoadError) as caught:
        _native.Engine(modules, b"{}", "data.a.p")
    assert [(p["file"], p["code"]) for p in caught.value.problems] == [("a.rego", "recursion"), ("b.rego", "recursion")]


def test_long_chains_are_refused_and_the_longest_accepted_one_runs() -> None:
    def chain(length: int) -> str:
        rules = "\n".join(f"f{i}(x) := y if {{ y := f{i + 1}(x) }}" for i in range(length))
        return f"p := f0(1)\n{rules}\nf{length}(x) := x"

    assert load(chain(150)).evaluate({}) == 1
    with pytest.raises(_native.LoadError, match="nests too deep"):
        load(chain(500))


def test_what_loads_fits_a_stack_of_two_mebibytes() -> None:
    """The default is eight; a policy must not be able to end the process."""
    rules = "\n".join(f"f{i}(x) := y if {{ y := {'abs(' * 12}f{i + 1}(x){')' * 12} }}" for i in range(80))
    engine = load(f"p := f0(1)\n{rules}\nf80(x) := x")
    answers: list[object] = []
    before = threading.stack_size(2 * 1024 * 1024)
    try:
        worker = threading.Thread(target=lambda: answers.append(engine.evaluate({})))
        worker.start()
        worker.join()
    finally:
        threading.stack_size(before)
    assert answers == [1]


def test_many_iterations_in_one_body_are_bounded() -> None:
    def body(count: int) -> str:
        return "p if {\n" + "\n".join(f"some x{i} in [1]" for i in range(count)) + "\n}"

    assert load(body(500)).evaluate({}) is True
    with pytest.raises(_native.LoadError, match="nests too deep"):
        load(body(1500))


def test_garbage_never_ends_the_process() -> None:
    """Random cuts and splices of good modules load or are refused; nothing else happens."""
    rng = random.Random(20)
    sources = [case.source for case in ACCEPTED] + [case.source for case in REFUSED]
    tokens = [
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        "not ",
        " in ",
        "|",
        "\n",
        ":=",
        " if ",
        "_",
        '"',
        "`",
        "é",
        "\x00",
        "with ",
    ]
    outcomes = set()
    for _ in range(1500):
        source = rng.choice(sources)
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(source) + 1)
            cut = rng.randrange(4)
            source = source[:at] + rng.choice([*tokens, rng.choice(sources)[:20]]) + source[at + cut :]
        try:
            engine = load(source, nullable=["input.a"])
        except _native.LoadError:
            outcomes.add("refused")
        else:
            answer(engine, {"a": None, "l": ["a"]})
            outcomes.add("loaded")
    assert outcomes == {"refused", "loaded"}


@pytest.mark.parametrize("opening", ["[", "{", '{"a":', "(", "abs(", "input.a[", "[x | x := "])
def test_nesting_is_refused_before_it_costs_stack_or_time(opening: str) -> None:
    for depth in (40, 10_000):
        with pytest.raises(_native.LoadError):
            load("p := " + "\n".join([opening] * depth))
