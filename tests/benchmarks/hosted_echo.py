"""The least that gRPC inside Envoy can do: an ASGI application that answers every call with what it was sent, or one reply.

`python -m tests.benchmarks.hosted_echo ADDRESS_FILE [REPLY]` serves it and writes host:port into the file; with
`door UPSTREAM` in the place of REPLY it serves `hosted_door` before that address.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

_REPLY = "CUSTOMHOUSE_BENCH_REPLY"
_START = {
    "type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/grpc")], "trailers": True,
}  # fmt: skip
_END = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}
_reply = bytes.fromhex(os.environ.get(_REPLY, ""))


async def application(scope, receive, send):
    """One unary call."""
    body, more = b"", True
    while more:
        event = await receive()
        if event["type"] != "http.request":
            return
        body, more = body + event["body"], event["more_body"]
    await send(_START)
    await send({"type": "http.response.body", "body": _reply or body})
    await send(_END)


async def serve(address: Path, reply: bytes, upstream: str = "") -> None:
    """Until SIGTERM."""
    from pyvoy import PyvoyServer

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    framed = b"\0" + len(reply).to_bytes(4, "big") + reply if reply else b""
    server = PyvoyServer(
        f"tests.benchmarks.hosted_{'door' if upstream else 'echo'}:application", lifespan=bool(upstream), stderr=None,
        env={_REPLY: framed.hex()}, additional_envoy_args=["--concurrency", "1"],
        upstreams=[_cluster(upstream)] if upstream else [],
    )  # fmt: skip
    async with server:
        beside = address.with_suffix(".new")
        beside.write_text(f"{server.listener_address}:{server.listener_port}")
        beside.rename(address)
        await stop.wait()


def _cluster(address: str) -> dict:
    host, _, port = address.rpartition(":")
    where = {"socket_address": {"address": host, "port_value": int(port)}}
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {"@type": f"type.googleapis.com/{kind}", "explicit_http_config": {"http2_protocol_options": {}}}
    return {
        "name": "upstream", "type": "STATIC", "connect_timeout": "1s",
        "typed_extension_protocol_options": {kind: options},
        "load_assignment": {
            "cluster_name": "upstream", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": where}}]}],
        },
    }  # fmt: skip


if __name__ == "__main__":
    if sys.argv[2:3] == ["door"]:
        asyncio.run(serve(Path(sys.argv[1]), b"", sys.argv[3]))
    else:
        asyncio.run(serve(Path(sys.argv[1]), Path(sys.argv[2]).read_bytes() if len(sys.argv) > 2 else b""))
