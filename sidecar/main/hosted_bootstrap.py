"""The configuration of the Envoy that hosts the sidecar (Envoy 1.39, v3 API): one listener, one cluster, nothing else.

What callers could use against the sidecar is shut here: no header of theirs says who they are, no path is rewritten, a
message is held back by flow control long before it is too large, and connections, streams and headers have bounds. The
admin interface is a Unix socket in a folder that only the sidecar's user may enter.
"""

import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.enforcement.certificates import ServerTls
from sidecar.enforcement.listen import Listen
from sidecar.enforcement.sockets import SOCKET_MODE, is_unix
from sidecar.enforcement.transport import (
    CALLER_KEEPALIVE_MS,
    HANDSHAKE_TIMEOUT_MS,
    KEEPALIVE_TIMEOUT_MS,
    UPSTREAM_KEEPALIVE_MS,
    Limits,
)

CLUSTER = "upstream"
APPLICATION = "sidecar.main.hosted_worker:application"
SERVER_SECRET, CLIENT_SECRET, CALLERS_SECRET, SERVICE_SECRET = "server", "client", "callers", "service"
_WINDOW = 256 << 10
"""Bytes that a stream's sender may be ahead. Less than what Envoy buffers of a request, which it refuses beyond that."""
_CONNECTION_WINDOW = 1 << 20
_ROOM = 4
"""Envoy's bound on headers is so many times the sidecar's: the door itself refuses, as gRPC does, with a status."""
_TYPE = "type.googleapis.com/envoy.extensions"
Config = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosting:
    """What the configuration is made for. `bind`: host:port, or the path of a socket. `secrets`: a file each, by name.

    `module`: pyvoy's shared library. `server_name`: the name expected in the upstream's certificate, when TLS is used.
    """

    listen: Listen
    bind: str
    upstream: str | None
    upstream_tls: bool
    server_name: str | None
    limits: Limits
    folder: Path
    module: str
    http1: bool = False

    def secret(self, name: str) -> Path:
        """Where a secret's file is."""
        return self.folder / f"{name}.json"

    @property
    def admin(self) -> Path:
        """Envoy's admin socket."""
        return self.folder / "admin.sock"


def bootstrap(hosting: Hosting) -> Config:
    """The whole configuration, to be written as JSON."""
    resources: Config = {"listeners": [_listener(hosting)]}
    if hosting.upstream is not None:
        resources["clusters"] = [_cluster(hosting, hosting.upstream)]
    return {
        "node": {"id": "customhouse", "cluster": "customhouse"},
        "admin": {"address": {"pipe": {"path": str(hosting.admin), "mode": 0o600}}},
        "static_resources": resources,
        "overload_manager": {"resource_monitors": [_typed(
            "envoy.resource_monitors.global_downstream_max_connections",
            "resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            max_active_downstream_connections=hosting.limits.connections,
        )]},
        "application_log_config": {"log_format": {"json_format": {
            "component": "envoy", "level": "%l", "timestamp": "%Y-%m-%dT%T.%fZ", "event": "%j",
        }}},
    }  # fmt: skip


def _typed(name: str, kind: str, **fields: Any) -> Config:
    return {"name": name, "typed_config": {"@type": f"{_TYPE}.{kind}", **fields}}


def _listener(hosting: Hosting) -> Config:
    chain: Config = {"filters": [_http(hosting)]}
    if hosting.listen.tls is not None:
        chain["transport_socket"] = _server_tls(hosting, hosting.listen.tls)
        chain["transport_socket_connect_timeout"] = _seconds(HANDSHAKE_TIMEOUT_MS)
    return {
        "name": "callers",
        "address": _address(hosting.bind, unix=is_unix(hosting.listen.address)),
        "enable_reuse_port": not is_unix(hosting.listen.address),  # all workers are on one port
        "per_connection_buffer_limit_bytes": _CONNECTION_WINDOW,
        "filter_chains": [chain],
    }


def _http(hosting: Hosting) -> Config:
    limits = hosting.limits
    per_connection = limits.streams_per_connection or max(1, limits.streams // 4)
    return _typed(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="callers",
        codec_type="AUTO" if hosting.http1 else "HTTP2",
        route_config={"virtual_hosts": [{"name": "sidecar", "domains": ["*"]}]},
        http_filters=[_python(hosting)],
        # Who calls is what Envoy has verified, whatever callers say.
        use_remote_address=True,
        skip_xff_append=True,
        forward_client_cert_details="SANITIZE_SET",
        set_current_client_cert_details={"cert": True},
        generate_request_id=False,
        server_header_transformation="PASS_THROUGH",
        # A gRPC call may last, and be silent, as long as its deadline lets it.
        stream_idle_timeout="0s",
        # What its caller has stopped reading, though, is not kept for ever once the call is over.
        stream_flush_timeout="300s",
        request_timeout="0s",
        request_headers_timeout=_seconds(HANDSHAKE_TIMEOUT_MS),
        common_http_protocol_options={
            "max_connection_duration": _seconds(round(limits.connection_age * 1000)),
            "max_headers_count": 1000,
            "headers_with_underscores_action": "ALLOW",
        },
        max_request_headers_kb=max(1, min(8192, _ROOM * limits.metadata // 1024)),
        http2_protocol_options={
            "max_concurrent_streams": per_connection,
            "initial_stream_window_size": _WINDOW,
            "initial_connection_window_size": _CONNECTION_WINDOW,
            "override_stream_error_on_invalid_http_message": True,
            "connection_keepalive": _keepalive(CALLER_KEEPALIVE_MS),
        },
    )


def _python(hosting: Hosting) -> Config:
    application = {"app": APPLICATION, "interface": "asgi", "root_path": "", "lifespan": True, "worker_threads": 1}
    return _typed(
        "pyvoy",
        "filters.http.dynamic_modules.v3.DynamicModuleFilter",
        dynamic_module_config={"module": {"local": {"filename": hosting.module}}},
        filter_name="pyvoy",
        terminal_filter=True,
        filter_config={"@type": "type.googleapis.com/google.protobuf.StringValue", "value": json.dumps(application)},
    )


def _server_tls(hosting: Hosting, tls: ServerTls) -> Config:
    common = _common_tls(hosting, SERVER_SECRET, CALLERS_SECRET if tls.client_ca is not None else None)
    return _typed(
        "envoy.transport_sockets.tls",
        "transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context={**common, "alpn_protocols": ["h2", "http/1.1"] if hosting.http1 else ["h2"]},
        require_client_certificate=tls.client_ca is not None,
        # A resumed session brings the certificate it was made with: who is in and who is out is asked each time.
        disable_stateless_session_resumption=True,
        disable_stateful_session_resumption=True,
    )


def _cluster(hosting: Hosting, address: str) -> Config:
    host, _, _ = address.rpartition(":")
    unix = is_unix(address)
    bound = 4 * hosting.limits.streams
    cluster: Config = {
        "name": CLUSTER,
        "connect_timeout": "1s",
        "dns_lookup_family": "ALL",  # one of the name's addresses that answers, as gRPC's pick_first does
        "type": "STATIC" if unix or _is_ip(host) else "LOGICAL_DNS",
        "load_assignment": {"cluster_name": CLUSTER, "endpoints": [{"lb_endpoints": [{"endpoint": {
            "address": _address(address.removeprefix("unix:"), unix=unix),
        }}]}]},
        "circuit_breakers": {"thresholds": [
            {"max_connections": bound, "max_pending_requests": bound, "max_requests": bound},
        ]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {
                "initial_stream_window_size": _WINDOW,
                "initial_connection_window_size": _CONNECTION_WINDOW,
                "connection_keepalive": _keepalive(UPSTREAM_KEEPALIVE_MS),
            }},
            "common_http_protocol_options": {"max_response_headers_kb": max(1, min(8192, hosting.limits.metadata // 1024))},
        }},
    }  # fmt: skip
    if hosting.upstream_tls:
        cluster["transport_socket"] = _typed(
            "envoy.transport_sockets.tls",
            "transport_sockets.tls.v3.UpstreamTlsContext",
            common_tls_context={
                **_common_tls(hosting, CLIENT_SECRET, SERVICE_SECRET),
                "alpn_protocols": ["h2"],
            },
            sni=hosting.server_name or host.strip("[]"),
        )
    return cluster


def _common_tls(hosting: Hosting, own: str, authorities: str | None) -> Config:
    context: Config = {"tls_params": {"tls_minimum_protocol_version": "TLSv1_2"}}
    if hosting.secret(own).exists():
        context["tls_certificate_sds_secret_configs"] = [_secret(hosting, own)]
    if authorities is not None:
        context["validation_context_sds_secret_config"] = _secret(hosting, authorities)
    return context


def _secret(hosting: Hosting, name: str) -> Config:
    source = {"path_config_source": {"path": str(hosting.secret(name))}, "resource_api_version": "V3"}
    return {"name": name, "sds_config": source}


def _address(where: str, *, unix: bool) -> Config:
    if unix:
        return {"pipe": {"path": where, "mode": SOCKET_MODE}}
    host, _, port = where.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _seconds(millis: int) -> str:
    return f"{millis / 1000:g}s"


def _keepalive(millis: int) -> Config:
    return {"interval": _seconds(millis), "timeout": _seconds(KEEPALIVE_TIMEOUT_MS)}
