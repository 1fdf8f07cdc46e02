"""The guard inside the service's own process: errors of handlers, callers that go, forged headers, and the records of it.

The demo's scenes are played at it by `test_scenes_at_doors`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import Deployment, wait

from sidecar.demo.processes import listening
from sidecar.demo.profiles.v1 import profiles_pb2 as pb

HERE = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", params=["aio", "threads"])
def inside(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """The world's service with the guard inside listens on the port "abroad"."""
    with Deployment(tmp_path_factory.mktemp(request.param)) as deployment:
        folder, world = deployment.folder, deployment.world
        deployment.write_variant(listen=[], upstream__address=None, upstream__tls=None, admin=None,
                                 describe__reflection="off")  # fmt: skip
        port = world.ports["abroad"]
        command = [
            sys.executable, str(HERE / "guarded_service.py"), request.param, str(folder / "variant.yaml"),
            f"127.0.0.1:{port}", str(folder / "tls/abroad.pem"), str(folder / "tls/abroad.key"), str(folder / "ca.pem"),
            str(folder / "users.sqlite"),
        ]  # fmt: skip
        deployment.processes.start("variant", command, listening(port))
        asked = pb.GetProfileRequest(user_id=world.cast.us)  # its port is open before it takes calls
        wait(
            lambda: deployment.call("GetProfile", asked, port="abroad").status != "UNAVAILABLE",
            60,
            "the service serves",
        )
        yield deployment


def test_the_records_name_the_door(inside: Deployment) -> None:
    answer = inside.call("GetProfile", pb.GetProfileRequest(user_id=inside.world.cast.us), port="abroad")
    found = inside.recorded(answer.call_id)
    assert answer.status == "OK" and {one["door"] for one in found.decisions} == {"interceptor"}
    assert found.outcomes[0]["complete"] and "seen" not in found.outcomes[0]


def test_an_error_of_a_handler_keeps_its_code_and_is_recorded(inside: Deployment) -> None:
    answer = inside.call("GetProfile", pb.GetProfileRequest(user_id=999_999_999), port="abroad", token="niall")
    assert answer.status in ("NOT_FOUND", "PERMISSION_DENIED")
    assert inside.recorded(answer.call_id).outcomes[0]["status"] == answer.status


def test_a_caller_that_goes_leaves_an_outcome(inside: Deployment) -> None:
    before = {call for call, one in inside.calls(producer="profiles-frankfurt-1").items() if one.outcomes}
    call = inside.caller("console", "abroad").open("Sync", iter(()), inside.metadata("amy"), 30.0)
    call.cancel()
    wait(lambda: inside.calls(producer="profiles-frankfurt-1").keys() >= before, 60, "the store answers")
    inside.call("GetProfile", pb.GetProfileRequest(user_id=inside.world.cast.us), port="abroad")
    wait(
        lambda: all(one.outcomes for one in inside.calls(producer="profiles-frankfurt-1").values()), 60,
        "every call has its outcome",
    )  # fmt: skip


def test_what_is_sent_on_stays_within_the_process(inside: Deployment) -> None:
    """A forged header of the sidecar's own never reaches the handler: the call goes on as if it had not been sent."""
    forged = [("x-customhouse-person", "amy"), ("x-forwarded-client-cert", "forged")]
    answer = inside.call(
        "GetProfile", pb.GetProfileRequest(user_id=inside.world.cast.us), port="abroad", token="niall", more=forged
    )
    assert answer.said == "PERMISSION_DENIED not_us_personnel"
