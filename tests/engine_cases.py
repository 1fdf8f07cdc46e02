"""What the embedded engine accepts and refuses, as tables.

The values in ACCEPTED were read from `opa eval --strict-builtin-errors` 1.22.2 with the same module, data and input;
`tests/conformance/test_engine_against_opa.py` reads them again wherever the program is.
"""

from dataclasses import dataclass, field
from typing import Any

from reference_opa import ERROR, UNDEFINED

DATA: dict[str, Any] = {
    "base": {
        "allowed": {"US": True, "PR": True, "XX": False},
        "limits": {"a": {"max": 10, "names": ["x", "y"]}},
        "list": ["a", "b"],
        "numbers": {"1": "one", "2": "two"},
    }
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A body of `package t` whose rule `p` yields `want` for each input."""

    name: str
    source: str
    want: list[tuple[dict[str, Any], Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A body of `package t` (its first line is line 2 of the module) refused with `code` on `line`."""

    source: str
    code: str
    line: int = 2
    nullable: list[str] = field(default_factory=list)


ACCEPTED = [
    Accepted(
        name="not: one reference; absent, false and null",
        source="p if not input.a.b",
        want=[({}, True), ({"a": {}}, True), ({"a": {"b": False}}, True), ({"a": {"b": None}}, UNDEFINED), ({"a": {"b": 0}}, UNDEFINED)],
    ),
    Accepted(
        name="not: a table by a bound key",
        source="p if {\n  c := input.c\n  is_string(c)\n  not data.base.allowed[c]\n}",
        want=[({"c": "US"}, UNDEFINED), ({"c": "XX"}, True), ({"c": "FR"}, True), ({}, UNDEFINED), ({"c": None}, UNDEFINED)],
    ),
    Accepted(
        name="not: equality of references",
        source='p if not input.a == "x"\n',
        want=[({"a": "x"}, UNDEFINED), ({"a": "y"}, True), ({}, True)],
    ),
    Accepted(
        name="not: bound result of a call",
        source='p if {\n  hit := startswith(input.a, "x")\n  not hit\n}',
        want=[({"a": "xy"}, UNDEFINED), ({"a": "y"}, True), ({}, UNDEFINED), ({"a": None}, ERROR)],
    ),
    Accepted(
        name="not: a rule and an element of a set rule",
        source="q if input.a == 1\n\ns contains x if some x in input.l\n\np := [1 | not q] if {\n  k := input.k\n  not s[k]\n}",
        want=[({"k": "z", "l": ["a"]}, [1]), ({"k": "a", "l": ["a"]}, UNDEFINED), ({"a": 1, "k": "z", "l": []}, [])],
    ),
    Accepted(
        name="in: as a statement, and bound sides as a value",
        source='p := [a, b] if {\n  "a" in input.l\n  v := input.v\n  l := input.l\n  a := v in l\n  b := 1 in l\n}',
        want=[({"v": "b", "l": ["a", "b"]}, [True, False]), ({"l": ["a"]}, UNDEFINED), ({"v": 1, "l": {"k": "a"}}, [False, False])],
    ),
    Accepted(
        name="sets: contains, union, difference, sorted result",
        source='s contains x if some x in input.l\n\np := {"u": s | {"z"}, "d": s - {"a"}, "i": s & {"a"}, "n": count(s)}',
        want=[({"l": ["b", "a", "b"]}, {"u": ["a", "b", "z"], "d": ["b"], "i": ["a"], "n": 2}), ({}, {"u": ["z"], "d": [], "i": [], "n": 0})],
    ),
    Accepted(
        name="default and several definitions",
        source='default p := "none"\n\np := "one" if input.a == 1\n\np := "two" if input.b == 2',
        want=[({}, "none"), ({"a": 1}, "one"), ({"b": 2}, "two"), ({"a": 1, "b": 2}, ERROR)],
    ),
    Accepted(
        name="else",
        source="p := 1 if {\n  input.a == 1\n} else := 2 if {\n  input.a == 2\n} else := 3",
        want=[({"a": 1}, 1), ({"a": 2}, 2), ({}, 3)],
    ),
    Accepted(
        name="functions: else, several definitions, undefined argument",
        source='f(x) := "big" if {\n  x > 10\n} else := "small"\n\ng("a") := 1\n\ng("b") := 2\n\np := [f(input.n), g(input.s)]',
        want=[({"n": 11, "s": "a"}, ["big", 1]), ({"n": 1, "s": "b"}, ["small", 2]), ({"n": 1, "s": "c"}, UNDEFINED), ({"s": "a"}, UNDEFINED)],
    ),
    Accepted(
        name="every",
        source="p if {\n  every k, v in input.m {\n    v > 0\n    data.base.allowed[k]\n  }\n}",
        want=[({"m": {"US": 1}}, True), ({"m": {"US": 0}}, UNDEFINED), ({"m": {}}, True), ({"m": {"FR": 1}}, UNDEFINED), ({}, UNDEFINED)],
    ),
    Accepted(
        name="comprehensions skip undefined terms",
        source='p := {"a": [input.m[k] | some k in input.l], "o": {k: v | some k, v in input.m; v != 2}}',
        want=[({"l": ["x", "no", "y"], "m": {"x": 1, "y": 2}}, {"a": [1, 2], "o": {"x": 1}}), ({}, {"a": [], "o": {}})],
    ),
    Accepted(
        name="wildcards in a statement",
        source='p if input.l[_] == "a"',
        want=[({"l": ["b", "a"]}, True), ({"l": []}, UNDEFINED), ({"l": {"k": "a"}}, True), ({"l": "a"}, UNDEFINED)],
    ),
    Accepted(
        name="object rule with bound parts, conflict",
        source="o[k] := v if {\n  some x in input.l\n  k := x.k\n  v := x.v\n}\n\np := o",
        want=[({"l": [{"k": "a", "v": 1}, {"k": "b", "v": 2}]}, {"a": 1, "b": 2}), ({"l": [{"k": "a", "v": 1}, {"k": "a", "v": 2}]}, ERROR), ({}, {})],
    ),
    Accepted(
        name="integers",
        source="p := [(input.a + 1) * 2, input.a - 7, input.a % 4, abs(input.a), -5 % 3]",
        want=[({"a": 9007199254740993}, [18014398509481988, 9007199254740986, 1, 9007199254740993, -2]), ({"a": -5}, [-8, -12, -1, 5, -2])],
    ),
    Accepted(
        name="addresses, digests, tokens",
        source='p := [net.cidr_contains("10.0.0.0/8", input.a), crypto.sha256(input.a), t[1].sub] if {\n  t := io.jwt.decode(input.t)\n  is_string(t[1].sub)\n}',
        want=[
            ({"a": "10.1.2.3", "t": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."}, [True, "8e099943f7370d7ecd46ad56442e02670e8ed1a8b2ba5c42a69f06f1c050189b", "a"]),
            ({"a": "10.1.2.3", "t": "eyJhbGciOiJub25lIn0.e30."}, UNDEFINED),
            ({"a": "ten", "t": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."}, ERROR),
            ({"a": "10.1.2.3", "t": "no token"}, ERROR),
            ({"t": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."}, UNDEFINED),
        ],
    ),
    Accepted(
        name="ordering of different types",
        source='p := [input.a < 3, input.a < "a", input.a < input.b]',
        want=[({"a": "x", "b": [1]}, [False, False, True]), ({"a": True, "b": False}, [True, True, False]), ({"a": 2, "b": 2}, [True, True, False])],
    ),
    Accepted(
        name="guards before null leaves",
        source='p if {\n  is_string(input.a)\n  input.a < "2026"\n}',
        want=[({"a": "2025"}, True), ({"a": None}, UNDEFINED), ({}, UNDEFINED)],
    ),
    Accepted(
        name="tables in data",
        source="p := [l.max, data.base.list[1], t[input.n]] if {\n  l := data.base.limits[input.k]\n  t := data.base.numbers\n}",
        want=[({"k": "a", "n": "1"}, [10, "b", "one"]), ({"k": "a", "n": 1}, UNDEFINED), ({"k": "z", "n": "1"}, UNDEFINED)],
    ),
    Accepted(
        name="text",
        source='p := [lower(input.s), upper(input.s), sprintf("%v:%v%%", [input.s, count(input.s)]), indexof(input.s, "B"), replace(input.s, "B", "x"), split(input.s, "B"), substring(input.s, 1, -1), trim_space(input.s)]',
        want=[({"s": "aBc "}, ["abc ", "ABC ", "aBc :4%", 1, "axc ", ["a", "c "], "Bc ", "aBc"]), ({"s": 1}, ERROR)],
    ),
    Accepted(
        name="regular expressions",
        source='p := regex.match("^[A-Za-z0-9_.-]{1,3}(-x)?$", input.s)',
        want=[({"s": "a_.-x"}, True), ({"s": "a\u0663"}, False), ({"s": "abcd"}, False), ({"s": "A\n"}, False)],
    ),
    Accepted(
        name="time",
        source="p := [t, time.date(t), time.clock(t), time.weekday(t)] if t := time.parse_rfc3339_ns(input.t)",
        want=[({"t": "2026-02-28T23:30:00+01:00"}, [1772317800000000000, [2026, 2, 28], [22, 30, 0], "Saturday"]), ({"t": "2026-02-30T00:00:00Z"}, ERROR), ({"t": "2026-06-30T23:59:60Z"}, ERROR)],
    ),
    Accepted(
        name="objects",
        source='p := [object.get(input.o, "a", 7), object.get(input.o, ["b", "c"], 7), object.keys(input.o), object.union(input.o, {"z": 1}), object.remove(input.o, ["a"])]',
        want=[({"o": {"a": 1, "b": {"c": 2}}}, [1, 2, ["a", "b"], {"a": 1, "b": {"c": 2}, "z": 1}, {"b": {"c": 2}}]), ({"o": {}}, [7, 7, [], {"z": 1}, {}])],
    ),
]  # fmt: skip

LEAF = ["input.a", "input.m.*"]

REFUSED = [
    # Negation over what may be undefined: true here, undefined in OPA.
    Refused(source='p if not startswith(input.x, "a")', code="negation"),
    Refused(source='p if {\n  true\n  not input.x in ["a"]\n}', code="negation", line=4),
    Refused(source="p if not input.x > 3", code="negation"),
    Refused(source='p if not input.x != "a"', code="negation"),
    Refused(source="p if not input.x + 1 == 2", code="negation"),
    Refused(source='p if not {"a": input.x}', code="negation"),
    Refused(source="f(x) if x\n\np if not f(input.x)", code="negation", line=4),
    Refused(source="p if not data.base.allowed[input.x]", code="negation"),
    Refused(source="p if not data.base.allowed[data.base.list[0]]", code="negation"),
    Refused(source='p if not data.base.allowed[lower("A")]', code="negation"),
    Refused(source="p if not input.l[_]", code="negation"),
    Refused(source="p if not data.base.allowed[input.x] == true", code="negation"),
    Refused(source="p if not [x | some x in input.l]", code="negation"),
    Refused(source="p if not true", code="negation"),
    Refused(source="p if { x := [1 | not input.a[input.b]]; x == [1] }", code="negation"),
    # Null leaves.
    Refused(source="p if input.a < 3", code="null_leaf", nullable=LEAF),
    Refused(source='p if input.a != "x"', code="null_leaf", nullable=LEAF),
    Refused(source="p := input.a + 1", code="null_leaf", nullable=LEAF),
    Refused(source="p := lower(input.a)", code="null_leaf", nullable=LEAF),
    Refused(source="p if some x in input.a", code="null_leaf", nullable=LEAF),
    Refused(source="p if { every x in input.a { x == 1 } }", code="null_leaf", nullable=LEAF),
    Refused(source="p if { x := input.a\n  x > 3 }", code="null_leaf", line=3, nullable=LEAF),
    Refused(source='p if input["a"] > 3', code="null_leaf", nullable=LEAF),
    Refused(source="p if { k := input.k\n  input[k] > 3 }", code="null_leaf", line=3, nullable=LEAF),
    Refused(source="p if { k := input.k\n  input.m[k] > 3 }", code="null_leaf", line=3, nullable=LEAF),
    Refused(source="p if { some v in input.m\n  v > 3 }", code="null_leaf", line=3, nullable=LEAF),
    Refused(source='p := sprintf("%v", [input.a])', code="null_leaf", nullable=LEAF),
    Refused(source="f(x) := x\n\np := f(input.a)", code="null_leaf", line=4, nullable=LEAF),
    Refused(source="f(x) := x\n\np := f(input)", code="null_leaf", line=4, nullable=LEAF),
    Refused(source="q := input.a\n\np if q > 3", code="null_leaf", line=4, nullable=LEAF),
    Refused(source="f(x) := input.a\n\np if f(1) > 3", code="null_leaf", line=4, nullable=LEAF),
    Refused(source="s contains input.a\n\np if { some x in s\n  x > 3 }", code="null_leaf", line=5, nullable=LEAF),
    Refused(source="o[k] := input.a if k := 1\n\np if { some x in o\n  x > 3 }", code="null_leaf", line=5, nullable=LEAF),
    Refused(source="p if { xs := [input.a]\n  xs[0] > 3 }", code="null_leaf", line=3, nullable=LEAF),
    Refused(source="p if { is_string(input.b)\n  input.a > 3 }", code="null_leaf", line=3, nullable=LEAF),
    Refused(source="p if { k := input.a\n  not data.base.allowed[k] }", code="null_leaf", line=3, nullable=LEAF),
    Refused(source='p if not input.a == "x"', code="null_leaf", nullable=LEAF),
    # `in` is false, not undefined, when a side is missing.
    Refused(source='p if { x := "a" in input.l\n  x == false }', code="membership"),
    Refused(source='p := ["a" in input.l]', code="membership"),
    Refused(source='p if { x := ("k", 1 in {"k": 1})\n  x }', code="membership"),
    Refused(source="p if { l := input.l\n  x := [(0, 1 in l)]\n  x }", code="membership", line=3),
    Refused(source="p if input.x in input.l == true", code="precedence"),
    # Heads that lose results, keys of `every` that iterate.
    Refused(source="o[x.k] := x.v if some x in input.l\n\np := o", code="head_undefined"),
    Refused(source="s contains input.m[x] if some x in input.l\n\np := s", code="head_undefined"),
    Refused(source="p if { every v in input.l { not input.m[v] } }", code="every_key"),
    Refused(source="p if { every v in input.l { x := [input.m[v] | true]; x } }", code="every_key"),
    # Names.
    Refused(source="p if x == 1", code="undefined_name"),
    Refused(source="p if { input.l[i] == 1 }", code="undefined_name"),
    Refused(source="import data.q\n\np := q.missing.deep\n\nq := 1", code="shadows_import", line=6),
    Refused(source="p := data.t.misspelt", code="undefined_name"),
    Refused(source="p if { x := 1\n  y := [x | x := 2]\n  y }", code="shadowed", line=3),
    Refused(source="q := 1\n\np if { q := 2\n  q == 2 }", code="shadowed", line=4),
    Refused(source="count(x) := 1\n\np := 1", code="shadows_builtin"),
    Refused(source="import data.base as time\n\np := time.list", code="shadows_builtin"),
    Refused(source="import input.a\n\np := a", code="import_input"),
    Refused(source="p := data.t", code="package_value"),
    Refused(source="p := data[input.x]", code="package_value"),
    Refused(source="p.q := 1", code="rule_name"),
    Refused(source="p := 1\n\np contains 2", code="rule_kind", line=4),
    Refused(source="p if { some i\n  input.l[i] == 1 }", code="some_without_in"),
    Refused(source="p if { [a, b] := input.l\n  a == b }", code="pattern"),
    Refused(source="p if { x = 1\n  x == 1 }", code="unification"),
    Refused(source='import data.t.q.k as z\n\nq := {"k": false}\n\np := [1 | z]', code="undefined_name", line=6),
    Refused(source='import data.t.s.a as z\n\ns contains "a"\n\np if not z', code="undefined_name", line=6),
    # Objects of which OPA keeps another field.
    Refused(source='p := {input.k: 2, "a": 1}', code="object_keys"),
    Refused(source='p if { k := input.k\n  o := {"b": 1, k: 2}\n  o.b == 1 }', code="object_keys", line=3),
    Refused(source='p := {"a": input.x, "b": 2, `a`: 1}', code="object_keys"),
    # Keys that data matches loosely.
    Refused(source="p := data.base.numbers[input.n]", code="computed_key"),
    Refused(source="import data.base.numbers as table\n\np := table[input.n]", code="computed_key", line=4),
    Refused(source='p := data.base.list["1"]', code="computed_key"),
    Refused(source="p := data.base.list[input.n]", code="computed_key"),
    Refused(source="o[x] := 1 if some x in input.l\n\np := data.t.o[input.n]", code="computed_key", line=4),
    # Numbers, comparisons.
    Refused(source="p := 0.1", code="not_an_integer"),
    Refused(source="p := 1e3", code="not_an_integer"),
    Refused(source="p := 1234567890123456789", code="not_an_integer"),
    Refused(source="p := input.a / 2", code="division"),
    Refused(source="p if 1 < 2 == true", code="precedence"),
    Refused(source='p := {"a"} < {"k": 1}', code="ordering"),
    Refused(source="p := (1 + 2).x", code="rego_parse"),
    # Built-ins.
    Refused(source="p := time.now_ns()", code="builtin"),
    Refused(source="p := time.add_date(0, 1, 1, 1)", code="builtin"),
    Refused(source='p := rand.intn("a", 3)', code="builtin"),
    Refused(source='p := uuid.rfc4122("a")', code="builtin"),
    Refused(source="p := opa.runtime()", code="builtin"),
    Refused(source='p := http.send({"method": "get", "url": "http://x"})', code="builtin"),
    Refused(source='p := crypto.sha1("a")', code="builtin"),
    Refused(source='p := io.jwt.decode_verify("a", {})', code="builtin"),
    Refused(source='p := io.jwt.verify_hs256("a", "b")', code="builtin"),
    Refused(source='p := net.cidr_expand("10.0.0.0/8")', code="builtin"),
    Refused(source='p := json.marshal("a")', code="builtin"),
    Refused(source="p if json.unmarshal(input.s) < 3", code="null_leaf"),
    Refused(source="p if {\n  t := io.jwt.decode(input.s)\n  t[1].exp < 3\n}", code="null_leaf", line=4),
    Refused(source='p := net.cidr_contains(input.s, "10.0.0.1")', code="null_leaf", nullable=["input.s"]),
    Refused(source='p := strings.replace_n({"a": "b"}, "a")', code="builtin"),
    Refused(source='p := json.match_schema("{}", {})', code="builtin"),
    Refused(source='p := glob.match("*", [], "a")', code="builtin"),
    Refused(source='p := semver.is_valid("v1.0.0")', code="builtin"),
    Refused(source="p := object.subset({}, [])", code="builtin"),
    Refused(source='p := to_number("0.1")', code="builtin"),
    Refused(source='p if print("x")', code="builtin"),
    Refused(source="p if walk(input, [_, 1])", code="builtin"),
    Refused(source="p := nowhere(1)", code="builtin"),
    Refused(source='p := sprintf("%f", [1])', code="argument"),
    Refused(source='p := sprintf("%d", [1])', code="argument"),
    Refused(source="p := sprintf(input.f, [1])", code="argument"),
    Refused(source='p := sprintf("%v %v", [1])', code="argument"),
    Refused(source='p := sprintf("%v", [{1}])', code="argument"),
    Refused(source="p := numbers.range(1, input.n)", code="argument"),
    Refused(source="p := numbers.range(1, 100000)", code="argument"),
    Refused(source='p := regex.match("\\\\d", input.s)', code="argument"),
    Refused(source="p := regex.match(`[[:alpha:]]`, input.s)", code="argument"),
    Refused(source="p := regex.match(`(?i)a`, input.s)", code="argument"),
    Refused(source="p := regex.match(`a**`, input.s)", code="argument"),
    Refused(source='p := regex.match(input.r, "a")', code="argument"),
    Refused(source="p if { count([1], 1) }", code="arity"),
    # `with`, recursion, other shapes.
    Refused(source='p if data.base.list with data.base.list as ["x"]', code="with"),
    Refused(source="p if q\n\nq if p", code="recursion"),
    Refused(source="f(x) := f(x)\n\np := f(1)", code="recursion"),
    Refused(source="default f(x) := 1\n\np := f(1)", code="default_function"),
    Refused(source="p if {\n  true\n} {\n  true\n}", code="several_bodies", line=4),
    Refused(source='p := $"a {input.x}"', code="rego_parse"),
    Refused(source="p { true }", code="rego_parse"),
    Refused(source="p := 1\n\x00q := 2", code="bad_character", line=3),
    Refused(source="p := 1 # \u202e", code="bad_character"),
    Refused(source="p := " + "[" * 20 + "1" + "]" * 20, code="too_deep"),
    Refused(source="p := " + "(" * 30 + "1" + ")" * 30, code="too_deep"),
    Refused(source="p := 1" + " + 1" * 200, code="too_deep"),
]  # fmt: skip
