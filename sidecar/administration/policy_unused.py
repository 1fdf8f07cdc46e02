"""What a policy declares and never uses: imports, names assigned in a body, parameters. As `opa check --strict`."""

from collections.abc import Iterator

from sidecar.administration.policy_source import Module, Nested, Rule, Statement, comprehension, nested_every
from sidecar.administration.policy_words import Tokens, group, references, tokens_of

Unused = tuple[int, int, str, str]


def unused(module: Module) -> Iterator[Unused]:
    """Row, column, what is not used, and what to do."""
    used = {ref.root for rule in module.rules for tokens in rule.words() for ref in references(tokens)}
    for alias in module.imports:
        if alias not in used:
            row, col = _import(module, alias)
            yield row, col, f"import `{alias}` is not used", "Take it away"
    for rule in module.rules:
        yield from _parameters(rule)
        for branch in rule.branches:
            rest = [one.tokens for one in (rule.key, branch.value) if one is not None]
            yield from _body(branch.statements, rest, module)
            for tokens in rest:
                yield from _inner(tokens, module)


def _parameters(rule: Rule) -> Iterator[Unused]:
    used = {ref.root for tokens in rule.words() for ref in references(tokens)}
    for name in rule.parameters:
        if name[0].isalpha() and name not in used | {"true", "false", "null"}:
            yield rule.row, 1, f"parameter `{name}` of {rule.name} is not used", "Write `_` in its place"


def _body(statements: tuple[Statement, ...], rest: list[Tokens], module: Module) -> Iterator[Unused]:
    for statement in statements:
        declares = statement.binds
        if declares:
            later = [one.tokens for one in statements if one is not statement] + rest
            used = {ref.root for tokens in later for ref in references(tokens)}
            for name in declares:
                if name not in used and (statement.tokens[0].text != "some" or name == declares[-1]):
                    token = next(one for one in statement.tokens if one.text == name)
                    yield token.row, token.col, f"`{name}` is assigned and not used", "Take it away, or write `_`"
        every = nested_every(statement, module.source)
        if every is not None:
            yield from _nested(every, module)
        else:
            yield from _inner(statement.tokens, module)


def _nested(nested: Nested, module: Module) -> Iterator[Unused]:
    yield from _body(nested.statements, [nested.head] if nested.head else [], module)
    yield from _inner(nested.head, module)


def _inner(tokens: Tokens, module: Module) -> Iterator[Unused]:
    at = 0
    while at < len(tokens):
        if tokens[at].kind == "mark" and tokens[at].text in ("[", "{"):
            end = group(tokens, at)
            found = comprehension(tokens[at + 1 : end - 1], module.source)
            if found is not None:
                yield from _nested(found, module)
                at = end
                continue
        at += 1


def _import(module: Module, alias: str) -> tuple[int, int]:
    tokens = tokens_of(module.source)
    starts = [one for one in tokens if one.text == "import"]
    for one in starts:
        line = [other.text for other in tokens if other.row == one.row]
        if line[-1] == alias:
            return one.row, one.col
    return 0, 0
