"""What the tests of spool, recorder and delivery share: a slot on disk, a clock, a disk that fails on demand."""

import asyncio
import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from sidecar.api.v1 import oversight_pb2 as wire
from sidecar.enforcement.entries import DecisionEntry, DecisionForm
from sidecar.enforcement.periods import PeriodKey
from sidecar.record import (
    EventBody,
    MessageCounts,
    OutcomeBody,
    PolicyRef,
    Released,
    ReleasedByClass,
    Trace,
    encode_body,
)
from sidecar.spool.files import PosixFiles
from sidecar.spool.frame import Item
from sidecar.spool.log import Spool
from sidecar.spool.reader import Chunk
from sidecar.spool.slot import Draft, SpoolOptions
from sidecar.vocabulary import (
    AccessRequest,
    Action,
    Decision,
    Effect,
    Environment,
    Reason,
    Resource,
    Subject,
    SubjectCounts,
    canonical,
)

STORE_KEY = X25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = STORE_KEY.public_key().public_bytes_raw()
START = datetime(2026, 11, 22, 12, tzinfo=UTC)
TIME = "2026-11-22T12:00:00.000000Z"


class Clock:
    """A wall clock and a monotonic one that stand still until moved."""

    def __init__(self) -> None:
        self.now = START
        self.seconds = 1000.0

    def __call__(self) -> datetime:
        return self.now

    def unix(self) -> float:
        return self.now.timestamp()

    def monotonic(self) -> float:
        return self.seconds

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds


class FailingFiles(PosixFiles):
    """The real files, but each operation named in `fail` raises that errno. `writes` bytes are written before ENOSPC."""

    def __init__(self) -> None:
        self.fail: dict[str, int] = {}
        self.room: int | None = None
        self.calls: list[tuple[str, str]] = []

    def _check(self, name: str) -> None:
        if name in self.fail:
            raise OSError(self.fail[name], "injected")

    def create(self, path: Path) -> int:
        self._check("create")
        return super().create(path)

    def write(self, fd: int, data: bytes) -> int:
        self._check("write")
        if self.room is None:
            return super().write(fd, data)
        if not self.room:
            raise OSError(errno.ENOSPC, "no space left")
        part = data[: self.room]
        self.room -= len(part)
        return super().write(fd, part)

    def truncate(self, file: int | Path, size: int) -> None:
        self._check("truncate")
        super().truncate(file, size)

    def sync(self, fd: int) -> None:
        self._check("sync")
        super().sync(fd)

    def sync_folder(self, folder: Path) -> None:
        self._check("sync_folder")
        self.calls.append(("sync_folder", folder.name))
        super().sync_folder(folder)

    def remove(self, path: Path) -> None:
        self._check("remove")
        self.calls.append(("remove", path.name))
        super().remove(path)

    def replace(self, source: Path, target: Path) -> None:
        self._check("replace")
        self.calls.append(("replace", target.name))
        super().replace(source, target)

    def overwrite(self, path: Path, data: bytes) -> None:
        self._check("overwrite")
        super().overwrite(path, data)


def options(folder: Path, **changes: object) -> SpoolOptions:
    base: dict[str, object] = {"folder": folder, "producer": "profiles-1", "commit_interval": 0.005}
    return SpoolOptions(**(base | changes))  # type: ignore[arg-type]


def open_spool(
    folder: Path, *, files: PosixFiles | None = None, clock: Clock | None = None, **changes: object
) -> Spool:
    clock = clock or Clock()
    return Spool.open(options(folder, **changes), store_key=PUBLIC, now=clock, monotonic=clock.monotonic, files=files)


def sent(chunk: Chunk) -> list[Item]:
    """The records of a chunk as the store reads them."""
    found = wire.Batch.FromString(chunk.items).items
    return [Item(one.leaf, one.salt, one.body, one.nonce, one.sealed_openings) for one in found]


def event(text: str = "x", size: int = 0) -> Draft:
    body = encode_body(EventBody(type="heartbeat", details={"text": text, "pad": "y" * size}))
    return Draft("heartbeat", TIME, None, body)


def request(**changes: object) -> AccessRequest:
    counts = SubjectCounts(**{"us": 1} | changes)  # type: ignore[arg-type]
    return AccessRequest(
        subject=Subject(kind="personnel"),
        action=Action(name="read", service="a.B", method="C"),
        resource=Resource(categories=("id_contact",), subjects=counts),
        context=Environment(time="2026-11-22T12:00Z", phase="response"),
    )


def entry(call_id: str = "call-1", effect: Effect = Effect.PERMIT, **changes: object) -> DecisionEntry:
    decision = Decision(effect=effect, reasons=(Reason(code="not_us_personnel", message="m", rule="r"),))
    form: dict[str, object] = {
        "phase": "response", "service": "a.B", "method": "C", "door": "proxy", "policy": PolicyRef(revision="r1"),
        "directory": "d1", "index": "i1", "input": msgspec.Raw(canonical(request())),
        "decision": msgspec.Raw(msgspec.json.encode(decision)), "obligations": (), "level": "written",
        "engine": "embedded",
    }  # fmt: skip
    form |= {name: changes.pop(name) for name in form.keys() & changes}
    base: dict[str, object] = {
        "call_id": call_id, "trace": Trace(trace_id=None, span_id=None, from_="sidecar"), "eval_us": 48,
        "form": DecisionForm(**form),  # type: ignore[arg-type]
    }  # fmt: skip
    return DecisionEntry(**(base | changes))  # type: ignore[arg-type]


def outcome(call_id: str = "call-1") -> OutcomeBody:
    return OutcomeBody(
        call_id=call_id, status="OK", messages=MessageCounts(in_=1, out=1),
        released=ReleasedByClass(us=Released(records=1, by_category={"id_contact": 1})), dropped=0, redacted={},
        bytes_out=10, duration_ms=1.0, complete=True,
    )  # fmt: skip


def period_key(name: str = "2026-11-01", key: bytes = b"k" * 32, start: datetime | None = None) -> PeriodKey:
    begin = start or datetime(2026, 11, 1, tzinfo=UTC)
    return PeriodKey(name, begin, begin + timedelta(days=30), key)


@dataclass
class FixedKeys:
    """Period keys from memory."""

    keys: list[PeriodKey] = field(default_factory=lambda: [period_key()])

    def current(self, now: datetime) -> PeriodKey | None:
        return next((one for one in self.keys if one.start <= now < one.until), None)


@dataclass
class Notes:
    """An operator's log in memory."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def error(self, event: str, **details: object) -> object:
        self.errors.append(f"{event} {details}")
        return None

    def warning(self, event: str, **details: object) -> object:
        self.warnings.append(f"{event} {details}")
        return None


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)
