"""The files of authorizations and attestations: what is in force for a call, and what happens when they change."""

import asyncio
import math

import pytest
from grant_signing import ALL_SIGNERS, KEYS, SERVICE, START, attested, authorized, public, signers

from sidecar.enforcement.circumstances import Circumstances
from sidecar.exceptions.authorization_store import MAX_LINES, NOTHING, AuthorizationStore
from sidecar.main.authorizations import details
from sidecar.record import EventBody, encode_body
from sidecar.vocabulary import Engagement, Person, Place, SecurityRequirements, Subject

pytestmark = pytest.mark.unit
DAY = 86_400
ENDS = START + 90 * DAY
P1 = [("p1", None)]


class Desk:
    def __init__(self, folder):
        self.file, self.attestations, self.keys = (
            folder / name for name in ("authorizations.jsonl", "attestations.jsonl", "signers.yaml"))  # fmt: skip
        self.keys.write_bytes(ALL_SIGNERS)
        self.file.write_bytes(b"")
        self.now, self.events, self.said = START, [], []
        self.store = AuthorizationStore(file=self.file, keys=self.keys, clock=lambda: self.now, poll=0.02,
                                        on_event=self.events.append, report=lambda event, detail: self.said.append(detail))  # fmt: skip

    def put(self, *lines, file=None):
        file = file or self.file
        new = file.with_suffix(".new")
        new.write_bytes(b"\n".join(lines) + b"\n")
        new.rename(file)
        self.store.load()

    def attest(self, *lines):
        self.put(*lines, file=self.attestations)

    def happened(self):
        return [(event.item.payload.id, event.state, event.why) for event in self.events]

    def ids(self, people=P1, service=SERVICE, now=None):
        return [one.id for one in self.store.for_call(people, service, self.now if now is None else now).authorizations]


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_in_force_for_the_people_and_the_service(desk):
    desk.put(authorized(id="b"), authorized(id="a"), authorized(id="c", persons=["p2"]),
             authorized(id="d", persons=[], groups=["acme"]), authorized(id="e", services=["other.v1.Other"]),
             authorized(id="f", not_before="2027-01-15T09:00:00Z"))  # fmt: skip
    assert desk.ids() == ["a", "b"]
    assert desk.ids(now=START + 3600) == ["a", "b", "f"]
    assert desk.ids([("p1", "acme")]) == ["a", "b", "d"]
    assert desk.ids([("p1", None), ("p2", "acme")]) == ["a", "b", "c", "d"]
    assert desk.ids([("p3", None)]) == []
    assert desk.ids(service="other.v1.Other") == ["e"]
    assert desk.ids(service="profiles.v1.Profile") == []
    assert desk.ids([]) == []
    assert desk.store.in_force() == ("a", "b", "c", "d", "e")


def test_the_first_end_is_the_end_of_the_answer(desk):
    desk.put(authorized(id="a"), authorized(id="b", expires="2027-02-15T08:00:00Z"))
    desk.attest(attested(valid_until="2027-01-20T08:00:00Z"))
    assert desk.store.for_call(P1, SERVICE, START).expires_at == START + 5 * DAY
    assert desk.store.for_call([("p9", None)], SERVICE, START).expires_at == START + 5 * DAY
    assert desk.store.for_call(P1, SERVICE, START + 5 * DAY).expires_at == START + 31 * DAY
    assert desk.store.for_call(P1, SERVICE, START + 31 * DAY).expires_at == ENDS
    assert desk.store.for_call(P1, SERVICE, ENDS) == NOTHING
    assert NOTHING.expires_at == math.inf


def test_the_latest_attestation_for_the_service(desk):
    assert desk.store.for_call(P1, SERVICE, START).requirements == SecurityRequirements()
    desk.attest(attested(id="old", version="2024-10", attested_at="2027-01-14T08:00:00Z"), attested(id="new"),
                attested(id="other", version="9", services=["other.v1.Other"], attested_at="2027-01-15T07:59:59Z"))  # fmt: skip
    assert desk.store.for_call(P1, SERVICE, START).requirements.version == "2025-01"
    assert desk.store.for_call(P1, SERVICE, START - 1).requirements.version == "2024-10"
    assert desk.store.for_call([], "other.v1.Other", START).requirements.version == "9"
    assert desk.store.for_call(P1, SERVICE, START + 365 * DAY).requirements == SecurityRequirements()


def test_a_bad_line_is_named_and_the_others_hold(desk):
    desk.put(authorized(), b"{", b"", authorized("dana", id="au-2"), authorized(owner="olaf"), attested())
    assert desk.ids() == ["au-1"]
    assert desk.store.problems() == {
        f"{desk.file}:2": desk.store.problems()[f"{desk.file}:2"],
        f"{desk.file}:4": "needs 2 distinct signers, each signing once",
        f"{desk.file}:5": "its id 'au-1' is that of an earlier line",
        f"{desk.file}:6": "protected header: typ is not customhouse-authorization+json",
    }
    desk.store.load()
    assert len(desk.said) == 4


@pytest.mark.parametrize("name", ["file", "keys"])
def test_nothing_is_in_force_while_a_file_cannot_be_read(desk, name):
    desk.put(authorized())
    path = getattr(desk, name)
    away = path.rename(path.with_suffix(".away"))
    desk.store.load()
    assert desk.ids() == []
    assert list(desk.store.problems()) == [str(path)]
    away.rename(path)
    desk.store.load()
    assert desk.ids() == ["au-1"]
    assert desk.happened() == [("au-1", "in_force", ""), ("au-1", "ended", "withdrawn"), ("au-1", "in_force", "")]


def test_a_signer_who_is_removed_takes_what_they_signed_with_them(desk):
    desk.put(authorized("dana", "eli"), authorized("dana", "fay", id="au-2"))
    desk.keys.write_bytes(
        signers(*({"id": name, "key": public(name), "may": ["exemption"]} for name in ("dana", "fay")))
    )
    desk.store.load()
    assert desk.ids() == ["au-2"]
    assert list(desk.store.problems().values()) == ["'eli' is no signer"]


def test_coming_into_force_and_ending_are_events_that_fit_a_record(desk):
    desk.put(authorized(), authorized(id="later", not_before="2027-01-16T08:00:00Z"))
    desk.attest(attested())
    desk.now = START + DAY
    desk.store.load()
    desk.put(authorized())
    desk.now = ENDS
    desk.store.load()
    assert desk.happened() == [
        ("au-1", "in_force", ""), ("at-1", "in_force", ""), ("later", "in_force", ""), ("later", "ended", "withdrawn"),
        ("au-1", "ended", "expired"),
    ]  # fmt: skip
    said = [details(event) for event in desk.events]
    assert said[0]["paragraph"] == "202.506(a)(2)(viii)"
    assert (said[0]["signers"], said[0]["state"], said[-1]["why"]) == (["dana", "eli"], "in_force", "expired")
    assert (said[1]["officer"], said[1]["version"]) == ("fay", "2025-01")
    for one in said:
        assert encode_body(EventBody(type="authorization", details=dict(one)))


def test_a_changed_line_is_another(desk):
    desk.put(authorized())
    desk.put(authorized(expires="2027-03-15T08:00:00Z"))
    assert desk.happened() == [("au-1", "in_force", ""), ("au-1", "ended", "withdrawn"), ("au-1", "in_force", "")]


def test_no_more_than_so_many_lines(desk):
    desk.put(*[b"{}"] * (MAX_LINES + 1))
    assert f"more than {MAX_LINES} lines" in desk.store.problems()[str(desk.file)]


async def test_run_notices_what_changes(desk):
    task = asyncio.create_task(desk.store.run())
    await asyncio.sleep(0.1)
    new = desk.file.with_suffix(".new")
    new.write_bytes(authorized())
    new.rename(desk.file)
    async with asyncio.timeout(30):
        while not desk.events:
            await asyncio.sleep(0.01)
    task.cancel()


class TestInTheDocument:
    """What a call is shown is what the store holds for it, whatever the caller sends."""

    def claims(self, desk, metadata=(), now=START):
        said = Circumstances(ticket_pattern=".*", justification_pattern=".*", destination=Place(country="US"), grants=None,
                             authorizations=desk.store)  # fmt: skip
        people = [Subject(person=Person(id="p1"), engagement=Engagement(group="acme")), Subject(kind="workload")]
        return said.claims(metadata, "p1", "US", now, subjects=people, service=SERVICE)

    def test_without_any_claim(self, desk):
        desk.put(authorized(), authorized(id="g", persons=[], groups=["acme"]), authorized(id="x", persons=["p2"]))
        desk.attest(attested())
        claims = self.claims(desk)
        context = claims.environment("request", "2027-01-15T08:00:00Z")
        assert [(one.id, one.persons) for one in context.authorizations] == [("au-1", ("p1",)), ("g", ("p1",))]
        assert context.security_requirements.version == "2025-01"
        assert claims.expires_at == ENDS

    def test_no_metadata_makes_one(self, desk):
        metadata = tuple((key, authorized().decode()) for key in ("x-customhouse-authorization", "authorization"))
        context = self.claims(desk, metadata).environment("request", "2027-01-15T08:00:00Z")
        assert context.authorizations == ()
        assert context.security_requirements == SecurityRequirements()

    def test_without_a_store_there_is_nothing(self):
        said = Circumstances(ticket_pattern=".*", justification_pattern=".*", destination=None, grants=None)
        claims = said.claims((), "p1", "US", START, subjects=[Subject(person=Person(id="p1"))], service=SERVICE)
        assert claims.environment("request", "2027-01-15T08:00:00Z").authorizations == ()
        assert claims.expires_at == math.inf


def test_the_signers_have_keys():
    assert set(KEYS) == {"dana", "eli", "fay"}
