"""What has to be reported within 14 days (28 CFR 202.1104, 202.302(b)) is listed, and nothing else is."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import msgspec
import pytest
from command_line import Shell
from recorded import body, denied, permitted, question, row

from sidecar.api.v1 import oversight_pb2 as pb
from sidecar.cli.due import items
from sidecar.cli.instants import instant
from sidecar.errors import ConfigurationError
from sidecar.vocabulary import Decision, Engagement

AT = datetime(2026, 1, 1, tzinfo=UTC)
BROKERED = denied("dsp_prohibited_brokerage", "sidecar.covered_persons.brokerage")
replaced = msgspec.structs.replace


def record(
    decision: Decision = BROKERED, type: str = "brokerage", number: int = 0, time: datetime = AT
) -> pb.StoredRecord:
    asked = question("eve")
    subject = replaced(asked.subject, engagement=Engagement(type=type, counterparty="data-co", group="holding"))
    of = body(replaced(asked, subject=subject), decision, number)
    leaf = row(of, number, time=time.isoformat())["leaf"]
    return pb.StoredRecord(index=number, leaf=json.dumps(leaf).encode(), body=of)


def test_a_refused_brokerage_call_is_due_14_days_later() -> None:
    """202.1104(b): within 14 days of rejecting."""
    (found,), unreadable = items([record()], AT + timedelta(days=14))
    assert (found.report, found.due, found.overdue) == ("report_202_1104", "2026-01-15T00:00:00Z", False)
    assert (found.counterparty, found.group, found.person) == ("data-co", "holding", "eve")
    assert (found.call_id, found.method, found.categories) == ("call-0", "GetProfile", ["id_contact"])
    assert not unreadable


def test_it_is_overdue_once_the_14_days_are_over() -> None:
    (found,), _ = items([record()], AT + timedelta(days=14, seconds=1))
    assert found.overdue


@pytest.mark.parametrize("type", ["employment", "vendor", "investment", "none"])
def test_a_refusal_of_an_employees_own_call_is_none(type: str) -> None:
    assert items([record(type=type)], AT) == ([], 0)


@pytest.mark.parametrize("decision", [denied(), permitted(), denied("dsp_onward_terms_missing")])
def test_other_decisions_about_brokerage_are_none(decision: Decision) -> None:
    assert items([record(decision)], AT) == ([], 0)


def test_what_the_policy_advises_is_listed_under_its_paragraph() -> None:
    advised = replaced(denied("dsp_onward_terms_missing"), advice=("report_202_302_b", "approach_80"))
    (found,), _ = items([record(advised)], AT)
    assert found.report == "report_202_302_b"
    both = replaced(BROKERED, advice=("report_202_1104", "report_202_302_b"))
    assert [one.report for one in items([record(both)], AT)[0]] == ["report_202_1104", "report_202_302_b"]


def test_a_call_is_listed_once_and_the_first_due_comes_first() -> None:
    records = [
        record(number=2, time=AT + timedelta(days=2)), record(number=1), record(number=1), record(number=3)
    ]  # fmt: skip
    found, _ = items(records, AT)
    assert [one.call_id for one in found] == ["call-1", "call-3", "call-2"]


def test_a_record_that_cannot_be_read_is_counted() -> None:
    erased = pb.StoredRecord(index=4, leaf=record().leaf)
    broken = pb.StoredRecord(index=5, leaf=b"{}", body=record().body)
    assert items([erased, broken], AT) == ([], 2)


class Store:
    """A reviewer's connection to a store that holds one item."""

    found = (record(),)
    asked: list[Mapping[str, str]] = []

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def search(self, asked: Mapping[str, str], limit: int) -> Iterator[pb.StoredRecord]:
        assert limit == 0
        self.asked.append(asked)
        yield from self.found


def due(shell: Shell, folder: Path, *more: str):
    given = [part for name in ("ca", "cert", "key") for part in (f"--{name}", folder)]
    return shell("oversight", "due", "--store", "localhost:1", *given, *more)


def test_the_command_lists_and_fails_when_something_is_overdue(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.cli.review.Reviewer", Store)
    ran = due(shell, tmp_path)
    assert ran.code == 1  # 2026-01-15 is over
    assert "OVERDUE" in ran.out
    assert "202.1104" in ran.out
    said = json.loads(due(shell, tmp_path, "--json", "--since", "2026-01-01T00:00:00Z").out)
    assert (said["overdue"], said["due"][0]["counterparty"]) == (1, "data-co")
    assert [(one["reason"], one["since"]) for one in Store.asked[-2:]] == [
        ("dsp_prohibited_brokerage", "2026-01-01T00:00:00Z"), ("dsp_onward_terms_missing", "2026-01-01T00:00:00Z"),
    ]  # fmt: skip


def test_nothing_due_is_no_failure(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.cli.review.Reviewer", Store)
    monkeypatch.setattr(Store, "found", ())
    ran = due(shell, tmp_path)
    assert (ran.code, ran.out.strip()) == (0, "nothing to report")


@pytest.mark.parametrize(
    ("text", "found"),
    [("", ""), ("7d", "2025-12-25T00:00:00Z"), ("30m", "2025-12-31T23:30:00Z"), ("2w", "2025-12-18T00:00:00Z"),
     ("12h", "2025-12-31T12:00:00Z"), ("2026-01-01T00:00:00+02:00", "2026-01-01T00:00:00+02:00")],
)  # fmt: skip
def test_an_age_is_the_instant_so_long_ago(text: str, found: str) -> None:
    assert instant(text, AT) == found


@pytest.mark.parametrize("text", ["yesterday", "7", "d", "-7d", "2026-01-01T00:00:00", "999999w", "٧d"])
def test_what_is_no_point_in_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no point in time"):
        instant(text, AT)
