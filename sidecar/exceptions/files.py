"""Files that are looked at again and again: whether one has changed, and what is in it, within bounds."""

import os
from pathlib import Path
from stat import S_ISREG

from sidecar.exceptions.jws import SignedObjectError

Mark = tuple[int, ...]


def mark(path: Path) -> Mark:
    """Which bytes a path means now. OSError, also for what is no regular file: opening a pipe would wait for its writer."""
    found = path.stat()
    if not S_ISREG(found.st_mode):
        raise OSError(0, "not a regular file")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def read(path: Path, limit: int) -> bytes:
    """The bytes of a file. OSError, also for what is no regular file; SignedObjectError for more than `limit` of them.

    Never waits: what stands at a path may have been exchanged for a pipe since somebody looked.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "not a regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise SignedObjectError(f"more than {limit} bytes")
    return data


def why(error: Exception) -> str:
    """What to tell an operator."""
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
