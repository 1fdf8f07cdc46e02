"""Rego as the loader accepts it, taken apart into rules, branches and statements, each with its place and its text.

Not a parser of Rego: it reads sources that the engine has loaded, and relies on what the loader refuses (patterns,
dotted rule names, default functions, several bodies). A *branch* is a body with the value it gives: the rule's own, or
that of an `else`. Grammar: openpolicyagent.org, "Policy Reference".
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from sidecar.administration.policy_words import (
    CLOSING,
    HANGS,
    JOINS,
    OPENING,
    Token,
    Tokens,
    last_group,
    spelled,
    split,
    tokens_of,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Statement:
    """One condition or assignment of a body."""

    tokens: Tokens
    text: str
    """As it stands in the source, comments left out, spread over one line."""
    source: str

    @property
    def row(self) -> int:
        """Where it begins."""
        return self.tokens[0].row

    @property
    def binds(self) -> tuple[str, ...]:
        """The names that it declares for the statements after it."""
        words = [one.text for one in self.tokens]
        if words[0] == "some":
            return tuple(word for word in words[1 : words.index("in")] if word not in (",", "_"))
        return (words[0],) if len(words) > 1 and words[1] == ":=" and words[0] != "_" else ()

    @property
    def value(self) -> Tokens:
        """What an assignment assigns; of any other statement, all of it."""
        return self.tokens[2:] if len(self.tokens) > 2 and self.tokens[1].text == ":=" else self.tokens


@dataclass(frozen=True, slots=True)
class Branch:
    """A body and the value it gives. No value written is true."""

    row: int
    statements: tuple[Statement, ...]
    value: Statement | None
    is_else: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One definition of a rule. `parameters` are names or literals; `key` is that of a set or an object."""

    file: str
    package: str
    name: str
    kind: str
    row: int
    end_row: int
    parameters: tuple[str, ...]
    key: Statement | None
    branches: tuple[Branch, ...]
    head: str

    @property
    def path(self) -> str:
        """Its full name, without `data.`."""
        return f"{self.package}.{self.name}"

    def words(self) -> Iterator[Tokens]:
        """The words of all its statements, keys and values."""
        for branch in self.branches:
            yield from (one.tokens for one in (*branch.statements, self.key, branch.value) if one is not None)


@dataclass(slots=True)
class Module:
    """A source file."""

    file: str
    source: str
    package: str = ""
    imports: dict[str, str] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)


def read(file: str, source: str) -> Module:
    """Take a module apart."""
    return _Reader(tokens_of(source), source).module(file)


class _Reader:
    def __init__(self, tokens: Tokens, source: str) -> None:
        self._tokens = tokens
        self._source = source
        self._module = Module("", source)
        self._at = 0

    def module(self, file: str) -> Module:
        self._module.file = file
        while self._at < len(self._tokens):
            word = self._word()
            if word == "package":
                self._module.package = self._dotted()
            elif word == "import":
                self._import()
            else:
                rule = self._rule()
                if rule is not None:
                    self._module.rules.append(rule)
        return self._module

    def statements(self) -> Iterator[Statement]:
        while self._at < len(self._tokens):
            if self._word() == ";":
                self._at += 1
            else:
                yield self._statement(self._span(frozenset()))

    def _word(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._tokens[at].text if at < len(self._tokens) else ""

    def _dotted(self) -> str:
        return "".join(one.text for one in self._span(frozenset({"as"}))[1:])

    def _import(self) -> None:
        path = self._dotted()
        alias = path.rsplit(".", 1)[-1]
        if self._word() == "as":
            alias = self._word(1)
            self._at += 2
        if path.startswith("data."):
            self._module.imports[alias] = path.removeprefix("data.")

    def _span(self, stops: frozenset[str]) -> Tokens:
        """Words up to a stop outside of brackets, or to where the statement ends. At least one."""
        start, depth = self._at, 0
        while self._at < len(self._tokens):
            one = self._tokens[self._at]
            if depth == 0 and self._at > start and (one.text in stops or one.text == ";" or self._ends_before(one)):
                break
            if one.kind == "mark":
                depth += (one.text in OPENING) - (one.text in CLOSING)
                if depth < 0:
                    break
            self._at += 1
        return self._tokens[start : self._at]

    def _ends_before(self, one: Token) -> bool:
        before = self._tokens[self._at - 1]
        last = before.row + before.text.count("\n")
        return one.row > last and before.text not in HANGS and one.text not in JOINS

    def _statement(self, tokens: Tokens) -> Statement:
        source = self._source[tokens[0].start : tokens[-1].end]
        return Statement(tokens, spelled(tokens), source)

    def _rule(self) -> Rule | None:
        first = self._at
        default = self._word() == "default"
        self._at += default
        name = self._word()
        row = self._tokens[self._at].row
        self._at += 1
        parameters: tuple[str, ...] = ()
        key: Statement | None = None
        kind = "default" if default else "complete"
        if self._word() == "(":
            parameters, kind = tuple(spelled(one) for one in split(self._bracket())), "function"
        elif self._word() == "[":
            key, kind = self._statement(self._bracket()), "object"
        elif self._word() == "contains":
            self._at += 1
            key, kind = self._statement(self._span(frozenset({"if"}))), "set"
        head = spelled(self._tokens[first : self._at])
        branches = [self._branch(row, is_else=False)]
        while self._word() == "else":
            at = self._tokens[self._at].row
            self._at += 1
            branches.append(self._branch(at, is_else=True))
        if self._at == first + 1 + default and not default:
            return None
        last = self._tokens[self._at - 1]
        return Rule(
            file=self._module.file, package=self._module.package, name=name, kind=kind, row=row, parameters=parameters,
            end_row=last.row + last.text.count("\n"), key=key, branches=tuple(branches), head=head,
        )  # fmt: skip

    def _bracket(self) -> Tokens:
        """What stands between the bracket here and its match."""
        start, depth = self._at, 0
        while self._at < len(self._tokens):
            text = self._tokens[self._at].text if self._tokens[self._at].kind == "mark" else ""
            depth += (text in OPENING and text != "") - (text in CLOSING and text != "")
            self._at += 1
            if depth == 0:
                break
        return self._tokens[start + 1 : self._at - 1]

    def _branch(self, row: int, *, is_else: bool) -> Branch:
        value: Statement | None = None
        if self._word() in (":=", "="):
            self._at += 1
            value = self._statement(self._span(frozenset({"if", "else"})))
        statements: tuple[Statement, ...] = ()
        if self._word() == "if":
            self._at += 1
            if self._word() == "{":
                statements = body(self._bracket(), self._source)
            else:
                statements = (self._statement(self._span(frozenset({"else"}))),)
        return Branch(row, statements, value, is_else)


def body(tokens: Tokens, source: str) -> tuple[Statement, ...]:
    """The statements of a body whose braces are gone."""
    return tuple(_Reader(tokens, source).statements())


@dataclass(frozen=True, slots=True)
class Nested:
    """A body within a statement: of a comprehension, whose `head` it gives, or of `every`, which `opens` with `some`."""

    opens: str
    statements: tuple[Statement, ...]
    head: Tokens


def nested_every(statement: Statement, source: str) -> Nested | None:
    """The body of an `every` statement, with the same elements as `some … in`."""
    tokens = statement.tokens
    if tokens[0].text != "every":
        return None
    at = last_group(tokens)
    opens = "some " + source[tokens[1].start : tokens[at - 1].end]
    return Nested(opens, body(tokens[at + 1 : -1], source), ())


def comprehension(inner: Tokens, source: str) -> Nested | None:
    """What stands in brackets as a comprehension, where it is one."""
    depth = 0
    for at, one in enumerate(inner):
        if one.kind != "mark":
            continue
        depth += (one.text in OPENING) - (one.text in CLOSING)
        if depth == 0 and one.text == ",":
            return None
        if depth == 0 and one.text == "|":
            return Nested("", body(inner[at + 1 :], source), inner[:at])
    return None
