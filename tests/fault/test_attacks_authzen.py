"""Attacks on the AuthZEN door: searches that use something up, requests that fill a folder, calls cut off, odd HTTP."""

import asyncio
import json
import re
from itertools import pairwise

import pytest
from authzen_parts import Door, Log, http, permits, question
from https_parts import Echo, World, served, wire
from pipeline_rig import deny

from sidecar.doors.authzen_http import HttpHead, HttpResponse
from sidecar.doors.authzen_requests import PATH
from sidecar.enforcement.call import Peer
from sidecar.errors import IdentifyError
from sidecar.vocabulary import ExceptionGrant, GrantScope

ACTIONS, SUBJECTS = "/access/v1/search/action", "/access/v1/search/subject"
CLAIMED = {"purpose": "user_support", "ticket": "SUP-12", "justification": "legal_order"}


def subject_search(**more):
    asked = question("p1")
    return {"subject": {"type": "user"}, "action": asked["action"], "resource": asked["resource"], **more}


# -- searches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [ACTIONS, SUBJECTS])
async def test_a_search_uses_up_no_exception_that_a_header_claims(path):
    door = Door()
    door.rig.grants.grant = ExceptionGrant(
        id="EX-1", person="p1", scope=GrantScope(services=("s",), categories=("id_contact",), subjects="us"),
        justification="legal_order", ticket="SUP-1", not_before="2026-01-01T00:00:00Z",
        expires="2030-01-01T00:00:00Z", requested_by="p1", approvers=("dana", "erin"),
    )  # fmt: skip
    door.rig.engine.rule = lambda request: (
        permits()
        | ({"reasons": [{"code": "exception", "message": "m", "rule": "r"}]} if request.context.exceptions else {})
    )
    said = question("p1") if path == ACTIONS else subject_search()
    found = await door.post(path, said, headers=[("x-customhouse-exception", "EX-1")])
    assert found.status == 200, found.text
    assert not door.rig.grants.uses
    assert all(not one.context.exceptions for one in door.rig.engine.documents)


async def test_a_search_that_is_cut_off_while_it_is_recorded_leaves_an_outcome():
    door = Door()

    async def cut(entry):
        door.rig.records._take(entry)
        raise asyncio.CancelledError

    door.rig.records.decision = cut
    with pytest.raises(asyncio.CancelledError):
        await door.post(ACTIONS, question("p1"))
    assert [one.status for one in door.outcomes] == ["CANCELLED"]


# -- evaluations -----------------------------------------------------------------------------------------------------


async def test_a_permit_that_is_taken_back_has_an_outcome_when_the_caller_goes_meanwhile():
    door = Door()
    record = door.rig.records.decision

    async def cut(entry):
        if b'"effect":"deny"' in bytes(entry.form.decision):
            raise asyncio.CancelledError
        await record(entry)

    def revoked(_peer):
        raise IdentifyError("revoked while it was decided")

    door.rig.records.decision, door.point.workload = cut, revoked
    with pytest.raises(asyncio.CancelledError):
        await door.ask()
    assert [one.status for one in door.outcomes] == ["CANCELLED"]


@pytest.mark.parametrize("ticket", ["SUP-١٢", "SUP-1\r\nX: y", "SUP-1\x1b[2J"])
async def test_a_claim_is_what_could_stand_in_metadata(ticket):
    door = Door()
    found = await door.ask(question("p1", context={"ticket": ticket}))
    assert found.status == 400
    assert not door.rig.engine.documents
    assert all(ticket.encode() not in bytes(one.input) for one in door.decisions)


# -- requests for exceptions -----------------------------------------------------------------------------------------


@pytest.fixture
def door(tmp_path):
    made = Door(tmp_path)
    made.rig.engine.rule = lambda _request: deny("not_us_personnel")
    return made


async def denial(door):
    return (await door.ask(question("p1"))).json["context"]["evaluation_id"]


def submission(evaluation):
    return question("p1", context=dict(CLAIMED)) | {"denial": {"evaluation_id": evaluation}}


async def test_many_requests_at_one_moment_are_five(door):
    evaluation = await denial(door)
    found = await asyncio.gather(*(door.post(PATH, submission(evaluation)) for _ in range(12)))
    assert sorted(one.status for one in found) == [202] * 5 + [429] * 7
    assert len(list(door.folder.glob("*.draft"))) == 5


async def test_requests_that_are_taken_back_do_not_fill_the_folder(door):
    evaluation = await denial(door)
    statuses = []
    for _ in range(25):
        made = await door.post(PATH, submission(evaluation))
        statuses.append(made.status)
        if made.status == 202:
            assert (await door.post(f"{PATH}/{made.json['task']['id']}/cancel", {})).status == 200
    assert statuses == [202] * 20 + [429] * 5
    assert len(list(door.folder.iterdir())) == 20
    door.rig.now += 86_401
    for entry in door.people.entries.values():
        entry.expires_at = door.rig.now + 1000
    assert (await door.post(PATH, submission(await denial(door)))).status == 202


async def test_a_folder_too_full_to_count_takes_no_more(door, monkeypatch):
    monkeypatch.setattr("sidecar.doors.authzen_drafts._MOST_FILES", 3)
    for number in range(4):
        (door.folder / f"{number}.cancelled").touch()
    made = await door.post(PATH, submission(await denial(door)))
    assert made.status == 429
    assert not list(door.folder.glob("*.draft"))


async def test_a_grant_that_was_signed_is_not_said_to_be_cancelled(door):
    made = await door.post(PATH, submission(await denial(door)))
    name = made.json["task"]["id"]
    await door.post(f"{PATH}/{name}/cancel", {})
    cancelled = door.folder / f"{name}.cancelled"
    (door.folder / f"{name}.json").write_bytes(cancelled.read_bytes())
    assert (await door.send("GET", f"{PATH}/{name}")).json["task"]["status"] != "cancelled"


# -- HTTP ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("https"))


async def test_a_question_about_the_head_alone_gets_no_body_and_harms_no_connection(world):
    async with served(world) as (listener, _), wire(listener, world.client()) as one:
        await one.send(http("/early", method="HEAD"))
        head = await asyncio.wait_for(one.reader.readuntil(b"\r\n\r\n"), 60)
        assert head.startswith(b"HTTP/1.1 418")
        await one.send(http("/x", {"a": 1}))
        assert (await one.answer())[0] == 200


SMUGGLED = {
    "two lengths": b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
    "length and chunks": b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks of another name": b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunks twice": b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "space before the colon": b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length : 1\r\n\r\na",
    "a length with a sign": b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\na",
    "a negative length": b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\na",
    "a chunk size with a sign": b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n",
    "no host": b"POST /x HTTP/1.1\r\nContent-Length: 1\r\n\r\na",
    "HTTP/1.0 with chunks": b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/2 in the clear": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "bare line feeds and a null": b"POST /x\x00 HTTP/1.1\nHost: h\nContent-Length: 1\n\na",
}
CHUNKS = b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 5_000 + b"0\r\n\r\n"


async def test_a_body_of_very_many_chunks_is_not_read_to_its_end(world):
    async with served(world) as (listener, app), wire(listener, world.client()) as one:
        await one.send(CHUNKS)
        assert (await one.answer())[0] == 413
    assert not app.seen


async def test_many_requests_at_once_on_one_connection_let_others_in(world):
    handled, turns = [], []

    async def others():
        while True:
            turns.append(len(handled))
            await asyncio.sleep(0)

    async with served(world) as (listener, app), wire(listener, world.client()) as many:
        app.early = lambda head: handled.append(head.path) or HttpResponse(status=418)
        await many.send(http("/many", method="GET") * 300)
        task = asyncio.create_task(others())
        for _ in range(300):
            assert (await many.answer())[0] == 418
        task.cancel()
    assert len(handled) == 300
    assert max(after - before for before, after in pairwise(turns)) <= 3


BEHIND = http("/behind", {"a": 1})


@pytest.mark.parametrize("name", SMUGGLED)
async def test_what_two_readers_may_read_differently_is_the_last_on_its_connection(world, name):
    async with served(world) as (listener, app), wire(listener, world.client()) as one:
        await one.send(SMUGGLED[name] + BEHIND)
        data = await asyncio.wait_for(one.reader.read(), 60)
    statuses = re.findall(rb"HTTP/1\.1 (\d{3})", data)
    assert len(statuses) <= 1 and b"200" not in statuses
    assert not app.seen


@pytest.mark.parametrize("path", ["http://h/access/v1/evaluation", "/access/v1/%65valuation", "//access/v1/evaluation",
                                  "/access/v1/evaluation/", "/access/v1/../v1/evaluation", "*", PATH + "/../../x",
                                  PATH + "/EX-%2e%2e%2fx", PATH + "/EX-aaaaaaaaaaaaaaaaaaaa%00"])  # fmt: skip
async def test_a_path_is_matched_to_the_letter(path):
    for method in ("POST", "GET"):
        assert (await Door().send(method, path)).status in (404, 405)


async def test_the_log_of_a_failure_repeats_nothing_of_the_path(world):
    log, app = Log(), Echo()
    app.fail = ValueError("x")
    async with served(world, app=app, log=log) as (listener, _), wire(listener, world.client()) as one:
        await one.send(http("/jane.doe@example.com", {"a": 1}))
        assert (await one.answer())[0] == 500
    assert "jane" not in json.dumps(log.lines)


@pytest.mark.parametrize(("path", "route"), [
    ("/access/v1/evaluation", "/access/v1/evaluation"), (PATH + "/EX-1", PATH + "/{id}"),
    (PATH + "/EX-1/cancel", PATH + "/{id}/cancel"), (PATH, PATH), ("/jane.doe@example.com", ""),
])  # fmt: skip
def test_a_route_is_the_doors_own_word(path, route):
    head = HttpHead(method="GET", path=path, headers=(), peer=Peer())
    assert Door().app.route(head) == route
