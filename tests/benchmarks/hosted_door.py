"""The hosted door with nothing behind it: what gRPC inside Envoy costs before anything is decided. Loaded by `hosted_echo`."""

from sidecar.doors.hosted import HostedDoor
from sidecar.doors.hosted_peers import NamedWorkload
from sidecar.doors.hosted_upstream import EnvoyUpstream
from sidecar.enforcement.declarations import PROXY
from sidecar.enforcement.transport import Limits
from sidecar.main.hosted_turns import take_turns
from tests.benchmarks.peers import OWNER, Errors


class Forward:
    """An enforcement point that decides nothing and records nothing."""

    def kind(self, method):
        return "unary"

    async def unary(self, call, request, upstream=None):
        return await upstream.unary(call.method, request, call.metadata, None)


async def application(scope, receive, send):
    """The lifespan that makes the door, and each request."""
    if scope["type"] != "lifespan":
        await scope["state"]["door"](scope, receive, send)
        return
    from pyvoy.asgi.httpclient import HTTPTransport

    await receive()
    take_turns()
    limits = Limits()
    upstream = EnvoyUpstream(HTTPTransport("upstream"), None, limits.message, "localhost")
    scope["state"]["door"] = HostedDoor(Forward(), PROXY, NamedWorkload(OWNER), upstream, limits, Errors())
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
