"""Which calls become spans, and how spans leave.

A caller's trace id is continued and labelled as the caller's; neither its `sampled` flag nor the id itself decides what
is exported, or anyone could make the sidecar export as much as they like (https://www.w3.org/TR/trace-context/, section
7.1): a ratio of trace ids, the usual sampler, is met by whoever sends the id 00...01.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from random import SystemRandom

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState, get_current_span
from opentelemetry.util.types import Attributes

from sidecar.errors import ConfigurationError


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


def provider(environment: Mapping[str, str], resource: Resource) -> TracerProvider:
    """What makes spans and sends them by OTLP. ConfigurationError for a sampler that there is not here."""
    made = TracerProvider(sampler=OwnRatio(sampling_ratio(environment)), resource=resource, shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return made
