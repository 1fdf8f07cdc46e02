"""Which paths of `input` and `data` a policy names, and whether there is anything at them.

A misspelt path is undefined, and what is undefined is silent. So every reference is held against the input document of
the vocabulary and against the bundle's data, also where it goes by another name: `p := input.resource.location`,
`some g in input.context.exceptions`, and a parameter, where every call is known by what it gives.
"""

import difflib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec import inspect

from sidecar.administration.policy_probes import Program
from sidecar.administration.policy_source import Module, Nested, Rule, Statement, comprehension, nested_every
from sidecar.administration.policy_words import Ref, Tokens, group, reference, references, split
from sidecar.vocabulary import CATEGORIES, AccessRequest

ANY: Final = "*"
Path = tuple[str, ...]
Tree = Mapping[str, "Tree"] | None
"""What may stand below a path: names, `*` for any element of a list; None for a leaf."""


def input_tree() -> Tree:
    """The input document, version 1: maps keyed by category carry every category of the closed list."""
    return _tree(inspect.type_info(AccessRequest))


def _tree(kind: inspect.Type) -> Tree:
    if isinstance(kind, inspect.StructType):
        return {field.encode_name: _tree(field.type) for field in kind.fields}
    if isinstance(kind, inspect.VarTupleType):
        return {ANY: _tree(kind.item_type)}
    if isinstance(kind, inspect.DictType):
        return {category: _tree(kind.value_type) for category in CATEGORIES}
    return None


def data_tree(data: object) -> Tree:
    """The bundle's data."""
    if isinstance(data, dict):
        return {key: data_tree(value) for key, value in data.items()}
    if data == []:
        return {}
    if isinstance(data, list):
        merged: dict[str, Tree] = {}
        for one in data:
            below = data_tree(one)
            merged.update(below if below is not None else {})
        return {ANY: merged or None}
    return None


def missing(tree: Tree, path: Path) -> tuple[int, tuple[str, ...]] | None:
    """Where the path leaves the tree, and the names that are there instead; None when it does not."""
    here: tuple[Tree, ...] = (tree,)
    for depth, name in enumerate(path):
        below = [one for one in here if one]
        if not below:
            # An empty list or table says nothing about what may stand in it.
            return None if any(one == {} for one in here) else (depth, ())
        if name == ANY:
            here = tuple(child for one in below for child in one.values())
        else:
            found = [one[name] for one in below if name in one]
            found += [one[ANY] for one in below if ANY in one and name.isdigit()]
            if not found:
                return depth, tuple(sorted({key for one in below for key in one} - {ANY}))
            here = tuple(found)
    return None


def nearest(path: Path, depth: int, names: Iterable[str]) -> str:
    """The path with the name that is closest to the one that is missing; empty when none is like it."""
    close = difflib.get_close_matches(path[depth], list(names), n=1, cutoff=0.5)
    return ".".join((*path[:depth], *close)) if close else ""


@dataclass(frozen=True, slots=True)
class Named:
    """A path that a policy names: `paths` is what it may stand for."""

    file: str
    row: int
    col: int
    text: str
    paths: tuple[Path, ...]


@dataclass(slots=True)
class _Scope:
    """What names stand for at one place: several paths for a parameter, none when it is not known."""

    names: dict[str, tuple[Path, ...]] = field(default_factory=dict)

    def inner(self) -> "_Scope":
        return _Scope(dict(self.names))


class Paths:
    """Every path that the modules of a program name."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._parameters: dict[tuple[str, int], set[Path] | None] = {}
        self._found: dict[tuple[str, int, int], Named] = {}

    def all(self) -> tuple[Named, ...]:
        """In the order of the files. Parameters are known once the callers are: what changes nothing ends the rounds."""
        known = -1
        while known != (known := sum(len(paths or ()) + 1 for paths in self._parameters.values())):
            for module in self._program.modules:
                for rule in module.rules:
                    self._rule(module, rule)
        return tuple(sorted(self._found.values(), key=lambda one: (one.file, one.row, one.col)))

    def _rule(self, module: Module, rule: Rule) -> None:
        scope = _Scope()
        for place, name in enumerate(rule.parameters):
            scope.names[name] = tuple(sorted(self._parameters.get((rule.path, place)) or ()))
        for branch in rule.branches:
            inner = scope.inner()
            for statement in branch.statements:
                self._statement(module, statement, inner)
            for one in (rule.key, branch.value):
                if one is not None:
                    self._words(module, one.tokens, inner)

    def _statement(self, module: Module, statement: Statement, scope: _Scope) -> None:
        every = nested_every(statement, module.source)
        if every is not None:
            at = next(place for place, one in enumerate(statement.tokens) if one.text == "in")
            end = next((place for place, one in enumerate(statement.tokens) if every.statements and
                        one.start == every.statements[0].tokens[0].start), len(statement.tokens))  # fmt: skip
            domain = statement.tokens[at + 1 : end - 1]
            self._words(module, domain, scope)
            inner = scope.inner()
            names = [one.text for one in statement.tokens[1:at] if one.text != ","]
            self._bind(module, names, domain, inner)
            self._body(module, every, inner)
            return
        self._words(module, statement.tokens, scope)
        if statement.tokens[0].text == "some":
            at = next(place for place, one in enumerate(statement.tokens) if one.text == "in")
            self._bind(module, list(statement.binds), statement.tokens[at + 1 :], scope)
        elif statement.binds:
            scope.names[statement.binds[0]] = self._stands_for(module, statement.value, scope)

    def _bind(self, module: Module, names: list[str], domain: Tokens, scope: _Scope) -> None:
        for name in names[:-1]:
            scope.names[name] = ()
        if names:
            paths = self._stands_for(module, domain, scope)
            scope.names[names[-1]] = tuple((*path, ANY) for path in paths)

    def _body(self, module: Module, nested: Nested, scope: _Scope) -> None:
        for statement in nested.statements:
            self._statement(module, statement, scope)
        self._words(module, nested.head, scope)

    def _words(self, module: Module, tokens: Tokens, scope: _Scope) -> None:
        at = 0
        while at < len(tokens):
            one = tokens[at]
            if one.kind == "mark" and one.text in ("[", "{"):
                end = group(tokens, at)
                inner = comprehension(tokens[at + 1 : end - 1], module.source)
                if inner is not None:
                    self._body(module, inner, scope.inner())
                    at = end
                    continue
            at += 1
        for ref in references(tokens):
            if not _inside_comprehension(tokens, ref, module):
                self._reference(module, tokens, ref, scope)

    def _reference(self, module: Module, tokens: Tokens, ref: Ref, scope: _Scope) -> None:
        paths = self._paths_of(module, ref, scope)
        if paths:
            token = tokens[ref.start]
            self._found[module.file, token.row, token.col] = Named(module.file, token.row, token.col, ref.text, paths)
        found = self._program.resolve(module, ref) if ref.call else None
        if found is not None:
            for place, argument in enumerate(split(tokens[ref.end + 1 : group(tokens, ref.end) - 1])):
                given = self._stands_for(module, argument, scope)
                before = self._parameters.get((found[0], place), set())
                # One call with something that is no path, and nothing is known of the parameter.
                self._parameters[found[0], place] = (before | set(given)) if given and before is not None else None

    def _stands_for(self, module: Module, tokens: Tokens, scope: _Scope) -> tuple[Path, ...]:
        if not tokens or tokens[0].kind != "name":
            return ()
        ref = reference(tokens, 0)
        return self._paths_of(module, ref, scope) if ref.end == len(tokens) and not ref.call else ()

    def _paths_of(self, module: Module, ref: Ref, scope: _Scope) -> tuple[Path, ...]:
        steps = tuple(one if isinstance(one, str) else _fixed(one) for one in ref.steps)
        if ref.root in scope.names:
            return tuple(path + steps for path in scope.names[ref.root])
        if ref.root in module.imports:
            return ((("data", *module.imports[ref.root].split("."), *steps)),)
        if ref.root in ("input", "data"):
            return ((ref.root, *steps),)
        return ()


def _fixed(step: Tokens) -> str:
    return step[0].text if len(step) == 1 and step[0].kind == "number" else ANY


def _inside_comprehension(tokens: Tokens, ref: Ref, module: Module) -> bool:
    opened = [at for at, one in enumerate(tokens[: ref.start]) if one.kind == "mark" and one.text in ("[", "{")]
    return any(
        group(tokens, at) > ref.start and comprehension(tokens[at + 1 : group(tokens, at) - 1], module.source) is not None
        for at in opened
    )  # fmt: skip


def unknown_input(named: Iterable[Named]) -> Iterator[tuple[Named, str, str]]:
    """Paths below `input` that the input document does not have: the path, and the nearest that it has."""
    yield from _unknown("input", input_tree(), named)


def unknown_data(program: Program, data: bytes, named: Iterable[Named]) -> Iterator[tuple[Named, str, str]]:
    """Paths below `data` at which there is neither a rule, nor a package, nor data."""
    tree = data_tree(msgspec.json.decode(data))
    whole: dict[str, Tree] = dict(tree) if tree else {}
    for path in [*program.rules, *program.packages]:
        _graft(whole, path.split("."), rule=path in program.rules)
    yield from _unknown("data", whole, named)


def _graft(tree: dict[str, Tree], path: list[str], *, rule: bool) -> None:
    here = tree
    for name in path[:-1]:
        below = here.get(name)
        here[name] = below = dict(below) if below else {}
        here = below
    if rule or path[-1] not in here:
        here[path[-1]] = {}


def _unknown(root: str, tree: Tree, named: Iterable[Named]) -> Iterator[tuple[Named, str, str]]:
    for one in named:
        wrong: dict[Path, str] = defaultdict(str)
        for path in one.paths:
            left = missing(tree, path[1:]) if path[0] == root else None
            if path[0] != root or left is None:
                break
            depth, names = left
            wrong[path[: depth + 2]] = nearest(path, depth + 1, names)
        else:
            for path, close in wrong.items():
                yield one, ".".join(path), close
