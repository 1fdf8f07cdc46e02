"""How an explanation looks: the decision, each reason with what stands behind it, and the rules by package."""

from dataclasses import asdict
from itertools import groupby

from rich.text import Text
from rich.tree import Tree

from sidecar.administration.policy_explain import Explanation, Ruled
from sidecar.administration.policy_why import Cause, Value
from sidecar.cli.console import out, plain
from sidecar.cli.policy_shown import decision, short
from sidecar.decision.bundle import ENTRYPOINT

_YES, _NO = "✔", "✘"
_DEPTH = 5
_ENTRY = ENTRYPOINT.removeprefix("data.")


def explained_json(explanation: Explanation) -> dict[str, object]:
    """{"revision", "decision", "error", "named": [{"name", "told", "cause"}], "rules": […]}."""
    return asdict(explanation)


def explained(explanation: Explanation, recorded: dict[str, object], *, whole: bool) -> None:
    """For people. `whole`: every rule that was evaluated, and causes as deep as they go."""
    if explanation.decision is None:
        out().print(plain(f"{_NO} the policy gave no decision: {explanation.error}"), style="red")
        return
    if recorded:
        _recorded(explanation, recorded)
    decision(explanation.decision)
    for one in explanation.named:
        lifted = "" if one.told else "  (found, and not among the reasons)"
        tree = Tree(plain(f"{one.name}{lifted}"))
        _grow(tree, one.cause, 99 if whole else _DEPTH)
        out().print(tree, soft_wrap=False)
    entry = [one for one in explanation.rules if f"{one.package}.{one.name}" == _ENTRY]
    rules = list(explanation.rules) if whole else entry
    for package, members in groupby(rules, key=lambda one: one.package):
        tree = Tree(plain(package))
        for rule in members:
            _rule(tree, rule)
        out().print(tree, soft_wrap=False)
    if not whole:
        out().print(plain(f"{len(explanation.rules)} rules were evaluated: --all shows each, and causes to their end"))


def _recorded(explanation: Explanation, recorded: dict[str, object]) -> None:
    then = recorded.get("decision")
    effect = then.get("effect") if isinstance(then, dict) else "nothing"
    same = recorded.get("revision") == explanation.revision
    by = "this policy" if same else f"policy {recorded.get('revision')}"
    out().print(plain(f"recorded in phase {recorded.get('phase')}: {effect}, by {by}. This policy says:"))


def _grow(tree: Tree, cause: Cause, depth: int) -> None:
    branch = tree.add(_line(cause))
    if depth > 0:
        for one in cause.causes:
            _grow(branch, one, depth - 1)
    elif cause.causes:
        branch.add(plain("… (--all)"))


def _line(cause: Cause) -> Text:
    mark = Text(_YES if cause.holds else _NO, style="green" if cause.holds else "red")
    line = Text.assemble(mark, " ", plain(f"{cause.file}:{cause.row}  {_cut(cause.text)}"))
    for value in cause.values:
        line.append("\n")
        line.append_text(plain(f"    {_said(value)}"))
    return line


def _cut(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:120]}…"


def _said(value: Value) -> str:
    return f"{_cut(value.text)} {'is undefined' if value.undefined else f'= {short(value.value)}'}"


def _rule(tree: Tree, rule: Ruled) -> None:
    arguments = f"({', '.join(rule.arguments)})" if rule.arguments else ""
    value = "undefined" if rule.undefined else short(rule.value)
    branch = tree.add(plain(f"{_YES if rule.fired else _NO} {rule.name}{arguments} = {value}"))
    for one in rule.branches:
        if one.state == "past":
            continue
        for line in one.lines:
            branch.add(_line(line))
        if one.state == "fired":
            branch.add(Text.assemble(Text(_YES, style="green"), " ", plain(f"{rule.file}:{one.row}  answers")))
