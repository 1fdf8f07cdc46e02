"""A caller who is known again is given the same identity, and not one call longer than they may have it."""

import pytest
from identity_provider import BATCH, NOW, WEB, Entry, People, Provider, b64url, desk, jwks, person

from sidecar.attributes import subject
from sidecar.attributes.revoked import Revocations
from sidecar.errors import Code, IdentifyError

pytestmark = pytest.mark.unit
IDP = Provider()
USERS = Provider(issuer="https://users", kind="data_subject", kid="u1")


def refused(ask, *args, **more) -> IdentifyError:
    with pytest.raises(IdentifyError) as caught:
        ask(*args, **more)
    return caught.value


def test_the_same_token_from_the_same_peer_is_the_same_object():
    at = desk(IDP, USERS)
    for token in (IDP.token(), USERS.token(sub="u7")):
        assert at.ask(token) is at.ask(token)


def test_another_token_of_the_same_person_is_not():
    at = desk(IDP)
    first = at.ask(IDP.token(jti="a"))
    second = at.ask(IDP.token(jti="b", acr="aal2"))
    assert first.subjects[0].authentication != second.subjects[0].authentication


def test_a_revocation_is_heeded_by_the_next_call(tmp_path):
    path = tmp_path / "revoked.jsonl"
    path.write_bytes(b"")
    revocations = Revocations(path, clock=lambda: NOW)
    revocations.load()
    at = desk(IDP, revocations=revocations)
    token = IDP.token()
    at.ask(token)
    at.ask(token)
    for line in (b'{"sub": "p1"}\n', f'{{"sub": "{WEB}"}}\n'.encode()):
        (tmp_path / "new").write_bytes(line)
        (tmp_path / "new").rename(path)
        revocations.load()
        assert refused(at.ask, token).code is Code.UNAUTHENTICATED
    path.write_bytes(b"damage")
    revocations.load()
    assert refused(at.ask, token).code is Code.UNAVAILABLE


def test_a_directory_that_is_exchanged_or_stale_is_heeded_by_the_next_call():
    at = desk(IDP)
    token = IDP.token()
    first = at.ask(token)
    at.people.entries["p1"] = Entry(person("p1", us_personnel=False), revision="rev3")
    second = at.ask(token)
    assert second is not first
    assert second.directory == "rev3"
    at.people.young = False
    assert refused(at.ask, token).code is Code.UNAVAILABLE
    at.people.young = True
    del at.people.entries["p1"]
    assert refused(at.ask, token).code is Code.PERMISSION_DENIED


def test_a_key_that_is_gone_ends_it():
    provider = Provider(issuer="https://renewed")
    at = desk(provider)
    token = provider.token()
    at.ask(token)
    provider.source.content = jwks(Provider(kid="other").jwk())
    at.rings[provider.issuer].load()
    assert refused(at.ask, token).code is Code.UNAUTHENTICATED


def test_what_is_known_of_one_peer_or_certificate_says_nothing_of_another():
    at = desk(IDP, binding="azp")
    token = IDP.token()
    at.ask(token)
    assert refused(at.ask, token, peer=(BATCH,)).code is Code.UNAUTHENTICATED


def test_a_bound_token_is_held_to_its_certificate_however_often_it_was_seen():
    at = desk(IDP)
    token = IDP.token(cnf={"x5t#S256": b64url(b"c" * 32)})
    at.ask(token, certificate=b"c" * 32)
    for other in (None, b"d" * 32):
        assert refused(at.ask, token, certificate=other).code is Code.UNAUTHENTICATED
    assert at.ask(token, certificate=b"c" * 32).person == "p1"


def test_what_lapses_ends_on_the_instant_and_a_lapsed_entry_is_looked_at_each_time():
    at = desk(IDP)
    at.people.entries["p1"].expires_at = NOW + 60
    token = IDP.token()
    first = at.ask(token)
    assert first.expires_at == NOW + 60
    later = at.ask(token, now=NOW + 60)
    assert later is not first
    assert later.expires_at == NOW + 60 + subject.LAPSED_CAP
    assert at.ask(token, now=NOW + 70).expires_at == NOW + 70 + subject.LAPSED_CAP


def test_no_more_callers_are_remembered_than_the_bound(monkeypatch):
    monkeypatch.setattr(subject, "MAX_KNOWN", 3)
    at = desk(IDP, people=People("p1"))
    for number in range(10):
        at.ask(IDP.token(jti=str(number)))
    assert len(at.identifier._known) <= 3
