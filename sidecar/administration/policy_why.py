"""Why a condition held or did not: its own values, and what stands behind each of them.

A *cause* is a line of the policy. Behind a name stands what it was assigned, behind a parameter what the caller gave,
behind a rule its branches: the first condition of each that failed, or what the one that answered is made of. A step
into a table (`call.exposed`) leads to its entry. Every line is told once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sidecar.administration.policy_source import Statement
from sidecar.administration.policy_trace import (
    Found,
    Instance,
    Outcome,
    Trace,
    Undefined,
)
from sidecar.administration.policy_words import Ref, Steps, Token, Tokens, group, references, spelled, table
from sidecar.decision.strict_json import Json

_DEEPEST: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """What stands for a value in the policy (`input.a.b`, a name, a call), and the value, unless it is undefined."""

    text: str
    value: Json = None
    undefined: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A line of the policy: whether what it says holds, its values, and the causes behind them."""

    file: str
    row: int
    col: int
    text: str
    holds: bool
    values: tuple[Value, ...] = ()
    causes: tuple["Cause", ...] = ()


def shown(text: str, value: Found) -> Value:
    """A value for telling."""
    return Value(text=text, undefined=True) if isinstance(value, Undefined) else Value(text=text, value=value)


class Why:
    """Tells causes from one trace. One object tells each line once."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._told: set[tuple[object, ...]] = set()
        self.instances: dict[Instance, None] = {}

    def condition(self, outcome: Outcome, statement: Statement, *, holds: bool, depth: int = 0) -> Cause:
        """A condition of an outcome's branch."""
        return self.words(outcome, statement.tokens, holds=holds, depth=depth)

    def words(
        self, outcome: Outcome, tokens: Tokens, *, holds: bool, depth: int = 0, more: tuple[Value, ...] = ()
    ) -> Cause:
        """Any words of an outcome's branch, as a cause."""
        first = tokens[0]
        return self._line(outcome, first, spelled(tokens), holds, more + self.values(outcome, tokens),
                          tuple(self._behind(outcome, tokens, depth + 1)))  # fmt: skip

    def _line(
        self, outcome: Outcome, at: Token, text: str, holds: bool, values: tuple[Value, ...], causes: tuple[Cause, ...]
    ) -> Cause:
        return Cause(file=outcome.rule.file, row=at.row, col=at.col, text=text, holds=holds, values=values,
                     causes=causes)  # fmt: skip

    def values(self, outcome: Outcome, tokens: Tokens) -> tuple[Value, ...]:
        """The values of what the words name: paths of the input, names, data, rules and calls."""
        found: dict[str, Value] = {}
        inner, passed = _declared(tokens), self._passed(outcome, tokens)
        for ref in references(tokens):
            if ref.root not in inner and ref.start not in passed and self._trace.knows(outcome, ref):
                found.setdefault(ref.text, shown(ref.text, self._trace.look(outcome, ref)))
        for ref, site, instances in self._trace.calls(outcome, tokens):
            if len(instances) == 1 and not site.nested:
                text = spelled(tokens[ref.start : group(tokens, ref.end)])
                found.setdefault(text, shown(text, self._trace.value(instances[0])))
        return tuple(found.values())

    def _passed(self, outcome: Outcome, tokens: Tokens) -> frozenset[int]:
        """Where names are given to a function as they are: what it makes of them is told there."""
        at = {token.start: place for place, token in enumerate(tokens)}
        return frozenset(
            at[argument[0].start]
            for _, site, _ in self._trace.calls(outcome, tokens) for argument in site.arguments
            if _is_reference(argument)
        )  # fmt: skip

    def _behind(self, outcome: Outcome, tokens: Tokens, depth: int) -> Iterator[Cause]:
        if depth > _DEEPEST:
            return
        inner, passed = _declared(tokens), self._passed(outcome, tokens)
        for ref in references(tokens):
            if ref.root in outcome.locals and ref.root not in inner and ref.start not in passed:
                yield from self._local(outcome, ref.root, ref.steps, depth)
        for ref, instance, steps in self._trace.rules(outcome, tokens):
            if ref.start not in passed:
                yield from self.instance(instance, steps, depth)
        for _, _, instances in self._trace.calls(outcome, tokens):
            for instance in instances:
                yield from self.instance(instance, (), depth)

    def _local(self, outcome: Outcome, name: str, steps: Steps, depth: int) -> Iterator[Cause]:
        branch = outcome.rule.branches[outcome.branch]
        for statement in branch.statements[: outcome.held]:
            if name in statement.binds:
                yield from self._assigned(outcome, statement, name, steps, depth)
                return
        if name in outcome.rule.parameters:
            caller = self._trace.callers.get((outcome.rule.path, outcome.frame))
            if caller is not None:
                argument = caller[1].arguments[outcome.rule.parameters.index(name)]
                yield from self._value(caller[0], argument, steps, depth)

    def _assigned(self, outcome: Outcome, statement: Statement, name: str, steps: Steps, depth: int) -> Iterator[Cause]:
        entries = table(statement.value)
        if steps and (entries or _is_reference(statement.value)):
            yield from self._value(outcome, statement.value, steps, depth)
        elif self._once(outcome, statement.row, name):
            given = (shown(name, outcome.locals[name]),)
            cause = self.words(outcome, statement.value, holds=True, depth=depth)
            yield self._line(outcome, statement.tokens[0], statement.text, holds=True, values=given + cause.values,
                             causes=cause.causes)  # fmt: skip

    def _value(self, outcome: Outcome, tokens: Tokens, steps: Steps, depth: int) -> Iterator[Cause]:
        """What stands behind a step into what these words give."""
        entries = table(tokens)
        if steps and isinstance(steps[0], str) and steps[0] in entries:
            yield from self._entry(outcome, *entries[steps[0]], depth)
            return
        if _is_reference(tokens):
            (ref, *_) = references(tokens)
            if ref.root in outcome.locals:
                yield from self._local(outcome, ref.root, ref.steps + steps, depth)
                return
            for _, instance, rest in self._trace.rules(outcome, tokens):
                yield from self.instance(instance, rest + steps, depth)
            return
        yield from self._behind(outcome, tokens, depth)

    def _entry(self, outcome: Outcome, key: Token, tokens: Tokens, depth: int) -> Iterator[Cause]:
        if _is_reference(tokens):
            yield from self._value(outcome, tokens, (), depth)
        elif self._once(outcome, key.row, key.text):
            yield self.words(outcome, tokens, holds=True, depth=depth)

    def instance(self, instance: Instance, steps: Steps, depth: int) -> Iterator[Cause]:
        """What a rule gave, or a step into it, and why."""
        self.instances.setdefault(instance)
        outcomes = self._trace.outcomes(instance)
        fired = next((one for one in outcomes if one.state == "fired"), None)
        value = None if fired is None else fired.rule.branches[fired.branch].value
        if steps and fired is not None and value is not None:
            yield from self._value(fired, value.tokens, steps, depth)
            return
        if not self._once_instance(instance) or not outcomes:
            return
        rule = (fired or outcomes[0]).rule
        name = rule.path + (f"({', '.join(rule.parameters)})" if rule.parameters else "")
        yield Cause(
            file=rule.file, row=(fired or outcomes[0]).row, col=1, text=name, holds=fired is not None,
            values=(shown(name, self._trace.value(instance)),),
            causes=tuple(line for one in outcomes for line in self.branch(one, depth + 1)),
        )  # fmt: skip

    def branch(self, outcome: Outcome, depth: int = 0) -> Iterator[Cause]:
        """The first condition of a branch that failed; of the branch that answered, what held and what it gives."""
        branch = outcome.rule.branches[outcome.branch]
        if outcome.state == "failed" and outcome.condition is not None:
            yield self.condition(outcome, outcome.condition, holds=False, depth=depth)
        elif outcome.state == "failed" and branch.value is not None:
            yield self.words(outcome, branch.value.tokens, holds=False, depth=depth)
        elif outcome.state == "fired":
            for statement in branch.statements:
                if not statement.binds:
                    yield self.words(outcome, statement.tokens, holds=True, depth=depth)
            if branch.value is not None and any(True for _ in references(branch.value.tokens)):
                yield from self._behind(outcome, branch.value.tokens, depth)

    def _once(self, outcome: Outcome, row: int, name: str) -> bool:
        mark = (outcome.number, outcome.branch, outcome.frame, row, name)
        new = mark not in self._told
        self._told.add(mark)
        return new

    def _once_instance(self, instance: Instance) -> bool:
        new = instance not in self._told
        self._told.add(instance)
        return new


def _is_reference(tokens: Tokens) -> bool:
    found: Ref | None = next(iter(references(tokens)), None)
    return found is not None and found.start == 0 and found.end == len(tokens) and not found.call


def _declared(tokens: Tokens) -> frozenset[str]:
    """Names that inner bodies of these words declare: they mean nothing outside."""
    found = set()
    for at, one in enumerate(tokens):
        if one.text in ("some", "every"):
            for later in tokens[at + 1 :]:
                if later.text == "in":
                    break
                found.add(later.text)
        elif one.text == ":=" and at > 1:
            found.add(tokens[at - 1].text)
    return frozenset(found)
