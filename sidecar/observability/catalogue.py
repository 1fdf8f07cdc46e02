"""Every metric that a process of this product exposes: the one place that says so.

Dashboards, alert rules and `docs/metrics.md` are held against it, and it against what running processes answer. A name
that is missing here is not exposed by accident: a test fails.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
Process = Literal["sidecar", "oversight", "ledger"]

PREFIX = "customhouse_"
_ALL: tuple[Process, ...] = ("sidecar", "oversight", "ledger")
_SIDECAR: tuple[Process, ...] = ("sidecar",)
_OVERSIGHT: tuple[Process, ...] = ("oversight",)
_LEDGER: tuple[Process, ...] = ("ledger",)
_CALLS: tuple[Process, ...] = ("sidecar", "ledger")

_ATTRIBUTES: Mapping[str, str] = {
    "method": "rpc.method",
    "status_code": "rpc.response.status_code",
    "rpc_system_name": "rpc.system.name",
    "rpc_method": "rpc.method",
    "rpc_response_status_code": "rpc.response.status_code",
}
"""Labels that OpenTelemetry's conventions for RPC have a word for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A family. `name` is without `_total`, `_bucket`, `_sum` and `_count`; `unit` is UCUM (`s`, `By`, `1`).

    `sometimes`: there are no series before something has happened, or where a part is not configured.
    """

    name: str
    kind: Kind
    means: str
    of: tuple[Process, ...]
    labels: tuple[str, ...] = ()
    sometimes: bool = False

    @property
    def unit(self) -> str:
        """From the name, as Prometheus has it."""
        return "s" if self.name.endswith("_seconds") else "By" if self.name.endswith("_bytes") else "1"

    @property
    def samples(self) -> tuple[str, ...]:
        """The names that its series carry on the page."""
        if self.kind == "histogram":
            return tuple(f"{self.name}{end}" for end in ("_bucket", "_sum", "_count"))
        return (f"{self.name}_total",) if self.kind == "counter" else (self.name,)

    @property
    def otlp(self) -> str:
        """Its name for OTLP: dots, and no unit in the name of a histogram (semantic conventions, naming)."""
        name = self.name.removesuffix("_seconds") if self.kind == "histogram" else self.name
        return name.replace("_", ".")

    def attribute(self, label: str) -> str:
        """A label's name for OTLP."""
        return _ATTRIBUTES.get(label, f"customhouse.{label}")


def _own(name: str, kind: Kind, means: str, of: tuple[Process, ...], *labels: str, sometimes: bool = False) -> Metric:
    return Metric(name=PREFIX + name, kind=kind, means=means, of=of, labels=labels, sometimes=sometimes)


def _metrics() -> Iterator[Metric]:
    yield Metric(
        name="rpc_server_call_duration_seconds", kind="histogram", of=_SIDECAR, sometimes=True,
        means="How long calls took, from the door to the final status (OpenTelemetry `rpc.server.call.duration`)",
        labels=("rpc_system_name", "rpc_method", "rpc_response_status_code"),
    )  # fmt: skip
    yield from _calls()
    yield from _in_force()
    yield from _records()
    yield from _parts()
    yield from _store()
    yield from _ledger()
    yield from _process()


def _calls() -> Iterator[Metric]:
    yield _own(
        "calls", "counter", "Calls ended, by how", _CALLS, "method", "effect", "reason", "status_code", sometimes=True
    )
    yield _own("decisions", "counter", "Decisions that were recorded; `reason` is the first reason code", _SIDECAR,
               "door", "phase", "effect", "reason", sometimes=True)  # fmt: skip
    yield _own("stage_duration_seconds", "histogram", "Time in a stage; one call passes several", _SIDECAR, "stage",
               sometimes=True)  # fmt: skip
    yield _own("events", "counter", "Other countable events", _CALLS, "event", "detail", sometimes=True)
    yield _own(
        "calls_unhandled", "counter", "Calls that ended before a handler: refused by gRPC core, or given up", _SIDECAR
    )
    yield _own("open_calls", "gauge", "Calls whose outcome is not recorded yet", _SIDECAR)
    yield _own("log_events", "counter", "Lines of the operator's log, by event (docs/log-events.md)", _ALL, "event", "level",
               sometimes=True)  # fmt: skip
    yield _own("decision_cache_hits", "counter", "Questions answered by a decision on an equal one", _SIDECAR)
    yield _own("decision_cache_misses", "counter", "Questions put to the engine", _SIDECAR)
    yield _own("decision_cache_entries", "gauge", "Decisions kept", _SIDECAR)
    yield _own("decision_cache_bytes", "gauge", "Memory they take, about", _SIDECAR)
    yield _own("token_cache_entries", "gauge", "Verified tokens kept", _SIDECAR)


def _in_force() -> Iterator[Metric]:
    yield _own("build_info", "gauge", "1; the release that runs", _ALL, "version")
    yield _own("workers", "gauge", "Workers, by state: starting, serving, draining", _SIDECAR, "state", sometimes=True)
    yield _own("worker_restarts", "counter", "Times a worker has ended by itself and was started again", _SIDECAR, "worker",
               sometimes=True)  # fmt: skip
    yield _own("problems", "gauge", "What `sidecar status` lists under problems", _SIDECAR)
    yield _own("policy_age_seconds", "gauge", "Since the policy was last seen at its source", _SIDECAR)
    yield _own("policy_max_age_seconds", "gauge", "`policy.max_age`: past it every call is refused", _SIDECAR)
    yield _own("policy_refused", "gauge", "1 while the policy's source confirms nothing", _SIDECAR)
    yield _own("directory_age_seconds", "gauge", "Age of the directory snapshot", _SIDECAR)
    yield _own(
        "directory_max_age_seconds", "gauge", "`identity.directory.max_age`: past it personnel are refused", _SIDECAR
    )
    yield _own("index_age_seconds", "gauge", "Age of the subject index", _SIDECAR)
    yield _own("index_max_age_seconds", "gauge", "`subjects.max_age`: past it every data subject is unknown", _SIDECAR)
    yield _own(
        "jwks_age_seconds", "gauge", "Since an issuer's keys were last confirmed by their source", _SIDECAR, "issuer"
    )
    yield _own(
        "jwks_left_seconds", "gauge", "Until they are too old, so that its tokens are refused", _SIDECAR, "issuer"
    )
    yield _own("jwks_keys", "gauge", "Keys of an issuer", _SIDECAR, "issuer")
    yield _own("certificate_not_after_seconds", "gauge", "End of a certificate's validity, unix time; 0: its file is unreadable",
               _ALL, "certificate")  # fmt: skip
    yield _own("metrics_unreadable", "gauge", "Metrics that could not be read for this page, and are not on it", _ALL)


def _records() -> Iterator[Metric]:
    yield _own("spool_records", "gauge", "Records without a verified receipt", _SIDECAR)
    yield _own("spool_bytes", "gauge", "Bytes in the spool", _SIDECAR)
    yield _own("spool_max_bytes", "gauge", "`record.max_bytes`: at it every call is refused", _SIDECAR)
    yield _own("spool_free_bytes", "gauge", "Free space where the spool is", _SIDECAR)
    yield _own("receipt_lag_seconds", "gauge", "Age of the oldest record without a receipt", _SIDECAR)
    yield _own("store_connected", "gauge", "1 while records flow to the store", _SIDECAR)
    yield _own("delivery_sent", "counter", "Records sent to the store, repetitions included", _SIDECAR)
    yield _own("delivery_acknowledged", "counter", "Records covered by a verified receipt", _SIDECAR)
    yield _own(
        "delivery_rejected", "counter", "Batches that the store refused, by code", _SIDECAR, "code", sometimes=True
    )
    yield _own("delivery_bad_receipts", "counter", "Receipts that did not verify", _SIDECAR)
    yield _own("delivery_refused", "gauge", "1 while the store refuses what sending again cannot mend", _SIDECAR)
    yield _own("delivery_alarm", "gauge", "1 once the log has shown two histories; until the process ends", _SIDECAR)
    yield _own("period_key", "gauge", "1 while there is a period key; without one every call is refused", _SIDECAR)


def _parts() -> Iterator[Metric]:
    yield _own("ledger_requests", "counter", "Requests to the ledger, by `answered` and `failed`", _SIDECAR, "outcome",
               sometimes=True)  # fmt: skip
    yield _own("ledger_owed", "gauge", "Settlements the ledger has not taken yet", _SIDECAR, sometimes=True)
    yield _own(
        "ledger_lost", "counter", "Settlements given up: what they held counts as reserved", _SIDECAR, sometimes=True
    )
    for name, means in (
        ("asked", "Answers compared with the candidate's"),
        ("agreed", "Answers on which the candidate agrees"),
        ("newly_permitted", "Answers that the candidate would permit instead"),
        ("newly_denied", "Answers that the candidate would deny instead"),
        ("errors", "Questions without a decision of the candidate"),
        ("dropped", "Answers not compared: the queue was full"),
    ):
        yield _own(f"shadow_{name}", "counter", means, _SIDECAR, sometimes=True)
    yield _own("shadow_refused", "gauge", "1 while the candidate is refused", _SIDECAR, sometimes=True)


def _store() -> Iterator[Metric]:
    yield _own("store_records", "counter", "Records committed; its rate is the ingest rate", _OVERSIGHT)
    yield _own("store_tree_size", "gauge", "Leaves of the published tree", _OVERSIGHT)
    yield _own("store_unpublished_records", "gauge", "Records committed and not in the published tree yet", _OVERSIGHT)
    yield _own("store_integration_lag_seconds", "gauge", "How long records have waited to be published; 0 when none waits",
               _OVERSIGHT)  # fmt: skip
    yield _own("store_waiting_records", "gauge", "Records received and not committed yet", _OVERSIGHT)
    yield _own("store_search_lag_records", "gauge", "Records committed and not searchable yet", _OVERSIGHT)
    yield _own("store_findings", "gauge", "What is missing, doubled or silent", _OVERSIGHT,
               "kind", "producer", sometimes=True)  # fmt: skip
    yield _own("store_findings_age_seconds", "gauge", "Since they were last looked for", _OVERSIGHT)
    yield _own("store_producers", "gauge", "Producers registered and not revoked", _OVERSIGHT)
    yield _own("store_free_bytes", "gauge", "Free space where the records, tiles and keys are", _OVERSIGHT, "place")
    yield _own("store_bytes", "gauge", "Size of a database's files", _OVERSIGHT, "place")


def _ledger() -> Iterator[Metric]:
    yield _own("ledger_reservations", "gauge", "Reservations not settled", _LEDGER)
    yield _own("ledger_reserved_subjects", "gauge", "Data subjects in them", _LEDGER)
    yield _own("ledger_oldest_reservation_seconds", "gauge", "Age of the oldest", _LEDGER)
    yield _own("ledger_waiting", "gauge", "Requests not answered yet", _LEDGER)
    yield _own("ledger_commits", "counter", "Transactions committed", _LEDGER)
    yield _own("ledger_failures", "counter", "Transactions that failed", _LEDGER)
    yield _own("ledger_bytes", "gauge", "Size of the database", _LEDGER)


def _process() -> Iterator[Metric]:
    for name, kind, means in (
        ("process_cpu_seconds", "counter", "Processor time, user and system"),
        ("process_resident_memory_bytes", "gauge", "Memory in use"),
        ("process_virtual_memory_bytes", "gauge", "Memory asked for"),
        ("process_start_time_seconds", "gauge", "When the process started, unix time"),
        ("process_open_fds", "gauge", "Open file descriptors"),
        ("process_max_fds", "gauge", "As many may be open"),
    ):
        yield Metric(name=name, kind=kind, means=means, of=_ALL)  # type: ignore[arg-type]


CATALOGUE: Mapping[str, Metric] = {one.name: one for one in _metrics()}
"""By name, in the order of the page."""
