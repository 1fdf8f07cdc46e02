"""A sidecar inside Envoy as a process: killed under load, stopped in order, left alone, and refused at its start."""

import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from deployment import Answer, Deployment, sidecar_command, wait
from hosted_parts import ENVOY, HostedDeployment

pytest.register_assert_rewrite("fault.test_kill")

from fault.test_kill import READY_SECONDS, Load, check, report

from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.demo.service import SERVICE
from sidecar.demo.world import CONSOLE

RESOURCES = f"""
types:
  profile: {{service: {SERVICE}, message: sidecar.demo.profiles.v1.Profile, subject: person, actions: {{can_view: read}}}}
"""
KILLS, SEED = 4, 523


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostedDeployment]:
    with HostedDeployment(tmp_path_factory.mktemp("life")) as deployment:
        yield deployment


def ask(deployment: Deployment, **how: object) -> Answer:
    return deployment.call("GetProfile", pb.GetProfileRequest(user_id=deployment.world.cast.us), **how)


def test_no_answered_call_lacks_its_records_however_often_envoy_is_killed(deployed: HostedDeployment) -> None:
    """SIGKILL at random moments under load; Envoy is started again each time by whoever watches it."""
    dice, ready = random.Random(SEED), []
    with Load(deployed) as load:
        wait(lambda: len(load.answered) > 20, 60, "the load has begun")
        for _ in range(KILLS):
            time.sleep(dice.uniform(0.0, 0.7))
            deployed.kill_envoy()
            begun = time.monotonic()
            wait(lambda: load.last_ok > begun, 3 * READY_SECONDS, "calls are answered again")
            ready.append(time.monotonic() - begun)
        time.sleep(0.5)
    deployed.delivered(60)
    report({"envoy": ready}, load)
    check(deployed, load)
    assert deployed.log("sidecar").count('"worker_ended"') == KILLS


def test_told_to_stop_it_finishes_what_is_under_way_and_closes_its_records(deployed: HostedDeployment) -> None:
    gate, answers = threading.Event(), []

    def slow(seen, requests, context):
        next(requests)
        gate.wait(60)
        yield pb.Profile(user_id=deployed.world.cast.us, country="US").SerializeToString()

    envoy = deployed.envoy()
    with deployed.upstream.behaving("GetProfile", slow):
        before = len(deployed.upstream.seen)
        under_way = threading.Thread(target=lambda: answers.append(ask(deployed)))
        under_way.start()
        wait(lambda: len(deployed.upstream.seen) > before, 60, "the call is under way")
        stopping = threading.Thread(target=deployed.processes.stop, args=("sidecar",))
        stopping.start()
        wait(lambda: '"stopping"' in deployed.log("sidecar"), 60, "it has been told")
        time.sleep(0.3)
        gate.set()
        under_way.join(60)
    assert [one.status for one in answers] == ["OK"]
    stopping.join(60)
    assert not envoy.is_running()
    deployed.start_sidecar()
    deployed.delivered()
    assert deployed.recorded(answers[0].call_id).status == "OK"
    closes = [leaf["epoch"] for leaf, _ in deployed.records() if leaf["type"] == "close"]
    assert closes, "the epoch was closed, and so nothing of it can be missing"
    assert deployed.audit().returncode == 0
    assert deployed.incompleteness() == []


def test_what_does_not_end_within_the_drain_is_given_up_and_recorded(deployed: HostedDeployment) -> None:
    gate, answers = threading.Event(), []

    def never(seen, requests, context):
        next(requests)
        gate.wait(120)
        yield b""

    with deployed.variant(drain="1s"), deployed.upstream.behaving("GetProfile", never):
        before = len(deployed.upstream.seen)
        under_way = threading.Thread(target=lambda: answers.append(ask(deployed, port="abroad", timeout=60.0)))
        under_way.start()
        wait(lambda: len(deployed.upstream.seen) > before, 60, "the call is under way")
        begun = time.monotonic()
        deployed.processes.stop("variant")
        assert time.monotonic() - begun < 30
        under_way.join(60)
        gate.set()
    seen = deployed.upstream.seen[-1]
    assert [one.status for one in answers] == ["UNAVAILABLE"]
    with deployed.variant():
        deployed.delivered(settings="variant.yaml")
    assert deployed.recorded(seen.call_id).status == "CANCELLED"


def test_without_its_supervisor_envoy_ends_too(deployed: HostedDeployment) -> None:
    envoy = deployed.envoy()
    deployed.processes.kill("sidecar")
    envoy.wait(60)
    deployed.start_sidecar()
    assert ask(deployed).status == "OK"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(sidecar_command("run", *arguments), capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"identity__directory__file": "nowhere.snapshot"}, "nowhere.snapshot"),
        ({"listen": "two addresses"}, "one listener"),
        ({"listen": "taken"}, "cannot be listened on"),
    ],
)
def test_what_cannot_start_says_why_and_leaves_nothing_behind(
    deployed: HostedDeployment, changes: dict[str, object], words: str
) -> None:
    ports, tls = deployed.world.ports, {"cert": "tls/proxy.pem", "key": "tls/proxy.key", "client_ca": "ca.pem"}
    addresses = {"two addresses": (ports["abroad"], ports["ledger"]), "taken": (ports["proxy"],)}
    if str(changes.get("listen")) in addresses:
        changes = {"listen": [{"door": door, "address": f"127.0.0.1:{port}", "tls": tls}
                              for door, port in zip(("proxy", "check"), addresses[str(changes["listen"])], strict=False)]}  # fmt: skip
    done = run("--config", deployed.write_variant(**changes), *ENVOY)
    assert done.returncode == 2, done.stderr[-2000:]
    assert words in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert not [one for one in psutil.process_iter(["cmdline"]) if str(deployed.folder) in " ".join(one.info["cmdline"] or [])
                and "variant" in " ".join(one.info["cmdline"])]  # fmt: skip


def test_one_listener_has_all_doors_and_a_socket_names_its_workload(deployed: HostedDeployment) -> None:
    """On a Unix socket that names its workload: the proxy, and the decision API and AuthZEN beside it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        socket = Path(name) / "s" / "0.sock"
        listen = [
            {"door": door, "address": f"unix:{socket.parent}", "workload": CONSOLE}
            for door in ("proxy", "check", "authzen")
        ]
        (deployed.folder / "resources.yaml").write_text(RESOURCES)
        file = deployed.write_variant(listen=listen, describe__resources="resources.yaml")
        deployed.processes.start("variant", sidecar_command("run", "--config", file, *ENVOY), socket.exists)
        try:
            with grpc.insecure_channel(f"unix:{socket}") as channel:
                grpc.channel_ready_future(channel).result(60)
                request = pb.GetProfileRequest(user_id=deployed.world.cast.us).SerializeToString()
                read = channel.unary_unary(f"/{SERVICE}/GetProfile")
                assert pb.Profile.FromString(read(request, metadata=deployed.metadata(), timeout=60)).user_id
                check_one = channel.unary_unary("/sidecar.api.v1.DecisionPoint/Check")
                with pytest.raises(grpc.RpcError) as refused:
                    check_one(b"\xff", metadata=deployed.metadata(), timeout=60)
                assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT, "the decision API read it"
            assert curl(socket, "/.well-known/authzen-configuration")[0] == 200
            status, said = curl(socket, "/access/v1/evaluation", b"not json")
            assert status == 400, said
            assert curl(socket, "/access/v1/evaluation", bytes(5 << 20))[0] == 413
            assert socket.stat().st_mode & 0o777 == 0o660
            newest = socket.with_name("worker-0")
            assert newest.resolve() == socket
            os.kill(deployed.processes.pid("variant"), signal.SIGHUP)
            wait(lambda: '"generation_ended"' in deployed.log("variant"), 60, "another generation serves")
            assert newest.resolve() != socket
            assert not socket.exists(), "the one before has taken its socket away"
            with grpc.insecure_channel(f"unix:{newest}") as channel:
                grpc.channel_ready_future(channel).result(20)
                read = channel.unary_unary(f"/{SERVICE}/GetProfile")
                assert pb.Profile.FromString(read(request, metadata=deployed.metadata(), timeout=10)).user_id
        finally:
            deployed.processes.stop("variant")
        assert [one.name for one in socket.parent.iterdir() if one.is_socket()] == []


def curl(socket: Path, path: str, body: bytes | None = None) -> tuple[int, str]:
    """Status and body, over HTTP/1.1."""
    sent = [] if body is None else ["-H", "content-type: application/json", "--data-binary", "@-"]
    command = [
        "curl",
        "-s",
        "-m",
        "20",
        "-w",
        "\n%{http_code}",
        "--unix-socket",
        str(socket),
        *sent,
        f"http://localhost{path}",
    ]
    done = subprocess.run(command, input=body, capture_output=True, timeout=30, check=True)
    text, _, status = done.stdout.decode().rpartition("\n")
    return int(status), text
