"""Questions put to a policy beside its own: which conditions held, with which values, for which arguments.

A policy says only what it decides. To say why, every module is loaded with more rules at its end, *probes*, one for
each prefix of each body: `{[frame, [locals]] | condition 1; …; condition k}`. A *frame* is the list of arguments of a
call of a function (empty for other rules); which calls there are is asked in the same way, at each place of a call.
Probes hold the conditions as they are written and are answered by the engine that decides, so they cannot differ from
it. A branch after `else` is asked only for frames that no branch before it answered, as in the policy itself.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from sidecar.administration.policy_source import (
    Branch,
    Module,
    Nested,
    Rule,
    Statement,
    comprehension,
    nested_every,
    read,
)
from sidecar.administration.policy_words import Ref, Steps, Token, Tokens, group, reference, split

ENTRYPOINT: Final = "data.explain_all.answers"
_FRAME: Final = "explain_frame"
Context = tuple[str, ...]


class Program:
    """The rules of some modules, by their path, and where a reference leads."""

    def __init__(self, sources: tuple[tuple[str, str], ...]) -> None:
        self.modules = tuple(read(file, source) for file, source in sources)
        self.rules: dict[str, list[Rule]] = defaultdict(list)
        self.of: dict[str, Module] = {}
        for module in self.modules:
            self.of[module.file] = module
            for rule in module.rules:
                self.rules[rule.path].append(rule)
        self.packages = frozenset(module.package for module in self.modules)

    def resolve(self, module: Module, ref: Ref) -> tuple[str, Steps] | None:
        """The path of the rule that a reference (no local's) leads to, and the steps into its value."""
        steps = ref.steps
        if ref.root == "data":
            prefix: list[str] = []
        elif f"{module.package}.{ref.root}" in self.rules:
            return f"{module.package}.{ref.root}", steps
        elif ref.root in module.imports:
            prefix = module.imports[ref.root].split(".")
        else:
            return None
        path = list(prefix)
        for end, one in enumerate(steps):
            if ".".join(path) in self.rules:
                return ".".join(path), steps[end:]
            if not isinstance(one, str):
                return None
            path.append(one)
        return (".".join(path), ()) if ".".join(path) in self.rules else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A place where a function is called: its probe answers with pairs of the caller's frame and the callee's."""

    probe: str
    callee: str
    rule: int
    branch: int
    at: int
    """The statement of the branch; as many as it has for the value it gives."""
    token: Token
    arguments: tuple[Tokens, ...]
    nested: bool


@dataclass(slots=True)
class Probes:
    """`modules`: the sources to load; `locals`: of each step's probe, the names whose values it answers with."""

    program: Program
    modules: list[tuple[str, str]] = field(default_factory=list)
    numbered: list[Rule] = field(default_factory=list)
    locals: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sites: list[Site] = field(default_factory=list)


def step(rule: int, branch: int, held: int) -> str:
    """The probe of a branch's first `held` statements."""
    return f"explain_{rule}_{branch}_{held}"


def given(rule: int, branch: int) -> str:
    """The probe of what a branch gives: pairs of frame and value."""
    return f"explain_{rule}_{branch}_value"


def instrument(modules: tuple[tuple[str, str], ...]) -> Probes:
    """The modules with their probes, for `ENTRYPOINT`. Only for modules that the engine has loaded."""
    program = Program(modules)
    made = Probes(program)
    asked: dict[str, str] = {}
    for module in program.modules:
        lines: list[str] = []
        for rule in module.rules:
            number = len(made.numbered)
            made.numbered.append(rule)
            if rule.kind != "default":
                for name, text in _Rule(made, module, rule, number).probes():
                    lines.append(f"{name} := {text}")
                    if not name.endswith("_taken"):
                        asked[name] = f"data.{module.package}.{name}"
        made.modules.append((module.file, module.source + "\n" + "\n".join(lines) + "\n"))
    made.modules += list(_calls(made))
    entries = ",\n".join(f'"{name}": {path}' for name, path in sorted(asked.items()))
    made.modules.append(("explain_all.rego", f"package explain_all\n\nanswers := {{\n{entries}\n}}\n"))
    return made


def _calls(made: Probes) -> Iterator[tuple[str, str]]:
    """For each package a module with the frames of its functions: `explain_calls_<function>`."""
    for package in sorted(made.program.packages):
        lines = [f"package {package}\n"]
        functions = {rule.name: rule for rule in made.numbered if rule.package == package and rule.kind == "function"}
        for name in sorted(functions):
            sites = [site for site in made.sites if site.callee == f"{package}.{name}"]
            for site in sites:
                caller = made.numbered[site.rule].package
                lines.append(
                    f"explain_calls_{name} contains frame if {{\n some pair in data.{caller}.{site.probe}\n frame := pair[1]\n}}"
                )
            if not sites:
                lines.append(f"explain_calls_{name} := set()")
        if functions:
            yield f"explain_{package}.rego", "\n".join(lines) + "\n"


class _Rule:
    """The probes of one rule."""

    def __init__(self, made: Probes, module: Module, rule: Rule, number: int) -> None:
        self._made, self._module, self._rule, self._number = made, module, rule, number
        self._branch = 0
        self._at = 0
        self._sites: list[tuple[str, str]] = []

    def probes(self) -> Iterator[tuple[str, str]]:
        context, bound = self._frames()
        for number, branch in enumerate(self._rule.branches):
            self._branch, self._sites = number, []
            yield from self._of_branch(branch, number, context, bound)
            yield from self._sites
            context += (f"explain_all_{number} := explain_{self._number}_{number}_taken",
                        f"explain_past_{number} := {_FRAME} in explain_all_{number}",
                        f"explain_past_{number} == false")  # fmt: skip

    def _frames(self) -> tuple[Context, tuple[str, ...]]:
        """What declares the frame and the parameters; and the parameters' names."""
        if self._rule.kind != "function":
            return (f"{_FRAME} := []",), ()
        lines = [f"some {_FRAME} in data.{self._rule.package}.explain_calls_{self._rule.name}"]
        names = []
        for place, parameter in enumerate(self._rule.parameters):
            if parameter == "_":
                continue
            if parameter[0].isalpha() and parameter not in ("true", "false", "null"):
                names.append(parameter)
                lines.append(f"{parameter} := {_FRAME}[{place}]")
            else:
                lines.append(f"{_FRAME}[{place}] == {parameter}")
        return tuple(lines), tuple(names)

    def _of_branch(
        self, branch: Branch, number: int, context: Context, bound: tuple[str, ...]
    ) -> Iterator[tuple[str, str]]:
        name = step(self._number, number, 0)
        yield name, self._step(name, context, bound)
        for held, statement in enumerate(branch.statements, start=1):
            self._at = held - 1
            if not any(token.text == "with" for token in statement.tokens):
                self._visit(statement, context)
            context, bound = (*context, statement.source), bound + statement.binds
            name = step(self._number, number, held)
            yield name, self._step(name, context, bound)
        self._at = len(branch.statements)
        value = self._value(branch, context)
        name = given(self._number, number)
        yield name, f"{{[{_FRAME}, explain_value] |\n" + _and((*context, f"explain_value := {value}")) + "\n}"
        yield f"explain_{self._number}_{number}_taken", f"{{frame | some pair in {name}; frame := pair[0]}}"

    def _step(self, name: str, context: Context, bound: tuple[str, ...]) -> str:
        self._made.locals[name] = bound
        return f"{{[{_FRAME}, [{', '.join(bound)}]] |\n" + _and(context) + "\n}"

    def _value(self, branch: Branch, context: Context) -> str:
        key, value = self._rule.key, branch.value
        for one in (key, value):
            if one is not None:
                self._words(one.tokens, context, nested=False)
        if key is None:
            return value.source if value is not None else "true"
        return key.source if value is None else f"[{key.source}, {value.source}]"

    def _visit(self, statement: Statement, context: Context, *, nested: bool = False) -> None:
        """Note every call in a statement whose predecessors are the context."""
        every = nested_every(statement, self._module.source)
        if every is None:
            self._words(statement.tokens, context, nested=nested)
            return
        self._words(statement.tokens[: len(statement.tokens) - _length(every, statement)], context, nested=nested)
        self._inside(every, (*context, every.opens))

    def _inside(self, inner: Nested, context: Context) -> None:
        for statement in inner.statements:
            self._visit(statement, context, nested=True)
            context = (*context, statement.source)
        self._words(inner.head, context, nested=True)

    def _words(self, tokens: Tokens, context: Context, *, nested: bool) -> None:
        at = 0
        while at < len(tokens):
            one = tokens[at]
            if one.text in ("[", "{") and one.kind == "mark":
                end = group(tokens, at)
                inner = comprehension(tokens[at + 1 : end - 1], self._module.source)
                if inner is not None:
                    self._inside(inner, context)
                    at = end
                    continue
            elif one.kind == "name" and not (at and tokens[at - 1].text == "."):
                self._call(tokens, at, context, nested=nested)
            at += 1

    def _call(self, tokens: Tokens, at: int, context: Context, *, nested: bool) -> None:
        ref = reference(tokens, at)
        found = self._made.program.resolve(self._module, ref) if ref.call else None
        if found is None or found[1]:
            return
        end = group(tokens, ref.end)
        arguments = tuple(split(tokens[ref.end + 1 : end - 1]))
        source = self._module.source
        texts = [source[one[0].start : one[-1].end] for one in arguments]
        name = f"explain_{self._number}_site_{sum(site.rule == self._number for site in self._made.sites)}"
        lines = [*context, *(f"explain_argument_{place} := {text}" for place, text in enumerate(texts))]
        frame = ", ".join(f"explain_argument_{place}" for place in range(len(texts)))
        self._sites.append((name, f"{{[{_FRAME}, [{frame}]] |\n" + _and(lines) + "\n}"))
        self._made.sites.append(
            Site(probe=name, callee=found[0], rule=self._number, branch=self._branch, at=self._at, token=tokens[at],
                 arguments=arguments, nested=nested)
        )  # fmt: skip


def _and(conditions: Iterable[str]) -> str:
    """A body. A line's end alone does not end a statement: the next may begin with a minus."""
    return ";\n".join(conditions)


def _length(every: Nested, statement: Statement) -> int:
    """How many words the body of an `every` takes, its braces included."""
    if not every.statements:
        return 2
    first = every.statements[0].tokens[0].start
    return 1 + sum(1 for one in statement.tokens if one.start >= first)
