"""What a shadow costs the call path: `python -m tests.benchmarks.shadow [--seconds N] [--rate N]`.

Decisions come at an even rate, each a different question (nothing is cached, the dearest case for both), without a shadow
and with one, in turns. A decision is timed as the pipeline sees it: from asking to the answer. The candidate is the same
bundle, so every answer must agree.
"""

import argparse
import asyncio
import random
import statistics
import threading
import time

import msgspec
import uvloop

from sidecar.decision.cache import CachedDecisionPoint, DecisionCache
from sidecar.decision.document import parse_decision
from sidecar.decision.embedded import EmbeddedMaker
from sidecar.decision.replay import read
from sidecar.decision.shadow import Shadow, ShadowedDecisionPoint
from sidecar.vocabulary import AccessRequest, canonical
from tests.benchmarks.replay import POLICIES, asked

ROUNDS = 4


async def paced(point: ShadowedDecisionPoint, requests: list[tuple[AccessRequest, bytes]], rate: float) -> list[float]:
    """Seconds of each decision."""
    found = []
    began = time.perf_counter()
    for number, (request, data) in enumerate(requests):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        start = time.perf_counter()
        if point.peek(data) is None:
            await point.decide(request, data, valid_for=60.0)
        found.append(time.perf_counter() - start)
    return found


async def measure(seconds: float, rate: int) -> None:
    """Print both, and what the shadow did meanwhile."""
    bundle, maker = read(POLICIES), EmbeddedMaker(5.0)
    engine = maker.make(bundle)
    shadow = Shadow(
        active=lambda: bundle.revision, sample=1.0, draw=random.random, monotonic=time.monotonic, deadline=5.0
    )
    count = int(seconds * rate / (2 * ROUNDS))
    requests = [(one, canonical(one)) for one in asked(2 * ROUNDS * count, 0, random.Random(1))]
    stop = threading.Event()

    def work() -> None:
        rest = 0.0
        while not stop.wait(rest):
            rest = shadow.step()

    times: dict[bool, list[float]] = {False: [], True: []}
    with maker.trial(bundle) as evaluate:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        for turn in range(2 * ROUNDS):
            beside = bool(turn % 2)
            shadow.adopt(bundle.revision, evaluate) if beside else shadow.dismiss()
            cached = CachedDecisionPoint(
                inner=engine, cache=DecisionCache(clock=time.monotonic), revisions=lambda: (bundle.revision,)
            )
            times[beside] += await paced(
                ShadowedDecisionPoint(cached, shadow), requests[turn * count : (turn + 1) * count], rate
            )
            if beside:
                await asyncio.sleep(1.0)
                said = shadow.counts()
                print(f"  asked {said.asked} of {count}, agreed {said.agreed}, dropped {said.dropped}")
        stop.set()
        thread.join()
    for beside, found in times.items():
        cuts = statistics.quantiles(found, n=100)
        print(f"{'with a shadow' if beside else 'without':14} {len(found)} decisions at {rate}/s: p50 {cuts[49] * 1e6:.0f} µs, "
              f"p90 {cuts[89] * 1e6:.0f} µs, p99 {cuts[98] * 1e6:.0f} µs")  # fmt: skip


def offers() -> None:
    """What one offer takes."""
    shadow = Shadow(active=lambda: "r", sample=1.0, draw=random.random, monotonic=time.monotonic, deadline=5.0)
    request = next(asked(1, 0, random.Random(1)))
    data = canonical(request)
    with EmbeddedMaker(5.0).trial(read(POLICIES)) as evaluate:
        shadow.adopt("r", evaluate)
        decision = parse_decision(msgspec.json.decode(evaluate(data)))
        began = time.perf_counter()
        for _ in range(1000):
            shadow.offer(data, decision)
        print(f"one offer: {(time.perf_counter() - began) * 1e3:.2f} µs")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.shadow", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=int, default=200)
    options = parser.parse_args()
    offers()
    uvloop.run(measure(options.seconds, options.rate))


if __name__ == "__main__":
    main()
