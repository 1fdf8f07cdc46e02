"""Authorizations and attestations (28 CFR part 202): who must sign, what must be said, and what does not hold."""

import json

import pytest
from grant_signing import (
    APPROVERS,
    KEYS,
    SERVICE,
    SIGNERS,
    START,
    attestation,
    attested,
    authorized,
    claim,
    public,
    signed,
    signers,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError
from sidecar.exceptions import attestations, authorizations
from sidecar.exceptions.attestations import read_attestation
from sidecar.exceptions.authorizations import read_authorization
from sidecar.exceptions.grant import TYPE, read_grant
from sidecar.exceptions.jws import SignedObjectError
from sidecar.exceptions.signers import SIGNS, SignerKeys
from sidecar.vocabulary import Authorization, SecurityRequirements

pytestmark = pytest.mark.unit
DAY = 86_400


def test_an_exemption_takes_two_signers_and_is_shown_for_the_people_of_the_call():
    held = read_authorization(authorized("eli", "dana", persons=["p1", "p2", "p3"], groups=["acme"]), SIGNERS)
    assert held.signers == ("dana", "eli")
    assert held.shown([("p1", None), ("p7", "acme"), ("p8", "other")]) == Authorization(
        id="au-1", kind="exemption", paragraph="202.506(a)(2)(viii)", persons=("p1", "p7"), services=(SERVICE,),
        categories=("id_contact",), purposes=("user_support",), owner="olga", expires="2027-04-15T08:00:00Z",
    )  # fmt: skip
    assert held.shown([("p8", "other"), ("P1", "ACME"), ("p9", None)]) is None
    assert held.shown([]) is None


@pytest.mark.parametrize("kind", ["general_licence", "specific_licence", "advisory_opinion"])
def test_what_an_authority_has_numbered_takes_one(kind):
    held = read_authorization(authorized("dana", kind=kind, paragraph="NSD-2026-17"), SIGNERS)
    assert (held.payload.kind, held.payload.paragraph, held.signers) == (kind, "NSD-2026-17", ("dana",))


@pytest.mark.parametrize("section", range(501, 512))
def test_subpart_e_is_202_501_to_511(section):
    assert read_authorization(authorized(paragraph=f"202.{section}"), SIGNERS).payload.paragraph == f"202.{section}"


def test_it_is_in_force_from_its_beginning_to_its_end():
    held = read_authorization(authorized(), SIGNERS)
    ends = START + 90 * DAY
    assert [held.in_force(now) for now in (START - 1, START, ends - 0.001, ends)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (authorized("dana"), "needs 2 distinct signers"),
        (authorized("dana", "eli", "fay", owner="fay"), "fay signs for themselves"),
        (authorized(owner="DANA"), "dana signs for themselves"),
        (authorized(persons=["p1", "eli"]), "eli signs for themselves"),
        (authorized(paragraph="202.401"), "is no exemption"),
        (authorized(paragraph="202.512"), "is no exemption"),
        (authorized(paragraph="202.506 or so"), "is no exemption"),
        (authorized(paragraph=""), "payload"),
        (authorized(kind="waiver"), "payload"),
        (authorized(kind=...), "payload"),
        (authorized(persons=[]), "covers nobody"),
        (authorized(services=[]), "names no services"),
        (authorized(categories=[]), "names no categories"),
        (authorized(purposes=[]), "names no purposes"),
        (authorized(categories=["id_contakt"]), "did you mean id_contact"),
        (authorized(purposes=["User support"]), "payload"),
        (authorized(purposes=["User-support"]), "no purpose code"),
        (authorized(not_before=...), "payload"),
        (authorized(expires="2027-01-15T08:00:00Z"), "window is empty"),
        (authorized(expires="2026-01-15T08:00:00Z"), "window is empty"),
        (authorized(expires="2028-01-16T08:00:01Z"), "longer than 366 days"),
        (authorized(expires="2027-04-15"), "expires is no RFC 3339"),
        (authorized(surprise=1), "unknown field `surprise`"),
        (authorized(owner=""), "payload"),
        (authorized(typ=TYPE), "typ is not customhouse-authorization"),
        (authorized(typ=attestations.TYPE), "typ is not customhouse-authorization"),
        (signed(), "typ is not"),
        (attested(), "typ is not"),
        (b"", "object"),
        (b"{}", "object"),
        (b"x" * 20_000, "more than 16384 bytes"),
    ],
)
def test_what_does_not_hold(data, why):
    with pytest.raises(SignedObjectError, match=why):
        read_authorization(data, SIGNERS)


def test_an_authorization_is_no_exception_and_no_attestation():
    with pytest.raises(SignedObjectError, match="typ is not"):
        read_grant(authorized(), APPROVERS)
    with pytest.raises(SignedObjectError, match="typ is not"):
        read_attestation(authorized(), SIGNERS)


def test_a_signer_signs_what_they_may():
    keys = SignerKeys.parse(signers(
        {"id": "dana", "key": public("dana"), "may": ["exemption"]},
        {"id": "eli", "key": public("eli"), "may": ["specific_licence", "attestation"]},
    ))  # fmt: skip
    with pytest.raises(SignedObjectError, match="eli may not sign for exemption"):
        read_authorization(authorized(), keys)
    with pytest.raises(SignedObjectError, match="dana may not sign for attestation"):
        read_attestation(attested("dana", officer="dana"), keys)
    with pytest.raises(SignedObjectError, match="'fay' is no signer"):
        read_authorization(authorized("dana", "fay"), keys)
    assert read_authorization(authorized("eli", kind="specific_licence", paragraph="17"), keys)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_flipped_bit_holds(data):
    one = data.draw(st.sampled_from([(authorized(), read_authorization), (attested(), read_attestation)]))
    original, read = one
    bent = bytearray(original)
    bent[data.draw(st.integers(0, len(original) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SignedObjectError):
        read(bytes(bent), SIGNERS)


def test_a_changed_payload_does_not_hold():
    first, second = json.loads(authorized()), json.loads(authorized(persons=["p9"]))
    with pytest.raises(SignedObjectError, match="does not verify"):
        read_authorization(json.dumps(first | {"payload": second["payload"]}).encode(), SIGNERS)


class TestAttestations:
    def test_202_248_the_officer_attests_for_a_year(self):
        held = read_attestation(attested(), SIGNERS)
        assert held.shown() == SecurityRequirements(
            version="2025-01", attested_at="2027-01-15T08:00:00Z", valid_until="2028-01-15T08:00:00Z"
        )
        ends = START + 365 * DAY
        assert [held.in_force(now) for now in (START - 1, START, ends - 0.001, ends)] == [False, True, True, False]

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            (attested("dana"), "for its officer, fay, to sign"),
            (attested(officer="dana"), "for its officer, dana, to sign"),
            (attested(services=[]), "names no services"),
            (attested(version=""), "payload"),
            (attested(valid_until="2027-01-15T08:00:00Z"), "window is empty"),
            (attested(valid_until="2028-01-16T08:00:01Z"), "longer than 366 days"),
            (attested(attested_at="today"), "attested_at is no RFC 3339"),
            (attested(met=True), "unknown field `met`"),
            (attested(typ=authorizations.TYPE), "typ is not"),
        ],
    )
    def test_what_does_not_hold(self, data, why):
        with pytest.raises(SignedObjectError, match=why):
            read_attestation(data, SIGNERS)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"{", "not YAML"),
        (b"approvers: []", 'not one list "signers"'),
        (signers({"id": "dana", "key": public("dana")}), "exactly id, key and may"),
        (signers({"id": "dana", "key": public("dana"), "may": "exemption"}), "exactly id, key and may"),
        (signers({"id": "dana", "key": public("dana"), "may": ["anything"]}), "nothing that can be signed"),
        (signers({"id": "dana", "key": "AAAA", "may": []}), "no Ed25519 public key"),
        (signers(*[{"id": name, "key": public("dana"), "may": []} for name in ("dana", "eli")]), "one id or one key"),
        (signers(*[{"id": name, "key": public(key), "may": []} for name, key in (("dana", "dana"), ("DANA", "eli"))]),
         "one id or one key"),
    ],
)  # fmt: skip
def test_signers_that_cannot_be_right(data, why):
    with pytest.raises(ConfigurationError, match=why):
        SignerKeys.parse(data)


def test_what_can_be_signed_is_what_there_is():
    assert set(SIGNS) == {*authorizations.SIGNERS, "attestation"}
    assert set(claim()) == set(authorizations.AuthorizationPayload.__struct_fields__)
    assert set(attestation()) == set(attestations.AttestationPayload.__struct_fields__)
    assert len(KEYS) == 3
