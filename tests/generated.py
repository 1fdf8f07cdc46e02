"""Generated files: `python -m tests.generated --check` fails when one is out of date, `--write` makes them anew.

The protobuf modules, the command line reference (docs/command-line.md) and the settings reference (docs/settings.md).
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
from pydantic_core import PydanticUndefined

from sidecar.cli.app import app
from sidecar.settings.oversight import OversightSettings
from sidecar.settings.sidecar import SidecarSettings

ROOT = Path(__file__).resolve().parent.parent
PROTOS = {
    "sidecar/api/v1/annotations.proto": False,
    "sidecar/api/v1/oversight.proto": True,
    "sidecar/demo/profiles/v1/profiles.proto": True,
}
"""Proto file -> whether it holds services."""


def expected() -> dict[str, str]:
    """Path below the root -> what the file should hold."""
    return {**_protobuf(), "docs/command-line.md": _command_line(), "docs/settings.md": _settings()}


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
    lines = ["# The command line", "", "Written by `make generate` from the program itself.", ""]
    for path, command in _commands(typer.main.get_command(app), ["sidecar"]):
        lines += [f"## {' '.join(path)}", "", command.help or "", ""]
        for parameter in command.params:
            names = " ".join(parameter.opts) if parameter.param_type_name == "option" else str(parameter.metavar or parameter.name)
            if "--help" in names:
                continue
            need = " (required)" if parameter.required else ""
            lines.append(f"* `{names}`{need}: {getattr(parameter, 'help', '') or ''}")
        lines.append("")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _commands(command: Any, path: list[str]) -> Iterator[tuple[list[str], Any]]:
    if hasattr(command, "commands"):
        for name in sorted(command.commands):
            yield from _commands(command.commands[name], [*path, name])
    else:
        yield path, command


def _settings() -> str:
    lines = ["# Settings", "", "Written by `make generate` from the models in `sidecar/settings/`. An unknown key stops the",
             "process. Durations are `50ms`, `10s`, `5m`, `24h`, `7d`; sizes `4MiB`, `8GiB`; paths are relative to the file.",
             "Any key can also come from the environment: `CUSTOMHOUSE_RECORD__MAX_BYTES=2GiB` is `record.max_bytes`.", ""]
    for name, model in (("sidecar.yaml", SidecarSettings), ("oversight.yaml", OversightSettings)):
        lines += [f"## {name}", "", "| key | value | default |", "|---|---|---|"]
        lines += list(_keys(model, ""))
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        below, many = _below(field.annotation)
        needed = field.is_required()
        default = "required" if needed else _default(field)
        if below is not None:
            yield f"| `{key}{'[]' if many else ''}` | {(below.__doc__ or '').strip().splitlines()[0]} | {default} |"
            yield from _keys(below, f"{key}{'[]' if many else ''}.")
        else:
            yield f"| `{key}` | {_kind(field.annotation, field.metadata)} | {default} |"


def _default(field: Any) -> str:
    value = field.default
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return ""
    shown = str(value).replace("|", "\\|")
    return "none" if value is None else f"`{shown}`"


def _below(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for part in get_args(annotation):
        found, _ = _below(part)
        if found is not None:
            return found, get_origin(annotation) is list
    return None, False


def _kind(annotation: Any, metadata: list[Any]) -> str:
    validators = " ".join(getattr(getattr(one, "func", None), "__name__", "") for one in metadata)
    for word in ("duration", "size", "path"):
        if f"_{word}" in validators:
            return word
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *rest = get_args(annotation)
        return _kind(inner, [*metadata, *rest])
    if origin is Literal:
        return " · ".join(f"`{value}`" for value in get_args(annotation))
    if origin in (Union, UnionType):
        return _kind(next(part for part in get_args(annotation) if part is not type(None)), metadata)
    if origin is list:
        return f"list of {_kind(get_args(annotation)[0], [])}"
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}.get(annotation, str(annotation))


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
        sys.stdout.writelines(list(difflib.unified_diff(found.splitlines(True), text.splitlines(True), name, "expected"))[:40])
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
