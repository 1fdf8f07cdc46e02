"""What is wrong with a policy, found without putting it in force: one finding for each thing to mend, with its place.

In this order, as what is found first would make the rest misleading: the loader's own problems; then paths, codes,
obligations and names that are on no list, what is declared and never used, and rules that no test reaches. An *error*
would fail, or be silently wrong, in a running sidecar; a *warning* is what a reader would ask about. How a file is
spelled is left to `opa fmt`.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from sidecar import _native
from sidecar.administration.policy_codes import Odd, Reach, asserted, near_word, unknown_codes, unknown_obligations
from sidecar.administration.policy_paths import Paths, unknown_data, unknown_input
from sidecar.administration.policy_probes import Program
from sidecar.administration.policy_unused import unused
from sidecar.decision.bundle import ENTRYPOINT, Bundle
from sidecar.decision.guard import nullable_leaves
from sidecar.vocabulary import ReasonCode

_SECONDS: Final = 30.0
_REASONS: Final = "data/reasons/data.json"
_SCOPE: Final = re.compile(r"^#[ \t]*scope:[ \t]*(?:package|subpackages)[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Finding:
    """Something to mend. `row` and `col` count from 1; 0 is the whole file. `code` is stable, `fix` says what to do."""

    file: str
    row: int = 0
    col: int = 0
    level: Literal["error", "warning"] = "error"
    code: str
    message: str
    fix: str = ""


Outside = Callable[[], tuple[Finding, ...] | None]
"""What another program finds in the same bundle; None when it is not at hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """`findings` in the order of the files. `opa`: whether `opa check --strict` was asked too."""

    revision: str
    findings: tuple[Finding, ...]
    modules: int
    tests: int
    opa: bool

    def fails(self, *, strict: bool) -> bool:
        """Whether something has to be mended; with `strict`, warnings too."""
        return any(strict or one.level == "error" for one in self.findings)


def check(bundle: Bundle, outside: Outside = lambda: None) -> Checked:
    """Everything that can be found in a bundle that could be read."""
    findings = list(loading(bundle))
    if not findings:
        findings = [*_reading(bundle), *_untested(bundle)]
    others = outside()
    known = {(one.file, one.row) for one in findings}
    findings += [one for one in others or () if (one.file, one.row) not in known]
    return Checked(
        revision=bundle.revision, findings=tuple(sorted(findings)), modules=len(bundle.modules), tests=len(bundle.tests),
        opa=others is not None,
    )  # fmt: skip


def loading(bundle: Bundle) -> Iterator[Finding]:
    """Why the embedded engine refuses the bundle: without its tests, as it would decide, then with them."""
    for modules in (bundle.modules, bundle.modules + bundle.tests):
        try:
            _native.Engine(modules, bundle.data, ENTRYPOINT, _SECONDS, nullable_leaves())
        except _native.LoadError as error:
            for one in error.problems:
                yield Finding(file=one["file"], row=one["line"], col=one["column"], code=one["code"],
                              message=one["message"])  # fmt: skip
            return


def _reading(bundle: Bundle) -> Iterator[Finding]:
    program = Program(bundle.modules)
    whole = Program(bundle.modules + bundle.tests)
    named = Paths(program).all()
    for one, path, near in unknown_input(named):
        yield Finding(file=one.file, row=one.row, col=one.col, code="unknown_input",
                      message=f"{path} is not in the input document" + (f" (by way of `{one.text}`)" if one.text != path else ""),
                      fix=_meant(near, "See docs/policies/documents.md, which lists every path"))  # fmt: skip
    for one, path, near in unknown_data(whole, bundle.data, Paths(whole).all()):
        yield Finding(file=one.file, row=one.row, col=one.col, code="unknown_data",
                      message=f"nothing defines {path}" + (f" (by way of `{one.text}`)" if one.text != path else ""),
                      fix=_meant(near, "Add it to a data.json, or correct the name"))  # fmt: skip
    reach = Reach(program)
    for odd in unknown_codes(reach):
        yield _odd(odd, "unknown_reason", f"`{odd.what}` is no reason code, and a denial may carry it",
                   "See docs/policies/reasons.md, which lists every code")  # fmt: skip
    for odd in unknown_obligations(reach):
        yield _odd(odd, "unknown_obligation", f"`{odd.what}` is nothing that a sidecar can fulfil",
                   "See docs/policies/obligations.md, which lists every obligation")  # fmt: skip
    yield from _names(program, bundle)
    yield from _annotations(whole)
    for module in whole.modules:
        for row, col, what, fix in unused(module):
            yield Finding(file=module.file, row=row, col=col, level="warning", code="unused", message=what, fix=fix)


def _odd(odd: Odd, code: str, message: str, otherwise: str) -> Finding:
    return Finding(file=odd.file, row=odd.row, col=odd.col, code=code, message=message, fix=_meant(odd.near, otherwise))


def _meant(near: str, otherwise: str) -> str:
    return f"Write {near}, if that is meant" if near else otherwise


def _annotations(program: Program) -> Iterator[Finding]:
    """OPA refuses a bundle in which two files annotate one package."""
    first: dict[str, str] = {}
    for module in program.modules:
        found = _SCOPE.search(module.source)
        before = first.setdefault(module.package, module.file) if found else module.file
        if found and before != module.file:
            yield Finding(file=module.file, row=module.source.count("\n", 0, found.start()) + 1, code="annotated_twice",
                          message=f"package {module.package} is annotated in {before} too, and OPA loads neither",
                          fix="Make it a plain comment in one of them")  # fmt: skip


def _names(program: Program, bundle: Bundle) -> Iterator[Finding]:
    """The table of reasons against the rules that name themselves."""
    reasons = msgspec.json.decode(bundle.data).get("data", {}).get("reasons", {})
    table = {part: reasons.get(part, {}) for part in ("denying", "permitting")}
    if not all(isinstance(one, dict) for one in table.values()) or not any(table.values()):
        return
    text = next((content.decode() for name, content in bundle.files if name == _REASONS), "")
    names, starts = asserted(program)
    for name, entry in table["denying"].items():
        code = entry.get("code") if isinstance(entry, dict) else None
        if code not in set(ReasonCode):
            yield Finding(file=_REASONS, row=_row(text, name), code="unknown_reason",
                          message=f"{name} denies with `{code}`, which is no reason code",
                          fix=_meant(near_word(str(code), [str(one) for one in ReasonCode]),
                                     "See docs/policies/reasons.md, which lists every code"))  # fmt: skip
    for name in {**table["denying"], **table["permitting"]}:
        if name not in names and name.rpartition(".")[0] not in starts:
            yield Finding(file=_REASONS, row=_row(text, name), level="warning", code="reason_without_rule",
                          message=f"no rule is named {name}", fix="Take the entry away, or correct the name")  # fmt: skip
    for name, (file, row, col) in names.items():
        if not any(name in one for one in table.values()):
            yield Finding(file=file, row=row, col=col, level="warning", code="rule_without_reason",
                          message=f"{name} has no entry among the reasons: a denial would say policy_error",
                          fix=f"Add it to {_REASONS}")  # fmt: skip


def _row(text: str, name: str) -> int:
    at = text.find(json.dumps(name))
    return 0 if at < 0 else text.count("\n", 0, at) + 1


def _untested(bundle: Bundle) -> Iterator[Finding]:
    """Rules of which the bundle's own tests evaluate not one line, and files without a test beside them."""
    tests = {name for name, _ in bundle.tests}
    for name, _ in bundle.modules:
        if name.removesuffix(".rego") + "_test.rego" not in tests:
            yield Finding(file=name, level="warning", code="no_test_file", message="no test file stands beside it",
                          fix=f"Write {name.removesuffix('.rego')}_test.rego")  # fmt: skip
    if not bundle.tests:
        yield Finding(file=".manifest", code="no_tests", message="the bundle has no tests, so it cannot be activated",
                      fix="Add a file ending in _test.rego beside each policy")  # fmt: skip
        return
    engine = _native.Engine(
        bundle.modules + bundle.tests, bundle.data, ENTRYPOINT, _SECONDS, nullable_leaves(), coverage=True
    )
    engine.run_tests(deadline_seconds=_SECONDS)
    covered = {file: (frozenset(rows), frozenset(missed)) for file, rows, missed in engine.covered()}
    for module in Program(bundle.modules).modules:
        rows, missed = covered.get(module.file, (frozenset(), frozenset()))
        for rule in module.rules:
            span = range(rule.row, rule.end_row + 1)
            if missed.intersection(span) and not rows.intersection(span):
                yield Finding(file=module.file, row=rule.row, level="warning", code="untested_rule",
                              message=f"no test reaches {rule.path}", fix="Add a test, or take the rule away")  # fmt: skip
