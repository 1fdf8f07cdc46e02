"""Random Rego over a small vocabulary: bodies, terms, functions, rules of two packages, data and inputs.

What comes out parses mostly, loads sometimes, and is meant to find a construct on which the embedded engine and OPA
answer differently. Inputs lack leaves, hold null where it was declared, and hold values of other types.
"""

import random
import re
from typing import Any

DATA: dict[str, Any] = {
    "base": {
        "tbl": {"a": "x", "b": "y", "us": True, "n": 3, "f": False, "nul": None},
        "lst": ["a", "b", "us", 3],
        "deep": {"a": {"k": 1, "l": ["a"]}, "b": {"k": 2}},
        "nums": [1, 2, 3],
        "nk": {"1": "one", "2": "two"},
    }
}
LEAVES = ["s1", "s2", "n1", "n2", "b1"]
COLLECTIONS = ["l1", "l2", "m1", "m2", "o"]
SCALARS = ['"a"', '"b"', '"us"', '"x"', "1", "2", "3", "0", "-1", "true", "false", "null", '""', '"zz"']
ORDERS = ["==", "==", "!=", "<", "<=", ">", ">="]
CALLS = [
    'startswith(%, "a")', "startswith(%, %)", 'contains(%, "a")', 'endswith(%, "s")', "count(%)", "sum(%)", "lower(%)",
    "upper(%)", "is_string(%)", "is_null(%)", "is_number(%)", "is_object(%)", "is_set(%)", "type_name(%)",
    'concat(",", %)', 'sprintf("%v-%v", [%, %])', 'split(%, "a")', 'replace(%, "a", "q")', 'trim(%, "a")',
    "substring(%, 1, 2)", "substring(%, 0, -1)", "object.get(%, %, %)", "object.keys(%)", "object.union(%, %)",
    'object.remove(%, ["a"])', 'object.filter(%, ["a"])', "array.concat(%, %)", "array.slice(%, 1, 9)",
    "array.reverse(%)", "sort(%)", "max(%)", "min(%)", "abs(%)", "product(%)", 'regex.match("^[a-z]+$", %)',
    'indexof(%, "a")', "format_int(%, 16)", "numbers.range(3, 1)", "strings.any_prefix_match(%, %)",
    "strings.reverse(%)", 'trim_prefix(%, "a")', "union({{%}, {%}})", "intersection({{%, 1}, {%, 1}})",
    "f1(%)", "f2(%, %)", "f3(%)", "f4(%)", "f5(%)", "u.g(%)", "data.u.g(%)",
]  # fmt: skip


def document(rng: random.Random, nullable: list[str]) -> dict[str, Any]:
    """One input, not total: the loader must hold even where the schema would not."""
    pick = rng.choice
    made: dict[str, Any] = {
        "s1": pick(["a", "b", "us", "", "zz", "1"]), "s2": pick(["a", "b", "us", "ab"]),
        "n1": pick([0, 1, 2, 3, -5, 10]), "n2": pick([1, 2, 3]), "b1": pick([True, False]),
        "l1": pick([[], ["a"], ["a", "b"], ["us", "zz"], ["a", "a"]]), "l2": pick([[], [1], [3, 1, 2]]),
        "m1": pick([{}, {"a": "x"}, {"b": "a", "us": "q"}]), "m2": pick([{}, {"a": True}, {"a": False, "b": True}]),
        "o": {"a": pick([1, "a", True]), "b": pick([2, False])},
    }  # fmt: skip
    for leaf in nullable:
        if rng.random() < 0.5:
            made[leaf] = None
    chance = rng.random()
    if chance < 0.35:
        for name in rng.sample(list(made), pick([1, 2])):
            del made[name]
    elif chance < 0.5:
        name = pick(LEAVES + COLLECTIONS)
        if name not in nullable:
            made[name] = pick(["a", 1, True, ["a"], {"a": 1}])
    return made


class Writer:
    """Writes one rule. `names` are the locals bound so far."""

    def __init__(self, rng: random.Random, names: tuple[str, ...] = (), *, own_package: bool = True) -> None:
        self.rng, self.names, self.made, self.depth, self.own = rng, list(names), 0, 0, own_package

    def new(self) -> str:
        self.made += 1
        return f"v{self.made}"

    def key(self) -> str:
        chance = self.rng.random()
        if chance < 0.4 and self.names:
            return self.rng.choice(self.names)
        if chance < 0.6:
            return self.rng.choice(['"a"', '"b"', "0", "1", '"us"'])
        return "_" if chance < 0.7 else "input." + self.rng.choice(["s1", "s2", "n1"])

    def reference(self) -> str:
        pick, key, chance = self.rng.choice, self.key, self.rng.random()
        if chance < 0.08 and self.names:
            return f"{pick(self.names)}[{key()}]"
        if chance < 0.45:
            return "input." + pick(LEAVES)
        if chance < 0.6:
            return "input." + pick(COLLECTIONS)
        if chance < 0.7:
            return "input.o." + pick(["a", "b", "c"])
        if chance < 0.8:
            return f"input.{pick(['m1', 'm2', 'l1'])}[{key()}]"
        fixed = ["tbl.a", "tbl.us", "tbl.f", "tbl.nul", "lst", "nums", "deep.a.k", "missing", "nk", "nk[1]", "lst[1]"]
        computed = [f"tbl[{key()}]", f"deep[{key()}].k", f"lst[{key()}]", f"deep[{key()}].l[{key()}]", f"nk[{key()}]"]
        return "data.base." + pick(fixed + computed)

    def rule(self) -> str:
        if not self.own:
            return self.reference()
        other = [
            "u.h",
            "u.s",
            f"u.s[{self.key()}]",
            f"u.o[{self.key()}]",
            "data.u.h",
            f"u.o[{self.key()}].k",
            "data.u.s",
        ]
        imported = [f"tbl[{self.key()}]", f"nk[{self.key()}]", f"lst[{self.key()}]"]
        own = ["h0", "h1", "h2", "h3", "hs", "ho", "hd", f"ho[{self.key()}]", f"hs[{self.key()}]", f"h4[{self.key()}]"]
        return self.rng.choice(other + imported + own)

    def name(self) -> str:
        return self.rng.choice(self.names) if self.names else self.reference()

    def atom(self) -> str:
        chance = self.rng.random()
        if chance < 0.3:
            return self.name()
        if chance < 0.5:
            return self.rng.choice(SCALARS)
        return self.reference() if chance < 0.85 else self.rule()

    def call(self) -> str:
        argument = self.term if self.rng.random() < 0.4 else self.atom
        template = self.rng.choice(CALLS if self.own else CALLS[:-7])
        return re.sub("%(?!v)", lambda _: argument(), template)

    def compare(self) -> str:
        return f"{self.atom()} {self.rng.choice(ORDERS)} {self.atom()}"

    def set_term(self) -> str:
        return self.rng.choice(["hs" if self.own else "set()", f"{{1, {self.atom()}}}", "set()", self.name()])

    def term(self) -> str:
        if self.depth >= 3:
            return self.atom()
        self.depth += 1
        kinds = [
            (30, self.atom),
            (25, self.call),
            (10, lambda: f"{self.atom()} {self.rng.choice('+-*%')} {self.atom()}"),
            (5, lambda: f"({self.compare()})"),
            (5, lambda: f"[{self.atom()}, {self.atom()}]"),
            (4, lambda: f'{{{self.rng.choice(SCALARS)}: {self.atom()}, "k": {self.atom()}}}'),
            (3, lambda: f"{{{self.atom()}, {self.atom()}}}"),
            (4, lambda: f"({self.atom()} in {self.atom()})"),
            (3, lambda: f"({self.set_term()} {self.rng.choice('|&-')} {self.set_term()})"),
            (11, self.comprehension),
        ]
        made = self._weighted(kinds)
        self.depth -= 1
        return made

    def comprehension(self) -> str:
        known, name = list(self.names), self.new()
        statements = [f"some {name} in {self.atom()}"]
        self.names.append(name)
        if self.rng.random() < 0.6:
            statements.append(self.statement())
        term, body = self.rng.choice([name, name, self.atom(), self.term()]), "; ".join(statements)
        self.names = known
        return self.rng.choice([f"[{term} | {body}]", f"{{{term} | {body}}}", f"{{{name}: {term} | {body}}}"])

    def statement(self) -> str:
        if self.depth >= 3:
            return self.compare()
        self.depth += 1
        kinds = [
            (20, self._bind),
            (10, self._some),
            (15, self.compare),
            (10, self.call),
            (5, self.term),
            (8, lambda: f"{self.atom()} in {self.atom()}"),
            (9, self._every),
            (3, lambda: f"is_{self.rng.choice(['string', 'number', 'boolean'])}({self.name()})"),
            (20, self._negation),
        ]
        made = self._weighted(kinds)
        self.depth -= 1
        return made

    def body(self, count: int) -> str:
        return "\n    ".join(self.statement() for _ in range(count))

    def _weighted(self, kinds: list[tuple[int, Any]]) -> str:
        (make,) = self.rng.choices([kind for _, kind in kinds], [weight for weight, _ in kinds])
        made: str = make()
        return made

    def _bind(self) -> str:
        term, name = self.term(), self.new()
        self.names.append(name)
        return f"{name} := {term}"

    def _some(self) -> str:
        collection, names = self.atom(), [self.new() for _ in range(self.rng.choice([1, 2]))]
        self.names += names
        return f"some {', '.join(names)} in {collection}"

    def _every(self) -> str:
        known, collection = list(self.names), self.atom()
        names = [self.new() for _ in range(self.rng.choice([1, 2]))]
        self.names += names
        body = "; ".join(self.statement() for _ in range(self.rng.choice([1, 2, 3])))
        self.names = known
        return f"every {', '.join(names)} in {collection} {{ {body} }}"

    def _negation(self) -> str:
        made = [self.reference, self.name, self.rule, lambda: f"{self.name()} == {self.rng.choice(SCALARS)}"]
        return "not " + self.rng.choice([*made, lambda: f"{self.reference()} == {self.atom()}", self.call])()


def other_package(rng: random.Random) -> str:
    """Package `u`: a rule with a default, a set, an object and a function."""

    def rule(head: str, count: int, names: tuple[str, ...] = ()) -> str:
        writer = Writer(rng, names, own_package=False)
        body = writer.body(count)
        return f"{head.replace('%', writer.name())} if {{\n    {body}\n}}"

    rules = [
        f"default h := {rng.choice(['false', '1', '[]'])}", rule("h := %", 1), rule("s contains %", 2),
        's contains "a"', rule('o[%] := {"k": 1}', 2), rule("g(q) := %", 2, ("q",)),
    ]  # fmt: skip
    return "\n\n".join(["package u", *rules]) + "\n"


def module(rng: random.Random) -> str:
    """Package `t` with rule `p` under `entry`, and the helpers that `p` reaches."""
    pick = rng.choice

    def rule(head: str, count: int, names: tuple[str, ...] = ()) -> str:
        writer = Writer(rng, names)
        body = writer.body(count)
        head = re.sub("@", lambda _: writer.name(), re.sub("%", lambda _: writer.term(), head))
        return f"{head} if {{\n    {body}\n}}"

    chain, last = Writer(rng), Writer(rng, ("q",))
    rules = [
        f"h0 := {pick(SCALARS)}", 'hs contains "a"', 'h4 := {"a": 1, "b": [1, 2], "us": false}',
        rule("h1", pick([1, 2])), rule("h2 := %", pick([1, 2])),
        f"default h3 := {pick(['false', 'true', '{}'])}", rule(pick(["h3", "h3 := @"]), 2),
        rule(pick(["hs contains @", "hs contains %"]), pick([1, 2, 3])), rule("ho[@] := @", 2),
        f"hd := 1 if {{\n    {chain.body(2)}\n}} else := {chain.reference()} if {{\n    {Writer(rng).body(1)}\n}} else := 7",
        rule("f1(q)", 2, ("q",)), rule("f2(q, w) := %", pick([1, 2]), ("q", "w")),
        rule("f3(q) := @", 1, ("q",)), rule("f3(q) := @", 1, ("q",)),
        f"f4(q) := 1 if {{\n    {last.statement()}\n}} else := 2", f'f5("a") := {pick(SCALARS)}', 'f5("b") := true',
        rule(pick(["p", "p", "p := %", "p contains @", "p[@] := @"]), pick([2, 3, 4])),
    ]  # fmt: skip

    def named(text: str) -> str:
        found = re.match(r"(?:default )?(\w+)", text)
        assert found
        return found.group(1)

    needed = {"p"}
    while True:
        read = {n for r in rules if named(r) in needed for n in map(named, rules) if re.search(rf"\b{n}\b", r)}
        if read <= needed:
            break
        needed |= read
    imports = ["package t", "import data.u", "import data.base.tbl", "import data.base.nk", "import data.base.lst"]
    return "\n\n".join(imports + [r for r in rules if named(r) in needed] + ["entry := p"]) + "\n"
