"""The demo's settings files as trees, with every path relative to its folder."""

from sidecar.demo.tokens import AUDIENCE, STAFF, USERS


def sidecar_yaml(
    ports: dict[str, int], *, abroad: bool, workloads: list[dict[str, object]], opa: str | None = None
) -> dict[str, object]:
    """sidecar.yaml; `abroad` is the sidecar of a copy that is kept in Frankfurt, which must not answer.

    `opa` is the program that decides; None: the embedded engine.
    """
    name = "abroad" if abroad else "proxy"
    place = {"country": "DE", "provider": "oci", "region": "eu-frankfurt-1"} if abroad else US_ASHBURN
    suffix = "-abroad" if abroad else ""
    return {
        "producer": {
            "name": "profiles-frankfurt-1" if abroad else "profiles-ashburn-1",
            "key": f"keys/producer{suffix}.pem",
        },
        "listen": [
            {
                "door": "proxy",
                "address": f"127.0.0.1:{ports[name]}",
                "tls": {"cert": f"tls/{name}.pem", "key": f"tls/{name}.key", "client_ca": "ca.pem"},
            }
        ],
        "upstream": {
            "address": f"localhost:{ports['upstream']}",
            "tls": {"ca": "ca.pem", "cert": "tls/to-upstream.pem", "key": "tls/to-upstream.key"},
            "location": place,
        },
        "identity": {
            "issuers": [
                _issuer("personnel", STAFF, "staff-jwks.json"),
                _issuer("data_subject", USERS, "users-jwks.json"),
            ],
            "bind_to_workload": "azp",
            "directory": {"file": "people.snapshot", "max_age": "24h"},
            "workloads": workloads,
            "authorizations": {"file": "authorizations.jsonl", "keys": "licence-signers.yaml"},
            "revoked": {"file": "revoked.jsonl"},
        },
        "describe": {"descriptors": {"file": "profiles.binpb"}, "reflection": "identified"},
        "subjects": {"index": "us-subjects.idx", "max_age": "24h"},
        "policy": {"bundle": {"folder": "policies"}},
        # Twenty times the default: a machine that is busy with something else is no runaway policy.
        "decision": {"deadline": "1s", **({} if opa is None else {"engine": "opa", "opa": {"command": opa}})},
        "record": {"spool": f"spool{suffix}"},
        "destination": {"from": "peer"},
        "datasets": {"file": "datasets.jsonl"},
        "exceptions": {"grants": "grants", "approvers": "approvers.yaml"},
        "ledger": {
            "address": f"localhost:{ports['ledger']}",
            "tls": {"ca": "ca.pem", "cert": f"tls/{name}.pem", "key": f"tls/{name}.key"},
            "deadline": "1s",
        },
        "admin": {"socket": f"run/admin{suffix}"},
        "holder": {
            "name": "Platform USDS Inc.",
            "address": "1 Data Way, Columbus OH",
            "contact": "privacy@demo.example",
        },
        "oversight": {
            "address": f"localhost:{ports['append']}",
            "keys": f"localhost:{ports['keys']}",
            "tls": {"ca": "ca.pem", "cert": f"tls/{name}.pem", "key": f"tls/{name}.key"},
            "trust": "trust.txt",
            "seal_key": "store-seal.pub",
        },
    }


def ledger_yaml(ports: dict[str, int], sidecars: list[str]) -> dict[str, object]:
    """ledger.yaml, in the demo's top folder."""
    return {
        "listen": {
            "address": f"127.0.0.1:{ports['ledger']}",
            "tls": {"cert": "tls/ledger.pem", "key": "tls/ledger.key", "client_ca": "ca.pem"},
        },
        "sidecars": sidecars,
        "database": "ledger/ledger.sqlite",
        "secret": "ledger/secret",
    }


US_ASHBURN = {"country": "US", "provider": "oci", "region": "us-ashburn-1"}


def _issuer(kind: str, issuer: str, jwks: str) -> dict[str, object]:
    return {"kind": kind, "issuer": issuer, "audience": AUDIENCE, "jwks": {"file": jwks}, "algorithms": ["ES256"]}


def oversight_yaml(ports: dict[str, int], origin: str, reviewer: str) -> dict[str, object]:
    """oversight.yaml, in the demo's top folder."""
    return {
        "log": {"origin": origin, "key": "oversight/log.pem", "interval": "500ms"},
        "storage": {"sqlite": "oversight/records.sqlite"},
        "tiles": {"folder": "oversight/log"},
        "listen": {
            "append": f"127.0.0.1:{ports['append']}",
            "keys": f"127.0.0.1:{ports['keys']}",
            "query": f"127.0.0.1:{ports['query']}",
            "tls": {"cert": "tls/store.pem", "key": "tls/store.key", "client_ca": "ca.pem"},
        },
        "producers": {"file": "oversight/producers.json"},
        "secrets": {
            "sealing_key": "oversight/seal.pem",
            "key_encryption_key": "oversight/kek",
            "database": "oversight/keys.sqlite",
        },
        "reviewers": {"identities": [reviewer]},
    }
