"""Follows one call: its trace identity, the time of each stage, and how it ended.

One server span a call; a span a stage only where the trace is sampled (eight stage spans would cost 50 µs even
unsampled). RPC attribute names are OpenTelemetry's semantic conventions for RPC (release candidate); there is none
for authorization, so the rest is `customhouse.*`.
"""

from collections.abc import Callable
from time import time_ns
from typing import Self

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    set_span_in_context,
)

from sidecar._native import CallSpan, RandomPool, StageTimes
from sidecar.observability.metrics import EDGES, MAX_SERIES, OTHER, CallStats
from sidecar.observability.traceparent import TraceOrigin, parse_traceparent

__all__ = ["MAX_STAGE_SPANS", "CallObserver", "CallSpan", "SampledSpan"]

MAX_STAGE_SPANS = 256
_SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""Statuses that are errors of a server span (semantic conventions for gRPC)."""


class SampledSpan(CallSpan):
    """A call that is exported, each of its stages as a span below its own."""

    _span: Span
    _tracer: Tracer
    _ended: list[tuple[str, int, int]]
    _epoch: int

    def __new__(
        cls, method: str, span: Span, tracer: Tracer, origin: TraceOrigin, stats: CallStats, times: StageTimes
    ) -> Self:
        """`span` is the call's own, begun by `tracer`."""
        known = span.get_span_context()
        ids = f"{known.trace_id:032x}", f"{known.span_id:016x}"
        made = super().__new__(cls, method, *ids, origin, stats, times, sampled=True)
        made._span, made._tracer, made._ended = span, tracer, []
        # One reading of the wall clock a call: its stages stay in order while somebody sets the clock.
        made._epoch = time_ns() - int(made.started * 1e9)
        return made

    def stage(self, name: str) -> None:
        """The stage `name` ends here."""
        began = self.since
        super().stage(name)
        if len(self._ended) < MAX_STAGE_SPANS:
            self._ended.append((name, self._epoch + int(began * 1e9), self._epoch + int(self.since * 1e9)))

    def end(self, status: str, effect: str, reason: str) -> None:
        """The call is over."""
        super().end(status, effect, reason)
        span, below = self._span, set_span_in_context(self._span)
        for name, start, end in self._ended:
            self._tracer.start_span(f"customhouse.{name}", context=below, start_time=start).end(end)
        if effect == "deny":
            span.add_event("customhouse.deny", {"customhouse.reason": reason})
        span.set_attributes({"rpc.response.status_code": status, "customhouse.effect": effect})
        if status in _SERVER_FAULTS:
            span.set_attribute("error.type", status)
            span.set_status(Status(StatusCode.ERROR))
        span.end()


class CallObserver:
    """Starts a `CallSpan` for each call. Without a tracer nothing is sampled.

    `known` says whether the API has a method, once and for all. Any other name is what a caller made up: it is counted
    and traced as `_OTHER`, or callers could write whatever they like into the operator's metrics, and as many series as
    they like. `clock` is that of `time.perf_counter`, by default; ids come from `random`.
    """

    def __init__(
        self,
        stats: CallStats,
        tracer: Tracer | None = None,
        random: RandomPool | None = None,
        known: Callable[[str], bool] = lambda _: True,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.stats, self._tracer, self._known = stats, tracer, known
        self._named: set[str] = set()
        self._times = StageTimes(EDGES, random or RandomPool(), clock)
        stats.add(self._times.read)

    def begin(self, method: str, traceparent: str | None) -> CallSpan:
        """A call has come. `method` is "package.Service/Method"."""
        if method not in self._named:
            if not self._known(method):
                method = OTHER
            elif len(self._named) < MAX_SERIES:
                self._named.add(method)
        parent = None if traceparent is None else parse_traceparent(traceparent)
        if self._tracer is not None:
            span = self._tracer.start_span(
                method,
                context=_context(parent),
                kind=SpanKind.SERVER,
                attributes={"rpc.system.name": "grpc", "rpc.method": method},
            )
            if span.is_recording():
                origin: TraceOrigin = "sidecar" if parent is None else "caller"
                return SampledSpan(method, span, self._tracer, origin, self.stats, self._times)
        return self._times.begin(method, self.stats, None if parent is None else parent[0])


def _context(parent: tuple[str, str] | None) -> Context:
    if parent is None:
        return Context()
    remote = SpanContext(int(parent[0], 16), int(parent[1], 16), is_remote=True, trace_flags=TraceFlags(0))
    return set_span_in_context(NonRecordingSpan(remote), Context())
