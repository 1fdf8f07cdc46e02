"""`sidecar oversight backup`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from rich.progress import Progress

from sidecar.oversight.backup import Sources, copy, forget
from sidecar.settings.loader import load
from sidecar.settings.oversight import OversightSettings


class Made(TypedDict):
    """What `--json` prints."""

    folder: str
    records: int
    signed: int
    bytes: int
    removed: list[str]


def made(folder: Path, config: Path, keep: int | None, bar: Progress) -> Made:
    """Make a backup in a new folder below `folder`, then remove the oldest. ConfigurationError, IntegrityError."""
    settings = load(config, OversightSettings)
    sources = Sources(
        records=settings.storage.sqlite, keys=settings.secrets.database, producers=settings.producers.file,
        tiles=settings.tiles.folder,
    )  # fmt: skip
    task = bar.add_task("copying", total=None)
    target = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"  # noqa: TID251 - an edge
    found = copy(
        sources, target,
        lambda part, done, of: bar.update(task, description=f"copying {part}", completed=done, total=of),
    )  # fmt: skip
    removed = [] if keep is None else forget(folder, keep)
    return {
        "folder": str(target), "records": found.records, "signed": found.signed, "bytes": found.size,
        "removed": [str(one) for one in removed],
    }  # fmt: skip
