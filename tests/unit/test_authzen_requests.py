"""The Access Request and Approval Profile: a way to ask for an exception, and nothing more than that."""

import json

import pytest
from authzen_parts import BATCH, GATEWAY, NOW, WEB, Door, question
from grant_signing import KEYS, public
from pipeline_rig import SERVICE, US, deny

from sidecar.administration import papers
from sidecar.administration.exception_desk import ExceptionDesk
from sidecar.errors import RecordError

PATH = "/access/v1/requests"
CLAIMED = {"ticket": "INC-7", "justification": "incident"}


@pytest.fixture
def door(tmp_path):
    made = Door(tmp_path)
    made.rig.engine.rule = lambda request: deny("not_us_personnel") if not request.context.exceptions else made.ok
    made.ok = {"effect": "permit", "reasons": [{"code": "exception", "message": "", "rule": "r"}], "obligations": [],
               "advice": [], "ttl_seconds": 0}  # fmt: skip
    return made


def desk(door):
    return ExceptionDesk(
        grants=door.folder, approvers=door.folder.parent / "approvers.yaml", max_window=86_400.0,
        services=frozenset({SERVICE}), ticket=r"[A-Z]+-\d+", justification=r"[a-z_]+",
    )  # fmt: skip


async def denied(door, **how):
    found = await door.ask(question("p1"), **how)
    assert found.json["decision"] is False
    return found.json["context"]


def submission(context, /, **changes):
    said = question("p1", context=dict(CLAIMED))
    said["denial"] = {"evaluation_id": context["evaluation_id"], "reason": context["reason"]}
    said["requested_access"] = {"max_records": 3}
    return said | changes


async def submitted(door, key="k-1", **changes):
    return await door.post(PATH, submission(await denied(door), **changes), headers=[("idempotency-key", key)])


async def test_a_liftable_deny_says_where_to_ask(door):
    offered = (await denied(door))["access_request"]
    assert offered == {
        "template": "customhouse-exception", "expires_at": "2027-01-15T08:10:00Z",
        "endpoint": f"https://pdp.example:8444{PATH}",
    }  # fmt: skip


@pytest.mark.parametrize(("codes", "offered"), [
    (("approval_required",), True), (("not_us_personnel", "person_location"), True),
    (("dsp_bulk",), False), (("not_us_personnel", "purpose_not_allowed"), False), (("personnel_ineligible",), False),
])  # fmt: skip
async def test_only_what_an_exception_lifts_is_offered(door, codes, offered):
    door.rig.engine.rule = lambda _request: deny(*codes)
    assert ("access_request" in await denied(door)) is offered


async def test_nothing_is_offered_for_what_nobody_described_or_no_person(door):
    unknown = await door.ask(question("p1", type="unheard_of"))
    workload = await door.ask(question(BATCH, kind="workload"), who=BATCH)
    assert not any("access_request" in one.json["context"] for one in (unknown, workload))


async def test_a_request_is_a_draft_that_the_desk_understands(door):
    found = await submitted(door)
    assert found.status == 202, found.text
    task = found.json["task"]
    assert task["status"] == "pending" and found.headers["location"] == task["status_endpoint"]
    (row,) = desk(door).rows(NOW)
    assert (row.id, row.state, row.person, row.services, row.ticket) == (task["id"], "draft", "p1", (SERVICE,), "INC-7")
    (event,) = door.events
    assert (event["action"], event["id"], event["by"], event["workload"]) == (
        "access_requested",
        task["id"],
        "p1",
        GATEWAY,
    )
    record = next(one for one in door.decisions if one.call_id == event["call_id"])
    assert json.loads(bytes(record.decision))["reasons"][0]["code"] == "access_request"
    assert record.subjects == [("person", str(US), "us")]


async def test_approval_is_two_signatures_and_grants_by_evaluating_again(door):
    task = (await submitted(door)).json["task"]
    again = question("p1", context={"ticket": "INC-7", "approval": {"id": task["id"]}})
    assert (await door.ask(again)).json["decision"] is False
    for number, name in enumerate(("dana", "eli")):
        status = (await door.send("GET", f"{PATH}/{task['id']}")).json
        assert status["task"]["status"] == "pending" and status["task"]["progress"]["current_step"] == number + 1
        desk(door).approve(desk(door).pending(task["id"]), KEYS[name], NOW)
    door.grants.load()
    found = (await door.send("GET", f"{PATH}/{task['id']}")).json
    assert found["task"]["status"] == "approved"
    assert found["result"] == {
        "mode": "reevaluate", "approval": {"id": task["id"], "approved_until": "2027-01-16T08:00:00Z"}
    }  # fmt: skip
    assert (await door.ask(question("p1"))).json["decision"] is False  # approval alone permits nothing
    permitted = (await door.ask(again)).json
    assert permitted["decision"] is True
    until = permitted["context"]["approval"]["approved_until"]
    assert permitted["context"]["approval"]["id"] == task["id"] and until <= "2027-01-16T08:00:00Z"
    stolen = await door.ask(question("p2", context={"ticket": "INC-7", "approval": {"id": task["id"]}}))
    assert stolen.json["context"]["reason"] == "exception_invalid"
    door.rig.now = NOW + 90_000
    gone = await door.send("GET", f"{PATH}/{task['id']}")
    assert gone.status in {404, 410}


async def test_a_draft_ends_denied_expired_or_cancelled(door):
    first, second, third = [(await submitted(door, key=f"k-{one}")).json["task"]["id"] for one in range(3)]
    desk(door).revoke(first, "no need", KEYS["dana"], NOW)
    cancelled = await door.post(f"{PATH}/{second}/cancel", {})
    assert (cancelled.status, cancelled.json["task"]["status"]) == (200, "cancelled")
    assert door.events[-1]["action"] == "access_request_cancelled"
    states = [(await door.send("GET", f"{PATH}/{one}")).json["task"]["status"] for one in (first, second, third)]
    assert states == ["denied", "cancelled", "pending"]
    again = await door.post(f"{PATH}/{second}/cancel", b"")
    assert again.status == 409 and again.json["type"].endswith("invalid_task_state")
    with pytest.raises(Exception, match="no draft"):
        desk(door).pending(second)
    for entry in door.people.entries.values():
        entry.expires_at = NOW + 200_000
    door.rig.now = NOW + 86_400
    assert (await door.send("GET", f"{PATH}/{third}")).json["task"]["status"] == "expired"


async def test_the_same_key_is_the_same_request(door):
    context = await denied(door)
    headers = [("idempotency-key", "abc")]
    one = await door.post(PATH, submission(context), headers=headers)
    two = await door.post(PATH, submission(context), headers=headers)
    assert one.json["task"]["id"] == two.json["task"]["id"] and len(list(door.folder.glob("*.draft"))) == 1
    other = await door.post(PATH, submission(context, requested_access={"max_records": 4}), headers=headers)
    assert other.status == 409 and other.json["type"].endswith("duplicate_request")
    assert other.type == "application/problem+json"
    without = await door.post(PATH, submission(context))
    assert without.json["task"]["id"] != one.json["task"]["id"]


@pytest.mark.parametrize(("change", "status", "kind"), [
    ({"denial": {"evaluation_id": "call-999"}}, 400, "invalid_denial_binding"),
    ({"resource": {"type": "profile", "id": "2"}}, 400, "invalid_denial_binding"),
    ({"action": {"name": "write"}}, 400, "invalid_denial_binding"),
    ({"items": [{}]}, 400, "about:blank"),
])  # fmt: skip
async def test_a_request_is_bound_to_its_denial(door, change, status, kind):
    found = await submitted(door, **change)
    assert found.status == status and found.json["type"].endswith(kind)
    assert not list(door.folder.iterdir()) and not door.events
    assert door.outcomes[-1].status == "INVALID_ARGUMENT"


@pytest.mark.parametrize("change", [
    {"denial": None}, {"denial": {}}, {"context": {}}, {"context": CLAIMED | {"ticket": "x"}},
    {"context": CLAIMED | {"justification": "Because!"}}, {"requested_access": {"requested_until": "soon"}},
    {"requested_access": {"requested_until": "2020-01-01T00:00:00Z"}}, {"requested_access": {"max_records": -1}},
    {"requested_access": {"max_records": "many"}}, {"requested_access": {"subjects": "all"}},
])  # fmt: skip
async def test_what_could_never_be_granted_is_refused_at_once(door, change):
    assert (await submitted(door, **change)).status == 400
    assert not list(door.folder.iterdir())


async def test_the_window_is_never_longer_than_grants_may_be(door):
    await submitted(door, requested_access={"requested_until": "2030-01-01T00:00:00Z"})
    (row,) = desk(door).rows(NOW)
    assert row.expires == "2027-01-16T08:00:00Z"


async def test_another_workload_has_no_part_in_it(door):
    context = await denied(door)
    found = await door.post(PATH, submission(context), who=WEB, headers=door.token("p1"))
    assert found.json["type"].endswith("invalid_denial_binding")
    task = (await submitted(door)).json["task"]["id"]
    assert (await door.send("GET", f"{PATH}/{task}", who=WEB)).status == 404
    assert (await door.send("GET", f"{PATH}/{task}", who=WEB, headers=door.token("p2"))).status == 404
    assert (await door.post(f"{PATH}/{task}/cancel", {}, who=WEB)).status == 404
    assert (await door.send("GET", f"{PATH}/{task}", who=WEB, headers=door.token("p1"))).status == 200
    assert (await door.post(PATH, submission(context), who=WEB)).status == 403


async def test_a_denial_can_be_followed_up_for_ten_minutes(door):
    context = await denied(door)
    door.rig.now += 601
    found = await door.post(PATH, submission(context))
    assert found.status == 410 and found.json["type"].endswith("expired_denial")


async def test_a_person_has_five_requests_waiting_at_most(door):
    assert [(await submitted(door, key=f"k{one}")).status for one in range(6)] == [202] * 5 + [429]
    assert len(list(door.folder.glob("*.draft"))) == 5


async def test_nothing_is_written_that_is_not_recorded(door):
    door.event_error = RecordError("the disk is full")
    assert (await submitted(door)).status == 503
    context = await denied(door)
    door.rig.records.fail = lambda _entry: True
    assert (await door.post(PATH, submission(context))).status == 503
    assert not list(door.folder.iterdir())


@pytest.mark.parametrize("name", ["nothing", "EX-..%2f..%2fkeys", "EX-0123456789abcdef0", "../approvers"])
async def test_unknown_tasks(door, name):
    assert (await door.send("GET", f"{PATH}/{name}")).status == 404


async def test_without_grants_nothing_of_it_exists(tmp_path):
    door = Door()
    door.rig.engine.rule = lambda _request: deny("not_us_personnel")
    assert "access_request" not in (await door.ask()).json["context"]
    assert (await door.post(PATH, {})).status == 404
    assert public("dana") and papers.DRAFT == ".draft"
