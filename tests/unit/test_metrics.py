"""Metrics as Prometheus and OpenTelemetry read them."""

import socket
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from sidecar.errors import ConfigurationError
from sidecar.observability.exposition import Exposition
from sidecar.observability.exposition import serve as serve_families
from sidecar.observability.metrics import EDGES, MAX_SERIES, RPC_EDGES, CallStats

METHOD = "profiles.v1.Profiles/GetProfile"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def serve(stats: CallStats, gauges: dict[str, object], host: str, port: int) -> Callable[[], None]:
    return serve_families(Exposition(stats, gauges), host, port)  # type: ignore[arg-type]


class Scraped:
    """Serves one store and scrapes it as Prometheus does."""

    def __init__(self, stats: CallStats, gauges: dict[str, object]) -> None:
        self.port = free_port()
        self.stop = serve(stats, gauges, "127.0.0.1", self.port)

    def text(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as answer:
            return str(answer.read().decode())

    def samples(self) -> list[Sample]:
        return [one for family in text_string_to_metric_families(self.text()) for one in family.samples]

    def value(self, name: str, **labels: str) -> float:
        (found,) = [one.value for one in self.samples() if one.name == name and one.labels == labels]
        return float(found)


@pytest.fixture
def stats() -> CallStats:
    return CallStats()


@pytest.fixture
def scraped(stats: CallStats) -> Iterator[Scraped]:
    made = Scraped(stats, {"spool_records": ("Records without a receipt", lambda: 7.0)})
    yield made
    made.stop()


def test_calls_are_counted_by_how_they_ended(stats: CallStats, scraped: Scraped) -> None:
    for _ in range(3):
        stats.count(METHOD, "permit", "", "OK")
    stats.count(METHOD, "deny", "covered_person", "PERMISSION_DENIED")
    stats.event("refused", "identify")
    assert scraped.value("customhouse_calls_total", method=METHOD, effect="permit", reason="", status_code="OK") == 3
    assert scraped.value("customhouse_calls_total", method=METHOD, effect="deny", reason="covered_person",
                         status_code="PERMISSION_DENIED") == 1  # fmt: skip
    assert scraped.value("customhouse_events_total", event="refused", detail="identify") == 1
    assert scraped.value("customhouse_spool_records") == 7


def test_buckets_are_cumulative_and_end_in_all(stats: CallStats, scraped: Scraped) -> None:
    times = [0.0, EDGES[0], 0.00002, 0.0007, 0.0007, 0.9, 1.0, 5.0]
    for seconds in times:
        stats.time("decide", seconds)
    buckets = [one for one in scraped.samples() if one.name == "customhouse_stage_duration_seconds_bucket"]
    assert [float(one.labels["le"]) for one in buckets] == [*EDGES, float("inf")]
    assert [one.value for one in buckets] == [sum(one <= edge for one in times) for edge in (*EDGES, float("inf"))]
    assert scraped.value("customhouse_stage_duration_seconds_count", stage="decide") == len(times)
    assert scraped.value("customhouse_stage_duration_seconds_sum", stage="decide") == pytest.approx(sum(times))


@given(st.lists(st.floats(0, 100), max_size=50))
def test_every_time_falls_into_the_bucket_that_holds_it(times: list[float]) -> None:
    stats = CallStats()
    for seconds in times:
        stats.time("record", seconds)
    if times:
        entry = stats.stages["record"]
        for place, edge in enumerate(EDGES):
            assert sum(entry.buckets[: place + 1]) == sum(seconds <= edge for seconds in times)
        assert sum(entry.buckets) == len(times)
        assert entry.total == pytest.approx(sum(times))


def test_series_are_bounded(stats: CallStats, scraped: Scraped) -> None:
    for number in range(MAX_SERIES + 500):
        stats.count(f"a.B/M{number}", "deny", "", "UNAUTHENTICATED")
        stats.event("odd", str(number))
    stats.count("a.B/M0", "deny", "", "UNAUTHENTICATED")
    assert len(stats.calls) == len(stats.events) == MAX_SERIES + 1
    assert scraped.value("customhouse_calls_total", method="_OTHER", effect="deny", reason="",
                         status_code="UNAUTHENTICATED") == 500  # fmt: skip
    assert scraped.value("customhouse_calls_total", method="a.B/M0", effect="deny", reason="",
                         status_code="UNAUTHENTICATED") == 2  # fmt: skip
    assert scraped.value("customhouse_events_total", event="odd", detail="_OTHER") == 500
    assert sum(stats.calls.values()) == MAX_SERIES + 501


def test_odd_names_do_not_break_the_page(stats: CallStats, scraped: Scraped) -> None:
    stats.count('a.B/"quoted"\n\\M', "deny", "", "UNIMPLEMENTED")
    assert scraped.value("customhouse_calls_total", method='a.B/"quoted"\n\\M', effect="deny", reason="",
                         status_code="UNIMPLEMENTED") == 1  # fmt: skip


def test_no_label_can_hold_a_person(stats: CallStats, scraped: Scraped) -> None:
    stats.count(METHOD, "permit", "", "OK")
    stats.time("decide", 0.1)
    stats.event("filtered")
    labels = {name for one in scraped.samples() for name in one.labels if one.name.startswith("customhouse_")}
    assert labels == {"method", "effect", "reason", "status_code", "event", "detail", "stage", "le"}


def test_a_stopped_server_lets_go_of_its_port(stats: CallStats) -> None:
    made = Scraped(stats, {})
    made.text()
    made.stop()
    again = serve(stats, {}, "127.0.0.1", made.port)
    again()


def test_a_taken_port_is_named(stats: CallStats, scraped: Scraped) -> None:
    with pytest.raises(ConfigurationError, match=rf"metrics\.listen: cannot listen there.*127\.0\.0\.1:{scraped.port}"):
        serve(stats, {}, "127.0.0.1", scraped.port)


def test_an_ipv6_address_in_brackets(stats: CallStats) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
            port = int(taken.getsockname()[1])
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback ({error}); enable net.ipv6 on lo")
    stop = serve(stats, {}, "[::1]", port)
    with urllib.request.urlopen(f"http://[::1]:{port}/metrics", timeout=60) as answer:
        assert answer.status == 200
    stop()


def test_calls_are_timed_by_method_and_status(stats: CallStats, scraped: Scraped) -> None:
    times = [0.0, RPC_EDGES[0], 0.003, 0.6, 11.0]
    for seconds in times:
        stats.count(METHOD, "permit", "", "OK", seconds)
    stats.count(METHOD, "permit", "", "OK")  # of a caller that does not time
    labels = {"rpc_system_name": "grpc", "rpc_method": METHOD, "rpc_response_status_code": "OK"}
    buckets = [one for one in scraped.samples() if one.name == "rpc_server_call_duration_seconds_bucket"]
    assert [one.value for one in buckets] == [sum(one <= edge for one in times) for edge in (*RPC_EDGES, float("inf"))]
    assert scraped.value("rpc_server_call_duration_seconds_sum", **labels) == pytest.approx(sum(times))


def test_decisions_are_counted_and_their_reasons_bounded(stats: CallStats, scraped: Scraped) -> None:
    stats.decided("proxy", "request", "permit", "")
    stats.decided("proxy", "response", "deny", "covered_person")
    assert scraped.value("customhouse_decisions_total", door="proxy", phase="response", effect="deny",
                         reason="covered_person") == 1  # fmt: skip
    for number in range(MAX_SERIES + 10):
        stats.decided("proxy", "request", "deny", f"own_{number}")
    assert len(stats.decisions) == MAX_SERIES + 1
    assert (
        scraped.value("customhouse_decisions_total", door="proxy", phase="request", effect="deny", reason="_OTHER")
        == 12
    )


def test_what_cannot_be_read_is_counted_and_the_rest_is_served(stats: CallStats) -> None:
    def broken() -> float:
        raise OSError("the disk is gone")

    made = Scraped(stats, {"spool_free_bytes": ("Free", broken), "spool_records": ("Records", lambda: 7.0)})
    assert made.value("customhouse_metrics_unreadable") == 1
    assert made.value("customhouse_spool_records") == 7
    assert not [one for one in made.samples() if one.name == "customhouse_spool_free_bytes"]
    made.stop()


def test_a_metric_that_only_grows_is_a_counter_and_rows_have_labels(stats: CallStats) -> None:
    made = Scraped(stats, {"delivery_rejected": ("Refused", lambda: {("gap",): 2.0, ("bad_signature",): 1.0})})
    assert made.value("customhouse_delivery_rejected_total", code="gap") == 2
    made.stop()
