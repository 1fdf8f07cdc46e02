"""One evaluation of a policy, in the hand: for every rule and every call of a function, what held and what it gave.

Made of the answers of `policy_probes`. An *instance* is a rule, by its path, with a frame. `reached` is what the
decision really came by: from the entrypoint on, what a condition names is followed as far as conditions held.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from sidecar.administration.policy_probes import Probes, Site, given, step
from sidecar.administration.policy_source import Module, Rule, Statement
from sidecar.administration.policy_words import Ref, Steps, Tokens, reference, references
from sidecar.decision.strict_json import Json, JsonObject

Instance = tuple[str, str]
"""A rule's path, and the JSON of its arguments."""
State = Literal["fired", "failed", "past", "other"]
NO_ARGUMENTS: Final = "[]"
_encode = msgspec.json.Encoder(order="deterministic").encode


class Undefined:
    """What a reference has where nothing is there."""


UNDEFINED: Final = Undefined()
Found = Json | Undefined


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a branch went for a frame.

    `fired`: it gave `values` (more than one for a set or an object). `failed`: `condition` is the first that did not
    hold; None where all held and the value was undefined. `past`: a branch before it answered. `other`: it is written
    for other arguments. `locals` are the values known there, in the first iteration that came that far.
    """

    rule: Rule
    number: int
    branch: int
    frame: str
    state: State
    held: int = 0
    condition: Statement | None = None
    locals: JsonObject
    values: tuple[Json, ...] = ()

    @property
    def row(self) -> int:
        """Where the branch begins."""
        return self.rule.branches[self.branch].row

    @property
    def spoken(self) -> tuple[Tokens, ...]:
        """The words that were evaluated: the conditions that held, the one that did not, the key and the value."""
        branch = self.rule.branches[self.branch]
        if self.state not in ("fired", "failed"):
            return ()
        found = [one.tokens for one in branch.statements[: self.held + 1]]
        if self.held == len(branch.statements):
            found += [one.tokens for one in (self.rule.key, branch.value) if one is not None]
        return tuple(found)


class Trace:
    """The answers to the probes, for one input document.

    `callers`: of a function with its arguments, a place where it was called so. `askers`: who refers to an instance.
    """

    def __init__(
        self, probes: Probes, answers: dict[str, list[list[Json]]], document: JsonObject, data: JsonObject, entry: str
    ) -> None:
        self.program, self.probes = probes.program, probes
        self._document, self._data = document, data
        self._pairs: dict[str, dict[str, list[Json]]] = {}
        for name, pairs in answers.items():
            by_frame = self._pairs[name] = defaultdict(list)
            for frame, answer in pairs:
                by_frame[_encode(frame).decode()].append(answer)
        self._sites: dict[tuple[int, int], list[Site]] = defaultdict(list)
        for site in probes.sites:
            self._sites[site.rule, site.branch].append(site)
        self._numbers: dict[str, list[int]] = defaultdict(list)
        for number, rule in enumerate(probes.numbered):
            self._numbers[rule.path].append(number)
        self._known: dict[Instance, tuple[Outcome, ...]] = {}
        self.callers: dict[Instance, tuple[Outcome, Site]] = {}
        self.askers: dict[Instance, dict[Instance, None]] = defaultdict(dict)
        self.reached = self._reach((entry, NO_ARGUMENTS))

    def module(self, rule: Rule) -> Module:
        """The module a rule stands in."""
        return self.program.of[rule.file]

    def outcomes(self, instance: Instance) -> tuple[Outcome, ...]:
        """How each branch of each definition went, in the order of the source."""
        if instance not in self._known:
            self._known[instance] = tuple(self._outcomes(*instance))
        return self._known[instance]

    def _outcomes(self, path: str, frame: str) -> Iterator[Outcome]:
        for number in self._numbers[path]:
            rule = self.probes.numbered[number]
            past = rule.kind == "default"
            for branch in range(len(rule.branches)):
                outcome = self._outcome(rule, number, branch, frame, past=past)
                yield outcome
                past = past or outcome.state == "fired"

    def _outcome(self, rule: Rule, number: int, branch: int, frame: str, *, past: bool) -> Outcome:
        statements = rule.branches[branch].statements
        held = -1
        while not past and held < len(statements) and frame in self._pairs[step(number, branch, held + 1)]:
            held += 1
        if held < 0:
            state: State = "past" if past else "other"
            return Outcome(rule=rule, number=number, branch=branch, frame=frame, state=state, locals={})
        name = step(number, branch, held)
        first = self._pairs[name][frame][0]
        known = dict(zip(self.probes.locals[name], first if isinstance(first, list) else (), strict=True))
        if held == len(statements) and frame in self._pairs[given(number, branch)]:
            values = tuple(self._pairs[given(number, branch)][frame])
            return Outcome(rule=rule, number=number, branch=branch, frame=frame, state="fired", held=held,
                           locals=known, values=values)  # fmt: skip
        condition = statements[held] if held < len(statements) else None
        return Outcome(rule=rule, number=number, branch=branch, frame=frame, state="failed", held=held,
                       condition=condition, locals=known)  # fmt: skip

    def value(self, instance: Instance) -> Found:
        """What a rule gives: a set or an object as it is, or the default."""
        path, frame = instance
        outcomes = self.outcomes(instance)
        values = [value for outcome in outcomes for value in outcome.values]
        kinds = {outcome.rule.kind for outcome in outcomes}
        if "set" in kinds:
            return values
        if "object" in kinds:
            return {str(pair[0]): pair[1] for pair in values if isinstance(pair, list)}
        if values:
            return values[0]
        return self._default(path) if frame == NO_ARGUMENTS else UNDEFINED

    def _default(self, path: str) -> Found:
        for rule in (self.probes.numbered[number] for number in self._numbers[path]):
            value = rule.branches[0].value
            if rule.kind == "default" and value is not None:
                return [] if value.text == "set()" else _literal(value.source)
        return UNDEFINED

    def calls(self, outcome: Outcome, tokens: Tokens) -> Iterator[tuple[Ref, Site, tuple[Instance, ...]]]:
        """The calls of functions among these words of the outcome's branch, each with the instances it came by."""
        at = {token.start: place for place, token in enumerate(tokens)}
        for site in self._sites[outcome.number, outcome.branch]:
            if site.token.start in at:
                frames = self._pairs[site.probe].get(outcome.frame, [])
                instances = tuple((site.callee, _encode(frame).decode()) for frame in frames)
                yield reference(tokens, at[site.token.start]), site, instances

    def rules(self, outcome: Outcome, tokens: Tokens) -> Iterator[tuple[Ref, Instance, Steps]]:
        """The references among these words that lead to rules without arguments, and the steps into their values."""
        for ref in references(tokens):
            if ref.root not in outcome.locals and not ref.call:
                found = self.program.resolve(self.module(outcome.rule), ref)
                if found is not None:
                    yield ref, (found[0], NO_ARGUMENTS), found[1]

    def look(self, outcome: Outcome, ref: Ref) -> Found:
        """The value of a reference where the outcome stands. Undefined too for what only an inner body knows."""
        if ref.root in outcome.locals:
            return self._walk(outcome, outcome.locals[ref.root], ref.steps)
        if ref.root == "input":
            return self._walk(outcome, self._document, ref.steps)
        rule = self.program.resolve(self.module(outcome.rule), ref)
        if rule is not None:
            return self._walk(outcome, self.value((rule[0], NO_ARGUMENTS)), rule[1])
        if ref.root == "data":
            return self._walk(outcome, self._data, ref.steps)
        path = self.module(outcome.rule).imports.get(ref.root)
        if path is None:
            return UNDEFINED
        return self._walk(outcome, self._data, (*path.split("."), *ref.steps))

    def knows(self, outcome: Outcome, ref: Ref) -> bool:
        """Whether the reference means something here: not the name of a built-in, nor of an inner body's element."""
        module = self.module(outcome.rule)
        if ref.call:
            return False
        return ref.root in outcome.locals or ref.root in ("input", "data") or ref.root in module.imports or (
            self.program.resolve(module, ref) is not None
        )  # fmt: skip

    def _walk(self, outcome: Outcome, value: Found, steps: Steps) -> Found:
        for one in steps:
            key: Found = one if isinstance(one, str) else self._key(outcome, one)
            if isinstance(value, dict) and isinstance(key, str) and key in value:
                value = value[key]
            elif isinstance(value, list) and isinstance(key, str) and key in value:
                value = key  # a set
            elif isinstance(value, list) and type(key) is int and 0 <= key < len(value):
                value = value[key]
            else:
                return UNDEFINED
        return value

    def _key(self, outcome: Outcome, tokens: Tokens) -> Found:
        if len(tokens) == 1 and tokens[0].kind == "number":
            return int(tokens[0].text)
        ref = reference(tokens, 0) if tokens[0].kind == "name" else None
        return self.look(outcome, ref) if ref is not None and ref.end == len(tokens) else UNDEFINED

    def _reach(self, entry: Instance) -> tuple[Instance, ...]:
        seen = {entry: None}
        todo = [entry]
        while todo:
            asker = todo.pop()
            for outcome in self.outcomes(asker):
                for tokens in outcome.spoken:
                    found = [instance for _, instance, _ in self.rules(outcome, tokens)]
                    for _, site, instances in self.calls(outcome, tokens):
                        for one in instances:
                            self.callers.setdefault(one, (outcome, site))
                            found.append(one)
                    for one in found:
                        self.askers[one][asker] = None
                        if one not in seen:
                            seen[one] = None
                            todo.append(one)
        return tuple(seen)


def _literal(text: str) -> Found:
    try:
        found: Json = json.loads(text)
    except ValueError:
        return UNDEFINED
    return found
