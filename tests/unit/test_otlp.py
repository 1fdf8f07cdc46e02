"""Metrics as a collector receives them: the same numbers as the page, under OpenTelemetry's names; and `OTEL_*`."""

from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as services
from opentelemetry.proto.metrics.v1 import metrics_pb2

from sidecar.errors import ConfigurationError
from sidecar.observability.catalogue import CATALOGUE
from sidecar.observability.exposition import Exposition
from sidecar.observability.metrics import RPC_EDGES, CallStats
from sidecar.observability.telemetry import Telemetry

METHOD = "profiles.v1.Profiles/GetProfile"


class Collector(services.MetricsServiceServicer):
    """What an OTLP collector gets."""

    def __init__(self) -> None:
        self.requests: list[pb.ExportMetricsServiceRequest] = []
        self.headers: dict[str, str] = {}
        self.server = grpc.server(futures.ThreadPoolExecutor(2))
        services.add_MetricsServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def Export(
        self, request: pb.ExportMetricsServiceRequest, context: grpc.ServicerContext
    ) -> pb.ExportMetricsServiceResponse:
        self.requests.append(request)
        self.headers |= dict(context.invocation_metadata())
        return pb.ExportMetricsServiceResponse()

    def metrics(self) -> dict[str, metrics_pb2.Metric]:
        return {metric.name: metric for resource in self.requests[-1].resource_metrics
                for scope in resource.scope_metrics for metric in scope.metrics}  # fmt: skip

    def resource(self) -> dict[str, str]:
        (only,) = self.requests[-1].resource_metrics
        return {one.key: one.value.string_value for one in only.resource.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.server.stop(None)


def sent(collector: Collector, monkeypatch: pytest.MonkeyPatch, stats: CallStats, **more: str) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
        "OTEL_TRACES_EXPORTER": "none",
        **more,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    made = Telemetry("customhouse-sidecar", environment)
    assert made.tracer is None
    gauges = {"spool_records": ("Records", lambda: 7.0), "delivery_rejected": ("Refused", lambda: {("gap",): 2.0})}
    made.observe(Exposition(stats, gauges).collect)
    made.shutdown()


def attributes(point: metrics_pb2.NumberDataPoint | metrics_pb2.HistogramDataPoint) -> dict[str, str]:
    return {one.key: one.value.string_value for one in point.attributes}


def test_a_collector_gets_what_the_page_shows(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    stats = CallStats()
    for seconds in (0.0004, 0.003, 20.0):
        stats.count(METHOD, "permit", "", "OK", seconds)
    stats.time("decide", 0.25)
    sent(collector, monkeypatch, stats, OTEL_EXPORTER_OTLP_HEADERS="x-tenant=red",
         OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=prod")  # fmt: skip
    found = collector.metrics()
    (point,) = found["rpc.server.call.duration"].histogram.data_points
    assert found["rpc.server.call.duration"].unit == "s"
    assert attributes(point) == {"rpc.system.name": "grpc", "rpc.method": METHOD, "rpc.response.status_code": "OK"}
    assert (point.count, list(point.explicit_bounds)) == (3, list(RPC_EDGES))
    assert point.sum == pytest.approx(20.0034)
    assert list(point.bucket_counts) == [1, 0, 0, 1, *([0] * (len(RPC_EDGES) - 4)), 1]
    (calls,) = found["customhouse.calls"].sum.data_points
    assert found["customhouse.calls"].sum.is_monotonic
    assert (calls.as_double, attributes(calls)["customhouse.effect"]) == (3, "permit")
    assert found["customhouse.spool.records"].gauge.data_points[0].as_double == 7
    assert attributes(found["customhouse.delivery.rejected"].sum.data_points[0]) == {"customhouse.code": "gap"}
    assert found["customhouse.stage.duration"].histogram.data_points[0].count == 1
    assert found.keys() <= {one.otlp for one in CATALOGUE.values()}
    assert collector.headers["x-tenant"] == "red"
    assert collector.resource()["deployment.environment.name"] == "prod"
    assert collector.resource()["service.name"] == "customhouse-sidecar"


def test_the_operator_names_the_service(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    sent(collector, monkeypatch, CallStats(), OTEL_RESOURCE_ATTRIBUTES="service.name=guard-eu")
    assert collector.resource()["service.name"] == "guard-eu"


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "4317"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json", "4317"),
        ("OTEL_METRICS_EXPORTER", "prometheus", "otlp or none"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "otlp or none"),
    ],
)
def test_what_cannot_be_done_is_refused_and_not_ignored(name: str, value: str, fix: str) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", name: value}
    with pytest.raises(ConfigurationError, match=f"{name}.*{fix}"):
        Telemetry("customhouse-sidecar", environment)


def test_none_turns_a_signal_off() -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none",
                   "OTEL_METRICS_EXPORTER": "none"}  # fmt: skip
    made = Telemetry("customhouse-sidecar", environment)
    assert made.tracer is None
    assert not made.metrics
    made.shutdown()
