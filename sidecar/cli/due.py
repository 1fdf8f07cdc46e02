"""`sidecar oversight due`: what has to be reported within 14 days.

28 CFR 202.1104: a US person who rejects an offer to take part in a prohibited transaction of data brokerage reports it
within 14 days of the rejection, also where software rejects it. 28 CFR 202.302(b): a known or suspected breach of the
clause against onward transfer is reported within 14 days. The store knows what a sidecar refused and what its policy
advised; a breach that somebody learns of elsewhere it cannot know. A refusal of an employee's own call is none of these.
"""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer
from rich.table import Table

from sidecar.cli.console import FINDING, err, out, plain
from sidecar.cli.instants import instant, now
from sidecar.cli.oversight import AsJson, Ca, Cert, Key, Store

if TYPE_CHECKING:
    from sidecar.api.v1 import oversight_pb2 as pb

DAYS: Final = 14
BROKERAGE: Final = "brokerage"
REASON: Final = "dsp_prohibited_brokerage"
REPORTS: Final = {
    "report_202_1104": "202.1104: rejected prohibited data brokerage",
    "report_202_302_b": "202.302(b): breach of the clause against onward transfer",
}
"""Codes that a policy gives as advice, and what they ask for."""
_ASKED: Final = (REASON, "dsp_onward_terms_missing")
"""Reasons under which such decisions are found."""


class _Engagement(msgspec.Struct, frozen=True):
    type: str | None = None
    counterparty: str | None = None
    group: str | None = None
    agreement_ref: str | None = None


class _Person(msgspec.Struct, frozen=True):
    id: str | None = None


class _Workload(msgspec.Struct, frozen=True):
    id: str | None = None


class _Subject(msgspec.Struct, frozen=True):
    person: _Person = _Person()
    engagement: _Engagement = _Engagement()
    workload: _Workload = _Workload()


class _Resource(msgspec.Struct, frozen=True):
    categories: list[str] = []
    computed: list[str] = []


class _Input(msgspec.Struct, frozen=True):
    subject: _Subject = _Subject()
    resource: _Resource = _Resource()


class _Reason(msgspec.Struct, frozen=True):
    code: str


class _Decision(msgspec.Struct, frozen=True):
    effect: str
    reasons: list[_Reason] = []
    advice: list[str] = []


class _Body(msgspec.Struct, frozen=True):
    call_id: str
    service: str
    method: str
    input: _Input
    decision: _Decision


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One call that has to be reported. Times are RFC 3339; `at` is the producer's claim of when it was refused."""

    report: str
    call_id: str
    index: int
    producer: str
    at: str
    due: str
    overdue: bool
    person: str | None
    workload: str | None
    counterparty: str | None
    group: str | None
    agreement_ref: str | None
    service: str
    method: str
    categories: list[str]


class _Leaf(msgspec.Struct, frozen=True):
    producer: str
    time: str


def due(
    store: Store, ca: Ca, cert: Cert, key: Key, *,
    since: Annotated[str, typer.Option(help="RFC 3339, inclusive; or an age: 12h, 7d, 2w.")] = "",
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """List what has to be reported within 14 days (28 CFR 202.1104, 202.302(b)). Exits 1 when something is overdue."""
    from sidecar.cli.review import Reviewer

    at = now()
    asked = [{"type": "decision", "reason": reason, "since": instant(since, at)} for reason in _ASKED]
    with Reviewer(store, ca, cert, key) as reviewer:
        found, unreadable = items((one for query in asked for one in reviewer.search(query, 0)), at)
    if as_json:
        document = {
            "due": msgspec.to_builtins(found),
            "overdue": sum(one.overdue for one in found),
            "unreadable": unreadable,
        }
        out().print(json.dumps(document), markup=False)
    else:
        out().print(_table(found) if found else "nothing to report")
    if unreadable:
        err().print(plain(f"{unreadable} records cannot be read by this role or version: they may have to be reported"))
    if unreadable or any(one.overdue for one in found):
        raise SystemExit(FINDING)


def items(records: "Iterable[pb.StoredRecord]", now: datetime) -> tuple[list[Item], int]:
    """What has to be reported, each call once for each paragraph, the first due first; and how many cannot be read."""
    found: dict[tuple[str, str], Item] = {}
    unreadable = 0
    for record in records:
        try:
            for item in _items(record, now):
                found.setdefault((item.call_id, item.report), item)
        except (ValueError, OverflowError):
            unreadable += 1
    return sorted(found.values(), key=lambda one: (one.due, one.index)), unreadable


def _items(record: "pb.StoredRecord", now: datetime) -> Iterator[Item]:
    leaf = msgspec.json.decode(record.leaf, type=_Leaf)
    body = msgspec.json.decode(record.body, type=_Body)
    subject = body.input.subject
    if subject.engagement.type != BROKERAGE:
        return
    reports = set(REPORTS) & set(body.decision.advice)
    if body.decision.effect == "deny" and any(one.code == REASON for one in body.decision.reasons):
        reports.add("report_202_1104")
    at = datetime.fromisoformat(leaf.time)
    ends = at + timedelta(days=DAYS)
    for report in sorted(reports):
        yield Item(
            report=report, call_id=body.call_id, index=record.index, producer=leaf.producer, at=leaf.time,
            due=ends.isoformat(timespec="seconds").replace("+00:00", "Z"), overdue=now > ends,
            person=subject.person.id, workload=subject.workload.id, counterparty=subject.engagement.counterparty,
            group=subject.engagement.group, agreement_ref=subject.engagement.agreement_ref, service=body.service,
            method=body.method, categories=sorted({*body.input.resource.categories, *body.input.resource.computed}),
        )  # fmt: skip


def _table(found: list[Item]) -> Table:
    table = Table()
    for name in ("due", "report", "counterparty", "person", "what", "refused at", "call"):
        table.add_column(name, overflow="fold")
    for one in found:
        cells = (
            f"{one.due[:10]}{' OVERDUE' if one.overdue else ''}", REPORTS[one.report], one.counterparty or "unknown",
            one.person or one.workload or "nobody", f"{one.method}: {', '.join(one.categories)}", one.at[:19], one.call_id,
        )  # fmt: skip
        table.add_row(*map(plain, cells))
    return table
