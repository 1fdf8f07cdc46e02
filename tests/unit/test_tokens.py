"""Verified tokens: what is kept, for how long, and what takes them away. Attacks are in tests/fault."""

import asyncio
import json

import pytest
from identity_provider import NOW, Clock, Provider, desk, jwks, new_key, public_jwk
from jwt import encode

from sidecar.attributes.claims import Issuer, TokenError, read_claims
from sidecar.attributes.revoked import Revocations
from sidecar.attributes.tokens import TokenVerifier
from sidecar.errors import Code, ConfigurationError, IdentifyError
from sidecar.vocabulary import Authentication

pytestmark = pytest.mark.unit
IDP = Provider()


def refused(verify, *args) -> IdentifyError:
    with pytest.raises(IdentifyError) as caught:
        verify(*args)
    return caught.value


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512", "EdDSA", "RS256", "PS384"])
def test_a_token_that_another_library_path_made_is_verified(algorithm):
    provider = Provider(algorithm=algorithm)
    token = encode(provider.claims(), provider.key, algorithm=algorithm, headers={"kid": "k1"})
    assert desk(provider).tokens.verify(token, NOW).subject == "p1"


@pytest.mark.parametrize("kind", ["at+jwt", "AT+JWT", "JWT", "jwt", "application/at+jwt", "Application/JWT"])
def test_both_types_are_taken_in_any_case(kind):
    assert desk(IDP).tokens.verify(IDP.sign(IDP.header(typ=kind), IDP.claims()), NOW)


def test_what_is_kept_is_claims_and_no_attributes():
    tokens = desk(IDP).tokens
    claims = tokens.verify(IDP.token(roles=["analyst"]), NOW)
    assert tokens.verify(IDP.token(roles=["analyst"]), NOW) == claims
    assert set(type(claims).__struct_fields__) == {
        "issuer", "subject", "actors", "authentication", "restrictions", "marks", "certificate", "clients",
        "valid_from", "valid_until",
    }  # fmt: skip


def test_a_kept_token_is_not_verified_again():
    provider = Provider()
    at = desk(provider)
    token = provider.token()
    first = at.tokens.verify(token, NOW)
    assert at.tokens.verify(token, NOW) is first
    assert at.tokens.size == 1


@pytest.mark.parametrize("leeway", [0.0, 10.0, 30.0])
def test_times_hold_to_the_second(leeway):
    tokens = desk(IDP, leeway=leeway).tokens
    token = IDP.token(nbf=int(NOW) + 60, exp=int(NOW) + 120)
    for _ in range(2):  # the second round meets the kept token
        assert "not valid yet" in refused(tokens.verify, token, NOW + 59 - leeway).message
        assert tokens.verify(token, NOW + 60 - leeway)
        assert tokens.verify(token, NOW + 119.9 + leeway).valid_until == NOW + 120 + leeway
        assert "expired" in refused(tokens.verify, token, NOW + 120 + leeway).message
        assert tokens.verify(token, NOW + 100)


def test_a_kept_token_expires():
    tokens = desk(IDP).tokens
    token = IDP.token()
    tokens.verify(token, NOW)
    assert refused(tokens.verify, token, NOW + 910).code is Code.UNAUTHENTICATED
    assert tokens.size == 0


def test_at_most_so_many_tokens_are_kept():
    tokens = desk(IDP, entries=4).tokens
    for number in range(10):
        tokens.verify(IDP.token(jti=str(number)), NOW)
    assert tokens.size == 4


def test_refused_tokens_are_not_kept():
    tokens = desk(IDP).tokens
    refused(tokens.verify, IDP.token(aud="other"), NOW)
    assert tokens.size == 0


def test_a_removed_key_takes_its_tokens_with_it():
    provider = Provider()
    at = desk(provider)
    token = provider.token()
    at.tokens.verify(token, NOW)
    provider.source.content = jwks(public_jwk(new_key("ES256"), "ES256", "k2"))
    at.rings[provider.issuer].load()
    assert "unknown key" in refused(at.tokens.verify, token, NOW).message
    assert at.tokens.size == 0


def test_a_replaced_key_takes_its_tokens_with_it():
    provider = Provider()
    at = desk(provider)
    token = provider.token()
    at.tokens.verify(token, NOW)
    provider.source.content = jwks(public_jwk(new_key("ES256"), "ES256", "k1"))
    at.rings[provider.issuer].load()
    assert "signature" in refused(at.tokens.verify, token, NOW).message


def test_keys_that_came_again_unchanged_keep_their_tokens():
    provider = Provider()
    at = desk(provider)
    token = provider.token()
    first = at.tokens.verify(token, NOW)
    provider.source.content = jwks(provider.jwk(), public_jwk(new_key("ES256"), "ES256", "k2"))
    at.rings[provider.issuer].load()
    assert at.tokens.verify(token, NOW) is first


def test_stale_keys_refuse_kept_tokens_too():
    provider = Provider()
    at = desk(provider)
    token = provider.token(exp=int(NOW) + 80_000)
    at.tokens.verify(token, NOW)
    error = refused(at.tokens.verify, token, NOW + 3601)
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "stale_directory")


@pytest.mark.parametrize(
    ("claims", "aal", "methods"),
    [
        ({}, None, ()),
        ({"acr": "aal1"}, 1, ()),
        ({"acr": "aal3", "amr": ["pwd"]}, 3, ("pwd",)),
        ({"acr": "http://idmanagement.gov/ns/assurance/aal/2"}, 2, ()),
        ({"acr": "urn:nist:800-63:aal:2"}, 2, ()),
        ({"acr": "gold"}, 2, ()),
        ({"acr": "silver"}, None, ()),
        ({"acr": "silver", "amr": ["pwd", "otp"]}, 2, ("otp", "pwd")),
        ({"amr": ["mfa"]}, 2, ("mfa",)),
        ({"amr": ["pwd", "pin"]}, 1, ("pin", "pwd")),
        ({"amr": ["hwk"]}, 1, ("hwk",)),
        ({"amr": ["hwk", "fpt", "hwk"]}, 2, ("fpt", "hwk")),
        ({"amr": ["something"]}, 1, ("something",)),
        ({"amr": []}, None, ()),
    ],
)
def test_how_the_caller_signed_in(claims, aal, methods):
    provider = Provider(more={"assurance": {"gold": 2}})
    found = desk(provider).tokens.verify(provider.token(**claims), NOW).authentication
    assert (found.aal, found.methods) == (aal, methods)


def test_the_time_of_signing_in_is_rfc_3339():
    found = desk(IDP).tokens.verify(IDP.token(auth_time=int(NOW) - 60.5), NOW).authentication
    assert found == Authentication(time="2027-01-15T07:58:59Z")


def test_an_issuer_is_configured_once_with_keys_and_a_small_leeway():
    clock = Clock()
    ring = IDP.ring(clock)
    empty = Revocations(None, clock=clock)
    for issuers, rings, more in (
        ([IDP.trusted(), IDP.trusted()], {IDP.issuer: ring}, {}),
        ([IDP.trusted()], {}, {}),
        ([IDP.trusted()], {IDP.issuer: ring}, {"leeway": 31.0}),
        ([IDP.trusted()], {IDP.issuer: ring}, {"leeway": -1.0}),
    ):
        with pytest.raises(ConfigurationError, match="identity"):
            TokenVerifier(issuers=issuers, rings=rings, revocations=empty, **more)


def test_the_subject_claim_of_the_issuer_names_the_person():
    provider = Provider(subject_claim="employee")
    tokens = desk(provider).tokens
    assert tokens.verify(provider.token(sub="opaque", employee="p2"), NOW).subject == "p2"
    assert "employee" in refused(tokens.verify, provider.token(sub="p2"), NOW).message


def test_messages_hold_no_part_of_the_token():
    secret = "s3cret-value"  # noqa: S105
    for claims in ({"aud": secret}, {"iss": secret}, {"sub": secret + "\n"}, {"act": secret}, {"cnf": {"jkt": secret}}):
        error = refused(desk(IDP).tokens.verify, IDP.token(**claims), NOW)
        assert secret not in error.message + error.operator


def accepts(tokens, token) -> bool:
    try:
        return tokens.verify(token, NOW) is not None
    except IdentifyError:
        return False


async def until(holds) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.02)


async def test_run_keeps_keys_and_revocations_fresh(tmp_path):
    path = tmp_path / "revoked.jsonl"
    path.write_text("")
    clock, provider = Clock(), Provider()
    ring = provider.ring(clock, refresh=0.02)
    revocations = Revocations(path, clock=clock, poll=0.02)
    tokens = TokenVerifier(issuers=[provider.trusted()], rings={provider.issuer: ring}, revocations=revocations)
    task = asyncio.create_task(tokens.run())
    token = provider.token(jti="j1")
    await until(lambda: accepts(tokens, token))
    (tmp_path / "new").write_text(json.dumps({"jti": "j1"}) + "\n")
    (tmp_path / "new").rename(path)
    await until(lambda: not accepts(tokens, token) and provider.source.fetches > 2)
    assert "revoked" in refused(tokens.verify, token, NOW).message
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_issuer_defaults():
    issuer = Issuer(issuer="https://i", kind="personnel", audience="a", algorithms=("ES256",))
    assert (issuer.subject_claim, issuer.subject_kind, issuer.max_lifetime) == ("sub", "person", 86_400.0)


def test_claims_are_those_of_the_issuer_whose_key_signed():
    with pytest.raises(TokenError, match="another issuer"):
        read_claims(IDP.claims(iss="https://other"), issuer=IDP.trusted(), issuers={}, now=NOW, leeway=0.0)


@pytest.mark.parametrize("number", [0, 1])
def test_a_segment_of_a_length_that_base64_never_has_is_refused(number):
    parts = IDP.token().split(".")
    parts[number] = "A" * 5
    assert "base64url" in refused(desk(IDP).tokens.verify, ".".join(parts), NOW).message
