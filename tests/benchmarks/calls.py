"""Guarded calls next to a bare echo, a plain proxy and our own door with nothing behind it."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from tests.benchmarks import load, rivals_opa
from tests.benchmarks.deployment import Deployment, Server
from tests.benchmarks.load import LoadError, Request, Seen
from tests.benchmarks.rivals_opa import PLAIN
from tests.benchmarks.rows import Row, at_least, middle
from tests.benchmarks.scale import Scale

GROUP = "one unary call, over a Unix socket"
CONCURRENCIES = (1, 32)
SETTLE_SECONDS = 8.0
LEAST = {1: 1.5, 32: 1.0}
"""Times Envoy with OPA's plugin."""
BARE, DOOR = "bare grpcio echo", "our proxy door, no policy"


def levels(level: str) -> dict[str, object]:
    """Settings under which every record has this level."""
    return {"record__levels": dict.fromkeys(("personnel", "workload", "data_subject", "deny"), level)}


def measure(deployment: Deployment, scale: Scale, say: Callable[[str], None]) -> list[Row]:
    """All of them, in turns, at concurrency 1 and 32."""
    off = {"decision__cache__entries": 0}
    servers = {
        BARE: deployment.peer("bare", "echo"),
        PLAIN: deployment.peer("plain", "plain"),
        DOOR: deployment.peer("door", "door"),
        "guarded, written, cache miss": deployment.sidecar("miss", **levels("written"), **off),
        "guarded, written, cache hit": deployment.sidecar("hit", **levels("written")),
        "guarded, committed, cache miss": deployment.sidecar("miss-committed", **levels("committed"), **off),
        "guarded, committed, cache hit": deployment.sidecar("hit-committed", **levels("committed")),
    }
    seen = rounds(deployment.request, servers, CONCURRENCIES, scale, say)
    found = [_row(what, one, servers[what], seen) for one in CONCURRENCIES for what in servers]
    for server in servers.values():
        deployment.stop(server.name)
    return [*found, *_against_opa(seen), *_levels(seen)]


def rounds(
    request: Request, servers: dict[str, Server], concurrencies: Sequence[int], scale: Scale, say: Callable[[str], None]
) -> dict[tuple[str, int], list[Seen]]:
    """Load on each server in turn, `scale.rounds` times. LoadError when a guarded call was not permitted."""
    seen: dict[tuple[str, int], list[Seen]] = defaultdict(list)
    for server in servers.values():
        load.send(server.socket, request, 4, 200)
    for concurrency in concurrencies:
        for number in range(scale.rounds):
            for what, server in servers.items():
                say(f"{what}, {concurrency} at a time, round {number + 1} of {scale.rounds}")
                got = load.put(server.socket, request, concurrency, scale.seconds, scale.warm_up)
                seen[what, concurrency].append(got)
                _check(server)
                server.settle(SETTLE_SECONDS)
    return seen


def _check(server: Server) -> None:
    """What h2load takes for a success may be a refusal; the sidecar's own counters know."""
    if server.metrics is None:
        return
    time.sleep(0.05)  # the calls that h2load broke off at its end
    good, other = server.answered()
    if other > max(64.0, good / 100):
        series = {name: value for name, value in server.scrape().items() if name.startswith("customhouse_calls_total")}
        raise LoadError(f"{server.name}: {other:.0f} calls were not permitted: {series}")


def _row(what: str, concurrency: int, server: Server, seen: dict[tuple[str, int], list[Seen]]) -> Row:
    rates = {name: middle([one.rate for one in seen[name, concurrency]]) for name in (what, PLAIN, BARE)}
    return Row(
        group=GROUP, what=what, note=f"{concurrency} at a time", figure=rates[what], unit="/s",
        p50=middle([one.p50 for one in seen[what, concurrency]]),
        p99=middle([one.p99 for one in seen[what, concurrency]]),
        rss=server.rss(), plain=rates[what] / rates[PLAIN], bare=rates[what] / rates[BARE],
        samples=tuple(one.rate for one in seen[what, concurrency]),
    )  # fmt: skip


def _against_opa(seen: dict[tuple[str, int], list[Seen]]) -> list[Row]:
    found: list[Row] = []
    for concurrency in CONCURRENCIES:
        at = {what: one for (what, each), one in seen.items() if each == concurrency}
        for what in ("guarded, written, cache miss", "guarded, written, cache hit"):
            found += rivals_opa.against(GROUP, what, concurrency, at[what], at, LEAST[concurrency])
    return found


def _levels(seen: dict[tuple[str, int], list[Seen]]) -> list[Row]:
    found = []
    for cache in ("miss", "hit"):
        pairs = zip(*(seen[f"guarded, {level}, cache {cache}", 32] for level in ("committed", "written")), strict=True)
        ratios = tuple(committed.rate / written.rate for committed, written in pairs)
        found.append(
            Row(
                group=GROUP, what=f"committed against written, cache {cache}", note="32 at a time",
                figure=middle(ratios), unit="×", target="≥ 0.7", reached=at_least(middle(ratios), 0.7), samples=ratios,
            )
        )  # fmt: skip
    return found
