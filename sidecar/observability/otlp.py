"""The exposed families as OTLP metrics, so that a scrape and a push say the same.

OpenTelemetry has no observable histogram, and recording through its instruments costs a call 3 to 5 µs each. So the
exporter is handed the families themselves, histograms included, at each interval (`MetricExporter` is a public port of
the SDK).
"""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from math import inf, isnan
from typing import Any

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from sidecar.observability.catalogue import CATALOGUE, Metric
from sidecar.observability.exposition import Families

SCHEMA = "https://opentelemetry.io/schemas/1.43.0"
"""Of the semantic conventions whose names are used."""
_SCOPE = InstrumentationScope("customhouse", schema_url=SCHEMA)
_CUMULATIVE = sdk.AggregationTemporality.CUMULATIVE


class Sender:
    """Sends the families it is given at each interval (OTEL_METRIC_EXPORT_INTERVAL)."""

    def __init__(self, resource: Resource) -> None:
        self._exporter = FamilyExporter(OTLPMetricExporter(), resource, time.time_ns)
        reader = sdk.PeriodicExportingMetricReader(self._exporter)
        self._provider = MeterProvider(metric_readers=[reader], resource=resource, shutdown_on_exit=False)
        # The reader's beat: without an instrument it never calls its exporter.
        beat = self._provider.get_meter("customhouse")
        beat.create_observable_gauge("customhouse.beat", [lambda _: [Observation(1)]])

    def observe(self, families: Families) -> None:
        """From now on, these."""
        self._exporter.observe(families)

    def shutdown(self) -> None:
        """Send what is pending and stop."""
        self._provider.shutdown()


class FamilyExporter(sdk.MetricExporter):
    """Hands what `observe` was given to another exporter, whenever the reader's interval has passed."""

    def __init__(self, inner: sdk.MetricExporter, resource: Resource, time_ns: Callable[[], int]) -> None:
        super().__init__()
        self._inner, self._resource, self._time_ns = inner, resource, time_ns
        self._began = time_ns()
        self._families: Families | None = None

    def observe(self, families: Families) -> None:
        """From now on, these."""
        self._families = families

    def export(
        self, metrics_data: sdk.MetricsData, timeout_millis: float = 10_000, **_more: Any
    ) -> sdk.MetricExportResult:
        """Send the families as they are; `metrics_data` holds nothing but the reader's beat."""
        del metrics_data
        if self._families is None:
            return sdk.MetricExportResult.SUCCESS
        return self._inner.export(self._data(self._families()), timeout_millis=timeout_millis)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """As the SDK asks."""
        return self._inner.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **_more: Any) -> None:
        """As the SDK asks."""
        self._inner.shutdown(timeout_millis=timeout_millis)

    def _data(self, families: Iterable[Family]) -> sdk.MetricsData:
        span = (self._began, self._time_ns())
        found = [_converted(CATALOGUE[one.name], one, span) for one in families if one.name in CATALOGUE]
        scope = sdk.ScopeMetrics(scope=_SCOPE, metrics=[one for one in found if one is not None], schema_url=SCHEMA)
        return sdk.MetricsData(
            resource_metrics=[sdk.ResourceMetrics(resource=self._resource, scope_metrics=[scope], schema_url=SCHEMA)]
        )


def _converted(known: Metric, family: Family, span: tuple[int, int]) -> sdk.Metric | None:
    """None for a family without series: OTLP has no word for that."""
    data: sdk.Sum | sdk.Gauge | sdk.Histogram
    if known.kind == "histogram":
        points = list(_histograms(known, family.samples, span))
        data = sdk.Histogram(data_points=points, aggregation_temporality=_CUMULATIVE)
        return _named(known, data) if points else None
    # A number that is none is left out, as the data model asks for points that have no value.
    numbers = [_number(known, one, span) for one in family.samples if not isnan(one.value)]
    if known.kind == "counter":
        data = sdk.Sum(data_points=numbers, aggregation_temporality=_CUMULATIVE, is_monotonic=True)
    else:
        data = sdk.Gauge(data_points=numbers)
    return _named(known, data) if numbers else None


def _named(known: Metric, data: sdk.Sum | sdk.Gauge | sdk.Histogram) -> sdk.Metric:
    return sdk.Metric(name=known.otlp, description=known.means, unit=known.unit, data=data)


def _number(known: Metric, sample: Sample, span: tuple[int, int]) -> sdk.NumberDataPoint:
    return sdk.NumberDataPoint(
        attributes={known.attribute(label): value for label, value in sample.labels.items()},
        start_time_unix_nano=span[0],
        time_unix_nano=span[1],
        value=float(sample.value),
    )


def _histograms(known: Metric, samples: Iterable[Sample], span: tuple[int, int]) -> Iterator[sdk.HistogramDataPoint]:
    """A point for each series: Prometheus's buckets are cumulative, OTLP's are not."""
    buckets: dict[tuple[tuple[str, str], ...], dict[float, float]] = {}
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for one in samples:
        key = tuple((label, value) for label, value in one.labels.items() if label != "le")
        if one.name.endswith("_bucket"):
            buckets.setdefault(key, {})[float(one.labels["le"])] = one.value
        elif one.name.endswith("_sum"):
            sums[key] = one.value
    for key, found in buckets.items():
        edges = sorted(found)
        running = [0.0, *(found[edge] for edge in edges)]
        yield sdk.HistogramDataPoint(
            attributes={known.attribute(label): value for label, value in key},
            start_time_unix_nano=span[0],
            time_unix_nano=span[1],
            count=int(running[-1]),
            sum=sums.get(key, 0.0),
            bucket_counts=[int(above - below) for below, above in pairwise(running)],
            explicit_bounds=[edge for edge in edges if edge != inf],
            min=None,  # type: ignore[arg-type]  # optional in OTLP, and not kept here
            max=None,  # type: ignore[arg-type]
        )
