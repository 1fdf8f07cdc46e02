"""`python -m tests.benchmarks`: measure, show one table, write JSON. Asserts nothing about figures."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console

from tests.benchmarks import (
    calls,
    check,
    engine,
    hosted,
    in_process,
    ingest,
    load,
    machine,
    opa,
    people,
    pipeline,
    rivals,
    rivals_cerbos,
    rivals_envoy,
    rows,
    worker,
)
from tests.benchmarks.deployment import Deployment
from tests.benchmarks.h2load import MissingError
from tests.benchmarks.rows import Row
from tests.benchmarks.scale import FULL, LONG, SHORT, Scale

Say = Callable[[str], None]


class Run:
    """One run. The deployment is made when the first group asks for it."""

    def __init__(self, folder: Path, scale: Scale, say: Say, stack: ExitStack) -> None:
        self._folder, self._scale, self._say, self._stack = folder, scale, say, stack
        self._deployment: Deployment | None = None
        self.groups: dict[str, Callable[[], Iterable[Row]]] = {
            "calls": lambda: calls.measure(self.deployment(), scale, say),
            "hosted": lambda: hosted.measure(self.deployment(), scale, say),
            "envoy": lambda: rivals_envoy.measure(self.deployment(), scale, say),
            "check": lambda: check.measure(self.deployment(), scale, say),
            "cerbos": lambda: rivals_cerbos.measure(self.deployment(), scale, say),
            "in-process": lambda: in_process.measure(self.deployment(), scale, say),
            "pipeline": lambda: pipeline.measure(self.deployment(), scale),
            "people": lambda: people.measure(self.deployment(), scale, say),
            "engine": lambda: engine.measure(scale),
            "opa": lambda: opa.measure(scale),
            "worker": lambda: worker.measure(self.deployment(), scale, say),
            "store": lambda: self._alone(),
        }

    def deployment(self) -> Deployment:
        """The one deployment of this run."""
        if self._deployment is None:
            self._say("making a deployment")
            self._deployment = self._stack.enter_context(Deployment(self._folder / "d"))
        return self._deployment

    def _alone(self) -> list[Row]:
        """Nothing else runs while the store is measured."""
        self._stack.close()
        self._deployment = None
        return ingest.measure(self._folder / "store", self._scale, self._say)


def main() -> int:
    """0, or 1 when a group could not be measured; the others are shown all the same."""
    options = _options()
    scale = SHORT if options.short else LONG if options.long else FULL
    console, progress = Console(width=None if sys.stdout.isatty() else 180), Console(stderr=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    folder = Path(tempfile.mkdtemp(prefix="chbench-", dir=options.data))
    found: list[Row] = []
    failed = 0
    facts = machine.facts() | {"peers": rivals.versions(), "load": load.describe(), "scale": scale.name}
    began = time.monotonic()

    def say(text: str) -> None:
        progress.print(f"[{time.monotonic() - began:5.0f} s] {text}", style="dim", markup=False, highlight=False)

    os.sched_setaffinity(0, {machine.LOAD})
    # Where it is set, the engine notes a stack for each expression that is undefined: a tenth of an evaluation.
    os.environ.pop("RUST_BACKTRACE", None)
    try:
        with ExitStack() as stack:
            run = Run(folder, scale, say, stack)
            for name in options.only or run.groups:
                try:
                    for row in run.groups[name]():
                        found.append(row)  # noqa: PERF402 - what was measured before an error is kept
                except MissingError as error:
                    progress.print(f"{name} is left out: {error}", style="yellow", markup=False)
                except Exception as error:  # noqa: BLE001 - the other groups are measured all the same
                    failed += 1
                    progress.print(
                        f"{name} could not be measured: {type(error).__name__}: {error}", style="red", markup=False
                    )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    facts["seconds"] = f"{time.monotonic() - began:.0f}"
    rows.show(console, found, facts)
    if options.json is not None:
        options.json.write_text(rows.as_json(found, facts), encoding="utf-8")
    if options.write:
        rows.write_document(found, facts)
    return 1 if failed else 0


def _stop(number: int, _: FrameType | None) -> NoReturn:
    """So that what was started is stopped."""
    raise SystemExit(128 + number)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--short", action="store_true", help="a look, in about 10 minutes")
    size.add_argument("--long", action="store_true", help="with 10^6 calls and 10^7 records, in about 90 minutes")
    names = (
        "calls", "hosted", "envoy", "check", "cerbos", "in-process", "pipeline", "people", "engine", "opa", "worker", "store",
    )  # fmt: skip
    parser.add_argument("--only", action="append", choices=names, help="one group of figures; may be given again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, samples included")
    parser.add_argument("--write", action="store_true", help="put the table into docs/measurements.md")
    parser.add_argument("--data", type=Path, metavar="DIR", help="where to work: on the disk that is to be measured")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
