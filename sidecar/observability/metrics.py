"""Counters of calls and times of stages: one small store in memory, read by Prometheus and by OTLP.

Recording through an OpenTelemetry histogram costs 3 to 5 µs each; a call passes eight stages. Here a stage costs one
`bisect` and two additions, and the exporters read sums.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from sidecar.errors import ConfigurationError

EDGES = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)
"""Upper edges of the stage buckets in seconds."""
MAX_SERIES = 4096
"""Series of calls, and of events, at most."""
OTHER = "_OTHER"
"""The method of what has none of its own (OpenTelemetry's word for it)."""

Gauges = Mapping[str, tuple[str, Callable[[], float]]]
"""Name (without prefix) -> what it says, how to read it."""


class Stage:
    """Times of one stage."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (len(EDGES) + 1)
        self.total = 0.0


class CallStats:
    """What has happened since the process started."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, str, str, str], int] = {}
        self.stages: dict[str, Stage] = {}
        self.events: dict[tuple[str, str], int] = {}

    def count(self, method: str, effect: str, reason: str, status: str) -> None:
        """One call has ended. Series are bounded: beyond the bound the method is `_OTHER`."""
        key = (method, effect, reason, status)
        if key not in self.calls and len(self.calls) >= MAX_SERIES:
            key = (OTHER, effect, reason, status)
        self.calls[key] = self.calls.get(key, 0) + 1

    def time(self, stage: str, seconds: float) -> None:
        """One passage of a stage."""
        entry = self.stages.get(stage)
        if entry is None:
            entry = self.stages[stage] = Stage()
        entry.buckets[bisect_left(EDGES, seconds)] += 1
        entry.total += seconds

    def event(self, name: str, detail: str = "") -> None:
        """Something else worth counting, such as a dropped unknown field. Beyond the bound the detail is `_OTHER`."""
        key = (name, detail)
        if key not in self.events and len(self.events) >= MAX_SERIES:
            key = (name, OTHER)
        self.events[key] = self.events.get(key, 0) + 1


class _Scrape(Collector):
    def __init__(self, stats: CallStats, gauges: Gauges) -> None:
        self._stats, self._gauges = stats, gauges

    def collect(self) -> Iterator[Metric]:
        calls = CounterMetricFamily(
            "customhouse_calls", "Calls ended", labels=("method", "effect", "reason", "status_code")
        )
        for key, value in list(self._stats.calls.items()):
            calls.add_metric(key, value)
        yield calls
        events = CounterMetricFamily("customhouse_events", "Other countable events", labels=("event", "detail"))
        for pair, value in list(self._stats.events.items()):
            events.add_metric(pair, value)
        yield events
        stages = HistogramMetricFamily("customhouse_stage_duration_seconds", "Time in a stage", labels=("stage",))
        for stage, entry in list(self._stats.stages.items()):
            stages.add_metric((stage,), list(_cumulative(entry)), entry.total)
        yield stages
        for name, (text, read) in self._gauges.items():
            yield GaugeMetricFamily(f"customhouse_{name}", text, value=read())


def _cumulative(entry: Stage) -> Iterator[tuple[str, float]]:
    running = 0
    for edge, count in zip((*map(str, EDGES), "+Inf"), list(entry.buckets), strict=True):
        running += count
        yield edge, running


def serve(stats: CallStats, gauges: Gauges, host: str, port: int) -> Callable[[], None]:
    """Serve `/metrics` on host:port from a thread; returns what stops it. `host` may be an IPv6 address in brackets.

    ConfigurationError when nothing can listen there.
    """
    registry = CollectorRegistry()
    registry.register(_Scrape(stats, gauges))
    try:
        server, thread = start_http_server(port, addr=host.removeprefix("[").removesuffix("]"), registry=registry)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen there: {error.strerror or error}", where="metrics.listen", value=f"{host}:{port}",
            fix="Choose a free address of this host.",
        ) from None  # fmt: skip

    def stop() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    return stop


def export(meter: Meter, stats: CallStats, gauges: Gauges) -> None:
    """Let an OpenTelemetry meter observe the same numbers."""

    def calls(_: CallbackOptions) -> Iterable[Observation]:
        for (method, effect, reason, status), value in list(stats.calls.items()):
            yield Observation(
                value,
                {
                    "rpc.system.name": "grpc",
                    "rpc.method": method,
                    "rpc.response.status_code": status,
                    "customhouse.effect": effect,
                    "customhouse.reason": reason,
                },
            )

    def seconds(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(entry.total, {"customhouse.stage": name}) for name, entry in list(stats.stages.items())]

    def passages(_: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(sum(entry.buckets), {"customhouse.stage": name}) for name, entry in list(stats.stages.items())
        ]

    meter.create_observable_counter("customhouse.calls", [calls], description="Calls ended")
    meter.create_observable_counter("customhouse.stage.duration", [seconds], unit="s", description="Time in a stage")
    meter.create_observable_counter("customhouse.stage.passages", [passages], description="Passages of a stage")
    for name, (text, read) in gauges.items():
        meter.create_observable_gauge(f"customhouse.{name.replace('_', '.')}", [_reading(read)], description=text)


def _reading(read: Callable[[], float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _: [Observation(read())]
