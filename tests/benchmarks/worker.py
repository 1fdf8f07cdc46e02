"""Memory of one worker, and how soon it answers after it was started."""

import subprocess
import time
from collections.abc import Callable, Iterator

import grpc

from sidecar.demo.world import sidecar_command
from tests.benchmarks import load
from tests.benchmarks.calls import levels
from tests.benchmarks.deployment import Deployment
from tests.benchmarks.machine import SERVER, on_core
from tests.benchmarks.pipeline import ChildError, point
from tests.benchmarks.rows import Row, at_most, middle
from tests.benchmarks.scale import Scale

GROUP = "one worker"
IDLE, USED, START = 90, 130, 1.5
_ALL = 10**6
_QUESTIONS = 40_000
_READY_SECONDS = 120.0


def measure(deployment: Deployment, scale: Scale, say: Callable[[str], None]) -> Iterator[Row]:
    """Cold starts, then memory before and after many calls."""
    yield from _starts(deployment, scale, say)
    yield from _memory(deployment, scale, say)
    yield _cache(deployment, say)


def _memory(deployment: Deployment, scale: Scale, say: Callable[[str], None]) -> list[Row]:
    server = deployment.sidecar("memory", **levels("written"))
    time.sleep(2)
    idle, found = server.rss(), []
    for part in range(4):
        say(f"memory: {scale.calls * (part + 1) // 4:,} of {scale.calls:,} calls")
        load.send(server.socket, deployment.request, 32, scale.calls // 4)
        found.append(server.rss())
    left = server.settle(20)
    good, other = server.answered()
    deployment.stop("memory")
    grown = (found[3] - found[1]) / (scale.calls / 2) * 1e5
    note = f"{grown:+.2f} MiB per 100,000 calls in the second half; {other:.0f} of {good + other:,.0f} refused; {left:.0f} records unsent"
    judged = at_most(found[3], USED) if scale.calls >= _ALL else None
    return [
        Row(group=GROUP, what="memory, idle", figure=idle, unit="MiB", target=f"≤ {IDLE} MiB", reached=at_most(idle, IDLE)),
        Row(group=GROUP, what=f"memory after {scale.calls:,} calls", note=note, figure=found[3], unit="MiB",
            target=f"≤ {USED} MiB after 10⁶", reached=judged, samples=tuple(found)),
    ]  # fmt: skip


def _cache(deployment: Deployment, say: Callable[[str], None]) -> Row:
    say(f"memory: {_QUESTIONS:,} different questions, without transport")
    settings = deployment.settings("questions", **levels("written"))
    amy = deployment.world.tokens["amy"]
    found = point("memory", [settings], [amy], [[deployment.user]], _QUESTIONS, 1)
    grown = found["after"] - found["before"]
    return Row(group=GROUP, what=f"what {_QUESTIONS:,} different questions add", note=f"{found['entries']:,} decisions kept",
               figure=grown, unit="MiB")  # fmt: skip


def _starts(deployment: Deployment, scale: Scale, say: Callable[[str], None]) -> list[Row]:
    settings = deployment.settings("start", **levels("written"))
    connected: list[float] = []
    answered: list[float] = []
    for number in range(scale.starts + 1):
        say(f"cold start {number} of {scale.starts}")
        times = _start(deployment, settings)
        if number:  # the very first start also fetches the period keys
            connected.append(times[0])
            answered.append(times[1])
    return [
        Row(group=GROUP, what="cold start to the first connection", figure=middle(connected), unit="s", samples=tuple(connected)),
        Row(group=GROUP, what="cold start to the first answer", figure=middle(answered), unit="s", target=f"≤ {START} s",
            reached=at_most(middle(answered), START), samples=tuple(answered)),
    ]  # fmt: skip


def _start(deployment: Deployment, settings: object) -> tuple[float, float]:
    """Seconds from `sidecar run` to the first connection accepted and to the first call answered OK."""
    socket, request = deployment.folder / "start" / "0.sock", deployment.request
    socket.unlink(missing_ok=True)
    with on_core(SERVER):
        began = time.perf_counter()
        process = subprocess.Popen(
            sidecar_command("run", "--config", settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    try:
        while not socket.exists():
            if process.poll() is not None or time.perf_counter() - began > _READY_SECONDS:
                raise ChildError(f"sidecar run did not start ({process.returncode})")
            time.sleep(0.002)
        connected = time.perf_counter() - began
        while True:
            with grpc.insecure_channel(f"unix:{socket}") as channel:
                try:
                    channel.unary_unary(request.method)(request.body, metadata=tuple(request.metadata), timeout=5)
                except grpc.RpcError as error:
                    if time.perf_counter() - began > _READY_SECONDS:
                        raise ChildError(f"sidecar run answers nothing: {error}") from None
                else:
                    return connected, time.perf_counter() - began
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
