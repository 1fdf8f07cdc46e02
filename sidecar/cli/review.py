"""What a reviewer's commands share: the way to the store, the trust file, a log to audit, and how records look."""

import json
import sqlite3
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from rich.progress import Progress
from rich.table import Table

from sidecar.api.v1 import oversight_pb2 as pb
from sidecar.api.v1 import oversight_pb2_grpc
from sidecar.cli.console import plain
from sidecar.errors import ConfigurationError
from sidecar.oversight.audit import Audit, Finding, Read, audit, locate
from sidecar.oversight.bodies import check_bodies
from sidecar.tlog.errors import TlogError
from sidecar.tlog.trust import Trust

_PAGE = 1000
_SECONDS = 30.0
_MOST_BYTES = 16 << 20
_ALL = 1 << 62
_REFUSED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OUT_OF_RANGE)


class Reviewer:
    """A connection to the store's query listener."""

    def __init__(self, store: str, ca: Path, cert: Path, key: Path) -> None:
        try:
            credentials = grpc.ssl_channel_credentials(ca.read_bytes(), key.read_bytes(), cert.read_bytes())
        except OSError as error:
            raise ConfigurationError(
                f"cannot be read: {error.strerror}", where=str(error.filename), fix="Give --ca, --cert and --key."
            ) from None
        self._store = store
        options = [("grpc.max_receive_message_length", 64 << 20)]
        self._channel = grpc.secure_channel(store, credentials, options)
        self._stub = oversight_pb2_grpc.QueryStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._channel.close()
        if isinstance(error, grpc.RpcError):
            code = error.code()
            said = f"{code.name}: {error.details()}"
            if code in _REFUSED:
                raise ConfigurationError(f"the store refuses the question: {said}", where=self._store) from None
            raise ConfigurationError(
                f"the store does not answer: {said}", where=self._store,
                fix="Check --store, and that the certificate's identity is among the store's reviewers.",
            ) from None  # fmt: skip

    def search(self, asked: Mapping[str, str], limit: int) -> Iterator[pb.StoredRecord]:
        """Matching records, in the order of the log; at most `limit`, or all for 0."""
        cursor, left = "", limit or _ALL
        while left > 0:
            page = self._stub.Search(pb.SearchRequest(**asked, cursor=cursor, limit=min(left, _PAGE)), timeout=_SECONDS)
            yield from page.records
            left -= len(page.records)
            cursor = page.next_cursor
            if not cursor:
                return

    def prove(self, index: int) -> tuple[pb.StoredRecord, bytes]:
        """One record and its tlog-proof."""
        answer = self._stub.Prove(pb.ProveRequest(index=index), timeout=_SECONDS)
        return answer.record, answer.proof.encode()

    def checkpoint(self) -> bytes:
        """The latest published checkpoint."""
        return bytes(self._stub.GetCheckpoint(pb.GetCheckpointRequest(), timeout=_SECONDS).checkpoint)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """Hashes that prove the tree of `new` to continue that of `old`."""
        request = pb.ProveConsistencyRequest(old_size=old, new_size=new)
        return list(self._stub.ProveConsistency(request, timeout=_SECONDS).hashes)

    def completeness(self) -> pb.GetCompletenessResponse:
        """What is missing, doubled or silent."""
        answer: pb.GetCompletenessResponse = self._stub.GetCompleteness(pb.GetCompletenessRequest(), timeout=_SECONDS)
        return answer


def read_trust(path: Path) -> Trust:
    """The trust file. ConfigurationError when it is none."""
    try:
        return Trust.parse(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read: {error.strerror}", where=str(path), fix="Give --trust FILE."
        ) from None
    except TlogError as error:
        raise ConfigurationError(
            f"is no trust file: {error}", where=str(path), fix="It holds `log <vkey>` and `quorum none|<name>` lines."
        ) from None


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
    shown = Table("index", "time", "type", "who", "what", "effect", "why", "call")
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
        return "", "", _at(body, "status"), ""
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
