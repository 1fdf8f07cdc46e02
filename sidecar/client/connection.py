"""How a client reaches its sidecar: where, as whom, and how long it tries."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

Options = tuple[tuple[str, int | str], ...]

_OPTIONS: Options = (
    ("grpc.enable_retries", 0),  # retries are this client's, which knows what may be asked again
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.primary_user_agent", "customhouse-client"),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Mutual TLS, as PEM files: what the sidecar's certificate is trusted by, and the workload's own certificate and key.

    They are read when the client is made. Make another client when they have been renewed.
    """

    ca: Path
    cert: Path
    key: Path
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """For a channel. OSError when a file cannot be read."""
        return grpc.ssl_channel_credentials(
            root_certificates=Path(self.ca).read_bytes(), private_key=Path(self.key).read_bytes(),
            certificate_chain=Path(self.cert).read_bytes(),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An address, host:port or unix:PATH, and the credentials for it."""

    address: str
    tls: Tls | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a connection that would not say who calls, or would carry data in the clear."""
        if self.tls is None and not self.address.startswith("unix:"):
            raise ValueError(f"{self.address}: TCP needs tls, or the sidecar does not know who calls; or use unix:PATH")

    def options(self) -> Options:
        """Channel arguments."""
        if self.tls is None or self.tls.server_name is None:
            return _OPTIONS
        return (*_OPTIONS, ("grpc.ssl_target_name_override", self.tls.server_name))


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try: pause so many seconds before it, and give it so many."""

    pause: float
    timeout: float


def attempts(deadline: float, clock: Callable[[], float], jitter: Callable[[], float]) -> Iterator[Attempt]:
    """Tries within `deadline` seconds from now. `jitter` gives 0 to 1; pauses double, each of them shortened by it.

    A try that would begin after the deadline is not made.
    """
    end, pause = clock() + deadline, 0.0
    for number in range(_ATTEMPTS):
        left = end - clock() - pause
        if left <= 0:
            return
        yield Attempt(pause, left)
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**number) * (0.5 + jitter() / 2)
