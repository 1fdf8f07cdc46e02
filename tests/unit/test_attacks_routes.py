"""Attacks with HTTP requests: what one parser reads in one way, and the service behind it in another."""

import json

import pytest
from trial_api import compile_text, describer

from sidecar.attributes.entities import Route
from sidecar.attributes.routes import HttpRoute, Routes, check_content
from sidecar.errors import ConfigurationError, InterceptError

pytestmark = pytest.mark.unit
API = """
import "google/protobuf/wrappers.proto";
service S {
  rpc Get(Who) returns (Answer) { option (sidecar.api.v1.access) = {action: "read" resource: "r" subject: REQUEST_FIELD}; }
  rpc Put(Who) returns (Answer) { option (sidecar.api.v1.access) = {action: "write" resource: "r" subject: REQUEST_FIELD}; }
}
message Who {
  int64 id = 1 [(sidecar.api.v1.subject_id) = {}];
  string a = 2 [json_name = "b", (sidecar.api.v1.data) = {category: "coarse_location"}];
  string b = 3 [json_name = "c", (sidecar.api.v1.data) = {category: "coarse_location"}];
  map<int32, string> notes = 4 [(sidecar.api.v1.data) = {category: "coarse_location"}];
  map<bool, Who> by = 5;
  bytes raw = 6 [(sidecar.api.v1.data) = {category: "coarse_location"}];
  google.protobuf.Int64Value wrapped = 7 [(sidecar.api.v1.data) = {category: "coarse_location"}];
  double size = 8 [(sidecar.api.v1.data) = {category: "coarse_location"}];
  repeated Who more = 9;
}
message Answer {
  int64 id = 1 [(sidecar.api.v1.subject_id) = {}];
  string mail_address = 2 [(sidecar.api.v1.data) = {category: "id_contact"}];
  map<string, Mail> mails = 3;
  repeated Mail list = 4;
  int32 count = 5 [(sidecar.api.v1.data) = {category: "coarse_location"}];
  string text = 6 [json_name = "mail_address2", (sidecar.api.v1.data) = {category: "id_contact"}];
}
message Mail {
  string mail = 1 [(sidecar.api.v1.data) = {category: "id_contact"}];
  string town = 2 [(sidecar.api.v1.data) = {category: "coarse_location"}];
}
"""
PUT, GET = Route(http="PUT /who", rpc="t.S/Put"), Route(http="GET /who/{id}", rpc="t.S/Get")


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    return describer(compile_text(tmp_path_factory.mktemp("api"), API))


@pytest.fixture(scope="module")
def routes(api):
    return Routes([PUT, GET], api, "r.yaml")


@pytest.fixture(scope="module")
def shown(api) -> HttpRoute:
    return HttpRoute(PUT, api.method("/t.S/Put"), "r.yaml")


def put(routes, tree):
    return routes.match("PUT", "/who", tree if isinstance(tree, bytes) else json.dumps(tree).encode())


@pytest.mark.parametrize(
    "tree",
    [
        {"b": "seen by one", "a": "seen by the other"},  # `b` is the JSON name of a, which is no way to hide a second a
        {"more": [{"b": "1", "a": "2"}]},
        {"notes": {"1": "x", "01": "y"}},
        {"notes": {"1": "x", "+1": "y"}},
        {"more": [{"notes": {"1_0": "x"}}]},
        {"notes": {"\u0661": "x"}},
        {"by": {"true": {"b": "1", "a": "2"}}},
        {"id": "1_0"},
        {"id": "\u0661"},
        {"id": "\n1"},
        {"wrapped": "1_0"},
        {"size": "1_0.5"},
        {"raw": "QUJD$$$$"},
        {"id": 9007199254740993.0},
        {"[t.ext]": 1},
        {"id": float("nan")},
        {"id": float("inf")},
        {"a": "\ud800"},
        b'\xef\xbb\xbf{"id": 1}',
        b'{"id": 1} {"id": 2}',
        b'{"id": 1, "\\u0069d": 2}',
        b'{"more": [{"id": 1, "id": 2}]}',
        b'{"id": ' + b"1" * 5000 + b"}",
    ],
)
def test_what_another_parser_may_read_otherwise_is_refused(routes, tree):
    with pytest.raises(InterceptError):
        put(routes, tree)


@pytest.mark.parametrize("tree", [
    {"b": "1", "c": "2"}, {"notes": {"1": "x", "-7": "y", "0": ""}}, {"by": {"true": {"id": "12"}, "false": {}}},
    {"id": "-12"}, {"id": 9007199254740993}, {"id": 12.0}, {"wrapped": "7"}, {"wrapped": 7}, {"size": "-1.5e3"},
    {"size": "NaN"}, {"size": 1e300}, {"raw": "QUJDRA=="}, {"raw": "QUJD_-"}, {"id": None, "notes": None},
])  # fmt: skip
def test_what_every_parser_reads_alike_passes(routes, tree):
    assert put(routes, tree).method == "/t.S/Put"


@pytest.mark.parametrize(
    "target",
    [
        "/who/1_0",
        "/who/%D9%A1",
        "/who/1%0A",
        "/who/1#/x",
        "/who/%00",
        "/who/1?size=1_0",
        "/who/1?a=x;size=2",
        "/who/1?a=%ff",
    ],
)
def test_a_path_says_an_id_in_one_way(routes, target):
    with pytest.raises(InterceptError):
        routes.match("GET", target, b"")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("content-type", "text/plain")],
        [("content-type", "application/x-www-form-urlencoded")],
        [("content-type", "application/json"), ("content-type", "application/x-www-form-urlencoded")],
        [("content-type", "application/json, text/plain")],
        [("content-type", "application/json; charset=utf-7")],
        [("content-type", "application/json; charset=utf-8; charset=utf-16")],
        [("content-type", "application/json"), ("content-encoding", "deflate")],
        [("content-type", "application/json"), ("content-encoding", "identity"), ("content-encoding", "br")],
    ],
)
def test_a_body_that_is_read_in_another_way_than_it_says_is_refused(headers):
    """`{"a": "&id=2&"}` is JSON without an id, and a form with one."""
    with pytest.raises(InterceptError):
        check_content(headers, b'{"a": "&id=2&"}')


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON;charset=UTF-8", 'application/json ; charset="utf-8"; ']
)
def test_json_is_read(kind):
    check_content([("content-type", kind), ("content-encoding", "identity")], b"{}")
    check_content([], b"")


@pytest.mark.parametrize(("one", "two"), [
    ("GET /a/{id}/c", "GET /a/b/{id}"), ("GET /{id}/b", "GET /a/{id}"), ("PUT /{id}/{a}/x", "PUT /{id}/y/{a}"),
])  # fmt: skip
def test_two_routes_that_may_mean_one_request_are_refused_at_the_start(api, one, two):
    with pytest.raises(ConfigurationError, match="may mean the same request"):
        Routes([Route(http=one, rpc="t.S/Get"), Route(http=two, rpc="t.S/Get")], api, "r.yaml")


def test_routes_that_say_more_or_something_else_stand_side_by_side(api):
    kept = ("GET /a/{id}", "GET /a/me", "GET /b/{id}", "PUT /a/{id}", "GET /a/{id}/c", "GET /b/{id}/d", "GET /{a}/{id}")
    Routes([Route(http=one, rpc="t.S/Get") for one in kept], api, "r.yaml")


WITHHELD = "us@person.example"


@pytest.mark.parametrize(
    "given",
    [
        {"id": 1, "mailAddress": WITHHELD},
        {"id": "1", "mail_address": WITHHELD, "count": 0},
        {"id": 1, "text": WITHHELD},
        {"id": 1, "mail_address2": WITHHELD},
        {"id": 1, "mails": {"a_b": {"mail": WITHHELD, "town": "T"}, "aB": {"town": "T", "mail": WITHHELD}}},
        {"id": 1, "list": [{"mail": WITHHELD}, {"town": "T", "mail": WITHHELD}]},
        {"id": 1.0, "count": "0", "list": [{"town": "T"}, {"mail": WITHHELD}]},
    ],
)
def test_what_was_taken_out_of_the_message_is_not_in_the_json(shown, given):
    body = json.dumps(given).encode()
    message = shown._answer.FromString(shown.answer(body))
    for field in ("mail_address", "text"):
        message.ClearField(field)
    for one in [*message.list, *message.mails.values()]:
        one.ClearField("mail")
    left = shown.shown(body, message.SerializeToString())
    assert WITHHELD.encode() not in left
    assert ("T" in json.dumps(given)) == (b'"T"' in left)
    assert shown._answer.FromString(shown.answer(left)) == message


def test_a_record_taken_out_of_a_list_is_not_in_the_json_either(shown):
    body = json.dumps({"id": 1, "list": [{"mail": WITHHELD}, {"mail": "b", "town": "T"}]}).encode()
    message = shown._answer.FromString(shown.answer(body))
    del message.list[0]
    assert json.loads(shown.shown(body, message.SerializeToString()))["list"] == [{"mail": "b", "town": "T"}]
