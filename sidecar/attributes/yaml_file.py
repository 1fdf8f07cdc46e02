"""YAML that operators write about their API, read strictly: a key once, a known key, text where text is meant."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sidecar.attributes.words import nearest
from sidecar.errors import ConfigurationError


def contents(path: Path, what: str) -> str:
    """The text of a file. ConfigurationError says that `what` cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{what} cannot be read: {error}", where=str(path)) from None


def loaded(text: str, where: str) -> Any:
    """What a YAML text holds; an empty mapping where it holds nothing. `where` names it in errors."""
    try:
        found = yaml.load(text, Loader=_Strict)  # noqa: S506 - a SafeLoader that also refuses duplicate keys
    except yaml.YAMLError as error:
        raise ConfigurationError(f"this is not valid YAML: {error}", where=where) from None
    return {} if found is None else found


def mapping(value: object, keys: tuple[str, ...], where: str) -> dict[str, Any]:
    """The value, a mapping with none but these keys. ConfigurationError names the nearest known one."""
    if not isinstance(value, dict):
        raise ConfigurationError("a mapping is expected", where=where, value=value, fix=nearest("", keys))
    for key in value:
        if key not in keys:
            raise ConfigurationError("unknown key", where=where, value=key, fix=nearest(key, keys))
    return value


def text(written: Mapping[str, Any], key: str, where: str, *, required: bool = False) -> str:
    """The text at a key, empty when it is not there. ConfigurationError for anything else."""
    value = written.get(key, "")
    if not isinstance(value, str) or (required and not value):
        raise ConfigurationError("text is expected", where=f"{where}.{key}", value=value)
    return value


class _Strict(yaml.SafeLoader):
    """Refuses a key given twice, where YAML would silently keep the last."""


def _unique(loader: _Strict, node: yaml.MappingNode) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str) or key in found:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} stands twice or is no text", key_node.start_mark
            )
        found[key] = loader.construct_object(value_node, deep=True)
    return found


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique)
