"""A snapshot: one file, written whole, verified whole, mapped into memory and never changed.

A header page, a body of sections, and a table with the SHA-256 of every MiB of the body (the last block is shorter):

    header page: the line "customhouse <kind> 1", a line of JSON, the SHA-256 (hex) of both lines, NUL to 4096 bytes
    body: sections, each at a multiple of 8; numbers are unsigned 64-bit, little-endian
    table: 32 bytes for each block

`revision` is the SHA-256 of kind, key, counts, sections and table: of everything but the time of building. All of it
is checked before the first use. The digests find damage, not forgery: whoever may write the file may write another.

Replace a snapshot by renaming a new one over it, as `SnapshotWriter` does. Bytes changed in place show through the
mapping until `followed` looks again, and a file cut short in place ends the process (SIGBUS).
"""

import contextlib
import hashlib
import mmap
import os
import stat
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec

from sidecar.errors import ConfigurationError, IntegrityError

PAGE = 4096
BLOCK = 1 << 20
FORMAT = 1
SKEW = 60.0
"""Seconds by which the builder's clock may be ahead of the reader's. A snapshot from further ahead is not fresh."""

Mark = tuple[int, int, int, int, int]
"""Device, inode, size, and the nanoseconds of the last change of content and of status: which bytes a path means."""

_DIGEST = 32
_MODE = 0o640
_REBUILD = "Build it again and rename it over this one."


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the body: its offset in the file and its size in bytes."""

    at: int
    size: int


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The second line of the file. `built_at` is in unix seconds, `key` and `revision` are hex."""

    built_at: float
    revision: str
    key: str
    counts: dict[str, int]
    sections: dict[str, Section]
    body: int


def mark_of(found: os.stat_result) -> Mark:
    """The mark of a file that was looked at."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _title(kind: str) -> bytes:
    return f"customhouse {kind} {FORMAT}\n".encode()


def _revision(kind: str, header: Header, table: bytes) -> str:
    named = msgspec.json.encode((kind, FORMAT, header.key, header.counts, header.sections, header.body))
    return hashlib.sha256(named + b"\n" + table).hexdigest()


class SnapshotWriter:
    """Writes a snapshot beside its target and puts it in place at `commit`, or not at all.

    A context manager: leaving it without `commit` removes what was written. A target that exists keeps its mode;
    a new one is 0640, because it may name people. A symbolic link is followed: the file it names is replaced.
    """

    def __init__(self, target: Path, kind: str) -> None:
        if sys.byteorder != "little":
            raise ConfigurationError("snapshots are for little-endian machines", where=str(target))
        self._target = Path(os.path.realpath(target))
        if self._target.exists() and not self._target.is_file():
            raise ConfigurationError("not a regular file", where=str(target), fix="Name the file to write.")
        self._kind = kind
        self._sections: dict[str, Section] = {}
        self._table: list[bytes] = []
        self._block = hashlib.sha256()
        self._filled = 0
        self._name = ""
        self.size = 0
        """Bytes of body so far."""

    def __enter__(self) -> Self:
        try:
            handle, self._name = tempfile.mkstemp(dir=self._target.parent, prefix=f".{self._target.name}.")
        except OSError as error:
            raise ConfigurationError(f"nothing can be written there: {error.strerror}", where=str(self._target.parent),
                                     fix="Name a folder that exists and that you may write to.") from None  # fmt: skip
        self._file: BinaryIO = os.fdopen(handle, "wb", buffering=BLOCK)
        self._file.seek(PAGE)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        if self._name:
            with contextlib.suppress(OSError):
                self._file.close()
            with contextlib.suppress(FileNotFoundError):
                Path(self._name).unlink()

    def section(self, name: str) -> None:
        """End the present section and begin another."""
        self._close_section()
        self._append(bytes(-self.size % 8))
        self._sections[name] = Section(PAGE + self.size, -1)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append to the present section. Returns the offset of `data` within it."""
        at = PAGE + self.size - next(reversed(self._sections.values())).at
        self._append(data)
        return at

    def commit(self, *, built_at: float, key: bytes = b"", counts: dict[str, int]) -> str:
        """Make it durable (fsync, rename, fsync of the folder) and return its revision."""
        self._close_section()
        if self._filled:
            self._table.append(self._block.digest())
        table = b"".join(self._table)
        header = Header(built_at=built_at, revision="", key=key.hex(), counts=counts, sections=self._sections,
                        body=self.size)  # fmt: skip
        header = msgspec.structs.replace(header, revision=_revision(self._kind, header, table))
        head = _title(self._kind) + msgspec.json.encode(header) + b"\n"
        head += hashlib.sha256(head).hexdigest().encode() + b"\n"
        if len(head) > PAGE:
            raise ValueError(f"a header of {len(head)} bytes")
        self._file.write(table)
        self._file.seek(0)
        self._file.write(head.ljust(PAGE, b"\0"))
        self._file.flush()
        mode = stat.S_IMODE(self._target.stat().st_mode) if self._target.exists() else _MODE
        os.fchmod(self._file.fileno(), mode)
        os.fsync(self._file.fileno())
        self._file.close()
        Path(self._name).replace(self._target)
        self._name = ""
        _sync_folder(self._target.parent)
        return header.revision

    def _close_section(self) -> None:
        if self._sections:
            name, section = next(reversed(self._sections.items()))
            self._sections[name] = Section(section.at, PAGE + self.size - section.at)

    def _append(self, data: bytes | bytearray | memoryview) -> None:
        self._file.write(data)
        view = memoryview(data)
        self.size += len(view)
        while view:
            part = view[: BLOCK - self._filled]
            self._block.update(part)
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == BLOCK:
                self._table.append(self._block.digest())
                self._block, self._filled = hashlib.sha256(), 0


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Snapshot:
    """A verified snapshot. Its pages belong to the file: workers that map it share them."""

    def __init__(self, path: Path, kind: str) -> None:
        """Read, verify and map. OSError when it cannot be read, IntegrityError when it is not what was written."""
        found = path.stat()  # before opening: opening a pipe would wait for its writer
        if not stat.S_ISREG(found.st_mode):
            raise IntegrityError("not a regular file", where=f"{path}: offset 0", fix=f"Name the {kind} file.")
        with path.open("rb", buffering=0) as file:
            self.mark = mark_of(os.fstat(file.fileno()))
            header = _read_header(path, kind, file.read(PAGE))
            _verify_body(path, kind, header, file, self.mark[2])
            try:
                self._map = mmap.mmap(file.fileno(), self.mark[2], prot=mmap.PROT_READ)
            except ValueError as error:  # cut short since it was read
                raise IntegrityError(str(error), where=f"{path}: offset 0", fix=_REBUILD) from None
        self._map.madvise(mmap.MADV_RANDOM)
        self._view = memoryview(self._map)
        self._sections = header.sections
        self.built_at, self.revision, self.counts = header.built_at, header.revision, header.counts
        self.key = bytes.fromhex(header.key)

    def section(self, name: str) -> memoryview:
        """The bytes of a section."""
        section = self._sections[name]
        return self._view[section.at : section.at + section.size]

    def rest(self) -> None:
        """Give the mapped pages back. They stay in the page cache; the next look-up maps the few it needs."""
        self._map.madvise(mmap.MADV_DONTNEED)


def _read_header(path: Path, kind: str, page: bytes) -> Header:
    def damaged(what: str, at: int = 0, fix: str = _REBUILD) -> IntegrityError:
        return IntegrityError(what, where=f"{path}: offset {at}", fix=fix)

    if len(page) < PAGE:
        raise damaged("the file ends within its header", len(page))
    title = _title(kind)
    if not page.startswith(title):
        words = page[:80].split(b"\n", 1)[0].split()
        if len(words) == 3 and words[0] == b"customhouse":
            other = b" ".join(words[1:]).decode("ascii", "replace")
            raise damaged(f"this is {other!r}, not {title.decode().split(' ', 1)[1].strip()!r}", 0,
                          "Name the right file, or build it again with this version.")  # fmt: skip
        raise damaged(f"not a {kind} file")
    parts = page.split(b"\n", 3)
    if len(parts) < 4 or hashlib.sha256(page[: len(parts[0]) + len(parts[1]) + 2]).hexdigest().encode() != parts[2]:
        raise damaged("the header does not fit its digest", len(title))
    if parts[3].strip(b"\0"):
        raise damaged("bytes behind the header", PAGE - len(parts[3]))
    try:
        return msgspec.json.decode(parts[1], type=Header)
    except msgspec.DecodeError as error:
        raise damaged(f"the header cannot be read: {error}", len(title)) from None


def _verify_body(path: Path, kind: str, header: Header, file: BinaryIO, size: int) -> None:
    def damaged(what: str, at: int) -> IntegrityError:
        return IntegrityError(what, where=f"{path}: offset {at}", fix=_REBUILD)

    blocks = -(-header.body // BLOCK)
    end = PAGE + header.body
    if size != end + blocks * _DIGEST:
        raise damaged(f"the file is {size} bytes long, not {end + blocks * _DIGEST}", min(size, end))
    for name, section in header.sections.items():
        if section.at % 8 or section.at < PAGE or section.size < 0 or section.at + section.size > end:
            raise damaged(f"section {name!r} lies outside the body", section.at)
    file.seek(end)
    table = file.read(blocks * _DIGEST)
    if _revision(kind, header, table) != header.revision:
        raise damaged("the table of digests does not fit the revision", end)
    file.seek(PAGE)
    buffer = memoryview(bytearray(BLOCK))
    for number in range(blocks):
        at = PAGE + number * BLOCK
        wanted = min(BLOCK, end - at)
        if _fill(file, buffer[:wanted]) < wanted:
            raise damaged("the file ends early", at)
        if hashlib.sha256(buffer[:wanted]).digest() != table[number * _DIGEST : (number + 1) * _DIGEST]:
            raise damaged(f"the {wanted} bytes from here do not fit their digest", at)


def _fill(file: BinaryIO, buffer: memoryview) -> int:
    got = 0
    while got < len(buffer):
        step = file.readinto(buffer[got:])  # type: ignore[attr-defined]
        if not step:
            break
        got += step
    return got
