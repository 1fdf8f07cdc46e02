"""What is scraped and what is sent: the same families, read when somebody asks. No instrument is touched by a call."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from sidecar.errors import ConfigurationError
from sidecar.observability.catalogue import CATALOGUE, PREFIX
from sidecar.observability.metrics import EDGES, RPC_EDGES, CallStats, Gauges, Reading, Stage

Families = Callable[[], Iterable[Metric]]
_DURATION = "rpc_server_call_duration_seconds"


class Exposition(Collector):
    """The families of one process. One that cannot be read is left out and counted: the others are still worth having."""

    def __init__(self, stats: CallStats, gauges: Gauges) -> None:
        self._stats, self._gauges = stats, gauges

    def collect(self) -> Iterator[Metric]:
        """As they are now. Called on the exporters' threads."""
        stats = self._stats
        yield _counted("calls", stats.calls)
        yield _counted("decisions", stats.decisions)
        yield _counted("events", stats.events)
        yield _counted("log_events", stats.log_events)
        timed: dict[tuple[str, ...], Stage] = {("grpc", *pair): entry for pair, entry in list(stats.durations.items())}
        yield _timed(_DURATION, timed, RPC_EDGES)
        yield _timed(
            f"{PREFIX}stage_duration_seconds", {(name,): one for name, one in list(stats.stages.items())}, EDGES
        )
        unreadable = 0
        for name, (text, read) in self._gauges.items():
            try:
                found = read()
            except Exception:  # noqa: BLE001 - whatever a part does, the page is served; the count says that one is missing
                unreadable += 1
            else:
                yield _read(name, text, found)
        yield GaugeMetricFamily(f"{PREFIX}metrics_unreadable", _text("metrics_unreadable"), value=float(unreadable))


def serve(families: Collector, host: str, port: int, *, process: bool = True) -> Callable[[], None]:
    """Serve `/metrics` on host:port from a thread; returns what stops it. `host` may be an IPv6 address in brackets.

    `process`: with what the system knows of this process, where `families` do not say that themselves.
    ConfigurationError when nothing can listen there.
    """
    registry = CollectorRegistry()
    registry.register(families)
    if process:
        ProcessCollector(registry=registry)
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


def _text(name: str, otherwise: str = "") -> str:
    known = CATALOGUE.get(PREFIX + name)
    return otherwise if known is None else known.means


def _counted(name: str, series: Mapping[Any, int]) -> Metric:
    known = CATALOGUE[PREFIX + name]
    family = CounterMetricFamily(known.name, known.means, labels=known.labels)
    for labels, value in list(series.items()):
        family.add_metric(labels, value)
    return family


def _timed(name: str, series: Mapping[tuple[str, ...], Stage], edges: tuple[float, ...]) -> Metric:
    known = CATALOGUE[name]
    family = HistogramMetricFamily(name, known.means, labels=known.labels)
    for labels, entry in series.items():
        family.add_metric(labels, list(_cumulative(entry, edges)), entry.total)
    return family


def _cumulative(entry: Stage, edges: tuple[float, ...]) -> Iterator[tuple[str, float]]:
    running = 0
    for edge, count in zip((*map(str, edges), "+Inf"), list(entry.buckets), strict=True):
        running += count
        yield edge, running


def _read(name: str, text: str, found: Reading) -> Metric:
    known = CATALOGUE.get(PREFIX + name)
    labels = known.labels if known is not None else ()
    kind = CounterMetricFamily if known is not None and known.kind == "counter" else GaugeMetricFamily
    family = kind(PREFIX + name, _text(name, text), labels=labels)
    for key, value in found.items() if isinstance(found, Mapping) else [((), found)]:
        family.add_metric(key, value)
    return family
