"""Spans, and the W3C Trace Context that joins them to a caller's trace.

A caller's trace id is continued and labelled as the caller's; its `sampled` flag forces nothing here, or anyone could
make the sidecar export as much as they like (https://www.w3.org/TR/trace-context/, section 7.1).
"""

import re
from collections.abc import Mapping
from typing import Literal

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import Tracer

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_METRIC_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
TraceOrigin = Literal["caller", "sidecar"]


def parse_traceparent(value: str | None) -> tuple[str, str] | None:
    """(trace id, parent span id) of a valid `traceparent`; None for none or a malformed one."""
    if value is None:
        return None
    match = _TRACEPARENT.fullmatch(value)
    if match is None or not match[1].strip("0") or not match[2].strip("0"):
        return None
    if value.startswith("00-") and len(value) != len("00-") + 32 + 1 + 16 + 1 + 2:
        return None
    return match[1], match[2]


class Telemetry:
    """The process's OpenTelemetry providers, made from the standard `OTEL_*` variables.

    `tracer` and `meter` are None where no OTLP endpoint is set: then nothing is sampled and a call pays for ids only.
    """

    def __init__(self, service: str, environment: Mapping[str, str]) -> None:
        resource = Resource.create({"service.name": environment.get("OTEL_SERVICE_NAME", service)})
        self._traces: TracerProvider | None = None
        self._metrics: MeterProvider | None = None
        if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return
        if any(environment.get(name) for name in _ENDPOINTS):
            ratio = float(environment.get("OTEL_TRACES_SAMPLER_ARG", "1.0"))
            self._traces = TracerProvider(
                sampler=TraceIdRatioBased(ratio), resource=resource, shutdown_on_exit=False
            )
            self._traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        if any(environment.get(name) for name in _METRIC_ENDPOINTS):
            reader = PeriodicExportingMetricReader(OTLPMetricExporter())
            self._metrics = MeterProvider(metric_readers=[reader], resource=resource, shutdown_on_exit=False)

    @property
    def tracer(self) -> Tracer | None:
        """Makes spans, where traces are exported."""
        return self._traces.get_tracer("customhouse") if self._traces else None

    @property
    def meter(self) -> Meter | None:
        """Observes metrics, where they are exported."""
        return self._metrics.get_meter("customhouse") if self._metrics else None

    def shutdown(self) -> None:
        """Send what is pending and stop."""
        if self._traces:
            self._traces.shutdown()
        if self._metrics:
            self._metrics.shutdown()
