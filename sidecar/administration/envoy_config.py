"""Writes a bootstrap file for an Envoy in front of a guarded service: safe as it is, with the reason beside each choice.

Pure: from what the settings say to YAML text. Written against Envoy 1.40, and tested with it.
"""

import ipaddress
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Literal

from sidecar.doors.envoy_process import ADDRESS_ATTRIBUTE, DETAILS_ATTRIBUTE, PEER_ATTRIBUTE, PEER_CERTIFICATE
from sidecar.doors.grpc_frames import PREFIX

Mode = Literal["ext_authz", "ext_proc"]
_KIB = 1024
_PSEUDO_HEADERS = 4 * _KIB
"""Room for pseudo-headers and for what Envoy adds, above the limit of metadata."""
_OWN = ("x-customhouse-call-id", "x-customhouse-person", "x-customhouse-workload", "x-envoy-auth-partial-body")
"""What the sidecar or Envoy says to the service or to the other: from a caller it would be a forgery."""
_H2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secured:
    """Certificate and key to show, and the authorities to believe. `server_name`: expected instead of the address."""

    ca: Path
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """What the file is made of.

    `listen`, `upstream`: host:port (`upstream` also unix:PATH). `sidecar`: host:port, or the paths of its workers'
    sockets. `streaming` and `unguarded`: methods as "package.Service/Method", `unguarded` also "package.Service/*".
    `message` and `metadata` in bytes; `streams`: calls open at once.
    """

    mode: Mode
    listen: str
    listen_tls: Secured
    sidecar: str | Sequence[Path]
    sidecar_tls: Secured | None
    upstream: str
    upstream_tls: Secured | None
    streaming: tuple[str, ...]
    unguarded: tuple[str, ...]
    message: int
    metadata: int
    streams: int


def render(one: Bootstrap) -> str:
    """The file."""
    filters = _authz(one) if one.mode == "ext_authz" else _process(one)
    return "\n".join((
        _head(one), "static_resources:", "  listeners:", indent(_listener(one, filters), "  "), "  clusters:",
        indent(_cluster("guarded_service", one.upstream, one.upstream_tls, one.streams), "  "),
        indent(_cluster("customhouse", one.sidecar, one.sidecar_tls, one.streams), "  "), "",
    ))  # fmt: skip


def _head(one: Bootstrap) -> str:
    return f"""\
# Envoy in front of a guarded service, asking Customhouse by {one.mode}. Written by `sidecar envoy-config`.
#
# There is no admin interface: whoever reaches it can drain Envoy, read its configuration and change its logging. If you
# need one, put it on a Unix socket that only its operator can open: admin: {{address: {{pipe: {{path: ..., mode: 384}}}}}}
#
# There is no access log: a path may hold the id of a person. Calls are recorded by the sidecar; each answer carries the
# id of its records in x-customhouse-call-id.
overload_manager:
  resource_monitors:
  - name: envoy.resource_monitors.global_downstream_max_connections
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig
      max_active_downstream_connections: 4096"""


def _listener(one: Bootstrap, filters: str) -> str:
    http2 = one.mode == "ext_proc"
    host, _, port = one.listen.rpartition(":")
    return f"""\
- name: guarded
  address: {{socket_address: {{address: {_text(host.strip("[]"))}, port_value: {port}}}}}
  # A body that is held back for inspection has to fit.
  per_connection_buffer_limit_bytes: {max(one.message + 64 * _KIB, 1 << 20)}
  filter_chains:
  - transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
        # The sidecar believes Envoy about who is calling. That holds only because Envoy lets in nobody without a
        # certificate that these authorities signed.
        require_client_certificate: true
        common_tls_context:
          alpn_protocols: [{"h2" if http2 else "h2, http/1.1"}]
          tls_params: {{tls_minimum_protocol_version: TLSv1_2}}
{indent(_shown(one.listen_tls), " " * 10)}
          validation_context: {{trusted_ca: {{filename: {_text(one.listen_tls.ca)}}}}}
    filters:
    - name: envoy.filters.network.http_connection_manager
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: guarded
        codec_type: {"HTTP2" if http2 else "AUTO"}
        # Callers are what connects here: nothing they say about addresses or other callers counts.
        use_remote_address: true
        forward_client_cert_details: SANITIZE
        # One path has one spelling, here, in the sidecar and in the service.
        normalize_path: true
        merge_slashes: true
        path_with_escaped_slashes_action: REJECT_REQUEST
        max_request_headers_kb: {-(-(one.metadata + _PSEUDO_HEADERS) // _KIB)}
        request_headers_timeout: 10s
        # A renewed or withdrawn certificate takes effect at the next connection: an hour at most. A call may be silent
        # for as long as its caller's own deadline says.
        common_http_protocol_options: {{max_connection_duration: 3600s, idle_timeout: 3600s}}
        stream_idle_timeout: 0s
        http2_protocol_options:
          max_concurrent_streams: {max(1, one.streams // 4)}
          initial_stream_window_size: {256 * _KIB}
          initial_connection_window_size: {_KIB * _KIB}
        # A body that is too large is told as gRPC has it.
        local_reply_config:
          mappers:
          - filter:
              and_filter:
                filters:
                - status_code_filter: {{comparison: {{op: EQ, value: {{default_value: 413, runtime_key: customhouse.too_large}}}}}}
                - header_filter: {{header: {{name: content-type, string_match: {{prefix: application/grpc}}}}}}
            headers_to_add: [{{header: {{key: grpc-status, value: "8"}}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}]
        # Before any filter sees a request. Later, `request_headers_to_remove` of a route would take away what the
        # sidecar adds.
        early_header_mutation_extensions:
        - name: envoy.http.early_header_mutation.header_mutation
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation
            mutations:
{indent(_lines(f"- remove: {name}" for name in _OWN), " " * 12)}
{indent(_routes(one), " " * 8)}
        http_filters:
{indent(filters, " " * 8)}
        - name: envoy.filters.http.router
          typed_config:
            "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
            suppress_envoy_headers: true"""


def _routes(one: Bootstrap) -> str:
    special = _special_routes(one)
    return f"""\
route_config:
  name: guarded
  virtual_hosts:
  - name: guarded
    domains: ["*"]
    routes:
    # Nothing is retried: a call that may have reached the service is never sent twice. How long a call may last is its
    # caller's to say (grpc-timeout).
{indent(special, " " * 4)}
    - match: {{prefix: "/"}}
{indent(_ROUTE, " " * 6)}"""


_ROUTE = "route: {cluster: guarded_service, timeout: 0s, max_stream_duration: {grpc_timeout_header_max: 0s}}"


def _special_routes(one: Bootstrap) -> str:
    if one.mode == "ext_proc":
        return "# Every method goes through the sidecar, also those that it does not guard."
    per_route = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
    found = ["# A streaming call is decided when it opens: waiting for its whole body would hang it."]
    filter_ = f'    envoy.filters.http.ext_authz: {{"@type": {per_route}, '
    for method in one.streaming:
        found += [f'- match: {{path: {_text(f"/{method}")}}}', indent(_ROUTE, "  "), "  typed_per_filter_config:",
                  f"{filter_}check_settings: {{disable_request_body_buffering: true}}}}"]  # fmt: skip
    if one.unguarded:
        found.append("# describe.unguarded: these are not asked about.")
    for method in one.unguarded:
        match = f"prefix: {_text(f'/{method[:-1]}')}" if method.endswith("/*") else f"path: {_text(f'/{method}')}"
        found += [f"- match: {{{match}}}", indent(_ROUTE, "  "), "  typed_per_filter_config:",
                  f"{filter_}disabled: true}}"]  # fmt: skip
    return _lines(found)


def _authz(one: Bootstrap) -> str:
    return f"""\
- name: envoy.filters.http.ext_authz
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
    transport_api_version: V3
    grpc_service: {{envoy_grpc: {{cluster_name: customhouse}}, timeout: 5s}}
    # A sidecar that is dead or late is UNAVAILABLE to callers, not a refusal (Envoy's own choice would be 403), and
    # never a permit.
    failure_mode_allow: false
    status_on_error: {{code: ServiceUnavailable}}
    # Which data subjects a call concerns stands in its message. A larger one is refused, never half inspected.
    with_request_body: {{max_request_bytes: {one.message + PREFIX}, allow_partial_message: false, pack_as_bytes: true}}
    # Who is calling, by certificate, and every header as it came.
    include_peer_certificate: true
    encode_raw_headers: true
    # The sidecar's answer adds and removes headers, whichever they are, but never changes where the call goes. What it
    # could not remove would be an error, not a header that slips through.
    clear_route_cache: false
    decoder_header_mutation_rules: {{disallow_system: true, allow_envoy: true, disallow_is_error: true}}"""


def _process(one: Bootstrap) -> str:
    del one
    return f"""\
# The caller's verified certificate, where no header can forge it.
- name: envoy.filters.http.set_filter_state
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config
    on_request_headers:
    - object_key: {PEER_CERTIFICATE}
      factory_key: envoy.string
      format_string: {{text_format_source: {{inline_string: "%DOWNSTREAM_PEER_CERT%"}}}}
- name: envoy.filters.http.ext_proc
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor
    grpc_service: {{envoy_grpc: {{cluster_name: customhouse}}}}
    # A sidecar that is dead or fails is UNAVAILABLE to callers. With failure_mode_allow, killing it would open the door.
    failure_mode_allow: false
    status_on_error: {{code: ServiceUnavailable}}
    # Both bodies go on only as the sidecar writes them, message by message, while calls of all kinds keep flowing.
    processing_mode:
      request_header_mode: SEND
      request_body_mode: FULL_DUPLEX_STREAMED
      request_trailer_mode: SEND
      response_header_mode: SEND
      response_body_mode: FULL_DUPLEX_STREAMED
      response_trailer_mode: SEND
    allow_mode_override: false
    observability_mode: false
    disable_immediate_response: false
    route_cache_action: RETAIN
    request_attributes: [{_text(PEER_ATTRIBUTE)}, {ADDRESS_ATTRIBUTE}]
    response_attributes: [{DETAILS_ATTRIBUTE}]
    # The sidecar adds and removes headers, whichever they are; what it could not remove would be an error, not a header
    # that slips through.
    mutation_rules: {{disallow_system: true, allow_envoy: true, disallow_is_error: true}}"""


def _cluster(name: str, where: str | Sequence[Path], tls: Secured | None, streams: int) -> str:
    if isinstance(where, str):
        endpoints, numeric = [_address(where)], _is_static(where)
    else:
        endpoints, numeric = [f"pipe: {{path: {_text(one)}}}" for one in where], True
    found = f"""\
- name: {name}
  type: {"STATIC" if numeric else "STRICT_DNS"}
  dns_lookup_family: V4_PREFERRED
  connect_timeout: 2s
  circuit_breakers: {{thresholds: [{{max_requests: {streams}, max_pending_requests: {streams}}}]}}
  typed_extension_protocol_options:
    {_H2}:
      "@type": type.googleapis.com/{_H2}
      explicit_http_config: {{http2_protocol_options: {{initial_stream_window_size: {256 * _KIB}, initial_connection_window_size: {_KIB * _KIB}}}}}
  load_assignment:
    cluster_name: {name}
    endpoints:
    - lb_endpoints:
{indent(_lines(f"- endpoint: {{address: {{{one}}}}}" for one in endpoints), " " * 6)}"""
    return found if tls is None else f"{found}\n{indent(_client_tls(tls, str(where)), '  ')}"


def _client_tls(tls: Secured, where: str) -> str:
    name = tls.server_name or where.rpartition(":")[0].strip("[]")
    kind = "IP_ADDRESS" if _is_ip(name) else "DNS"
    sni = "" if kind == "IP_ADDRESS" else f"\n    sni: {_text(name)}"
    shown = "" if tls.cert is None else f"\n{indent(_shown(tls), ' ' * 6)}"
    return f"""\
transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext{sni}
    common_tls_context:
      alpn_protocols: [h2]
      tls_params: {{tls_minimum_protocol_version: TLSv1_2}}{shown}
      validation_context:
        trusted_ca: {{filename: {_text(tls.ca)}}}
        match_typed_subject_alt_names: [{{san_type: {kind}, matcher: {{exact: {_text(name)}}}}}]"""


def _shown(tls: Secured) -> str:
    return _lines((
        "tls_certificates:", f"- certificate_chain: {{filename: {_text(tls.cert)}}}",
        f"  private_key: {{filename: {_text(tls.key)}}}",
    ))  # fmt: skip


def _address(where: str) -> str:
    if where.startswith("unix:"):
        return f"pipe: {{path: {_text(where.removeprefix('unix:'))}}}"
    host, _, port = where.rpartition(":")
    return f"socket_address: {{address: {_text(host.strip('[]'))}, port_value: {port}}}"


def _is_static(where: str) -> bool:
    return where.startswith("unix:") or _is_ip(where.rpartition(":")[0].strip("[]"))


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _text(value: object) -> str:
    """A YAML scalar: JSON is YAML."""
    return json.dumps(str(value), ensure_ascii=False)
