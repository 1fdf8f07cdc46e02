"""HTTP requests with JSON, as calls of described methods: the `routes` of `describe.resources`.

A route names a method of the API; the request's path, query and JSON body fill its request message in the way of
`google.api.http` (googleapis google/api/http.proto) and the ProtoJSON mapping, and the JSON answer is read as its answer
message. So an HTTP service is described, decided, filtered and recorded by the very annotations a gRPC one has.

* Everything the service would see has been read: a query key, a body key or an answer key that the message does not
  have is refused, so is a value given twice, a second JSON key of the same name, and a body where none belongs.
* A path is matched segment by segment after percent-decoding; empty and dot segments match nothing.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import Message

from sidecar.attributes.entities import Route
from sidecar.attributes.resource import Describer, MethodDescription
from sidecar.errors import Code, ConfigurationError, InterceptError, StageError

_HTTP = re.compile(r"(GET|PUT|POST|PATCH|DELETE) (/\S*)")
_VARIABLE = re.compile(r"\{([a-z_][a-z0-9_]*(?:\.[a-z_][a-z0-9_]*)*)\}")
_WITHOUT_BODY = frozenset({"GET", "DELETE"})
_MOST_SEGMENTS = 64
_DEEPEST = 64
Descriptor = Any
"""A `google.protobuf.descriptor.Descriptor`; its C implementation is another class."""
Json = Any
"""A value as `json.loads` gives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as a call. `method` is "/package.Service/Method", `message` the request message's bytes."""

    method: str
    message: bytes


class HttpRoute:
    """One route, ready."""

    def __init__(self, route: Route, described: MethodDescription, where: str) -> None:
        """ConfigurationError for a template that cannot be, and for a variable that is no field."""
        found = _HTTP.fullmatch(route.http)
        if found is None:
            raise ConfigurationError(
                "no HTTP method and path", where=where, value=route.http, fix='Write "GET /v1/things/{id}".'
            )
        if not described.unary:
            raise ConfigurationError("a streaming method is no HTTP route", where=where, value=route.rpc)
        self.verb, self.template, self.method = found[1], found[2], described.path
        self._request, self._answer = described.request.plan.new, described.answer.plan.new
        self.segments = tuple(_segment(one, where) for one in found[2].removeprefix("/").split("/"))
        for variable in self.variables:
            _field_at(self._request.DESCRIPTOR, variable.split("."), where)

    @property
    def variables(self) -> tuple[str, ...]:
        """The fields that stand in the path."""
        return tuple(one.path for one in self.segments if isinstance(one, _Variable))

    @property
    def shape(self) -> tuple[str, ...]:
        """What two routes may not have in common."""
        return (self.verb, *("{}" if isinstance(one, _Variable) else one for one in self.segments))

    def matches(self, verb: str, path: Sequence[str]) -> dict[str, str] | None:
        """The path's variables, or None for another route's path."""
        if verb != self.verb or len(path) != len(self.segments):
            return None
        found: dict[str, str] = {}
        for wanted, given in zip(self.segments, path, strict=True):
            if isinstance(wanted, _Variable):
                found[wanted.path] = given
            elif wanted != given:
                return None
        return found

    def request(self, found: Mapping[str, str], query: str, body: bytes) -> Asked:
        """The request message. InterceptError INVALID_ARGUMENT for anything in it that the message does not have."""
        tree: dict[str, Json] = {}
        if body:
            if self.verb in _WITHOUT_BODY:
                raise _bad(f"a {self.verb} request carries no body here")
            tree = _object(body, "the body")
        descriptor = self._request.DESCRIPTOR
        for path, value in found.items():
            _put(tree, descriptor, path, [value])
        pairs: dict[str, list[str]] = {}
        try:
            for key, value in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=256):
                pairs.setdefault(key, []).append(value)
        except ValueError:
            raise _bad("the query cannot be read") from None
        for key, values in pairs.items():
            _put(tree, descriptor, key, values)
        return Asked(method=self.method, message=_encoded(_parsed(self._request(), tree)))

    def answer(self, body: bytes) -> bytes:
        """The answer message's bytes. InterceptError where the JSON holds what the message does not have."""
        return _encoded(_parsed(self._answer(), _object(body, "the answer")))

    def shown(self, body: bytes, released: bytes) -> bytes:
        """The service's own JSON with what was withheld taken out; the same bytes where nothing was."""
        given = _object(body, "the answer")
        before = _parsed(self._answer(), given)
        after = self._answer.FromString(released)
        if before == after:
            return body
        return json.dumps(_pruned(given, _tree(before), _tree(after)), ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class _Variable:
    path: str


class Routes:
    """All routes of a sidecar."""

    def __init__(self, routes: Iterable[Route], describer: Describer, where: str) -> None:
        """ConfigurationError for an unknown or undescribed method, and for two routes of one shape."""
        self._routes: list[HttpRoute] = []
        shapes: set[tuple[str, ...]] = set()
        for number, one in enumerate(routes):
            at = f"{where}: routes.{number}"
            try:
                described = describer.method(f"/{one.rpc}")
            except StageError as error:
                raise ConfigurationError(error.operator or str(error), where=f"{at}.rpc", value=one.rpc) from None
            route = HttpRoute(one, described, at)
            if route.shape in shapes:
                raise ConfigurationError("two routes of one shape", where=at, value=one.http, fix="Keep one of them.")
            shapes.add(route.shape)
            self._routes.append(route)

    def find(self, verb: str, path: str) -> tuple[HttpRoute, dict[str, str]]:
        """The route of a request and its path's variables. InterceptError UNIMPLEMENTED where no route is meant."""
        segments = [unquote(one, errors="strict") for one in _split(path)]
        if segments and not any(one in ("", ".", "..") or "/" in one for one in segments):
            matching = [
                (route, found) for route in self._routes if (found := route.matches(verb, segments)) is not None
            ]
            if matching:  # the one with the fewest variables is the one that says the most
                return min(matching, key=lambda one: len(one[1]))
        raise InterceptError(
            "unknown route", code=Code.UNIMPLEMENTED,
            operator=f"{verb} {path[:200]} is no route of describe.resources. Add it, with the method it stands for.",
        )  # fmt: skip

    def match(self, verb: str, target: str, body: bytes) -> Asked:
        """A request by its method, its target (path and query, RFC 9112 origin-form) and body, as a call."""
        path, _, query = target.partition("?")
        route, found = self.find(verb, path)
        return route.request(found, query, body)


def _split(path: str) -> list[str]:
    if not path.startswith("/") or path.count("/") > _MOST_SEGMENTS:
        return []
    try:
        unquote(path, errors="strict")
    except UnicodeDecodeError:
        return []
    return path.removeprefix("/").split("/")


def _segment(text: str, where: str) -> str | _Variable:
    variable = _VARIABLE.fullmatch(text)
    if variable is not None:
        return _Variable(variable[1])
    if "{" in text or "}" in text or text in ("", ".", ".."):
        raise ConfigurationError("not a path segment", where=where, value=text, fix="Write a word, or {field}.")
    return text


def _field_at(descriptor: Descriptor, path: Sequence[str], where: str) -> None:
    field = descriptor.fields_by_name.get(path[0])
    if field is None:
        raise ConfigurationError("no such field in the request", where=where, value=".".join(path))
    if len(path) > 1:
        if field.message_type is None or field.is_repeated:
            raise ConfigurationError("the field holds no single message", where=where, value=path[0])
        _field_at(field.message_type, path[1:], where)


def _put(tree: dict[str, Json], descriptor: Descriptor, path: str, values: list[str]) -> None:
    """Values from path or query at a field path; refused where anything stands there already."""
    head, *rest = path.split(".")
    field = descriptor.fields_by_name.get(head) or descriptor.fields_by_camelcase_name.get(head)
    if field is None:
        raise _bad(f"{head[:64]!r} is no field of the request")
    names = [name for name in (field.name, field.json_name, field.camelcase_name) if name in tree]
    if rest:
        if field.message_type is None or field.is_repeated:
            raise _bad(f"{head!r} holds no single message")
        inner = tree.setdefault(names[0] if names else field.name, {})
        if not isinstance(inner, dict):
            raise _bad(f"{head!r} is given twice")
        _put(inner, field.message_type, ".".join(rest), values)
        return
    if names or (len(values) > 1 and not field.is_repeated):
        raise _bad(f"{head!r} is given twice")
    read = [_scalar(field, value) for value in values]
    tree[field.name] = read if field.is_repeated else read[0]


def _scalar(field: FieldDescriptor, value: str) -> Json:
    """As ProtoJSON would have it: numbers may be text there, booleans may not."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if value not in ("true", "false"):
            raise _bad(f"{field.name!r} is true or false")
        return value == "true"
    return value


def _object(data: bytes, what: str) -> dict[str, Json]:
    def once(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise _bad(f"{what} holds a key twice")
        return found

    try:
        loaded = json.loads(data.decode("utf-8"), object_pairs_hook=once)
    except (ValueError, RecursionError):
        loaded = None
    if not isinstance(loaded, dict):
        raise _bad(f"{what} is no JSON object")
    return loaded


def _parsed(message: Message, tree: Json) -> Message:
    try:
        parsed: Message = ParseDict(tree, message, max_recursion_depth=_DEEPEST)
    except (ParseError, ValueError, TypeError, RecursionError):
        raise _bad(f"the JSON is no {message.DESCRIPTOR.full_name}") from None
    _distinct(message.DESCRIPTOR, tree)
    return parsed


def _distinct(descriptor: Descriptor, tree: Json) -> None:
    """Refuse a field under two of its names: the parser takes the last, and the other would never have been seen."""
    if not isinstance(tree, dict) or descriptor.full_name.startswith("google.protobuf."):
        return
    seen: set[int] = set()
    names = {name: one for one in descriptor.fields for name in (one.name, one.json_name)}
    for key, value in tree.items():
        field = names[key]
        if field.number in seen:
            raise _bad(f"{field.name!r} is given under two names")
        seen.add(field.number)
        inner = field.message_type
        if inner is None:
            continue
        if inner.GetOptions().map_entry:
            inner, value = inner.fields_by_name["value"].message_type, list((value or {}).values())  # noqa: PLW2901
        for one in value if isinstance(value, list) else [value]:
            if inner is not None:
                _distinct(inner, one)


def _tree(message: Message) -> Json:
    return MessageToDict(message)


def _encoded(message: Message) -> bytes:
    return message.SerializePartialToString(deterministic=True)


def _pruned(given: Json, before: Json, after: Json) -> Json:
    """`given`, as the service wrote it, where before and after agree; what is left after the filter elsewhere."""
    if before == after:
        return given
    if isinstance(given, dict) and isinstance(before, dict) and isinstance(after, dict):
        return {
            key: _pruned(value, before.get(name), after[name])
            for key, value in given.items()
            if (name := _named(key, before, after)) in after
        }
    same = isinstance(given, list) and isinstance(before, list) and isinstance(after, list)
    if same and len(given) == len(before) == len(after):
        return [_pruned(*one) for one in zip(given, before, after, strict=True)]
    return after


def _named(key: str, before: Mapping[str, Json], after: Mapping[str, Json]) -> str:
    """The key as ProtoJSON writes it: services may use the field's own name."""
    if key in before or key in after:
        return key
    head, *rest = key.split("_")
    return head + "".join(one[:1].upper() + one[1:] for one in rest)


def _bad(what: str) -> InterceptError:
    return InterceptError(what, code=Code.INVALID_ARGUMENT)
