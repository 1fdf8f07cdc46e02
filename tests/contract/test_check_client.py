"""The typed client against the decision API over real gRPC: what it is told, and that anything amiss is a denial."""

import asyncio
import logging
import threading
import time
from concurrent import futures
from contextlib import contextmanager

import grpc
import pytest
from check_parts import METHOD, Checks
from pipeline_rig import GERMAN, NOBODY_KNOWS, US, deny, get, permit, profile

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.api.v1.decision_point_pb2_grpc import DecisionPointServicer, add_DecisionPointServicer_to_server
from sidecar.client import (
    AsyncDecisionClient,
    Context,
    DecisionClient,
    DeniedError,
    Entity,
    LimitRecords,
    MethodCall,
    Outcome,
    Released,
    Token,
)
from sidecar.demo.profiles.v1 import profiles_pb2

LONG = 60.0
PROFILE = Entity("profile", "read", (str(US),))


@pytest.fixture
def checks():
    return Checks()


def asking(checks, address):
    return AsyncDecisionClient(address, deadline=LONG, clock=lambda: checks.rig.now)


async def blocking(checks, folder, does):
    """Run `does(client)` with a blocking client, in a thread of its own."""
    async with checks.served(folder) as address:

        def run():
            with DecisionClient(address, deadline=LONG, clock=lambda: checks.rig.now) as client:
                return does(client)

        return await asyncio.to_thread(run)


async def test_the_blocking_client_asks_and_reports(checks, tmp_path):
    def does(client):
        found = client.check(PROFILE, subject=Token("t.o.k"), context=Context(purpose="user_support"))
        assert found
        return found, client.report(found, Outcome(us=Released(records=1))), client.report(found, Outcome())

    found, first, second = await blocking(checks, tmp_path, does)
    assert (first.recorded, second.recorded, second.code) == (True, False, 5)
    assert (checks.outcomes[0].call_id, checks.outcomes[0].released.us.records) == (found.call_id, 1)
    assert checks.rig.engine.documents[0].context.purpose == "user_support"


async def test_a_deny_comes_with_its_reasons(checks, tmp_path):
    checks.rig.engine.rule = lambda _request: deny("person_location")
    found = await blocking(checks, tmp_path, lambda client: client.check(PROFILE))
    assert (bool(found), found.why, found.reasons, found.code) == (False, "policy", ("person_location",), 7)


async def test_a_batch_answers_in_order(checks, tmp_path):
    checks.rig.engine.rule = lambda one: deny("subjects_unknown") if one.resource.subjects.unknown else permit()
    asked = [Entity("profile", "read", (str(one),)) for one in (US, NOBODY_KNOWS, GERMAN)]
    found = await blocking(checks, tmp_path, lambda client: client.check_all([*asked, MethodCall(METHOD, get(US))]))
    assert [bool(one) for one in found] == [True, False, True, True]
    assert await blocking(checks, tmp_path, lambda client: client.check_all([])) == []


async def test_a_permit_whose_obligation_is_not_declared_is_denied_and_reported(checks, tmp_path):
    checks.rig.engine.rule = lambda _request: permit({"id": "limit_records", "max": 5})
    single = await blocking(checks, tmp_path, lambda client: client.check(PROFILE))
    (several,) = await blocking(checks, tmp_path, lambda client: client.check_all([PROFILE]))
    assert (single.why, several.why) == ("obligation", "obligation")
    assert [(one.status, one.seen) for one in checks.outcomes] == [("PERMISSION_DENIED", "reported")] * 2
    found = await blocking(checks, tmp_path, lambda client: client.check(PROFILE, meets={"limit_records"}))
    assert found.obligations == (LimitRecords(5),)


def guarded(client, *, fail=None, meets=("drop_records", "limit_records")):
    question = Entity("profile", "list", (str(US), str(GERMAN)))
    with client.guard(question, meets=meets) as call:
        rows = call.keep([{"id": US}, {"id": GERMAN}], lambda row: str(row["id"]))
        if fail is not None:
            raise fail
        return rows


async def test_a_guard_lets_through_what_may_pass_and_reports_it(checks, tmp_path):
    checks.rig.engine.rule = lambda _request: permit({"id": "drop_records", "subjects": "us"})
    assert await blocking(checks, tmp_path, guarded) == [{"id": GERMAN}]
    (done,) = checks.outcomes
    assert (done.status, done.dropped, done.seen) == ("OK", 1, "reported")
    assert [(one.id, one.met) for one in done.obligations] == [("drop_records", True)]


async def test_a_guard_denies_at_the_start_what_is_not_permitted(checks, tmp_path):
    checks.rig.engine.rule = lambda _request: deny("not_us_personnel")
    with pytest.raises(DeniedError) as caught:
        await blocking(checks, tmp_path, guarded)
    assert caught.value.denied.reasons == ("not_us_personnel",)


async def test_a_guard_reports_an_exception_and_lets_it_pass(checks, tmp_path):
    with pytest.raises(OSError, match="disk"):
        await blocking(checks, tmp_path, lambda client: guarded(client, fail=OSError("disk")))
    assert [(one.status, one.seen) for one in checks.outcomes] == [("UNKNOWN", "reported")]


async def test_an_obligation_that_was_not_met_denies_at_the_end(checks, tmp_path):
    checks.rig.engine.rule = lambda _request: permit(
        {"id": "redact_fields", "categories": ["id_contact"], "fields": []}
    )
    with pytest.raises(DeniedError, match="not met: redact_fields"):
        await blocking(checks, tmp_path, lambda client: guarded(client, meets={"redact_fields"}))
    (done,) = checks.outcomes
    assert (done.status, [(one.id, one.met) for one in done.obligations]) == (
        "PERMISSION_DENIED", [("redact_fields", False)],
    )  # fmt: skip


async def test_checked_answers_are_released_as_the_sidecar_filters_them(checks, tmp_path):
    checks.rig.engine.rule = lambda _request: permit(
        {"id": "redact_fields", "categories": ["id_contact"], "fields": []}
    )

    def does(client):
        with client.guard(MethodCall(METHOD, get(US), checked=True)) as call:
            assert call.forward == get(US)
            assert call.metadata["x-customhouse-call-id"] == call.call_id
            return call.release(profile(US))

    released = profiles_pb2.Profile.FromString(await blocking(checks, tmp_path, does))
    assert (released.handle, released.email) == ("h", "")
    (done,) = checks.outcomes
    assert (done.messages.out, done.released.us.records, done.seen) == (1, 1, "reported")


async def test_checked_entities_are_shown_as_decided(checks, tmp_path):
    checks.rig.engine.rule = lambda one: permit(
        {"id": "drop_records", "subjects": "us"}, {"id": "limit_records", "max": 1}
    )

    def does(client):
        with client.guard(Entity("profile", "search", checked=True), meets={"drop_records", "limit_records"}) as call:
            return call.show([str(US), str(GERMAN), "7"])

    checks.rig.engine.known.clear()
    assert await blocking(checks, tmp_path, does) == [str(GERMAN)]
    assert checks.outcomes[0].dropped == 2


async def test_an_answer_that_is_denied_ends_the_guard_without_a_second_report(checks, tmp_path, caplog):
    def does(client):
        with client.guard(MethodCall(METHOD, get(US), checked=True)) as call:
            checks.rig.engine.rule = lambda _request: deny("subjects_unknown")
            return call.release(profile(NOBODY_KNOWS))

    with caplog.at_level(logging.WARNING, "customhouse.client"), pytest.raises(DeniedError, match="subjects_unknown"):
        await blocking(checks, tmp_path, does)
    assert [one.status for one in checks.outcomes] == ["PERMISSION_DENIED"]
    assert caplog.records == []


async def test_a_guard_returns_nothing_that_was_done_after_its_permit_had_ended(checks, tmp_path):
    def does(client):
        with client.guard(PROFILE) as call:
            checks.rig.now = call.permit.expires_at
            return "what was found meanwhile"

    with pytest.raises(DeniedError, match="expired"):
        await blocking(checks, tmp_path, does)

    async def late(client):
        async with client.guard(PROFILE) as call:
            checks.rig.now = call.permit.expires_at
            call.keep(["1"], str)

    async with checks.served(tmp_path) as address, asking(checks, address) as client:
        with pytest.raises(DeniedError, match="expired"):
            await late(client)


async def test_the_client_for_asyncio_does_the_same(checks, tmp_path):
    checks.rig.engine.rule = lambda _request: permit({"id": "limit_records", "max": 1})
    async with checks.served(tmp_path) as address, asking(checks, address) as client:
        found = await client.check(PROFILE, meets={"limit_records"})
        assert (await client.report(found, Outcome())).recorded
        assert [one.why for one in await client.check_all([PROFILE, PROFILE])] == ["obligation"] * 2
        async with client.guard(Entity("profile", "list", ("1", "2")), meets={"limit_records"}) as call:
            assert call.keep(["1", "2"], str) == ["1"]
        async with client.guard(MethodCall(METHOD, get(US), checked=True)) as call:
            assert await call.release(profile(US)) == profile(US)
        with pytest.raises(DeniedError, match="not met"):
            async with client.guard(PROFILE, meets={"limit_records"}):
                pass
        with pytest.raises(DeniedError, match="limit_records"):
            async with client.guard(PROFILE):
                raise AssertionError
    assert len(checks.waiting) == 0
    assert [one.status for one in checks.outcomes] == [
        "OK", "PERMISSION_DENIED", "PERMISSION_DENIED", "OK", "OK", "PERMISSION_DENIED", "PERMISSION_DENIED",
    ]  # fmt: skip


async def test_a_task_that_is_cancelled_in_a_guard_reports_that(checks, tmp_path):
    inside = asyncio.Event()
    async with checks.served(tmp_path) as address, asking(checks, address) as client:

        async def work():
            async with client.guard(PROFILE):
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [(one.status, one.seen) for one in checks.outcomes] == [("CANCELLED", "reported")]


async def test_threads_share_a_client(checks, tmp_path):
    def does(client):
        with futures.ThreadPoolExecutor(8) as pool:
            asked = [Entity("profile", "read", (str(US if one % 2 else NOBODY_KNOWS),)) for one in range(64)]
            return list(pool.map(client.check, asked))

    checks.rig.engine.rule = lambda one: deny("subjects_unknown") if one.resource.subjects.unknown else permit()
    found = await blocking(checks, tmp_path, does)
    assert [bool(one) for one in found] == [bool(one % 2) for one in range(64)]
    assert len({one.call_id for one in found}) == 64


# -- a sidecar that is not well --------------------------------------------------------------------------------------


class Ill(DecisionPointServicer):
    """Answers as it is told; counts how often it was asked."""

    def __init__(self, does):
        self.does, self.asked, self.reported = does, 0, 0

    def Check(self, request, context):
        self.asked += 1
        return self.does(self.asked, context)

    def ReportOutcome(self, request, context):
        self.reported += 1
        return pb.ReportOutcomeResponse()


@contextmanager
def ill(folder, does):
    with futures.ThreadPoolExecutor(2) as pool:
        server, servicer = grpc.server(pool), Ill(does)
        add_DecisionPointServicer_to_server(servicer, server)
        address = f"unix:{folder}/ill.sock"
        server.add_insecure_port(address)
        server.start()
        try:
            with DecisionClient(address, deadline=LONG) as client:
                yield client, servicer
        finally:
            server.stop(0).wait()


def permitted():
    found = pb.CheckResponse(decision=pb.DECISION_PERMIT, call_id="c1")
    found.expires_at.seconds = found.report_by.seconds = 9_000_000_000
    return found


def aborting(code, until=1_000):
    def does(asked, context):
        if asked <= until:
            context.abort(code, "no")
        return permitted()

    return does


def test_it_asks_again_only_while_nothing_was_answered(tmp_path):
    with ill(tmp_path, aborting(grpc.StatusCode.UNAVAILABLE, until=2)) as (client, sidecar):
        assert client.check(PROFILE)
        assert sidecar.asked == 3
    with ill(tmp_path, aborting(grpc.StatusCode.UNAVAILABLE)) as (client, sidecar):
        assert client.check(PROFILE).why == "unreachable"
        assert sidecar.asked == 4


@pytest.mark.parametrize(
    "name", ["INVALID_ARGUMENT", "UNAUTHENTICATED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNKNOWN", "ABORTED"]
)
def test_any_other_error_is_a_denial_at_once(tmp_path, name):
    with ill(tmp_path, aborting(grpc.StatusCode[name])) as (client, sidecar):
        found = client.check(PROFILE)
        assert (bool(found), sidecar.asked) == (False, 1)
        assert found.why == ("misuse" if name == "INVALID_ARGUMENT" else "unreachable")


def test_an_indeterminate_answer_is_an_answer_and_is_not_asked_again(tmp_path):
    with ill(tmp_path, lambda *_: pb.CheckResponse(decision=pb.DECISION_INDETERMINATE, code=14)) as (client, sidecar):
        assert client.check(PROFILE).why == "indeterminate"
        assert sidecar.asked == 1


def test_an_answer_about_an_answer_is_never_asked_twice(tmp_path):
    with ill(tmp_path, lambda asked, context: permitted() if asked == 1 else context.abort(grpc.StatusCode.UNAVAILABLE, "")) as (
        client, sidecar,
    ):  # fmt: skip
        with pytest.raises(DeniedError), client.guard(MethodCall("/a.B/C", b"", checked=True)) as call:
            call.release(b"secret")
        assert sidecar.asked == 2


def test_no_answer_in_time_is_a_denial_in_time(tmp_path):
    answered = threading.Event()
    with ill(tmp_path, lambda *_: answered.wait(LONG) and permitted()) as (client, sidecar):
        began = time.monotonic()
        found = client.check(PROFILE, deadline=1.0)
        assert (found.why, found.code) == ("unreachable", 4)
        assert time.monotonic() - began < LONG / 2
        assert sidecar.asked == 1
        answered.set()


def test_a_sidecar_that_is_not_there_is_a_denial_in_time(tmp_path):
    with DecisionClient(f"unix:{tmp_path}/none.sock") as client:
        began = time.monotonic()
        assert client.check(PROFILE).why == "unreachable"
        assert [one.why for one in client.check_all([PROFILE, PROFILE])] == ["unreachable"] * 2
        assert time.monotonic() - began < 20
    assert client.check(PROFILE).why == "unreachable", "a client that was closed denies"


def test_a_report_that_finds_nobody_harms_nothing(tmp_path, caplog):
    with ill(tmp_path, lambda *_: permitted()) as (client, sidecar):
        with caplog.at_level(logging.WARNING, "customhouse.client"), client.guard(PROFILE):
            pass
        assert sidecar.reported == 1
    assert "was not reported" in caplog.text
