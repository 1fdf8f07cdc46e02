"""The few things the spool asks of a file system. Tests hand it one that fails where they want."""

import os
from pathlib import Path
from typing import Protocol


class Files(Protocol):
    """File operations. Each raises OSError like the system call it names."""

    def create(self, path: Path) -> int:
        """Open a new file for appending, mode 0600; FileExistsError when it is there."""

    def write(self, fd: int, data: bytes) -> int:
        """Hand bytes to the kernel: they survive this process, not the host. May write less."""

    def truncate(self, file: int | Path, size: int) -> None:
        """Cut the file, open or not, to this size."""

    def sync(self, fd: int) -> None:
        """fdatasync(2). A failure is final: the kernel may have dropped the pages and forgotten the error."""

    def sync_folder(self, folder: Path) -> None:
        """fsync(2) of a folder: names made or removed in it are durable once this returns."""

    def close(self, fd: int) -> None:
        """Close the descriptor."""

    def remove(self, path: Path) -> None:
        """unlink(2)."""

    def replace(self, source: Path, target: Path) -> None:
        """rename(2)."""

    def reserve(self, path: Path, size: int) -> None:
        """Make a file that holds `size` bytes of disk."""

    def overwrite(self, path: Path, data: bytes) -> None:
        """Put `data` in the place of a file's content (made when missing), durable once this returns.

        Blocks that the file has are used again, so that a full disk is no hindrance.
        """

    def open_read(self, path: Path) -> int:
        """Open for reading."""

    def read_at(self, fd: int, offset: int, size: int) -> bytes:
        """pread(2)."""


class PosixFiles:
    """The real ones."""

    def create(self, path: Path) -> int:
        """See `Files`: O_EXCL | O_APPEND."""
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)

    write = staticmethod(os.write)
    """See `Files`: write(2) itself, one function less for every record."""

    def truncate(self, file: int | Path, size: int) -> None:
        """See `Files`: by path or by descriptor."""
        os.truncate(file, size)

    def sync(self, fd: int) -> None:
        """See `Files`: fdatasync(2)."""
        os.fdatasync(fd)

    def sync_folder(self, folder: Path) -> None:
        """See `Files`: fsync(2)."""
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self, fd: int) -> None:
        """See `Files`."""
        os.close(fd)

    def remove(self, path: Path) -> None:
        """See `Files`: unlink(2); a missing file is no error."""
        path.unlink(missing_ok=True)

    def replace(self, source: Path, target: Path) -> None:
        """See `Files`: rename(2)."""
        source.replace(target)

    def reserve(self, path: Path, size: int) -> None:
        """See `Files`: posix_fallocate(3)."""
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
        finally:
            os.close(fd)

    def overwrite(self, path: Path, data: bytes) -> None:
        """See `Files`: pwrite(2), ftruncate(2), fsync(2)."""
        fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(fd, data[done:], done)
            os.ftruncate(fd, len(data))
            os.fsync(fd)
        finally:
            os.close(fd)

    def open_read(self, path: Path) -> int:
        """See `Files`: O_RDONLY."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read_at(self, fd: int, offset: int, size: int) -> bytes:
        """See `Files`: pread(2)."""
        return os.pread(fd, size, offset)


def replace_durably(files: Files, path: Path, data: bytes) -> None:
    """Replace a file so that a crash leaves the old content or the new one: spare, fsync, rename, fsync of the folder.

    A spare file, made beforehand, keeps blocks for the next time: on a full disk the state can still be written, without
    which no segment could be deleted and the disk would stay full.
    """
    spare = path.with_name(f"{path.name}.spare")
    files.overwrite(spare, data)
    files.replace(spare, path)
    files.sync_folder(path.parent)


def keep_spare(files: Files, path: Path, size: int) -> None:
    """Reserve blocks for the next `replace_durably`; a full disk is no error, there is the old one to fall back on."""
    try:
        files.reserve(path.with_name(f"{path.name}.spare"), size)
    except OSError:
        return
