"""Follows one call: its trace identity, the time of each stage, and how it ended.

One server span a call; a span a stage only where the trace is sampled (eight stage spans would cost 50 µs even
unsampled). RPC attribute names are OpenTelemetry's semantic conventions for RPC (release candidate); there is none
for authorization, so the rest is `customhouse.*`.
"""

from collections.abc import Callable
from random import SystemRandom
from time import perf_counter, time_ns

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

from sidecar.observability.metrics import OTHER, CallStats
from sidecar.observability.traces import TraceOrigin, parse_traceparent

MAX_STAGE_SPANS = 256
_POOL = 4096
_random_bytes = SystemRandom().randbytes
_TOGETHER = 64
"""Passages of stages that are counted together: a stream need not end to be seen."""
_SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""Statuses that are errors of a server span (semantic conventions for gRPC)."""


class CallSpan:
    """One call as operators see it. `traceparent` goes to the upstream; the rest into the record."""

    __slots__ = (
        "_ended", "_epoch", "_mark", "_method", "_passed", "_span", "_stats", "_tracer", "_waited", "from_", "span_id",
        "started", "trace_id",
    )  # fmt: skip

    def __init__(
        self, method: str, ids: tuple[str, str, TraceOrigin], span: Span | None, tracer: Tracer | None, stats: CallStats
    ) -> None:
        self._method = method
        self.trace_id, self.span_id, self.from_ = ids
        self._span, self._tracer, self._stats = span, tracer, stats
        self._ended: list[tuple[str, int, int]] = []
        self._passed: list[tuple[str, float]] = []
        self.started = self._mark = perf_counter()
        self._waited = 0.0
        # One reading of the wall clock a call: its stages stay in order while somebody sets the clock.
        self._epoch = 0 if span is None else time_ns() - int(self.started * 1e9)

    @property
    def traceparent(self) -> str:
        """What the upstream is told: this call's span is its parent."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self._span is not None else '00'}"

    def begin(self) -> None:
        """Work on a message begins: what has passed since the last stage was waiting, and counts for none."""
        self._mark = perf_counter()

    def resume(self) -> None:
        """The caller, who has had an answer, asks or tells more: the time between is theirs, not this call's."""
        now = perf_counter()
        self._waited += now - self._mark
        self._mark = now

    def stage(self, name: str) -> None:
        """The stage `name` ends here; it began where the one before it ended."""
        now = perf_counter()
        began, self._mark = self._mark, now
        passed = self._passed
        passed.append((name, now - began))
        if len(passed) >= _TOGETHER:
            self._stats.times(passed)
            passed.clear()
        if self._span is not None and len(self._ended) < MAX_STAGE_SPANS:
            self._ended.append((name, self._epoch + int(began * 1e9), self._epoch + int(now * 1e9)))

    def event(self, name: str, detail: str = "") -> None:
        """Count something that happened in this call."""
        self._stats.event(name, detail)

    def decided(self, door: str, phase: str, effect: str, reason: str) -> None:
        """A decision of this call has been recorded; `reason` is its first reason code."""
        self._stats.decided(door, phase, effect, reason)

    def end(self, status: str, effect: str, reason: str) -> None:
        """The call is over. `status` is a gRPC status name, `reason` the first reason code or empty."""
        self._stats.times(self._passed)
        self._passed.clear()
        self._stats.count(self._method, effect, reason, status, self._mark - self.started - self._waited)
        span = self._span
        if span is None or self._tracer is None:
            return
        below = set_span_in_context(span)
        for name, start, end in self._ended:
            self._tracer.start_span(f"customhouse.{name}", context=below, start_time=start).end(end)
        if effect == "deny":
            span.add_event("customhouse.deny", {"customhouse.reason": reason})
        span.set_attributes({"rpc.response.status_code": status, "customhouse.effect": effect})
        if status in _SERVER_FAULTS:
            span.set_attribute("error.type", status)
            span.set_status(Status(StatusCode.ERROR))
        span.end()


def pooled_bits(source: Callable[[int], bytes] = _random_bytes) -> Callable[[int], int]:
    """Random numbers of so many bits (a multiple of 8), drawn from the system in large pieces. Each bit is used once."""
    pool, at = b"", 0

    def bits(count: int) -> int:
        nonlocal pool, at
        start, at = at, at + count // 8
        if at > len(pool):
            pool, start, at = source(_POOL), 0, count // 8
        return int.from_bytes(pool[start:at], "big")

    return bits


class CallObserver:
    """Starts a `CallSpan` for each call. Without a tracer nothing is sampled.

    `known` says whether the API has a method. Any other name is what a caller made up: it is counted and traced as
    `_OTHER`, or callers could write whatever they like into the operator's metrics, and as many series as they like.
    """

    def __init__(
        self,
        stats: CallStats,
        tracer: Tracer | None = None,
        bits: Callable[[int], int] | None = None,
        known: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.stats, self._tracer, self._known = stats, tracer, known
        self._bits = bits or pooled_bits()

    def begin(self, method: str, traceparent: str | None) -> CallSpan:
        """A call has come. `method` is "package.Service/Method"."""
        if not self._known(method):
            method = OTHER
        parent = parse_traceparent(traceparent)
        origin: TraceOrigin = "sidecar" if parent is None else "caller"
        if self._tracer is not None:
            span = self._tracer.start_span(
                method,
                context=_context(parent),
                kind=SpanKind.SERVER,
                attributes={"rpc.system.name": "grpc", "rpc.method": method},
            )
            if span.is_recording():
                known = span.get_span_context()
                ids = (f"{known.trace_id:032x}", f"{known.span_id:016x}", origin)
                return CallSpan(method, ids, span, self._tracer, self.stats)
        trace_id = f"{self._bits(128):032x}" if parent is None else parent[0]
        return CallSpan(method, (trace_id, f"{self._bits(64):016x}", origin), None, None, self.stats)


def _context(parent: tuple[str, str] | None) -> Context:
    if parent is None:
        return Context()
    remote = SpanContext(int(parent[0], 16), int(parent[1], 16), is_remote=True, trace_flags=TraceFlags(0))
    return set_span_in_context(NonRecordingSpan(remote), Context())
