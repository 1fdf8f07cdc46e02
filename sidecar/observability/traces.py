"""Spans, and the W3C Trace Context that joins them to a caller's trace.

A caller's trace id is continued and labelled as the caller's; neither its `sampled` flag nor the id itself decides what
is exported, or anyone could make the sidecar export as much as they like (https://www.w3.org/TR/trace-context/, section
7.1): a ratio of trace ids, the usual sampler, is met by whoever sends the id 00...01.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from random import SystemRandom
from typing import Literal

from opentelemetry.context import Context
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, Tracer, TraceState, get_current_span
from opentelemetry.util.types import Attributes

from sidecar.errors import ConfigurationError
from sidecar.observability.otlp import Families, FamilyExporter

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


class OwnRatio(Sampler):
    """Samples this share of calls by its own chance; the spans below one in this process go the way of that one."""

    def __init__(self, ratio: float, bits: Callable[[int], int] | None = None) -> None:
        """`ratio` is from 0 to 1."""
        self._bound = round(ratio * (1 << 64))
        self._ratio = ratio
        self._bits = bits or SystemRandom().getrandbits

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,  # noqa: ARG002
        name: str,  # noqa: ARG002
        kind: SpanKind | None = None,  # noqa: ARG002
        attributes: Attributes | None = None,
        links: Sequence[Link] | None = None,  # noqa: ARG002
        trace_state: TraceState | None = None,  # noqa: ARG002
    ) -> SamplingResult:
        """Decide about one span."""
        above = get_current_span(parent_context).get_span_context()
        local = above.is_valid and not above.is_remote
        sampled = above.trace_flags.sampled if local else self._bits(64) < self._bound
        return SamplingResult(Decision.RECORD_AND_SAMPLE if sampled else Decision.DROP, attributes)

    def get_description(self) -> str:
        """How the sampler names itself."""
        return f"OwnRatio{{{self._ratio}}}"


def sampling_ratio(environment: Mapping[str, str]) -> float:
    """The share of calls to trace, from OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG; 1 when neither is set.

    `parentbased_...` means the same as without it: a caller's flag is not obeyed. ConfigurationError for anything else.
    """
    name = environment.get("OTEL_TRACES_SAMPLER", "").removeprefix("parentbased_")
    if name in ("always_on", "always_off"):
        return float(name == "always_on")
    if name not in ("", "traceidratio"):
        raise ConfigurationError(
            "unknown sampler", where="OTEL_TRACES_SAMPLER", value=name, fix="Use always_on, always_off or traceidratio."
        )
    text = environment.get("OTEL_TRACES_SAMPLER_ARG", "") or "1.0"
    if re.fullmatch(r"(?:0|1)?\.?[0-9]*", text) is None or text == "." or not 0.0 <= float(text) <= 1.0:
        raise ConfigurationError(
            "is no share of calls", where="OTEL_TRACES_SAMPLER_ARG", value=text, fix="Give a number from 0 to 1."
        )
    return float(text)


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


class Telemetry:
    """The process's OpenTelemetry providers, made from the standard `OTEL_*` variables.

    `tracer` is None where no OTLP endpoint is set: then nothing is sampled and a call pays for ids only. `metrics` says
    whether metrics are sent. ConfigurationError for a sampler, an exporter or a protocol that there is not here. Endpoint,
    headers, certificates, timeouts and intervals the exporters read themselves from the process's own environment.
    """

    def __init__(self, service: str, environment: Mapping[str, str]) -> None:
        # The name is OTEL_SERVICE_NAME's, else that of OTEL_RESOURCE_ATTRIBUTES (`create` reads both), else ours.
        resource = Resource.create()
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": service}))
        self._traces: TracerProvider | None = None
        self._metrics: MeterProvider | None = None
        self._exporter: FamilyExporter | None = None
        if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return
        if _sent(environment, "TRACES", _ENDPOINTS):
            sampler = OwnRatio(sampling_ratio(environment))
            self._traces = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
            # Imported only where it is used: a tenth of a second of every start.
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

            self._traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        if _sent(environment, "METRICS", _METRIC_ENDPOINTS):
            from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter  # noqa: PLC0415

            self._exporter = FamilyExporter(OTLPMetricExporter(), resource, time.time_ns)
            reader = PeriodicExportingMetricReader(self._exporter)
            self._metrics = MeterProvider(metric_readers=[reader], resource=resource, shutdown_on_exit=False)
            # The reader's beat: without an instrument it never calls its exporter.
            beat = self._metrics.get_meter("customhouse")
            beat.create_observable_gauge("customhouse.beat", [lambda _: [Observation(1)]])

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
        if self._exporter is not None:
            self._exporter.observe(families)

    def shutdown(self) -> None:
        """Send what is pending and stop."""
        if self._traces:
            self._traces.shutdown()
        if self._metrics:
            self._metrics.shutdown()
