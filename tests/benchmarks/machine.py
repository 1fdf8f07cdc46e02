"""The machine: which core serves and which loads, memory of a process, and what to say about it beside the figures."""

import datetime as dt
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_CORES = sorted(os.sched_getaffinity(0))
SERVER, LOAD = _CORES[0], _CORES[-1]
"""One core for the server under test, another for everything else; the same one where there is only one."""


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What is started inside runs on this core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


BEHIND = 10
"""The niceness of what would be another machine: a tenth of the core when load and upstream want all of it."""


def behind(pid: int) -> None:
    """Let this process wait for whatever else wants its core: in production it has a machine of its own.

    A batch of records keeps the store busy for milliseconds, in which neither the load generator nor the upstream would
    get to run: with the store's process stopped, calls one at a time were 15 to 30 % more, and their p99 a third.
    """
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(task.name), BEHIND)
    with suppress(OSError):  # where each session has a share of its own (sched(7), "The autogroup feature")
        Path(f"/proc/{pid}/autogroup").write_text(str(BEHIND))


def rss(pid: int) -> float:
    """Resident memory in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def facts() -> dict[str, str]:
    """What the figures were measured on."""
    cpu = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":", 1)[1].strip() for line in cpu.splitlines() if line.startswith("model name")), "?")
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "revision": _revision(),
        "processor": model,
        "cores": f"{len(_CORES)}; server on {SERVER}, load, upstream and store on {LOAD}",
        "load average": " ".join(f"{one:.1f}" for one in os.getloadavg()),
        "system": f"Linux {platform.release()}, Python {platform.python_version()}",
        "libraries": ", ".join(
            f"{name} {importlib.metadata.version(name)}" for name in ("grpcio", "uvloop", "protobuf")
        ),
    }


def _revision() -> str:
    asked = ("git", "describe", "--always", "--dirty", "--abbrev=10")
    try:
        found = subprocess.run(asked, capture_output=True, text=True, check=False, cwd=Path(__file__).parent)
    except OSError:
        return "?"
    return found.stdout.strip() or "?"
