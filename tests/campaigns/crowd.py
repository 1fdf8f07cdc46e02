"""A running sidecar and its honest callers, who go on while somebody else misbehaves.

Times are taken side by side, quiet and disturbed in turn, so that a busy machine burdens both; and are never asserted.
What is asserted: each honest call is answered as ever, and the sidecar's memory stays within its bound.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import psutil
from deployment import Deployment

from campaigns.figures import percentile
from sidecar.demo.profiles.v1 import profiles_pb2 as pb

RSS_MIB = 256
"""Of measures.md; what CI asserts."""
_PACE = 0.02


@dataclass(slots=True)
class Honest:
    """What honest callers met. `said`: statuses with their reason; `seconds`: of the calls that were answered."""

    said: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def p99(self) -> float:
        """In milliseconds."""
        return percentile(self.seconds, 0.99) * 1000


@dataclass(slots=True)
class Compared:
    """Quiet and disturbed, and the most memory the sidecar held meanwhile, in MiB."""

    quiet: Honest = field(default_factory=Honest)
    disturbed: Honest = field(default_factory=Honest)
    rss: float = 0.0

    def __str__(self) -> str:
        ratio = self.disturbed.p99 / self.quiet.p99
        return (f"honest calls {sum(self.disturbed.said.values())}, answered {dict(self.disturbed.said)}; p99 "
                f"{self.quiet.p99:.0f} ms quiet, {self.disturbed.p99:.0f} ms disturbed ({ratio:.2f} x); RSS {self.rss:.0f} MiB")  # fmt: skip

    @property
    def held(self) -> bool:
        """Whether every honest call was answered, and memory stayed within its bound."""
        return set(self.disturbed.said) == {"OK"} == set(self.quiet.said) and self.rss <= RSS_MIB


def rss(pid: int) -> float:
    """Resident memory of a process or of its largest child (inside Envoy: that one has the doors), MiB."""
    process = psutil.Process(pid)
    return max(one.memory_info().rss for one in (process, *process.children(recursive=True))) / (1 << 20)


def calls(deployment: Deployment, seconds: float, honest: Honest, port: str, token: str) -> None:
    """Call at a steady pace, on a connection of one's own."""
    caller = deployment.new_caller("console", port)
    request = [pb.GetProfileRequest(user_id=deployment.world.cast.us).SerializeToString()]
    metadata = deployment.metadata(token)
    try:
        caller.call("GetProfile", request, metadata)  # connects
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            answer = caller.call("GetProfile", request, metadata, 30.0)
            honest.said[answer.said] += 1
            honest.seconds.append(answer.seconds)
            time.sleep(_PACE)
    finally:
        caller.close()


def compared(
    deployment: Deployment, disturbance: Callable[[], AbstractContextManager[None]], *, seconds: float, rounds: int = 2,
    port: str = "proxy", process: str = "sidecar", token: str = "amy",
) -> Compared:  # fmt: skip
    """Honest calls for so many seconds, quiet and disturbed, in turn."""
    found = Compared()
    with _watched(deployment.processes.pid(process), found):
        for _ in range(rounds):
            calls(deployment, seconds, found.quiet, port, token)
            with disturbance():
                calls(deployment, seconds, found.disturbed, port, token)
    return found


@contextmanager
def _watched(pid: int, found: Compared) -> Iterator[None]:
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            found.rss = max(found.rss, rss(pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
