"""What the sidecar is compared with, and what stands behind it: `python -m tests.benchmarks.peers KIND SOCKET REPLY [UPSTREAM]`.

`echo`: a bare grpc.aio server that answers every call with the bytes in the file REPLY. `plain`: a grpc.aio proxy of
twenty lines, without policy. `door`: our own proxy door, with nothing between it and the upstream. All on uvloop.
"""

import asyncio
import sys
import time
from pathlib import Path

import grpc
import uvloop

from sidecar.enforcement.call import Call, Reply, Upstream
from sidecar.enforcement.declarations import PROXY
from sidecar.enforcement.intercept import ProxyHandler
from sidecar.enforcement.listen import Listen, Listener
from sidecar.enforcement.transport import Limits
from sidecar.enforcement.upstream import GrpcUpstream

OWNER = "spiffe://bench/load"


class Echo(grpc.GenericRpcHandler):
    """Answers any unary call with the same bytes."""

    def __init__(self, reply):
        async def unary(request, context):
            return reply

        self._handler = grpc.unary_unary_rpc_method_handler(unary)

    def service(self, details):
        return self._handler


class Plain(grpc.GenericRpcHandler):
    """Forwards any unary call, metadata and all, and brings its answer back."""

    def __init__(self, channel):
        self._channel = channel
        self._handlers = {}

    def service(self, details):
        found = self._handlers.get(details.method)
        if found is None:
            found = self._handlers[details.method] = self._forwarding(details.method)
        return found

    def _forwarding(self, method):
        ask = self._channel.unary_unary(method)

        async def unary(request, context):
            sent = tuple(item for item in context.invocation_metadata() if item[0] != "user-agent")
            return await ask(request, metadata=sent, timeout=context.time_remaining())

        return grpc.unary_unary_rpc_method_handler(unary)


class Nothing:
    """An enforcement point that decides nothing and records nothing."""

    def __init__(self, upstream: GrpcUpstream) -> None:
        self._upstream = upstream

    def kind(self, method: str) -> str:
        return "unary"

    async def unary(self, call: Call, request: bytes, upstream: Upstream | None = None) -> Reply:
        left = None if call.deadline is None else call.deadline - time.monotonic()
        return await self._upstream.unary(call.method, request, call.metadata, left)


class Errors:
    """An operator's log that goes to standard error."""

    def error(self, event: str, **details: object) -> None:
        print(event, details, file=sys.stderr)

    warning = error


async def serve(kind: str, socket: str, reply: bytes, upstream: str) -> None:
    """Serve until the process is stopped."""
    if kind == "door":
        listen = Listen(address=f"unix:{Path(socket).parent}", workload=OWNER)
        point = Nothing(GrpcUpstream(f"unix:{upstream}", None, Limits()))
        handler = ProxyHandler(point, PROXY, listen.peers(time.time), Errors())
        await Listener(listen, [handler], Limits(), Errors()).start()
        await asyncio.Event().wait()
    handler = Echo(reply) if kind == "echo" else Plain(grpc.aio.insecure_channel(f"unix:{upstream}"))
    server = grpc.aio.server(handlers=[handler])
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_bytes(), (sys.argv[4:] or [""])[0]))
