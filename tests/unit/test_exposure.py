"""The pipeline and the ledger: who is counted, when it is asked, what is given back."""

import asyncio

import msgspec
import pytest
from exposure_rig import GROUP, Counted, covered, limit
from pipeline_rig import (
    GERMAN,
    NOBODY_KNOWS,
    PERMIT,
    US,
    Rig,
    Sink,
    answer,
    deny,
    get,
    permit,
    personnel,
    profile,
    several,
)

from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.enforcement.exposure import group_of
from sidecar.errors import Code, ForwardError
from sidecar.vocabulary import CATEGORIES, Engagement, Subject, Workload


@pytest.fixture
def rig():
    return Counted()


# -- who is counted ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("subject", "group"), [
    (covered(), GROUP),
    (covered(value="unknown"), GROUP),
    (covered(value="no"), None),
    (covered(value="no", type_="brokerage"), GROUP),
    (covered(group=None), "acme-cn"),
    (msgspec.structs.replace(covered(), engagement=Engagement()), "person/wei"),
    (Subject(kind="workload", workload=Workload(id="w", operated_from="US")), None),
    (Subject(kind="workload", workload=Workload(id="w", operated_from="HK")), "operated-from/HK"),
    (Subject(kind="workload", workload=Workload(id="w", operated_from="TW")), None),
    (Subject(kind="workload", workload=Workload(id="w")), "operated-by/w"),
    (Subject(kind="data_subject", workload=Workload(id="w", operated_from="US")), None),
    (Subject(kind="data_subject", workload=Workload(id="w", operated_from="CN")), "operated-from/CN"),
    (covered(value="no", place="CN"), "operated-from/CN"),
    (covered(value="no", type_=None, basis="foreign_not_covered"), GROUP),
    (covered(value="no", type_=None, basis="us_person_status"), None),
])  # fmt: skip
def test_whom_the_ledger_concerns(subject, group):
    assert group_of(subject) == group


async def test_nobody_else_asks_the_ledger_and_every_figure_is_null(rig):
    rig.calls(covered(value="no"))
    await rig.unary()
    assert rig.asked == []
    assert set(rig.figures[0].values()) == {None}


async def test_without_a_ledger_every_figure_is_null():
    plain = Rig()
    plain.identifier.identity = msgspec.structs.replace(personnel(), subjects=(covered(),))
    await plain.unary()
    assert set(plain.engine.documents[0].context.exposure.values()) == {None}


async def test_a_method_that_reaches_nothing_of_the_rule_asks_nobody(rig):
    rig.upstream.ends = True
    await rig.stream("ListMessages", pb.ListMessagesRequest(user_id=US).SerializeToString())
    assert rig.asked == []


# -- a unary call -----------------------------------------------------------------------------------------------------


async def test_the_decision_sees_the_figures_with_this_call_and_the_ledger_keeps_what_left(rig):
    reply = await rig.unary()
    assert reply.final.code is Code.OK
    figures = rig.figures[0]
    assert list(figures) == list(CATEGORIES)
    assert (figures["id_contact"], figures["personal_financial"], figures["personal_health"]) == (1, 1, 0)
    assert (figures["covered_personal_identifiers"], figures["combined"]) == (1, 1)
    assert rig.left() == {"id_contact": 1, "public": 1}
    assert rig.asked == ["reserve", "settle"]


async def test_the_outcome_is_recorded_before_the_ledger_is_told(rig):
    order = []
    rig.records.fail = lambda entry: order.append(type(entry).__name__) and False
    settle = rig.ledger.settle

    async def told(settlement):
        order.append("settle")
        await settle(settlement)

    rig.ledger.settle = told
    await rig.unary()
    assert order == ["DecisionEntry", "OutcomeBody", "settle"]


async def test_a_deny_gives_everything_back(rig):
    rig.engine.rule = lambda _request: deny("dsp_bulk")
    assert (await rig.unary()).final.code is Code.PERMISSION_DENIED
    assert rig.left() == {}


async def test_what_could_not_be_recorded_or_forwarded_is_given_back(rig):
    rig.upstream.reply = lambda _message: ForwardError("the service cannot be reached")
    await rig.unary()
    assert rig.left() == {}
    rig.records.fail = lambda _entry: True
    await rig.unary()
    assert rig.left() == {}


async def test_a_person_who_is_no_us_person_does_not_count_and_an_unknown_one_does(rig):
    rig.upstream.reply = lambda message: answer(profile(pb.GetProfileRequest.FromString(message).user_id))
    for number, counted in ((GERMAN, 0), (NOBODY_KNOWS, 1), (US, 2)):
        await rig.unary(get(number))
        assert rig.figures[-1]["id_contact"] == counted
        assert rig.left().get("id_contact", 0) == counted


async def test_what_is_redacted_has_not_left(rig):
    rig.engine.rule = lambda _request: permit({"id": "redact_fields", "categories": ["id_contact"]})
    rig.upstream.reply = lambda _message: answer(profile(US, login="a"))
    await rig.unary()
    assert rig.left() == {"id_account_auth": 1, "public": 1}


async def test_what_is_masked_has_left(rig):
    """28 CFR 202.234(a), 202.206."""
    rig.engine.rule = lambda _request: permit({"id": "mask_fields", "categories": ["id_contact"]})
    await rig.unary()
    assert rig.left() == {"id_contact": 1, "public": 1}


async def test_such_decisions_are_neither_cached_nor_taken_from_a_cache(rig):
    await rig.unary()
    assert rig.engine.valid_for == [0.0]
    rig.engine.known = _Anything()
    await rig.unary()
    assert len(rig.engine.documents) == 2


class _Anything(dict):
    def get(self, key, default=None):
        raise AssertionError("the cache was asked")


async def test_a_record_without_a_name_counts_for_those_the_request_named_and_as_one_more(rig):
    """Nobody can tell whose it is: it may be theirs, and link to what is known of them; it may be another's."""
    rig.upstream.reply = lambda _message: answer(pb.Profile(email="a@b.example").SerializeToString())
    await rig.unary()
    assert rig.left() == {"id_contact": 2}


async def test_two_identities_are_counted_each_for_its_own_group(rig):
    rig.calls(covered(), covered("bo", group="other"))
    await rig.unary()
    assert [one["id_contact"] for one in rig.figures] == [1, 1]
    assert rig.left() == rig.left("other") == {"id_contact": 1, "public": 1}


async def test_a_delegate_who_is_refused_takes_both_reservations_back(rig):
    rig.calls(covered(), covered("bo", group="other"))
    rig.engine.rule = lambda request: deny("dsp_bulk") if request.subject.person.id == "bo" else PERMIT
    await rig.unary()
    assert rig.left() == rig.left("other") == {}


async def test_only_the_covered_one_of_two_identities_is_counted(rig):
    rig.calls(covered(value="no"), covered("bo", group="other"))
    await rig.unary()
    assert [one["id_contact"] for one in rig.figures] == [None, 1]
    assert rig.left("other") == {"id_contact": 1, "public": 1}


async def test_a_list_is_only_peeked_at_until_its_answer_is_there(rig):
    page = pb.ListProfilesResponse(profiles=[pb.Profile.FromString(profile(number)) for number in (US, GERMAN, 3, 4)])
    rig.upstream.reply = lambda _message: answer(page.SerializeToString())
    await rig.unary(b"\x08\x04", method="ListProfiles")
    assert rig.asked == ["peek", "reserve", "settle"]
    assert [one["id_contact"] for one in rig.figures] == [0, 3]
    assert rig.left() == {"id_contact": 3, "public": 3}


async def test_dropped_records_have_not_left(rig):
    page = pb.ListProfilesResponse(profiles=[pb.Profile.FromString(profile(number)) for number in (US, NOBODY_KNOWS)])
    rig.upstream.reply = lambda _message: answer(page.SerializeToString())
    rig.engine.rule = lambda _request: permit({"id": "drop_records", "subjects": "unknown"})
    await rig.unary(b"\x08\x04", method="ListProfiles")
    assert rig.left() == {"id_contact": 1, "public": 1}


async def test_a_record_that_names_nobody_counts_as_a_person_of_its_own(rig):
    page = pb.ListProfilesResponse(profiles=[pb.Profile(email="a@b.example")])
    rig.upstream.reply = lambda _message: answer(page.SerializeToString())
    for number in (1, 2):
        await rig.unary(b"\x08\x04", method="ListProfiles")
        assert rig.left()["id_contact"] == number


async def test_calls_at_the_same_time_cannot_cross_a_threshold_together(rig):
    rig.engine.rule = limit("id_contact", 3)
    rig.upstream.reply = lambda message: answer(profile(pb.GetProfileRequest.FromString(message).user_id))
    replies = await asyncio.gather(*(rig.unary(get(number)) for number in range(10, 20)))
    assert sum(one.final.code is Code.OK for one in replies) <= 3
    assert rig.left()["id_contact"] <= 3


# -- when the ledger fails --------------------------------------------------------------------------------------------


async def test_without_an_answer_from_the_ledger_there_are_no_figures_and_the_operator_is_told(rig):
    rig.ledger.down = True
    rig.engine.rule = limit("id_contact", 100)
    assert (await rig.unary()).final.code is Code.PERMISSION_DENIED
    assert set(rig.figures[0].values()) == {None}
    assert rig.reports[0].reason == "dsp_status_unknown"


async def test_a_reservation_whose_answer_was_lost_is_given_back(rig):
    reserve = rig.ledger.reserve

    async def lost(*asked):
        await reserve(*asked)
        rig.ledger.down = True
        return await rig.ledger.peek(GROUP)

    rig.ledger.reserve = lost
    rig.engine.rule = limit("id_contact", 100)
    await rig.unary()
    assert len(rig.ledger.reserved) == 1
    assert rig.exposures.owed == 1
    rig.ledger.down = False
    await rig.exposures.pay()
    assert rig.left() == {}


async def test_a_settlement_that_fails_is_owed_and_what_is_reserved_goes_on_counting(rig):
    settle = rig.ledger.settle

    async def down(settlement):
        rig.ledger.down = True
        await settle(settlement)

    rig.ledger.settle = down
    assert (await rig.unary()).final.code is Code.OK
    assert rig.ledger.exposure(GROUP)["personal_financial"] == 1
    rig.ledger.settle, rig.ledger.down = settle, False
    await rig.exposures.pay()
    assert rig.exposures.owed == 0
    assert rig.left() == {"id_contact": 1, "public": 1}


async def test_what_a_policy_permits_without_figures_is_counted_all_the_same(rig):
    rig.ledger.down = True
    await rig.unary()
    rig.ledger.down = False
    await rig.exposures.pay()
    assert rig.left() == {"id_contact": 1, "public": 1}


async def test_a_caller_who_goes_away_leaves_nothing_outstanding(rig):
    started = asyncio.Event()

    async def never(*_):
        started.set()
        await asyncio.Event().wait()

    rig.upstream.unary = never
    task = asyncio.create_task(rig.unary())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert rig.left() == {}


# -- streams ----------------------------------------------------------------------------------------------------------


async def test_each_message_of_a_stream_is_reserved_before_it_leaves(rig):
    rig.upstream.echo = lambda message: pb.SyncResponse(
        profile=pb.Profile.FromString(profile(pb.SyncRequest.FromString(message).user_id))
    ).SerializeToString()
    rig.engine.rule = limit("id_contact", 2)
    messages = [pb.SyncRequest(user_id=number).SerializeToString() for number in (11, 12, 13)]
    final, sink = await rig.stream("Sync", *messages)
    assert final.code is Code.PERMISSION_DENIED
    left = {pb.SyncResponse.FromString(one).profile.user_id for one in sink.messages}
    assert left <= {11, 12}
    assert rig.left().get("id_contact", 0) == len(left)


async def test_a_stream_of_writes_counts_those_it_names(rig):
    rig.upstream.answers = [pb.ImportContactsResponse(imported=2).SerializeToString()]
    messages = [pb.Contact(user_id=number, phone="1").SerializeToString() for number in (11, 12, 12)]
    final, _ = await rig.stream("ImportContacts", *messages)
    assert final.code is Code.OK
    assert rig.left() == {"id_contact": 2, "public": 2}


async def test_a_long_stream_settles_what_is_done_with_as_it_goes(rig, monkeypatch):
    monkeypatch.setattr("sidecar.enforcement.exposure._MOST_OPEN", 10)
    rig.upstream.answers = [
        pb.SyncResponse(profile=pb.Profile.FromString(profile(number))).SerializeToString() for number in range(11, 61)
    ]
    final, sink = await rig.stream("Sync", pb.SyncRequest(user_id=US).SerializeToString())
    assert final.code is Code.OK
    assert len(sink.messages) == 50
    assert rig.asked.count("settle") >= 4
    assert rig.left()["id_contact"] >= 50
    assert rig.figures[-1]["id_contact"] == 51


async def test_a_recheck_asks_for_figures_and_reserves_nothing_twice(rig):
    rig.engine.rule = lambda _request: permit({"id": "recheck_seconds", "seconds": 1}, ttl=0)
    rig.upstream.ends = False
    then, sink = asyncio.Event(), Sink()
    watching = asyncio.create_task(rig.point.watch())
    call = asyncio.create_task(
        rig.point.stream(rig.call("Sync"), several(pb.SyncRequest(user_id=US).SerializeToString(), then=then), sink)
    )
    while len(rig.engine.documents) < 4:
        await asyncio.sleep(0.01)
        rig.point.reconsider()
    call.cancel()
    while not watching.done():  # `wait_for` of Python 3.11 may swallow a cancellation
        watching.cancel()
        await asyncio.sleep(0)
    await asyncio.gather(call, watching, return_exceptions=True)
    assert rig.asked.count("reserve") == 1
    assert rig.figures[-1]["id_contact"] == 1
    assert rig.left() == {}


async def test_an_error_s_text_does_not_leave_where_the_ledger_counts(rig):
    rig.upstream.reply = lambda _message: answer(None, Code.NOT_FOUND, message="900-11-1234 is nobody")
    assert (await rig.unary()).final.message != "900-11-1234 is nobody"
    rig.calls(covered(value="no"))
    assert (await rig.unary()).final.message == "900-11-1234 is nobody"
