"""Builds the subject index from CSV (header `id,country`, optionally `as_of` and `kind`) or JSON Lines (the same keys).

Ids are exact: every byte counts, spaces too; an integer in JSON is its decimal text. `country` is where the subject
belongs, an assigned ISO 3166-1 code; PR GU VI AS MP UM are US (28 CFR 202.255). Leave out whoever's country is not
known. `kind` is the namespace of the id, `person` when left out. Rows that disagree about an id make it US.

Memory does not grow with the source: hashes are dealt to 256 buckets by their first byte, spilled to an unnamed
temporary file beside the target (hashes only, never ids), and sorted bucket by bucket.
"""

import os
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from rich.progress import Progress

from sidecar.administration.rows import BadRows, BuildReport
from sidecar.administration.subject_rows import Row, read
from sidecar.attributes.hashes import write_hashes
from sidecar.attributes.snapshots import SnapshotWriter
from sidecar.attributes.subjects_index import DEFAULT_KIND, KEY_SIZE, KIND, hasher
from sidecar.errors import ConfigurationError

SHOWN = 20
"""Bad rows that are named; the rest are counted."""
BUCKETS = 256
SPILL = 1_000_000
"""Hashes held before they are spilled: about 50 MB."""


class Spill:
    """Hashes of one class by bucket, on disk. `add[first byte](digest)` while reading, then `bucket(n)`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._held: list[list[bytes]] = [[] for _ in range(BUCKETS)]
        self._runs: list[list[tuple[int, int]]] = [[] for _ in range(BUCKETS)]
        self.count = 0
        """Hashes spilled, doubles included."""
        self.add: list[Callable[[bytes], None]] = [held.append for held in self._held]

    def spill(self) -> None:
        """Write what is held."""
        self.count += sum(map(len, self._held))
        self._file.seek(0, os.SEEK_END)
        at = self._file.tell()
        for held, runs in zip(self._held, self._runs, strict=True):
            if held:
                data = b"".join(held)
                self._file.write(data)
                runs.append((at, len(data)))
                at += len(data)
                held.clear()

    def bucket(self, number: int) -> set[int]:
        """The distinct hashes of a bucket, as numbers."""
        numbers = array("Q")
        for at, size in self._runs[number]:
            self._file.seek(at)
            numbers.frombytes(self._file.read(size))
        numbers.byteswap()  # a digest is read big-endian
        return set(numbers)


class _Counts:
    def __init__(self) -> None:
        self.rows = self.us = self.non_us = self.conflicts = 0


def build(source: Path, target: Path, progress: Progress, *, clock: Callable[[], float] = time.time,  # noqa: TID251
          randomness: Callable[[int], bytes] = os.urandom) -> BuildReport:  # fmt: skip
    """Check every row and write the index to `target`, atomically; nothing while one row is bad.

    `clock` is UTC in unix seconds, `randomness` makes the key of the hashes. Bad rows are in the report, not raised.
    ConfigurationError when the source cannot be read, has no header, or the target cannot be written.
    """
    if target.resolve() == source.resolve():
        raise ConfigurationError("the target is the source", where=str(target), fix="Name another file to write.")
    now, key = clock(), randomness(KEY_SIZE)
    bad, counts = BadRows(shown=SHOWN), _Counts()
    with SnapshotWriter(target, KIND) as writer:
        with (tempfile.TemporaryFile(dir=target.resolve().parent) as us_file,
              tempfile.TemporaryFile(dir=target.resolve().parent) as other_file):  # fmt: skip
            us, non_us = Spill(us_file), Spill(other_file)
            _deal(read(source, progress, bad), key, us, non_us, bad=bad, counts=counts)
            if bad.count:
                return bad.report(target)
            _sort(us, non_us, writer, progress, counts)
        revision = writer.commit(built_at=now, key=key, counts={"us": counts.us, "non_us": counts.non_us})
    built = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = [f"{counts.rows} rows: {counts.us} US and {counts.non_us} non-US ids; all others are `unknown`"]
    if counts.conflicts:
        lines.append(f"{counts.conflicts} ids are both US and non-US in the source: they count as US")
    lines.append(f"{target}: revision {revision}, built {built}")
    return BuildReport(lines=lines, bad=0)


def _deal(blocks: Iterator[list[Row]], key: bytes, us: Spill, non_us: Spill, *, bad: BadRows, counts: _Counts) -> None:
    """Hash every row of every block and deal it to its bucket."""
    fed = {DEFAULT_KIND: hasher(key, DEFAULT_KIND).copy}
    adders = (non_us.add, us.add)
    held = 0
    for block in blocks:
        if bad.count:  # only naming bad rows from here on
            continue
        for subject_id, is_us, kind in block:
            if kind not in fed:
                fed[kind] = hasher(key, kind).copy
            one = fed[kind]()
            one.update(subject_id)
            digest = one.digest()
            adders[is_us][digest[0]](digest)
        counts.rows += len(block)
        held += len(block)
        if held >= SPILL:
            us.spill()
            non_us.spill()
            held = 0
    us.spill()
    non_us.spill()


def _sort(us: Spill, non_us: Spill, writer: SnapshotWriter, progress: Progress, counts: _Counts) -> None:
    task = progress.add_task("Sorting", total=2 * BUCKETS)

    def listed() -> Iterator[list[int]]:
        for number in range(BUCKETS):
            progress.advance(task)
            yield sorted(us.bucket(number))

    def cleared() -> Iterator[list[int]]:
        for number in range(BUCKETS):
            progress.advance(task)
            found, also_us = non_us.bucket(number), us.bucket(number)
            counts.conflicts += len(found & also_us)
            yield sorted(found - also_us)

    counts.us = write_hashes(writer, "us", listed(), us.count)
    counts.non_us = write_hashes(writer, "non_us", cleared(), non_us.count)
