"""AuthZEN's JSON, read strictly where two readers could differ, and leniently where the specification says so.

Refused: no UTF-8, no object, a key that stands twice, nesting beyond 16, numbers that are none, half a character.
Ignored: members that nobody here knows (Authorization API 1.0, "Information Model").
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NoReturn

import msgspec

from sidecar.json_names import DoubledNameError, once

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
JsonObject = dict[str, Json]
MAX_DEPTH: Final = 16
_MAX_NUMBER: Final = 32
_MAX_ID: Final = 1024
_MAX_WORD: Final = 256
_encode = msgspec.json.Encoder().encode


class MalformedError(ValueError):
    """What was sent is no question. Says why; repeats nothing of what was sent but names of members."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """A subject or resource. `id` is empty only where a search leaves it out."""

    type: str
    id: str
    properties: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """An action."""

    name: str
    properties: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Subject, action, resource, context: one Access Evaluation."""

    subject: Entity
    action: Word
    resource: Entity
    context: Mapping[str, Json] = field(default_factory=dict)


def parse(body: bytes) -> JsonObject:
    """The JSON object in a body. MalformedError."""
    if not body:
        raise MalformedError("the body is empty")
    try:
        text = body.decode("utf-8")
        found: Json = json.loads(
            text, object_pairs_hook=once, parse_constant=_no_number, parse_int=_integer, parse_float=_fraction
        )
    except UnicodeDecodeError:
        raise MalformedError("the body is not UTF-8") from None
    except DoubledNameError:
        raise MalformedError("a key stands twice in one object") from None
    except MalformedError:
        raise
    except (ValueError, RecursionError):
        raise MalformedError("the body is not JSON") from None
    if not isinstance(found, dict):
        raise MalformedError("the body is not a JSON object")
    _check_depth(found)
    try:
        _encode(found)
    except UnicodeEncodeError:
        raise MalformedError("half a character (a lone surrogate)") from None
    return found


def written(value: object) -> bytes:
    """JSON bytes."""
    return _encode(value)


def question(said: Mapping[str, Json], defaults: Mapping[str, Json] | None = None) -> Question:
    """A whole question. MalformedError.

    `defaults`: what stands beside `evaluations`. An entity of the item's own replaces the default as a whole; only a
    required member that it lacks comes from there (certification scenario, "Batch with default value merging").
    """
    whole = _with_defaults(said, defaults)
    return Question(
        subject=entity(whole, "subject"), action=word(whole), resource=entity(whole, "resource"), context=context(whole)
    )


def entity(said: Mapping[str, Json], name: str, *, named: bool = True) -> Entity:
    """`subject` or `resource`; where not `named`, an id may be missing and counts for nothing."""
    found = member(said, name)
    return Entity(
        type=text(found, "type", name, _MAX_WORD), id=text(found, "id", name, _MAX_ID) if named else "",
        properties=_object(found, "properties", name),
    )  # fmt: skip


def word(said: Mapping[str, Json]) -> Word:
    """`action`."""
    found = member(said, "action")
    return Word(name=text(found, "name", "action", _MAX_WORD), properties=_object(found, "properties", "action"))


def context(said: Mapping[str, Json]) -> Mapping[str, Json]:
    """`context`, or an empty one."""
    return _object(said, "context", "")


def member(said: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    """A member that is an object and has to be there."""
    found = said.get(name)
    if not isinstance(found, dict):
        raise MalformedError(f"{name} is missing" if found is None else f"{name} is not an object")
    return found


def text(said: Mapping[str, Json], key: str, where: str, most: int = _MAX_WORD) -> str:
    """A string that has to be there."""
    found = said.get(key)
    name = f"{where}.{key}" if where else key
    if found is None:
        raise MalformedError(f"{name} is missing")
    if not isinstance(found, str):
        raise MalformedError(f"{name} is not a string")
    if not 0 < len(found) <= most:
        raise MalformedError(f"{name} is empty or longer than {most}")
    return found


def optional_text(said: Mapping[str, Json], key: str, where: str) -> str | None:
    """A string, or None where there is none."""
    return None if said.get(key) is None else text(said, key, where)


def _object(said: Mapping[str, Json], key: str, where: str) -> Mapping[str, Json]:
    found = said.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise MalformedError(f"{where}.{key} is not an object" if where else f"{key} is not an object")
    return found


_REQUIRED = {"subject": ("type", "id"), "action": ("name",), "resource": ("type", "id"), "context": ()}


def _with_defaults(said: Mapping[str, Json], defaults: Mapping[str, Json] | None) -> Mapping[str, Json]:
    if defaults is None:
        return said
    whole: dict[str, Json] = {}
    for name, required in _REQUIRED.items():
        own, other = said.get(name), defaults.get(name)
        if isinstance(own, dict) and isinstance(other, dict):
            whole[name] = {**{key: other[key] for key in required if key in other}, **own}
        else:
            whole[name] = other if own is None else own
    return whole


def _no_number(_text: str) -> NoReturn:
    raise MalformedError("NaN and Infinity are no JSON")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_NUMBER:  # longer ones take quadratic time
        raise MalformedError("a number is too long")
    return int(digits)


def _fraction(digits: str) -> float:
    if len(digits) > _MAX_NUMBER:
        raise MalformedError("a number is too long")
    return float(digits)


def _check_depth(value: Json) -> None:
    level: list[Json] = [value]
    for _ in range(MAX_DEPTH):
        deeper: list[Json] = []
        for one in level:
            if isinstance(one, dict):
                deeper.extend(one.values())
            elif isinstance(one, list):
                deeper.extend(one)
        if not deeper:
            return
        level = deeper
    raise MalformedError(f"nested deeper than {MAX_DEPTH}")
