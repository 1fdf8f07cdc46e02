"""OPA's own conformance cases (version 1 of the language, from OPA's Go module) put to the embedded engine."""

import collections
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from reference_opa import ERROR, UNDEFINED

from sidecar import _native

VERSION = "v1.22.2"
FILE = Path("tests/conformance/opa_cases.md")
AGREE, REFUSED, CLOSED, OUTSIDE, WRONG = "agree", "refused at load", "fails closed", "does not apply", "wrong"
VERDICTS = (AGREE, REFUSED, CLOSED, OUTSIDE, WRONG)
_QUERY = re.compile(r"\s*(data(?:\.\w+)+)\s*=\s*(\w+)\s*")


def folder() -> Path | str:
    """Where the cases are, or what is missing."""
    go = shutil.which("go")
    if go is None:
        return "Go is not on PATH: OPA's conformance cases come with its Go module"
    cache = subprocess.run([go, "env", "GOMODCACHE"], capture_output=True, text=True, check=True).stdout.strip()
    found = Path(cache, f"github.com/open-policy-agent/opa@{VERSION}", "v1/test/cases/testdata/v1")
    return found if found.is_dir() else "OPA's conformance cases are not in the Go module cache: run `make tools`"


@dataclass(frozen=True, kw_only=True)
class Results:
    """`groups`: folder of the cases -> verdict -> number; `refusals`: the loader's codes, by number of cases."""

    groups: dict[str, collections.Counter[str]] = field(default_factory=dict)
    refusals: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def total(self, verdict: str) -> int:
        return sum(group[verdict] for group in self.groups.values())


def cases(where: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Group and case, in the order of the files."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for path in sorted(where.glob("**/*.yaml")):
        for case in yaml.load(path.read_text(), loader).get("cases") or []:
            yield path.parent.name, case


def run(where: Path) -> Results:
    """Put every case to the embedded engine."""
    results = Results()
    for group, case in cases(where):
        verdict, detail = judge(case)
        results.groups.setdefault(group, collections.Counter())[verdict] += 1
        if verdict == REFUSED:
            results.refusals.update(detail)
        elif verdict in (WRONG, CLOSED):
            (results.wrong if verdict == WRONG else results.closed).append(f"{case['note']}: {detail}")
    return results


def judge(case: dict[str, Any]) -> tuple[str, Any]:
    """One of VERDICTS, and what there is to say: codes of the loader, or both answers."""
    query = _QUERY.fullmatch(case["query"])
    modules = [(f"{n}.rego", str(text)) for n, text in enumerate(case.get("modules") or [])]
    document = case.get("input")
    # Here one rule is asked and there is always an input document: other queries, and its absence, do not occur.
    unread = document is not None or not any("input" in text for _, text in modules)
    if query is None or "input_term" in case or not unread:
        return OUTSIDE, None
    try:
        engine = _native.Engine(modules, json.dumps(case.get("data") or {}).encode(), query[1], 5.0)
        ours = _ask(engine, document if document is not None else {})
    except _native.LoadError as error:
        return REFUSED, {problem["code"] for problem in error.problems}
    except (TypeError, ValueError):
        return REFUSED, {"input"}
    want = _wanted(case, query[2])
    if same(ours, want):
        return AGREE, None
    return CLOSED if ours == ERROR else WRONG, f"embedded {ours!r}, OPA {want!r}"


def _wanted(case: dict[str, Any], variable: str) -> Any:
    if "want_error" in case or "want_error_code" in case:
        return ERROR
    return case["want_result"][0][variable] if case.get("want_result") else UNDEFINED


def _ask(engine: _native.Engine, document: object) -> Any:
    try:
        return engine.evaluate(document)
    except _native.Undefined:
        return UNDEFINED
    except _native.EvaluationError:
        return ERROR


def same(ours: Any, theirs: Any) -> bool:
    """Equal, where lists that were sets may come in another order if their elements are of several types."""
    if isinstance(ours, list) and isinstance(theirs, list):
        return sorted(map(json.dumps, ours)) == sorted(map(json.dumps, theirs))
    return json.dumps(ours, sort_keys=True) == json.dumps(theirs, sort_keys=True)


def table(results: Results) -> str:
    """The committed results."""
    number = sum(results.total(verdict) for verdict in VERDICTS)
    lines = [
        "# OPA's conformance cases in the embedded engine",
        "",
        "Written by `python -m tests.engine_tables --write cases`; `tests/conformance/test_opa_cases.py` compares it.",
        "",
        f"{number:,} cases of OPA {VERSION}, `v1/test/cases/testdata/v1`. *Refused at load*: the loader names file, line and",
        "construct, and the bundle is not activated. *Fails closed*: no answer where OPA has one, which refuses the call.",
        "*Does not apply*: the query is not one rule, or the case is about an absent input document. *Wrong* would be an",
        "answer other than OPA's.",
        "",
        f"| group | cases | {' | '.join(VERDICTS)} |",
        f"|---|{'---:|' * (len(VERDICTS) + 1)}",
    ]
    for name, group in sorted(results.groups.items()):
        lines.append(f"| {name} | {group.total()} | {' | '.join(str(group[verdict] or '') for verdict in VERDICTS)} |")
    lines.append(f"| **all** | {number} | {' | '.join(str(results.total(verdict)) for verdict in VERDICTS)} |")
    lines += ["", "Why cases are refused (one case may have several reasons):", "", "| code | cases |", "|---|---:|"]
    lines += [
        f"| `{code}` | {count} |" for code, count in sorted(results.refusals.items(), key=lambda one: (-one[1], one[0]))
    ]
    lines += ["", "What fails closed:", ""]
    lines += [f"* {line.replace('|', chr(92) + '|')}" for line in results.closed]
    return "\n".join(lines) + "\n"
