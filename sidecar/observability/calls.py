"""Follows one call: its trace identity, the time of each stage, and how it ended.

One server span a call; a span a stage only where the trace is sampled (eight stage spans would cost 50 µs even
unsampled). RPC attribute names are OpenTelemetry's semantic conventions for RPC (release candidate); there is none
for authorization, so the rest is `customhouse.*`.
"""

import os
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

from sidecar.observability.metrics import MAX_SERIES, OTHER, CallStats
from sidecar.observability.traceparent import TraceOrigin, parse_traceparent

MAX_STAGE_SPANS = 256
WAITED = ""
"""Stands among the stages where what has passed was waiting."""
_POOL = 4096
_TRACE_ID, _SPAN_ID = 32, 16
"""Hexadecimal digits of either (W3C Trace Context)."""
_random_bytes = SystemRandom().randbytes
_TOGETHER = 64
"""Passages of stages that are counted together at most: a stream need not end to be seen."""
_SERVER_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""Statuses that are errors of a server span (semantic conventions for gRPC)."""


class CallSpan:
    """One call as operators see it. `traceparent` goes to the upstream; the rest into the record.

    A stage costs one reading of the clock and one entry in a list; what follows from them is worked out at the end, or
    when many have gathered.
    """

    __slots__ = (
        "_ended", "_epoch", "_marks", "_method", "_since", "_span", "_tracer", "_waited", "from_", "span_id", "started",
        "stats", "trace_id",
    )  # fmt: skip

    def __init__(
        self, method: str, ids: tuple[str, str, TraceOrigin], span: Span | None, tracer: Tracer | None, stats: CallStats
    ) -> None:
        self._method = method
        self.trace_id, self.span_id, self.from_ = ids
        self._span, self._tracer = span, tracer
        self.stats = stats
        """Where what happens in this call is counted."""
        self._marks: list[tuple[str, float]] = []
        self.started = self._since = perf_counter()
        self._waited = 0.0
        if span is not None:
            self._ended: list[tuple[str, int, int]] = []
            # One reading of the wall clock a call: its stages stay in order while somebody sets the clock.
            self._epoch = time_ns() - int(self.started * 1e9)

    @property
    def traceparent(self) -> str:
        """What the upstream is told: this call's span is its parent."""
        return f"00-{self.trace_id}-{self.span_id}-{'00' if self._span is None else '01'}"

    def begin(self) -> None:
        """Work on a message begins: what has passed since the last stage was waiting, and counts for none."""
        marks = self._marks
        if len(marks) >= _TOGETHER:
            self._settle()
        marks.append((WAITED, perf_counter()))

    def resume(self) -> None:
        """The caller, who has had an answer, asks or tells more: the time between is theirs, not this call's."""
        self._settle()
        now = perf_counter()
        self._waited += now - self._since
        self._since = now

    def stage(self, name: str) -> None:
        """The stage `name` ends here; it began where the one before it ended."""
        marks = self._marks
        marks.append((name, perf_counter()))
        if len(marks) >= _TOGETHER:
            self._settle()

    def event(self, name: str, detail: str = "") -> None:
        """Count something that happened in this call."""
        self.stats.event(name, detail)

    def end(self, status: str, effect: str, reason: str) -> None:
        """The call is over. `status` is a gRPC status name, `reason` the first reason code or empty."""
        self._settle()
        self.stats.count(self._method, effect, reason, status, self._since - self.started - self._waited)
        if self._span is not None:
            self._export(self._span, status, effect, reason)

    def _settle(self) -> None:
        """Count the stages that have ended since the last time."""
        marks, began = self._marks, self._since
        if self._span is not None:
            at = began
            for name, now in marks[: MAX_STAGE_SPANS - len(self._ended)]:
                if name != WAITED:
                    self._ended.append((name, self._epoch + int(at * 1e9), self._epoch + int(now * 1e9)))
                at = now
        self._since = self.stats.passed(marks, began)
        marks.clear()

    def _export(self, span: Span, status: str, effect: str, reason: str) -> None:
        if self._tracer is None:
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


def pooled_digits(
    source: Callable[[int], bytes] = _random_bytes, process: Callable[[], int] = os.getpid
) -> Callable[[int], str]:
    """So many random hexadecimal digits, drawn from the system in large pieces. Each is handed out once.

    `process` says in which process this is: one that was forked from another draws digits of its own.
    """
    pool, at, drawn_in = "", 0, process()

    def digits(count: int) -> str:
        nonlocal pool, at, drawn_in
        start, at = at, at + count
        if at > len(pool) or drawn_in != process():
            pool, start, at, drawn_in = source(_POOL).hex(), 0, count, process()
        return pool[start:at]

    return digits


class CallObserver:
    """Starts a `CallSpan` for each call. Without a tracer nothing is sampled.

    `known` says whether the API has a method, once and for all. Any other name is what a caller made up: it is counted
    and traced as `_OTHER`, or callers could write whatever they like into the operator's metrics, and as many series as
    they like.
    """

    def __init__(
        self,
        stats: CallStats,
        tracer: Tracer | None = None,
        digits: Callable[[int], str] | None = None,
        known: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.stats, self._tracer, self._known = stats, tracer, known
        self._named: set[str] = set()
        self._digits = digits or pooled_digits()

    def begin(self, method: str, traceparent: str | None) -> CallSpan:
        """A call has come. `method` is "package.Service/Method"."""
        if method not in self._named:
            if not self._known(method):
                method = OTHER
            elif len(self._named) < MAX_SERIES:
                self._named.add(method)
        parent = None if traceparent is None else parse_traceparent(traceparent)
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
        if parent is not None:
            return CallSpan(method, (parent[0], self._digits(_SPAN_ID), origin), None, None, self.stats)
        fresh = self._digits(_TRACE_ID + _SPAN_ID)
        return CallSpan(method, (fresh[:_TRACE_ID], fresh[_TRACE_ID:], origin), None, None, self.stats)


def _context(parent: tuple[str, str] | None) -> Context:
    if parent is None:
        return Context()
    remote = SpanContext(int(parent[0], 16), int(parent[1], 16), is_remote=True, trace_flags=TraceFlags(0))
    return set_span_in_context(NonRecordingSpan(remote), Context())
