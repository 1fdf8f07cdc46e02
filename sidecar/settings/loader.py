"""Reads a settings file into its model, or says which key of which file to mend."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, cast, get_args

from pydantic import BaseModel, ValidationError

from sidecar.errors import ConfigurationError
from sidecar.settings.environment import environment as own_environment
from sidecar.settings.settled import Settled
from sidecar.settings.strict_yaml import StrictYamlError, parse
from sidecar.settings.values import Settings

PREFIX = "CUSTOMHOUSE_"
OTHERS = "CUSTOMHOUSE_REVIEW_"
"""Variables of the reviewers' commands, which are no settings."""
MAX_FILE = 1 << 20
_SHOWN = 80

Model = TypeVar("Model", bound=Settings)
Where = tuple[int | str, ...]


def load(path: Path, model: type[Model], environment: Mapping[str, str] | None = None) -> Model:
    """The settings in the file, with `CUSTOMHOUSE_A__B=value` from the environment laid over `a.b`.

    ConfigurationError for an unreadable file, bad YAML, an unknown key or a bad value; it names every one of them.
    """
    tree = _read(path)
    names = _overlay(tree, own_environment() if environment is None else environment)
    try:
        return model.model_validate(tree, context={"base": path.parent})
    except ValidationError as error:
        raise _explained(path, model, error, names) from None


def _read(path: Path) -> dict[object, object]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read: {error.strerror}", where=str(path), fix="Give a settings file with --config."
        ) from None
    if len(data) > MAX_FILE:
        raise ConfigurationError("is larger than 1 MiB, so no settings file", where=str(path))
    try:
        tree = parse(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"is not UTF-8 at byte {error.start}", where=str(path)) from None
    except StrictYamlError as error:
        raise ConfigurationError(f"is not YAML: {error}", where=str(path)) from None
    if not isinstance(tree, dict):
        raise ConfigurationError("holds no mapping", where=str(path), fix="docs/settings.md lists every key.")
    return tree


def _overlay(tree: dict[object, object], environment: Mapping[str, str]) -> dict[Where, str]:
    """Lay the environment over the tree; returns which key came from which variable."""
    names: dict[Where, str] = {}
    for name, text in sorted(environment.items()):
        if not name.startswith(PREFIX) or name.startswith(OTHERS):
            continue
        try:
            value = parse(text)
        except StrictYamlError as error:
            raise ConfigurationError(f"is not YAML: {error}", where=name, fix="Put text in quotes.") from None
        *parents, last = name.removeprefix(PREFIX).lower().split("__")
        place = tree
        for parent in parents:
            below = place.setdefault(parent, {})
            if not isinstance(below, dict):
                raise ConfigurationError("sets a key below something that is no mapping", where=name)
            place = below
        place[last] = value
        names[*parents, last] = name
    return names


def _explained(
    path: Path, model: type[Settings], error: ValidationError, names: Mapping[Where, str]
) -> ConfigurationError:
    lines = []
    for item in error.errors(include_url=False):
        where = item["loc"]
        source = _source(names, where, unknown=item["type"] == "extra_forbidden")
        line = _line(model, where, item["type"], item["msg"], item.get("input"))
        lines.append(line if source is None else f"{line} [set by {source}]")
    more = "" if len(lines) == 1 else f" ({len(lines)} problems)"
    return ConfigurationError("; ".join(lines) + more, where=str(path), fix="docs/settings.md lists every key.")


def _source(names: Mapping[Where, str], where: Where, *, unknown: bool) -> str | None:
    """The variable that set what stands there, or one that made the unknown key there."""
    for end in range(len(where), 0, -1):
        if where[:end] in names:
            return names[where[:end]]
    return next((name for key, name in names.items() if key[: len(where)] == where), None) if unknown else None


def _line(model: type[Settings], where: Where, kind: str, message: str, value: object) -> str:
    dotted = ".".join(str(part) for part in where)
    plain = ".".join(part for part in where if isinstance(part, str))
    if kind == "extra_forbidden":
        if plain in model.later:
            return f"{dotted}: {model.later[plain]} is not in this version; remove the key"
        near = difflib.get_close_matches(str(where[-1]), _known(model, where[:-1]), n=1, cutoff=0.5)
        return f"{dotted}: unknown key" + (f"; did you mean {near[0]!r}?" if near else "")
    if kind == "missing":
        return f"{dotted}: missing"
    return f"{dotted}: {message.removeprefix('Value error, ')}{_shown(value)}"


def _shown(value: object) -> str:
    """What stands there, for people: short values only, cut at 80 characters."""
    if value is None:
        return " (found nothing)"
    if not isinstance(value, str | int | float | bool):
        return f" (found a {'mapping' if isinstance(value, dict) else 'list'})"
    text = repr(value)
    return f" (found {text if len(text) <= _SHOWN else text[:_SHOWN] + '...'})"


def _known(model: type[BaseModel], where: Where) -> list[str]:
    for part in where:
        if isinstance(part, int):
            continue
        field = next((one for name, one in model.model_fields.items() if part == (one.alias or name)), None)
        below = None if field is None else _model_in(field.annotation)
        if below is None:
            return []
        model = below
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)


def settled(settings: Model) -> Model:
    """The same values without pydantic (`Settled`); typed as the model, whose attributes it has."""
    return cast("Model", _settled(settings))


def _settled(value: object) -> object:
    if isinstance(value, BaseModel):
        return Settled({name: _settled(one) for name, one in value})
    if isinstance(value, list | tuple):
        return type(value)(_settled(one) for one in value)
    if isinstance(value, dict):
        return {name: _settled(one) for name, one in value.items()}
    return value
