"""The closed list of log events, held against the code: every line that can be written is in it, and nothing else."""

import ast
from collections.abc import Iterator
from pathlib import Path

from sidecar.observability.events import EVENTS

ROOT = Path(__file__).resolve().parents[2]
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
LOGS = {"log", "_log"}
REPORTERS = {"_report", "report", "told"}
"""What parts call with (event, detail): `given.reporter` makes it a warning."""
PROCESSES = {"oversight": "oversight", "ledger": "ledger"}
SHARED = {"client.py": "sidecar"}
"""In the ledger's package, but at work in the sidecar."""
WEBHOOK = "webhook.py"
KINDS = ("directory", "index")
"""`followed` names its events by the kind of snapshot."""
FORBIDDEN = ("metadata", "token", "authorization", "payload", "request", "body", "value", "input", "subject", "user")
"""A field of such a name would hold what callers send."""


def process(path: Path) -> str:
    if path.parts[1] == "observability":
        return "any"
    if path.name == WEBHOOK:
        return "webhook"
    return SHARED.get(path.name, "ledger") if path.parts[1] == "ledger" else PROCESSES.get(path.parts[1], "sidecar")


def names(node: ast.expr) -> list[str]:
    """The event names an argument may be: a literal, or a snapshot's kind and a literal."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if (
        isinstance(node, ast.JoinedStr)
        and "kind" in ast.unparse(node.values[0])
        and isinstance(node.values[1], ast.Constant)
    ):
        return [f"{kind}{node.values[1].value}" for kind in KINDS]
    return []


def written() -> Iterator[tuple[str, str, str, set[str], str]]:
    """Process, name, level, fields and place of every line in the code."""
    for file in sorted((ROOT / "sidecar").rglob("*.py")):
        path = file.relative_to(ROOT)
        if {"demo", "api"} & set(path.parts):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            place = f"{path}:{node.lineno}"
            called, on = (node.func.attr, ast.unparse(node.func.value)) if isinstance(node.func, ast.Attribute) else (
                getattr(node.func, "id", ""), "")  # fmt: skip
            if called in LEVELS and on.rpartition(".")[2] in LOGS:
                found = names(node.args[0])
                if not found:
                    assert place.startswith("sidecar/main/given.py"), f"{place}: an event is a literal"
                fields = {one.arg or "..." for one in node.keywords}
                yield from ((process(path), name, called, fields, place) for name in found)
            elif called in REPORTERS and len(node.args) == 2:
                yield from ((process(path), name, "warning", {"detail"}, place) for name in names(node.args[0]))


def test_every_line_of_the_code_is_in_the_list() -> None:
    known = {(event.name, event.level): event for event in EVENTS}
    listed = [(event, one) for event in EVENTS for one in event.of]
    seen = 0
    for of, name, level, fields, place in written():
        seen += 1
        assert (name, level) in known, f"{place}: {level} {name!r} is not in sidecar/observability/events.py"
        options = [event for event, one in listed if (event.name, event.level) == (name, level) and of in (one, "any")]
        assert options, f"{place}: {name!r} is listed, but not for the {of}"
        assert any("..." in event.fields or fields - {"..."} <= set(event.fields) for event in options), (place, fields)
    assert seen > 60, "the reading of the code has lost its way"


def test_every_event_of_the_list_is_in_the_code() -> None:
    there = {(of, name, level) for of, name, level, _, _ in written()}
    for event in EVENTS:
        for one in event.of:
            assert {(one, event.name, event.level), ("any", event.name, event.level)} & there, event


def test_no_field_is_for_what_callers_send() -> None:
    for event in EVENTS:
        for field in event.fields:
            assert not any(word in field.split("_") for word in FORBIDDEN), (event.name, field)


def test_names_are_said_once_for_each_process() -> None:
    keys = [(event.name, one) for event in EVENTS for one in event.of]
    assert len(keys) == len(set(keys))


def test_runbooks_that_the_list_sends_to_exist() -> None:
    runbooks = {file.stem for file in (ROOT / "operations/runbooks").glob("*.md")}
    for event in EVENTS:
        if "the runbook " in event.do:
            named = event.do.partition("the runbook ")[2].split()[0].strip(".:;,")
            assert named in runbooks, (event.name, named)
