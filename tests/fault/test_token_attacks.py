"""The table of token attacks (`token_attacks`) at identification itself: refused as UNAUTHENTICATED, and nothing else raised.

Beside each kind of attack stands the honest token it was made from, which is accepted: the refusals are not for nothing.
What every door makes of them is in `test_campaign_tokens`.
"""

import base64
from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st
from identity_provider import BATCH, NOW, WEB, Provider, b64url, desk, jwks, new_key, public_jwk
from token_attacks import IDP, ORDER, PROVIDERS, claims, header, hmac, honest, joined, parts, tokens

from sidecar.errors import Code, IdentifyError

pytestmark = pytest.mark.fault


@cache
def counter():
    return desk(*PROVIDERS)


def outcome(token, *, peer=(BATCH,), at=None):
    """None when accepted, the error when refused; anything else that is raised fails the test."""
    try:
        (at or counter()).ask(token, peer=peer)
    except IdentifyError as error:
        return error
    return None


def test_honest_tokens_of_every_issuer_are_accepted():
    for provider in PROVIDERS:
        assert outcome(honest(provider)) is None
    assert (
        outcome(header(jku="https://evil/jwks", x5u="https://evil", jwk={"kty": "oct"}, x5c=["x"])) is None
    )  # ignored


def test_attacks_are_many_and_distinct():
    assert len(tokens()) >= 200
    assert len(set(tokens().values())) >= len(tokens()) - 2  # (two kinds of emptiness may meet)
    assert honest() not in tokens().values()


@pytest.mark.parametrize("name", list(tokens()))
def test_attack(name):
    for _ in range(2):
        error = outcome(tokens()[name])
        assert error is not None, "accepted"
        assert (error.code, error.reason, error.stage) == (Code.UNAUTHENTICATED, "unidentified_person", "identify")


def test_another_workload_cannot_replay_a_token():
    token = IDP.token()
    assert outcome(token, peer=(WEB,)) is None
    for peer in ((BATCH,), (), ("spiffe://corp/ns/webb",)):
        assert outcome(token, peer=peer).code is Code.UNAUTHENTICATED


def test_the_other_half_of_an_ecdsa_signature_gains_nothing():
    """(r, n-s) verifies wherever (r, s) does. It is the same token for every purpose but the cache's."""
    at = desk(IDP)
    first, second, third = parts(honest(jti="j1"))
    raw = base64.urlsafe_b64decode(third + "==")
    s = int.from_bytes(raw[32:], "big")
    twin = joined(first, second, b64url(raw[:32] + (ORDER - s).to_bytes(32, "big")))
    assert decode_dss_signature(encode_dss_signature(1, s))[1] == s
    assert at.tokens.verify(twin, NOW) == at.tokens.verify(joined(first, second, third), NOW)


def test_a_set_that_offers_a_symmetric_key_does_not_make_tokens_for_it():
    provider = Provider()
    secret = b"s" * 32
    provider.source.content = jwks(provider.jwk(), {"kty": "oct", "k": b64url(secret), "kid": "hs", "alg": "HS256"})
    at = desk(provider)
    assert outcome(hmac(secret, "HS256", provider, kid="hs"), at=at).code is Code.UNAUTHENTICATED
    assert outcome(provider.token(azp=BATCH), at=at) is None


def test_a_short_rsa_key_is_not_used():
    weak = new_key("RS256", 1024)
    provider = Provider(algorithm="RS256")
    provider.source.content = jwks(provider.jwk(), public_jwk(weak, "RS256", "weak"))
    at = desk(provider)
    token = provider.sign(provider.header(kid="weak"), provider.claims(azp=BATCH), key=weak)
    assert outcome(token, at=at).code is Code.UNAUTHENTICATED


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(max_size=400), st.binary(max_size=400).map(lambda raw: raw.decode("latin-1"))))
def test_no_text_is_accepted_or_raises_anything_else(text):
    assert outcome(text).code is Code.UNAUTHENTICATED


SEGMENT = st.binary(max_size=80).map(b64url)


@settings(max_examples=300, deadline=None)
@given(SEGMENT, SEGMENT, SEGMENT)
def test_no_three_segments_are_accepted(first, second, third):
    assert outcome(joined(first, second, third)).code is Code.UNAUTHENTICATED


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_changed_character_is_accepted(data):
    token = honest()
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.characters())
    if token[place] != letter:
        assert outcome(token[:place] + letter + token[place + 1 :]).code is Code.UNAUTHENTICATED


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
NAMES = ("exp", "iat", "nbf", "iss", "aud", "sub", "azp", "client_id", "jti", "cnf", "act", "acr", "amr", "auth_time",
         "roles", "location", "us_personnel")  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4))
def test_signed_nonsense_raises_nothing_else_and_never_widens(changes):
    """An issuer may sign anything. Whoever is let in is p1 as the directory has them, or less."""
    token = claims(**changes)
    error = outcome(token)
    if error is not None:
        assert error.code in {Code.UNAUTHENTICATED, Code.PERMISSION_DENIED}
        return
    found = counter().ask(token, peer=(BATCH,))
    entry = counter().people.entries["p1"].person
    (subject,) = found.subjects
    assert subject.person.id == "p1"
    assert set(subject.person.roles) <= set(entry.roles)
    assert found.expires_at <= NOW + 86_430


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(("alg", "kid", "typ", "crit", "b64", "jku", "jwk", "x5c", "zip")), JSON, min_size=1, max_size=3
    )
)
def test_signed_nonsense_in_the_header_raises_nothing_else(changes):
    error = outcome(header(**changes))
    ignored = {"jku", "jwk", "x5c"}
    assert (error is None) == (set(changes) <= ignored)


def test_how_many_attacks_there_were(record_property):
    accepted = [name for name, token in tokens().items() if outcome(token) is None]
    record_property("attacks", len(tokens()))
    record_property("accepted", len(accepted))
    assert accepted == []
