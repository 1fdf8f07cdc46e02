"""What both sides of the gRPC door share: limits, channel arguments, and where the operator is told."""

from dataclasses import dataclass
from typing import Protocol

Options = tuple[tuple[str, int | str], ...]
"""gRPC core channel arguments (grpc/grpc include/grpc/impl/channel_arg_names.h)."""

CALLER_KEEPALIVE_MS = 60_000
UPSTREAM_KEEPALIVE_MS = 310_000
"""A gRPC server answers pings more often than every 5 minutes with GOAWAY unless told otherwise, so stay above that."""
KEEPALIVE_TIMEOUT_MS = 20_000
PING_FLOOR_MS = 10_000
CONNECTION_AGE_MS = 3_600_000
"""A caller's connection is asked to reconnect after an hour, so that a renewed or revoked certificate takes effect."""
HANDSHAKE_TIMEOUT_MS = 10_000
WINDOW = 64 << 10
"""Bytes that one stream may send ahead of being read. Left to itself gRPC core lets a stream grow to megabytes, and a
reader who does not read would hold them here, once for each of its streams."""
RECONNECT_FIRST_MS = 100
RECONNECT_MOST_MS = 1_000


class OperatorLog(Protocol):
    """Where events for the operator go. Never holds metadata values or message content."""

    def error(self, event: str, **details: object) -> object:
        """Something failed and needs attention."""

    def warning(self, event: str, **details: object) -> object:
        """Something was refused or repaired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one worker. Sizes in bytes.

    `message`: one message, after decompression, either way. `metadata`: all metadata of one header block; soft and hard
    limit are equal. `streams`: calls open at once in one listener; one more is RESOURCE_EXHAUSTED.
    `streams_per_connection`: calls open at once on one connection, further ones wait in the caller's client; a quarter
    of `streams` by default, so that one connection cannot take them all. `connections`: open connections of a listener.
    `connection_age`: seconds, give or take a tenth, after which a connection is asked to reconnect.
    """

    message: int = 4 << 20
    metadata: int = 16 << 10
    streams: int = 1024
    streams_per_connection: int | None = None
    connections: int = 4096
    connection_age: float = CONNECTION_AGE_MS / 1000

    def server_options(self, *, share_port: bool) -> Options:
        """Arguments of a server. `share_port` lets the workers of one sidecar listen on one port (SO_REUSEPORT)."""
        per_connection = self.streams_per_connection or max(1, self.streams // 4)
        return (
            ("grpc.so_reuseport", int(share_port)),
            ("grpc.max_receive_message_length", self.message),
            ("grpc.max_send_message_length", -1),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", WINDOW),
            ("grpc.max_metadata_size", self.metadata),
            ("grpc.absolute_max_metadata_size", self.metadata),
            ("grpc.max_concurrent_streams", per_connection),
            ("grpc.max_allowed_incoming_connections", self.connections),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_TIMEOUT_MS),
            ("grpc.max_connection_age_ms", round(self.connection_age * 1000)),
            ("grpc.keepalive_time_ms", CALLER_KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", PING_FLOOR_MS),
        )

    def channel_options(self) -> Options:
        """Arguments of the channel to the upstream: no retry, no proxy from the environment, no service config."""
        return (
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.primary_user_agent", "customhouse"),
            ("grpc.max_receive_message_length", self.message),
            ("grpc.max_send_message_length", -1),
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", WINDOW),
            ("grpc.max_metadata_size", self.metadata),
            ("grpc.absolute_max_metadata_size", self.metadata),
            ("grpc.initial_reconnect_backoff_ms", RECONNECT_FIRST_MS),
            ("grpc.min_reconnect_backoff_ms", RECONNECT_MOST_MS),
            ("grpc.max_reconnect_backoff_ms", RECONNECT_MOST_MS),
            ("grpc.keepalive_time_ms", UPSTREAM_KEEPALIVE_MS),
            ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        )
