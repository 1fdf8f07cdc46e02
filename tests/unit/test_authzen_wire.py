"""AuthZEN: bodies, headers and paths, good and bad. Garbage is never answered with a permit, and never crashes."""

import json

import pytest
from authzen_parts import GATEWAY, Door, question
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.doors.authzen_http import HttpHead
from sidecar.enforcement.call import Peer

EVALUATION, EVALUATIONS = "/access/v1/evaluation", "/access/v1/evaluations"
POSTS = (EVALUATION, EVALUATIONS, "/access/v1/search/action", "/access/v1/search/subject", "/access/v1/outcome")
WHOLE = json.dumps(question()).encode()


@pytest.mark.parametrize(("body", "why"), [
    (b"", "empty"), (b"{", "not JSON"), (b"[]", "object"), (b'"x"', "object"), (b"null", "object"), (b"\xff\xfe", "UTF-8"),
    (b'{"a":1,"a":2}', "twice"), (b'{"a":{"b":1,"b":1}}', "twice"), (WHOLE + b"{}", "not JSON"),
    (b"[" * 100_000, "JSON"), (b'{"a":' * 50_000, "JSON"), (b'{"x":' + b"[" * 17 + b"]" * 17 + b"}", "deeper"),
    (b'{"x":NaN}', "NaN"), (b'{"x":-Infinity}', "NaN"), (b'{"x":1%s}' % (b"0" * 40), "long"),
    (b'{"x":"\\ud800"}', "surrogate"), ("{}".encode("utf-16"), "UTF-8"), (b"\xef\xbb\xbf{}", "JSON"),
    (WHOLE.replace(b'"id": "p1"', b'"id": "p1", "id": "alice"'), "twice"),
])  # fmt: skip
async def test_a_body_that_two_readers_could_read_differently_is_refused(body, why):
    door = Door()
    found = await door.post(EVALUATION, body)
    assert found.status == 400 and why in found.text, found.text
    (record,), (outcome,) = door.decisions, door.outcomes
    assert json.loads(bytes(record.input))["subject"]["workload"]["id"] == GATEWAY
    assert outcome.status == "INVALID_ARGUMENT" and not door.rig.engine.documents


@pytest.mark.parametrize(("change", "names"), [
    ({"subject": None}, "subject"), ({"subject": "alice"}, "subject"), ({"subject": {"id": "x"}}, "subject.type"),
    ({"subject": {"type": "user"}}, "subject.id"), ({"subject": {"type": "user", "id": ""}}, "subject.id"),
    ({"subject": {"type": "user", "id": 1}}, "subject.id"), ({"subject": {"type": "user", "id": "x" * 1025}}, "subject.id"),
    ({"action": None}, "action"), ({"action": {}}, "action.name"), ({"action": {"name": 123}}, "action.name"),
    ({"resource": None}, "resource"), ({"resource": {"id": "x"}}, "resource.type"), ({"resource": {"type": "x"}}, "resource.id"),
    ({"resource": {"type": "x", "id": "1", "properties": []}}, "resource.properties"), ({"context": []}, "context"),
    ({"context": {"purpose": []}}, "context.purpose"), ({"context": {"approval": "x"}}, "context.approval"),
    ({"context": {"approval": {"id": "a"}, "exception": "b"}}, "differ"), ({"context": {"obligations": [1]}}, "obligations"),
    ({"context": {"obligations": "redact_fields"}}, "obligations"),
])  # fmt: skip
async def test_what_is_wrong_is_named(change, names):
    found = await Door().ask(question() | change)
    assert found.status == 400 and names in found.text, found.text


@pytest.mark.parametrize(("method", "path", "headers", "status"), [
    ("GET", EVALUATION, (), 405), ("PUT", EVALUATION, (), 405), ("POST", "/nothing", (), 404), ("POST", "/", (), 404),
    ("POST", EVALUATION + "/", (), 404), ("POST", "/access/v1/requests", (), 404),
    ("POST", EVALUATION, (("content-type", "text/plain"),), 400), ("POST", EVALUATION, (("content-type", ""),), 400),
    ("POST", EVALUATION, (("content-type", "application/json; charset=latin-1"),), 400),
    ("POST", EVALUATION, (("content-type", "application/json"), ("content-type", "application/json")), 400),
    ("POST", EVALUATION, (("content-encoding", "gzip"),), 415),
    ("POST", EVALUATION, (("content-type", "Application/JSON; charset=utf-8"),), 200),
    ("POST", EVALUATION, (("x-request-id", "a\tb"),), 400), ("POST", EVALUATION, (("x-request-id", "x" * 257),), 400),
    ("POST", EVALUATION, (("x-request-id", "1"), ("x-request-id", "2")), 400),
    ("POST", EVALUATION, (("x-request-id", "any: words, really"),), 200),
    ("POST", "/.well-known/authzen-configuration", (), 405),
])  # fmt: skip
async def test_methods_paths_and_headers(method, path, headers, status):
    found = await Door().send(method, path, WHOLE, headers=headers)
    assert found.status == status, found.text
    assert (status == 405) is ("allow" in found.headers)


@pytest.mark.parametrize("body", [WHOLE, b"", b"{"])
async def test_the_request_s_identifier_comes_back_from_success_and_failure(body):
    found = await Door().post(EVALUATION, body, headers=[("x-request-id", "bfe9eb29 ab87")])
    assert found.headers["x-request-id"] == "bfe9eb29 ab87"


@pytest.mark.parametrize("path", POSTS)
async def test_without_a_certificate_nothing_is_read(path):
    door = Door()
    found = await door.post(path, question(), who=None, anonymous=True)
    assert found.status == 401 and found.headers["www-authenticate"]
    assert not door.decisions and not door.rig.engine.documents


async def test_discovery_is_for_everybody_and_says_what_is_served(tmp_path):
    door = Door(tmp_path)
    found = await door.send("GET", "/.well-known/authzen-configuration", anonymous=True, who=None)
    base = "https://pdp.example:8444"
    assert found.json == {
        "policy_decision_point": base, "access_evaluation_endpoint": base + EVALUATION,
        "access_evaluations_endpoint": base + EVALUATIONS,
        "search_subject_endpoint": base + "/access/v1/search/subject",
        "search_action_endpoint": base + "/access/v1/search/action",
        "customhouse_outcome_endpoint": base + "/access/v1/outcome",
        "access_request_endpoint": base + "/access/v1/requests",
        "capabilities": ["urn:openid:authzen:capability:access-request"],
    }  # fmt: skip
    for place in [one for one in found.json.values() if isinstance(one, str) and one != base]:
        served = await door.post(place.removeprefix(base), {})
        assert served.status not in {404, 405, 501}, place
    without = await Door().send("GET", "/.well-known/authzen-configuration")
    assert not {"capabilities", "access_request_endpoint"} & without.json.keys()


@pytest.mark.parametrize("host", ["a b", "x/y", "user@host", "host:99999999", "", "[::1", 'x"y'])
async def test_discovery_repeats_no_host_that_is_none(host):
    head = HttpHead(method="GET", path="/.well-known/authzen-configuration", headers=(("host", host),), peer=Peer())
    assert Door().app.early(head).status == 400


# -- anything at all -----------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4), max_leaves=12,
)  # fmt: skip
ENTITY = st.fixed_dictionaries(
    {}, optional={"type": st.sampled_from(["user", "profile", "banner"]) | JSON, "id": st.sampled_from(["p1", "1"]) | JSON,
                  "properties": JSON, "name": st.just("read") | JSON},
)  # fmt: skip
ASKED = st.fixed_dictionaries(
    {}, optional={"subject": ENTITY | JSON, "action": ENTITY | JSON, "resource": ENTITY | JSON, "context": JSON,
                  "evaluations": st.lists(ENTITY | JSON, max_size=3) | JSON, "options": JSON, "page": JSON, "denial": JSON},
)  # fmt: skip
DOOR = {}


async def _never_a_permit_for_garbage(path, body):
    door = DOOR.setdefault("one", Door(most=10_000))
    found = await door.post(path, body)
    assert found.status in {200, 400, 401, 403, 404}, (found.status, body)
    if found.status != 200 or not path.startswith(EVALUATION):
        return
    said = json.loads(body)
    for at, one in enumerate(found.json.get("evaluations", [found.json])):
        if one["decision"]:
            item = said["evaluations"][at] if "evaluations" in found.json else {}
            whole = {
                key: {**(said.get(key) or {}), **(item.get(key) or {})} for key in ("subject", "action", "resource")
            }
            assert whole["subject"]["type"] in {"user", "person"} and whole["subject"]["id"] in door.people.entries
            assert isinstance(whole["resource"]["id"], str) and isinstance(whole["action"]["name"], str)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(POSTS), ASKED)
async def test_almost_questions(path, said):
    constants = []
    body = json.dumps(said).encode()
    json.loads(body, parse_constant=constants.append)
    if constants:  # Python writes what is no JSON
        assert (await DOOR.setdefault("one", Door(most=10_000)).post(path, body)).status == 400
    else:
        await _never_a_permit_for_garbage(path, body)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(POSTS), st.binary(max_size=200))
async def test_bytes(path, body):
    found = await DOOR.setdefault("one", Door(most=10_000)).post(path, body)
    assert found.status in {400, 401}


@settings(max_examples=80, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=3))
async def test_a_question_with_some_bytes_changed(at, instead):
    body = WHOLE[:at] + instead + WHOLE[at + len(instead) :]
    found = await DOOR.setdefault("one", Door(most=10_000)).post(EVALUATION, body)
    assert found.status in {200, 400}
    if found.status == 200 and found.json["decision"]:
        assert json.loads(body)["subject"]["id"] in DOOR["one"].people.entries
