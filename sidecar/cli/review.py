"""What a reviewer's commands share: a log to audit, and how records look."""

import json
import sqlite3
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path

from rich.progress import Progress
from rich.table import Table

from sidecar.api.v1 import oversight_pb2 as pb
from sidecar.cli.console import plain
from sidecar.errors import ConfigurationError
from sidecar.oversight.audit import Audit, Finding, Read, audit, locate
from sidecar.oversight.bodies import check_bodies
from sidecar.oversight.reviewer import Reviewer, read_trust
from sidecar.tlog.trust import Trust

__all__ = ["Audited", "Reviewer", "audited", "document", "read_trust", "row", "table"]

_SECONDS = 30.0
_MOST_BYTES = 16 << 20


def document(data: bytes) -> object:
    """A leaf or body as JSON; what is none, as the base64 of its bytes."""
    try:
        found: object = json.loads(data)
        json.dumps(found).encode()
    except (ValueError, RecursionError):
        return {"base64": b64encode(data).decode()}
    return found


def row(record: pb.StoredRecord) -> dict[str, object]:
    """A record as JSON: index, leaf, body, and what the store says of its standing."""
    return {
        "index": record.index,
        "attested": record.attested,
        "standing": record.standing,
        "leaf": document(record.leaf),
        "body": document(record.body) if record.body else None,
    }


def table(records: list[pb.StoredRecord]) -> Table:
    """Records for people: who, what, when, why, and how it ended."""
    shown = Table()
    for name in ("index", "time", "type", "who", "what", "effect", "why", "call"):
        shown.add_column(name, overflow="fold")  # an id that was cut short cannot be asked for again
    for record in records:
        leaf, body = document(record.leaf), document(record.body) if record.body else {}
        cells = (record.index, _at(leaf, "time")[:19], _at(leaf, "type"), *_middle(body), _at(leaf, "call_id"))
        shown.add_row(*map(plain, cells))
    return shown


def _middle(body: object) -> tuple[str, str, str, str]:
    if _at(body, "type") == "decision":
        subject = ("input", "subject")
        who = (
            _at(body, *subject, "person", "id") or _at(body, *subject, "workload", "id") or _at(body, *subject, "kind")
        )
        reasons = _under(body, "decision", "reasons")
        why = ", ".join(_at(one, "code") for one in reasons) if isinstance(reasons, list) else ""
        return who or "nobody", f"{_at(body, 'method')} ({_at(body, 'phase')})", _at(body, "decision", "effect"), why
    if _at(body, "type") == "outcome":
        return "", "", _at(body, "status"), _at(body, "seen")
    details = _under(body, "details")
    return "", json.dumps(details, ensure_ascii=False)[:60] if details else "", "", ""


def _under(found: object, *names: str) -> object:
    """What stands under these names; None where a record that somebody made up has nothing there."""
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _at(found: object, *names: str) -> str:
    value = _under(found, *names)
    return "" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Audited:
    """An audit of the log, and of the bodies where a database was given."""

    log: Audit
    bodies: list[Finding]
    bodies_checked: int | None

    @property
    def sound(self) -> bool:
        """Nothing wrong anywhere."""
        return self.log.sound and not self.bodies

    def lines(self) -> Iterator[str]:
        """For people."""
        yield from locate([*self.log.findings, *self.bodies])
        if self.log.checkpoint is not None:
            said = f"{self.log.leaves} records of {len(self.log.producers)} producers read"
            bodies = "" if self.bodies_checked is None else f", {self.bodies_checked} bodies"
            wrong = len(self.log.findings) + self.log.omitted + len(self.bodies)
            yield f"{said}{bodies}: " + ("sound" if self.sound else f"{wrong} findings")

    def to_json(self) -> dict[str, object]:
        """For programs."""
        findings = [{"kind": one.kind, "where": one.where, "detail": one.detail}
                    for one in (*self.log.findings, *self.bodies)]  # fmt: skip
        size = self.log.checkpoint.size if self.log.checkpoint else None
        return {"sound": self.sound, "size": size, "leaves": self.log.leaves, "producers": self.log.producers,
                "bodies": self.bodies_checked, "findings": findings, "omitted": self.log.omitted}  # fmt: skip


def audited(log: str, trust: Trust, database: Path | None, bar: Progress) -> Audited:
    """Audit a folder or URL, with a progress bar."""
    task = bar.add_task("reading the log", total=None)
    read = _from_url(log) if log.startswith(("http://", "https://")) else _from_folder(Path(log))
    result = audit(read, trust, lambda done, total: bar.update(task, completed=done, total=total))
    if database is None or result.checkpoint is None:
        return Audited(result, [], None)
    if not database.is_file():
        raise ConfigurationError("is no file", where=str(database), fix="Give the store's SQLite database.")
    try:
        with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            found, checked = check_bodies(connection, read, result.checkpoint.size)
    except sqlite3.Error as error:
        raise ConfigurationError(f"is no database of the store: {error}", where=str(database)) from None
    return Audited(result, found, checked)


def _from_folder(folder: Path) -> Read:
    if not folder.is_dir():
        raise ConfigurationError("is no folder", where=str(folder), fix="Give the tlog-tiles folder, or a URL.")

    def read(path: str) -> bytes | None:
        try:
            return (folder / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    return read


def _from_url(url: str) -> Read:
    def read(path: str) -> bytes | None:
        where = f"{url.rstrip('/')}/{path}"
        try:
            with urllib.request.urlopen(where, timeout=_SECONDS) as answer:  # noqa: S310 - http and https only
                data: bytes = answer.read(_MOST_BYTES)
                left = answer.length
        except urllib.error.HTTPError as error:
            if error.code in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
                return None
            raise
        except (HTTPException, ValueError) as error:
            raise OSError(None, f"cannot be fetched: {error!r}", where) from None
        if left:
            raise OSError(None, f"cannot be fetched: {left} bytes did not come", where)  # no finding: try again
        return data

    return read
