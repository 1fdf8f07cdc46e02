"""Every event that a process writes into the operator's log: the closed list.

`docs/log-events.md` is made from it, alert rules may count its names, and a test holds the code against it. A field never
holds a header's value or a message's content; the names of people who are told apart by name are in records only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["info", "warning", "error", "critical"]
Process = Literal["sidecar", "oversight", "ledger", "webhook"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A line's `event`. `fields` are besides `component`, `level` and `timestamp`; `...`: as its own page says."""

    name: str
    level: Level
    of: tuple[Process, ...]
    fields: tuple[str, ...]
    do: str


def _of(of: tuple[Process, ...], rows: tuple[tuple[str, Level, str, str], ...]) -> Iterator[Event]:
    for name, level, fields, do in rows:
        yield Event(name=name, level=level, of=of, fields=tuple(fields.split()), do=do)


_ALL: tuple[Process, ...] = ("sidecar", "oversight", "ledger")
"""The webhook is small, and lets no library speak."""

_EVERYWHERE: tuple[tuple[str, Level, str, str], ...] = (
    ("reload_refused", "error", "detail",
     "SIGHUP changed nothing: what ran goes on. Mend the settings it names and send it again, or restart"),
    ("unhandled", "error", "failure at detail", "A defect: report it with the line. The process goes on"),
    ("library", "error", "library severity function line failure at detail",
     "A library complains. Repeated lines with the network well: report them"),
)  # fmt: skip

_SIDECAR: tuple[tuple[str, Level, str, str], ...] = (
    ("ready", "warning", "...", "Nothing: it serves. The fields are those of `sidecar status`"),
    ("stopping", "warning", "drain_seconds", "Nothing: it was asked to stop"),
    ("stated_risk", "warning", "detail", "Change the setting it names, or accept the risk in writing"),
    ("refused", "error", "stage reason detail", "A refusal that an operator can mend: `detail` says how"),
    ("unexpected failure; the call was refused with UNAVAILABLE", "error", "stage method failure at",
     "A defect: report it with the line. Nothing was released"),
    ("an OK answer came without a message; the call was refused", "error", "stage method",
     "Tell the owners of the service: it breaks the gRPC protocol"),
    ("unexpected failure; the question was refused", "error", "stage method failure",
     "A defect: report it with the line. Nothing was permitted"),
    ("unexpected failure; the call was failed", "error", "stage failure at",
     "A defect: report it with the line. Nothing was released"),
    ("an answer failed", "error", "failure path", "A defect of the AuthZEN door: report it with the line"),
    ("a workload reported a call that it may not report", "warning", "call_id workload",
     "Ask its owners: it reports calls of others, or ones that were never asked"),
    ("Envoy's ext_proc filter is not set up as it has to be; its calls fail", "error", "problem",
     "Take the configuration that `sidecar envoy-config` writes"),
    ("access_requests_off", "warning", "detail", "Configure exceptions, or expect no access requests"),
    ("calls_unhandled", "warning", "calls total detail",
     "Look for callers with oversized messages or metadata, or with deadlines too short"),
    ("part_ended", "error", "part error", "The process stops, since it must not go on without that part. Report it"),
    ("the server of a listener stopped by itself and is replaced; calls under way go on", "error", "listener failure",
     "Watch it: repeated lines mean memory or descriptors run out"),
    ("a listener cannot be opened again yet", "error", "problem", "Free the address"),
    ("worker_ended", "error", "worker pid ended slot detail",
     "It is started again, and its successor writes what it owed. Repeated: look at `ended` and at the worker's lines"),
    ("worker_killed", "error", "worker after_seconds", "It did not stop in time. Raise `drain` if calls last longer"),
    ("worker_behind", "error", "revision detail", "It ended, since it could not take up the policy that the others have"),
    ("reload_begun", "warning", "generation", "Nothing: SIGHUP"),
    ("reloaded", "warning", "generation workers", "Nothing: new workers serve, those before them drain"),
    ("generation_ended", "warning", "generation", "Nothing: the workers before the reload have gone"),
    ("leftover_taken", "warning", "slot records", "Nothing: records that an ended worker left are being sent"),
    ("leftover_settled", "warning", "slot", "Nothing"),
    ("leftover_refused", "error", "slot detail", "Mend what it names: records in that slot are not with the store yet"),
    ("trust_taken_up", "warning", "file", "Nothing: a changed trust file is in use"),
    ("trust_refused", "error", "detail", "Mend the trust file; what was trusted before stays"),
    ("certificate taken up", "warning", "file files", "Nothing: a renewed certificate is in use"),
    ("new certificate files cannot be used; the certificate in use stays", "error", "problem",
     "Mend the files before the certificate in use ends"),
    ("new certificate files cannot be used; those in use stay", "error", "problem", "Mend the files before those in use end"),
    ("upstream_certificates_taken_up", "warning", "drain_seconds", "Nothing"),
    ("upstream_certificates_refused", "error", "detail", "Mend the files before those in use end"),
    ("ledger_certificates_taken_up", "warning", "", "Nothing"),
    ("ledger_certificates_refused", "error", "detail", "Mend the files before those in use end"),
    ("jwks_refreshed", "warning", "detail", "Nothing: an issuer has changed its keys. Unexpected: ask the issuer"),
    ("jwks_failed", "warning", "detail", "See the runbook TokenKeysAgeing"),
    ("revoked_loaded", "warning", "detail", "Nothing"),
    ("revoked_damaged", "warning", "detail", "Mend the list: a caller it cannot clear is refused"),
    ("directory_activated", "warning", "detail", "Nothing"),
    ("directory_refused", "warning", "detail", "Build the snapshot again: `sidecar directory build`"),
    ("index_activated", "warning", "detail", "Nothing"),
    ("index_refused", "warning", "detail", "Build the index again: `sidecar subjects build`"),
    ("exception_damaged", "warning", "detail", "Mend or remove the grant it names"),
    ("authorization_damaged", "warning", "detail", "Mend the line it names"),
    ("policy_activated", "warning", "revision label signers tests by", "Nothing, when you expected it"),
    ("policy_refused", "error", "in_force detail", "See the runbook PolicyNotConfirmed"),
    ("policy_disowned", "error", "in_force detail", "See the runbook PolicyNotConfirmed: its signers are not believed now"),
    ("policy_pinned", "warning", "revision over by", "Nothing: a rollback stands until the source holds another bundle"),
    ("policy_last_good", "error", "revision age_seconds detail", "Mend the source: the start went on with the last good one"),
    ("opa_ended", "warning", "detail", "Look at `opa_said`; calls are refused until it answers"),
    ("opa_said", "warning", "detail", "What OPA wrote before it ended"),
    ("engine_disagreement", "error", "...", "Report it: two engines answered one question otherwise each. It is recorded"),
    ("engine_unchecked", "warning", "why detail", "The second engine is too slow or gone; decisions go on"),
    ("shadow_adopted", "warning", "revision tests", "Nothing"),
    ("shadow_refused", "error", "comparing detail", "Mend the candidate; calls are not concerned"),
    ("shadow_failed", "error", "error", "Report it; calls are not concerned"),
    ("torn_tail_cut", "warning", "file offset bytes why", "Nothing after a crash; at any other time look at the disk"),
    ("no_period_key", "warning", "detail", "See the runbook NoPeriodKey"),
    ("event_owed", "error", "type detail", "See the runbook SpoolFilling: the disk does not take records"),
    ("close_not_recorded", "error", "detail", "Give the disk room, then start again: the successor says how it ended"),
    ("spool_not_empty", "warning", "records detail", "Start again while the store can be reached; keep the folder"),
    ("delivery_interrupted", "warning", "error", "See the runbook RecordsNotDelivered when it lasts"),
    ("delivery_refused", "error", "code what message fix", "See the runbook StoreRefusesRecords"),
    ("delivery_bad_receipt", "error", "error", "See the runbook BadReceipts"),
    ("delivery_split_view", "error", "error evidence", "See the runbook TwoHistories. Keep the evidence file"),
    ("delivery_checkpoint_unknown", "warning", "file error", "Check `oversight.trust`: the log's key is another than before"),
    ("delivery_damage", "error", "error", "Keep the spool's folder as it is, and report it"),
)  # fmt: skip

_STORE: tuple[tuple[str, Level, str, str], ...] = (
    ("ready", "info", "records origin append keys query", "Nothing: it serves"),
    ("stopping", "error", "reason kind", "See the runbook StoreDown: it stopped itself"),
    ("append stream ended", "info", "reason", "Nothing: a sidecar went away"),
    ("batch refused", "warning", "code reason", "See the runbook StoreRefusesRecords"),
    ("producer refused", "warning", "code reason", "Register it, or find out who it is: `sidecar oversight producer list`"),
    ("cannot open an epoch", "warning", "reason", "See the runbook StoreDiskFilling"),
    ("equivocation kept", "error", "producer slot epoch first_seq", "See the runbook Equivocation"),
    ("the registry of producers cannot be read", "critical", "reason", "Mend the file: nobody is let in meanwhile"),
    ("period keys issued", "info", "producer periods", "Nothing"),
    ("period keys cannot be issued", "warning", "reason", "See the runbook NoPeriodKey"),
    ("publishing waits", "warning", "reason", "See the runbook PublishingBehind"),
    ("a derived database waits", "warning", "reason", "See the runbook SearchBehind"),
    ("metrics wait", "warning", "reason", "The books cannot be read just now. See the runbook PublishingBehind"),
    ("query refused", "warning", "peer", "Somebody without a reviewer's certificate asked. Find out who"),
    ("query failed", "warning", "reason", "The books cannot be read just now"),
    ("a query could not be recorded", "warning", "reason", "See the runbook StoreDiskFilling: no answer without a record"),
    ("stored leaves or tiles are wrong", "critical", "reason", "See the runbook StoredLogWrong"),
)  # fmt: skip

_LEDGER: tuple[tuple[str, Level, str, str], ...] = (
    ("ready", "info", "address day reservations", "Nothing: it serves"),
    ("stopping", "error", "reason kind", "See the runbook LedgerFailing"),
    ("waits", "warning", "reason", "See the runbook LedgerFailing"),
    ("reservations_lapsed", "warning", "count detail", "A sidecar vanished within calls: they count as released"),
    ("certificate taken up", "warning", "", "Nothing"),
    ("new certificate files cannot be used; those in use stay", "error", "problem", "Mend the files before those in use end"),
)  # fmt: skip

_WEBHOOK: tuple[tuple[str, Level, str, str], ...] = (
    ("ready", "warning", "listen containers", "Nothing: it serves"),
    ("stopping", "warning", "", "Nothing: it was asked to stop"),
    (
        "not answered",
        "warning",
        "status reason",
        "Somebody other than the API server asked, or asked what it does not know",
    ),
    (
        "new certificate files cannot be used; those in use stay",
        "error",
        "problem",
        "Mend the files before those in use end",
    ),
)

EVENTS: tuple[Event, ...] = (
    *_of(_ALL, _EVERYWHERE),
    *_of(("sidecar",), _SIDECAR),
    *_of(("oversight",), _STORE),
    *_of(("ledger",), _LEDGER),
    *_of(("webhook",), _WEBHOOK),
)
"""In the order of the page."""
