"""A bundle in one file: OPA's .tar.gz, read without believing a word of it, and written so that equal content is equal.

Reading takes one pass in memory and puts nothing on disk. It is a reader of its own because the usual ones are made to
extract whatever can be extracted: they take a damaged header for the end, follow sizes that an entry claims, and join
compressed members that other readers leave out. Here whatever is unusual is an error:

* sizes are bounded, compressed and not, before anything is allocated for them;
* an entry is a plain file or a folder; links, devices and sparse files are not;
* names are relative (one leading slash, as OPA writes it, is taken off), clean, and differ by more than their case;
* the archive ends with zeros and nothing behind them.
"""

import gzip
import io
import re
import tarfile
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NoReturn

from sidecar.decision import manifest
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

MAX_ARCHIVE_BYTES: Final = 64 << 20
_MAX_INFLATED: Final = MAX_TOTAL_BYTES + (16 << 20)
_MAX_NAME: Final = 1024
_MAX_EXTENSION: Final = 64 << 10
_BLOCK: Final = 512
_CHUNK: Final = 64 << 10
_OCTAL: Final = re.compile(rb"[ ]*([0-7]*)[ \0]*\Z")
_PAX: Final = re.compile(rb"([1-9][0-9]{0,6}) ")
_KINDS: Final = {
    b"1": "a hard link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe", b"7": "a contiguous file",
    b"K": "a link", b"S": "a sparse file", b"V": "a volume label", b"M": "a part of another archive",
}  # fmt: skip


def load_archive(content: bytes, where: str) -> Bundle:
    """The bundle in these bytes; `where` names them in errors. ConfigurationError as `bundle.assemble`, and as above."""
    return assemble(where, read_archive(content, where))


def read_archive(content: bytes, where: str) -> dict[str, bytes]:
    """The bundle's files by path, `.signatures.json` among them; what belongs to no bundle is passed over."""
    if len(content) > MAX_ARCHIVE_BYTES:
        _refuse(where, f"the archive is larger than {MAX_ARCHIVE_BYTES} bytes", fix=_TRIM)
    files: dict[str, bytes] = {}
    total = 0
    for name, body in _entries(_Inflated(content, where), where):
        if body is None:
            continue
        files[name] = body
        total += len(body)
        if total > MAX_TOTAL_BYTES or len(files) > MAX_FILES:
            _refuse(where, f"the bundle is larger than {MAX_TOTAL_BYTES} bytes or {MAX_FILES} files", fix=_TRIM)
    return files


def write_archive(files: Iterable[tuple[str, bytes]]) -> bytes:
    """A .tar.gz of these files: in path order, without times and owners, so that the same files give the same bytes.

    (With the same zlib: another may compress otherwise. The revision does not depend on it.)
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), 9, mtime=0)


def built(bundle: Bundle) -> tuple[tuple[str, bytes], ...]:
    """The bundle's files with its revision in the manifest, where OPA reads it; without signatures, which it outdates."""
    return tuple(
        (name, manifest.stamped(name, content, bundle.revision) if name == MANIFEST else content)
        for name, content in bundle.files
    )


def exact(bundle: Bundle) -> tuple[tuple[str, bytes], ...]:
    """The bundle's files as they were read, signatures included."""
    return (*bundle.files, (SIGNATURES, bundle.signatures)) if bundle.signatures else bundle.files


_TRIM: Final = "Keep people and ids out of policy data: the directory and the subject index hold them"
_ANEW: Final = "Build it anew with `sidecar policy build`"


def _refuse(where: str, what: str, value: object = None, fix: str = _ANEW) -> NoReturn:
    raise ConfigurationError(what, where=where, value=value, fix=fix)


class _Inflated:
    """A gzip member, unpacked as far as it is read, up to the limit."""

    def __init__(self, content: bytes, where: str) -> None:
        self._content, self._where = content, where
        self._inflate = zlib.decompressobj(wbits=31)
        self._at, self._unpacked = 0, 0
        self._held = bytearray()

    def read(self, size: int) -> bytes:
        """Exactly so many bytes; fewer only at the end."""
        while len(self._held) < size and self._more():
            pass
        found = bytes(self._held[:size])
        del self._held[:size]
        return found

    def _more(self) -> bool:
        if self._inflate.eof:
            if self._inflate.unused_data or self._at < len(self._content):
                _refuse(self._where, "something follows the compressed archive")
            return False
        fed = self._inflate.unconsumed_tail
        if not fed:
            fed = self._content[self._at : self._at + _CHUNK]
            self._at += len(fed)
        if not fed:
            _refuse(self._where, "the archive is cut short", fix="Copy or build it anew")
        try:
            part = self._inflate.decompress(fed, _CHUNK)
        except zlib.error as error:
            _refuse(self._where, f"not a .tar.gz: {error}")
        self._unpacked += len(part)
        if self._unpacked > _MAX_INFLATED:
            _refuse(self._where, f"the archive unpacks to more than {_MAX_INFLATED} bytes", fix=_TRIM)
        self._held += part
        return True


@dataclass(slots=True)
class _Header:
    name: bytes
    size: int
    kind: bytes


def _entries(stream: _Inflated, where: str) -> Iterator[tuple[str, bytes | None]]:
    """Path and content of each file; None for the content of what is passed over."""
    seen: set[str] = set()
    count = 0
    extended: dict[bytes, bytes] = {}
    while (header := _header(stream, where)) is not None:
        count += 1
        if count > 2 * MAX_FILES:
            _refuse(where, f"more than {2 * MAX_FILES} entries", fix=_TRIM)
        if header.kind in (b"x", b"g", b"L"):
            found = _extension(stream, header, where)
            extended = extended if header.kind == b"g" else {**extended, **found}
            continue
        name = _clean(extended.get(b"path", header.name), where, folder=header.kind == b"5")
        size = _number(extended[b"size"], where) if b"size" in extended else header.size
        extended = {}
        if header.kind == b"5":
            if size:
                _refuse(where, "a folder with content", name)
            continue
        if header.kind not in (b"0", b"\0"):
            _refuse(where, f"{_KINDS.get(header.kind, 'an entry of no known kind')} in the archive", name)
        if (key := unicodedata.normalize("NFC", name).casefold()) in seen:
            _refuse(where, "two entries of one name (but for its case)", name)
        seen.add(key)
        yield name, _body(stream, name, size, where)
    if extended:
        _refuse(where, "the archive ends within an entry")


def _header(stream: _Inflated, where: str) -> _Header | None:
    block = stream.read(_BLOCK)
    if len(block) < _BLOCK:
        _refuse(where, "the archive is cut short" if block else "the archive has no end", fix="Copy or build it anew")
    if not any(block):
        while rest := stream.read(_CHUNK):
            if any(rest):
                _refuse(where, "something follows the end of the archive")
        return None
    if sum(block[:148]) + 8 * 0x20 + sum(block[156:]) != _number(block[148:156], where):
        _refuse(where, "the header of an entry is damaged")
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and (prefix := block[345:500].split(b"\0", 1)[0]):
        name = prefix + b"/" + name
    return _Header(name, _number(block[124:136], where), block[156:157])


def _number(field: bytes, where: str) -> int:
    # In a header octal and padded; in an extension decimal, which is read as such by its caller.
    found = _OCTAL.fullmatch(field)
    if found is None:
        _refuse(where, "a number in the header of an entry is damaged or too large", fix=_TRIM)
    return int(found[1] or b"0", 8)


def _extension(stream: _Inflated, header: _Header, where: str) -> dict[bytes, bytes]:
    """What a header that goes before another says of it: its path and its size, in octal."""
    if header.size > _MAX_EXTENSION:
        _refuse(where, "the header of an entry is too large")
    content = _padded(stream, header.size, where)
    if header.kind == b"L":
        return {b"path": content.rstrip(b"\0")}
    found = {}
    for key, value in _records(content, where):
        if key in (b"path", b"size") and header.kind == b"g":
            _refuse(where, "one path or size for all entries")
        if key.startswith(b"GNU.sparse.") or key == b"hdrcharset":
            _refuse(where, "an entry that is sparse or of an unknown character set")
        if key == b"size":
            if not value.isdigit() or len(value) > 18:
                _refuse(where, "the size of an entry is no number")
            found[key] = b"%o" % int(value)
        elif key == b"path":
            found[key] = value
    return found


def _records(content: bytes, where: str) -> Iterator[tuple[bytes, bytes]]:
    """Records of pax (POSIX.1-2001): `length SP key = value LF`, where the length counts all of it."""
    at = 0
    while at < len(content):
        head = _PAX.match(content, at)
        end = at + int(head[1]) if head is not None else 0
        if head is None or end > len(content) or content[end - 1 : end] != b"\n":
            _refuse(where, "the header of an entry is damaged")
        key, equals, value = content[head.end() : end - 1].partition(b"=")
        if not equals or not key:
            _refuse(where, "the header of an entry is damaged")
        yield key, value
        at = end


def _body(stream: _Inflated, name: str, size: int, where: str) -> bytes | None:
    if not (belongs(name) or name == SIGNATURES):
        left = size + -size % _BLOCK
        while left > 0:
            left -= len(part := stream.read(min(left, _CHUNK)))
            if not part:
                _refuse(where, "the archive is cut short", name, fix="Copy or build it anew")
        return None
    if size > limit(name):
        _refuse(f"{where}/{name}", f"larger than {limit(name)} bytes", fix="Split the file, or trim the data")
    return _padded(stream, size, where)


def _padded(stream: _Inflated, size: int, where: str) -> bytes:
    padded = size + -size % _BLOCK
    content = stream.read(padded)
    if len(content) < padded:
        _refuse(where, "the archive is cut short", fix="Copy or build it anew")
    return content[:size]


def _clean(raw: bytes, where: str, *, folder: bool) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        _refuse(where, "the name of an entry is not UTF-8", raw[:80].decode("latin-1"))
    name = name.removeprefix("./").removeprefix("/")
    if folder:
        name = name.removesuffix("/")
        if name in ("", "."):
            return ""
    parts = name.split("/")
    if ".." in parts:
        _refuse(where, "the name of an entry leads out of the bundle", name[:80])
    if (
        not all(part and part != "." for part in parts)
        or "\\" in name
        or not name.isprintable()
        or len(raw) > _MAX_NAME
    ):
        _refuse(where, "the name of an entry is not a plain relative path", name[:80])
    if len(parts) > MAX_DEPTH:
        _refuse(where, f"folders nested deeper than {MAX_DEPTH}", name[:80], fix="Flatten the bundle")
    if not folder:
        refuse_foreign(where, name)
        if any(part.startswith(".") for part in parts) and name not in (MANIFEST, SIGNATURES):
            _refuse(where, "a hidden file in the archive", name[:80], fix="Leave it out")
    return name
