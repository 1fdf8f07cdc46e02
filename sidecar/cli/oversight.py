"""`sidecar oversight ...`: the store, its producers, and what reviewers ask and verify."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sidecar.cli.console import FINDING, err, fail, out, plain, progress

oversight = typer.Typer(help="The oversight store, and what reviewers ask of it.", no_args_is_help=True)
producer = typer.Typer(help="Which sidecars may append.", no_args_is_help=True)
oversight.add_typer(producer, name="producer")

Config = Annotated[Path, typer.Option("--config", help="Settings file of the store.", metavar="FILE")]
Store = Annotated[
    str, typer.Option("--store", envvar="CUSTOMHOUSE_REVIEW_STORE", help="The store's query listener, host:port.")
]
Ca = Annotated[
    Path, typer.Option("--ca", envvar="CUSTOMHOUSE_REVIEW_CA", help="Certificates that the store's is checked against.")
]
Cert = Annotated[Path, typer.Option("--cert", envvar="CUSTOMHOUSE_REVIEW_CERT", help="The reviewer's certificate.")]
Key = Annotated[Path, typer.Option("--key", envvar="CUSTOMHOUSE_REVIEW_KEY", help="The key of --cert.")]
TrustFile = Annotated[Path, typer.Option("--trust", help="Trust file: which log, and which witnesses, to believe.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, a record a line.")]


@oversight.command("run")
def run(config: Config) -> None:
    """Run the store until it is told to stop."""
    from sidecar.oversight.main import run as run_process
    from sidecar.settings.loader import load
    from sidecar.settings.oversight import OversightSettings

    raise SystemExit(run_process(load(config, OversightSettings)))


@producer.command("add")
def producer_add(
    name: Annotated[str, typer.Argument(help="Its name, as in producer.name of sidecar.yaml.")],
    config: Config,
    key: Annotated[Path, typer.Option("--key", help="Its Ed25519 public key, PEM.")],
    identity: Annotated[str, typer.Option("--identity", help="SPIFFE URI or DNS name in its client certificate.")],
) -> None:
    """Register a producer."""
    from sidecar.cli import producers

    out().print(plain(producers.add(config, name, key, identity)))


@producer.command("revoke")
def producer_revoke(name: Annotated[str, typer.Argument(help="Its name.")], config: Config) -> None:
    """Let a producer append nothing more. What it has appended stays."""
    from sidecar.cli import producers

    out().print(plain(producers.revoke(config, name)))


@producer.command("list")
def producer_list(config: Config, *, as_json: AsJson = False) -> None:
    """List the producers."""
    from sidecar.cli import producers

    for line in producers.lines(config, as_json=as_json):
        out().print(plain(line))


@oversight.command("search")
def search(
    store: Store, ca: Ca, cert: Cert, key: Key, *,
    person: Annotated[str, typer.Option(help="Personnel id.")] = "",
    reason: Annotated[str, typer.Option(help="Reason code.")] = "",
    effect: Annotated[str, typer.Option(help="permit or deny.")] = "",
    since: Annotated[str, typer.Option(help="RFC 3339, inclusive.")] = "",
    until: Annotated[str, typer.Option(help="RFC 3339, exclusive.")] = "",
    trace: Annotated[str, typer.Option(help="W3C trace id, hex.")] = "",
    producer: Annotated[str, typer.Option(help="Producer's name.")] = "",
    call_id: Annotated[str, typer.Option("--call-id", help="Call id.")] = "",
    subject: Annotated[str, typer.Option(help="Exact id of a data subject.")] = "",
    subject_kind: Annotated[str, typer.Option("--subject-kind", help="What kind of id --subject is.")] = "person",
    kind: Annotated[str, typer.Option("--type", help="Record type: decision, outcome, open, ...")] = "",
    service: Annotated[str, typer.Option(help="Full name of a guarded service.")] = "",
    category: Annotated[str, typer.Option(help="Data category.")] = "",
    seen: Annotated[str, typer.Option(help="Outcomes that no sidecar saw: reported or unobserved.")] = "",
    limit: Annotated[int, typer.Option(help="Records at most; 0 for all.", min=0)] = 100,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Find records. The search itself becomes a record before it is answered. Exits 1 when nothing matches."""
    from sidecar.cli.review import Reviewer, row, table

    asked = {
        "person": person, "reason": reason, "effect": effect, "since": since, "until": until, "trace": trace,
        "producer": producer, "call_id": call_id, "subject": subject, "subject_kind": subject_kind if subject else "", "type": kind,
        "service": service, "category": category, "seen": seen,
    }  # fmt: skip
    with Reviewer(store, ca, cert, key) as reviewer:
        found = list(reviewer.search(asked, limit))
    if as_json:
        for one in found:
            out().print(json.dumps(row(one)), markup=False)
    else:
        out().print(table(found))
    if not found:
        err().print("no record matches")
        raise SystemExit(FINDING)


@oversight.command("prove")
def prove(
    index: Annotated[int, typer.Argument(help="The record's index in the log.", min=0)],
    store: Store, ca: Ca, cert: Cert, key: Key,
    output: Annotated[Path, typer.Option("-o", "--output", help="The .tlog-proof file to write.")],
) -> None:  # fmt: skip
    """Fetch one record with its proof, as a file that `verify` checks offline."""
    from sidecar.cli.review import Reviewer
    from sidecar.oversight import evidence
    from sidecar.tlog.errors import TlogError

    with Reviewer(store, ca, cert, key) as reviewer:
        found, proof = reviewer.prove(index)
    try:
        data = evidence.make(proof, found.leaf, found.salt, found.body)
    except TlogError as error:
        fail(f"{store}: the store sent no proof: {error}", FINDING)
    output.write_bytes(data)
    out().print(plain(f"record {index} and its proof are in {output}"))


@oversight.command("verify")
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .tlog-proof file.")],
    trust: TrustFile, *, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Verify a proof file offline. Exits 1 when it proves nothing."""
    from sidecar.cli.review import document, read_trust
    from sidecar.oversight import evidence

    try:
        proven = evidence.verify(file.read_bytes(), read_trust(trust))
    except evidence.EvidenceError as error:
        fail(f"{file}: {error}", FINDING)
    leaf = proven.leaf
    if as_json:
        body = None if proven.body is None else document(proven.body)
        shown = {"index": proven.index, "type": leaf.type, "producer": leaf.producer, "time": leaf.time,
                 "call_id": leaf.call_id, "tree_size": proven.checkpoint.size, "body": body}  # fmt: skip
        out().print(json.dumps(shown), markup=False)
        return
    out().print(plain(
        f"proven: record {proven.index} ({leaf.type}, {leaf.producer}, {leaf.time}, call {leaf.call_id or 'none'}) is in "
        f"the log {proven.checkpoint.origin} of size {proven.checkpoint.size}, unaltered."
    ))  # fmt: skip
    out().print(
        "Not proven: that a call which never met a sidecar did not happen, that the producer's clock is right, or that "
        "whoever holds its key told the truth."
    )


@oversight.command("audit")
def audit(
    log: Annotated[str, typer.Argument(metavar="DIR|URL", help="The tlog-tiles folder, or where it is served.")],
    trust: TrustFile, *,
    database: Annotated[
        Path | None, typer.Option(help="Also check the bodies in the store's SQLite database.", metavar="FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Read a whole log, believing nothing: every byte, every chain, every body. Exits 1 when something is wrong."""
    from sidecar.cli.review import audited, read_trust

    with progress() as bar:
        result = audited(log, read_trust(trust), database, bar)
    if as_json:
        out().print(json.dumps(result.to_json()), markup=False)
    else:
        for line in result.lines():
            out().print(plain(line))
    raise SystemExit(0 if result.sound else FINDING)


@oversight.command("backup")
def backup(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where backups are; each gets a folder named by its time.")],
    config: Config, *,
    keep: Annotated[int | None, typer.Option("--keep", help="Remove all but the newest so many.", min=1)] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Copy databases, registry and tiles while the store runs. No key with which it signs or opens is in the copy."""
    from sidecar.cli.store_backup import made

    with progress() as bar:
        result = made(folder, config, keep, bar)
    if as_json:
        out().print(json.dumps(result), markup=False)
        return
    out().print(
        plain(f"{result['folder']}: {result['records']} records, {result['signed']} signed, {result['bytes']} bytes")
    )
    for one in result["removed"]:
        out().print(plain(f"removed {one}"))
