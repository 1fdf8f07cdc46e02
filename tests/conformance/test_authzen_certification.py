"""The OpenID AuthZEN certification scenario for the Authorization API 1.0: its fixture and its cases.

The fixture's facts stand where facts stand here: alice's and bob's roles in the directory, what `archived` and a soft
delete mean in `describe.resources`, and the eight rules in a Rego bundle that the embedded engine decides by. Not passed,
by design: resource search (ADR 25).
"""

import pytest
from authzen_parts import Door, Rego

ALICE, BOB = {"type": "user", "id": "alice"}, {"type": "user", "id": "bob"}
ADMIN = BOB | {"properties": {"role": "admin"}}
ONE, TWO = {"type": "record", "id": "record-1"}, {"type": "record", "id": "record-2"}
ACTIVE, ARCHIVED = ONE | {"properties": {"status": "active"}}, TWO | {"properties": {"status": "archived"}}
READ, WRITE = {"name": "read"}, {"name": "write"}
SOFT, HARD = ({"name": "delete", "properties": {"soft": one}} for one in (True, False))
TIME = {"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"}
SUBJECT, RESOURCE, ACTION = (f"/access/v1/search/{one}" for one in ("subject", "resource", "action"))


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return Rego(tmp_path_factory.mktemp("fixture"))


@pytest.fixture
def door(engine):
    return Door(engine=engine)


def asked(subject=ALICE, action=READ, resource=ONE, **more):
    return {"subject": subject, "action": action, "resource": resource, **more}


# -- Basic ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "decision"), [
    (asked(ALICE, READ, ONE), True), (asked(ALICE, WRITE, ONE), True), (asked(BOB, READ, ONE), True),
    (asked(BOB, WRITE, ONE), False), (asked(context=TIME), True),
    (asked(ALICE, WRITE, ARCHIVED), False), (asked(ADMIN, WRITE, ARCHIVED), True),
    (asked(ALICE, SOFT, ONE), True), (asked(ALICE, HARD, ONE), False),
    (asked(ALICE | {"properties": {"department": "Sales", "role": "manager"}}, READ | {"properties": {"method": "GET"}},
           ONE | {"properties": {"status": "active", "owner": "bob"}}), True),
    (asked(foo="bar", futureField={"nested": True}), True),
])  # fmt: skip
async def test_basic(door, said, decision):
    for _ in range(3):  # and the same each time
        found = await door.ask(said, headers=[("x-request-id", "cert-1")])
        assert (found.status, found.type, found.headers["x-request-id"]) == (200, "application/json", "cert-1")
        assert found.json["decision"] is decision and isinstance(found.json["context"], dict)


async def test_a_role_in_a_request_makes_nobody_an_admin(door):
    """Beyond the scenario: rule 6 holds for bob, whom the directory calls an admin, and for nobody who only says so."""
    liar = ALICE | {"properties": {"role": "admin"}}
    assert (await door.ask(asked(liar, WRITE, ARCHIVED))).json["decision"] is False
    assert (await door.ask(asked(BOB, WRITE, ARCHIVED))).json["decision"] is True


@pytest.mark.parametrize("missing", ["subject", "action", "resource"])
async def test_basic_missing_members(door, missing):
    said = asked()
    del said[missing]
    assert (await door.ask(said)).status == 400
    for inner in asked()[missing]:
        said = asked()
        said[missing] = {key: value for key, value in said[missing].items() if key != inner}
        assert (await door.ask(said)).status == 400


@pytest.mark.parametrize(("body", "headers"), [
    (b"{}", (("content-type", "text/plain"),)), (b"{not json", ()), (b"", ()),
    (b'{"subject":"alice","action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}', ()),
    (b'{"subject":{"type":"user","id":"alice"},"action":{"name":123},"resource":{"type":"record","id":"record-1"}}', ()),
])  # fmt: skip
async def test_basic_bad_requests(door, body, headers):
    assert (await door.post("/access/v1/evaluation", body, headers=headers)).status == 400


# -- Batch ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "decisions"), [
    ({"subject": ALICE, "action": READ, "evaluations": [{"resource": ONE}, {"resource": TWO}]}, [True, None]),
    ({"subject": BOB, "resource": ONE, "evaluations": [{"action": READ}, {"action": WRITE}]}, [True, False]),
    ({"subject": ALICE, "action": WRITE, "evaluations": [{"resource": ACTIVE}, {"resource": ARCHIVED}]}, [True, False]),
    ({"action": WRITE, "resource": ARCHIVED, "evaluations": [{"subject": ALICE}, {"subject": ADMIN}]}, [False, True]),
    ({"evaluations": [asked(ALICE, READ, ONE), asked(BOB, WRITE, ONE)]}, [True, False]),
    ({"subject": ALICE, "action": READ, "context": TIME,
      "evaluations": [{"resource": ONE}, {"resource": TWO, "context": {"source": "batch-override"}}]}, [True, None]),
    ({"subject": ALICE, "action": WRITE, "resource": {"type": "record"}, "evaluations": [
        {"resource": {"id": "record-1", "properties": {"status": "active"}}}, {"resource": ARCHIVED}]}, [True, False]),
    ({"subject": ALICE, "action": READ, "evaluations": [{"resource": ONE}, {}]}, [True, False]),
])  # fmt: skip
async def test_batch(door, said, decisions):
    found = await door.batch(said)
    assert found.status == 200 and "decision" not in found.json
    got = [one["decision"] for one in found.json["evaluations"]]
    assert len(got) == len(decisions) and all(isinstance(one, bool) for one in got)
    assert all(wanted is None or one is wanted for one, wanted in zip(got, decisions, strict=True))


@pytest.mark.parametrize("more", [{}, {"evaluations": []}])
async def test_batch_backwards_compatible(door, more):
    assert (await door.batch(asked(**more))).json["decision"] is True


# -- Search --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "said", "least"), [
    (SUBJECT, {"subject": {"type": "user"}, "action": READ, "resource": ONE}, ["alice", "bob"]),
    (SUBJECT, {"subject": {"type": "user"}, "action": READ, "resource": ONE, "context": TIME}, ["alice", "bob"]),
    (SUBJECT, {"subject": {"type": "user"}, "action": WRITE, "resource": ARCHIVED}, ["bob"]),
    (ACTION, {"subject": ALICE, "resource": ONE}, ["read", "write"]),
    (ACTION, {"subject": ALICE, "resource": ONE, "context": TIME}, ["read", "write"]),
    (ACTION, {"subject": ADMIN, "resource": ARCHIVED}, ["write"]),
])  # fmt: skip
async def test_search(door, path, said, least):
    found = await door.post(path, said)
    assert (found.status, found.type) == (200, "application/json")
    results = found.json["results"]
    assert set(least) <= {one["id" if path == SUBJECT else "name"] for one in results}
    if path == SUBJECT:
        assert {one["type"] for one in results} == {"user"}
        assert isinstance(found.json["page"]["next_token"], str)
        for one in results:  # fed into an evaluation, each is permitted
            assert (await door.ask(said | {"subject": one})).json["decision"] is True


async def test_search_pages(door):
    said = {"subject": {"type": "user"}, "action": READ, "resource": ONE}
    names, page = [], {"limit": 1}
    while True:
        found = (await door.post(SUBJECT, said | {"page": page})).json
        names += [one["id"] for one in found["results"]]
        if not found["page"]["next_token"]:
            break
        page = {"token": found["page"]["next_token"], "limit": 1}
    assert {"alice", "bob"} <= set(names) and len(names) == len(set(names))


@pytest.mark.parametrize(("path", "said"), [
    (ACTION, {"subject": {"type": "user", "id": "nonexistent-user"}, "resource": ONE}),
    (SUBJECT, {"subject": {"type": "spaceship"}, "action": READ, "resource": ONE}),
])  # fmt: skip
async def test_search_finds_nothing(door, path, said):
    found = await door.post(path, said)
    assert (found.status, found.json["results"]) == (200, [])


@pytest.mark.parametrize(("path", "said"), [
    (SUBJECT, {"subject": {"type": "user"}, "resource": ONE}), (ACTION, {"subject": ALICE}),
    (SUBJECT, {"subject": {"type": "user"}, "action": READ, "resource": {"type": "record"}}),
])  # fmt: skip
async def test_search_missing_members(door, path, said):
    assert (await door.post(path, said)).status == 400


async def test_resource_search_is_neither_answered_nor_advertised(door):
    found = await door.post(RESOURCE, {"subject": ALICE, "action": READ, "resource": {"type": "record"}})
    assert found.status == 501
    known = (await door.send("GET", "/.well-known/authzen-configuration")).json
    assert "search_resource_endpoint" not in known


# -- Discovery -----------------------------------------------------------------------------------------------------------


async def test_discovery(door):
    found = await door.send("GET", "/.well-known/authzen-configuration", headers=[("x-request-id", "d")])
    assert (found.status, found.type, found.headers["x-request-id"]) == (200, "application/json", "d")
    known = found.json
    assert known["policy_decision_point"] == "https://pdp.example:8444"
    urls = [value for key, value in known.items() if key.endswith("_endpoint")]
    assert urls and all(one.startswith("https://pdp.example:8444/access/v1/") for one in urls)
