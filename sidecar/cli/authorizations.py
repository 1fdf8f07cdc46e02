"""`sidecar authorization`: exemptions, licences, opinions and attestations under 28 CFR part 202."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from sidecar.cli.console import FINDING, out, plain

authorization = typer.Typer(
    help="What alone lifts a denial under 28 CFR part 202: authorizations, and attested security requirements.",
    no_args_is_help=True,
)
Config = Annotated[Path, typer.Option("--config", help="Settings file.", metavar="FILE")]
Services = Annotated[list[str], typer.Option("--service", help="Full name of a service; may be repeated.")]
Begins = Annotated[str | None, typer.Option("--from", help="RFC 3339, UTC; now when left out.")]
Until = Annotated[str, typer.Option("--until", help="RFC 3339, UTC; 366 days later at most.")]


@authorization.command("request")
def request(
    config: Config,
    kind: Annotated[
        str, typer.Option("--kind", help="exemption, general_licence, specific_licence or advisory_opinion.")
    ],
    paragraph: Annotated[str, typer.Option("--paragraph", help="202.506(a)(2)(viii), or the licence's number.")],
    service: Services,
    category: Annotated[list[str], typer.Option("--category", help="Data category; may be repeated.")],
    purpose: Annotated[list[str], typer.Option("--purpose", help="Purpose code; may be repeated.")],
    owner: Annotated[str, typer.Option("--owner", help="Who answers for it; signs nothing.")],
    until: Until,
    *,
    person: Annotated[list[str] | None, typer.Option("--person", help="Personnel id; may be repeated.")] = None,
    group: Annotated[list[str] | None, typer.Option("--group", help="Counterparty group; may be repeated.")] = None,
    begins: Begins = None,
) -> None:
    """Write a draft of an authorization. It means nothing until it is signed: an exemption by two."""
    from sidecar.cli import desks
    from sidecar.exceptions.authorizations import TYPE

    payload = {
        "id": desks.new_id("AU"), "kind": kind, "paragraph": paragraph, "persons": person or [], "groups": group or [],
        "services": service, "categories": category, "purposes": purpose, "owner": owner,
        "not_before": _instant(begins), "expires": until,
    }  # fmt: skip
    _drafted(config, TYPE, payload)


@authorization.command("attest")
def attest(
    config: Config,
    version: Annotated[str, typer.Option("--version", help="Version of the security requirements: 2025-01.")],
    service: Services,
    officer: Annotated[str, typer.Option("--officer", help="Who attests, and alone can sign it.")],
    until: Until,
    *,
    begins: Begins = None,
) -> None:
    """Write a draft of an attestation of the CISA security requirements (28 CFR 202.248)."""
    from sidecar.cli import desks
    from sidecar.exceptions.attestations import TYPE

    payload = {
        "id": desks.new_id("AT"), "version": version, "services": service, "officer": officer,
        "attested_at": _instant(begins), "valid_until": until,
    }  # fmt: skip
    _drafted(config, TYPE, payload)


@authorization.command("sign")
def sign(
    name: Annotated[str, typer.Argument(metavar="ID|FILE", help="Its id, or the file that somebody sent.")],
    config: Config,
    key: Annotated[Path, typer.Option("--key", help="The signer's Ed25519 private key, PEM.", metavar="FILE")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Sign without asking.")] = False,
) -> None:
    """Show what is being signed, and sign it. The last signature needed puts it in its file."""
    from sidecar.administration import papers
    from sidecar.cli import desks
    from sidecar.main.given import clock

    desk, now = desks.authorizations(config), clock()
    paper = desk.pending(name)
    for line in desk.shown(paper, now):
        out().print(plain(line))
    desks.agreed(yes=yes)
    path, signer, missing = desk.sign(paper, papers.private_key(key), now)
    left = f"{missing} more signer is needed" if missing else "installed"
    out().print(plain(f"signed by {signer}; {left}: {path}"))


@authorization.command("list")
def list_authorizations(
    config: Config, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List drafts, what is in force, what has ended, and what is damaged, and why. Exits 1 when something is damaged."""
    import json
    from dataclasses import asdict

    from rich.table import Table

    from sidecar.cli import desks
    from sidecar.main.given import clock

    rows = desks.authorizations(config).rows(clock())
    if as_json:
        out().print(json.dumps([asdict(row) for row in rows]), markup=False)
    else:
        table = Table(
            "id", "type", "state", "kind", "paragraph", "for", "services", "until", "signed by", "why", box=None
        )
        for row in rows:
            cells = (row.id, row.type, row.state, row.kind, row.paragraph, ", ".join((*row.persons, *row.groups)),
                     ", ".join(row.services), row.expires, ", ".join(row.signers), row.why)  # fmt: skip
            table.add_row(*(plain(cell) for cell in cells))
        out().print(table if rows else plain("no authorizations"))
    raise SystemExit(FINDING if any(row.state == "damaged" for row in rows) else 0)


@authorization.command("verify")
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A signed object, or a file of them, one a line.")],
    config: Config,
) -> None:
    """Verify signed authorizations and attestations against the signers of these settings. Exits 1 for one that fails."""
    from sidecar.cli import desks
    from sidecar.exceptions.jws import SignedObjectError
    from sidecar.main.given import clock

    desk, failed, now = desks.authorizations(config), False, clock()
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if line.strip():
            try:
                one = desk.verify(line)
            except SignedObjectError as error:
                failed = True
                out().print(plain(f"{file}:{number}: does not hold: {error}"))
            else:
                state = "in force" if one.in_force(now) else "expired" if now >= one.expires else "not in force yet"
                out().print(plain(f"{file}:{number}: {one.payload.id}: signed by {', '.join(one.signers)}; {state}"))
    raise SystemExit(FINDING if failed else 0)


def _instant(begins: str | None) -> str:
    from sidecar.administration import papers
    from sidecar.main.given import clock

    return papers.instant(clock()) if begins is None else begins


def _drafted(config: Path, typ: str, payload: Mapping[str, object]) -> None:
    from sidecar.cli import desks
    from sidecar.main.given import clock

    paper = desks.authorizations(config).request(typ, payload, clock())
    out().print(plain(f"draft {paper.id}: {paper.path}"))
    out().print(plain(f"next: sidecar authorization sign {paper.id} --config {config} --key FILE"))
