"""JSON for policy data, read so that both engines see the same: UTF-8, no key twice, no fraction, integers of 64 bits."""

import json
from typing import Final, NoReturn

import msgspec

from sidecar.errors import ConfigurationError
from sidecar.json_names import DoubledNameError, once

Json = None | bool | int | str | list["Json"] | dict[str, "Json"]
JsonObject = dict[str, Json]
_MAX_DEPTH: Final = 32
_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1


def parse_object(where: str, content: bytes) -> JsonObject:
    """The JSON object in `content`. Raises ConfigurationError naming `where` and the finding."""
    text = decoded(where, content)

    def fraction(text: str) -> NoReturn:
        raise ConfigurationError(
            "a number is no integer", where=where, value=text, fix="Choose a smaller unit and write integers"
        )

    def integer(text: str) -> int:
        # Longer texts are not converted: that takes quadratic time.
        if len(text) > len(str(_LOWEST)) or not _LOWEST <= int(text) <= _HIGHEST:
            raise ConfigurationError("a number is beyond 64 bits", where=where, value=text[:40], fix="Write it as text")
        return int(text)

    try:
        parsed: Json = json.loads(
            text, object_pairs_hook=once, parse_float=fraction, parse_constant=fraction, parse_int=integer
        )
    except DoubledNameError as error:
        raise ConfigurationError(
            "a key stands twice in one object", where=where, value=error.name, fix="Keep one"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"not JSON: {error}", where=where, fix="Write one JSON object") from None
    if not isinstance(parsed, dict):
        raise ConfigurationError("not a JSON object", where=where, fix="Write one JSON object")
    _check_depth(where, parsed, 0)
    if "\\u" in text:
        _check_whole(where, parsed)
    return parsed


def decoded(where: str, content: bytes) -> str:
    """The text in `content`. ConfigurationError where it is not UTF-8 (given bytes, json.loads would guess further)."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"not UTF-8 at byte {error.start}", where=where, fix="Save it as UTF-8") from None


def _check_whole(where: str, value: Json) -> None:
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError:
        raise ConfigurationError("half a character (a lone surrogate)", where=where, fix="Write whole ones") from None


def _check_depth(where: str, value: Json, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ConfigurationError(f"nested deeper than {_MAX_DEPTH}", where=where, fix="Flatten the data")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        _check_depth(where, one, depth + 1)


def merge(where: str, into: JsonObject, more: JsonObject, path: str = "data") -> None:
    """Add `more` to `into`. Raises ConfigurationError where both say something about one path."""
    for key, value in more.items():
        here = f"{path}.{key}"
        known = into.get(key)
        if key not in into:
            into[key] = value
        elif isinstance(known, dict) and isinstance(value, dict):
            merge(where, known, value, here)
        else:
            raise ConfigurationError("two files define one data path", where=where, value=here, fix="Keep one of them")
