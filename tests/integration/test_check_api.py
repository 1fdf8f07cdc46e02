"""The decision API of a real sidecar: over mutual TLS and a Unix socket, with grpcurl, restarted and killed."""

import base64
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from deployment import ROOT, Deployment, wait

from sidecar.client import (
    OBLIGATIONS,
    AssertedPerson,
    Context,
    DecisionClient,
    DeniedError,
    Entity,
    MethodCall,
    Outcome,
    Released,
    Tls,
    Token,
)
from sidecar.demo.profiles.v1 import profiles_pb2
from sidecar.demo.service import SERVICE
from sidecar.demo.world import CONSOLE, RANKER, WEB, sidecar_command

RESOURCES = f"""
types:
  profile: {{service: {SERVICE}, message: sidecar.demo.profiles.v1.Profile, subject: person, actions: {{can_view: read}}}}
"""
CONTEXT = Context(purpose="user_support", ticket="SUP-1204")
LONG = 30.0
METHOD = f"/{SERVICE}/GetProfile"
SETTINGS = {
    "describe__resources": "resources.yaml",
    "identity__workloads": [
        {"id": CONSOLE, "operated_from": "US", "may": ["read", "list", "write"], "asserts": True},
        {"id": WEB, "operated_from": "US", "may": ["read", "list"]},
        {"id": RANKER, "operated_from": "US", "may": ["read", "list"], "acts_alone": True},
    ],
}


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("d")) as deployment:
        (deployment.folder / "resources.yaml").write_text(RESOURCES)
        yield deployment


def doors(deployment: Deployment) -> list[dict[str, object]]:
    return [
        {
            "door": "check", "address": f"127.0.0.1:{deployment.world.ports['abroad']}",
            "tls": {"cert": "tls/abroad.pem", "key": "tls/abroad.key", "client_ca": "ca.pem"},
        },
        {"door": "check", "address": "unix:run/check", "workload": RANKER},
    ]  # fmt: skip


class Door:
    """The one sidecar with these doors: it is up while tests share it, and down while a test starts its own."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment, self._up = deployment, ExitStack()
        self.is_up = False

    def up(self) -> None:
        if not self.is_up:
            self._up.enter_context(self.deployment.variant(listen=doors(self.deployment), **SETTINGS))
            self.is_up = True

    def down(self) -> None:
        self.is_up = False
        self._up.close()


@pytest.fixture(scope="module")
def door(deployed: Deployment) -> Iterator[Door]:
    found = Door(deployed)
    yield found
    found.down()


@pytest.fixture
def running(door: Door) -> Deployment:
    door.up()
    return door.deployment


@pytest.fixture
def alone(door: Door) -> Deployment:
    door.down()
    return door.deployment


def client(deployment: Deployment, certificate: str = "console") -> DecisionClient:
    pair = deployment.world.certificates[certificate]
    tls = Tls(ca=deployment.world.ca, cert=pair.cert, key=pair.key)
    return DecisionClient(f"localhost:{deployment.world.ports['abroad']}", tls, deadline=LONG)


def get(number: int) -> bytes:
    return profiles_pb2.GetProfileRequest(user_id=number).SerializeToString()


def amy(deployment: Deployment) -> Token:
    return Token(deployment.world.tokens["amy"])


def test_what_a_caller_reports_stands_in_the_store_and_can_be_searched_for(running: Deployment) -> None:
    user = running.world.cast.us
    with client(running) as asks:
        method = asks.check(MethodCall(METHOD, get(user)), subject=amy(running), context=CONTEXT, meets=OBLIGATIONS)
        entity = asks.check(
            Entity("profile", "can_view", (str(user),)), subject=amy(running), context=CONTEXT, meets=OBLIGATIONS
        )
        assert method, method
        assert entity, entity
        assert asks.report(method, Outcome(us=Released(records=1, by_category={"id_contact": 1}))).recorded
        assert asks.report(entity, Outcome(code=5)).recorded
        denied = asks.check(MethodCall(METHOD, get(user)), subject=amy(running))
    assert not denied
    assert denied.reasons
    found = running.recorded(method.call_id)
    assert [(one["door"], one["method"]) for one in found.decisions] == [("check", "GetProfile")]
    assert found.decisions[0]["input"]["subject"]["person"]["id"] == "amy"  # type: ignore[index]
    assert (found.status, found.outcomes[0]["seen"]) == ("OK", "reported")
    assert running.recorded(entity.call_id).outcomes[0]["status"] == "NOT_FOUND"
    assert running.recorded(denied.call_id).effects == ["deny"]
    reported = running.calls(type="outcome", seen="reported")
    assert {method.call_id, entity.call_id} <= set(reported)
    assert denied.call_id not in reported


def test_a_gateway_may_name_a_person_and_others_may_not(running: Deployment) -> None:
    asked = MethodCall(METHOD, get(running.world.cast.us))
    with client(running) as gateway, client(running, "web") as web:
        known = gateway.check(asked, subject=AssertedPerson("amy"), context=CONTEXT, meets=OBLIGATIONS)
        refused = web.check(asked, subject=AssertedPerson("amy"), context=CONTEXT)
        stranger = gateway.check(asked, subject=AssertedPerson("stranger"), context=CONTEXT)
        stolen = web.check(asked, subject=amy(running), context=CONTEXT, meets=OBLIGATIONS)
    assert [one.code for one in (refused, stranger, stolen)] == [7, 7, 16]
    assert running.recorded(refused.call_id).codes == ["unidentified_person"]
    found = running.recorded(known.call_id)
    assert found.decisions[0]["input"]["subject"]["person"]["id"] == "amy"  # type: ignore[index]
    assert found.codes == ["authentication_insufficient"], "nobody knows how amy proved who she is; policy asks for it"


def test_a_caller_that_is_not_registered_is_unauthenticated_and_recorded(running: Deployment) -> None:
    with client(running, "exporter") as asks:
        found = asks.check(MethodCall(METHOD, get(1)))
    assert (found.why, found.code) == ("unreachable", 16)

    def recorded() -> bool:
        refused = running.calls(reason="unidentified_workload", type="decision")
        return any(one.decisions[0]["door"] == "check" for one in refused.values())

    wait(recorded, 60, "the refusal is in the store")


def test_a_unix_socket_is_the_workload_it_names(running: Deployment) -> None:
    (path,) = (running.folder / "run" / "check").glob("*.sock")
    with DecisionClient(f"unix:{path}", deadline=LONG) as asks:
        found = asks.check(Entity("profile", "read", (str(running.world.cast.german),)), meets=OBLIGATIONS)
    assert found.call_id
    recorded = wait_decision(running, found.call_id)
    assert recorded["input"]["subject"]["workload"]["id"] == RANKER  # type: ignore[index]


def wait_decision(deployment: Deployment, call_id: str) -> dict[str, object]:
    wait(lambda: bool(deployment.calls(call_id=call_id)), 60, f"{call_id} is in the store")
    return deployment.calls(call_id=call_id)[call_id].decisions[0]


def test_a_guard_filters_reports_and_denies(running: Deployment) -> None:
    user = running.world.cast.us
    answer = profiles_pb2.Profile(user_id=user, handle="h", country="US").SerializeToString()
    with client(running) as asks:
        with asks.guard(MethodCall(METHOD, get(user), checked=True), subject=amy(running), context=CONTEXT) as call:
            released = call.release(answer)
        with pytest.raises(DeniedError), asks.guard(MethodCall(METHOD, get(user)), subject=amy(running)):
            raise AssertionError
    assert released is not None
    assert profiles_pb2.Profile.FromString(released).handle == "h"
    outcome = running.recorded(call.call_id).outcomes[0]
    assert (outcome["seen"], outcome["released"]["us"]["records"]) == ("reported", 1)  # type: ignore[index]


def test_a_batch_of_two_hundred_has_two_hundred_records(running: Deployment) -> None:
    users = [str(running.world.cast.us), str(running.world.cast.german)] * 100
    with client(running) as asks:
        found = asks.check_all(
            [Entity("profile", "read", (one,)) for one in users],
            subject=amy(running),
            context=CONTEXT,
            meets=OBLIGATIONS,
        )
        assert all(found), [one for one in found if not one][:1]
        told = asks.report_all([(one.call_id, Outcome()) for one in found])
    assert all(one.recorded for one in told)
    assert len({one.call_id for one in found}) == 200
    assert running.recorded(found[-1].call_id).status == "OK"


def test_grpcurl_can_ask_and_report(running: Deployment, needs: Callable[[str, str], Path]) -> None:
    program = needs("grpcurl", "install Go 1.26 or newer and run `make tools`")
    tls = running.folder / "tls"

    def call(method: str, data: dict[str, object]) -> dict[str, object]:
        command = [
            str(program), "-max-time", "30", "-cacert", str(running.world.ca), "-cert", str(tls / "console.pem"),
            "-key", str(tls / "console.key"), "-import-path", str(ROOT / "proto"),
            "-proto", "sidecar/api/v1/decision_point.proto", "-d", json.dumps(data),
            f"localhost:{running.world.ports['abroad']}", f"sidecar.api.v1.DecisionPoint/{method}",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    message = base64.b64encode(get(running.world.cast.us)).decode()
    asked = {
        "subject": {"token": running.world.tokens["amy"]},
        "context": {"purpose": "user_support", "ticket": "SUP-1204"},
        "question": {"call": {"method": METHOD, "message": message}},
    }
    answer = call("Check", asked)
    assert answer["decision"] == "DECISION_PERMIT"
    told = call("ReportOutcome", {"outcomes": [{"call_id": answer["callId"], "messages_out": 1}]})
    assert told["results"] == [{"callId": answer["callId"]}]
    streamed = call("CheckStream", {"id": "a", "check": asked})
    assert (streamed["id"], streamed["check"]["decision"]) == ("a", "DECISION_PERMIT")  # type: ignore[index]


def permitted(deployment: Deployment, many: int) -> list[str]:
    with client(deployment) as asks:
        asked = [Entity("profile", "read", (str(deployment.world.cast.us),))] * many
        found = asks.check_all(asked, subject=amy(deployment), context=CONTEXT, meets=OBLIGATIONS)
    assert all(found)
    return [one.call_id for one in found]


def test_what_is_not_reported_is_unobserved_in_time_and_at_the_end(alone: Deployment) -> None:
    more = {**SETTINGS, "listen": doors(alone)}
    with alone.variant(**more, checks={"report_within": "1s"}):
        late = permitted(alone, 3)
        assert {alone.recorded(one).status for one in late} == {"unobserved"}
        with client(alone) as asks:
            told = asks.report_all([(late[0], Outcome())])
        assert told[0].code == 5
    with alone.variant(**more):
        waiting = permitted(alone, 70)
        began = time.monotonic()
    assert time.monotonic() - began < 15
    with alone.variant(**more):  # whatever the store had not got yet is sent by the successor
        found = [alone.recorded(one) for one in waiting]
    assert {(one.status, one.outcomes[0]["seen"], one.outcomes[0]["complete"]) for one in found} == {
        ("unobserved", "unobserved", False)
    }
    command = sidecar_command("oversight", "search", "--seen", "unobserved", "--json", "--limit", "0")
    pair = alone.world.certificates["reviewer"]
    where = ["--store", f"localhost:{alone.world.ports['query']}", "--ca", str(alone.world.ca), "--cert",
             str(pair.cert), "--key", str(pair.key)]  # fmt: skip
    done = subprocess.run([*command, *where], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    shown = {json.loads(line)["body"]["call_id"] for line in done.stdout.splitlines()}
    assert {*late, *waiting} <= shown


def test_after_kill_9_the_successor_closes_what_waited(alone: Deployment) -> None:
    more = {**SETTINGS, "listen": doors(alone)}
    with alone.variant(**more):
        waiting = permitted(alone, 20)
        alone.processes.kill("variant")
    with alone.variant(**more):
        found = [alone.recorded(one) for one in waiting]
        with client(alone) as asks:
            told = asks.report_all([(one, Outcome()) for one in waiting])
    assert {(one.status, one.outcomes[0]["complete"]) for one in found} == {("unknown", False)}
    assert {one.outcomes[0]["released"]["us"]["records"] for one in found} == {1}  # type: ignore[index]
    assert {one.code for one in told} == {5}, "the new process knows nothing of them"
    done = alone.audit()
    assert done.returncode == 0, done.stdout + done.stderr
