"""A person named on another's word, and a workload whose word on others counts: only where it is registered."""

import json

import pytest
from identity_provider import BATCH, NOW, WEB, Clock, Entry, Provider, desk, person

from sidecar.attributes.peers import RegisteredWorkload, Workloads
from sidecar.attributes.revoked import Revocations
from sidecar.attributes.subject import ASSERTED_CAP, LAPSED_CAP
from sidecar.errors import Code, IdentifyError
from sidecar.vocabulary import Authentication

pytestmark = pytest.mark.unit
IDP = Provider()
GATEWAY, ENVOY = "spiffe://corp/ns/gateway", "spiffe://corp/ns/envoy"


def at(revocations=None):
    found = desk(IDP, revocations=revocations)
    found.identifier._workloads = Workloads([
        RegisteredWorkload(id=WEB, operated_from="US", may=("read",)),
        RegisteredWorkload(id=BATCH, operated_from="US", acts_alone=True),
        RegisteredWorkload(id=GATEWAY, operated_from="US", asserts=True),
        RegisteredWorkload(id=ENVOY, operated_from="US", relays=True),
    ])  # fmt: skip
    return found


def asserted(found, name, *, peer=(GATEWAY,), metadata=(), now=NOW):
    return found.identifier.identify(metadata, peer, None, now, name)


def refused(ask) -> IdentifyError:
    with pytest.raises(IdentifyError) as caught:
        ask()
    return caught.value


def test_an_asserted_person_is_the_directorys_and_proved_nothing():
    found = asserted(at(), "p1")
    (subject,) = found.subjects
    assert (subject.kind, subject.person.id, subject.workload.id) == ("personnel", "p1", GATEWAY)
    assert subject.authentication == Authentication(), "how they proved who they are is not known"
    assert (found.person, found.workload, found.own, found.directory) == ("p1", GATEWAY, None, "rev1")


def test_an_assertion_holds_five_minutes_and_no_longer_than_the_directorys_entry():
    found = at()
    assert asserted(found, "p1").expires_at == NOW + ASSERTED_CAP
    found.people.entries["p1"].expires_at = NOW + 10
    assert asserted(found, "p1").expires_at == NOW + 10
    found.people.entries["p1"].expires_at = NOW - 10
    assert asserted(found, "p1").expires_at == NOW + LAPSED_CAP


@pytest.mark.parametrize("peer", [(WEB,), (BATCH,), (ENVOY,)])
def test_only_those_registered_for_it_may_name_a_person(peer):
    error = refused(lambda: asserted(at(), "p1", peer=peer))
    assert (error.code, error.reason) == (Code.PERMISSION_DENIED, "unidentified_person")
    assert peer[0] in error.operator
    assert peer[0] not in error.message


@pytest.mark.parametrize("peer", [(), ("spiffe://corp/ns/nobody",), (GATEWAY, WEB)])
def test_an_unknown_peer_asserts_nothing(peer):
    error = refused(lambda: asserted(at(), "p1", peer=peer))
    assert (error.code, error.reason) == (Code.UNAUTHENTICATED, "unidentified_workload")


@pytest.mark.parametrize("name", ["nobody", "", "P1", "p1 ", GATEWAY, "*"])
def test_a_name_that_the_directory_does_not_have_is_nobody(name):
    assert refused(lambda: asserted(at(), name)).code is Code.PERMISSION_DENIED


@pytest.mark.parametrize("value", ["Bearer x.y.z", "", "Basic abc"])
def test_a_token_and_an_asserted_person_are_never_both_taken(value):
    good = f"Bearer {IDP.token(azp=GATEWAY)}"
    for said in (value, good):
        error = refused(lambda said=said: asserted(at(), "p1", metadata=(("authorization", said),)))
        assert error.code is Code.UNAUTHENTICATED


def test_a_stale_directory_knows_no_asserted_person_either():
    found = at()
    found.people.young = False
    assert refused(lambda: asserted(found, "p1")).code is Code.UNAVAILABLE


def test_a_person_may_still_be_covered_and_is_judged_as_the_directory_says():
    found = at()
    found.people.entries["p2"] = Entry(person("p2", us_personnel=False), revision="rev1")
    assert asserted(found, "p2").subjects[0].person.us_personnel is False


def listed(tmp_path, *entries):
    path = tmp_path / "revoked.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in entries))
    found = Revocations(path, clock=Clock())
    found.load()
    return found


def test_a_revoked_person_cannot_be_asserted_and_a_revoked_gateway_asserts_nobody(tmp_path):
    found = at(listed(tmp_path, {"sub": "p1"}))
    assert refused(lambda: asserted(found, "p1")).code is Code.UNAUTHENTICATED
    assert asserted(found, "p2").person == "p2"
    found = at(listed(tmp_path, {"sub": GATEWAY}))
    assert refused(lambda: asserted(found, "p2")).code is Code.UNAUTHENTICATED


def test_only_those_registered_for_it_are_believed_about_whom_they_relay(tmp_path):
    identifier = at().identifier
    assert identifier.relays((ENVOY,), NOW)
    for peer in ((WEB,), (GATEWAY,), (), ("spiffe://corp/ns/nobody",), (ENVOY, WEB)):
        assert not identifier.relays(peer, NOW)
    revoked = at(listed(tmp_path, {"sub": ENVOY})).identifier
    with pytest.raises(IdentifyError):
        revoked.relays((ENVOY,), NOW)


def test_who_is_at_the_other_end_is_told_whatever_it_may_do_alone(tmp_path):
    found = at().identifier.calling((WEB,), NOW)
    (subject,) = found.subjects
    assert (subject.kind, subject.workload.id, subject.person.id) == ("workload", WEB, None)
    assert (found.workload, found.person, found.own) == (WEB, None, None)
    for peer in ((), ("spiffe://corp/ns/nobody",), (WEB, BATCH)):
        assert refused(lambda peer=peer: at().identifier.calling(peer, NOW)).reason == "unidentified_workload"
    with pytest.raises(IdentifyError):
        at(listed(tmp_path, {"sub": WEB})).identifier.calling((WEB,), NOW)
