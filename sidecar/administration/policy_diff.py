"""What differs between two bundles as they are written: files, rules, and paths of data."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from sidecar import _native
from sidecar.decision.bundle import Bundle

_SPACE: Final = re.compile(r"\s+")
SHOWN: Final = 120
"""Characters of a value that are shown to people."""


@dataclass(frozen=True, slots=True)
class Change:
    """Something added, removed or changed. `before` and `after` are texts, None where it does not exist."""

    what: str
    before: str | None
    after: str | None

    @property
    def word(self) -> str:
        """added, removed or changed."""
        return "added" if self.before is None else "removed" if self.after is None else "changed"

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return {"what": self.what, "change": self.word, "before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Rules by full name (without tests), data by path, and tests by file."""

    rules: tuple[Change, ...]
    data: tuple[Change, ...]
    tests: tuple[Change, ...]

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return {
            name: [one.to_json() for one in found]
            for name, found in (("rules", self.rules), ("data", self.data), ("tests", self.tests))
        }


def differences(one: Bundle, other: Bundle) -> Differences:
    """What the second says otherwise than the first. Layout and comments are no differences of rules."""
    return Differences(
        rules=_changes(_rules(one), _rules(other)),
        data=_changes(_paths(one), _paths(other)),
        tests=_changes(dict(one.tests), dict(other.tests)),
    )


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Change, ...]:
    return tuple(
        Change(name, before.get(name), after.get(name))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )


class _Rule(msgspec.Struct, frozen=True):
    name: str
    row: int
    end_row: int


class _Module(msgspec.Struct, frozen=True):
    file: str
    package: str
    rules: list[_Rule]


class _Outline(msgspec.Struct, frozen=True):
    modules: list[_Module]


def _rules(bundle: Bundle) -> dict[str, str]:
    """Full name -> all its definitions, in the order of files and rows."""
    outline = msgspec.json.decode(_native.outline(bundle.modules), type=_Outline)
    sources, found = dict(bundle.modules), dict[str, str]()
    for module in outline.modules:
        rows = sources[module.file].splitlines()
        package = module.package.removeprefix("data.")
        for rule in module.rules:
            name = f"{package}.{rule.name}"
            text = _plain(rows[rule.row - 1 : rule.end_row])
            found[name] = f"{found[name]}\n{text}" if name in found else text
    return found


def _plain(rows: list[str]) -> str:
    """Without whole-line comments, indentation and empty lines."""
    kept = (_SPACE.sub(" ", row).strip() for row in rows)
    return "\n".join(row for row in kept if row and not row.startswith("#"))


def _paths(bundle: Bundle) -> dict[str, str]:
    """Path of data -> the JSON that stands there. Lists are values: their order has a meaning."""
    found: dict[str, str] = {}
    _flatten(msgspec.json.decode(bundle.data), "data", found)
    return found


def _flatten(value: object, path: str, found: dict[str, str]) -> None:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            _flatten(inner, f"{path}.{key}", found)
    else:
        found[path] = msgspec.json.encode(value).decode()
