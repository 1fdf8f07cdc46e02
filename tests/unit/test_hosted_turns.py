"""The threads of a hosted worker do not interrupt one another."""

import os
import subprocess
import sys
import threading

_TOLD = """
import os, threading
from sidecar.main.hosted_turns import take_turns

def policy():
    found.append(os.sched_getscheduler(threading.get_native_id()))

def waiting():
    begun.set(); told.wait(); policy()

found, begun, told = [], threading.Event(), threading.Event()
before = threading.Thread(target=waiting)
before.start()
begun.wait()
policy()
take_turns()
after = threading.Thread(target=policy)
after.start()
after.join()
told.set()
before.join()
policy()
print(*found)
"""


def test_all_threads_of_a_worker_take_turns_and_this_process_is_as_it_was() -> None:
    """A thread that was there before, one that is started later, and the one that asks for it."""
    mine = os.sched_getscheduler(threading.get_native_id())
    ran = subprocess.run([sys.executable, "-c", _TOLD], capture_output=True, text=True, check=True, timeout=120)
    assert ran.stdout.split() == [str(one) for one in (mine, os.SCHED_BATCH, os.SCHED_BATCH, os.SCHED_BATCH)]
    assert os.sched_getscheduler(threading.get_native_id()) == mine
