"""Ways around 28 CFR part 202 that were found by trying: each was open once."""

import json
import os
from decimal import Decimal
from functools import cache
from pathlib import Path

import msgspec
import pytest
from grant_signing import ALL_SIGNERS, KEYS, SERVICE, START, attested, authorized, listed, public, revoked, signed
from ownership import entity, facts, owned

from sidecar import _native
from sidecar.administration.covered import Coverage
from sidecar.administration.covered_explain import Explanation
from sidecar.administration.covered_people import access
from sidecar.administration.exception_desk import ExceptionDesk
from sidecar.attributes.claims import Restrictions
from sidecar.attributes.subject import restrict
from sidecar.decision import bundle, folder
from sidecar.decision.guard import check_null_leaves, nullable_leaves
from sidecar.exceptions import files
from sidecar.exceptions.authorization_store import AuthorizationStore
from sidecar.exceptions.store import GrantStore
from sidecar.vocabulary import AccessRequest, CoveredPerson, Location, Person, canonical

pytestmark = pytest.mark.unit
POLICIES = Path(__file__).parents[2] / "policies"
CN = entity("cn", ("CN",), "CN")


# --- 202.211: owners ---------------------------------------------------------------------------------------------------


def values(*entities, **people):
    coverage = Coverage(entities, people)
    return {one.id: coverage.entity(one.id).value for one in entities if one.id != "cn"}


def test_a_subsidiary_that_holds_its_parent_hides_nobody():
    """49 % and a ring of 51 %: whoever holds the rest holds all, though no owner reaches half."""
    parent = owned("parent", ("cn", "49"), ("child", "51"))
    child = owned("child", ("parent", "100"))
    assert values(CN, parent, child) == {"parent": "unknown", "child": "unknown"}


def test_two_halves_of_one_another_hide_the_quarters():
    """Each is held by the covered owner to 50.0 % in the end: 25 + 12.5 + 6.25 and so on."""
    one, other = owned("one", ("other", 50), ("cn", 25)), owned("other", ("one", 50), ("cn", 25))
    assert values(CN, one, other) == {"one": "unknown", "other": "unknown"}


def test_what_a_ring_owns_is_as_unknown_as_the_ring():
    one, other, below = owned("one", ("other", 60)), owned("other", ("one", 60)), owned("below", ("one", 50))
    us = entity("us", ("US",), "US", ("below", 50))
    assert values(one, other, below, us) == {"one": "unknown", "other": "unknown", "below": "unknown", "us": "no"}


def test_a_ring_with_an_owner_outside_is_judged_by_that_owner():
    parent, child = owned("parent", ("holder", "51"), ("child", "49")), owned("child", ("parent", 100))
    assert values(parent, child, owned("holder")) == {"parent": "no", "child": "no", "holder": "no"}
    assert values(CN, owned("parent", ("cn", "51"), ("child", "49")), child) == {"parent": "yes", "child": "yes"}


def test_a_founder_who_works_for_their_own_firm_is_no_ring():
    founder = facts(counterparty="firm", residence="SG")
    assert values(owned("firm", ("founder", 100)), founder=founder) == {"firm": "no"}


def test_a_ring_is_explained_and_the_explanation_ends():
    rows = [CN, owned("a", ("b", 51), ("cn", 49)), owned("b", ("a", 100)), owned("c", ("b", 100))]
    coverage = Coverage(rows, {})
    for name in "abc":
        lines = list(Explanation(coverage, {one.id: one for one in rows}).entity(name))
        assert "entities that own one another" in lines[0]
        assert len(lines) < 5


def test_many_rings_take_no_time():
    pairs = [
        owned(f"{side}{number}", (f"{'ba'['ab'.index(side)]}{number}", Decimal(60)))
        for number in range(3000)
        for side in "ab"
    ]
    coverage = Coverage(pairs, {})
    assert coverage.counts() == {"yes": 0, "unknown": 6000, "no": 0}


# --- 202.302: whose the data is that a US person fetches ---------------------------------------------------------------


@pytest.mark.parametrize("engagement", ["brokerage", None])
@pytest.mark.parametrize(("status", "present"), [("us_citizen", "no"), ("foreign", "yes")])
def test_a_us_person_who_brokers_for_a_foreign_entity_is_no_us_recipient(engagement, status, present):
    person = facts(counterparty="firm", engagement=engagement, legal_status=status, present=present)
    found = access(person, "no", abroad=True)
    assert (found.value, found.basis) == ("no", "counterparty_foreign")
    assert access(person, "no", abroad=False).basis in {"us_person_status", "us_person_present"}
    assert access(facts(counterparty="firm", engagement="employment", legal_status="us_citizen"), "no", abroad=True).basis == (
        "us_person_status")  # fmt: skip
    decision = decide(scene(
        subject__person__covered_person={"value": "no", "basis": found.basis, "as_of": None},
        subject__engagement__type=engagement, context__exposure__personal_financial=10001,
    ))  # fmt: skip
    assert dsp(decision) == {"dsp_onward_terms_missing"}


def test_which_entities_are_foreign():
    coverage = Coverage(
        [CN, entity("us", ("US", "PR"), "CN"), entity("both", ("US", "IE")), entity("nobody", (), None)], {}
    )
    assert [coverage.foreign(one) for one in ("cn", "us", "both", "nobody", "unheard-of", None)] == [
        True, False, True, True, False, False]  # fmt: skip


def test_such_a_persons_presence_can_still_be_contradicted():
    person = Person(id="p", us_personnel=False, location=Location(country="US"),
                    covered_person=CoveredPerson(value="no", basis="counterparty_foreign"))  # fmt: skip
    assert restrict(person, Restrictions(country="CN")).covered_person.value == "unknown"


# --- authorizations and attestations ------------------------------------------------------------------------------------


class Desk:
    def __init__(self, place):
        self.file, self.keys, self.now = place / "authorizations.jsonl", place / "signers.yaml", START
        self.keys.write_bytes(ALL_SIGNERS)
        self.store = AuthorizationStore(file=self.file, keys=self.keys, clock=lambda: self.now, on_event=lambda _: None)

    def put(self, *lines):
        self.file.write_bytes(b"\n".join(lines))
        self.store.load()

    def named(self, *people):
        return [one.persons for one in self.store.for_call(people, SERVICE, self.now).authorizations]


def test_nobody_lifts_a_denial_of_their_own_as_one_of_a_group(tmp_path):
    desk = Desk(tmp_path)
    desk.put(authorized("dana", "eli", persons=[], groups=["acme"], owner="olga"))
    assert desk.named(("p1", "acme")) == [("p1",)]
    for party in ("dana", "eli", "olga", "Dana", "OLGA"):
        assert desk.named((party, "acme")) == []
        assert desk.named((party, "acme"), ("p1", "acme")) == [("p1",)]


def test_a_group_is_no_person_and_a_person_no_group(tmp_path):
    desk = Desk(tmp_path)
    desk.put(authorized(id="a", persons=["acme"]), authorized(id="b", persons=[], groups=["p1"]))
    assert desk.named(("p1", "acme"), ("acme.", "p1.")) == []
    assert desk.named(("P1", None), ("acme", None)) == [("acme",)]


@pytest.mark.parametrize(
    "group", ["acme\npersons        p9", "ac\x1b[2Kme", "acme\u202exe", "ac\u200bme", "acme\n", ""]
)
def test_a_group_shows_a_signer_nothing_but_its_name(tmp_path, group):
    desk = Desk(tmp_path)
    desk.put(authorized(groups=[group]))
    assert desk.store.in_force() == ()
    desk.put(authorized(groups=["Société d'Été, 北京"]))
    assert desk.store.in_force() == ("au-1",)


class Closed(type(Path())):
    """A path below which nobody may look."""

    def stat(self, *, follow_symlinks=True):
        if self.name == "attestations.jsonl" and Closed.shut:
            raise PermissionError(13, "Permission denied")
        return super().stat(follow_symlinks=follow_symlinks)

    shut = False


def test_attestations_that_cannot_be_looked_at_attest_nothing(tmp_path):
    """It is a problem of that file: the reader goes on, and what it had read is in force no more."""
    desk = Desk(Closed(tmp_path))
    (tmp_path / "attestations.jsonl").write_bytes(attested())
    desk.put(authorized())
    assert desk.store.for_call([], SERVICE, START).requirements.version == "2025-01"
    Closed.shut = True
    try:
        desk.store.load()
    finally:
        Closed.shut = False
    assert desk.store.for_call([("p1", None)], SERVICE, START).requirements.version is None
    assert desk.named(("p1", None)) == [("p1",)]
    assert list(desk.store.problems().values()) == ["Permission denied"]


# --- exceptions ---------------------------------------------------------------------------------------------------------


class Grants:
    def __init__(self, place):
        self.folder, self.approvers = place / "grants", place / "approvers.yaml"
        self.folder.mkdir()
        self.approve("dana", "eli", "fay")
        self.store = GrantStore(
            folder=self.folder, approvers=self.approvers, clock=lambda: START, on_event=lambda _: None
        )

    def approve(self, *names):
        self.approvers.write_bytes(listed(*({"id": name, "key": public(name)} for name in names)))

    def ids(self):
        self.store.load()
        return [one.id for one in self.store.for_call("p1", None, START)]


@pytest.fixture
def grants(tmp_path):
    return Grants(tmp_path)


def test_a_revocation_outlives_its_approver_and_a_new_name_of_the_grant(grants):
    (grants.folder / "renamed.json").write_bytes(signed("dana", "eli"))
    (grants.folder / "x-1.revoked").write_bytes(revoked("fay"))
    assert grants.ids() == []
    grants.approve("dana", "eli")
    assert grants.ids() == []
    (grants.folder / "x-1.revoked").rename(grants.folder / "other.revoked")
    assert grants.ids() == []


def test_taking_a_revocation_away_takes_nothing_back(grants):
    (grants.folder / "x-1.json").write_bytes(signed())
    (grants.folder / "x-1.revoked").write_bytes(revoked())
    assert grants.ids() == []
    (grants.folder / "x-1.revoked").unlink()
    assert grants.ids() == []
    (grants.folder / "x-1.json").rename(grants.folder / "y.json")
    assert grants.ids() == []
    assert [row.state for row in grants.store.listing()] == ["revoked"]


def test_a_revocation_in_pieces_suspends_the_grant_beside_it_whatever_its_id(grants):
    (grants.folder / "monday.json").write_bytes(signed())
    assert grants.ids() == ["x-1"]
    (grants.folder / "monday.revoked").write_bytes(revoked()[:40])
    assert grants.ids() == []
    assert [row.state for row in grants.store.listing()] == ["revoked"]


def test_a_pipe_among_the_papers_keeps_nobody_waiting(grants):
    os.mkfifo(grants.folder / "x-9.draft")
    os.mkfifo(grants.folder / "x-8.json")
    os.mkfifo(grants.folder / "x-7.revoked")
    desk = ExceptionDesk(grants=grants.folder, approvers=grants.approvers, max_window=86_400.0, services=None,
                         ticket=".*", justification=".*")  # fmt: skip
    rows = desk.rows(START)
    assert {(row.file, row.state) for row in rows} == {
        ("x-7.revoked", "damaged"), ("x-8.json", "damaged"), ("x-9.draft", "damaged")}  # fmt: skip
    with pytest.raises(OSError, match="not a regular file"):
        files.read(grants.folder / "x-9.draft", 10)


def test_a_signature_for_one_paper_is_none_for_another(grants, tmp_path):
    (grants.folder / "au.json").write_bytes(authorized())
    assert grants.ids() == []
    desk = Desk(tmp_path)
    desk.put(signed(), attested(), revoked())
    assert desk.named(("p1", None)) == []
    assert len(desk.store.problems()) == 3
    assert len(KEYS) == 3


# --- the rules ----------------------------------------------------------------------------------------------------------


@cache
def engine() -> _native.Engine:
    loaded = folder.load_folder(POLICIES)
    return _native.Engine(loaded.modules, loaded.data, bundle.ENTRYPOINT, 5.0, nullable_leaves())


def decide(document: dict) -> dict:
    return json.loads(engine().evaluate_json(json.dumps(document).encode()))


def dsp(decision: dict) -> set[str]:
    return {one["code"] for one in decision["reasons"] if one["code"].startswith("dsp_")}


@cache
def _covered_scene() -> str:
    """A covered person who may: neither bulk nor government-related, counted."""
    for one in folder.load_folder(POLICIES).corpus:
        document = json.loads(canonical(one))
        if document["subject"]["person"]["covered_person"]["value"] == "yes" and decide(document)["effect"] == "permit":
            return json.dumps(document)
    raise AssertionError("the corpus has no such call")


def scene(**changes) -> dict:
    document = json.loads(_covered_scene())
    for path, value in changes.items():
        part = document
        *steps, last = path.split("__")
        for step in steps:
            part = part[step]
        part[last] = value
    return document


def authorization(*parties):
    return [{
        "id": "AU-1", "kind": "exemption", "paragraph": "202.506", "persons": list(parties), "services": [scene()["action"]["service"]],
        "categories": ["personal_financial"], "purposes": ["trust_and_safety"], "owner": "counsel", "expires": "2027-01-01T00:00:00Z",
    }]  # fmt: skip


@pytest.mark.parametrize("place", ["CN", None])
def test_an_authorization_of_a_service_does_not_cover_the_covered_person_behind_it(place):
    person, service = scene()["subject"]["person"]["id"], scene()["subject"]["workload"]["id"]
    bulk = {"context__exposure__personal_financial": 10001, "subject__workload__operated_from": place}
    for parties in ((service,), (person,), (person.upper(), service), ("operated-from/CN", service)):
        decision = decide(scene(**bulk, context__authorizations=authorization(*parties)))
        assert "dsp_authorization_invalid" in dsp(decision), parties
    assert decide(scene(**bulk, context__authorizations=authorization(person, service)))["effect"] == "permit"


MIXED = {
    "resource__subjects": {"us": 1, "non_us": 1, "unknown": 0, "own": 0, "pending": False},
    "context__phase": "response", "subject__person__covered_person": {"value": "no", "basis": "us_person_status", "as_of": None},
}  # fmt: skip
ELSEWHERE = {"country": "DE", "provider": "oci", "region": "eu-frankfurt-1"}


def test_who_is_not_known_gets_no_mixed_answer_that_the_known_are_refused():
    """Dropping US records took the call out of reach of the rules about places."""
    refused = scene(**MIXED, resource__location=ELSEWHERE)
    assert decide(refused)["effect"] == "deny"
    refused["subject"]["person"]["us_personnel"] = None
    assert decide(refused)["effect"] == "deny"
    refused["subject"]["person"]["us_personnel"] = False
    assert decide(refused)["effect"] == "permit"  # known to be barred: what is left is nobody's of the US


def test_no_unknown_leaf_helps_with_a_mixed_answer():
    service = {"subject__kind": "workload", "subject__workload__may": ["read", "list"]}
    lane = {"resource__classes": ["interoperability"], "resource__categories": ["communication_content"],
            "context__purpose": "global_interoperability"}  # fmt: skip
    abroad = service | lane | {"subject__workload__operated_from": "SG"}
    calls = [scene(**MIXED, **change, resource__location=ELSEWHERE) for change in ({}, service, service | lane, abroad)]
    calls += [scene(**MIXED, **change, context__network__destination=ELSEWHERE) for change in ({}, service)]
    assert [decide(one)["effect"] for one in calls] == ["deny"] * 6
    documents = [msgspec.convert(one, AccessRequest) for one in calls]
    assert check_null_leaves(engine().evaluate_json, documents, where="mixed") > 100
