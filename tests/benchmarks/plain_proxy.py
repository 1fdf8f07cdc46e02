"""Calls per second of the proxy door with nothing behind it but the upstream, against a bare grpc.aio echo.

Server under test on core 0; upstream and load on core 1. Rounds alternate. Usage: PYTHONPATH=.:tests python tests/benchmarks/plain_proxy.py [seconds]
"""

import asyncio
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import grpc
import uvloop
from proxy_parts import PassThrough, Remembering

from sidecar.enforcement.intercept import PROXY, ProxyHandler
from sidecar.enforcement.listen import Listen, Listener
from sidecar.enforcement.transport import Limits
from sidecar.enforcement.upstream import GrpcUpstream

METHOD = "/bench.Echo/Unary"
STREAM = "/bench.Echo/Stream"
BODY = os.urandom(200)


class Echo(grpc.GenericRpcHandler):
    def __init__(self):
        async def unary(request, context):
            return request

        async def stream(requests, context):
            async for request in requests:
                await context.write(request)

        self._unary = grpc.unary_unary_rpc_method_handler(unary)
        self._stream = grpc.stream_stream_rpc_method_handler(stream)

    def service(self, details):
        return self._unary if details.method == METHOD else self._stream


async def echo():
    server = grpc.aio.server(handlers=[Echo()])
    print(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}", flush=True)
    await server.start()
    await server.wait_for_termination()


async def proxy(upstream):
    limits, log = Limits(), Remembering()
    listen = Listen(address="127.0.0.1:0", plaintext=True)
    point = PassThrough(GrpcUpstream(upstream, None, limits), {METHOD})
    point.calls = Forgetting()
    listener = Listener(listen, [ProxyHandler(point, PROXY, listen.peers(time.time), log)], limits, log)
    await listener.start()
    print(listener.address, flush=True)
    await asyncio.Event().wait()


class Forgetting:
    def append(self, item):
        pass


async def load(address, concurrency, seconds, method):
    """Requests per second and the mean time, in ms, as h2load (Debian: nghttp2-client) sees them."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"\0" + len(BODY).to_bytes(4, "big") + BODY)
        body.flush()
        process = await asyncio.create_subprocess_exec(
            "taskset", "-c", "1", "h2load", "-D", str(seconds), "--warm-up-time=1", "-c", "1", "-m", str(concurrency),
            "-d", body.name, "-H", "content-type: application/grpc", "-H", "te: trailers", "-H",
            "authorization: Bearer " + "x" * 400, "-H", "x-customhouse-purpose: support", "-H", "grpc-timeout: 5S",
            f"http://{address}{method}", stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out = (await process.communicate())[0].decode()
    done, failed = re.search(r"(\d+) succeeded, (\d+) failed", out).groups()
    assert failed == "0", out
    mean = re.search(r"time for request:\s+\S+\s+\S+\s+(\S+)", out).group(1)
    return int(done) / seconds, mean


async def spawn(core, *args):
    process = await asyncio.create_subprocess_exec(
        "taskset", "-c", str(core), sys.executable, __file__, *args, stdout=asyncio.subprocess.PIPE
    )
    return process, (await process.stdout.readline()).decode().strip()


async def main(seconds):
    up, up_address = await spawn(1, "echo")
    bare, bare_address = await spawn(0, "echo")
    prox, proxy_address = await spawn(0, "proxy", up_address)
    try:
        for method in (METHOD, STREAM):
            for concurrency in (1, 32):
                for _ in range(2):
                    for name, address in (("bare", bare_address), ("proxy", proxy_address)):
                        rate, mean = await load(address, concurrency, seconds, method)
                        print(f"{method} c={concurrency:<2} {name:5} {rate:7.0f}/s mean {mean}", flush=True)
        rss = int(Path(f"/proc/{prox.pid}/status").read_text().split("VmRSS:")[1].split()[0]) // 1024
        print(f"proxy RSS {rss} MiB")
    finally:
        for process in (up, bare, prox):
            process.terminate()


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else "3"
    if what == "echo":
        uvloop.run(echo())
    elif what == "proxy":
        uvloop.run(proxy(sys.argv[2]))
    else:
        asyncio.run(main(int(what)))
