"""Guarded calls through the sidecar inside Envoy, next to the same on grpc.aio, bare echoes of both, and Envoy with OPA.

The service behind is an echo inside an Envoy too: one on grpc.aio would be the slowest part. It, the load and the store
have one core, the server under test the other.
"""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil

from sidecar.demo.world import sidecar_command
from tests.benchmarks import calls, envoys, h2load, rivals_opa
from tests.benchmarks.calls import CONCURRENCIES, SETTLE_SECONDS, levels
from tests.benchmarks.deployment import METHOD, Deployment, Server
from tests.benchmarks.h2load import Target
from tests.benchmarks.load import LoadError, Seen
from tests.benchmarks.machine import LOAD, SERVER, rss
from tests.benchmarks.rivals_opa import PLAIN
from tests.benchmarks.rows import Row, at_least, middle
from tests.benchmarks.scale import Scale

GROUP = "one unary call, hosted in Envoy and on grpc.aio"
ECHO, HOSTED_ECHO = "bare grpcio echo", "bare echo in Envoy"
HOSTED_DOOR = "our door in Envoy, no policy"
GUARDED, HOSTED = "guarded on grpc.aio", "guarded in Envoy"
_OFF = {"decision__cache__entries": 0}
_LEAST = {1: 1.0, 32: 2.0}
LEAST_HOSTED = {1: 1.5, 32: 3.5}
"""Times Envoy with OPA's plugin."""
ENVOY = "Envoy alone"
_WAIT_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is measured. `server` is None for what is not a sidecar; `counted`: its calls let through, and all.

    `beside`: processes that do a part of the work; `names`: what is stopped when all is measured.
    """

    target: Target
    pid: int
    server: Server | None = None
    beside: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    counted: Callable[[], tuple[float, float]] | None = None

    def used(self) -> tuple[float, float]:
        """Seconds of processor time that the server has used, and calls that it has answered."""
        times = psutil.Process(self.pid).cpu_times()
        return times.user + times.system, sum(self.server.answered()) if self.server is not None else 0.0


def measure(deployment: Deployment, scale: Scale, say: Callable[[str], None]) -> list[Row]:
    """All of them, in turns, at concurrency 1 and 32."""
    subjects = _subjects(deployment)
    seen: dict[tuple[str, int], list[Seen]] = defaultdict(list)
    spent: dict[tuple[str, int], list[float]] = defaultdict(list)
    for one in subjects.values():
        h2load.send(one.target, 4, 200)
    for concurrency in CONCURRENCIES:
        for number in range(scale.rounds):
            for what, one in subjects.items():
                say(f"{what}, {concurrency} at a time, round {number + 1} of {scale.rounds}")
                before = one.used()
                seen[what, concurrency].append(h2load.put(one.target, concurrency, scale.seconds, scale.warm_up))
                if one.server is not None:
                    spent[what, concurrency].append(_micros(before, one.used()))
                _check(one)
    found = [_row(what, concurrency, one, seen) for concurrency in CONCURRENCIES for what, one in subjects.items()]
    found += [_ratio(cache, concurrency, seen) for concurrency in CONCURRENCIES for cache in ("miss", "hit")]
    found += _against_opa(seen)
    found += [_cost(what, concurrency, samples) for (what, concurrency), samples in spent.items()]
    for name in (
        "hosted-bare",
        "hosted-echo",
        "hosted-up",
        "hosted-plain",
        "hosted-door",
        *(name for one in subjects.values() for name in one.names),
        *(f"{host}-{cache}" for host in "ge" for cache in ("miss", "hit")),
    ):
        deployment.stop(name)
    return found


def _subjects(deployment: Deployment) -> dict[str, Subject]:
    up = echo(deployment, "hosted-up", LOAD, str(deployment.reply))
    bare, plain_proxy = deployment.peer("hosted-bare", "echo"), deployment.peer("hosted-plain", "plain")
    asked = deployment.request

    def grpc(server: Server) -> Target:
        return h2load.grpc(f"http://localhost{METHOD}", asked.body, asked.metadata, server.socket)

    found = {
        ECHO: Subject(target=grpc(bare), pid=bare.pid),
        PLAIN: Subject(target=grpc(plain_proxy), pid=plain_proxy.pid),
        HOSTED_ECHO: _inside(deployment, "hosted-echo", echo(deployment, "hosted-echo", SERVER)),
        HOSTED_DOOR: _inside(deployment, "hosted-door", echo(deployment, "hosted-door", SERVER, "door", up)),
    }
    for cache, changes in (("miss", _OFF), ("hit", {})):
        written = {**levels("written"), **changes, "upstream__address": up}
        plain = deployment.sidecar(f"g-{cache}", **written)
        inside = sidecar(deployment, f"e-{cache}", **written)
        found[f"{GUARDED}, cache {cache}"] = Subject(target=grpc(plain), pid=plain.pid, server=plain)
        found[f"{HOSTED}, cache {cache}"] = Subject(target=grpc(inside), pid=inside.pid, server=inside)
    return found | dict(_envoys(deployment, up))


def _envoys(deployment: Deployment, up: str) -> Iterator[tuple[str, Subject]]:
    """Envoy alone, and Envoy with OPA, in front of the same echo."""
    if not envoys.PROGRAM.exists():
        return
    alone = envoys.start(deployment, "hosted-envoy", up)
    yield (
        ENVOY,
        Subject(target=alone.target(deployment.request), pid=alone.pid, names=(alone.name,), counted=alone.counted),
    )
    opa = rivals_opa.start(deployment, "hosted-opa")
    if opa is not None:
        asking = envoys.start(deployment, "hosted-envoy-opa", up, opa.where, reads="headers")
        target = asking.target(deployment.request)
        rivals_opa.proven(deployment, opa, target)
        yield (
            opa.title,
            Subject(
                target=target, pid=asking.pid, beside=(opa.pid,), names=(asking.name, opa.name), counted=asking.counted
            ),
        )


def echo(deployment: Deployment, name: str, core: int, *arguments: str) -> str:
    """Start `hosted_echo` on a core; its host:port."""
    file = deployment.folder / f"{name}.address"
    deployment.launch(
        name, [sys.executable, "-m", "tests.benchmarks.hosted_echo", str(file), *arguments], core, file.exists
    )
    return file.read_text(encoding="utf-8")


def _inside(deployment: Deployment, name: str, address: str) -> Subject:
    target = h2load.grpc(f"http://{address}{METHOD}", deployment.request.body, deployment.request.metadata)
    return Subject(target=target, pid=psutil.Process(deployment.pid(name)).children()[0].pid)


def sidecar(deployment: Deployment, name: str, **changes: object) -> Server:
    """Start a sidecar inside Envoy. Its pid is Envoy's."""
    settings = deployment.settings(name, **changes)
    socket = deployment.folder / name / "0.sock"
    deployment.launch(name, sidecar_command("run", "--config", settings, "--host", "envoy"), SERVER, socket.exists)
    pid = psutil.Process(deployment.pid(name)).children()[0].pid
    return Server(name, socket, pid, deployment.metrics_port(settings))


def _check(one: Subject) -> None:
    """What h2load takes for a success may be a refusal; the sidecar's own counters know."""
    time.sleep(0.1)
    if one.counted is not None and (counted := one.counted()):
        good, other = counted[0], counted[1] - counted[0]
        if other > max(128.0, good / 100):
            raise LoadError(f"{one.target.url}: {other:.0f} calls were not let through, {good:.0f} were")
    if one.server is None:
        return
    good, other = one.server.answered()
    if other > max(64.0, good / 100):
        raise LoadError(f"{one.server.name}: {other:.0f} calls were not permitted, {good:.0f} were")
    one.server.settle(SETTLE_SECONDS)


def _row(what: str, concurrency: int, one: Subject, seen: dict[tuple[str, int], list[Seen]]) -> Row:
    got = seen[what, concurrency]
    rate = middle([each.rate for each in got])
    return Row(
        group=GROUP, what=what, note=f"{concurrency} at a time", figure=rate, unit="/s",
        p50=middle([each.p50 for each in got]), p99=middle([each.p99 for each in got]), rss=sum(rss(pid) for pid in (one.pid, *one.beside)),
        bare=rate / middle([each.rate for each in seen[ECHO, concurrency]]), samples=tuple(each.rate for each in got),
    )  # fmt: skip


def _ratio(cache: str, concurrency: int, seen: dict[tuple[str, int], list[Seen]]) -> Row:
    pairs = zip(*(seen[f"{host}, cache {cache}", concurrency] for host in (HOSTED, GUARDED)), strict=True)
    ratios = tuple(inside.rate / plain.rate for inside, plain in pairs)
    least = _LEAST[concurrency]
    return Row(
        group=GROUP, what=f"in Envoy against grpc.aio, cache {cache}", note=f"{concurrency} at a time",
        figure=middle(ratios), unit="×", target=f"≥ {least:g}", reached=at_least(middle(ratios), least), samples=ratios,
    )  # fmt: skip


def _against_opa(seen: dict[tuple[str, int], list[Seen]]) -> list[Row]:
    found: list[Row] = []
    for concurrency in CONCURRENCIES:
        at = {what: one for (what, each), one in seen.items() if each == concurrency}
        for host, least in ((GUARDED, calls.LEAST), (HOSTED, LEAST_HOSTED)):
            for what in (f"{host}, cache miss", f"{host}, cache hit"):
                found += rivals_opa.against(GROUP, what, concurrency, at[what], at, least[concurrency])
    return found


def _micros(before: tuple[float, float], after: tuple[float, float]) -> float:
    return 1e6 * (after[0] - before[0]) / max(1.0, after[1] - before[1])


def _cost(what: str, concurrency: int, samples: list[float]) -> Row:
    """Processor time does not depend on who else uses the machine; a rate does."""
    return Row(
        group=GROUP, what=f"{what}: processor time of a call", note=f"{concurrency} at a time", figure=middle(samples),
        unit="µs", samples=tuple(samples),
    )  # fmt: skip
