"""Plays the demo: makes the world, starts the parts, plays the scenes, then lets the store prove what happened."""

import contextlib
import json
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console

from sidecar.demo import epilogue, show, world
from sidecar.demo.processes import Processes, StartError
from sidecar.demo.scenes import SCENES
from sidecar.demo.show import Result
from sidecar.demo.stage import Stage
from sidecar.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]
POLICIES = ROOT / "policies"
TOOLS = ROOT / ".tools" / "bin"


def play(*, report: Path | None, data: Path | None, keep: bool, engine: str = "embedded") -> int:
    """Play everything. 0 when every scene went as expected and every proof held, 1 otherwise.

    `engine` is `embedded` or `opa`. ConfigurationError when `data` exists and is not empty, or there is no OPA to use.
    SIGINT and SIGTERM end it at any moment, and with it whatever it has started. From the main thread.
    """
    signal.signal(signal.SIGTERM, _told)
    opa = _opa() if engine == "opa" else None
    console = Console(highlight=False, soft_wrap=True)
    started = time.monotonic()
    with _folder(data, keep=keep) as folder:
        stage: Stage | None = None
        try:
            with console.status("making keys, certificates, 20,000 users and a directory"):
                made = world.make(folder, time.time, POLICIES, opa)  # noqa: TID251 - the demo's clock
                stage = Stage(made, Processes(folder / "logs"), time.time)  # noqa: TID251
                stage.raise_curtain()
            before = epilogue.opening(stage)
            results = _scenes(console, stage)
            proof = epilogue.prove(console, stage, results, before)
            seconds = time.monotonic() - started
            summary = show.summary(results, proof, seconds)
            if report is not None:
                report.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
            good = show.verdict(console, results, proof, seconds)
            if keep:
                _keep(console, stage)
        except (StartError, world.SetUpError, epilogue.EpilogueError) as error:
            console.print(f"the demo stops: {error}", style="red", markup=False)
            return 1
        finally:
            if stage is not None:
                stage.lower_curtain()
    return 0 if good else 1


def _told(number: int, _frame: FrameType | None) -> NoReturn:
    """The parts have sessions of their own: if the signal just ended this process, they would run on."""
    raise SystemExit(128 + number)


def _scenes(console: Console, stage: Stage) -> list[Result]:
    show.header(console)
    results: list[Result] = []
    for scene in SCENES:
        got, call = scene.play(stage)
        result = Result(
            scene.name, scene.expected, got, call.reason, call.call_id, got == scene.expected, scene.past_the_sidecar
        )
        show.row(console, len(results) + 1, result)
        results.append(result)
    return results


def _opa() -> Path:
    """The `opa` program: the one that `make tools` builds, or the one on PATH."""
    found = shutil.which("opa", path=str(TOOLS)) or shutil.which("opa")
    if found is None:
        raise ConfigurationError(
            f"neither on PATH nor in {TOOLS}", where="opa",
            fix="Run `make tools` (needs Go), or install OPA: openpolicyagent.org/docs.",
        )  # fmt: skip
    return Path(found)


@contextmanager
def _folder(data: Path | None, *, keep: bool) -> Iterator[Path]:
    if data is not None:
        if data.exists() and any(data.iterdir()):
            raise ConfigurationError("is not empty", where=str(data), fix="Name a folder that does not exist yet.")
        data.mkdir(parents=True, exist_ok=True)
        yield data.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="customhouse-demo-"))
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder)


def _keep(console: Console, stage: Stage) -> None:
    folder, port = stage.world.folder, stage.world.ports["proxy"]
    console.print(
        f"\nStill running, in {folder}. Call it, for example:\n\n"
        f"  grpcurl -cacert {folder}/ca.pem -cert {folder}/tls/console.pem -key {folder}/tls/console.key \\\n"
        f'    -H "authorization: Bearer $(cat {folder}/tokens/amy.jwt)" \\\n'
        f"    -H 'x-customhouse-purpose: user_support' -H 'x-customhouse-ticket: SUP-1204' \\\n"
        f"    -d '{{\"user_id\": {stage.world.cast.us}}}' localhost:{port} sidecar.demo.profiles.v1.Profiles/GetProfile\n\n"
        f"Ask the store as a reviewer would:\n\n  . {folder}/reviewer.env\n"
        f"  sidecar oversight search --effect deny\n"
        f"  sidecar oversight prove 12 -o 12.tlog-proof\n"
        f"  sidecar oversight verify 12.tlog-proof --trust {folder}/trust.txt\n\n"
        "Ctrl-C stops it.",
        markup=False,
    )
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        threading.Event().wait()
