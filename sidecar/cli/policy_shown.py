"""How an author's commands look: findings, tests, decisions and explanations, for people and as JSON."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from rich.table import Table
from rich.tree import Tree

from sidecar.administration.policy_cases import Judged
from sidecar.administration.policy_check import Checked
from sidecar.administration.policy_eval import Evaluated
from sidecar.administration.policy_new import Started
from sidecar.administration.policy_test import Run, Tested
from sidecar.cli.console import out, plain

_YES, _NO, _NOTE = "✔", "✘", "!"


def rows_said(rows: Iterable[int]) -> str:
    """Rows as ranges: `3-5, 9`."""
    ranges: list[list[int]] = []
    for row in rows:
        if ranges and row == ranges[-1][1] + 1:
            ranges[-1][1] = row
        else:
            ranges.append([row, row])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)


def count(number: int, one: str, many: str = "") -> str:
    """`1 policy`, `2 policies`."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def checked_json(result: Checked, *, strict: bool) -> dict[str, object]:
    """{"revision", "ok", "modules", "tests", "opa", "findings": [{"file", "row", "col", "level", "code", …}]}."""
    return {"revision": result.revision, "ok": not result.fails(strict=strict), "modules": result.modules,
            "tests": result.tests, "opa": result.opa, "findings": [asdict(one) for one in result.findings]}  # fmt: skip


def checked(result: Checked, path: Path, *, asked: bool) -> None:
    """A line for each finding, then what was looked at."""
    for one in result.findings:
        place = ":".join(str(part) for part in (one.file, one.row, one.col) if part)
        fix = f". {one.fix}" if one.fix else ""
        mark, style = (_NO, "red") if one.level == "error" else (_NOTE, "yellow")
        out().print(plain(f"{mark} {place}: {one.code}: {one.message}{fix}"), style=style)
    errors = sum(one.level == "error" for one in result.findings)
    said = (
        f"{count(errors, 'error')}, {count(len(result.findings) - errors, 'warning')}"
        if result.findings
        else "nothing found"
    )
    looked = f"{count(result.modules, 'policy', 'policies')}, {count(result.tests, 'test file')}"
    out().print(plain(f"{looked}: {said}"))
    if asked:
        opa = "was asked too" if result.opa else "was not asked: no opa at hand (`make tools`, or --opa FILE)"
        out().print(plain(f"`opa check --strict` {opa}"))
    out().print(plain(f"how it is spelled: opa fmt --diff {path}"))


def tested_json(result: Run, floor: float | None) -> dict[str, object]:
    """{"revision", "ok", "tests", "cases", "percent", "coverage", "floor"}."""
    low = floor is not None and result.percent < floor
    return {
        "revision": result.revision, "ok": not (result.failed or low), "tests": [asdict(one) for one in result.tests],
        "cases": [_judged_json(one) for one in result.cases], "coverage": [asdict(one) for one in result.coverage],
        "percent": round(result.percent, 2) if result.coverage else None, "floor": floor,
    }  # fmt: skip


def _judged_json(one: Judged) -> dict[str, object]:
    from msgspec import to_builtins

    return {"name": one.case.name, "passed": one.passed, "differences": list(one.differences), "error": one.error,
            "expected": to_builtins(one.case.expected), "got": to_builtins(one.got), "seconds": one.seconds,
            "messages": list(one.messages)}  # fmt: skip


def tested(result: Run, floor: float | None, *, verbose: bool) -> None:
    """What failed, side by side; what was left out; how long it took; what nothing reached."""
    for test in result.tests:
        if test.outcome in ("fail", "error"):
            _failed(test)
        elif test.outcome == "skip":
            out().print(
                plain(f"- {test.file}:{test.row} {test.package}.{test.name}: still to be written"), style="yellow"
            )
        elif verbose:
            out().print(plain(f"{_YES} {test.package}.{test.name} {_time(test.seconds)}"))
    for case in result.cases:
        if not case.passed:
            out().print(plain(f"{_NO} case {case.case.name}"), style="red")
            out().print(_beside(case))
        elif verbose:
            out().print(plain(f"{_YES} case {case.case.name} {_time(case.seconds)}"))
    seconds = sum(one.seconds for one in result.tests) + sum(one.seconds for one in result.cases)
    skipped = sum(one.outcome == "skip" for one in result.tests)
    ran = len(result.tests) - skipped
    out().print(plain(
        f"{count(ran, 'test')}, {count(len(result.cases), 'case')}: {f'{result.failed} failed' if result.failed else 'all passed'}"
        f"{f', {skipped} still to be written' if skipped else ''} ({_time(seconds)})"
    ))  # fmt: skip
    if result.coverage:
        _covered(result, floor)


def _time(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _failed(test: Tested) -> None:
    said = f"{_NO} {test.file}:{test.row} {test.package}.{test.name}"
    out().print(plain(said + (f": {test.error}" if test.error else "")), style="red")
    if test.failure is not None:
        out().print(plain(f"    {test.file}:{test.failure.row}  {test.failure.text}"))
        for name, value in test.failure.values:
            out().print(plain(f"        {name} = {short(value)}"))


def _beside(case: Judged) -> Table:
    table = Table("", "expected", "got")
    for key in case.differences:
        want = getattr(case.case.expected, key)
        got = "no valid decision" if case.got is None else getattr(case.got, key)
        table.add_row(*(plain(_listed(one)) for one in (key, want, got)))
    for message in (case.error,) if case.got is None else case.messages:
        table.add_row("", "", plain(message))
    return table


def _listed(value: object) -> str:
    return ", ".join(map(str, dict.fromkeys(value))) or "none" if isinstance(value, tuple) else str(value)


def _covered(result: Run, floor: float | None) -> None:
    for file in result.coverage:
        rows = file.covered + len(file.missed)
        percent = 100.0 * file.covered / rows if rows else 100.0
        out().print(
            plain(f"{percent:5.1f} % {file.file}" + (f"  not reached: {rows_said(file.missed)}" if file.missed else ""))
        )
        for rule in file.rules:
            if rule.missed and not rule.covered:
                out().print(plain(f"        {rule.path} (line {rule.row}): not reached at all"), style="yellow")
    least = "" if floor is None else f" (floor {floor:g} %: {'held' if result.percent >= floor else 'not reached'})"
    style = "red" if floor is not None and result.percent < floor else ""
    out().print(plain(f"{result.percent:5.1f} % of all lines that can be evaluated{least}"), style=style)


def short(value: object, most: int = 100) -> str:
    """A value on one line, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= most else f"{text[:most]}…"


def evaluated(answer: Evaluated) -> None:
    """The value, spread out; a decision with its effect first."""
    value = answer.value
    if isinstance(value, dict) and answer.entrypoint == "data.sidecar.decision":
        decision(value)
    elif value is not None or not answer.problem:
        out().print(plain_lines(json.dumps(value, indent=2, ensure_ascii=False)))
    if answer.problem:
        out().print(plain(f"{_NO} {answer.problem}"), style="red")


def plain_lines(text: str) -> str:
    """Several lines, each made harmless for a terminal."""
    return "\n".join(plain(line).plain for line in text.splitlines()).replace("[", "\\[")


def decision(value: Mapping[str, object]) -> None:
    """A decision document: effect, reasons, obligations, advice."""
    permits = value.get("effect") == "permit"
    out().print(plain(str(value.get("effect"))), style="green" if permits else "red")
    for reason in _list(value.get("reasons")):
        out().print(plain(f"  {reason.get('code')}: {reason.get('message')} ({reason.get('rule')})"))
    for one in _list(value.get("obligations")):
        rest = {key: item for key, item in one.items() if key != "id"}
        out().print(plain(f"  obligation {one.get('id')} {json.dumps(rest)}"))
    advice = value.get("advice")
    for text in advice if isinstance(advice, list) else ():
        out().print(plain(f"  advice: {text}"))
    out().print(plain(f"  may be answered from memory for {value.get('ttl_seconds')} s"))


def _list(value: object) -> list[dict[str, object]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def started(result: Started, into: Path) -> None:
    """What was written, and what to do next."""
    for name in result.files:
        out().print(plain(f"written: {into / name}"))
    held = ", ".join(result.categories) or "nothing"
    out().print(plain(f"{count(result.methods, 'method')}. Held back from people until you say who needs it: {held}"))
    for remark in result.remarks:
        out().print(plain(f"{_NOTE} {remark}"), style="yellow")
    tree = Tree("next")
    tree.add(plain(f"say in {into}/data/{result.slug}/data.json which roles and purposes need which category"))
    tree.add(plain(f"sidecar policy check {into}"))
    tree.add(plain(f"sidecar policy test {into} --run {result.slug} --coverage"))
    out().print(tree)
