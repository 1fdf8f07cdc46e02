"""Run a bundle's own tests and its tables of cases, with time and coverage.

OPA's conventions: a rule named `test_…` passes when it is true; one named `todo_test_…` is shown and not run. Coverage
counts the lines of expressions in what is not a test, as the engine evaluated them in tests and cases together.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from sidecar import _native
from sidecar.administration.policy_cases import Case, Judged, judge
from sidecar.administration.policy_probes import Program
from sidecar.administration.policy_source import Module, Rule
from sidecar.administration.policy_words import references
from sidecar.decision.bundle import ENTRYPOINT, Bundle
from sidecar.decision.guard import nullable_leaves
from sidecar.decision.strict_json import Json
from sidecar.errors import ConfigurationError, DecideError
from sidecar.vocabulary import ReasonCode

_SECONDS: Final = 30.0
_TODO: Final = "todo_test_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The first condition of a test that did not hold, and what the names in it were."""

    text: str
    row: int
    values: tuple[tuple[str, Json], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """One test. `outcome` is pass, fail, error (it could not be evaluated) or skip (a `todo_test_…`)."""

    package: str
    name: str
    file: str
    row: int
    outcome: str
    error: str = ""
    failure: Failure | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CoveredRule:
    """A rule, by its path: the rows in it that nothing evaluated."""

    path: str
    row: int
    covered: int
    missed: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoveredFile:
    """A file: how many rows were evaluated, which were not, and the same by rule."""

    file: str
    covered: int
    missed: tuple[int, ...]
    rules: tuple[CoveredRule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All of it. `coverage` is empty when it was not asked for."""

    revision: str
    tests: tuple[Tested, ...]
    cases: tuple[Judged, ...]
    coverage: tuple[CoveredFile, ...]

    @property
    def failed(self) -> int:
        """How many tests and cases did not pass."""
        return sum(one.outcome in ("fail", "error") for one in self.tests) + sum(not one.passed for one in self.cases)

    @property
    def percent(self) -> float:
        """Rows evaluated of all that could be; 100 of none."""
        covered = sum(one.covered for one in self.coverage)
        rows = covered + sum(len(one.missed) for one in self.coverage)
        return 100.0 * covered / rows if rows else 100.0


def run(
    bundle: Bundle, where: str, *, clock: Callable[[], float], cases: Sequence[Case] = (), pattern: str = "",
    coverage: bool = False,
) -> Run:  # fmt: skip
    """Run what matches the pattern (`data.<package>.<name>`, and the names of cases).

    ConfigurationError when the bundle does not load, the pattern is none, or nothing matches.
    """
    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise ConfigurationError(f"not a regular expression: {error}", where="--run", value=pattern) from None
    program = Program(bundle.tests)
    chosen = [case for case in cases if wanted.search(case.name)]
    tests = [
        rule for module in program.modules for rule in module.rules if _is_test(rule) and wanted.search(_full(rule))
    ]
    if not tests and not chosen and pattern:
        raise ConfigurationError("no test and no case matches", where="--run", value=pattern,
                                 fix="It is searched in data.<package>.<test> and in the names of cases")  # fmt: skip
    if not tests and not chosen:
        raise ConfigurationError("no test and no case", where=where,
                                 fix="Name rules test_… in files ending in _test.rego, or give --cases")  # fmt: skip
    engine = _load(bundle, _without(program, tests), where, coverage=coverage)
    told = _tests(bundle, program, tests, engine)
    judged = tuple(judge(case, _evaluate(engine), clock) for case in chosen)
    files = _coverage(bundle, engine) if coverage else ()
    return Run(revision=bundle.revision, tests=told, cases=judged, coverage=files)


def _is_test(rule: Rule) -> bool:
    return rule.kind == "complete" and rule.name.startswith(("test_", _TODO))


def _full(rule: Rule) -> str:
    return f"data.{rule.path}"


def _without(program: Program, chosen: list[Rule]) -> tuple[tuple[str, str], ...]:
    """The test files with the other tests blanked out, each line at its place."""
    keep = {(rule.file, rule.row) for rule in chosen}
    found = []
    for module in program.modules:
        lines = module.source.split("\n")
        for rule in module.rules:
            if _is_test(rule) and (rule.file, rule.row) not in keep:
                for row in range(rule.row, rule.end_row + 1):
                    lines[row - 1] = ""
        found.append((module.file, "\n".join(lines)))
    return tuple(found)


def _load(bundle: Bundle, tests: tuple[tuple[str, str], ...], where: str, *, coverage: bool) -> _native.Engine:
    try:
        return _native.Engine(bundle.modules + tests, bundle.data, ENTRYPOINT, _SECONDS, nullable_leaves(), coverage)
    except _native.LoadError as error:
        raise ConfigurationError(
            f"the policies do not load: {str(error).splitlines()[0]}", where=where,
            fix="Run `sidecar policy check` and mend what it names",
        ) from None  # fmt: skip


def _tests(bundle: Bundle, program: Program, chosen: list[Rule], engine: _native.Engine) -> tuple[Tested, ...]:
    results = {(one[0], one[1]): one for one in engine.run_tests(deadline_seconds=_SECONDS)}
    told = []
    for rule in chosen:
        base = {"package": rule.package, "name": rule.name, "file": rule.file, "row": rule.row}
        if rule.name.startswith(_TODO):
            told.append(Tested(**base, outcome="skip"))  # type: ignore[arg-type]
            continue
        _, _, passed, error, micros = results[rule.package, rule.name]
        outcome = "pass" if passed else "error" if error else "fail"
        failure = None if passed else first_failed(bundle, program.of[rule.file], rule)
        told.append(Tested(**base, outcome=outcome, error=error or "", failure=failure,  # type: ignore[arg-type]
                           seconds=micros / 1e6))  # fmt: skip
    return tuple(told)


def first_failed(bundle: Bundle, module: Module, rule: Rule) -> Failure | None:
    """The first condition of a test that does not hold, found by asking for each prefix of its body."""
    statements = rule.branches[0].statements
    names: list[str] = []
    rules: list[str] = []
    prefix: list[str] = []
    for place, statement in enumerate(statements):
        rules.append(f"explain_{place} := {{[{', '.join(names)}] |\n" + ";\n".join([*prefix, "true"]) + "\n}")
        prefix.append(statement.source)
        names += statement.binds
    rules.append(f"explain_{len(statements)} := {{[{', '.join(names)}] |\n" + ";\n".join([*prefix, "true"]) + "\n}")
    answers = [f'"{place}": data.{rule.package}.explain_{place}' for place in range(len(rules))]
    sources = [(file, text + "\n" + "\n".join(rules) if file == module.file else text) for file, text in bundle.tests]
    asked = ("explain_all.rego", f"package explain_all\n\nanswers := {{{', '.join(answers)}}}\n")
    try:
        engine = _native.Engine((*bundle.modules, *sources, asked), bundle.data, "data.explain_all.answers", _SECONDS)
        found = msgspec.json.decode(engine.evaluate_json(b"{}"))
    except _native.EngineError:
        return None  # the test's own error says it
    for place, statement in enumerate(statements):
        if not found[str(place + 1)]:
            known = dict(
                zip((name for one in statements[:place] for name in one.binds), found[str(place)][0], strict=True)
            )
            named = {ref.root: known[ref.root] for ref in references(statement.tokens) if ref.root in known}
            return Failure(text=statement.text, row=statement.row, values=tuple(named.items()))
    return None


def _evaluate(engine: _native.Engine) -> Callable[[bytes], bytes]:
    def evaluate(document: bytes) -> bytes:
        try:
            return engine.evaluate_json(document)
        except _native.EvaluationError as error:
            raise DecideError("no decision", reason=ReasonCode.POLICY_ERROR, operator=str(error)) from None

    return evaluate


def _coverage(bundle: Bundle, engine: _native.Engine) -> tuple[CoveredFile, ...]:
    program = Program(bundle.modules)
    files = []
    for file, rows, missed in engine.covered():
        module = program.of.get(file)
        if module is not None:
            files.append(CoveredFile(file=file, covered=len(rows), missed=tuple(missed),
                                     rules=tuple(_covered(rule, rows, missed) for rule in module.rules)))  # fmt: skip
    return tuple(files)


def _covered(rule: Rule, rows: list[int], missed: list[int]) -> CoveredRule:
    span = range(rule.row, rule.end_row + 1)
    return CoveredRule(path=rule.path, row=rule.row, covered=sum(row in span for row in rows),
                       missed=tuple(row for row in missed if row in span))  # fmt: skip
