"""Approvers and signers with keys, and what they have signed."""

import base64

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.exceptions import attestations, authorizations, jws
from sidecar.exceptions.approvers import ApproverKeys
from sidecar.exceptions.grant import Revocation, sign_grant, sign_revocation
from sidecar.exceptions.signers import SIGNS, SignerKeys

START = 1_800_000_000.0  # 2027-01-15T08:00:00Z
KEYS = {
    name: Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
    for number, name in enumerate(("dana", "eli", "fay"), 1)
}


def public(name):
    raw = KEYS[name].public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.b64encode(raw).decode()


def listed(*entries):
    return yaml.safe_dump({"approvers": list(entries)}).encode()


APPROVERS = ApproverKeys.parse(listed(*({"id": name, "key": public(name)} for name in KEYS)))


def payload(**changes):
    usual = {
        "id": "x-1", "person": "p1", "scope": {"services": ["profiles.v1.Profiles"], "categories": ["id_contact"], "subjects": "us"},
        "justification": "restore after the outage", "ticket": "INC-7", "not_before": "2027-01-15T08:00:00Z",
        "expires": "2027-01-16T08:00:00Z", "requested_by": "p2", "max_records": 10,
    }  # fmt: skip
    return {name: value for name, value in (usual | changes).items() if value is not ...}


def signed(*names, **changes):
    data = None
    for name in names or ("dana", "eli"):
        data = sign_grant(payload(**changes), KEYS[name], name, data)
    return data


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def revoked(name="dana", grant="x-1", **changes):
    usual = {"grant": grant, "reason": "the outage is over", "revoked_at": "2027-01-15T09:00:00Z"}
    return sign_revocation(Revocation(**usual | changes), KEYS[name], name)


def signers(*entries):
    return yaml.safe_dump({"signers": list(entries)}).encode()


ALL_SIGNERS = signers(*({"id": name, "key": public(name), "may": list(SIGNS)} for name in KEYS))
SIGNERS = SignerKeys.parse(ALL_SIGNERS)
SERVICE = "profiles.v1.Profiles"


def claim(**changes):
    usual = {
        "id": "au-1", "kind": "exemption", "paragraph": "202.506(a)(2)(viii)", "persons": ["p1"], "groups": [],
        "services": [SERVICE], "categories": ["id_contact"], "purposes": ["user_support"], "owner": "olga",
        "not_before": "2027-01-15T08:00:00Z", "expires": "2027-04-15T08:00:00Z",
    }  # fmt: skip
    return {name: value for name, value in (usual | changes).items() if value is not ...}


def authorized(*names, typ=authorizations.TYPE, **changes):
    data = None
    for name in names or ("dana", "eli"):
        data = jws.sign(claim(**changes), KEYS[name], name, typ, data)
    return data


def attestation(**changes):
    usual = {
        "id": "at-1", "version": "2025-01", "services": [SERVICE], "officer": "fay",
        "attested_at": "2027-01-15T08:00:00Z", "valid_until": "2028-01-15T08:00:00Z",
    }  # fmt: skip
    return {name: value for name, value in (usual | changes).items() if value is not ...}


def attested(name="fay", typ=attestations.TYPE, **changes):
    return jws.sign(attestation(**changes), KEYS[name], name, typ)
