"""Load from grpc.aio, for machines without h2load: `python -m tests.benchmarks.generator SOCKET CONCURRENCY …`.

Reads the request as JSON from standard input; writes the rate and the time of each call in milliseconds.
"""

import argparse
import asyncio
import json
import sys
import time

import grpc
import uvloop


async def main(options: argparse.Namespace, request: dict[str, object]) -> dict[str, object]:
    """Keep `concurrency` calls under way for a time, or until so many are done."""
    async with grpc.aio.insecure_channel(f"unix:{options.socket}") as channel:
        ask = channel.unary_unary(request["method"])
        metadata, body = tuple(map(tuple, request["metadata"])), bytes.fromhex(request["body"])
        begin = time.perf_counter() + options.warm_up
        end = begin + options.seconds if options.calls is None else float("inf")
        left, times = options.calls or 0, []

        async def caller() -> None:
            nonlocal left
            while time.perf_counter() < end:
                if options.calls is not None:
                    if left <= 0:
                        return
                    left -= 1
                started = time.perf_counter()
                await ask(body, metadata=metadata)
                ended = time.perf_counter()
                if begin <= started and ended <= end:
                    times.append((ended - started) * 1000)

        await asyncio.gather(*(caller() for _ in range(options.concurrency)))
        taken = options.seconds if options.calls is None else time.perf_counter() - begin
        return {"rate": len(times) / taken, "times": times}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("socket")
    parser.add_argument("concurrency", type=int)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--warm-up", type=float, default=0.0)
    parser.add_argument("--calls", type=int)
    json.dump(uvloop.run(main(parser.parse_args(), json.load(sys.stdin))), sys.stdout)
