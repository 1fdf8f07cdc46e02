"""AuthZEN over real HTTPS: a real sidecar, store and policy, and clients that nobody here wrote."""

import http.client
import json
import ssl
import urllib.request
from collections.abc import Iterator
from typing import Any

import decern
import pytest
from authzen_parts import client_context
from cryptography.hazmat.primitives import serialization
from deployment import Deployment, encoded, sidecar, wait

from sidecar.demo.processes import listening
from sidecar.demo.profiles.v1 import profiles_pb2
from sidecar.demo.service import SERVICE
from sidecar.demo.world import CONSOLE, RANKER, WEB, sidecar_command

RESOURCES = f"""
types:
  profile: {{service: {SERVICE}, message: sidecar.demo.profiles.v1.Profile, subject: person, actions: {{can_view: read}}}}
"""
SETTINGS = {
    "describe__resources": "resources.yaml",
    "checks__report_within": "30s",
    "identity__workloads": [
        {"id": CONSOLE, "operated_from": "US", "may": ["read", "list", "write"], "asserts": True},
        {"id": WEB, "operated_from": "US", "may": ["read", "list"]},
        {"id": RANKER, "operated_from": "US", "may": ["read", "list"], "acts_alone": True},
    ],
}
DUTIES = ["redact_fields", "mask_fields", "drop_records", "limit_records"]
CLAIMED = {"purpose": "user_support", "ticket": "SUP-1204", "obligations": DUTIES}
EVALUATION = "/access/v1/evaluation"


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("d")) as deployment:
        (deployment.folder / "resources.yaml").write_text(RESOURCES)
        yield deployment


def door(deployment: Deployment) -> list[dict[str, object]]:
    tls = {"cert": "tls/abroad.pem", "key": "tls/abroad.key", "client_ca": "ca.pem"}
    return [{"door": "authzen", "address": f"127.0.0.1:{deployment.world.ports['abroad']}", "tls": tls}]


@pytest.fixture(scope="module")
def running(deployed: Deployment) -> Iterator[Deployment]:
    with deployed.variant(listen=door(deployed), **SETTINGS):
        yield deployed


def context(deployment: Deployment, certificate: str | None) -> ssl.SSLContext:
    return client_context(deployment.world.ca, deployment.world.certificates[certificate] if certificate else None)


def send(deployment: Deployment, method: str, path: str, document: Any = None, certificate: str | None = "console",
         **headers: str) -> tuple[int, dict[str, str], Any]:  # fmt: skip
    """One request by the standard library's client."""
    port = deployment.world.ports["abroad"]
    link = http.client.HTTPSConnection("localhost", port, context=context(deployment, certificate), timeout=60)
    try:
        body = None if document is None else json.dumps(document).encode()
        sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
        link.request(method, path, body, sent)
        answer = link.getresponse()
        data = answer.read()
        kind = answer.headers["Content-Type"]
        return answer.status, dict(answer.headers.items()), json.loads(data) if "json" in kind else data.decode()
    finally:
        link.close()


def asked(person: str, resource: object, action: str = "can_view", **claims: object) -> dict[str, object]:
    return {
        "subject": {"type": "user", "id": person}, "action": {"name": action},
        "resource": {"type": "profile", "id": str(resource)}, "context": CLAIMED | claims,
    }  # fmt: skip


def bearer(deployment: Deployment, person: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {deployment.world.tokens[person]}"}


def decided(deployment: Deployment, said: dict[str, Any], **how: Any) -> dict[str, Any]:
    """An evaluation with the token of the subject."""
    status, _, found = send(deployment, "POST", EVALUATION, said, **bearer(deployment, said["subject"]["id"]), **how)
    assert status == 200, found
    return found


def test_who_may_and_what_the_store_holds_of_it(running: Deployment) -> None:
    user = running.world.cast.us
    found = decided(running, asked("amy", user))
    assert found["decision"] is True, found
    call_id = found["context"]["id"]
    said = {"call_id": call_id, "status": "OK", "messages": {"in": 1, "out": 1}, "bytes_out": 42,
            "released": {"us": {"records": 1, "by_category": {"id_contact": 1}}}}  # fmt: skip
    assert send(running, "POST", "/access/v1/outcome", said, certificate="web")[0] == 404
    assert send(running, "POST", "/access/v1/outcome", said)[0] == 200
    assert send(running, "POST", "/access/v1/outcome", said)[0] == 404
    recorded = running.recorded(call_id)
    (decision,), (outcome,) = recorded.decisions, recorded.outcomes
    assert (decision["door"], decision["decision"]["effect"]) == ("authzen", "permit")
    assert (
        decision["input"]["subject"]["person"]["id"] == "amy"
        and decision["input"]["subject"]["workload"]["id"] == CONSOLE
    )
    assert [one["class"] for one in decision["subjects"]] == ["us"]
    assert (outcome["seen"], outcome["released"]["us"]["records"], outcome["bytes_out"]) == ("reported", 1, 42)


@pytest.mark.parametrize("person", ["amy", "niall", "vic", "mei"])
@pytest.mark.parametrize("whose", ["us", "german"])
def test_it_decides_as_the_proxy_does(running: Deployment, person: str, whose: str) -> None:
    number = getattr(running.world.cast, whose)
    request = profiles_pb2.GetProfileRequest(user_id=number)
    running.upstream.answers = encoded([profiles_pb2.Profile(user_id=number)])
    answer = running.call("GetProfile", request, token=person)
    found = decided(running, asked(person, number))
    proxied = running.recorded(answer.call_id).decisions[0]["decision"]
    assert found["decision"] is (proxied["effect"] == "permit"), (found, proxied)
    if not found["decision"]:
        assert found["context"]["reason_admin"]["en"].split(", ") == answer.info["reasons"].split(",")


def test_without_a_certificate_only_discovery_answers(running: Deployment) -> None:
    status, headers, known = send(
        running, "GET", "/.well-known/authzen-configuration", certificate=None, X_Request_ID="a1"
    )
    base = f"https://localhost:{running.world.ports['abroad']}"
    assert (status, headers["x-request-id"], known["policy_decision_point"]) == (200, "a1", base)
    assert known["access_evaluation_endpoint"] == base + EVALUATION
    status, headers, text = send(running, "POST", EVALUATION, asked("amy", 1), certificate=None)
    assert status == 401 and "certificate" in text
    for token in ("", "Bearer x", f"Bearer {running.world.tokens['amy']}"):
        assert send(running, "POST", EVALUATION, asked("amy", 1), certificate=None, Authorization=token)[0] == 401
    assert send(running, "POST", EVALUATION, asked("amy", 1), certificate="exporter")[0] == 401


def test_a_person_on_a_gateway_s_word_is_not_authenticated_enough_for_the_shipped_policy(running: Deployment) -> None:
    _, _, found = send(running, "POST", EVALUATION, asked("amy", running.world.cast.us))
    assert found["decision"] is False and found["context"]["reason"] == "authentication_insufficient"
    status, _, people = send(running, "POST", "/access/v1/search/subject", asked("amy", running.world.cast.us))
    assert (status, people["results"], people["page"]["next_token"]) == (200, [], "")
    recorded = running.recorded(people["context"]["id"])
    assert recorded.codes == ["search"] and recorded.decisions[0]["input"]["subject"]["workload"]["id"] == CONSOLE
    assert send(running, "POST", EVALUATION, asked("amy", 1), certificate="web")[0] == 403
    assert send(running, "POST", "/access/v1/search/subject", asked("amy", 1), certificate="ranker")[0] == 403


def test_batches_and_searches_of_the_real_policy(running: Deployment) -> None:
    user, german = running.world.cast.us, running.world.cast.german
    items = [{}, {"resource": {"type": "profile", "id": str(german)}}, {"resource": {"type": "nothing", "id": "1"}}]
    said, amy = asked("amy", user), bearer(running, "amy")
    status, _, found = send(running, "POST", "/access/v1/evaluations", said | {"evaluations": items}, **amy)
    assert status == 200 and [one["decision"] for one in found["evaluations"]] == [True, True, False]
    for person, number in (("amy", user), ("niall", german), ("niall", user)):
        said = asked(person, number)
        _, _, actions = send(running, "POST", "/access/v1/search/action", said, **bearer(running, person))
        names = {one["name"] for one in actions["results"]}
        assert ("read" in names) is (decided(running, asked(person, number, "read"))["decision"])
        assert ("delete" in names) is (decided(running, asked(person, number, "delete"))["decision"])
        recorded = running.recorded(actions["context"]["id"])
        assert recorded.codes == ["search"] and recorded.decisions[0]["input"]["subject"]["person"]["id"] == person
        assert recorded.outcomes[0]["messages"]["out"] == len(names)


def test_an_exception_is_asked_for_approved_by_two_and_used(running: Deployment, tmp_path_factory) -> None:
    user = running.world.cast.us
    claimed = {"ticket": "SEC-77", "purpose": "security_incident"}
    denied = decided(running, asked("ed", user, **claimed))
    assert denied["decision"] is False, denied
    offered = denied["context"].get("access_request")
    assert offered, denied["context"]["reason_admin"]
    said = asked("ed", user, justification="incident_response", **claimed)
    said["denial"] = {"evaluation_id": denied["context"]["evaluation_id"]}
    place = offered["endpoint"].partition(str(running.world.ports["abroad"]))[2]
    ed = bearer(running, "ed")
    status, _, found = send(running, "POST", place, said, Idempotency_Key="key-1", **ed)
    assert status == 202, found
    name = found["task"]["id"]
    keys = tmp_path_factory.mktemp("keys")
    for approver, key in running.world.desk.approvers.items():
        file = keys / f"{approver}.pem"
        file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                           serialization.NoEncryption()))  # fmt: skip
        assert send(running, "GET", f"{place}/{name}", **ed)[2]["task"]["status"] == "pending"
        done = sidecar(
            "exception", "approve", name, "--config", running.folder / "variant.yaml", "--key", file, "--yes"
        )
        assert done.returncode == 0, done.stderr + done.stdout
    wait(
        lambda: send(running, "GET", f"{place}/{name}", **ed)[2]["task"]["status"] == "approved",
        60,
        "the grant is in force",
    )
    assert decided(running, asked("ed", user, **claimed))["decision"] is False
    again = decided(running, asked("ed", user, approval={"id": name}, **claimed))
    assert again["decision"] is True, again
    assert running.recorded(denied["context"]["id"]).effects == ["deny"]
    wait(lambda: name in {body.get("details", {}).get("id") for _, body in running.records(type="admin_action")}, 60,
         "the request is recorded")  # fmt: skip


def test_a_client_that_nobody_here_wrote(running: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """decern 0.6.0 from PyPI, as it is; its TLS is the standard library's, which is told which certificate to show."""
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context(running, "console")))
    monkeypatch.setattr(urllib.request, "_opener", opener)
    base, user = f"https://localhost:{running.world.ports['abroad']}", running.world.cast.us
    client = decern.Client(base, timeout=60, token=running.world.tokens["amy"])
    resource = {"type": "profile", "id": str(user)}
    permitted = client.evaluate({"type": "user", "id": "amy"}, "can_view", resource, CLAIMED)
    assert permitted.allowed is True and permitted.context["id"]
    assert client.evaluate({"type": "user", "id": "uma"}, "can_view", resource, CLAIMED).allowed is False
    other = decern.Client(base, timeout=60, token=running.world.tokens["niall"])
    denied = other.evaluate({"type": "user", "id": "niall"}, {"name": "can_view"}, resource, CLAIMED)
    assert denied.allowed is False and denied.context["reason"] == "not_us_personnel"
    asserting = decern.Client(base, timeout=60)
    assert asserting.evaluate({"type": "user", "id": "amy"}, "can_view", resource, CLAIMED).allowed is False
    unpromising = client.evaluate({"type": "user", "id": "amy"}, "can_view", resource, {**CLAIMED, "obligations": []})
    assert unpromising.allowed in {True, False}  # whichever: never a permit with duties it does not know of
    assert not (unpromising.allowed and "obligations" in unpromising.context)
    with pytest.raises(decern.DecernError) as caught:
        client.evaluate({"type": "user"}, "can_view", resource)
    assert caught.value.status_code == 400 and "subject.id" in caught.value.body


def test_a_permit_that_nobody_reported_is_unobserved_when_the_sidecar_stops(
    deployed: Deployment, running: Deployment
) -> None:
    call_id = decided(running, asked("amy", running.world.cast.us))["context"]["id"]
    deployed.processes.stop("variant")
    try:
        outcome = deployed.recorded(call_id).outcomes[0]
        assert (outcome["status"], outcome["seen"], outcome["complete"]) == ("unobserved", "unobserved", False)
    finally:  # the tests after it, in whatever order, find a sidecar
        again = sidecar_command("run", "--config", deployed.folder / "variant.yaml")
        deployed.processes.start("variant", again, listening(deployed.world.ports["abroad"]))
