"""Generated files: `python -m tests.generated --check` fails when one is out of date, `--write` makes them anew.

The protobuf modules, the command line reference (docs/command-line.md), the settings reference
(docs/settings.md), the tables of docs/doors.md, the reference pages for policy authors (docs/policies/) and the charts'
values.schema.json.
"""

import difflib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sidecar.cli.app import app
from sidecar.settings.ledger import LedgerSettings
from sidecar.settings.oversight import OversightSettings
from sidecar.settings.sidecar import SidecarSettings
from tests import door_matrix, generated_operations, generated_policies, helm_schema

ROOT = Path(__file__).resolve().parent.parent
PROTOS = {
    "sidecar/api/envoy/v3/authorization.proto": False,
    "sidecar/api/envoy/v3/parts.proto": False,
    "sidecar/api/envoy/v3/processing.proto": False,
    "sidecar/api/v1/annotations.proto": False,
    "sidecar/api/v1/decision_point.proto": True,
    "sidecar/api/v1/ledger.proto": True,
    "sidecar/api/v1/oversight.proto": True,
    "sidecar/demo/profiles/v1/profiles.proto": True,
}
"""Proto file -> whether it holds services."""
UNITS = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}
KINDS = {
    "_duration": "duration", "_size": "size", "_path": "path", "_host_port": "host:port", "_address": "host:port or unix:PATH",
    "_compiles": "regular expression", "_one": "`1`",
}  # fmt: skip
"""Validator -> what a value it checks is called."""


def expected() -> dict[str, str]:
    """Path below the root -> what the file should hold."""
    pages = {
        "docs/command-line.md": _command_line(), "docs/settings.md": _settings(), "docs/doors.md": door_matrix.page(),
    }  # fmt: skip
    return {
        **_protobuf(),
        **pages,
        **generated_policies.expected(),
        **helm_schema.expected(),
        **generated_operations.expected(),
    }


def _protobuf() -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        for proto, services in PROTOS.items():
            outputs = [f"--python_out={folder}", f"--pyi_out={folder}"]
            if services:
                outputs.append(f"--grpc_python_out={folder}")
            command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}", *outputs, proto]
            subprocess.run(command, check=True, cwd=ROOT)
        made = Path(folder)
        return {str(file.relative_to(made)): file.read_text() for file in sorted(made.rglob("*.py*"))}


def _command_line() -> str:
    lines = [
        "# The command line",
        "",
        "Written by `make generate` from the program itself. Every command has `--help`. Exit codes: 0; 1 for a finding",
        "(a bad row, a record that is not proven, a deployment that does not hold); 2 for bad usage or configuration, in one",
        "line on standard error that says what to mend.",
        "",
    ]
    for path, command in _commands(typer.main.get_command(app), ["sidecar"]):
        lines += [f"## {' '.join(path)}", "", command.help or "", "", "```", _usage(path, command), "```", ""]
        shown = [one for one in command.params if "--help" not in one.opts]
        lines += [f"* `{_spelled(one)}`: {one.help or ''}{_said(one)}" for one in shown]
        lines.append("")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _usage(path: list[str], command: Any) -> str:
    words = []
    for one in command.params:
        if "--help" in one.opts:
            continue
        words.append(_spelled(one) if one.required else f"[{_spelled(one)}]")
    return " ".join([*path, *words])


def _spelled(parameter: Any) -> str:
    """An argument's name, or an option with what it takes."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    if parameter.is_flag:
        return str(parameter.opts[-1])
    takes = parameter.metavar or {int: "N", Path: "FILE"}.get(parameter.type_descriptor.annotation, "TEXT")
    return f"{parameter.opts[-1]} {takes}"


def _said(parameter: Any) -> str:
    """A parameter's default and variable, where it has them."""
    said = []
    if getattr(parameter, "envvar", None):
        said.append(f"or `{parameter.envvar}`")
    if parameter.default not in (None, "", False, ...) and not parameter.required:
        said.append(f"default {parameter.default}")
    return f" ({', '.join(said)})" if said else ""


def _commands(command: Any, path: list[str]) -> Iterator[tuple[list[str], Any]]:
    if hasattr(command, "commands"):
        for name in sorted(command.commands):
            yield from _commands(command.commands[name], [*path, name])
    else:
        yield path, command


def _settings() -> str:
    lines = [
        "# Settings",
        "",
        "Written by `make generate` from the models in `sidecar/settings/`. An unknown key or a bad value stops the process",
        "with file, key, value and what to do. Durations are `50ms`, `10s`, `5m`, `24h`, `7d`; sizes `16KiB`, `4MiB`, `8GiB`;",
        "paths, also those of `unix:PATH`, are relative to the file. Any key outside a list can also come from the",
        "environment: `CUSTOMHOUSE_RECORD__MAX_BYTES=2GiB` is `record.max_bytes`. `[]` marks the items of a list.",
        "",
    ]
    for name, model in (
        ("sidecar.yaml", SidecarSettings), ("oversight.yaml", OversightSettings), ("ledger.yaml", LedgerSettings),
    ):  # fmt: skip
        lines += [f"## {name}", "", "| key | value | default |", "|---|---|---|", *_keys(model, ""), ""]
        lines += ["Of the interface, but not in this version, and refused by name: ", ""]
        lines += [f"* `{key}`: {about}" for key, about in sorted(model.later.items())]
        lines.append("")
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


def _keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        below, many = _below(field.annotation)
        default = "required" if field.is_required() else _default(field)
        if below is None:
            yield f"| `{key}` | {_kind(field.annotation, field.metadata)} | {default} |"
        else:
            key = f"{key}[]" if many else key
            yield f"| `{key}` | {' '.join((below.__doc__ or '').split()).replace('|', chr(92) + '|')} | {default} |"
            yield from _keys(below, f"{key}.")


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        return "as below"
    if isinstance(value, list):
        return ", ".join(f"`{one}`" for one in value) or "none"
    if "_duration" in _validators(field.metadata):
        return f"`{_duration(value)}`"
    if "_size" in _validators(field.metadata):
        return f"`{_size(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else str(value).replace('|', chr(92) + '|')}`"


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= length and seconds % length == 0:
            return f"{int(seconds // length)}{unit}"
    return f"{round(seconds * 1000)}ms"


def _size(size: int) -> str:
    unit = next(unit for unit in ("GiB", "MiB", "KiB", "B") if size % UNITS[unit] == 0)
    return f"{size // UNITS[unit]}{unit}"


def _below(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for part in get_args(annotation):
        found, _ = _below(part)
        if found is not None:
            return found, get_origin(annotation) is list
    return None, False


def _validators(metadata: list[Any]) -> str:
    return " ".join(getattr(getattr(one, "func", None), "__name__", "") for one in metadata)


def _kind(annotation: Any, metadata: list[Any]) -> str:
    validators = _validators(metadata)
    for word, said in KINDS.items():
        if word in validators:
            return said + _bounds(metadata, word)
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *rest = get_args(annotation)
        return _kind(inner, [*metadata, *rest])
    if origin is Literal:
        return " · ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (Union, UnionType):
        return _kind(next(part for part in get_args(annotation) if part is not type(None)), metadata)
    if origin is list:
        return f"list of: {_kind(get_args(annotation)[0], [])}"
    pieces = [piece for one in metadata for piece in getattr(one, "metadata", [one])]
    pattern = next((one for piece in pieces if (one := getattr(piece, "pattern", None))), None)
    if pattern is not None:
        return f"text like `{pattern}`".replace("|", "\\|")
    said = {str: "text", int: "whole number", float: "number", bool: "`true` · `false`"}.get(
        annotation, str(annotation)
    )
    return said + _bounds(metadata, "")


def _bounds(metadata: list[Any], kind: str) -> str:
    """The limits of a number, spelled as its kind is."""
    spell: Any = {"_duration": _duration, "_size": _size}.get(kind, lambda value: f"{value:,}")
    pieces = [piece for one in metadata for piece in getattr(one, "metadata", [one])]
    least = next((one for piece in pieces if (one := getattr(piece, "ge", None)) is not None), None)
    most = next((one for piece in pieces if (one := getattr(piece, "le", None)) is not None), None)
    said = [f"at least {spell(least)}"] if least is not None and (kind == "" or least > 0) else []
    said += [f"at most {spell(most)}"] if most is not None else []
    return f", {', '.join(said)}" if said else ""


def main(mode: str) -> int:
    """Check or write; the exit code."""
    stale = 0
    for name, text in expected().items():
        file = ROOT / name
        found = file.read_text() if file.exists() else ""
        if found == text:
            continue
        if mode == "--write":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            print(f"written: {name}")
            continue
        stale += 1
        print(f"out of date: {name}. Run `make generate` and commit the result.")
        sys.stdout.writelines(
            list(difflib.unified_diff(found.splitlines(True), text.splitlines(True), name, "expected"))[:40]
        )
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
