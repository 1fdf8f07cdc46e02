"""Input documents as people write them: a part of one, on top of a whole one in which nothing is known."""

import copy
import difflib
from collections.abc import Mapping
from typing import Final

import msgspec

from sidecar.decision.strict_json import Json, JsonObject
from sidecar.errors import ConfigurationError
from sidecar.vocabulary import AccessRequest, Action, Environment, Resource, Subject, canonical

NEUTRAL: Final = AccessRequest(
    subject=Subject(), action=Action(), resource=Resource(), context=Environment(time="2026-01-01T00:00:00Z", phase="response")
)  # fmt: skip
"""Every leaf unknown: null, empty or 0. Somebody calls, at this minute, and an answer is about to leave."""


def neutral() -> JsonObject:
    """`NEUTRAL` as JSON."""
    found: JsonObject = msgspec.json.decode(canonical(NEUTRAL))
    return found


def merged(document: JsonObject, part: Mapping[str, Json]) -> JsonObject:
    """The document with a part of another over it: objects are merged, everything else is replaced."""
    result = copy.deepcopy(document)
    for key, value in part.items():
        known = result.get(key)
        result[key] = merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return result


def with_value(document: JsonObject, path: str, value: Json, where: str) -> JsonObject:
    """The document with one path (`subject.person.us_personnel`, `context.exceptions.0.ticket`) set.

    ConfigurationError, naming the nearest path, when the document has no such path.
    """
    result = copy.deepcopy(document)
    here: Json = result
    *parents, last = path.removeprefix("input.").split(".")
    for depth, name in enumerate((*parents, last)):
        if isinstance(here, list) and name.isdigit() and int(name) < len(here):
            if depth == len(parents):
                here[int(name)] = value
            else:
                here = here[int(name)]
        elif isinstance(here, dict) and name in here:
            if depth == len(parents):
                here[name] = value
            else:
                here = here[name]
        else:
            known = list(here) if isinstance(here, dict) else []
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            fix = (
                f"Write {'.'.join((*parents[:depth], *near))}"
                if near
                else "docs/policies/documents.md lists every path"
            )
            raise ConfigurationError("the input document has no such path", where=where, value=path, fix=fix)
    return result


def request(document: JsonObject, where: str) -> AccessRequest:
    """The document, checked. ConfigurationError names the path and what belongs there."""
    try:
        found = msgspec.convert(document, AccessRequest, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            f"not an input document: {error}".replace("$.", ""),
            where=where,
            fix="docs/policies/documents.md lists every path",
        ) from None
    for name, counts in (
        ("context.exposure", found.context.exposure),
        ("resource.dataset.population", found.resource.dataset.population),
    ):
        odd = sorted(set(counts) ^ set(NEUTRAL.context.exposure))
        if odd:
            raise ConfigurationError(
                f"{name} has each category once", where=where, value=odd, fix="Leave it out, or correct the categories"
            )
    return found


def read_request(content: bytes, where: str) -> JsonObject:
    """A document from a file: what it leaves out is unknown. A recorded body (`{"input": …}`) counts by its input."""
    try:
        found = msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"not JSON: {error}", where=where, fix="Give one input document") from None
    if isinstance(found, dict) and isinstance(found.get("input"), dict):
        found = found["input"]
    if not isinstance(found, dict):
        raise ConfigurationError("not a JSON object", where=where, fix="Give one input document")
    return merged(neutral(), found)


def setting(text: str) -> tuple[str, Json]:
    """`path=value` as written on a command line: the value is JSON, or else the text as it stands."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise ConfigurationError("not path=value", where="--set", value=text, fix="Write --set context.ticket=T-1")
    try:
        found: Json = msgspec.json.decode(value)
    except msgspec.DecodeError:
        found = value
    return path, found
