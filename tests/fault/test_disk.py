"""The spool's disk is full: nothing is permitted unrecorded, refusals come fast, and space alone mends it.

The spool of a second sidecar lies on a small tmpfs; making one needs the right to mount.
"""

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest
from deployment import SOON, Answer, Deployment, wait

from sidecar.demo.profiles.v1 import profiles_pb2 as pb

SIZE = "6m"
WORKERS = 4
FAST_SECONDS = 0.5
"""The design asks for 50 ms; a shared machine gets ten times that. The true figure is printed."""
RECOVERY_SECONDS = 30.0


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A tmpfs of its own. Skips where nothing may be mounted."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(
            f"a small file system cannot be mounted here: {done.stderr.strip()}; run as root with CAP_SYS_ADMIN"
        )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployment]:
    with small_disk(tmp_path / "disk") as disk, Deployment(tmp_path / "all") as deployment:
        with deployment.variant(record__spool=str(disk / "spool")):
            yield deployment


class Load:
    """Calls that never stop, through the second sidecar."""

    def __init__(self, deployment: Deployment) -> None:
        self.answers: list[tuple[float, Answer]] = []
        self._deployment, self._stop = deployment, threading.Event()
        self._threads = [threading.Thread(target=self._go_on) for _ in range(WORKERS)]

    def __enter__(self) -> Self:
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for one in self._threads:
            one.join()

    def _go_on(self) -> None:
        caller = self._deployment.new_caller(port="abroad")
        request = [pb.GetProfileRequest(user_id=self._deployment.world.cast.us).SerializeToString()]
        try:
            while not self._stop.wait(0.01):
                answer = caller.call("GetProfile", request, self._deployment.metadata())
                self.answers.append((time.monotonic(), answer))
        finally:
            caller.close()

    def since(self, moment: float) -> list[Answer]:
        return [answer for at, answer in tuple(self.answers) if at - answer.seconds >= moment]


def fill(disk: Path) -> Path:
    """Take all the space that is left."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


def test_a_full_disk_permits_nothing_unrecorded_and_recovers_by_itself(deployed: Deployment, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with Load(deployed) as load:
        wait(lambda: sum(answer.status == "OK" for answer in load.since(0)) > 50, SOON, "calls go through")
        deployed.processes.kill("store")  # so that nothing is acknowledged, and nothing can be deleted
        ballast = fill(disk)
        wait(lambda: load.since(0)[-1].status == "UNAVAILABLE", SOON, "calls are refused")
        full = time.monotonic()
        time.sleep(3.0)
        refused = load.since(full)
        deployed.stage.start_store()
        ballast.unlink()
        begun = time.monotonic()
        took = wait(
            lambda: any(one.status == "OK" for one in load.since(begun)), RECOVERY_SECONDS, "calls go through again"
        )
        time.sleep(1.0)
        after = load.since(begun + took + 0.5)
    slowest = sorted(one.seconds for one in refused)
    print(f"\n{len(refused)} calls on a full disk: {dict(Counter(one.said for one in refused))}, "
          f"median {slowest[len(slowest) // 2] * 1e3:.1f} ms, slowest {slowest[-1] * 1e3:.1f} ms; OK again {took:.2f} s after")  # fmt: skip
    assert {one.said for one in refused} == {"UNAVAILABLE record_unavailable"}
    assert all(one.retry for one in refused), "the caller is told to come again"
    assert slowest[len(slowest) // 2] < FAST_SECONDS
    assert {one.status for one in after} == {"OK"}
    deployed.delivered(SOON, "variant.yaml")
    check(deployed, [answer for _, answer in load.answers])


def check(deployment: Deployment, answers: list[Answer]) -> None:
    calls = deployment.calls()
    for seen in deployment.upstream.seen:
        assert "permit" in calls[seen.call_id].effects, "a call was forwarded without a record"
    for answer in answers:
        if answer.status == "OK":
            assert calls[answer.call_id].status == "OK"
    permitted = [one for one in calls.values() if "permit" in one.effects]
    assert all(len(one.outcomes) == 1 for one in permitted), "an outcome that found no space was written later"
    assert all(len(one.outcomes) <= 1 for one in calls.values())
    assert deployment.audit().returncode == 0
    assert [one for one in deployment.incompleteness() if one[0] != "silent_producer"] == []
    assert "Traceback" not in deployment.log("variant")
    assert "No space left on device" in deployment.log("variant"), "the operator is told why"


def test_a_start_on_a_full_disk_says_so_and_serves_once_there_is_space(deployed: Deployment, tmp_path: Path) -> None:
    """Whatever a sidecar does that cannot write `open`: it permits nothing, and says what is wrong."""
    disk = tmp_path / "disk"
    before = deployed.call("GetProfile", pb.GetProfileRequest(user_id=1), port="abroad")
    assert before.status == "OK"
    deployed.delivered(SOON, "variant.yaml")
    deployed.processes.kill("variant")
    ballast = fill(disk)
    done = subprocess.run(
        [*command(), str(deployed.folder / "variant.yaml")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    assert "No space left" in done.stderr
    assert str(disk) in done.stderr
    ballast.unlink()
    deployed.processes.start(
        "variant", [*command(), str(deployed.folder / "variant.yaml")], lambda: "problems" in status(deployed)
    )
    wait(
        lambda: deployed.call("GetProfile", pb.GetProfileRequest(user_id=1), port="abroad").status == "OK",
        SOON,
        "it serves",
    )
    deployed.delivered(SOON, "variant.yaml")
    assert deployed.recorded(before.call_id).status == "OK"
    assert deployed.audit().returncode == 0


def command() -> list[str]:
    from sidecar.demo.world import sidecar_command

    return sidecar_command("run", "--config")


def status(deployment: Deployment) -> dict[str, object]:
    try:
        return deployment.status("variant.yaml")
    except OSError:
        return {}
