"""What a spool is given: its options, its lock, and the records it takes."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from sidecar._native import DecisionForm
from sidecar.errors import ConfigurationError
from sidecar.record import RecordType


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolOptions:
    """`folder` is `record.spool`; the slot's own folder is made in it. Sizes in bytes, times in seconds.

    `commit_interval`: within which a record that nobody waits for is made durable (and so can be sent).
    """

    folder: Path
    producer: str
    slot: int = 0
    max_bytes: int = 8 * 1024**3
    segment_bytes: int = 16 * 1024**2
    commit_interval: float = 0.05

    def __post_init__(self) -> None:
        """Raise ConfigurationError for sizes that leave no room to delete one segment while another is written."""
        if self.segment_bytes * 4 > self.max_bytes:
            raise ConfigurationError(
                "too small for four segments", where="record.max_bytes", value=self.max_bytes,
                fix=f"Give at least {4 * self.segment_bytes} bytes",
            )  # fmt: skip


class Draft(NamedTuple):
    """A record before it has its place. `time` is RFC 3339 UTC with microseconds; `openings` plain (they get sealed).

    `opens`: a permit, whose call stays open until its outcome.
    """

    type: RecordType
    time: str
    call_id: str | None
    body: bytes
    openings: bytes = b""
    opens: bool = False


Drafted = tuple[RecordType, str, str | None, bytes, bytes, bool]
"""What a `Draft` holds, without the names: making one for each record would cost as much as its hash."""


class Decided(Protocol):
    """A decision, of which the compiled module makes the record (`DecisionEntry`)."""

    @property
    def call_id(self) -> str:
        """Of its call."""

    @property
    def form(self) -> DecisionForm:
        """What its record says whichever call it is."""


class SlotInUseError(ConfigurationError):
    """Another process has the slot. Whoever may have any of several takes another one."""


def take_lock(path: Path) -> int:
    """Lock the slot for this process (flock(2)); closing the descriptor, or dying, gives it back. SlotInUseError."""
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise SlotInUseError(
            "another process uses this spool slot", where=str(path),
            fix="Stop it, or give each sidecar its own `record.spool` and each worker its own slot",
        ) from None  # fmt: skip
    return fd


@contextmanager
def held(spool: Path) -> Iterator[None]:
    """No other sidecar uses the spool meanwhile. ConfigurationError when one does."""
    try:
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(spool / "sidecar.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"the spool cannot be used: {error.strerror}",
            where=f"record.spool: {spool}",
            fix="Check its rights and the disk.",
        ) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                "another sidecar uses this spool", where=f"record.spool: {spool}",
                fix="Stop it, or give each sidecar its own `record.spool`. For more processes, set `workers`",
            ) from None  # fmt: skip
        yield
    finally:
        os.close(lock)


def unusable(folder: Path, error: OSError) -> ConfigurationError:
    """What to raise at start when the folder does not work."""
    return ConfigurationError(
        f"the spool cannot be used: {error.strerror}",
        where=str(folder),
        fix="Check `record.spool`, its rights and the disk",
    )
