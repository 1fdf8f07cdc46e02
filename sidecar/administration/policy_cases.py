"""A table of cases: calls, by how they differ from a base, and what the policy should say to each.

    bases: {support: {subject: {kind: personnel, …}, …}}       named parts of an input document
    cases:
      - name: support abroad reads no US profile
        base: support                                          a name above, a JSON file beside this one, or a part
        set: {"subject.person.us_personnel": false}            single paths over it
        expect: {effect: deny, reasons: [not_us_personnel], rules: […], obligations: [redact_fields]}

Whatever base and `set` leave out is unknown (`policy_document.NEUTRAL`). Of `expect` only `effect` is needed; the lists
are compared whole, in any order. `policies/schemas/cases.json` is the schema.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, cast

import msgspec

from sidecar.administration.policy_document import merged, neutral, read_request, request, with_value
from sidecar.decision.document import parse_decision
from sidecar.decision.strict_json import Json, JsonObject
from sidecar.errors import ConfigurationError, DecideError
from sidecar.vocabulary import AccessRequest, Effect, UnknownObligation, canonical

_FIX: Final = "schemas/cases.json describes the file"
ReadFile = Callable[[str], bytes]
"""A file that a case names, relative to the table. OSError when it cannot be read."""


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the policy should say. A list that is left out is not compared."""

    effect: Effect
    reasons: tuple[str, ...] | None = None
    rules: tuple[str, ...] | None = None
    obligations: tuple[str, ...] | None = None


class _Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    expect: Expected
    base: str | dict[str, object] | None = None
    set: dict[str, object] = {}


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    cases: tuple[_Case, ...]
    bases: dict[str, dict[str, object]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case, ready to be decided."""

    name: str
    request: AccessRequest
    expected: Expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A case and what the policy said. `got` is None where it gave no valid decision, which `error` explains."""

    case: Case
    got: Expected | None
    messages: tuple[str, ...] = ()
    error: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the policy said what was expected."""
        return self.got is not None and not self.differences

    @property
    def differences(self) -> tuple[str, ...]:
        """The keys of `expect` that differ."""
        if self.got is None:
            return ("effect",)
        pairs = [(name, getattr(self.case.expected, name), getattr(self.got, name))
                 for name in ("effect", "reasons", "rules", "obligations")]  # fmt: skip
        return tuple(name for name, want, got in pairs if want is not None and _plain(want) != _plain(got))


def _plain(value: object) -> object:
    return sorted(set(value)) if isinstance(value, tuple) else value


def read_cases(tree: object, where: str, file: ReadFile) -> tuple[Case, ...]:
    """The cases of a table as YAML gave it. ConfigurationError names the case and what is wrong with it."""
    try:
        table = msgspec.convert(tree, _Table, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"not a table of cases: {error}", where=where, fix=_FIX) from None
    names = [one.name for one in table.cases]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        what = "two cases have one name" if twice else "the table has no cases"
        raise ConfigurationError(what, where=where, value=twice or None, fix="Name each case once")
    return tuple(_case(one, table, f"{where}: {one.name}", file) for one in table.cases)


def _case(case: _Case, table: _Table, where: str, file: ReadFile) -> Case:
    document = _base(case.base, table.bases, where, file)
    for path, value in case.set.items():
        document = with_value(document, path, cast("Json", value), where)
    return Case(name=case.name, request=request(document, where), expected=case.expect)


def _base(
    base: str | dict[str, object] | None, bases: Mapping[str, dict[str, object]], where: str, file: ReadFile
) -> JsonObject:
    if base is None:
        return neutral()
    if isinstance(base, dict):
        return merged(neutral(), cast("JsonObject", base))
    if base in bases:
        return merged(neutral(), cast("JsonObject", bases[base]))
    try:
        content = file(base)
    except OSError:
        raise ConfigurationError(
            "neither a base of the table nor a file beside it",
            where=where,
            value=base,
            fix=f"Bases: {', '.join(bases) or 'none'}",
        ) from None
    return read_request(content, base)


def judge(case: Case, evaluate: Callable[[bytes], bytes], clock: Callable[[], float]) -> Judged:
    """Decide a case and compare."""
    start = clock()
    try:
        document = msgspec.json.decode(evaluate(canonical(case.request)))
        decision = parse_decision(document)
    except DecideError as error:
        return Judged(case=case, got=None, error=error.operator, seconds=clock() - start)
    got = Expected(
        effect=decision.effect, reasons=tuple(one.code for one in decision.reasons),
        rules=tuple(one.rule for one in decision.reasons),
        obligations=tuple(one.name if isinstance(one, UnknownObligation) else str(type(one).__struct_config__.tag)
                          for one in decision.obligations),
    )  # fmt: skip
    messages = tuple(f"{one.code}: {one.message} ({one.rule})" for one in decision.reasons)
    return Judged(case=case, got=got, messages=messages, seconds=clock() - start)
