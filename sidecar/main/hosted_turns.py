"""The threads of a worker inside Envoy do not interrupt one another."""

import contextlib
import os
from pathlib import Path


def take_turns() -> None:
    """Let the threads of this process, and those that they start, end what they are at before another is woken on its core.

    A call goes some eight times from one thread to another (Envoy's, pyvoy's, the event loop's). Woken at once on the same
    core, the other one interrupts whoever woke it, often to wait for the interpreter's lock that this one still holds.
    Under SCHED_BATCH (sched(7)) nobody is interrupted so; with a free core nothing changes. Where it is not permitted,
    calls are slower and nothing else.
    """
    with contextlib.suppress(OSError):
        for thread in Path("/proc/self/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(int(thread.name), os.SCHED_BATCH, os.sched_param(0))
