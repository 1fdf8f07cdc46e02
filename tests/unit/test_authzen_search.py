"""AuthZEN's searches: what they answer, who may search, and that a search is one record and no access."""

import json

import pytest
from authzen_parts import BATCH, GATEWAY, STRANGER, WEB, Door, permits, question
from pipeline_rig import GERMAN, US, deny

from sidecar.errors import DecideError

ACTIONS, SUBJECTS, RESOURCES = (f"/access/v1/search/{one}" for one in ("action", "subject", "resource"))


def may(*actions, roles=("analyst", "writer", "admin")):
    def rule(request):
        held = set(request.subject.person.roles) & set(roles)
        return permits() if request.action.name in actions and held else deny("not_us_personnel")

    return rule


def actions_of(subject="p1", **more):
    said = question(subject, **more)
    del said["action"]
    return said


def who_may(action="read", kind="user", resource=US, **more):
    said = question("ignored", action, resource, kind=kind, **more)
    del said["subject"]["id"]
    return said


async def test_the_actions_of_somebody_in_the_words_of_the_type():
    door = Door()
    door.rig.engine.rule = may("read", "write")
    found = await door.post(ACTIONS, actions_of())
    assert [one["name"] for one in found.json["results"]] == ["can_view", "read", "write"]


async def test_a_search_is_one_record_that_names_who_searched_and_about_whom():
    door = Door()
    found = await door.post(ACTIONS, actions_of())
    (record,), (outcome,) = door.decisions, door.outcomes
    assert record.call_id == outcome.call_id == found.json["context"]["id"]
    assert json.loads(bytes(record.decision))["reasons"][0] == {
        "code": "search", "message": "who or what may is told, nothing is reached", "rule": "sidecar/search"
    }  # fmt: skip
    assert record.subjects == [("person", str(US), "us")]
    assert json.loads(bytes(record.input))["subject"]["person"]["id"] == "p1"
    assert (outcome.messages.out, outcome.released.us.records, outcome.complete) == (8, 0, True)
    assert not len(door.waiting)


async def test_what_a_search_names_is_permitted_when_asked_for():
    door = Door()
    door.rig.engine.rule = lambda request: permits() if request.resource.subjects.non_us else deny("not_us_personnel")
    for resource in (US, GERMAN):
        named = {one["name"] for one in (await door.post(ACTIONS, actions_of(resource=resource))).json["results"]}
        for action in ("can_view", "read", "delete"):
            assert (await door.ask(question("p1", action, resource))).json["decision"] is (action in named)


async def test_no_exception_is_used_up_and_no_permit_with_unpromised_duties_is_named():
    door = Door()
    door.rig.engine.rule = lambda _request: permits({"id": "redact_fields", "categories": ["id_contact"]})
    claimed = actions_of(context={"exception": "EX-1"})
    assert (await door.post(ACTIONS, claimed)).json["results"] == []
    assert not door.rig.grants.uses
    promised = actions_of(context={"obligations": ["redact_fields"]})
    assert len((await door.post(ACTIONS, promised)).json["results"]) == 8


@pytest.mark.parametrize(("said", "how", "status"), [
    (actions_of("nobody"), {}, 200), (actions_of(type="unheard_of"), {}, 200), (actions_of(kind="spaceship"), {}, 200),
    (actions_of(), {"who": STRANGER}, 401), (actions_of(), {"who": WEB}, 403), (actions_of(WEB, kind="workload"), {"who": WEB}, 401),
])  # fmt: skip
async def test_unknown_means_nothing_found_and_strangers_are_told_so(said, how, status):
    door = Door()
    found = await door.post(ACTIONS, said, **how)
    assert found.status == status, found.text
    if status == 200:
        assert found.json["results"] == []
    assert len(door.decisions) == len(door.outcomes) == 1


async def test_a_workload_s_own_actions():
    door = Door()
    door.rig.engine.rule = lambda request: permits() if request.action.name == "read" else deny("action_not_allowed")
    found = await door.post(ACTIONS, actions_of(BATCH, kind="workload"), who=BATCH)
    assert {"name": "read"} in found.json["results"] and {"name": "write"} not in found.json["results"]


@pytest.mark.parametrize("path", [ACTIONS, SUBJECTS])
async def test_what_cannot_be_decided_now_is_no_empty_answer(path):
    door = Door()
    door.rig.engine.rule = lambda _request: DecideError("no")
    found = await door.post(path, actions_of() if path == ACTIONS else who_may())
    assert found.status == 503 and "results" not in found.text
    assert [one.status for one in door.outcomes] == ["UNAVAILABLE"]


@pytest.mark.parametrize("path", [ACTIONS, SUBJECTS])
async def test_without_a_record_there_is_no_result(path):
    door = Door()
    door.rig.records.fail = lambda _entry: True
    assert (await door.post(path, actions_of() if path == ACTIONS else who_may())).status == 503


async def test_who_may_among_the_people_of_the_directory():
    door = Door()
    door.rig.engine.rule = may("write", roles=("writer",))
    found = await door.post(SUBJECTS, who_may("write"))
    assert found.json["results"] == [{"type": "user", "id": "alice"}]
    assert found.json["page"] == {"next_token": "", "count": 1}
    (record,) = door.decisions
    document = json.loads(bytes(record.input))["subject"]
    assert (document["kind"], document["workload"]["id"], document["person"]["id"]) == ("workload", GATEWAY, None)


async def test_a_person_searches_with_their_token_and_for_themselves():
    door = Door()
    door.rig.engine.rule = may("write", roles=("writer",))
    found = await door.post(SUBJECTS, who_may("write"), headers=door.token("p1"))
    assert found.json["results"] == [{"type": "user", "id": "alice"}]
    assert json.loads(bytes(door.decisions[0].input))["subject"]["person"]["id"] == "p1"


async def test_only_who_may_name_people_searches_for_them():
    door = Door()
    for how in ({"who": WEB}, {"who": BATCH}, {"who": WEB, "headers": door.token("p1")}):
        assert (await door.post(SUBJECTS, who_may(), **how)).status == 403
    assert (await door.post(SUBJECTS, who_may(), who=STRANGER)).status == 401
    assert not door.rig.engine.documents


async def test_pages_add_up_to_everybody_and_each_once():
    names = [f"n{one:03}" for one in range(130)]
    door = Door(names=names)
    seen, token = [], None
    while True:
        page = {"limit": 50} | ({"token": token} if token else {})
        found = (await door.post(SUBJECTS, who_may() | {"page": page})).json
        assert len(found["results"]) <= 50 and found["page"]["count"] == len(found["results"])
        seen += [one["id"] for one in found["results"]]
        token = found["page"]["next_token"]
        if not token:
            break
    assert seen == [*names, "alice", "bob"]


async def test_a_page_has_a_hundred_results_at_most():
    door = Door(names=[f"n{one:03}" for one in range(130)])
    found = (await door.post(SUBJECTS, who_may() | {"page": {"limit": 10_000}})).json
    assert len(found["results"]) == 100 and found["page"]["next_token"]


async def test_a_token_is_of_one_search_and_one_directory():
    door = Door(names=[f"n{one}" for one in range(10)])
    token = (await door.post(SUBJECTS, who_may() | {"page": {"limit": 3}})).json["page"]["next_token"]
    going_on = {"page": {"token": token}}
    assert (await door.post(SUBJECTS, who_may("write") | going_on)).status == 400
    assert (await door.post(SUBJECTS, who_may(resource=GERMAN) | going_on)).status == 400
    assert (await door.post(SUBJECTS, who_may() | going_on)).status == 200
    door.people.revision = "rev3"
    assert (await door.post(SUBJECTS, who_may() | going_on)).status == 400


@pytest.mark.parametrize("page", [
    {"token": "!!"}, {"token": "e30="}, {"token": 5}, {"limit": 0}, {"limit": "9"}, {"limit": True}, [], {"token": "x" * 600},
])  # fmt: skip
async def test_pages_that_are_none(page):
    assert (await Door().post(SUBJECTS, who_may() | {"page": page})).status == 400


async def test_unknown_types_find_nobody():
    door = Door()
    for said in (who_may(kind="spaceship"), who_may(kind="workload"), who_may(type="unheard_of")):
        found = await door.post(SUBJECTS, said)
        assert (found.status, found.json["results"], found.json["page"]) == (200, [], {"next_token": ""})


async def test_resources_are_not_enumerated():
    found = await Door().post(RESOURCES, question())
    assert found.status == 501 and "ids of data subjects" in found.text


@pytest.mark.parametrize(("path", "missing"), [
    (ACTIONS, ("subject",)), (ACTIONS, ("resource",)), (SUBJECTS, ("subject",)), (SUBJECTS, ("action",)),
    (SUBJECTS, ("resource",)), (SUBJECTS, ("resource", "id")), (ACTIONS, ("subject", "id")), (SUBJECTS, ("subject", "type")),
])  # fmt: skip
async def test_what_a_search_needs(path, missing):
    said = question()
    place = said
    for name in missing[:-1]:
        place = place[name]
    del place[missing[-1]]
    assert (await Door().post(path, said)).status == 400
