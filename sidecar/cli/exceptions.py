"""`sidecar exception`: ask for an exception, approve it offline, take it back, see what there is."""

from pathlib import Path
from typing import Annotated

import typer

from sidecar.cli.console import FINDING, out, plain

exception = typer.Typer(
    help="Exceptions to the operator's own rule: two approvers, for a day at most. They never lift 28 CFR part 202.",
    no_args_is_help=True,
)
Config = Annotated[Path, typer.Option("--config", help="Settings file.", metavar="FILE")]
Key = Annotated[Path, typer.Option("--key", help="The approver's Ed25519 private key, PEM.", metavar="FILE")]
Name = Annotated[str, typer.Argument(metavar="ID|FILE", help="Its id, or the file that somebody sent.")]
Yes = Annotated[bool, typer.Option("--yes", help="Sign without asking.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@exception.command("request")
def request(
    config: Config,
    person: Annotated[str, typer.Option("--person", help="Personnel id of whom it is for.")],
    service: Annotated[list[str], typer.Option("--service", help="Full name of a service; may be repeated.")],
    category: Annotated[list[str], typer.Option("--category", help="Data category; may be repeated.")],
    justification: Annotated[str, typer.Option("--justification", help="Justification code.")],
    ticket: Annotated[str, typer.Option("--ticket", help="Ticket number.")],
    requested_by: Annotated[str, typer.Option("--requested-by", help="Personnel id of who asks.")],
    *,
    subjects: Annotated[str, typer.Option("--subjects", help="Data subjects: us, non_us or unknown.")] = "us",
    begins: Annotated[str | None, typer.Option("--from", help="RFC 3339, UTC; now when left out.")] = None,
    hours: Annotated[float, typer.Option("--hours", help="How long it is in force.", min=0.01, max=8760)] = 24.0,
    max_records: Annotated[int | None, typer.Option("--max-records", help="Records it releases, at most.")] = None,
) -> None:
    """Write a draft into the folder of grants. It means nothing until two approvers have signed it."""
    from sidecar.administration import papers
    from sidecar.cli import desks
    from sidecar.exceptions.jws import instant
    from sidecar.main.given import clock

    now = clock()
    with papers.refused("--from"):
        start = now if begins is None else instant(begins, "--from")
    payload: dict[str, object] = {
        "id": desks.new_id("EX"), "person": person,
        "scope": {"services": service, "categories": category, "subjects": subjects}, "justification": justification,
        "ticket": ticket, "not_before": papers.instant(start),
        "expires": papers.instant(int(start) + hours * 3600), "requested_by": requested_by, "max_records": max_records,
    }  # fmt: skip
    paper = desks.exceptions(config).request(payload, now)
    out().print(plain(f"exception {paper.id}: {paper.path}"))
    out().print(plain(f"next: two approvers, each: sidecar exception approve {paper.id} --config {config} --key FILE"))


@exception.command("approve")
def approve(name: Name, config: Config, key: Key, *, yes: Yes = False) -> None:
    """Show what is being signed, and sign it. The second approval puts the grant in force."""
    from sidecar.administration import papers
    from sidecar.cli import desks
    from sidecar.main.given import clock

    desk, now = desks.exceptions(config), clock()
    paper = desk.pending(name)
    for line in desk.shown(paper, now):
        out().print(plain(line))
    desks.agreed(yes=yes)
    path, approver, missing = desk.approve(paper, papers.private_key(key), now)
    left = f"{missing} more approver is needed" if missing else "the grant is in its place"
    out().print(plain(f"approved by {approver}; {left}: {path}"))


@exception.command("revoke")
def revoke(
    exception_id: Annotated[str, typer.Argument(metavar="ID", help="Its id.")],
    config: Config,
    key: Key,
    reason: Annotated[str, typer.Option("--reason", help="Why.")],
) -> None:
    """Take an exception back, for good. Any one approver can; open streams that rest on it are decided again."""
    from sidecar.administration import papers
    from sidecar.cli import desks
    from sidecar.main.given import clock

    path, approver = desks.exceptions(config).revoke(exception_id, reason, papers.private_key(key), clock())
    out().print(plain(f"revoked by {approver}: {path}"))


@exception.command("list")
def list_exceptions(config: Config, *, as_json: AsJson = False) -> None:
    """List drafts, grants in force, what has ended, and what is damaged, and why. Exits 1 when something is damaged."""
    import json
    from dataclasses import asdict

    from rich.table import Table

    from sidecar.cli import desks
    from sidecar.main.given import clock

    rows = desks.exceptions(config).rows(clock())
    if as_json:
        out().print(json.dumps([asdict(row) for row in rows]), markup=False)
    else:
        table = Table("id", "state", "person", "services", "until", "asked by", "approved by", "why", box=None)
        for row in rows:
            cells = (row.id, row.state, row.person, ", ".join(row.services), row.expires, row.requested_by,
                     ", ".join(row.approvers), row.why)  # fmt: skip
            table.add_row(*(plain(cell) for cell in cells))
        out().print(table if rows else plain("no exceptions"))
    raise SystemExit(FINDING if any(row.state == "damaged" for row in rows) else 0)
