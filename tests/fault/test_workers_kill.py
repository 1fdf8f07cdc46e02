"""kill -9 of workers and of their supervisor under load, and the ways a sidecar of several workers is told to stop.

CUSTOMHOUSE_CAMPAIGN=long kills 300 workers.
"""

import os
import queue
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from deployment import Answer, ended, wait
from worker_rig import KINDS, SIDECAR, SOON, Load, Several, alive, doubled, findings, unrecorded, until

from sidecar.demo.profiles.v1 import profiles_pb2 as pb

SHORT, LONG = 5, 300
SEED = 204


@pytest.fixture(scope="module", params=KINDS)
def deployed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    with request.param(tmp_path_factory.mktemp("kill"), drain="3s") as deployment:
        yield deployment


def sound(deployment: Several, answers: list[Answer]) -> None:
    """Every answer has its records once, every permit its outcome, and nothing is missing."""
    wait(lambda: not left(deployment), 60, "no slot holds records that the store does not have")
    until(lambda: unrecorded(deployment, answers) == [], "every answered call has its records")
    assert doubled(deployment) == []
    calls = deployment.calls()
    assert [one for one in calls.values() if "permit" in one.effects and len(one.outcomes) != 1] == []
    unseen = {seen.call_id for seen in deployment.upstream.seen} - {
        key for key, one in calls.items() if "permit" in one.effects
    }
    assert unseen == set(), "nothing was forwarded that was not recorded"
    assert findings(deployment) == []
    audit = deployment.audit()
    assert audit.returncode == 0, audit.stdout


def left(deployment: Several) -> list[Path]:
    """Slots that nobody has, with records in them; and the records of those that somebody has."""
    found = deployment._answers("sidecar.yaml")
    taken = {str(one["slot"]) for one in found.get("workers", [])}  # type: ignore[attr-defined]
    slots = [one for one in (deployment.folder / "spool").iterdir() if one.name.isdecimal() and one.name not in taken]
    held = [one for one in slots if any(one.glob("*.seg"))]
    return held if found.get("spool_records") == 0 else [*held, Path("unsent")]


@pytest.mark.timeout(0)
def test_no_answered_call_is_without_records_however_often_workers_are_killed(
    deployed: Several, long_campaign: bool
) -> None:
    kills, dice, ready = LONG if long_campaign else SHORT, random.Random(SEED), []
    with Load(deployed) as load:
        for _ in range(kills):
            time.sleep(dice.uniform(0.0, 0.7))
            deployed.serving()
            restarts = deployed.told("worker_ended")
            os.kill(dice.choice(deployed.worker_pids()), signal.SIGKILL)
            begun = time.monotonic()
            until(lambda: deployed.told("worker_ended") > restarts, "the supervisor has noticed")  # noqa: B023
            deployed.serving()
            ready.append(time.monotonic() - begun)
    assert set(load.counted()) <= {"OK", "UNAVAILABLE"}
    assert load.counted()["OK"] > 10 * kills
    sound(deployed, load.answers)
    ready.sort()
    unknown = Counter(str(one.outcomes[0]["status"]) for one in deployed.calls().values())["unknown"]
    print(f"\n{kills} workers killed: ready again after {ready[0]:.2f} to {ready[-1]:.2f} s, median "
          f"{ready[len(ready) // 2]:.2f} s; {load.counted()}; {unknown} outcomes written by successors")  # fmt: skip


def test_workers_end_with_their_supervisor_and_the_next_one_writes_what_they_owed(deployed: Several) -> None:
    hold, seen = threading.Event(), threading.Event()

    def slow(asked, requests, context):  # noqa: ANN202
        next(requests)
        seen.set()
        hold.wait(SOON)
        yield b""

    pids = deployed.worker_pids()
    with deployed.upstream.behaving("GetProfile", slow):
        caller = deployed.new_caller()
        request = pb.GetProfileRequest(user_id=deployed.world.cast.us).SerializeToString()
        call = caller.open("GetProfile", iter([request]), deployed.metadata())
        assert seen.wait(SOON)
        os.kill(deployed.processes.pid(SIDECAR), signal.SIGKILL)
        # The call under way has the drain's bound, then it is ended; its outcome is written by its own worker.
        until(lambda: alive(pids) == [], "the workers have gone")
        assert ended(call).status == "UNAVAILABLE"
        hold.set()
        caller.close()
    deployed.processes._running.pop(SIDECAR).wait()
    deployed.start_sidecar()
    assert deployed.profile().status == "OK"
    sound(deployed, [])


def test_it_stops_within_its_bound_and_streams_are_told(deployed: Several) -> None:
    say: queue.Queue[bytes | None] = queue.Queue()
    caller = deployed.new_caller()
    call = caller.open("Sync", iter(say.get, None), deployed.metadata(), timeout=None)
    say.put(pb.SyncRequest(user_id=deployed.world.cast.us).SerializeToString())
    next(call)
    begun, pids = time.monotonic(), deployed.worker_pids()
    deployed.signal(signal.SIGTERM)
    answer = ended(call)
    assert (answer.status, answer.retry) == ("UNAVAILABLE", True), answer
    assert 1.0 < time.monotonic() - begun, "it had some time"
    say.put(None)
    caller.close()
    assert deployed.ended() == 0
    assert alive(pids) == []
    assert deployed.told("worker_killed") == 0
    deployed.start_sidecar()
    sound(deployed, [])
    one = deployed.recorded(dict(answer.headers).get("x-customhouse-call-id", "") or answer.call_id)
    assert one.status == "UNAVAILABLE"


def test_told_twice_it_does_not_wait(deployed: Several) -> None:
    deployed.configure(drain="120s")
    assert deployed.reload()
    say: queue.Queue[bytes | None] = queue.Queue()
    caller = deployed.new_caller()
    call = caller.open("Sync", iter(say.get, None), deployed.metadata(), timeout=None)
    say.put(pb.SyncRequest(user_id=deployed.world.cast.us).SerializeToString())
    next(call)
    begun, before = time.monotonic(), deployed.told("stopping")
    deployed.signal(signal.SIGTERM)
    until(lambda: deployed.told("stopping") > before, "it has begun to stop")
    time.sleep(1.0)
    deployed.signal(signal.SIGTERM)
    assert deployed.ended() == 0
    assert time.monotonic() - begun < 100
    assert ended(call).status == "UNAVAILABLE"
    say.put(None)
    caller.close()
    deployed.configure(drain="3s")
    deployed.start_sidecar()


def test_workers_that_die_at_once_again_and_again_end_the_sidecar(deployed: Several) -> None:
    """What makes them die came after the start: the store's sealing key is gone."""
    key = deployed.folder / "seal.gone"
    seal = deployed.folder / yaml.safe_load((deployed.folder / "sidecar.yaml").read_text())["oversight"]["seal_key"]
    seal.rename(key)
    try:
        for pid in deployed.worker_pids():
            os.kill(pid, signal.SIGKILL)
        assert deployed.ended(180) == 2
    finally:
        key.rename(seal)
    lines = deployed.log(SIDECAR).splitlines()
    assert lines[-1].startswith("configuration: oversight.seal_key")
    deployed.start_sidecar()
    sound(deployed, [])
