"""The tree of commands."""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import typer

from sidecar.cli.authorizations import authorization
from sidecar.cli.console import FINDING, explained, fail, out, plain, progress
from sidecar.cli.due import due
from sidecar.cli.exceptions import exception
from sidecar.cli.ledger import ledger
from sidecar.cli.oversight import oversight
from sidecar.cli.policy import policy

Config = Annotated[Path, typer.Option("--config", help="Settings file.", metavar="FILE")]

app = typer.Typer(
    name="sidecar",
    help="Customhouse: a policy-enforcement sidecar for personal data, and its independent oversight store.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
subjects = typer.Typer(help="The index of who is a US data subject.", no_args_is_help=True)
directory = typer.Typer(help="The directory of personnel.", no_args_is_help=True)
keys = typer.Typer(help="Key pairs.", no_args_is_help=True)
app.add_typer(subjects, name="subjects")
app.add_typer(directory, name="directory")
app.add_typer(keys, name="keys")
app.add_typer(exception, name="exception")
app.add_typer(authorization, name="authorization")
app.add_typer(policy, name="policy")
app.add_typer(ledger, name="ledger")
app.add_typer(oversight, name="oversight")
oversight.command("due")(due)


def _version(*, asked: bool) -> None:
    if asked:
        out().print(plain(f"customhouse {version('customhouse')}"))
        raise typer.Exit


@app.callback()
def options(
    *,
    asked: Annotated[
        bool,
        typer.Option(
            "--version", callback=lambda asked: _version(asked=asked), is_eager=True, help="Say which release this is."
        ),
    ] = False,
) -> None:
    """Customhouse: a policy-enforcement sidecar for personal data, and its independent oversight store."""
    del asked


def run() -> None:
    """Run the command line."""
    with explained():
        app(prog_name="sidecar")


@app.command("run")
def run_sidecar(
    config: Config,
    *,
    host: Annotated[
        Literal["grpc", "envoy"], typer.Option("--host", help="What carries the doors: gRPC, or an Envoy around them.")
    ] = "grpc",
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, max=256, help="So many processes, whatever the settings say.")
    ] = None,
) -> None:
    """Run the sidecar until it is told to stop. With several workers, SIGHUP reads the settings again."""
    from sidecar.settings.loader import load
    from sidecar.settings.sidecar import SidecarSettings

    def read() -> SidecarSettings:
        found = load(config, SidecarSettings)
        return found if workers is None else found.model_copy(update={"workers": workers})

    settings = read()
    if host == "envoy":
        from sidecar.main.hosted import run as run_hosted

        run_hosted(settings, read)
    elif settings.workers > 1:
        from sidecar.main.workers import run as run_workers

        run_workers(settings, read)
    else:
        from sidecar.cli.serving import become

        become(settings)


@app.command("check-config")
def check_config(config: Config) -> None:
    """Read the settings and everything they name, without serving."""
    from sidecar.main.process import check
    from sidecar.settings.loader import load
    from sidecar.settings.sidecar import SidecarSettings

    for line in check(load(config, SidecarSettings)):
        out().print(plain(line))


@app.command("describe")
def describe(config: Config, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print what the upstream's methods reach: actions, categories, subject fields, and what is unannotated."""
    from sidecar.cli.describe import show
    from sidecar.settings.loader import load
    from sidecar.settings.sidecar import SidecarSettings

    raise SystemExit(show(load(config, SidecarSettings), as_json=as_json))


@app.command("doctor")
def doctor(config: Config, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Try what must hold in this deployment: above all, that the upstream accepts only the sidecar."""
    from sidecar.cli.doctor import examine
    from sidecar.settings.loader import load
    from sidecar.settings.sidecar import SidecarSettings

    raise SystemExit(examine(load(config, SidecarSettings), as_json=as_json))


@app.command("status")
def status(config: Config, *, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Ask a running sidecar how it is, over its admin socket."""
    from sidecar.cli.status import ask
    from sidecar.settings.loader import load
    from sidecar.settings.sidecar import SidecarSettings

    raise SystemExit(ask(load(config, SidecarSettings), as_json=as_json))


@app.command("demo")
def demo(
    *,
    report: Annotated[Path | None, typer.Option("--json", help="Write the results as JSON.", metavar="FILE")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Keep everything in this new folder.", metavar="DIR")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running and say how to call it.")] = False,
    engine: Annotated[
        Literal["embedded", "opa"], typer.Option("--engine", help="Who decides: the engine in the process, or OPA.")
    ] = "embedded",
) -> None:
    """Play the whole product, scene by scene, on this machine. Exits 1 if any scene differs from what it should be."""
    from sidecar.demo.main import play

    raise SystemExit(play(report=report, data=data, keep=keep, engine=engine))


@app.command("envoy-config")
def envoy_config(
    config: Config,
    mode: Annotated[
        Literal["ext_authz", "ext_proc"], typer.Option("--mode", help="Which of the sidecar's doors Envoy asks.")
    ],
    *,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Write it here instead of printing it.", metavar="FILE")
    ] = None,
    listen: Annotated[str, typer.Option("--listen", help="Where Envoy listens, host:port.")] = "0.0.0.0:8443",
    cert: Annotated[
        Path | None, typer.Option("--cert", help="Envoy's certificate for callers; else the proxy listener's.", metavar="FILE")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="The key of --cert.", metavar="FILE")] = None,
    client_ca: Annotated[
        Path | None, typer.Option("--client-ca", help="Who signs callers' certificates.", metavar="FILE")
    ] = None,
    identity: Annotated[
        Path | None, typer.Option("--identity", help="Envoy's certificate for the sidecar, over TCP.", metavar="FILE")
    ] = None,
    identity_key: Annotated[
        Path | None, typer.Option("--identity-key", help="The key of --identity.", metavar="FILE")
    ] = None,
    sidecar_ca: Annotated[
        Path | None, typer.Option("--sidecar-ca", help="Who signs the sidecar's certificate, over TCP.", metavar="FILE")
    ] = None,
) -> None:  # fmt: skip
    """Write a bootstrap file for an Envoy in front of the guarded service: safe as it is, with the reasons in it."""
    from sidecar.cli.envoy import Wanted
    from sidecar.cli.envoy import config as made
    from sidecar.settings.loader import load
    from sidecar.settings.sidecar import SidecarSettings

    wanted = Wanted(mode=mode, listen=listen, cert=cert, key=key, client_ca=client_ca, identity=identity,
                    identity_key=identity_key, sidecar_ca=sidecar_ca)  # fmt: skip
    text = made(load(config, SidecarSettings), wanted)
    if out_file is None:
        print(text, end="")
    else:
        out_file.write_text(text, encoding="utf-8")
        out().print(plain(f"{out_file}: written. Try it with `envoy --mode validate -c {out_file}`."))


@app.command("webhook")
def webhook(
    injection: Annotated[Path, typer.Option("--injection", help="What goes into a pod; the chart writes it.", metavar="FILE")],
    cert: Annotated[Path, typer.Option("--cert", help="Certificate, PEM.", metavar="FILE")],
    key: Annotated[Path, typer.Option("--key", help="The key of --cert.", metavar="FILE")],
    listen: Annotated[str, typer.Option("--listen", help="host:port.")] = "0.0.0.0:8443",
) -> None:  # fmt: skip
    """Answer the Kubernetes API server: guarded pods get the sidecar, or do not start."""
    from sidecar.cli.webhook import opened, serve

    serve(opened(injection, listen, cert, key))


@subjects.command("build")
def subjects_build(
    source: Annotated[Path, typer.Argument(metavar="IN", help="CSV with header id,country,as_of; or JSON Lines.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The index file to write.")],
) -> None:
    """Build the subject index: 8 bytes for each id, memory-mapped by the sidecar."""
    from sidecar.administration.subjects import build

    with progress() as bar:
        report = build(source, target, bar)
    for line in report.lines:
        out().print(plain(line))
    if report.bad:
        fail(f"{source}: {report.bad} bad rows; nothing was written", FINDING)


@directory.command("build")
def directory_build(
    people: Annotated[Path, typer.Argument(metavar="PEOPLE", help="people.jsonl, a person a line.")],
    entities: Annotated[Path, typer.Argument(metavar="ENTITIES", help="entities.jsonl, an entity a line.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="The snapshot to write.")],
    *,
    designated: Annotated[
        Path | None, typer.Option("--designated", help="Designated covered persons, JSON Lines.", metavar="FILE")
    ] = None,
    explain: Annotated[
        list[str] | None, typer.Option("--explain", help="Say why this person or entity is covered.", metavar="ID")
    ] = None,
    residence_days: Annotated[
        int, typer.Option("--residence-days", min=1, help="How long an attested primary residence holds.")
    ] = 90,
    presence_days: Annotated[
        int, typer.Option("--presence-days", min=1, help="How long a sighting in the United States holds.")
    ] = 7,
) -> None:
    """Check every row, resolve covered persons and build the directory snapshot that `identity.directory` loads."""
    from sidecar.administration.directory import Bounds, build

    bounds = Bounds(residence_days=residence_days, presence_days=presence_days)
    with progress() as bar:
        report = build(people, entities, target, bar, designated=designated, explain=explain or (), bounds=bounds)
    for line in report.lines:
        out().print(plain(line))
    if report.bad:
        fail(f"{people}: {report.bad} bad rows; nothing was written", FINDING)


@keys.command("new")
def keys_new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the private key goes (PEM, mode 0600).")],
    name: Annotated[str | None, typer.Option("--name", help="Also print a C2SP verifier key under this name.")] = None,
    sealing: Annotated[bool, typer.Option("--sealing", help="An X25519 sealing key instead of Ed25519.")] = False,
) -> None:
    """Make a key pair: FILE and FILE.pub. Never overwrites."""
    from sidecar.cli.keys import new

    for line in new(file, name, sealing=sealing):
        out().print(plain(line))
