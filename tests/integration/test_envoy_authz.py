"""A real Envoy asks by ext_authz: what it lets through, what callers are told, and what stands in the records."""

import http.client
import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from deployment import Deployment, sidecar
from envoy_parts import ENVOY, Envoyed, beside, enveloped, http_filter

from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.demo.world import CONSOLE, EXPORTER, WEB

Needs = Callable[[str, str], Path]
USER = {"token": "user-us", "certificate": "web"}
"""A user at home: what they read of themselves is permitted without obligations."""
FORGED = [
    ("x-customhouse-person", "root"), ("x-customhouse-workload", CONSOLE), ("x-customhouse-call-id", "forged"),
    ("x-customhouse-extra", "1"), ("x-envoy-auth-partial-body", "false"),
    ("x-forwarded-client-cert", f"By=spiffe://x/y;URI={CONSOLE}"), ("x_customhouse_person", "root"),
    ("x-http-method-override", "DELETE"),
]  # fmt: skip


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("authz")) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def envoy(deployed: Deployment, needs: Needs) -> Iterator[Envoyed]:
    """Two doors: the socket, and TCP with mTLS at which the exporter's certificate stands for an Envoy."""
    pair, tls = deployed.world.certificates["proxy"], deployed.folder / "tls"
    workloads = yaml.safe_load((deployed.folder / "sidecar.yaml").read_text())["identity"]["workloads"]
    known = [{**one, "relays": one["id"] == EXPORTER} for one in workloads]
    doors = [
        {"door": "ext_authz", "address": "unix:run/envoy", "workload": ENVOY},
        {"door": "ext_authz", "address": f"127.0.0.1:{deployed.world.ports['abroad']}",
         "tls": {"cert": str(pair.cert), "key": str(pair.key), "client_ca": str(tls / "corp-ca.pem")}},
    ]  # fmt: skip
    with enveloped(deployed, needs, "ext_authz", listen=doors,
                   identity__workloads=[*known, {"id": ENVOY, "operated_from": "US", "relays": True}]) as one:  # fmt: skip
        yield one


def own(deployed: Deployment) -> pb.GetProfileRequest:
    return pb.GetProfileRequest(user_id=deployed.world.cast.us)


def test_the_written_bootstrap_is_valid(envoy: Envoyed) -> None:
    found = envoy.validate()
    assert found.returncode == 0, found.stderr
    assert "eprecated" not in found.stderr, "nothing in it is about to be taken away"
    assert "admin" not in yaml.safe_load(envoy.bootstrap.read_text())


def test_a_permitted_call_passes_and_its_outcome_is_unobserved(envoy: Envoyed, deployed: Deployment) -> None:
    got = envoy.call("GetProfile", own(deployed), more=FORGED, **USER)
    assert got.said == "OK"
    assert pb.Profile.FromString(got.messages[0]).user_id == deployed.world.cast.us
    (seen,) = deployed.upstream.calls_of(got.call_id)
    assert seen.header("x-customhouse-call-id") == [got.call_id]
    assert seen.header("x-customhouse-workload") == [WEB]
    assert len(seen.header("traceparent")) == 1
    for name in ("x-customhouse-person", "x-customhouse-extra", "x-forwarded-client-cert", "x-envoy-auth-partial-body",
                 "x_customhouse_person", "x-http-method-override"):  # fmt: skip
        assert seen.header(name) == [], f"{name} came from the caller"
    recorded = deployed.recorded(got.call_id)
    assert recorded.effects == ["permit"]
    assert recorded.decisions[0]["door"] == "ext_authz"
    assert recorded.decisions[0]["input"]["subject"]["workload"]["id"] == WEB
    (outcome,) = recorded.outcomes
    assert (outcome["seen"], outcome["status"], outcome["complete"]) == ("unobserved", "unobserved", False)


def test_what_the_door_cannot_fulfil_is_refused_in_words_that_grpc_clients_read(
    envoy: Envoyed, deployed: Deployment
) -> None:
    got = envoy.call("GetProfile", own(deployed))  # staff may see it only with fields redacted
    assert got.said == "PERMISSION_DENIED obligation_unfulfillable"
    assert got.info["reasons"] == "obligation_unfulfillable"
    assert got.text == f"refused: obligation_unfulfillable (call {got.call_id})"
    assert deployed.upstream.calls_of(got.call_id) == []
    recorded = deployed.recorded(got.call_id)
    assert (recorded.effects, recorded.status) == (["deny"], "PERMISSION_DENIED")
    assert recorded.outcomes[0]["complete"] is True


def test_nobody_gets_in_on_headers_or_on_another_ones_token(envoy: Envoyed, deployed: Deployment) -> None:
    before = len(deployed.upstream.seen)
    stolen = envoy.call("GetProfile", own(deployed), token="amy", certificate="web", more=FORGED)
    assert stolen.said == "UNAUTHENTICATED unidentified_person"
    unnamed = envoy.call("GetProfile", own(deployed), token=None, certificate="console", more=FORGED)
    assert unnamed.said == "UNAUTHENTICATED unidentified_person"
    unregistered = envoy.call("GetProfile", own(deployed), token="user-us", certificate="reviewer", more=FORGED)
    assert unregistered.said == "UNAUTHENTICATED unidentified_workload"
    assert envoy.call("GetProfile", own(deployed), **{**USER, "certificate": None}).status == "UNAVAILABLE"
    assert len(deployed.upstream.seen) == before


def test_a_request_that_would_have_to_be_changed_is_refused(envoy: Envoyed, deployed: Deployment) -> None:
    got = envoy.call("GetProfile", own(deployed).SerializeToString() + b"\xba\x3e\x01x", **USER)
    assert got.said == "PERMISSION_DENIED obligation_unfulfillable"
    recorded = deployed.recorded(got.call_id)
    assert recorded.effects == ["permit", "deny"]
    assert recorded.status == "PERMISSION_DENIED"


@pytest.mark.parametrize(("method", "status"), [("Nope", "UNIMPLEMENTED"), ("/other.Service/Get", "UNIMPLEMENTED")])
def test_what_is_not_described_is_refused(envoy: Envoyed, method: str, status: str) -> None:
    assert envoy.call(method, b"", **USER).said == f"{status} undescribed_method"


def test_what_is_no_message_is_refused(envoy: Envoyed) -> None:
    assert envoy.call("GetProfile", b"\xff\xff", **USER).said == "INVALID_ARGUMENT unclassified_data"


def test_a_large_body_is_inspected_whole_and_a_larger_one_never_gets_on(envoy: Envoyed, deployed: Deployment) -> None:
    before = len(deployed.upstream.seen)

    large = envoy.call(
        "GetProfile", own(deployed).SerializeToString() + b"\xba\x3e\xc0\x8d\xb7\x01" + bytes(3_000_000), **USER
    )

    assert large.said == "PERMISSION_DENIED obligation_unfulfillable"
    larger = envoy.call("GetProfile", bytes(5 << 20), **USER)
    assert (larger.status, larger.reason) == ("RESOURCE_EXHAUSTED", ""), "Envoy's own answer"
    assert len(deployed.upstream.seen) == before


def test_http_clients_get_a_problem_document(envoy: Envoyed, deployed: Deployment) -> None:
    pair = deployed.world.certificates["web"]
    trusts = ssl.create_default_context(cafile=str(deployed.world.ca))
    trusts.load_cert_chain(pair.cert, pair.key)
    client = http.client.HTTPSConnection("localhost", deployed.world.ports["envoy"], context=trusts, timeout=60)
    client.request("GET", "/v1/profiles/7?x=1")
    answer = client.getresponse()
    assert (answer.status, answer.headers["content-type"]) == (401, "application/problem+json")
    document = json.loads(answer.read())
    client.close()
    assert document["reasons"] == ["unidentified_person"]
    recorded = deployed.recorded(document["call_id"])
    assert "7" not in recorded.decisions[0]["method"], "a path may hold the id of a person"


def test_an_envoy_without_the_callers_certificate_is_believed_about_nobody(
    envoy: Envoyed, deployed: Deployment
) -> None:
    with beside(envoy, lambda tree: http_filter(tree).update(include_peer_certificate=False)) as other:
        assert other.call("GetProfile", own(deployed), **USER).said == "UNAUTHENTICATED unidentified_workload"


def test_a_part_of_a_body_is_refused(envoy: Envoyed, deployed: Deployment) -> None:
    def partial(tree: dict) -> None:
        http_filter(tree)["with_request_body"] = {
            "max_request_bytes": 4, "allow_partial_message": True, "pack_as_bytes": True,
        }  # fmt: skip

    with beside(envoy, partial) as other:
        got = other.call("GetProfile", own(deployed), **USER)
    assert got.said == "RESOURCE_EXHAUSTED obligation_unfulfillable"
    assert deployed.upstream.calls_of(got.call_id) == []


def test_a_call_without_its_body_is_refused_and_the_operator_learns_why(envoy: Envoyed, deployed: Deployment) -> None:
    with beside(envoy, lambda tree: http_filter(tree).pop("with_request_body")) as other:
        got = other.call("GetProfile", own(deployed), **USER)
    assert got.said == "PERMISSION_DENIED obligation_unfulfillable"
    assert "with_request_body" in deployed.log("variant")


def test_over_tcp_the_envoy_shows_a_certificate_and_is_believed_only_as_registered(
    envoy: Envoyed, deployed: Deployment
) -> None:
    def written(identity: str) -> tuple[int, str, str]:
        settings = yaml.safe_load((deployed.folder / "variant.yaml").read_text())
        settings["listen"] = settings["listen"][1:]
        settings["listen"][0]["address"] = f"localhost:{deployed.world.ports['abroad']}"
        file = deployed.folder / "over-tcp.yaml"
        file.write_text(yaml.safe_dump(settings))
        shown, pair = deployed.world.certificates[identity], deployed.world.certificates["proxy"]
        done = sidecar("envoy-config", "--config", file, "--mode", "ext_authz", "--cert", pair.cert, "--key", pair.key,
                       "--client-ca", deployed.folder / "tls" / "corp-ca.pem", "--identity", shown.cert,
                       "--identity-key", shown.key, "--sidecar-ca", deployed.world.ca)  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    code, _, complaint = written("web")
    assert code == 2
    assert "relays: true" in complaint
    code, text, complaint = written("exporter")
    assert code == 0, complaint
    door = next(one for one in yaml.safe_load(text)["static_resources"]["clusters"] if one["name"] == "customhouse")

    def as_exporter(tree: dict) -> None:
        tree["static_resources"]["clusters"][1] = door

    def as_web(tree: dict) -> None:
        as_exporter(tree)
        tls = tree["static_resources"]["clusters"][1]["transport_socket"]["typed_config"]["common_tls_context"]
        pair = deployed.world.certificates["web"]
        tls["tls_certificates"] = [
            {"certificate_chain": {"filename": str(pair.cert)}, "private_key": {"filename": str(pair.key)}}
        ]

    with beside(envoy, as_exporter) as other:
        assert other.call("GetProfile", own(deployed), **USER).said == "OK"
    with beside(envoy, as_web) as other:
        assert other.call("GetProfile", own(deployed), **USER).said == "UNAUTHENTICATED unidentified_workload"
