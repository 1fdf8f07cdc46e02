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
from google.protobuf.message import Message

from sidecar.attributes.entities import Route
from sidecar.attributes.resource import Describer, MethodDescription
from sidecar.errors import Code, ConfigurationError, InterceptError, StageError
from sidecar.json_names import DoubledNameError, once

_HTTP = re.compile(r"(GET|PUT|POST|PATCH|DELETE) (/\S*)")
_VARIABLE = re.compile(r"\{([a-z_][a-z0-9_]*(?:\.[a-z_][a-z0-9_]*)*)\}")
_WITHOUT_BODY = frozenset({"GET", "DELETE"})
_NUMBER = re.compile(r"[-+0-9.eE]+|NaN|-?Infinity")
_KEY = re.compile(r"0|-?[1-9][0-9]*|true|false")
_BASE64 = re.compile(r"[A-Za-z0-9+/_=-]*")
_EXACT = 1 << 53
"""From it on, a number with a fraction or an exponent may have been another when it was written."""
_FLOATS = frozenset({FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT})
_UTF8 = frozenset({"charset=utf-8", 'charset="utf-8"'})
_MOST_SEGMENTS = 64
_DEEPEST = 64
_WRAPPERS = frozenset(f"google.protobuf.{kind}Value" for kind in (
    "Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes"
))  # fmt: skip
_SPELLINGS: Mapping[int, re.Pattern[str]] = {
    **dict.fromkeys((
        FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_UINT32, FieldDescriptor.TYPE_FIXED32,
        FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED32, FieldDescriptor.TYPE_SFIXED64,
        FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SINT64,
    ), _NUMBER),
    FieldDescriptor.TYPE_BYTES: _BASE64,
}  # fmt: skip
"""How a value may stand as text, by the field's type: the parser takes more than ProtoJSON, each parser in its own way."""
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

    def rivals(self, other: "HttpRoute") -> bool:
        """Whether a request may fit both, with as many variables: the service may take it for either."""
        return (
            (self.verb, len(self.segments), len(self.variables))
            == (other.verb, len(other.segments), len(other.variables))
            and all(
                one == two or isinstance(one, _Variable) or isinstance(two, _Variable)
                for one, two in zip(self.segments, other.segments, strict=True)
            )
        )  # fmt: skip

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
        if ";" in query:
            raise _bad("a semicolon in the query is written %3B: some services split there")
        try:
            for key, value in parse_qsl(
                query, keep_blank_values=True, strict_parsing=bool(query), errors="strict", max_num_fields=256
            ):
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


def check_content(headers: Iterable[tuple[str, str]], body: bytes) -> None:
    """InterceptError for a body that a service might read as anything else than the JSON that is read here."""
    kinds: list[str] = []
    for key, value in headers:
        if key == "content-encoding" and value.strip().lower() not in ("", "identity"):
            raise _bad("a body in a content-encoding is not read here")
        if key == "content-type":
            kinds.append(value)
    if not body:
        return
    media, *said = [part.strip().lower() for part in ",".join(kinds).split(";")]
    if media != "application/json" or not _UTF8.issuperset(one for one in said if one):
        raise _bad("the body is not application/json")


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
            for other in self._routes:
                if route.rivals(other):
                    raise ConfigurationError("two routes may mean the same request, and neither says more", where=at,
                                             value=f"{one.http}, {other.verb} {other.template}",
                                             fix="Keep one of them.")  # fmt: skip
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
    if not path.startswith("/") or path.count("/") > _MOST_SEGMENTS or "#" in path:
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
    try:
        loaded = json.loads(data.decode("utf-8"), object_pairs_hook=once)
    except DoubledNameError:
        raise _bad(f"{what} holds a key twice") from None
    except (ValueError, RecursionError):
        loaded = None
    if not isinstance(loaded, dict):
        raise _bad(f"{what} is no JSON object")
    return loaded


def _parsed(message: Message, tree: Json) -> Message:
    from google.protobuf.json_format import ParseDict, ParseError  # noqa: PLC0415 - only some sidecars have such routes

    try:
        parsed: Message = ParseDict(tree, message, max_recursion_depth=_DEEPEST)
    except (ParseError, ValueError, TypeError, RecursionError):
        raise _bad(f"the JSON is no {message.DESCRIPTOR.full_name}") from None
    _distinct(message.DESCRIPTOR, tree)
    return parsed


def _distinct(descriptor: Descriptor, tree: Json) -> None:
    """Refuse a field under two of its names: the parser takes the last, and the other would never have been seen.

    Likewise what it reads in a way of its own: two spellings of one map key, digits of other scripts, gaps in base64.
    """
    if not isinstance(tree, dict) or descriptor.full_name.startswith("google.protobuf."):
        return
    seen: set[int] = set()
    # As the parser looks them up: a field's own name only where it is no other's in JSON.
    names = {one.name: one for one in descriptor.fields} | {one.json_name: one for one in descriptor.fields}
    for key, value in tree.items():
        field = names.get(key)
        if field is None:
            raise _bad(f"{key[:64]!r} is no field of {descriptor.full_name}")
        if field.number in seen:
            raise _bad(f"{field.name!r} is given under two names")
        seen.add(field.number)
        given = value if isinstance(value, list) else [value]
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            field, given = _entries(field, value or {})
        for one in given:
            _plain(field, one)


def _entries(field: Any, value: Mapping[str, Json]) -> tuple[Any, list[Json]]:
    """What a map holds: the field of its values, and those. InterceptError for a key in another spelling."""
    entry = field.message_type.fields_by_name
    if entry["key"].cpp_type != FieldDescriptor.CPPTYPE_STRING and not all(map(_KEY.fullmatch, value)):
        raise _bad(f"{field.name!r} has a key in a spelling of its own")
    return entry["value"], list(value.values())


def _plain(field: Any, value: Json) -> None:
    inner = field.message_type
    if inner is not None and inner.full_name in _WRAPPERS:
        field, inner = inner.fields_by_name["value"], None
    if inner is not None:
        _distinct(inner, value)
        return
    wanted = _SPELLINGS.get(field.type)
    rounded = isinstance(value, float) and abs(value) >= _EXACT and field.cpp_type not in _FLOATS
    if rounded or (isinstance(value, str) and wanted is not None and not wanted.fullmatch(value)):
        raise _bad(f"{field.name!r} is written in a way of its own")


def _tree(message: Message) -> Json:
    from google.protobuf.json_format import MessageToDict  # noqa: PLC0415 - as above

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
