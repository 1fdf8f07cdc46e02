"""Why a policy decided as it did: the rules that fired, and what failed first in those that could have turned it.

The decision is taken as the sidecar takes it; then the same engine answers the probes of `policy_probes` about the
same document. A *name* is what stands under `rule` in a reason. The policy asserts it at one place: as the key of a
table of checks whose value is not true, or as a text in what a rule gives. `Explanation.named` finds those places from
the rules that fired, not from the reasons, and so can be held against them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from sidecar import _native
from sidecar.administration.policy_probes import ENTRYPOINT, Program, instrument
from sidecar.administration.policy_trace import NO_ARGUMENTS, Instance, Outcome, Trace, Undefined
from sidecar.administration.policy_why import Cause, Why
from sidecar.administration.policy_words import Token, Tokens, table, text_of
from sidecar.decision.bundle import ENTRYPOINT as DECISION
from sidecar.decision.bundle import Bundle
from sidecar.decision.guard import nullable_leaves
from sidecar.decision.strict_json import Json, JsonObject
from sidecar.errors import ConfigurationError
from sidecar.vocabulary import AccessRequest, canonical

_SECONDS: Final = 30.0
_NAME: Final = re.compile(r"[a-z_][a-z0-9_.]*\.[a-z_][a-z0-9_]*")
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A rule's name that the policy asserted, where, and why. `told`: it is among the reasons of the decision."""

    name: str
    told: bool
    cause: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Branched:
    """How a branch of a rule went: `state` as in `policy_trace`, the lines that say so."""

    row: int
    state: str
    lines: tuple[Cause, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruled:
    """A rule that was evaluated, with its arguments. `value` is None and `undefined` true where it had none."""

    package: str
    name: str
    file: str
    row: int
    arguments: Mapping[str, Json]
    fired: bool
    value: Json
    undefined: bool
    matters: bool
    branches: tuple[Branched, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """`decision` is the document as the policy gave it; where it gave none, `error` says why and nothing else is told."""

    revision: str
    decision: JsonObject | None
    error: str
    named: tuple[Named, ...]
    rules: tuple[Ruled, ...]


class Explainer:
    """One bundle, ready to explain its decisions. ConfigurationError when it does not load."""

    def __init__(self, bundle: Bundle, where: str) -> None:
        self._bundle, self._where = bundle, where
        self._data: JsonObject = _decode(bundle.data)
        try:
            self._engine = _native.Engine(bundle.modules, bundle.data, DECISION, _SECONDS, nullable_leaves())
            self._probes = instrument(bundle.modules)
            self._asked = _native.Engine(self._probes.modules, bundle.data, ENTRYPOINT, _SECONDS)
        except _native.LoadError as error:
            raise ConfigurationError(
                f"the policies do not load: {str(error).splitlines()[0]}", where=where,
                fix="Run `sidecar policy check` and mend what it names",
            ) from None  # fmt: skip

    def explain(self, request: AccessRequest) -> Explanation:
        """Decide, and say why."""
        document = canonical(request)
        try:
            decision: JsonObject = _decode(self._engine.evaluate_json(document))
        except _native.EvaluationError as error:
            return self._without(str(error))
        try:
            answers = _decode(self._asked.evaluate_json(document))
        except _native.EvaluationError as error:
            raise ConfigurationError(
                f"the policy cannot be asked why: {error}", where=self._where,
                fix="A rule that this call does not need fails on it: guard its condition, so that it is false instead",
            ) from None  # fmt: skip
        trace = Trace(self._probes, answers, _decode(document), self._data, DECISION.removeprefix("data."))
        return _told(trace, self._bundle.revision, decision)

    def _without(self, error: str) -> Explanation:
        return Explanation(revision=self._bundle.revision, decision=None, error=error, named=(), rules=())


def _told(trace: Trace, revision: str, decision: JsonObject) -> Explanation:
    reasons = decision.get("reasons")
    rules = [one.get("rule") for one in reasons if isinstance(one, dict)] if isinstance(reasons, list) else []
    matters: dict[Instance, None] = {(DECISION.removeprefix("data."), NO_ARGUMENTS): None}
    named = []
    for name, outcome, at, tokens in _Names(trace).all():
        why = Why(trace)
        cause = _cause(trace, why, outcome, tokens, check=text_of(at) == name and tokens[0] is not at)
        named.append(Named(name=name, told=name in rules, cause=_placed(cause, at, name)))
        matters.setdefault((outcome.rule.path, outcome.frame))
        matters.update(why.instances)
    order = {rule: place for place, rule in enumerate(rules)}
    named.sort(key=lambda one: (order.get(one.name, len(order)), one.name))
    told = [_ruled(trace, instance, matters=instance in matters) for instance in trace.reached]
    told.sort(key=lambda one: (one.package, one.file, one.row))
    return Explanation(revision=revision, decision=decision, error="", named=tuple(named), rules=tuple(told))


def _cause(trace: Trace, why: Why, outcome: Outcome, tokens: Tokens, *, check: bool) -> Cause:
    """Of a check, the expression that is not true. Of a name written out, how the branches of its rule went."""
    if check:
        return why.words(outcome, tokens, holds=False)
    cause = why.words(outcome, tokens, holds=True)
    branches = (one for other in trace.outcomes((outcome.rule.path, outcome.frame)) for one in why.branch(other))
    return replace(cause, causes=(*branches, *cause.causes))


def _placed(cause: Cause, at: Token, name: str) -> Cause:
    """The cause of a name, at the place where the name stands."""
    return Cause(file=cause.file, row=at.row, col=at.col, text=cause.text if name in cause.text else f'"{name}": {cause.text}',
                 holds=cause.holds, values=cause.values, causes=cause.causes)  # fmt: skip


def _ruled(trace: Trace, instance: Instance, *, matters: bool) -> Ruled:
    outcomes = trace.outcomes(instance)
    value = trace.value(instance)
    shown = [one for one in outcomes if one.rule.kind != "default"] or list(outcomes)
    fitting = next((one.rule for one in shown if one.state == "fired"), None) or next(
        (one.rule for one in shown if one.state not in ("other", "past")), shown[0].rule
    )
    frame: list[Json] = _decode(instance[1].encode())
    return Ruled(
        package=fitting.package, name=fitting.name, file=fitting.file, row=fitting.row,
        arguments=dict(zip(fitting.parameters, frame, strict=False)), fired=any(one.state == "fired" for one in outcomes),
        value=None if isinstance(value, Undefined) else value, undefined=isinstance(value, Undefined), matters=matters,
        branches=tuple(_branched(trace, one) for one in shown if one.state != "other"),
    )  # fmt: skip


def _branched(trace: Trace, outcome: Outcome) -> Branched:
    why = Why(trace)
    lines = [_alone(line) for line in why.branch(outcome)] if outcome.state == "failed" else []
    if outcome.state == "fired":
        branch = outcome.rule.branches[outcome.branch]
        lines = [
            Cause(file=outcome.rule.file, row=one.row, col=one.tokens[0].col, text=one.text, holds=True,
                  values=why.values(outcome, one.tokens))
            for one in branch.statements if not one.binds
        ]  # fmt: skip
    return Branched(row=outcome.row, state=outcome.state, lines=tuple(lines))


def _alone(cause: Cause) -> Cause:
    return Cause(file=cause.file, row=cause.row, col=cause.col, text=cause.text, holds=cause.holds, values=cause.values)


class _Names:
    """The names that the rules which fired assert."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._program: Program = trace.program
        self._seen: set[str] = set()

    def all(self) -> Iterator[tuple[str, Outcome, Token, Tokens]]:
        """Name, the outcome that asserts it, where the name stands, and the words that decided it."""
        fired = [one for instance in self._trace.reached for one in self._trace.outcomes(instance) if one.values]
        for find in (self._checks, self._texts, self._made):
            for outcome in fired:
                for name, at, tokens in find(outcome):
                    if name not in self._seen:
                        self._seen.add(name)
                        yield name, outcome, at, tokens

    def _checks(self, outcome: Outcome) -> Iterator[tuple[str, Token, Tokens]]:
        """Keys of tables whose values are not true."""
        branch = outcome.rule.branches[outcome.branch]
        found: list[tuple[Tokens, Json]] = [
            (one.value, outcome.locals[one.binds[0]])
            for one in branch.statements
            if one.binds and one.binds[0] in outcome.locals
        ]
        if branch.value is not None and outcome.rule.key is None:
            found.append((branch.value.tokens, outcome.values[0]))
        for words, known in found:
            for name, (key, tokens) in table(words).items():
                if self._is_name(name) and isinstance(known, dict) and known.get(name) is not True:
                    yield name, key, tokens

    def _texts(self, outcome: Outcome) -> Iterator[tuple[str, Token, Tokens]]:
        """Names written out in what a branch gives, and in what that is made of."""
        for words in _giving(outcome):
            for token in words:
                name = text_of(token) if token.kind == "string" else ""
                if self._is_name(name) and _holds(outcome.values, name) and self._goes_on(outcome, name):
                    yield name, token, (token,)

    def _goes_on(self, outcome: Outcome, name: str) -> bool:
        """Whether the rule that asked made something of the name. A mere list of names asserts none of them."""
        askers = self._trace.askers.get((outcome.rule.path, outcome.frame), ())
        return not askers or any(_holds(self._trace.value(one), name) for one in askers)

    def _made(self, outcome: Outcome) -> Iterator[tuple[str, Token, Tokens]]:
        """Names put together: texts of the rule's own package in what it gives. The place is that of their beginning."""
        words = _giving(outcome)
        for name in sorted(_strings(outcome.values)):
            own = self._is_name(name) and name.rpartition(".")[0] == outcome.rule.package
            if words and own and self._goes_on(outcome, name):
                tokens = [token for one in words for token in one]
                at = next(
                    (one for one in tokens if one.kind == "string" and name.startswith(text_of(one))), words[-1][0]
                )
                yield name, at, words[-1]

    def _is_name(self, text: str) -> bool:
        """Below a package of the policy, in small letters: services of protobuf have a capital one."""
        parts = text.split(".")
        heads = (".".join(parts[:end]) for end in range(1, len(parts)))
        return _NAME.fullmatch(text) is not None and any(head in self._program.packages for head in heads)


def _giving(outcome: Outcome) -> list[Tokens]:
    """The words of a branch's assignments, key and value; the value last."""
    branch = outcome.rule.branches[outcome.branch]
    ends = [one.tokens for one in (outcome.rule.key, branch.value) if one is not None]
    return [one.value for one in branch.statements if one.binds] + ends


def _strings(value: object) -> set[str]:
    if isinstance(value, str):
        return {value}
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return {text for one in inner for text in _strings(one)}


def _holds(value: object, text: str) -> bool:
    return text in _strings(value)
