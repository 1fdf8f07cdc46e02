"""A bundle in a folder: seen from outside, read, and of a mounted ConfigMap the one generation that is in force.

Nothing in a bundle names a file outside of it: links that lead out are refused.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from sidecar.decision.bundle import (
    MANIFEST,
    MAX_DEPTH,
    MAX_FILES,
    MAX_TOTAL_BYTES,
    SIGNATURES,
    Bundle,
    assemble,
    belongs,
    limit,
    refuse_foreign,
)
from sidecar.errors import ConfigurationError

_SNAPSHOT: Final = "..data"
"""Where Kubernetes keeps the files of a mounted ConfigMap or Secret; it is swapped as a whole."""

Mark = tuple[tuple[str, int, int, int, int, int], ...]
"""A folder seen from outside: name, device, inode, size and times of change of each file of the bundle."""


def mark(folder: Path) -> Mark:
    """What the folder's files look like now; nothing is read. ConfigurationError where `load_folder` would raise it.

    Equal marks mean equal content, but for files that were written twice within one tick of the file system's clock.
    """
    root = _snapshot(folder)
    return tuple(_stamp(root, path) for path in _walk(root, root, 0))


def read_folder(folder: Path) -> dict[str, bytes]:
    """The bundle's files by path, `.signatures.json` among them. ConfigurationError for what cannot be read."""
    return dict(_read(_snapshot(folder)))


def load_folder(folder: Path) -> Bundle:
    """Read a bundle folder. ConfigurationError as `bundle.assemble`, and for links that leave it and files too large."""
    return assemble(str(folder), read_folder(folder))


def opened(path: Path) -> BinaryIO:
    """A file to read. A pipe is opened too, without waiting for its writer: look before reading. OSError."""
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))


def _snapshot(folder: Path) -> Path:
    """The folder to read."""
    try:
        root = folder.resolve(strict=True)
        link = root / _SNAPSHOT
        if not link.is_symlink():
            return root
        inner = link.resolve(strict=True)
    except OSError as error:
        raise ConfigurationError(
            f"the bundle folder cannot be read: {error.strerror}", where=str(folder), fix="Correct the path"
        ) from None
    if inner.parent != root:
        raise ConfigurationError(
            "..data leads out of the folder", where=str(folder), value=str(inner), fix="Mount the bundle anew"
        )
    return inner


def _stamp(root: Path, path: Path) -> tuple[str, int, int, int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable("cannot be read", path, error) from None
    name = path.relative_to(root).as_posix()
    return name, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(root: Path) -> Iterator[tuple[str, bytes]]:
    total = 0
    for count, path in enumerate(_walk(root, root, 0), start=1):
        name = path.relative_to(root).as_posix()
        content = _content(path, limit(name))
        total += len(content)
        if total > MAX_TOTAL_BYTES or count > MAX_FILES:
            raise ConfigurationError(
                f"the bundle is larger than {MAX_TOTAL_BYTES} bytes or {MAX_FILES} files", where=str(root),
                fix="Keep people and ids out of policy data: the directory and the subject index hold them",
            )  # fmt: skip
        yield name, content


def _walk(root: Path, folder: Path, depth: int) -> Iterator[Path]:
    if depth > MAX_DEPTH:
        raise ConfigurationError(f"folders nested deeper than {MAX_DEPTH}", where=str(folder), fix="Flatten the bundle")
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable("cannot be listed", folder, error) from None
    for entry in entries:
        path = Path(entry.path)
        hidden = entry.name.startswith(".") and entry.name not in (MANIFEST, SIGNATURES)
        if entry.is_dir(follow_symlinks=False):
            if not hidden:
                yield from _walk(root, path, depth + 1)
            continue
        name = path.relative_to(root).as_posix()
        _refuse_odd(path, name)
        if hidden:
            continue
        if belongs(name) or name == SIGNATURES:
            # Not `resolve`: it fails on a link that leads to itself, which is found when the file is read.
            if entry.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                raise ConfigurationError(
                    "a link leads out of the bundle", where=str(path), fix="Copy the file into the bundle"
                )
            yield path
        elif entry.is_symlink() and path.is_dir():
            raise ConfigurationError(
                "a folder of the bundle is a link", where=str(path), fix="Copy the folder into the bundle"
            )


def _refuse_odd(path: Path, name: str) -> None:
    refuse_foreign(str(path), name)
    if belongs(name) and (not name.isprintable() or "\\" in name):
        # A line feed in a name would let two lists of files have one digest (`bundle.digest`).
        raise ConfigurationError("the name is not a plain one", where=repr(str(path)), fix="Rename the file")


def _content(path: Path, most: int) -> bytes:
    try:
        with opened(path) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigurationError("not a regular file", where=str(path), fix="Replace it by one")
            content = file.read(most + 1)
    except OSError as error:
        raise _unreadable("cannot be read", path, error) from None
    if len(content) > most:
        raise ConfigurationError(f"larger than {most} bytes", where=str(path), fix="Split the file, or trim the data")
    return content


def _unreadable(what: str, path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"{what}: {error.strerror}", where=str(path), fix="Let the sidecar's user read the bundle"
    )
