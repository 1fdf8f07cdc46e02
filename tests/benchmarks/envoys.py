"""Envoys under test: in front of an echo, on the server's core, alone or asking an ext_authz service about each request.

All have the bootstrap that `sidecar envoy-config` writes, so that they differ in nothing but what is compared. Callers
reach them over a Unix socket without TLS; or with mutual TLS, for h2load by way of `tunnel`, since it has no certificate.
"""

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.request import urlopen

import yaml

from sidecar.administration.envoy_config import Bootstrap, Secured, render
from sidecar.demo.processes import free_port, listening
from tests.benchmarks import h2load
from tests.benchmarks.deployment import METHOD, Deployment
from tests.benchmarks.h2load import MissingError, Target
from tests.benchmarks.load import Request
from tests.benchmarks.machine import LOAD, SERVER
from tests.benchmarks.rivals import TOOLS

PROGRAM = TOOLS / "bin" / "envoy"
CALLER = "web"
"""Whose certificate the tunnel shows."""
TUNNEL = "tunnel.sock"
_MESSAGE, _METADATA, _STREAMS = 4 << 20, 64 << 10, 1024
_COMMAND = (str(PROGRAM), "--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c")
_TUNNEL = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"

Reads = Literal["everything", "headers"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envoy:
    """One that runs. `socket`: where h2load reaches it."""

    name: str
    pid: int
    socket: Path
    admin: int

    def target(self, asked: Request) -> Target:
        """This call, through it."""
        return h2load.grpc(f"http://localhost{METHOD}", asked.body, asked.metadata, self.socket)

    def counted(self) -> tuple[float, float]:
        """Calls that the service behind has answered, which were let through; and all."""
        where = f"http://127.0.0.1:{self.admin}/stats?filter=(guarded_service.upstream_rq_2xx|http.guarded.downstream_rq_total)"
        with urlopen(where, timeout=10) as answer:
            found = dict(line.split(": ") for line in answer.read().decode().splitlines())
        return float(found.get("cluster.guarded_service.upstream_rq_2xx", 0)), float(
            found["http.guarded.downstream_rq_total"]
        )


def start(
    deployment: Deployment, name: str, upstream: str, authz: Path | str | None = None, *,
    reads: Reads = "everything", tls: bool = False,
) -> Envoy:  # fmt: skip
    """Start one. `authz`: the ext_authz service that is asked, by path or host:port; `reads`: what it is told.

    `headers`: the request's headers joined, no body, no certificate. MissingError without Envoy.
    """
    if not PROGRAM.exists():
        raise MissingError("Envoy is not installed: .ci/build-tools says what it needs")
    folder = deployment.folder / name
    folder.mkdir(mode=0o700, exist_ok=True)
    port, admin = free_port(), free_port()
    tree = yaml.safe_load(render(_bootstrap(deployment, port, upstream, authz or "127.0.0.1:1")))
    tree["admin"] = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}}
    listener = tree["static_resources"]["listeners"][0]
    chain = listener["filter_chains"][0]
    filters = chain["filters"][0]["typed_config"]["http_filters"]
    if authz is None:
        del filters[0]
    elif reads == "headers":
        for key in ("with_request_body", "include_peer_certificate", "encode_raw_headers"):
            del filters[0]["typed_config"][key]
    path = folder / "envoy.sock"
    if not tls:
        del chain["transport_socket"]
        listener["address"] = {"pipe": {"path": str(path)}}
    file = deployment.folder / f"{name}.envoy.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    deployment.launch(name, [*_COMMAND, str(file)], SERVER, listening(port) if tls else _accepting(path))
    where = tunnel(deployment, name, port) if tls else path
    return Envoy(name=name, pid=deployment.pid(name), socket=where, admin=admin)


def _bootstrap(deployment: Deployment, port: int, upstream: str, authz: Path | str) -> Bootstrap:
    pair = deployment.world.certificates["proxy"]
    return Bootstrap(
        mode="ext_authz", listen=f"127.0.0.1:{port}",
        listen_tls=Secured(ca=deployment.folder / "tls" / "corp-ca.pem", cert=pair.cert, key=pair.key),
        sidecar=authz if isinstance(authz, str) else [authz], sidecar_tls=None, upstream=upstream, upstream_tls=None,
        streaming=(), unguarded=(), message=_MESSAGE, metadata=_METADATA, streams=_STREAMS,
    )  # fmt: skip


def tunnel(deployment: Deployment, name: str, port: int) -> Path:
    """A path on the load's core; what comes there goes on to the port with a caller's certificate."""
    path, pair = deployment.folder / name / TUNNEL, deployment.world.certificates[CALLER]
    secured = {
        "@type": _TLS, "sni": "localhost",
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_certificates": [
                {"certificate_chain": {"filename": str(pair.cert)}, "private_key": {"filename": str(pair.key)}}
            ],
            "validation_context": {"trusted_ca": {"filename": str(deployment.folder / "tls" / "corp-ca.pem")}},
        },
    }  # fmt: skip
    through = {"name": "tunnel", "typed_config": {"@type": _TUNNEL, "stat_prefix": "tunnel", "cluster": "envoy"}}
    to = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    tree: Mapping[str, Any] = {
        "static_resources": {
            "listeners": [
                {
                    "name": "tunnel", "address": {"pipe": {"path": str(path)}},
                    "filter_chains": [{"filters": [through]}],
                }
            ],
            "clusters": [
                {
                    "name": "envoy", "type": "STATIC", "connect_timeout": "2s",
                    "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": secured},
                    "load_assignment": {"cluster_name": "envoy", "endpoints": [{"lb_endpoints": [to]}]},
                }
            ],
        },
    }  # fmt: skip
    file = deployment.folder / f"{name}.tunnel.json"
    file.write_text(json.dumps(tree), encoding="utf-8")
    deployment.launch(f"{name}-tunnel", [*_COMMAND, str(file)], LOAD, _accepting(path))
    return path


def _accepting(path: Path) -> Callable[[], bool]:
    """Whether somebody accepts at a socket: Envoy makes the file before it listens."""

    def tried() -> bool:
        with socket.socket(socket.AF_UNIX) as one:
            return one.connect_ex(str(path)) == 0

    return tried
