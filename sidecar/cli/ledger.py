"""`sidecar ledger ...`: the rolling ledger of volumes, and what its operators ask of it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from sidecar.cli.console import FINDING, fail, out, plain, progress

ledger = typer.Typer(help="The rolling ledger of volumes (28 CFR 202.205).", no_args_is_help=True)

Config = Annotated[Path, typer.Option("--config", help="Settings file of the ledger.", metavar="FILE")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_WORDS = {True: "yes", False: "no", None: "none"}


@ledger.command("init")
def init(
    config: Config, *,
    keep_secret: Annotated[
        bool, typer.Option("--keep-secret", help="The secret was put there for this new ledger; use it.")
    ] = False,
) -> None:  # fmt: skip
    """Make the secret and the empty database of a new ledger. Never begins one again."""
    from sidecar.ledger.main import init as make
    from sidecar.settings.ledger import LedgerSettings
    from sidecar.settings.loader import load

    for line in make(load(config, LedgerSettings), keep_secret=keep_secret):
        out().print(plain(line))


@ledger.command("run")
def run(
    config: Config, *,
    after_pause: Annotated[
        bool, typer.Option("--after-pause", help="The ledger has not run for more than a month, and the clock is right.")
    ] = False,
) -> None:  # fmt: skip
    """Run the ledger until it is told to stop."""
    from sidecar.ledger.main import run as run_process
    from sidecar.settings.ledger import LedgerSettings
    from sidecar.settings.loader import load

    raise SystemExit(run_process(load(config, LedgerSettings), after_pause=after_pause))


@ledger.command("status")
def status(config: Config, *, as_json: AsJson = False) -> None:
    """How the ledger on this host is: read from its database, whether it runs or not. Exits 1 when it does not run."""
    from rich.table import Table

    from sidecar.ledger.inspection import status as read

    found = read(_database(config))
    if as_json:
        out().print(json.dumps(found), markup=False)
    else:
        table = Table(show_header=False, box=None)
        for key, value in found.items():
            shown = _WORDS[value] if isinstance(value, bool) or value is None else value
            table.add_row(plain(key.replace("_", " ")), plain(shown))
        out().print(table)
    raise SystemExit(0 if found["running"] else FINDING)


@ledger.command("exposure")
def exposure(
    group: Annotated[str, typer.Argument(metavar="GROUP", help="The counterparty group, as in the directory.")],
    config: Config, *, as_json: AsJson = False,
) -> None:  # fmt: skip
    """What a group has been given over the preceding 12 months: distinct persons (devices for locations) by category."""
    from rich.table import Table

    from sidecar.ledger.inspection import exposure as read
    from sidecar.ledger.inspection import groups
    from sidecar.vocabulary import CATEGORIES

    database = _database(config)
    found = read(database, group)
    if found is None:
        known = groups(database)
        some = ", ".join(known[:10]) + (", …" if len(known) > 10 else "")
        fail(f"{group}: nothing was ever released to such a group. Known: {some or 'none'}", FINDING)
    if as_json:
        out().print(
            json.dumps({"group": group, "exposure": {one: found.get(one, 0) for one in CATEGORIES}}), markup=False
        )
        return
    table = Table("category", "distinct", box=None)
    for category in CATEGORIES:
        if category in found:
            table.add_row(category, str(found[category]))
    out().print(table)


@ledger.command("verify")
def verify(config: Config, *, as_json: AsJson = False) -> None:
    """Count everything in the database again. Exits 1 when a figure differs."""
    from sidecar.ledger.inspection import verify as count

    database = _database(config)
    with progress() as bar:
        task = bar.add_task("counting again", total=None)
        wrong = count(database, lambda done, of: bar.update(task, completed=done, total=of))
    if as_json:
        out().print(json.dumps({"sound": not wrong, "differences": wrong}), markup=False)
    else:
        for line in wrong:
            out().print(plain(line))
        out().print("every figure is what the sightings add up to" if not wrong else f"{len(wrong)} figures differ")
    raise SystemExit(FINDING if wrong else 0)


@ledger.command("backup")
def backup(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The file to write.")],
    config: Config,
) -> None:
    """Copy the database, as it is now, while it is in use. The secret is not in the copy; keep it elsewhere."""
    from sidecar.ledger.backup import copy

    with progress() as bar:
        task = bar.add_task("copying pages", total=None)
        size = copy(_database(config), target, lambda done, of: bar.update(task, completed=done, total=of))
    out().print(plain(f"{target}: {size} bytes"))


def _database(config: Path) -> Path:
    from sidecar.settings.ledger import LedgerSettings
    from sidecar.settings.loader import load

    return load(config, LedgerSettings).database
