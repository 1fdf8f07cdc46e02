"""AuthZEN: what an evaluation says, who may ask it, and what is recorded of it."""

import pytest
from authzen_parts import BATCH, GATEWAY, STRANGER, WEB, Door, permits, question
from pipeline_rig import GERMAN, US, deny

from sidecar.errors import DecideError, RecordError

REDACT = {"id": "redact_fields", "categories": ["id_contact"]}
DROP = {"id": "drop_records", "subjects": "us"}


async def test_a_permit_is_recorded_and_waits_for_its_outcome():
    door = Door()
    found = await door.ask(headers=[("x-request-id", "r-1")])
    assert found.status == 200 and found.json["decision"] is True
    assert found.headers["x-request-id"] == "r-1"
    (record,) = door.decisions
    said = found.json["context"]
    assert (said["id"], said["policy_revision"]) == (record.call_id, "p1")
    assert (record.door, record.phase, record.service) == ("authzen", "request", "sidecar.demo.profiles.v1.Profiles")
    assert record.subjects == [("person", str(US), "us")]
    assert len(door.waiting) == 1 and not door.outcomes
    await door.waiting.close()
    assert [(one.call_id, one.seen, one.complete) for one in door.outcomes] == [(record.call_id, "unobserved", False)]


async def test_the_document_says_who_for_what_and_no_id_of_a_data_subject():
    door = Door()
    await door.ask(question("p1", "can_view", GERMAN, context={"purpose": "user_support", "ticket": "ABC-1"}))
    (document,) = door.rig.engine.documents
    assert (document.subject.kind, document.subject.person.id, document.subject.workload.id) == (
        "personnel",
        "p1",
        GATEWAY,
    )
    assert (document.action.name, document.resource.type, document.resource.subjects.non_us) == ("read", "profile", 1)
    assert (document.context.purpose, document.context.ticket) == ("user_support", "ABC-1")
    assert not document.subject.authentication.aal


async def test_a_deny_is_an_answer_with_codes_and_no_rule_text():
    door = Door()
    door.rig.engine.rule = lambda _request: deny("ticket_missing", "not_us_personnel")
    found = await door.ask()
    assert found.status == 200 and found.json["decision"] is False
    said = found.json["context"]
    assert said["reason"] == "not_us_personnel" and said["policy_revision"] == "p1"
    assert said["reason_admin"] == {"en": "not_us_personnel, ticket_missing"}
    assert '"m"' not in found.text and "test" not in found.text
    assert [one.status for one in door.outcomes] == ["PERMISSION_DENIED"] and not len(door.waiting)


@pytest.mark.parametrize(("fault", "status"), [
    (DecideError("no"), 503), (RecordError("no"), 503),
])  # fmt: skip
async def test_what_cannot_be_decided_or_recorded_is_an_error_and_no_decision(fault, status):
    door = Door()
    if isinstance(fault, RecordError):
        door.rig.records.fail = lambda _entry: True
    else:
        door.rig.engine.rule = lambda _request: fault
    found = await door.ask()
    assert found.status == status and found.headers["retry-after"] == "1"
    assert "decision" not in found.text and not len(door.waiting)


async def test_a_permit_that_cannot_wait_is_not_handed_out():
    door = Door(most=1)
    assert (await door.ask()).json["decision"] is True
    assert (await door.ask()).status == 503
    assert [one.status for one in door.outcomes] == ["UNAVAILABLE"]


async def test_properties_and_unknown_members_weigh_nothing():
    door = Door()
    plain = question("alice")
    more = question("alice", properties={"country": "DE", "class": "public"})
    more["subject"]["properties"] = {"role": "admin", "us_personnel": True}
    more |= {"future": {"field": 1}, "context": {"time": "2020-01-01T00:00Z", "ip": "10.0.0.1", "location": "US"}}
    await door.ask(plain)
    await door.ask(more)
    one, other = door.rig.engine.documents
    assert one == other and one.subject.person.roles == ("writer",)


async def test_a_property_may_name_a_described_variant():
    door = Door()
    await door.ask(question(properties={"status": "archived"}))
    soft = question(action="delete")
    soft["action"]["properties"] = {"soft": True}
    await door.ask(soft)
    await door.ask(question(action="delete"))
    truthy = question(action="delete")
    truthy["action"]["properties"] = {"soft": 1}
    await door.ask(truthy)
    seen = [(one.resource.type, one.action.name) for one in door.rig.engine.documents]
    assert seen == [("old_profile", "read"), ("profile", "write"), ("profile", "delete"), ("profile", "delete")]


# -- obligations ---------------------------------------------------------------------------------------------------------


async def test_a_caller_that_promises_nothing_gets_no_permit_with_duties():
    door = Door()
    door.rig.engine.rule = lambda _request: permits(REDACT)
    found = await door.ask()
    assert found.json["decision"] is False and found.json["context"]["reason"] == "obligation_unfulfillable"


async def test_a_caller_that_promises_gets_the_duties_listed_also_after_one_that_did_not():
    door = Door()
    decision = permits(REDACT, DROP)
    door.rig.engine.rule = lambda _request: decision
    assert (await door.ask()).json["decision"] is False
    said = question(context={"obligations": ["redact_fields", "drop_records", "dance"]})
    found = await door.ask(said)
    assert found.json["decision"] is True
    ordered = {one["id"]: one for one in found.json["context"]["obligations"]}
    assert ordered["redact_fields"]["categories"] == ["id_contact"]
    assert ordered["drop_records"]["ids"] == [str(US)]
    assert (await door.ask()).json["decision"] is False


# -- who asks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "how", "status", "decision"), [
    (question("p1"), {"who": STRANGER}, 401, None),
    (question("p1"), {"who": None}, 401, None),
    (question("p1"), {"who": WEB}, 403, None),
    (question("nobody"), {}, 200, False),
    (question("p1", kind="robot"), {}, 200, False),
    (question(BATCH, kind="workload"), {"who": BATCH}, 200, True),
    (question(GATEWAY, kind="service"), {"who": BATCH}, 200, False),
    (question(WEB, kind="workload"), {"who": WEB}, 401, None),
    (question("p1", type="unheard_of"), {}, 200, False),
    (question("p1", action="dance"), {}, 200, False),
])  # fmt: skip
async def test_who_may_ask_for_whom(asked, how, status, decision):
    door = Door()
    found = await door.ask(asked, **how)
    assert found.status == status, found.text
    if decision is not None:
        assert found.json["decision"] is decision
    assert len(door.decisions) == 1  # whatever was asked, it is recorded
    assert len(door.outcomes) == (0 if decision else 1)


async def test_a_token_is_its_subject_s_and_nobody_else_s():
    door = Door()
    assert (await door.ask(question("p1"), who=WEB, headers=door.token("p1"))).json["decision"] is True
    other = await door.ask(question("p2"), who=WEB, headers=door.token("p1"))
    assert other.json["decision"] is False and other.json["context"]["reason"] == "unidentified_person"
    bad = await door.ask(question("p1"), who=WEB, headers=[("authorization", "Bearer x.y.z")])
    assert bad.status == 401 and bad.headers["www-authenticate"] == "Bearer"
    both = await door.ask(question("p1"), headers=[*door.token("p1"), *door.token("p1")])
    assert both.status == 401


async def test_a_user_of_the_platform_by_their_own_token():
    door = Door()
    token = [("authorization", f"Bearer {door.users.token(sub=str(US))}")]
    assert (await door.ask(question(str(US)), who=WEB, headers=token)).json["decision"] is True
    assert door.rig.engine.documents[0].resource.subjects.own == 1
    assert (await door.ask(question(str(GERMAN)), who=WEB, headers=token)).json["decision"] is False


async def test_claims_are_checked_for_form_and_said_once():
    door = Door()
    assert (await door.ask(question(context={"ticket": "what ever"}))).status == 400
    assert (await door.ask(question(context={"ticket": 7}))).status == 400
    twice = await door.ask(question(context={"ticket": "ABC-1"}), headers=[("x-customhouse-ticket", "ABC-1")])
    assert twice.status == 400
    header = await door.ask(question(), headers=[("x-customhouse-ticket", "ABC-1"), ("x-customhouse-person", "eve")])
    assert header.json["decision"] is True
    assert door.rig.engine.documents[-1].context.ticket == "ABC-1"


# -- batches -------------------------------------------------------------------------------------------------------------


def by_resource(request):
    return deny("not_us_personnel") if request.resource.subjects.non_us else permits()


def items(*resources):
    return [{"resource": {"type": "profile", "id": str(one)}} for one in resources]


@pytest.mark.parametrize(("semantic", "expected"), [
    (None, [True, False, True]), ("execute_all", [True, False, True]), ("deny_on_first_deny", [True, False]),
    ("permit_on_first_permit", [True]),
])  # fmt: skip
async def test_the_three_semantics(semantic, expected):
    door = Door()
    door.rig.engine.rule = by_resource
    said = question() | {"evaluations": items(US, GERMAN, US)}
    if semantic:
        said["options"] = {"evaluations_semantic": semantic}
    found = await door.batch(said)
    assert [one["decision"] for one in found.json["evaluations"]] == expected
    assert "decision" not in found.json
    assert len(door.decisions) == len(expected)
    assert len({one["context"]["id"] for one in found.json["evaluations"]}) == len(expected)


async def test_items_fail_by_themselves_and_in_their_place():
    door = Door()
    door.rig.engine.rule = by_resource
    del (said := question())["resource"]
    broken = [{}, {"resource": "x"}, 7, {"resource": {"type": "profile"}}, {"context": {"ticket": 1}}]
    found = await door.batch(said | {"evaluations": [*items(US), *broken, *items(GERMAN)]})
    answers = found.json["evaluations"]
    assert [one["decision"] for one in answers] == [True, *[False] * 6]
    assert [one["context"]["error"]["status"] for one in answers[1:6]] == [400] * 5
    assert "error" not in answers[6]["context"] and len(door.decisions) == 7


async def test_an_indeterminate_item_denies_and_says_so():
    door = Door()
    door.rig.engine.rule = lambda request: DecideError("no") if request.resource.subjects.non_us else permits()
    said = question() | {"evaluations": items(GERMAN, US), "options": {"evaluations_semantic": "deny_on_first_deny"}}
    answers = (await door.batch(said)).json["evaluations"]
    assert len(answers) == 1 and answers[0]["context"]["error"]["status"] == 503


async def test_an_entity_of_an_item_replaces_the_default_but_for_what_it_lacks():
    door = Door()
    said = question(properties={"status": "archived"}) | {"evaluations": [{}, {"resource": {"id": "1"}}]}
    await door.batch(said)
    assert [one.resource.type for one in door.rig.engine.documents] == ["old_profile", "profile"]


@pytest.mark.parametrize("said", [
    {"evaluations": {}}, {"evaluations": "x"}, {"evaluations": [{}] * 257},
    {"evaluations": [{}], "options": {"evaluations_semantic": "first_come"}}, {"evaluations": [{}], "options": []},
    {"evaluations": [{}], "options": {"evaluations_semantic": 1}},
])  # fmt: skip
async def test_a_batch_that_is_none_is_refused_as_a_whole(said):
    assert (await Door().batch(question() | said)).status == 400


@pytest.mark.parametrize("said", [{}, {"evaluations": []}])
async def test_without_items_it_is_a_single_evaluation(said):
    assert (await Door().batch(question() | said)).json["decision"] is True


# -- outcomes ------------------------------------------------------------------------------------------------------------


async def test_an_outcome_is_reported_once_by_the_workload_that_asked():
    door = Door()
    call_id = (await door.ask()).json["context"]["id"]
    said = {"call_id": call_id, "status": "OK", "messages": {"in": 1, "out": 1}, "bytes_out": 9,
            "released": {"us": {"records": 1, "by_category": {"id_contact": 1}}}, "met": {"redact_fields": True}}  # fmt: skip
    assert (await door.post("/access/v1/outcome", said, who=WEB)).status == 404
    assert (await door.post("/access/v1/outcome", said, who=STRANGER)).status == 401
    found = await door.post("/access/v1/outcome", said)
    assert (found.status, found.json["recorded"]) == (200, "reported")
    assert (await door.post("/access/v1/outcome", said)).status == 404
    (outcome,) = door.outcomes
    assert (outcome.seen, outcome.status, outcome.released.us.records, outcome.complete) == ("reported", "OK", 1, True)


@pytest.mark.parametrize("change", [
    {"status": "FINE"}, {"bytes_out": -1}, {"bytes_out": 2**60}, {"released": {"us": {"by_category": {"soul": 0}}}},
    {"released": {"us": {"records": 1, "by_category": {"id_contact": 2}}}}, {"redacted": {"id_contact": "1"}},
    {"call_id": ""}, {"met": {"dance": True}}, {"released": []},
])  # fmt: skip
async def test_a_report_that_cannot_be_is_refused_and_the_permit_waits_on(change):
    door = Door()
    call_id = (await door.ask()).json["context"]["id"]
    assert (await door.post("/access/v1/outcome", {"call_id": call_id, "status": "OK"} | change)).status == 400
    assert len(door.waiting) == 1


async def test_an_outcome_that_cannot_be_recorded_is_an_error():
    door = Door()
    call_id = (await door.ask()).json["context"]["id"]
    door.rig.records.fail = lambda _entry: True
    assert (await door.post("/access/v1/outcome", {"call_id": call_id, "status": "OK"})).status == 503
