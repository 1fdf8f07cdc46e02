"""What leaves the process by OTLP, as the standard `OTEL_*` variables say."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from opentelemetry.trace import Tracer

from sidecar.errors import ConfigurationError
from sidecar.observability.exposition import Families

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_METRIC_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")


class _Traces(Protocol):
    def get_tracer(self, name: str, /) -> Tracer: ...
    def shutdown(self) -> None: ...


class _Metrics(Protocol):
    def observe(self, families: Families, /) -> None: ...
    def shutdown(self) -> None: ...


class Telemetry:
    """The process's OpenTelemetry providers, made from the standard `OTEL_*` variables.

    `tracer` is None where no OTLP endpoint is set: then nothing is sampled and a call pays for ids only. `metrics` says
    whether metrics are sent. ConfigurationError for a sampler, an exporter or a protocol that there is not here. Endpoint,
    headers, certificates, timeouts and intervals the exporters read themselves from the process's own environment.
    """

    def __init__(self, service: str, environment: Mapping[str, str]) -> None:
        self._traces: _Traces | None = None
        self._metrics: _Metrics | None = None
        if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return
        # Imported only where something is sent: the SDK is a fifth of a second of every start, and 10 MB.
        if _sent(environment, "TRACES", _ENDPOINTS):
            from sidecar.observability import resource, traces  # noqa: PLC0415

            self._traces = traces.provider(environment, resource.named(service))
        if _sent(environment, "METRICS", _METRIC_ENDPOINTS):
            from sidecar.observability import otlp, resource  # noqa: PLC0415

            self._metrics = otlp.Sender(resource.named(service))

    @property
    def tracer(self) -> Tracer | None:
        """Makes spans, where traces are exported."""
        return self._traces.get_tracer("customhouse") if self._traces else None

    @property
    def metrics(self) -> bool:
        """Whether metrics are exported."""
        return self._metrics is not None

    def observe(self, families: Families) -> None:
        """Send these, where metrics are exported, at each interval (OTEL_METRIC_EXPORT_INTERVAL)."""
        if self._metrics is not None:
            self._metrics.observe(families)

    def shutdown(self) -> None:
        """Send what is pending and stop."""
        if self._traces:
            self._traces.shutdown()
        if self._metrics:
            self._metrics.shutdown()


def _sent(environment: Mapping[str, str], signal: str, endpoints: Sequence[str]) -> bool:
    """Whether this signal goes out by OTLP. ConfigurationError where what is asked for cannot be done here.

    Ignoring it would leave an operator who reads nothing believing that there is nothing to read.
    """
    if not any(environment.get(name) for name in endpoints):
        return False
    choice = f"OTEL_{signal}_EXPORTER"
    wanted = environment.get(choice, "") or "otlp"
    if wanted == "none":
        return False
    if wanted != "otlp":
        raise ConfigurationError("is not available", where=choice, value=wanted, fix="Use otlp or none.")
    for name in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = environment.get(name, "")
        if protocol not in ("", "grpc"):
            raise ConfigurationError(
                "is not available", where=name, value=protocol,
                fix="Use grpc, and the port of the collector that speaks it (4317 as a rule).",
            )  # fmt: skip
        if protocol:
            break
    return True
