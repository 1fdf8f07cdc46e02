"""Exception grants: two approvers, a bounded window, and nothing that is not written."""

import base64
import json

import pytest
from grant_signing import APPROVERS, KEYS, START, b64, listed, payload, public, signed
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError
from sidecar.exceptions.approvers import ApproverKeys
from sidecar.exceptions.grant import TYPE, read_grant, sign_grant, verify_grant
from sidecar.exceptions.jws import MAX_OBJECT, SignedObjectError
from sidecar.vocabulary import GrantScope

pytestmark = pytest.mark.unit


def by_hand(*signatures, text=None):
    """A JWS of (name, protected header, key) signatures, however wrong."""
    encoded = b64(json.dumps(payload()).encode() if text is None else text)
    made = []
    for head, key in signatures:
        protected = b64(head if isinstance(head, bytes) else json.dumps(head).encode())
        made.append({"protected": protected, "signature": b64(KEYS[key].sign(f"{protected}.{encoded}".encode()))})
    return json.dumps({"payload": encoded, "signatures": made}).encode()


def head(name, **changes):
    return {
        key: value for key, value in ({"alg": "EdDSA", "kid": name, "typ": TYPE} | changes).items() if value is not ...
    }


def test_two_approvers_make_a_grant():
    grant = verify_grant(signed("eli", "dana"), APPROVERS, START)
    assert (grant.id, grant.person, grant.requested_by, grant.max_records) == ("x-1", "p1", "p2", 10)
    assert grant.scope == GrantScope(services=("profiles.v1.Profiles",), categories=("id_contact",), subjects="us")
    assert grant.approvers == ("dana", "eli")


def test_three_may_sign_and_a_person_may_ask_for_themselves():
    assert verify_grant(signed("dana", "eli", "fay"), APPROVERS, START).approvers == ("dana", "eli", "fay")
    assert verify_grant(signed(requested_by="p1"), APPROVERS, START).person == "p1"
    assert verify_grant(signed(max_records=...), APPROVERS, START).max_records is None


def test_the_signature_is_what_rfc_7515_says():
    jws = json.loads(signed())
    for one in jws["signatures"]:
        header = json.loads(base64.urlsafe_b64decode(one["protected"] + "=="))
        raw = base64.urlsafe_b64decode(one["signature"] + "==")
        KEYS[header["kid"]].public_key().verify(raw, f"{one['protected']}.{jws['payload']}".encode())
        assert header == {"alg": "EdDSA", "kid": header["kid"], "typ": TYPE}
    assert json.loads(base64.urlsafe_b64decode(jws["payload"] + "==")) == payload()


@pytest.mark.parametrize(
    ("now", "why"),
    [(START - 0.001, "not in force yet"), (START, None), (START + 86_399.9, None), (START + 86_400, "has expired")],
)
def test_a_grant_holds_within_its_window(now, why):
    if why is None:
        assert verify_grant(signed(), APPROVERS, now)
    else:
        with pytest.raises(SignedObjectError, match=why):
            verify_grant(signed(), APPROVERS, now)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (signed("dana"), "2 distinct approvers"),
        (by_hand(), "2 distinct approvers"),
        (by_hand((head("dana"), "dana"), (head("dana"), "dana")), "2 distinct approvers"),
        (by_hand((head("dana"), "dana"), (b'{"kid":"dana","alg":"EdDSA","typ":"' + TYPE.encode() + b'"}', "dana")), "2 distinct"),
        (by_hand((head("dana"), "dana"), (head("eli"), "dana")), "eli does not verify"),
        (by_hand((head("dana"), "dana"), (head("eli"), "eli"), (head("fay"), "dana")), "fay does not verify"),
        (by_hand((head("dana"), "dana"), (head("gus"), "eli")), "'gus' is no approver"),
        (by_hand((head("dana"), "dana"), (head("eli", alg="none"), "eli")), "protected header"),
        (by_hand((head("dana"), "dana"), (head("eli", alg="HS256"), "eli")), "protected header"),
        (by_hand((head("dana"), "dana"), (head("eli", alg=...), "eli")), "protected header"),
        (by_hand((head("dana"), "dana"), (head("eli", typ=...), "eli")), "protected header"),
        (by_hand((head("dana"), "dana"), (head("eli", typ="JWT"), "eli")), "protected header"),
        (by_hand((head("dana"), "dana"), (head("eli", crit=["x"]), "eli")), "unknown field `crit`"),
        (by_hand((head("dana"), "dana"), (head("eli", b64=False), "eli")), "unknown field `b64`"),
        (by_hand((head("dana"), "dana"), (b'{"alg":"EdDSA","kid":"dana","kid":"eli"}', "eli")), "stands twice"),
        (signed(person="dana"), "dana approves their own"),
        (signed(person="Dana"), "dana approves their own"),
        (signed(requested_by="eli"), "eli approves their own"),
        (signed("dana", "eli", "fay", requested_by="fay"), "fay approves their own"),
        (signed(expires="2027-01-16T08:00:01Z"), "longer than 86400 s"),
        (signed(expires="2027-01-15T08:00:00Z"), "window is empty"),
        (signed(expires="2027-01-14T08:00:00Z"), "window is empty"),
        (signed(expires="2027-01-15T09:00:00+00:00"), "expires is no RFC 3339"),
        (signed(not_before="2027-01-15"), "not_before is no RFC 3339"),
        (signed(not_before="2027-02-30T08:00:00Z"), "not_before is no RFC 3339"),
        (signed(not_before="2027-01-15T08:00:00Z\n"), "not_before is no RFC 3339"),
        (signed(not_before="٢027-01-15T08:00:00Z"), "not_before is no RFC 3339"),
        (signed(not_before=1_800_000_000), "payload"),
        (signed(surprise=1), "unknown field `surprise`"),
        (signed(scope={"services": [], "categories": [], "subjects": "us", "fields": []}), "unknown field `fields`"),
        (signed(scope={"services": [], "categories": ["id_contakt"], "subjects": "us"}), "did you mean id_contact"),
        (signed(scope={"services": [], "categories": [], "subjects": "everybody"}), "payload"),
        (signed(scope={"services": "all", "categories": [], "subjects": "us"}), "payload"),
        (signed(scope={"services": [""], "categories": [], "subjects": "us"}), "payload"),
        (signed(scope=...), "payload"),
        (signed(id=""), "payload"),
        (signed(id="x 1"), "payload"),
        (signed(person=...), "payload"),
        (signed(person=["p1", "p9"]), "payload"),
        (signed(person="p1\n"), "payload"),
        (signed(ticket=""), "payload"),
        (signed(justification=""), "payload"),
        (signed(justification="x" * 2049), "payload"),
        (signed(max_records=0), "payload"),
        (signed(max_records=-1), "payload"),
        (signed(max_records=1.5), "payload"),
        (signed(max_records="10"), "payload"),
        (signed(max_records=True), "payload"),
        (by_hand((head("dana"), "dana"), (head("eli"), "eli"), text=b'{"person":"p1","person":"p9"}'), "stands twice"),
        (by_hand((head("dana"), "dana"), (head("eli"), "eli"), text=b"[" * 3000), "payload"),
        (by_hand((head("dana"), "dana"), (head("eli"), "eli"), text=b"\xff"), "payload"),
        (by_hand((head("dana"), "dana"), (head("eli"), "eli"), text=b""), "not base64url|does not verify"),
        (b"", "object"),
        (b"{}", "object"),
        (b"[]", "object"),
        (b"\xff\xfe", "object"),
        (b" " * (MAX_OBJECT + 1), "more than 16384 bytes"),
        (signed()[:-1], "object"),
        (signed() + b" x", "object"),
        (json.dumps({**json.loads(signed()), "header": {}}).encode(), "unknown field `header`"),
        (signed().replace(b'"signatures":', b'"signatures":[],"signatures":'), "stands twice"),
        (json.dumps({**json.loads(signed()), "signatures": json.loads(signed())["signatures"] * 5}).encode(), "object"),
    ],
)  # fmt: skip
def test_what_does_not_hold(data, why):
    with pytest.raises(SignedObjectError, match=why):
        read_grant(data, APPROVERS)


def test_unprotected_headers_are_not_looked_at_but_refused():
    jws = json.loads(signed())
    jws["signatures"][0]["header"] = {"kid": "eli"}
    with pytest.raises(SignedObjectError, match="unknown field `header`"):
        read_grant(json.dumps(jws).encode(), APPROVERS)


def test_padding_and_left_over_bits_are_refused():
    jws = json.loads(signed())
    first = jws["signatures"][0]
    for signature in (first["signature"] + "==", first["signature"][:-1] + chr(ord(first["signature"][-1]) + 1)):
        bent = {**jws, "signatures": [{**first, "signature": signature}, jws["signatures"][1]]}
        with pytest.raises(SignedObjectError, match="not base64url"):
            read_grant(json.dumps(bent).encode(), APPROVERS)


def test_an_approval_is_of_one_payload():
    first = sign_grant(payload(), KEYS["dana"], "dana")
    with pytest.raises(SignedObjectError, match="another payload"):
        sign_grant(payload(person="p9"), KEYS["eli"], "eli", first)
    with pytest.raises(SignedObjectError, match="signed already"):
        sign_grant(payload(), KEYS["dana"], "dana", first)
    theirs = json.loads(sign_grant(payload(person="p9"), KEYS["eli"], "eli"))
    mixed = json.loads(first)
    mixed["signatures"] += theirs["signatures"]
    with pytest.raises(SignedObjectError, match="eli does not verify"):
        read_grant(json.dumps(mixed).encode(), APPROVERS)


def test_who_is_no_longer_an_approver_approves_nothing():
    fewer = ApproverKeys.parse(listed({"id": "dana", "key": public("dana")}, {"id": "fay", "key": public("fay")}))
    with pytest.raises(SignedObjectError, match="'eli' is no approver"):
        read_grant(signed(), fewer)
    swapped = ApproverKeys.parse(listed({"id": "dana", "key": public("dana")}, {"id": "eli", "key": public("fay")}))
    with pytest.raises(SignedObjectError, match="eli does not verify"):
        read_grant(signed(), swapped)


def test_a_shorter_bound_may_be_set():
    with pytest.raises(SignedObjectError, match="longer than 3600 s"):
        read_grant(signed(), APPROVERS, max_window=3600)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_flipped_bit_holds(data):
    original = signed()
    place, bit = data.draw(st.integers(0, len(original) - 1)), data.draw(st.integers(0, 7))
    bent = bytearray(original)
    bent[place] ^= 1 << bit
    with pytest.raises(SignedObjectError):
        read_grant(bytes(bent), APPROVERS)


@given(st.binary(max_size=300))
def test_no_bytes_hold(data):
    with pytest.raises(SignedObjectError):
        read_grant(data, APPROVERS)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"{", "not YAML"),
        (b"", "not one list"),
        (b"approvers: {}", "not one list"),
        (b"approvers: []\nothers: []", "not one list"),
        (listed("dana"), r"approvers\[0\].*exactly id and key"),
        (listed({"id": "dana"}), "exactly id and key"),
        (listed({"id": "dana", "key": public("dana"), "until": "x"}), "exactly id and key"),
        (listed({"id": "", "key": public("dana")}), "exactly id and key"),
        (listed({"id": "dana", "key": "AAAA"}), "no Ed25519 public key"),
        (listed({"id": "dana", "key": "no base64"}), "no Ed25519 public key"),
        (listed({"id": "dana", "key": public("dana")}, {"id": "dana", "key": public("eli")}), "one id or one key"),
        (listed({"id": "dana", "key": public("dana")}, {"id": "DANA", "key": public("eli")}), "one id or one key"),
        (listed({"id": "dana", "key": public("dana")}, {"id": "eli", "key": public("dana")}), "one id or one key"),
    ],
)
def test_approvers_that_cannot_be_right(data, why):
    with pytest.raises(ConfigurationError, match=why):
        ApproverKeys.parse(data)
