"""Reads a settings file into its model, or says which key of which file to mend."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from sidecar.errors import ConfigurationError

PREFIX = "CUSTOMHOUSE_"
MAX_FILE = 1 << 20
LATER = {
    "ledger": "the rolling ledger",
    "shadow": "shadow policies",
    "identity.authorizations": "exemptions and licences",
    "decision.opa": "the OPA engine",
    "decision.verify_with": "a second engine",
    "decision.sample": "a second engine",
    "policy.keys": "signed bundles",
    "witnesses": "witnesses",
    "oidc": "reviewers' sign-on",
}
"""Keys of the interface that this version does not read: named, so that nobody believes they are in force."""

Model = TypeVar("Model", bound=BaseModel)


class _UniqueKeys(yaml.SafeLoader):
    """YAML where a key given twice is an error: the second would silently win."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[object, object]:
    seen: set[object] = set()
    for key, _ in node.value:
        if key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark)
        seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load(path: Path, model: type[Model], environment: Mapping[str, str] | None = None) -> Model:
    """The settings in the file, with `CUSTOMHOUSE_A__B=value` from the environment laid over `a.b`.

    ConfigurationError for an unreadable file, bad YAML, an unknown key or a bad value; it names every one of them.
    """
    tree = _read(path)
    _overlay(tree, os.environ if environment is None else environment)  # noqa: TID251 - the one home of the environment
    try:
        return model.model_validate(tree, context={"base": path.parent})
    except ValidationError as error:
        raise _explained(path, model, error) from None


def _read(path: Path) -> dict[str, object]:
    try:
        if path.stat().st_size > MAX_FILE:
            raise ConfigurationError("settings file is larger than 1 MiB", where=str(path))
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read: {error.strerror}", where=str(path), fix="Give a settings file with --config."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"is not YAML: {' '.join(str(error).split())}", where=str(path)) from None
    if not isinstance(tree, dict):
        raise ConfigurationError("holds no mapping", where=str(path), fix="Start from the README's example.")
    return tree


def _overlay(tree: dict[str, object], environment: Mapping[str, str]) -> None:
    for name, value in sorted(environment.items()):
        if not name.startswith(PREFIX):
            continue
        *parents, last = name.removeprefix(PREFIX).lower().split("__")
        place = tree
        for parent in parents:
            below = place.setdefault(parent, {})
            if not isinstance(below, dict):
                raise ConfigurationError("sets a key below something that is no mapping", where=name, value=value)
            place = below
        place[last] = yaml.safe_load(value)


def _explained(path: Path, model: type[BaseModel], error: ValidationError) -> ConfigurationError:
    lines = [_line(model, item["loc"], item["type"], item["msg"], item.get("input")) for item in error.errors()]
    more = "" if len(lines) == 1 else f" ({len(lines)} problems)"
    return ConfigurationError("; ".join(lines) + more, where=str(path), fix="`sidecar check-config` checks the file.")


def _line(model: type[BaseModel], where: tuple[int | str, ...], kind: str, message: str, value: object) -> str:
    dotted = ".".join(str(part) for part in where)
    if kind == "extra_forbidden":
        plain = ".".join(part for part in where if isinstance(part, str))
        if plain in LATER:
            return f"{dotted}: {LATER[plain]} is not in this version; remove the key"
        near = difflib.get_close_matches(str(where[-1]), _known(model, where[:-1]), n=1)
        return f"{dotted}: unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
    if kind == "missing":
        return f"{dotted}: missing"
    shown = f" (found {value!r})" if isinstance(value, str | int | float | bool) else ""
    return f"{dotted}: {message.removeprefix('Value error, ')}{shown}"


def _known(model: type[BaseModel], where: tuple[int | str, ...]) -> list[str]:
    for part in where:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        below = None if field is None else _model_in(field.annotation)
        if below is None:
            return []
        model = below
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)


def environment() -> Mapping[str, str]:
    """The process's environment, for the standard `OTEL_*` variables."""
    return os.environ  # noqa: TID251 - the one home of the environment
