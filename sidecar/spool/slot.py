"""What a spool is given: its options, its lock, and the records it takes."""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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


def take_lock(path: Path) -> int:
    """Lock the slot for this process (flock(2)); closing the descriptor, or dying, gives it back."""
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise ConfigurationError(
            "another process uses this spool slot", where=str(path),
            fix="Stop it, or give each sidecar its own `record.spool` and each worker its own slot",
        ) from None  # fmt: skip
    return fd


def unusable(folder: Path, error: OSError) -> ConfigurationError:
    """What to raise at start when the folder does not work."""
    return ConfigurationError(
        f"the spool cannot be used: {error.strerror}",
        where=str(folder),
        fix="Check `record.spool`, its rights and the disk",
    )
