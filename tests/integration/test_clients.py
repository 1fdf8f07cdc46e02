"""Programs that nobody wrote for the sidecar: grpcurl through reflection, ghz under load."""

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deployment import Deployment

from sidecar.demo.service import SERVICE

HOW = "install Go 1.26 or newer and run `make tools`"
CALLS = 2000


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with Deployment(tmp_path_factory.mktemp("clients")) as deployment:
        yield deployment


def who(deployment: Deployment) -> list[str]:
    """The certificate of the console, as grpcurl and ghz take it."""
    tls = deployment.folder / "tls"
    return ["-cacert", str(deployment.world.ca), "-cert", str(tls / "console.pem"), "-key", str(tls / "console.key")]


@pytest.fixture
def grpcurl(deployed: Deployment, needs: Callable[[str, str], Path]) -> Callable[..., subprocess.CompletedProcess[str]]:
    program = needs("grpcurl", HOW)

    def run(
        *arguments: str, data: str | None = None, token: str | None = "amy", **headers: str
    ) -> subprocess.CompletedProcess[str]:
        sent = [f"{key}: {value}" for key, value in deployed.metadata(token, **headers)]
        command = [
            str(program),
            "-max-time",
            "60",
            "-format-error",
            *who(deployed),
            *(word for one in sent for word in ("-H", one)),
        ]
        if data is not None:
            command += ["-d", data]
        address = f"localhost:{deployed.world.ports['proxy']}"
        return subprocess.run([*command, address, *arguments], capture_output=True, text=True, timeout=90, check=False)

    return run


def test_grpcurl_lists_and_describes_the_service_through_the_sidecar(
    grpcurl: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    listed = grpcurl("list")
    assert listed.returncode == 0, listed.stderr
    assert SERVICE in listed.stdout.split()
    methods = grpcurl("list", SERVICE)
    assert set(methods.stdout.split()) == {f"{SERVICE}.{one}" for one in
                                           ("GetProfile", "ListProfiles", "ListMessages", "ImportContacts", "Sync")}  # fmt: skip
    described = grpcurl("describe", SERVICE)
    assert "rpc GetProfile ( .sidecar.demo.profiles.v1.GetProfileRequest )" in described.stdout


def test_reflection_is_for_identified_callers(
    grpcurl: Callable[..., subprocess.CompletedProcess[str]], deployed: Deployment
) -> None:
    nobody = grpcurl("list", token=None)
    assert nobody.returncode != 0
    assert SERVICE not in nobody.stdout
    assert "Unauthenticated" in nobody.stderr


def test_grpcurl_reads_a_profile(
    grpcurl: Callable[..., subprocess.CompletedProcess[str]], deployed: Deployment
) -> None:
    user = deployed.world.cast.us
    done = grpcurl(f"{SERVICE}/GetProfile", data=json.dumps({"user_id": user}))
    assert done.returncode == 0, done.stderr
    profile = json.loads(done.stdout)
    assert profile["user_id"] == str(user)
    assert profile["email"].startswith("*")
    assert "government_id" not in profile


def test_grpcurl_shows_a_readable_refusal(
    grpcurl: Callable[..., subprocess.CompletedProcess[str]], deployed: Deployment
) -> None:
    done = grpcurl(f"{SERVICE}/GetProfile", data=json.dumps({"user_id": deployed.world.cast.us}), token="niall")
    assert done.returncode != 0
    assert done.stdout == ""
    error = json.loads(done.stderr.strip())
    assert error["code"] == 7
    assert "refused: not_us_personnel" in error["message"]
    info = next(one for one in error["details"] if one["@type"].endswith("google.rpc.ErrorInfo"))
    assert (info["reason"], info["domain"]) == ("not_us_personnel", "customhouse")
    recorded = deployed.recorded(info["metadata"]["call_id"])
    assert (recorded.status, recorded.codes[0]) == ("PERMISSION_DENIED", "not_us_personnel")
    assert info["metadata"]["policy_revision"] == recorded.decisions[0]["policy"]["revision"]
    for word in ("rego", "sidecar.residency"):
        assert word not in done.stderr, "callers never see rule text"


@pytest.mark.parametrize("method", ["ListMessages", "Sync", "ImportContacts"])
def test_grpcurl_streams(
    grpcurl: Callable[..., subprocess.CompletedProcess[str]], deployed: Deployment, method: str
) -> None:
    user = deployed.world.cast.us
    data = json.dumps({"user_id": user}) * (1 if method == "ListMessages" else 3)
    done = grpcurl(f"{SERVICE}/{method}", data=data)
    assert done.returncode == 0, done.stderr
    wanted, times = {
        "ListMessages": (f'"{user}"', None), "Sync": (f'"user_id": "{user}"', 3), "ImportContacts": ('"imported": 3', 1),
    }[method]  # fmt: skip
    assert done.stdout.count(wanted) == times if times else wanted in done.stdout


def test_ghz_under_load_every_call_is_answered_and_recorded_once(
    deployed: Deployment, needs: Callable[[str, str], Path]
) -> None:
    program = needs("ghz", HOW)
    tls, address = deployed.folder / "tls", f"localhost:{deployed.world.ports['proxy']}"
    metadata = json.dumps(dict(deployed.metadata("amy", ticket="LOAD-1")))
    done = subprocess.run(
        [str(program), "--cacert", str(deployed.world.ca), "--cert", str(tls / "console.pem"), "--key", str(tls / "console.key"),
         "--call", f"{SERVICE}/GetProfile", "-d", json.dumps({"user_id": deployed.world.cast.us}), "-m", metadata,
         "--protoset", str(deployed.folder / "profiles.binpb"), "-n", str(CALLS), "-c", "20", "--connections", "4", "--timeout", "60s",
         "-O", "json", address],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    print(f"ghz: {report['rps']:.0f} calls/s, p99 {report['latencyDistribution'][-1]['latency'] / 1e6:.1f} ms")
    assert report["statusCodeDistribution"] == {"OK": CALLS}
    deployed.delivered(60)
    of_load = {call_id: one for call_id, one in deployed.calls(service=SERVICE).items()
               if one.decisions and one.decisions[0]["input"]["context"]["ticket"] == "LOAD-1"}  # fmt: skip
    whole = deployed.calls()
    assert len(of_load) == CALLS
    kinds = Counter((len(whole[one].decisions), tuple(whole[one].effects), whole[one].status) for one in of_load)
    assert kinds == {(1, ("permit",), "OK"): CALLS}
    assert len([one for one in deployed.upstream.seen if one.call_id in of_load]) == CALLS
