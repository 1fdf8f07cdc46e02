"""The closed lists a policy must keep to: reason codes of denials, obligations and their fields, and names of rules.

What can get into a denial or an obligation is found by following the decision's own branches: the rules that a branch
which denies refers to, and theirs. A permit may use any word for its reason.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from msgspec import inspect

from sidecar.administration.policy_probes import Program
from sidecar.administration.policy_source import Branch, Rule
from sidecar.administration.policy_words import Steps, Token, Tokens, group, references, table, text_of
from sidecar.decision.bundle import ENTRYPOINT
from sidecar.vocabulary import ANNOTATED_CATEGORIES, KnownObligation, ReasonCode

_DECISION: Final = ENTRYPOINT.removeprefix("data.")


@dataclass(frozen=True, slots=True)
class Odd:
    """Something that is on no list: where, what, and what it may have been meant for."""

    file: str
    row: int
    col: int
    what: str
    near: str


def tables(tokens: Tokens) -> Iterator[dict[str, tuple[Token, Tokens]]]:
    """Every object literal with text keys among the words, those within others included."""
    for at, one in enumerate(tokens):
        if one.kind == "mark" and one.text == "{":
            found = table(tokens[at : group(tokens, at)])
            if found:
                yield found


_Place = tuple[Rule, Branch, Tokens, Steps]


class Reach:
    """What can get into the decision's reasons and obligations: the words that their values are made of.

    Values are followed, conditions are not: a name to what it was assigned, a rule to what it gives, a step into a
    table to its entry.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._reasons: list[_Place] = []
        self._obligations: list[_Place] = []
        for rule in program.rules.get(_DECISION, []):
            for branch in rule.branches:
                value = branch.value.tokens if branch.value is not None else ()
                entries = table(value)
                effect = entries.get("effect")
                if effect is None or effect[1][0].text != '"permit"':  # what is not written out as one may be a denial
                    self._reasons.append((rule, branch, entries["reasons"][1] if "reasons" in entries else value, ()))
                self._obligations.append(
                    (rule, branch, entries["obligations"][1] if "obligations" in entries else value, ())
                )

    def denying(self) -> tuple[tuple[str, Tokens], ...]:
        """File and words of all that the reasons of a denial can be made of."""
        return self._follow(self._reasons)

    def obliging(self) -> tuple[tuple[str, Tokens], ...]:
        """The same of obligations."""
        return self._follow(self._obligations)

    def _follow(self, start: list[_Place]) -> tuple[tuple[str, Tokens], ...]:
        seen: set[object] = set()
        todo = list(start)
        found = []
        while todo:
            rule, branch, tokens, steps = todo.pop()
            first = steps[0] if steps else None
            entries = table(tokens)
            if isinstance(first, str) and first in entries:
                tokens, steps = entries[first][1], steps[1:]
            mark = (rule.file, tokens[0].start if tokens else 0, tuple(map(str, steps)))
            if mark in seen:
                continue
            seen.add(mark)
            if not steps or entries:
                found.append((rule.file, tokens))
            todo += self._behind(rule, branch, tokens, steps)
        return tuple(found)

    def _behind(self, rule: Rule, branch: Branch, tokens: Tokens, steps: Steps) -> Iterator[_Place]:
        bound = {name: one for one in branch.statements for name in one.binds}
        for ref in references(tokens):
            end = group(tokens, ref.end) if ref.call else ref.end
            whole = steps if ref.start == 0 and end == len(tokens) else ()
            if ref.root in bound:
                # What is taken out of a collection, or given to a function, may be any part of it.
                taken = ref.steps + whole if bound[ref.root].value is not bound[ref.root].tokens else ()
                yield rule, branch, bound[ref.root].value, taken
                continue
            target = self._program.resolve(self._program.of[rule.file], ref)
            for one in self._program.rules[target[0]] if target is not None else ():
                for other in one.branches:
                    for part in (one.key, other.value):
                        if part is not None and target is not None:
                            yield one, other, part.tokens, target[1] + whole


def unknown_codes(reach: Reach) -> Iterator[Odd]:
    """`"code": "…"` that a denial can carry and that is not on the closed list."""
    for file, tokens in reach.denying():
        for entries in tables(tokens):
            code = _text(entries, "code")
            if code is not None and text_of(code) not in set(ReasonCode):
                yield _odd(file, code, [str(one) for one in ReasonCode])


def unknown_obligations(reach: Reach) -> Iterator[Odd]:
    """`"id": "…"` of an obligation that nobody fulfils, and fields or values that it does not have."""
    for file, tokens in reach.obliging():
        for entries in tables(tokens):
            name = _text(entries, "id")
            if name is None:
                continue
            fields = obligations().get(text_of(name))
            if fields is None:
                yield _odd(file, name, sorted(obligations()))
                continue
            for key, (at, value) in entries.items():
                if key != "id" and key not in fields:
                    yield Odd(file, at.row, at.col, f"{text_of(name)}.{key}", near_word(key, sorted(fields)))
                yield from _values(file, key, fields.get(key, ()), value)


def _values(file: str, key: str, allowed: tuple[str, ...], value: Tokens) -> Iterator[Odd]:
    """Texts written out where only some words are known."""
    for token in value if allowed else ():
        if token.kind == "string" and text_of(token) not in allowed:
            yield Odd(file, token.row, token.col, f"{key}: {text_of(token)}", near_word(text_of(token), list(allowed)))


def obligations() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Each obligation with its fields; of a field, the words it may hold, or none where any will do."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    union = inspect.type_info(KnownObligation)
    for kind in union.types if isinstance(union, inspect.UnionType) else ():
        if isinstance(kind, inspect.StructType):
            fields = {}
            for field in kind.fields:
                literal = field.type
                words = tuple(map(str, literal.values)) if isinstance(literal, inspect.LiteralType) else ()
                fields[field.encode_name] = ANNOTATED_CATEGORIES if field.encode_name == "categories" else words
            found[str(kind.tag)] = fields
    return found


def _text(entries: Mapping[str, tuple[Token, Tokens]], key: str) -> Token | None:
    found = entries.get(key)
    return found[1][0] if found is not None and len(found[1]) == 1 and found[1][0].kind == "string" else None


def _odd(file: str, token: Token, known: list[str]) -> Odd:
    return Odd(file, token.row, token.col, text_of(token), near_word(text_of(token), known))


def near_word(word: str, known: list[str]) -> str:
    """The known word that is closest; empty when none is like it."""
    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.5)), "")


def asserted(program: Program) -> tuple[dict[str, tuple[str, int, int]], frozenset[str]]:
    """The names of rules written out in the policy, where each stands first; and packages used as the start of one."""
    names: dict[str, tuple[str, int, int]] = {}
    starts = set()
    for module in program.modules:
        for rule in module.rules:
            for tokens in rule.words():
                own = {at.start for entries in tables(tokens) for at in _alone(entries)}
                for token in tokens:
                    if token.kind == "string" and token.start not in own:
                        word = text_of(token)
                        if word in program.packages:
                            starts.add(word)
                        elif _is_name(program, word):
                            names.setdefault(word, (module.file, token.row, token.col))
    return names, frozenset(starts)


def _alone(entries: Mapping[str, tuple[Token, Tokens]]) -> Iterator[Token]:
    """The name in a reason that is written out whole: it needs no table of reasons."""
    rule = _text(entries, "rule")
    if rule is not None and "code" in entries:
        yield rule


def _is_name(program: Program, word: str) -> bool:
    parts = word.split(".")
    small = all(part.replace("_", "").isalnum() and part == part.lower() for part in parts)
    return small and len(parts) > 1 and any(".".join(parts[:end]) in program.packages for end in range(1, len(parts)))
