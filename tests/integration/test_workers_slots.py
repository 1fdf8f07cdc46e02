"""Processes that share a spool without a supervisor, as services with interceptors do; killed whenever it suits nobody."""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import ROOT, Deployment, wait

from sidecar.settings.loader import load
from sidecar.settings.sidecar import SidecarSettings

PROCESSES, ROUNDS, SOON = 3, 3, 60.0
WRITER = """
import asyncio, sys
from pathlib import Path
from sidecar.main.records import Records
from sidecar.main.slots import ANY, Leftovers
from sidecar.observability.logs import make_logger
from sidecar.settings.loader import load
from sidecar.settings.sidecar import SidecarSettings

async def main(config, name, most):
    settings, log = load(Path(config), SidecarSettings, {}), make_logger("sidecar")
    records = Records.open(settings, log, ANY)
    await records.start()
    leftovers = Leftovers(settings, log, every=0.2)
    work = [asyncio.create_task(one) for one in [*records.run(), leftovers.run()]]
    print("slot", records.slot, flush=True)
    for number in range(most):
        await records.recorder.event("agreement", {"name": f"{name}-{number}"}, "committed")
        print(f"{name}-{number}", flush=True)
        await asyncio.sleep(0.002)
    while leftovers.problems() or records.status()["spool_records"]:
        await asyncio.sleep(0.05)
    others = lambda: [one for one in settings.record.spool.glob("*/*.seg") if one.parent.name != str(records.slot)]
    while others():  # until what the killed ones have left is sent as well
        await asyncio.sleep(0.05)
    await records.drain(30)
    for one in work:
        one.cancel()
    await asyncio.gather(*work, return_exceptions=True)
    await records.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


class Written:
    """Processes, and what each has said was written."""

    def __init__(self, config: Path, logs: Path) -> None:
        self._config, self._logs, self._running = config, logs, {}

    def start(self, name: str, most: int) -> None:
        out, err = (self._logs / f"{name}.{end}" for end in ("out", "err"))
        command = [sys.executable, "-c", WRITER, str(self._config), name, str(most)]
        with out.open("wb") as said, err.open("wb") as log:
            self._running[name] = subprocess.Popen(command, stdout=said, stderr=log, cwd=ROOT)
        wait(lambda: self.lines(name) != [], SOON, f"{name} has begun: {err.read_text()[-800:]}")

    def lines(self, name: str) -> list[str]:
        whole = (self._logs / f"{name}.out").read_text()
        return whole[: whole.rfind("\n") + 1].splitlines()

    def slot(self, name: str) -> int:
        return int(self.lines(name)[0].split()[1])

    def kill(self, name: str) -> None:
        self._running[name].send_signal(signal.SIGKILL)
        self._running[name].wait(SOON)

    def end(self, name: str) -> int:
        return self._running[name].wait(SOON)

    def all_of(self) -> list[str]:
        return [line for name in self._running for line in self.lines(name)[1:]]

    def stop(self) -> None:
        for one in self._running.values():
            one.kill()
            one.wait()


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployment]:
    class WithoutSidecar(Deployment):
        def start_sidecar(self) -> None:
            """The test's own processes take its place."""

    with WithoutSidecar(tmp_path / "world") as deployment:
        yield deployment


def test_each_has_a_slot_and_what_the_killed_ones_wrote_is_sent_by_the_others(
    deployed: Deployment, tmp_path: Path
) -> None:
    written, dice = Written(deployed.folder / "sidecar.yaml", tmp_path), random.Random(7)
    try:
        for round_ in range(ROUNDS):
            names = [f"r{round_}p{number}" for number in range(PROCESSES)]
            for name in names:
                written.start(name, 1_000_000)
            assert len({written.slot(name) for name in names}) == PROCESSES, "no two have one slot"
            wait(lambda: all(len(written.lines(name)) > 5 for name in names), SOON, "all write")  # noqa: B023
            dice.shuffle(names)
            for name in names:
                time.sleep(dice.uniform(0, 0.3))
                written.kill(name)
        written.start("last", 3)
        assert written.end("last") == 0, (tmp_path / "last.err").read_text()[-800:]
        spool = load(deployed.folder / "sidecar.yaml", SidecarSettings, {}).record.spool
        assert list(spool.glob("*/*.seg")) == [], "nothing is left in any slot"
    finally:
        written.stop()
    counted = Counter(str(body["details"]["name"]) for _, body in deployed.records(type="agreement"))  # type: ignore[index]
    assert [name for name in written.all_of() if counted[name] != 1] == [], "what was said to be written is there once"
    assert set(counted.values()) == {1}
    assert [one for one in deployed.incompleteness() if one[0] != "silent_producer"] == []
    assert deployed.audit().returncode == 0
    print(f"\n{len(written.all_of())} records of {ROUNDS * PROCESSES + 1} processes in "
          f"{len({leaf['slot'] for leaf, _ in deployed.records()})} slots")  # fmt: skip


def test_kept_policies_are_one_folder_for_all_processes(tmp_path: Path) -> None:
    """Two that keep at the same time lose nothing of each other's."""
    script = """
import sys
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sidecar.decision.activation import Activated
from sidecar.decision.folder import load_folder
from sidecar.main.proven import KeptPolicies
class Engine:
    name = "embedded"
kept = KeptPolicies(Path(sys.argv[1]), Ed25519PrivateKey.from_private_bytes(bytes(32)))
for number, folder in enumerate(sys.argv[2:]):
    active = Activated(engine=Engine(), bundle=load_folder(Path(folder)), tests_passed=1, documents_tried=1)
    for _ in range(20):
        kept.keep(active, by="x", source=folder, now=float(number), pin=None)
        kept.seen(1e9 * (number + 1))
assert kept.problem is None
"""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from minimal_policy import write_policy

    from sidecar.main.proven import KeptPolicies

    folders = [write_policy(tmp_path / f"p{number}", ttl_seconds=number + 1) for number in range(4)]
    halves = [folders[:2], folders[2:]]
    run = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "kept"), *map(str, half)], cwd=ROOT)
        for half in halves
    ]
    assert [one.wait(SOON) for one in run] == [0, 0]
    found = KeptPolicies(tmp_path / "kept", Ed25519PrivateKey.from_private_bytes(bytes(32)))
    assert {one.source for one in found.state.bundles} == set(map(str, folders))
    for one in found.state.bundles:
        assert found.load(one).revision == one.revision
