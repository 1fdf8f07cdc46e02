"""Policies that build without end: each is refused by name, the process stays within its bounds, and goes on answering.

Every bomb runs in a process of its own, whose resident memory is measured there.
"""

import json
import random
import subprocess
import sys

import pytest

from sidecar import _native

MIB = 1 << 20
BUDGET = 64
SLACK = 64
"""MiB: what one step may take before the next look, and what the allocator keeps."""

ADDRESS_SPACE = 4 << 30
SECONDS = 20.0

PEAK = """
import json, resource, sys, time
def peak():
    # Not ru_maxrss: a process keeps what its parent had when it was started.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
"""
PROBE = """
resource.setrlimit(resource.RLIMIT_AS, (task["space"], task["space"]))
from sidecar import _native
engine = _native.Engine([("t.rego", task["source"])], b"{}", "data.t.p", task["seconds"], memory_bytes=task["memory"])
before = peak()
try:
    engine.evaluate({"on": True})
    said = ["answer", ""]
except _native.EvaluationError as error:
    said = [type(error).__name__, str(error)]
grown = peak() - before
print(json.dumps({"said": said, "grown": grown, "next": engine.evaluate({"on": False})}))
"""


def chain(steps: int, first: str, step: str) -> str:
    """Statements that bind `x0` to `first` and each `x<n>` to `step`, in which `@` is the one before."""
    made = [f"x0 := {first}"]
    made += [f"x{at + 1} := " + step.replace("@", f"x{at}") for at in range(steps)]
    return "\n  ".join(made)


TEXT = '"aaaaaaaaaaaaaaaa"'
JSON = '"[],[],[],[],"'
TWICE = 'concat("", [@, @])'
LONG = chain(20, TEXT, TWICE)
SHARED = chain(40, "1", "[@, @]")
"""A value of forty small arrays that, written out, is a million million numbers."""
SHARED_OBJECT = chain(40, '{"k": 1}', '{"a": @, "b": @}')
NUMBERS = "l := numbers.range(1, 10000)"

# Name: what stands in the body of the rule, the expression that is counted, and what the refusal says.
BOMBS = {
    "text_doubled": (chain(40, TEXT, TWICE), "x40", "`concat`: the result would be a text of more than 16 MiB"),
    "text_joined_often": (
        f'{chain(16, TEXT, TWICE)}\n  l := [x16 | some i in numbers.range(1, 10000)]\n  c := concat("", l)',
        "c",
        "`concat`: the result would be",
    ),
    "texts_in_a_list": (
        f'{chain(18, TEXT, TWICE)}\n  l := [y | some i in numbers.range(1, 10000); y := concat("", [x18, "z"])]',
        "l",
        "more than its 64 MiB",
    ),
    "text_printed": (chain(40, TEXT, 'sprintf("%v%v", [@, @])'), "x40", "`sprintf`: the result would be"),
    "shared_value_printed": (f'{SHARED}\n  s := sprintf("%v", [x40])', "s", "`sprintf`: the result would be"),
    "text_replaced": (
        f'{chain(16, TEXT, TWICE)}\n  r := replace(x16, "a", x16)',
        "r",
        "`replace`: the result would be",
    ),
    "text_split": (f'{LONG}\n  r := split(x20, "")', "r", "`split`: the result would have more than"),
    "text_split_at_a_letter": (f'{LONG}\n  r := split(x20, "a")', "r", "`split`: the result would have more than"),
    "text_split_n": (f'{LONG}\n  r := strings.split_n(x20, "a", 1)', "r", "`strings.split_n`: the result would have"),
    "array_doubled": (chain(40, "[1]", "array.concat(@, @)"), "x40", "`array.concat`: the result would have more than"),
    "array_flattened": (
        chain(20, "numbers.range(1, 1000)", "array.flatten([@, @, @, @])"),
        "x20",
        "`array.flatten`: the result would have",
    ),
    "objects_merged": (f"{SHARED_OBJECT}\n  u := object.union(x40, x40)", "u", "`object.union`: the objects have"),
    "many_objects_merged": (
        f"{SHARED_OBJECT}\n  u := object.union_n([x40, x40])",
        "u",
        "`object.union_n`: the objects",
    ),
    "base64": (chain(60, TEXT, "base64.encode(@)"), "x60", "`base64.encode`: the result would be"),
    "base64url": (chain(60, TEXT, "base64url.encode_no_pad(@)"), "x60", "`base64url.encode_no_pad`: the result"),
    "hex": (chain(40, TEXT, "hex.encode(@)"), "x40", "`hex.encode`: the result would be"),
    "document_read": (
        f'{chain(18, JSON, TWICE)}\n  d := json.unmarshal(concat("", ["[", x18, "1]"]))\n  is_array(d)',
        "[1]",
        "`json.unmarshal`: a document of more than 1 MiB",
    ),
    "token_read": (f"{LONG}\n  d := io.jwt.decode(x20)\n  is_array(d)", "[1]", "`io.jwt.decode`: a document of more"),
    "factors": (
        "l := [9 | some i in numbers.range(1, 10000); some j in numbers.range(1, 3)]\n  n := product(l)\n  n > 0",
        "l",
        "`product`: more than 10000 factors",
    ),
    "pairs_in_a_set": (f"{NUMBERS}\n  s := {{[a, b] | some a in l; some b in l}}", "s", "more than its 64 MiB"),
    "pairs_in_an_object": (
        f"{NUMBERS}\n  s := {{k: v | some a in l; some b in l; k := [a, b]; v := [k, k, k]}}",
        "s",
        "more than its 64 MiB",
    ),
}
ANSWERS = {
    "shared_value_as_the_answer": (SHARED, "x40"),
    "long_text_as_the_answer": (chain(18, TEXT, TWICE), "[x18, x18]"),
}
ELSEWHERE = {
    "in_a_function": f"f(n) := count(x40) if {{\n  n == 1\n  {chain(40, TEXT, TWICE)}\n}}\n\nq := f(1)",
    "in_a_set_of_rules": (
        "s contains [a, b] if {\n  some a in numbers.range(1, 10000)\n  some b in numbers.range(1, 10000)\n}\n\nq := count(s)"
    ),
    "from_rule_to_rule": "\n\n".join(
        [f"x0 := {TEXT}"] + [f'x{n + 1} := concat("", [x{n}, x{n}])' for n in range(28)] + ["q := count(x28)"]
    ),
    "lost_in_another_rule": (
        f"s contains n if {{\n  {chain(40, TEXT, TWICE)}\n  n := count(x40)\n}}\n\nq := 1 if {{ s == set() }} else := 2"
    ),
}


def policy(rules: str) -> str:
    return f"package t\n\n{rules}\n\np := q if {{ input.on == true }} else := 7\n"


SOURCES = {
    **{name: policy(f"q := count({value}) if {{\n  {body}\n}}") for name, (body, value, _) in BOMBS.items()},
    **{name: policy(f"q := {value} if {{\n  {body}\n}}") for name, (body, value) in ANSWERS.items()},
    **{name: policy(rules) for name, rules in ELSEWHERE.items()},
}
SAID = {name: said for name, (_, _, said) in BOMBS.items()} | dict.fromkeys(ANSWERS, "the answer, written out")


def exploded(source: str, budget: int = BUDGET) -> dict:
    task = {"source": source, "seconds": SECONDS, "memory": budget * MIB, "space": ADDRESS_SPACE}
    ran = subprocess.run(
        [sys.executable, "-c", f"task = {task!r}\n{PEAK}\n{PROBE}"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("name", SOURCES)
def test_a_bomb_is_refused_by_name_within_its_memory_and_the_next_question_is_answered(name: str) -> None:
    found = exploded(SOURCES[name])
    kind, text = found["said"]
    assert kind == "MemoryExceeded", found
    assert SAID.get(name, "") in text
    assert 0 <= found["grown"] <= BUDGET + SLACK
    assert found["next"] == 7


def test_a_refused_call_is_named_with_its_place() -> None:
    _, text = exploded(SOURCES["text_doubled"])["said"]
    assert text.startswith("t.rego:25:16: `concat`: ")


def test_the_budget_is_what_was_asked_for() -> None:
    body = f"{NUMBERS}\n  s := {{a: b | some a in l; b := [a, a, a]}}"
    source = policy(f"q := count(s) if {{\n  {body}\n}}")
    assert exploded(source, 1)["said"][0] == "MemoryExceeded"
    assert exploded(source, 16)["said"] == ["answer", ""]


@pytest.mark.parametrize("budget", [0, MIB - 1])
def test_a_budget_that_ordinary_policies_would_exceed_is_refused(budget: int) -> None:
    with pytest.raises(ValueError, match="at least 1 MiB"):
        _native.Engine([("t.rego", "package t\n\np := 1\n")], b"{}", "data.t.p", memory_bytes=budget)


# What a random bomb is made of: the kind of value each step takes and the kind it makes.
STEPS = {
    "text": [
        ('concat("", [@, @])', "text"),
        ('concat(@, ["b", "c", "d"])', "text"),
        ('sprintf("%v-%v", [@, @])', "text"),
        ('replace(@, "a", "aaaa")', "text"),
        ("base64.encode(@)", "text"),
        ("hex.encode(@)", "text"),
        ("upper(@)", "text"),
        ("strings.reverse(@)", "text"),
        ('split(@, "a")', "list"),
        ("[@, @, @]", "list"),
    ],
    "list": [
        ("array.concat(@, @)", "list"),
        ("array.flatten([@, @, @])", "list"),
        ("[@, @]", "list"),
        ("[y | some x in @; y := [x, x]]", "list"),
        ("[a | some a in @; some b in @]", "list"),
        ('sprintf("%v", [@])', "text"),
        ("array.reverse(@)", "list"),
    ],
}
STARTS = [("text", TEXT), ("list", "numbers.range(1, 500)"), ("list", '["a", "bb"]')]

ROUND = """
resource.setrlimit(resource.RLIMIT_AS, (task["space"], task["space"]))
from sidecar import _native
plain = _native.Engine([("t.rego", "package t\\n\\np := concat(input.a, [input.a, input.a])\\n")], b"{}", "data.t.p", 5.0)
said, slowest = {}, 0.0
before = peak()
for source in task["sources"]:
    engine = _native.Engine([("t.rego", source)], b"{}", "data.t.p", task["seconds"])
    began = time.thread_time()
    try:
        engine.evaluate({})
        kind = "answer"
    except _native.EvaluationError as error:
        kind = type(error).__name__
    slowest = max(slowest, time.thread_time() - began)
    said[kind] = said.get(kind, 0) + 1
    assert plain.evaluate({"a": "x"}) == "xxx"
grown = peak() - before
print(json.dumps({"said": said, "grown": grown, "slowest": slowest}))
"""


def random_bomb(dice: random.Random) -> str:
    kind, first = dice.choice(STARTS)
    lines = [f"x0 := {first}"]
    for at in range(dice.randrange(4, 30)):
        step, kind = dice.choice(STEPS[kind])
        lines.append(f"x{at + 1} := " + step.replace("@", f"x{at}"))
    last = f"x{len(lines) - 1}"
    answer = dice.choice([f"count({last})", last])
    return f"package t\n\np := {answer} if {{\n  " + "\n  ".join(lines) + "\n}\n"


@pytest.mark.parametrize("seed", range(3))
def test_random_bombs_end_in_an_answer_or_a_refusal_and_leave_the_engine_whole(seed: int) -> None:
    dice = random.Random(seed)
    task = {"sources": [random_bomb(dice) for _ in range(60)], "seconds": 0.2, "space": ADDRESS_SPACE}
    ran = subprocess.run(
        [sys.executable, "-c", f"task = {task!r}\n{PEAK}\n{ROUND}"],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert set(found["said"]) <= {"answer", "MemoryExceeded", "DeadlineExceeded"}, found
    assert found["said"].get("MemoryExceeded", 0) >= 5, found
    # Three times the slack: of sixty bombs in one process, the allocator keeps more than of one.
    assert 0 <= found["grown"] <= BUDGET + 3 * SLACK, found
    print(found)
