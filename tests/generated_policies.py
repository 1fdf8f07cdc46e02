"""The reference pages of the guide for policy authors: docs/policies/{documents,reasons,obligations}.md.

What the code knows (paths, types, codes, statuses, what may be waived, which rules deny so) is taken from it; what it
does not know, the meanings, stands in `guide_words`. A path or code without a meaning, and
a meaning of nothing, is an error.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec import inspect

from sidecar.decision.document import parse_decision
from sidecar.errors import Code
from sidecar.vocabulary import (
    ACTIONS,
    ANNOTATED_CATEGORIES,
    CLASSES,
    COMPUTED_CATEGORIES,
    KNOWN_OBLIGATIONS,
    WAIVABLE,
    AccessRequest,
    KnownObligation,
    ReasonCode,
    status_of,
)
from tests.guide_words import DECISION, OBLIGATIONS, PATHS, REASONS

ROOT = Path(__file__).resolve().parent.parent
_WRITTEN = "Written by `make generate` from the vocabulary and the shipped data."


def expected() -> dict[str, str]:
    """Path below the root -> what the file should hold."""
    return {
        "docs/policies/documents.md": _documents(),
        "docs/policies/reasons.md": _reasons(),
        "docs/policies/obligations.md": _obligations(),
    }


def _same(known: set[str], told: Mapping[str, object], what: str) -> None:
    missing, gone = sorted(known - set(told)), sorted(set(told) - known)
    if missing or gone:
        raise SystemExit(f"tests/guide_words.py: {what} without a meaning: {missing}; meanings of nothing: {gone}")


def _documents() -> str:
    paths = dict(_paths(inspect.type_info(AccessRequest), "", elements=False))
    _same(set(paths), PATHS, "paths")
    lines = [
        "# The two documents",
        "",
        _WRITTEN,
        "The schemas are `policies/schemas/input.json` and `decision.json`.",
        "",
        "## What a policy is asked: `input`, version 1",
        "",
        "The document is **total**: every path below is there in every call. What nobody knows is null, or an empty list;",
        "objects and lists are never null, and maps keyed by category carry every category. There is nothing else in it, no",
        "fraction, and no identifier of a data subject: only counts and classes. So a rule never meets an undefined path of",
        "`input`, and a null it must expect wherever the type says so (`rego.md` says how).",
        "",
        "`[]` marks the elements of a list, `<category>` every key of a map. Instants are RFC 3339.",
        "",
    ]
    part = ""
    for path, kind in paths.items():
        section = path.split(".")[0]
        if section != part:
            part = section
            lines += ["", f"### `input.{section}`", "", "| path | type | meaning | unknown |", "|---|---|---|---|"]
        meaning, unknown = PATHS[path]
        if "null" in kind and not unknown:
            raise SystemExit(f"tests/guide_words.py: {path} may be null, and nothing says what that means")
        empty = "empty" if kind.startswith("list") or "[]" in path else "never"
        lines.append(f"| `{path}` | {kind} | {meaning} | {unknown or empty} |")
    lines += [
        "",
        "### The words in it",
        "",
        f"* actions: {_ticked(ACTIONS)}",
        f"* classes: {_ticked(CLASSES)}",
        f"* categories that annotations name: {_ticked(ANNOTATED_CATEGORIES)}",
        f"* categories that the sidecar computes: {_ticked(COMPUTED_CATEGORIES)}",
        "",
        "## What it answers: `data.sidecar.decision`, version 1",
        "",
        "| key | meaning |",
        "|---|---|",
        *(f"| `{key}` | {meaning} |" for key, meaning in DECISION.items()),
        "",
        "All five keys are there, and no other. An answer that is undefined, late, or not of this form is no answer: the call",
        "is refused with `policy_error` and recorded. A deny carries no obligation.",
        "",
        "```json",
        json.dumps(_EXAMPLE, indent=2),
        "```",
    ]
    parse_decision(_EXAMPLE)
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


_EXAMPLE = {
    "effect": "permit",
    "reasons": [{"code": "us_personnel", "message": "US personnel", "rule": "sidecar.residency.us_personnel"}],
    "obligations": [{"id": "redact_fields", "categories": ["id_government"]}],
    "advice": [],
    "ttl_seconds": 30,
}


def _ticked(words: tuple[str, ...]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _paths(kind: inspect.Type, path: str, *, elements: bool) -> Iterator[tuple[str, str]]:
    if isinstance(kind, inspect.StructType):
        for field in kind.fields:
            yield from _paths(
                field.type, f"{path}.{field.encode_name}" if path else field.encode_name, elements=elements
            )
    elif isinstance(kind, inspect.VarTupleType):
        if isinstance(kind.item_type, inspect.StructType):
            yield from _paths(kind.item_type, f"{path}[]", elements=True)
        else:
            yield path, f"list of {_kind(kind.item_type)}"
    elif isinstance(kind, inspect.DictType):
        yield f"{path}.<category>", _kind(kind.value_type)
    else:
        yield path, _kind(kind)


def _kind(kind: inspect.Type) -> str:
    if isinstance(kind, inspect.UnionType):
        return " or ".join(sorted((_kind(one) for one in kind.types), key=lambda word: word == "null"))
    if isinstance(kind, inspect.LiteralType):
        return " · ".join(f"`{value}`" for value in kind.values)
    names = {
        inspect.NoneType: "null",
        inspect.StrType: "text",
        inspect.IntType: "integer",
        inspect.BoolType: "true · false",
    }
    return names[type(kind)]


def _reasons() -> str:
    _same({str(code) for code in ReasonCode}, REASONS, "reason codes")
    table = json.loads((ROOT / "policies/data/reasons/data.json").read_text())
    lines = [
        "# Reason codes",
        "",
        _WRITTEN,
        "The list is closed: a denial with any other code is no decision (`policy_error`).",
        "A permit names its rule under a word of the policy's own, listed at the end.",
        "",
        "*Status* is what a caller gets from a denial with this code alone. Beside others, UNAVAILABLE wins, and",
        "FAILED_PRECONDITION is answered only where nothing but approvals is outstanding. Before a policy is asked, the sidecar",
        "itself answers UNAUTHENTICATED where there is no verified token or certificate. *Waivable*: an exception of two",
        "approvers may lift it. Callers see the code of the first reason and the call id, never a rule or its text.",
        "",
    ]
    for code in ReasonCode:
        when, caller, operator = REASONS[code]
        rules = [f"`{name}`" for name, entry in table["denying"].items() if entry["code"] == code]
        lines += [
            f"## `{code}`",
            "",
            when,
            "",
            f"* status: {Code(status_of(frozenset({code}))).name}; waivable: {'yes' if code in WAIVABLE else 'no'}",
            f"* the caller: {caller}",
            f"* the operator: {operator}",
            f"* denied so by: {', '.join(rules) if rules else 'no shipped rule'}",
            "",
        ]
    lines += [
        "## The words of permits",
        "",
        "| word | rule | said |",
        "|---|---|---|",
        *(f"| `{one['code']}` | `{name}` | {one['message']} |" for name, one in table["permitting"].items()),
        "| `exception` | `sidecar.exceptions.valid` | an exception lifted what would have denied, or stood for approvals |",
        "| `migration_window` | `sidecar.egress.migration_window` | a place is allowed by a migration window only |",
    ]
    return "\n".join(lines) + "\n"


def _obligations() -> str:
    _same(set(KNOWN_OBLIGATIONS), OBLIGATIONS, "obligations")
    union = inspect.type_info(KnownObligation)
    assert isinstance(union, inspect.UnionType)
    lines = [
        "# Obligations",
        "",
        _WRITTEN,
        "An obligation is a duty that comes with a permit: the sidecar fulfils it, or the call is refused with",
        "`obligation_unfulfillable`. That holds for an id or field that is not below, a category that no field of the API has,",
        "and a door that cannot do it. Several are merged: every category of each, the smallest limit, the soonest recheck,",
        "the highest level. A deny has none.",
        "",
        "The doors: `proxy` is the gRPC proxy that this version serves, and it fulfils all of them.",
        "",
    ]
    for kind in union.types:
        assert isinstance(kind, inspect.StructType)
        name = str(kind.tag)
        what, doors, example = OBLIGATIONS[name]
        found = msgspec.convert({"id": name, **example}, KnownObligation, strict=True)
        assert msgspec.to_builtins(found) | {"id": name} == msgspec.to_builtins(found)
        fields = [
            f"`{field.encode_name}` ({_field(field.type)}{'' if field.required else ', may be left out'})"
            for field in kind.fields
        ]
        lines += [
            f"## `{name}`", "", what, "", f"* fields: {', '.join(fields)}", f"* doors: {doors}", "", "```json",
            json.dumps({"id": name, **example}), "```", "",
        ]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def _field(kind: inspect.Type) -> str:
    return f"list of {_kind(kind.item_type)}" if isinstance(kind, inspect.VarTupleType) else _kind(kind)
