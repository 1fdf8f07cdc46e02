"""The folder of grants: what is in force for whom, and what happens when files come, go and break."""

import asyncio
import re

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from grant_signing import KEYS, START, listed, payload, public, revoked, signed

from sidecar.enforcement.circumstances import Circumstances
from sidecar.errors import IdentifyError
from sidecar.exceptions import jws
from sidecar.exceptions.grant import REVOCATION_TYPE, sign_grant
from sidecar.exceptions.jws import SignedObjectError
from sidecar.exceptions.store import MAX_GRANTS, GrantStore, StoreStatus

pytestmark = pytest.mark.unit


class Desk:
    def __init__(self, folder):
        self.grants, self.approvers = folder / "grants", folder / "approvers.yaml"
        self.grants.mkdir()
        self.approvers.write_bytes(listed(*({"id": name, "key": public(name)} for name in KEYS)))
        self.now, self.events, self.said = START, [], []
        self.store = GrantStore(folder=self.grants, approvers=self.approvers, clock=lambda: self.now, poll=0.02,
                                on_event=self.events.append, report=lambda event, detail: self.said.append(detail))  # fmt: skip

    def put(self, name, data):
        new = self.grants / f".{name}.new"
        new.write_bytes(data)
        new.rename(self.grants / name)
        self.store.load()

    def happened(self):
        return [(event.type.removeprefix("exception_"), event.grant.id, event.why) for event in self.events]


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def ids(grants):
    return [grant.id for grant in grants]


def test_grants_in_force_for_this_person_in_order(desk):
    desk.put("b.json", signed(id="x-2"))
    desk.put("a.json", signed(id="x-1"))
    desk.put("c.json", signed(id="x-3", person="p9"))
    desk.put("d.json", signed(id="x-4", not_before="2027-01-15T09:00:00Z"))
    assert ids(desk.store.for_call("p1", None, START)) == ["x-1", "x-2"]
    assert ids(desk.store.for_call("p1", None, START + 3600)) == ["x-1", "x-2", "x-4"]
    assert ids(desk.store.for_call("p1", None, START + 86_400)) == []
    assert ids(desk.store.for_call("p9", None, START)) == ["x-3"]
    assert desk.store.for_call("P1", None, START) == ()
    assert desk.store.status().in_force == ("x-1", "x-2", "x-3")


def test_a_claimed_grant_is_the_only_one_given(desk):
    desk.put("a.json", signed(id="x-1"))
    desk.put("b.json", signed(id="x-2"))
    assert ids(desk.store.for_call("p1", "x-2", START)) == ["x-2"]


@pytest.mark.parametrize(
    ("person", "claimed", "now"),
    [
        ("p1", "x-9", START),
        ("p9", "x-1", START),
        ("p1", "x-1", START - 1),
        ("p1", "x-1", START + 86_400),
        ("p1", "", START),
    ],
)
def test_a_claim_to_what_is_not_in_force_is_refused_in_one_wording(desk, person, claimed, now):
    desk.put("a.json", signed())
    for ask in (desk.store.claim, desk.store.for_call):
        with pytest.raises(SignedObjectError, match="^no such exception is in force for this person$"):
            ask(person, claimed, now)


def test_a_damaged_file_is_named_and_the_others_hold(desk):
    desk.put("good.json", signed())
    desk.put("bad.json", signed("dana", id="x-2"))
    desk.put("large.json", b" " * 20_000)
    desk.put("note.txt", b"not a grant")
    desk.put(".hidden.json", b"{")
    (desk.grants / "folder.json").mkdir()
    desk.store.load()
    assert desk.store.status().problems == {
        "bad.json": "needs 2 distinct approvers, each signing once",
        "large.json": "more than 16384 bytes",
        "folder.json": "not a regular file",
    }
    assert ids(desk.store.for_call("p1", None, START)) == ["x-1"]
    desk.store.load()
    assert sum("bad.json" in said for said in desk.said) == 1
    desk.put("bad.json", signed(id="x-2"))
    assert ids(desk.store.for_call("p1", None, START)) == ["x-1", "x-2"]


def test_one_id_is_one_grant(desk):
    desk.put("a.json", signed())
    desk.put("b.json", signed(scope={"services": [], "categories": [], "subjects": "unknown"}))
    assert [grant.scope.subjects for grant in desk.store.for_call("p1", None, START)] == ["us"]
    assert "b.json" in desk.store.status().problems


def test_opened_used_and_closed(desk):
    desk.put("a.json", signed())
    desk.put("later.json", signed(id="x-2", not_before="2027-01-15T09:00:00Z"))
    (grant,) = desk.store.for_call("p1", None, START)
    desk.store.used(grant, "call-1")
    desk.now = START + 3600
    desk.store.load()
    (desk.grants / "later.json").unlink()
    desk.store.load()
    desk.now = START + 86_400
    desk.store.load()
    assert desk.happened() == [
        ("opened", "x-1", ""), ("used", "x-1", ""), ("opened", "x-2", ""), ("closed", "x-2", "withdrawn"),
        ("closed", "x-1", "expired"),
    ]  # fmt: skip
    assert desk.events[1].call_id == "call-1"


def test_a_changed_grant_is_closed_and_opened(desk):
    desk.put("a.json", signed())
    desk.put("a.json", signed(max_records=5))
    assert desk.happened() == [("opened", "x-1", ""), ("closed", "x-1", "withdrawn"), ("opened", "x-1", "")]
    assert desk.store.for_call("p1", None, START)[0].max_records == 5


def test_an_approver_who_is_removed_takes_their_grants_with_them(desk):
    desk.put("a.json", signed("dana", "eli"))
    desk.put("b.json", signed("dana", "fay", id="x-2"))
    desk.approvers.write_bytes(listed({"id": "dana", "key": public("dana")}, {"id": "fay", "key": public("fay")}))
    desk.store.load()
    assert ids(desk.store.for_call("p1", None, START)) == ["x-2"]
    assert desk.store.status().problems == {"a.json": "'eli' is no approver"}


@pytest.mark.parametrize("damage", [b"{", b"approvers: 1", b" " * 300_000])
def test_nothing_holds_while_the_approvers_cannot_be_read(desk, damage):
    desk.put("a.json", signed())
    good = desk.approvers.read_bytes()
    desk.approvers.write_bytes(damage)
    desk.store.load()
    assert desk.store.for_call("p1", None, START) == ()
    assert list(desk.store.status().problems) == [str(desk.approvers)]
    desk.approvers.write_bytes(good)
    desk.store.load()
    assert ids(desk.store.for_call("p1", None, START)) == ["x-1"]


def test_nothing_holds_while_the_folder_or_approvers_are_missing(desk):
    desk.put("a.json", signed())
    away = desk.grants.rename(desk.grants.parent / "away")
    desk.store.load()
    assert desk.store.for_call("p1", None, START) == ()
    assert list(desk.store.status().problems) == [str(desk.grants)]
    away.rename(desk.grants)
    desk.approvers.unlink()
    desk.store.load()
    assert desk.store.for_call("p1", None, START) == ()
    assert list(desk.store.status().problems) == [str(desk.approvers)]


def test_no_more_than_so_many_are_read(desk):
    for number in range(MAX_GRANTS + 1):
        (desk.grants / f"{number:05}.json").write_bytes(b"{}")
    desk.store.load()
    assert f"more than {MAX_GRANTS} grants" in desk.store.status().problems[str(desk.grants)]


async def test_run_notices_what_changes(desk):
    task = asyncio.create_task(desk.store.run())
    await asyncio.sleep(0.1)
    (desk.grants / "a.json").write_bytes(signed())
    async with asyncio.timeout(60):
        while not desk.events:
            await asyncio.sleep(0.01)
    assert desk.happened() == [("opened", "x-1", "")]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def by_another_key():
    body = {"grant": "x-1", "reason": "over", "revoked_at": "2027-01-15T09:00:00Z"}
    return jws.sign(body, KEYS["eli"], "dana", REVOCATION_TYPE)


class TestRevocation:
    def test_one_approver_takes_a_grant_back_for_good(self, desk):
        desk.put("a.json", signed(id="x-1"))
        desk.put("b.json", signed(id="x-2"))
        desk.put("a.revoked", revoked("fay"))
        assert ids(desk.store.for_call("p1", None, START)) == ["x-2"]
        assert desk.happened()[-1] == ("closed", "x-1", "revoked")
        assert desk.store.status() == StoreStatus(in_force=("x-2",), problems={})
        desk.put("again.json", signed(id="x-1", max_records=5))
        assert ids(desk.store.for_call("p1", None, START)) == ["x-2"]
        with pytest.raises(SignedObjectError, match="no such exception is in force"):
            desk.store.claim("p1", "x-1", START)

    def test_before_the_grant_is_there(self, desk):
        desk.put("early.revoked", revoked())
        desk.put("a.json", signed())
        assert desk.events == []
        assert [(one.file, one.state) for one in desk.store.listing()] == [("a.json", "revoked")]

    def test_a_grant_that_has_expired_is_expired(self, desk):
        desk.put("a.json", signed())
        desk.now = START + 86_400
        desk.put("a.revoked", revoked())
        assert desk.happened()[-1] == ("closed", "x-1", "expired")

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            (b"{", "object"),
            (signed(), "typ is not customhouse-revocation"),
            (revoked(revoked_at="now"), "revoked_at is no RFC 3339"),
            (by_another_key(), "signature of dana does not verify"),
            (b" " * 20_000, "more than 16384 bytes"),
        ],
    )
    def test_one_that_does_not_hold_is_named_and_suspends_its_namesake(self, desk, data, why):
        desk.put("x-1.json", signed())
        desk.put("y.json", signed(id="x-2"))
        desk.put("x-1.revoked", data)
        assert ids(desk.store.for_call("p1", None, START)) == ["x-2"]
        assert desk.happened()[-1] == ("closed", "x-1", "withdrawn")
        assert re.search(why, desk.store.status().problems["x-1.revoked"])
        (desk.grants / "x-1.revoked").unlink()
        desk.store.load()
        assert ids(desk.store.for_call("p1", None, START)) == ["x-1", "x-2"]

    def test_who_is_an_approver_no_more_has_revoked_all_the_same(self, desk):
        desk.put("a.json", signed("dana", "fay"))
        desk.put("b.revoked", revoked("eli"))
        assert desk.store.for_call("p1", None, START) == ()
        desk.approvers.write_bytes(listed(*({"id": name, "key": public(name)} for name in ("dana", "fay"))))
        desk.store.load()
        assert desk.store.for_call("p1", None, START) == ()
        assert desk.store.status().problems == {"b.revoked": "'eli' is no approver"}


def test_no_caller_and_no_forger_puts_a_grant_before_a_policy(desk):
    """What a policy sees are grants that the sidecar has verified; a policy verifies nothing itself."""
    ours = Ed25519PrivateKey.from_private_bytes(b"\x09" * 32)
    forged = sign_grant(payload(id="forged"), ours, "eli", sign_grant(payload(id="forged"), ours, "dana"))
    desk.put("forged.json", forged)
    said = Circumstances(ticket_pattern=".*", justification_pattern=".*", destination=None, grants=desk.store)
    for metadata in ((), (("x-customhouse-exceptions", forged.decode()), ("x-customhouse-purpose", "user_support"))):
        assert said.claims(metadata, "p1", "US", START).environment("request", "2027-01-15T08:00:00Z").exceptions == ()
    for claimed in ("forged", forged.decode()):
        with pytest.raises(IdentifyError) as caught:
            said.claims((("x-customhouse-exception", claimed),), "p1", "US", START)
        assert caught.value.reason == "exception_invalid"
    assert "does not verify" in desk.store.status().problems["forged.json"]


def test_the_listing_says_what_is_what(desk):
    for name, data in (("a.json", signed(id="x-1")), ("b.json", signed("dana")), ("c.json", signed(id="x-3")),
                       ("d.json", signed(id="x-4", not_before="2027-01-15T10:00:00Z")), ("c.revoked", revoked(grant="x-3")),
                       ("e.json", signed(id="x-5", expires="2027-01-15T08:30:00Z")), ("f.json", signed(id="x-1"))):  # fmt: skip
        desk.put(name, data)
    desk.now = START + 3600
    desk.store.load()
    assert [(one.file, one.state) for one in desk.store.listing()] == [
        ("a.json", "in_force"), ("b.json", "damaged"), ("c.json", "revoked"), ("d.json", "not_yet"), ("e.json", "expired"),
        ("f.json", "damaged"),
    ]  # fmt: skip
