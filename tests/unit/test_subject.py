"""Who asks: kinds, delegation, binding, restrictions, and how long it holds."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from identity_provider import BATCH, NOW, WEB, Entry, People, Provider, b64url, desk, person

from sidecar.attributes.claims import Restrictions
from sidecar.attributes.subject import LAPSED_CAP, Identifier, restrict
from sidecar.errors import Code, ConfigurationError, IdentifyError
from sidecar.vocabulary import CoveredPerson, Location, Person, Workload

pytestmark = pytest.mark.unit
IDP = Provider()
USERS = Provider(issuer="https://users", kind="data_subject", kid="u1")


def refused(ask, *args, **more) -> IdentifyError:
    with pytest.raises(IdentifyError) as caught:
        ask(*args, **more)
    assert caught.value.reason is not None
    return caught.value


def test_a_person_has_the_attributes_of_the_directory():
    at = desk(IDP)
    found = at.ask(IDP.token(acr="aal2"))
    (subject,) = found.subjects
    entry = at.people.entries["p1"]
    assert (subject.kind, subject.person, subject.engagement) == ("personnel", entry.person, entry.engagement)
    assert (subject.source, subject.as_of) == ("hr", entry.as_of)
    assert subject.workload == Workload(id=WEB, operated_from="US", may=("read",))
    assert subject.authentication.aal == 2
    assert (found.person, found.workload, found.own, found.directory) == ("p1", WEB, None, "rev1")
    assert found.expires_at == NOW + 910


def test_attributes_are_those_of_the_call_and_not_of_the_token():
    at = desk(IDP)
    token = IDP.token()
    assert at.ask(token).subjects[0].person.us_personnel is True
    at.people.entries["p1"] = Entry(person("p1", us_personnel=False), revision="rev2")
    found = at.ask(token)
    assert found.subjects[0].person.us_personnel is False
    assert found.directory == "rev2"
    del at.people.entries["p1"]
    assert refused(at.ask, token).code is Code.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("entry_until", "expected"),
    [(NOW + 60, NOW + 60), (NOW + 9000, NOW + 910), (NOW, NOW + LAPSED_CAP), (NOW - 5, NOW + LAPSED_CAP)],
)
def test_an_identity_holds_until_the_first_of_its_parts_ends(entry_until, expected):
    at = desk(IDP)
    at.people.entries["p1"].expires_at = entry_until
    assert at.ask(IDP.token()).expires_at == expected


def test_a_stream_that_asks_again_after_the_end_is_refused():
    at = desk(IDP)
    token = IDP.token()
    found = at.ask(token)
    assert at.ask(token, now=found.expires_at - 0.001).person == "p1"
    assert refused(at.ask, token, now=found.expires_at).code is Code.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("ask", "code", "reason"),
    [
        (lambda at: at.ask(IDP.token(sub="nobody")), Code.PERMISSION_DENIED, "unidentified_person"),
        (lambda at: at.ask(IDP.token(sub="P1")), Code.PERMISSION_DENIED, "unidentified_person"),
        (lambda at: at.ask(IDP.token(), peer=()), Code.UNAUTHENTICATED, "unidentified_workload"),
        (lambda at: at.ask(IDP.token(), peer=("spiffe://corp/ns/x",)), Code.UNAUTHENTICATED, "unidentified_workload"),
        (lambda at: at.ask(IDP.token(), peer=(WEB, BATCH)), Code.UNAUTHENTICATED, "unidentified_workload"),
        (lambda at: at.ask(None), Code.UNAUTHENTICATED, "unidentified_person"),
        (lambda at: at.ask(None, peer=()), Code.UNAUTHENTICATED, "unidentified_workload"),
    ],
)
def test_who_cannot_be_identified(ask, code, reason):
    error = refused(ask, desk(IDP))
    assert (error.code, error.reason) == (code, reason)


@pytest.mark.parametrize("people", [None, "stale"])
def test_a_stale_or_missing_directory_identifies_no_personnel(people):
    at = desk(IDP, USERS)
    if people is None:
        at.identifier = Identifier(tokens=at.tokens, people=None, workloads=at.identifier._workloads, binding="azp")
    else:
        at.people.young = False
    error = refused(at.ask, IDP.token())
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "stale_directory")
    assert at.ask(None, peer=(BATCH,)).subjects[0].kind == "workload"
    assert at.ask(USERS.token(sub="u1")).subjects[0].kind == "data_subject"


def test_a_workload_that_acts_alone_needs_no_token():
    found = desk(IDP).ask(None, peer=(BATCH,))
    (subject,) = found.subjects
    assert (subject.kind, subject.workload.id, subject.person) == ("workload", BATCH, Person())
    assert (found.person, found.own, found.expires_at) == (None, None, math.inf)


@pytest.mark.parametrize(
    "metadata",
    [
        (("authorization", ""),),
        (("authorization", "Bearer"),),
        (("authorization", "Bearer "),),
        (("authorization", "Basic cDE6cHc="),),
        (("authorization", "DPoP x.y.z"),),
        (("authorization", b"Bearer x.y.z"),),
        (("authorization", f"Bearer {IDP.token(azp=BATCH, aud='other')}"),),
        (("authorization", f"Bearer {IDP.token(azp=BATCH)}"), ("authorization", f"Bearer {IDP.token(azp=BATCH)}")),
    ],
)
def test_a_bad_token_is_never_a_missing_one(metadata):
    at = desk(IDP)
    error = refused(at.identifier.identify, metadata, (BATCH,), None, NOW)
    assert (error.code, error.reason) == (Code.UNAUTHENTICATED, "unidentified_person")


def test_no_other_header_says_who_is_calling():
    metadata = (("x-forwarded-user", "p1"), ("authorization-bin", b"Bearer x"), ("x-customhouse-person", "p1"),
                ("x-forwarded-client-cert", f"URI={WEB}"), ("cookie", IDP.token()))  # fmt: skip
    assert refused(desk(IDP).identifier.identify, metadata, (WEB,), None, NOW).code is Code.UNAUTHENTICATED


def test_the_scheme_is_read_in_any_case():
    at = desk(IDP)
    assert at.identifier.identify((("authorization", f"bEARER {IDP.token()}"),), (WEB,), None, NOW).person == "p1"


def test_a_data_subject_is_their_own_and_their_id_stays_out_of_the_document():
    found = desk(IDP, USERS).ask(USERS.token(sub="u-123"))
    (subject,) = found.subjects
    assert (subject.kind, subject.person, subject.source) == ("data_subject", Person(), "https://users")
    assert found.own == ("person", "u-123")
    assert (found.person, found.directory) == (None, None)
    assert "u-123" not in repr(subject)


# Binding


BOUND = {"cnf": {"x5t#S256": b64url(b"c" * 32)}}


@pytest.mark.parametrize(
    ("binding", "claims", "peer", "certificate", "taken"),
    [
        ("cnf", BOUND, (WEB,), b"c" * 32, True),
        ("cnf", BOUND, (WEB,), b"d" * 32, False),
        ("cnf", BOUND, (WEB,), None, False),
        ("cnf", {}, (WEB,), b"c" * 32, False),
        ("azp", {"azp": WEB}, (WEB,), None, True),
        ("azp", {"azp": WEB}, (WEB, "web.corp"), None, True),
        ("azp", {"azp": WEB}, (BATCH,), None, False),
        ("azp", {"azp": ...}, (WEB,), None, False),
        ("azp", {"azp": ..., "client_id": WEB}, (WEB,), None, True),
        ("azp", {"azp": WEB, "client_id": BATCH}, (WEB,), None, False),
        ("azp", {"azp": WEB + "x"}, (WEB,), None, False),
        ("azp", BOUND, (WEB,), b"d" * 32, False),
        ("azp", BOUND, (WEB,), b"c" * 32, True),
        ("azp", BOUND, (BATCH,), b"c" * 32, False),
        ("none", {"azp": BATCH}, (WEB,), None, True),
        ("none", BOUND, (WEB,), None, False),
        ("none", BOUND, (WEB,), b"c" * 32, True),
    ],
)
def test_a_token_is_for_the_workload_it_was_given_to(binding, claims, peer, certificate, taken):
    at = desk(IDP, binding=binding)
    token = IDP.token(**claims)
    for _ in range(2):
        if taken:
            assert at.ask(token, peer=peer, certificate=certificate).person == "p1"
        else:
            assert refused(at.ask, token, peer=peer, certificate=certificate).code is Code.UNAUTHENTICATED


def test_a_kept_token_is_bound_on_every_call():
    at = desk(IDP)
    token = IDP.token()
    assert at.ask(token)
    assert "not bound" in refused(at.ask, token, peer=(BATCH,)).message


def test_an_unknown_binding_is_a_configuration_error():
    at = desk(IDP)
    with pytest.raises(ConfigurationError, match="bind_to_workload"):
        Identifier(tokens=at.tokens, people=None, workloads=at.identifier._workloads, binding="off")


# Delegation


def test_subject_and_current_actor_are_both_to_be_permitted():
    at = desk(IDP)
    at.people.entries["p2"].expires_at = NOW + 50
    found = at.ask(IDP.token(acr="aal3", act={"sub": "p2", "acr": "aal1", "act": {"sub": "gone"}}))
    first, second = found.subjects
    assert (first.person.id, second.person.id) == ("p1", "p2")
    assert (first.authentication.aal, second.authentication.aal) == (3, 1)
    assert first.delegation == second.delegation == ("p2", "unknown")
    assert (found.person, found.expires_at) == ("p1", NOW + 50)


def test_an_actor_is_not_signed_in_by_the_subject():
    assert desk(IDP).ask(IDP.token(acr="aal3", act={"sub": "p2"})).subjects[1].authentication.aal is None


def test_an_actor_may_be_a_registered_workload():
    first, second = desk(IDP).ask(IDP.token(act={"sub": BATCH})).subjects
    assert (first.kind, second.kind, second.workload.id) == ("personnel", "workload", BATCH)
    assert first.delegation == (BATCH,)
    assert first.workload.id == WEB


@pytest.mark.parametrize(
    ("act", "code"),
    [
        ({"sub": "nobody"}, Code.PERMISSION_DENIED),
        ({"sub": "spiffe://corp/ns/unregistered"}, Code.PERMISSION_DENIED),
        ({"sub": "p 2"}, Code.PERMISSION_DENIED),
        ({"sub": "p2", "iss": "https://elsewhere"}, Code.UNAUTHENTICATED),
        ({"iss": "https://idp.corp"}, Code.UNAUTHENTICATED),
        ({}, Code.UNAUTHENTICATED),
        ("p2", Code.UNAUTHENTICATED),
        (None, Code.UNAUTHENTICATED),
        ([{"sub": "p2"}], Code.UNAUTHENTICATED),
    ],
)
def test_an_actor_who_cannot_be_resolved_refuses_the_call(act, code):
    assert refused(desk(IDP).ask, IDP.token(act=act)).code is code


def chain(depth, name="p2"):
    return {"sub": name} | ({"act": chain(depth - 1, name)} if depth > 1 else {})


def test_chains_are_bounded():
    at = desk(IDP)
    assert at.ask(IDP.token(act=chain(8))).subjects[0].delegation == ("p2",) * 8
    assert "more than 8" in refused(at.ask, IDP.token(act=chain(9))).message


def test_an_actor_of_a_data_subject_is_personnel_only_by_the_personnel_issuer():
    at = desk(IDP, USERS)
    found = at.ask(USERS.token(sub="u1", act={"sub": "p2", "iss": IDP.issuer}))
    assert [subject.kind for subject in found.subjects] == ["data_subject", "personnel"]
    assert (found.person, found.own) == ("p2", ("person", "u1"))
    # A user of the platform may have any id, also one that a member of staff has.
    assert refused(at.ask, USERS.token(sub="u1", act={"sub": "p2"})).code is Code.PERMISSION_DENIED


def test_users_who_acted_before_do_not_enter_the_document():
    at = desk(IDP, USERS)
    found = at.ask(USERS.token(sub="u1", act={"sub": BATCH, "act": {"sub": "u-77"}}))
    assert found.subjects[0].delegation == (BATCH, "unknown")
    assert "u-77" not in repr(found.subjects)


def test_an_actor_takes_away_too():
    at = desk(IDP)
    first, second = at.ask(IDP.token(act={"sub": "p2", "us_personnel": False})).subjects
    assert (first.person.us_personnel, second.person.us_personnel) == (True, False)


def test_an_actor_of_an_issuer_with_its_own_subject_claim():
    provider = Provider(subject_claim="employee")
    at = desk(provider)
    token = provider.token(employee="p1", act={"sub": "opaque", "employee": "p2"})
    assert at.ask(token).subjects[1].person.id == "p2"
    assert refused(at.ask, provider.token(employee="p1", act={"sub": "p2"})).code is Code.PERMISSION_DENIED
    assert at.ask(provider.token(employee="p1", act={"sub": BATCH})).subjects[1].kind == "workload"


# Restrictions


@pytest.mark.parametrize(
    ("claims", "changed"),
    [
        ({"us_personnel": True}, {}),
        ({"us_personnel": False}, {"us_personnel": False}),
        ({"location": {"country": "US"}}, {}),
        ({"location": {"country": "PR"}}, {}),
        ({"location": {"country": "GB"}}, {"location": Location(source="token contradicts the directory")}),
        ({"roles": ["oncall", "admin"]}, {"roles": ("oncall",)}),
        ({"roles": []}, {"roles": ()}),
        ({"roles": ["oncall", "analyst"]}, {}),
        ({"legal_status": "alien", "status": "left", "vetted_until": "2000-01-01T00:00:00Z"}, {}),
    ],
)
def test_claims_take_away_and_never_add(claims, changed):
    assert desk(IDP).ask(IDP.token(**claims)).subjects[0].person == person("p1", **changed)


def test_claims_add_nothing_to_a_person_of_whom_the_directory_knows_nothing():
    people = People()
    people.entries["p1"] = Entry(Person(id="p1"))
    token = IDP.token(us_personnel=True, location={"country": "US"}, roles=["admin"])
    assert desk(IDP, people=people).ask(token).subjects[0].person == Person(id="p1")


@pytest.mark.parametrize(
    ("country", "value", "basis", "expected"),
    [
        ("US", "no", "us_person_present", ("unknown", "presence_contradicted")),
        ("GU", "no", "us_person_present", ("unknown", "presence_contradicted")),
        ("US", "no", None, ("unknown", "presence_contradicted")),
        ("US", "no", "us_person_status", ("no", "us_person_status")),
        ("US", "no", "foreign_not_covered", ("no", "foreign_not_covered")),
        ("CA", "no", "foreign_not_covered", ("no", "foreign_not_covered")),
        ("US", "yes", "counterparty_covered", ("yes", "counterparty_covered")),
        ("US", "yes", "designated", ("yes", "designated")),
        ("CN", "yes", "resident_of_concern", ("yes", "resident_of_concern")),
    ],
)
def test_202_256_a_contradicted_presence_undoes_only_what_rests_on_it(country, value, basis, expected):
    covered = CoveredPerson(value=value, basis=basis, as_of="2026-11-18T11:00:00Z")
    before = person("p1", location=Location(country=country), covered_person=covered)
    after = restrict(before, Restrictions(country="FR")).covered_person
    assert (after.value, after.basis) == expected
    assert after.as_of == covered.as_of
    assert restrict(before, Restrictions(country=country)).covered_person == covered


@pytest.mark.parametrize("value", ["yes", "unknown"])
def test_202_256_no_token_makes_anybody_present(value):
    before = person("p1", location=Location(country="CN"), covered_person=CoveredPerson(value=value))
    assert restrict(before, Restrictions(country="US")).covered_person.value == value


@given(
    st.sampled_from([None, True, False]), st.sampled_from([None, "US", "PR", "GB"]), st.sets(st.sampled_from("abcd")),
    st.builds(Restrictions, not_us_personnel=st.booleans(), country=st.sampled_from([None, "US", "GB"]),
              roles=st.none() | st.frozensets(st.sampled_from("abcdef"))),
)  # fmt: skip
def test_restricting_never_widens(us_personnel, country, roles, restrictions):
    before = person("p1", us_personnel=us_personnel, location=Location(country=country), roles=tuple(sorted(roles)))
    after = restrict(before, restrictions)
    assert after.us_personnel in {before.us_personnel, False}
    assert after.location.country in {before.location.country, None}
    assert set(after.roles) <= set(before.roles)
    assert after.covered_person.value in {before.covered_person.value, "unknown"}


@pytest.mark.parametrize(
    "claims",
    [
        {"us_personnel": "false"}, {"us_personnel": None}, {"us_personnel": 0}, {"location": "US"}, {"location": {}},
        {"location": {"country": "USA"}}, {"location": {"country": "us"}}, {"location": None}, {"roles": "admin"},
        {"roles": [1]}, {"roles": None}, {"roles": {"admin": True}},
    ],
)  # fmt: skip
def test_a_restriction_that_cannot_be_understood_refuses_the_token(claims):
    assert refused(desk(IDP).ask, IDP.token(**claims)).code is Code.UNAUTHENTICATED
