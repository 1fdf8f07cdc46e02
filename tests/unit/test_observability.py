"""Traces, spans and the operator's log: whose trace it is, who decides what is exported, and what never leaves."""

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from sidecar._native import RandomPool
from sidecar.errors import ConfigurationError
from sidecar.observability.calls import MAX_STAGE_SPANS, CallObserver, CallSpan
from sidecar.observability.logs import make_logger
from sidecar.observability.metrics import CallStats
from sidecar.observability.telemetry import Telemetry
from sidecar.observability.traceparent import parse_traceparent
from sidecar.observability.traces import OwnRatio, sampling_ratio

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
METHOD = "profiles.v1.Profiles/GetProfile"


class Exported:
    """A tracer whose spans stay in memory."""

    def __init__(self, ratio: float = 1.0) -> None:
        self.memory = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=OwnRatio(ratio), shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.memory))
        self.stats = CallStats()
        self.observer = CallObserver(self.stats, self.provider.get_tracer("customhouse"))

    def spans(self) -> list[ReadableSpan]:
        return list(self.memory.get_finished_spans())


@pytest.fixture
def exported() -> Iterator[Exported]:
    made = Exported()
    yield made
    made.provider.shutdown()


def play(
    observer: CallObserver, traceparent: str | None = None, *, effect: str = "permit", status: str = "OK"
) -> CallSpan:
    span = observer.begin(METHOD, traceparent)
    for stage in ("intercept", "identify", "describe", "decide", "record"):
        span.stage(stage)
    span.end(status, effect, "no_rule" if effect == "deny" else "")
    return span


class TestTraceparent:
    @pytest.mark.parametrize(
        "value",
        [SAMPLED, UNSAMPLED, f"00-{TRACE}-{PARENT}-ff", f"01-{TRACE}-{PARENT}-00", f"cc-{TRACE}-{PARENT}-01-what-comes",
         f"fe-{TRACE}-{PARENT}-09-"],
    )  # fmt: skip
    def test_valid(self, value: str) -> None:
        assert parse_traceparent(value) == (TRACE, PARENT)

    @pytest.mark.parametrize(
        "value",
        [
            None, "", " ", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}-{PARENT}-01",
            f"00-{TRACE.upper()}-{PARENT}-01", f"00-{TRACE}-{PARENT.upper()}-01", f"0A-{TRACE}-{PARENT}-01",
            f"00-{TRACE}-{PARENT}-0A", f"00-{TRACE}-{PARENT}", f"00-{TRACE}-{PARENT}-", f"00-{TRACE}-{PARENT}-1",
            f"00-{TRACE}-{PARENT}-011", f"00-{TRACE}-{PARENT}-01-", f"00-{TRACE}-{PARENT}-01-x", f"{SAMPLED} ",
            f" {SAMPLED}", f"{SAMPLED}\n", f"01-{TRACE}-{PARENT}-00x", f"0-{TRACE}-{PARENT}-01", f"00-{TRACE[1:]}-{PARENT}-01",
            f"00-{TRACE}0-{PARENT}-01", f"00-{TRACE}-{PARENT}0-01", f"00_{TRACE}_{PARENT}_01", f"01-{TRACE}-{PARENT}-00-a\nb",
            f"00-{TRACE[:-1]}g-{PARENT}-01", f"00-{TRACE[:-1]}٣-{PARENT}-01", SAMPLED * 1000,
        ],
    )  # fmt: skip
    def test_malformed_ones_are_as_none(self, value: str | None) -> None:
        assert parse_traceparent(value) is None

    @given(st.text(max_size=70))
    def test_anything_is_read_or_refused(self, value: str) -> None:
        found = parse_traceparent(value)
        assert found is None or (len(found[0]), len(found[1])) == (32, 16)

    @given(st.integers(1, (1 << 128) - 1), st.integers(1, (1 << 64) - 1), st.integers(0, 254), st.integers(0, 255))
    def test_every_valid_one_is_read(self, trace: int, span: int, version: int, flags: int) -> None:
        text = f"{version:02x}-{trace:032x}-{span:016x}-{flags:02x}"
        assert parse_traceparent(text) == (f"{trace:032x}", f"{span:016x}")


class TestIdentity:
    def test_a_caller_s_trace_is_continued_and_labelled(self) -> None:
        span = CallObserver(CallStats()).begin(METHOD, SAMPLED)
        assert (span.trace_id, span.from_) == (TRACE, "caller")
        assert span.span_id != PARENT

    def test_a_trace_of_our_own(self) -> None:
        drawn = RandomPool(lambda size: bytes(range(size % 251)) + bytes(size - size % 251))
        span = CallObserver(CallStats(), random=drawn).begin(METHOD, None)
        assert (span.trace_id, span.span_id, span.from_) == (
            bytes(range(8, 24)).hex(),
            bytes(range(8)).hex(),
            "sidecar",
        )

    def test_a_malformed_one_is_not_continued(self) -> None:
        span = CallObserver(CallStats()).begin(METHOD, SAMPLED.upper())
        assert span.from_ == "sidecar"
        assert span.trace_id != TRACE

    def test_two_calls_never_share_ids(self) -> None:
        observer = CallObserver(CallStats())
        assert len({observer.begin(METHOD, None).trace_id for _ in range(100)}) == 100
        assert len({observer.begin(METHOD, SAMPLED).span_id for _ in range(100)}) == 100

    def test_the_upstream_is_told_of_this_call_s_span(self, exported: Exported) -> None:
        sampled = exported.observer.begin(METHOD, UNSAMPLED)
        assert sampled.traceparent == f"00-{TRACE}-{sampled.span_id}-01"
        silent = CallObserver(CallStats()).begin(METHOD, SAMPLED)
        assert silent.traceparent == f"00-{TRACE}-{silent.span_id}-00"
        assert parse_traceparent(sampled.traceparent) == (TRACE, sampled.span_id)


class TestSpans:
    def test_the_call_s_span(self, exported: Exported) -> None:
        call = play(exported.observer, UNSAMPLED)
        (root,) = [one for one in exported.spans() if one.kind is SpanKind.SERVER]
        assert root.name == METHOD
        assert root.attributes == {
            "rpc.system.name": "grpc", "rpc.method": METHOD, "rpc.response.status_code": "OK", "customhouse.effect": "permit",
        }  # fmt: skip
        assert root.parent is not None
        assert (f"{root.parent.trace_id:032x}", f"{root.parent.span_id:016x}") == (TRACE, PARENT)
        assert root.parent.is_remote
        assert root.context is not None
        assert f"{root.context.span_id:016x}" == call.span_id
        assert root.status.status_code is StatusCode.UNSET

    def test_without_a_caller_s_trace_it_is_a_root(self, exported: Exported) -> None:
        call = play(exported.observer)
        (root,) = [one for one in exported.spans() if one.kind is SpanKind.SERVER]
        assert root.parent is None
        assert root.context is not None
        assert f"{root.context.trace_id:032x}" == call.trace_id

    def test_a_span_below_it_for_each_stage(self, exported: Exported) -> None:
        play(exported.observer, SAMPLED)
        spans = exported.spans()
        (root,) = [one for one in spans if one.kind is SpanKind.SERVER]
        stages = [one for one in spans if one is not root]
        assert [one.name for one in stages] == [
            f"customhouse.{name}" for name in ("intercept", "identify", "describe", "decide", "record")
        ]
        assert root.context is not None
        assert {one.parent.span_id for one in stages if one.parent} == {root.context.span_id}
        times = [time for one in stages for time in (one.start_time or 0, one.end_time or 0)]
        assert times == sorted(times)
        assert (root.start_time or 0) <= times[0]
        assert times[-1] <= (root.end_time or 0)

    def test_a_deny_is_an_event_and_no_error(self, exported: Exported) -> None:
        play(exported.observer, effect="deny", status="PERMISSION_DENIED")
        (root,) = [one for one in exported.spans() if one.kind is SpanKind.SERVER]
        assert [(one.name, dict(one.attributes or {})) for one in root.events] == [
            ("customhouse.deny", {"customhouse.reason": "no_rule"})
        ]
        assert root.status.status_code is StatusCode.UNSET

    @pytest.mark.parametrize(
        "status", ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"]
    )
    def test_a_fault_of_the_server_s_is_an_error(self, exported: Exported, status: str) -> None:
        play(exported.observer, status=status)
        (root,) = [one for one in exported.spans() if one.kind is SpanKind.SERVER]
        assert root.status.status_code is StatusCode.ERROR
        assert (root.attributes or {})["error.type"] == status

    @pytest.mark.parametrize(
        "status", ["CANCELLED", "INVALID_ARGUMENT", "NOT_FOUND", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED"]
    )
    def test_a_fault_of_the_caller_s_is_none(self, exported: Exported, status: str) -> None:
        play(exported.observer, status=status)
        (root,) = [one for one in exported.spans() if one.kind is SpanKind.SERVER]
        assert root.status.status_code is StatusCode.UNSET
        assert "error.type" not in (root.attributes or {})

    def test_a_long_stream_does_not_make_spans_without_end(self, exported: Exported) -> None:
        span = exported.observer.begin(METHOD, None)
        for _ in range(10 * MAX_STAGE_SPANS):
            span.stage("decide")
        span.end("OK", "permit", "")
        assert len(exported.spans()) == MAX_STAGE_SPANS + 1
        assert sum(exported.stats.stages["decide"].buckets) == 10 * MAX_STAGE_SPANS

    def test_a_method_that_nobody_knows_has_no_name(self) -> None:
        made = Exported()
        observer = CallObserver(made.stats, made.provider.get_tracer("customhouse"), known=lambda name: name == METHOD)
        observer.begin("mary.smith@example/ssn-123-45-6789", None).end("UNIMPLEMENTED", "deny", "unknown_method")
        play(observer)
        assert {one.name for one in made.spans() if one.kind is SpanKind.SERVER} == {"_OTHER", METHOD}
        assert {key[0] for key in made.stats.calls} == {"_OTHER", METHOD}
        assert "mary" not in "".join(one.to_json() for one in made.spans())


class TestSampling:
    def test_the_caller_s_flag_forces_nothing(self) -> None:
        made = Exported(ratio=0.0)
        for _ in range(50):
            call = play(made.observer, SAMPLED)
        assert made.spans() == []
        assert call.traceparent.endswith("-00")
        assert call.trace_id == TRACE

    def test_nor_does_it_prevent_anything(self, exported: Exported) -> None:
        play(exported.observer, UNSAMPLED)
        assert len(exported.spans()) == 6

    def test_nor_does_the_trace_id(self) -> None:
        """The id that a ratio of ids always samples, sent 400 times, is sampled as often as any other."""
        made = Exported(ratio=0.25)
        for _ in range(400):
            play(made.observer, f"00-{1:032x}-{PARENT}-01")
        roots = [one for one in made.spans() if one.kind is SpanKind.SERVER]
        assert 40 < len(roots) < 180
        assert len(made.spans()) == 6 * len(roots)

    def test_stages_go_the_way_of_their_call(self) -> None:
        drawn = iter([0, 0])
        sampler = OwnRatio(0.5, bits=lambda _: next(drawn))
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        observer = CallObserver(CallStats(), provider.get_tracer("customhouse"))
        play(observer)
        play(observer)
        with pytest.raises(StopIteration):
            next(drawn)

    @pytest.mark.parametrize(
        ("environment", "ratio"),
        [
            ({}, 1.0),
            ({"OTEL_TRACES_SAMPLER_ARG": "0.25"}, 0.25),
            ({"OTEL_TRACES_SAMPLER_ARG": ""}, 1.0),
            ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": ".5"}, 0.5),
            ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}, 0.0),
            ({"OTEL_TRACES_SAMPLER": "always_off"}, 0.0),
            ({"OTEL_TRACES_SAMPLER": "parentbased_always_on", "OTEL_TRACES_SAMPLER_ARG": "0.1"}, 1.0),
        ],
    )
    def test_the_share_comes_from_the_environment(self, environment: dict[str, str], ratio: float) -> None:
        assert sampling_ratio(environment) == ratio

    @pytest.mark.parametrize(
        "environment",
        [{"OTEL_TRACES_SAMPLER_ARG": value} for value in ("half", "2", "-1", "nan", "inf", ".", "1.5", "1e-3")]
        + [{"OTEL_TRACES_SAMPLER": "jaeger_remote"}],
    )
    def test_anything_else_is_named(self, environment: dict[str, str]) -> None:
        with pytest.raises(ConfigurationError, match="OTEL_TRACES_SAMPLER"):
            sampling_ratio(environment)


class TestTelemetry:
    @pytest.mark.parametrize(
        "environment", [{}, {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317"}]
    )
    def test_without_an_endpoint_nothing_is_sampled(self, environment: dict[str, str]) -> None:
        made = Telemetry("customhouse-sidecar", environment)
        assert made.tracer is None
        assert not made.metrics
        made.shutdown()

    def test_traces_alone(self) -> None:
        made = Telemetry("customhouse-sidecar", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:1"})
        assert made.tracer is not None
        assert not made.metrics
        made.shutdown()

    def test_a_bad_sampler_stops_the_start(self) -> None:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1", "OTEL_TRACES_SAMPLER_ARG": "much"}
        with pytest.raises(ConfigurationError, match=r"OTEL_TRACES_SAMPLER_ARG.*'much'.*0 to 1"):
            Telemetry("customhouse-sidecar", environment)


class TestLog:
    def test_a_line_is_one_json_object(self) -> None:
        stream = io.StringIO()
        make_logger("sidecar", stream).warning("policy\nrefused", detail='a "quoted"\nvalue')
        (line,) = stream.getvalue().splitlines()
        found = json.loads(line)
        assert (found["event"], found["detail"]) == ("policy\nrefused", 'a "quoted"\nvalue')
        assert (found["component"], found["level"]) == ("sidecar", "warning")
        assert found["timestamp"].endswith("Z")

    def test_what_is_bound_stands_in_every_line_and_the_event_has_the_last_word(self) -> None:
        stream = io.StringIO()
        log = make_logger("oversight", stream).bind(worker=3)
        log.info("y", worker=4, level="none")
        log.bind(slot=1).critical("z")
        first, second = (json.loads(line) for line in stream.getvalue().splitlines())
        assert (first["event"], first["worker"], first["level"]) == ("y", 4, "info")
        assert (second["worker"], second["slot"], second["component"]) == (3, 1, "oversight")

    def test_what_json_does_not_know_is_shown_as_python_shows_it(self) -> None:
        stream = io.StringIO()
        make_logger("sidecar", stream).error("x", where=Path("/a"), code=b"\xff")
        found = json.loads(stream.getvalue())
        assert (found["where"], found["code"]) == (repr(Path("/a")), repr(b"\xff"))

    def test_lines_are_counted_by_event_and_level_also_of_bound_loggers(self) -> None:
        counts: dict[tuple[str, str], int] = {}
        log = make_logger("sidecar", io.StringIO(), counts)
        log.warning("ready")
        log.bind(worker=1).warning("ready")
        assert counts["ready", "warning"] == 2

    def test_lines_of_many_threads_are_whole(self) -> None:
        stream = io.StringIO()
        log = make_logger("sidecar", stream)
        threads = [
            threading.Thread(target=lambda bound: [bound.error("x") for _ in range(200)], args=(log.bind(n=n),))
            for n in range(4)
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert sum(json.loads(line)["event"] == "x" for line in stream.getvalue().splitlines()) == 800


class TestStages:
    def test_stages_are_seen_before_a_long_call_ends(self) -> None:
        stats = CallStats()
        span = CallObserver(stats).begin(METHOD, None)
        for _ in range(64):
            span.stage("describe")
        assert sum(stats.stages["describe"].buckets) == 64
        span.stage("record")
        span.end("OK", "permit", "")
        assert sum(stats.stages["record"].buckets) == 1
        assert sum(stats.stages["describe"].buckets) == 64
