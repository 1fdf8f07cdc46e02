"""What a start finds on disk.

* A frame that is not whole, at the end of the last segment, is what a kill leaves: it is cut and reported.
* The same with whole frames behind it, or in an earlier segment whose next does not write those records again, is damage:
  IntegrityError with file and offset, nothing changed.
* A missing segment that `state` does not list as deleted is damage too; one that it lists and that is still there was
  about to be deleted: it is removed now.
"""

import os
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from sidecar.errors import ConfigurationError, IntegrityError
from sidecar.record import OutcomeBody, leaf_digest
from sidecar.spool.frame import FRAME_OVERHEAD, FrameError, Item, find_frame, parse_item, read_frame
from sidecar.spool.retention import Ranges
from sidecar.spool.segment import Head, Header, Segment, list_segments, parse_header
from sidecar.spool.state import State, read_state
from sidecar.spool.unfinished import unknown_outcome

_KEEP = (
    "Stop here and keep a copy of the slot's folder for the reviewers: nothing was changed. Restore the file from a copy "
    "if there is one; otherwise cut it there (truncate -s OFFSET FILE) to give up what follows, which the store will "
    "show as missing"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Torn:
    """What was cut from the end of a segment. `kept`: where the bytes are, when they were not just an unfinished write."""

    path: Path
    offset: int
    size: int
    why: str
    kept: Path | None = None


@dataclass(slots=True, kw_only=True)
class Recovered:
    """The slot as found. `head` is the chain's last record; `unfinished` the outcomes that are owed."""

    state: State
    segments: list[Segment] = field(default_factory=list)
    head: Head | None = None
    next_number: int = 1
    records: int = 0
    unfinished: list[OutcomeBody] = field(default_factory=list)
    torn: list[Torn] = field(default_factory=list)


class _Link(msgspec.Struct):
    """The parts of a leaf that make the chain."""

    type: str
    epoch: str
    seq: int
    prev: str | None
    call_id: str | None


_link_decoder = msgspec.json.Decoder(_Link)


def recover(folder: Path, *, producer: str, slot: int) -> Recovered:
    """Read a slot's folder; IntegrityError when something in it is damaged or missing."""
    state = read_state(folder)
    paths = list_segments(folder)
    for number in [one for one in paths if state.is_deleted(one)]:
        paths.pop(number).unlink()
    _check_none_missing(folder, state, paths)
    scan = _Scan(producer=producer, slot=slot, state=state)
    numbers = list(paths)
    for index, number in enumerate(numbers):
        scan.segment(number, paths[number], [paths[later] for later in numbers[index + 1 :]])
    found = scan.found
    newest = found.segments[-1].number if found.segments else 0
    found.next_number = max(newest, state.newest) + 1
    if newest < state.newest or found.head is None:
        found.head = state.head
    found.unfinished = list(scan.unfinished())
    _pass_over_copies(found.segments)
    return found


def _pass_over_copies(segments: Sequence[Segment]) -> None:
    """A segment whose records all stand in a later one again had been given up: that one alone has them in their order.

    Given-up segments before it may be gone already; sent from here, its records would overtake those that stood there.
    """
    for index, one in enumerate(segments):
        for later in segments[index + 1 :]:
            if later.epoch == one.epoch and later.first_seq <= one.first_seq and one.next_seq <= later.next_seq:
                one.next_seq = one.durable_seq = one.first_seq


def _check_none_missing(folder: Path, state: State, paths: dict[int, Path]) -> None:
    for number in range(1, max([state.newest, *paths]) + 1):
        if number not in paths and not state.is_deleted(number):
            raise IntegrityError(
                "a segment of the spool is missing and was never deleted by the sidecar",
                where=f"{folder}, segment {number:08d}.seg",
                fix="Restore the file. If it is lost, move the slot's folder aside (keep it for the reviewers): the chain "
                "then starts without a previous epoch, and the store shows the old one as tail_unknown",
            )


class _Scan:
    """Walks the segments in order."""

    def __init__(self, *, producer: str, slot: int, state: State) -> None:
        self.found = Recovered(state=state)
        self._producer = producer
        self._slot = slot
        self._closed = {call_id for _, call_id in state.closed}
        self._decisions: dict[str, list[tuple[Path, int]]] = {}
        self._epoch = ""
        self._digests: dict[int, bytes] = {}
        self._seen = Ranges()

    def segment(self, number: int, path: Path, later: Sequence[Path]) -> None:
        """Check one segment and note what it holds. `later`: the segments after it."""
        data = path.read_bytes()
        try:
            header, start = parse_header(data)
        except FrameError as error:
            self._headless(number, path, data, str(error), last=not later)
            return
        if (header.number, header.producer, header.slot) != (number, self._producer, self._slot):
            raise IntegrityError(
                f"this is segment {header.number} of producer {header.producer!r}, slot {header.slot}",
                where=f"{path}, offset 0",
                fix=f"This folder is for producer {self._producer!r}, slot {self._slot}: give each its own `record.spool`",
            )
        segment = Segment(
            number=number, path=path, epoch=header.epoch, sealed_epoch_key=header.sealed_epoch_key,
            first_seq=header.first_seq, next_seq=header.first_seq, durable_seq=header.first_seq,
            start=start, size=len(data), durable=start,
        )  # fmt: skip
        self._link(header, path)
        self._contiguous(header, later)
        self._frames(segment, header.before, data, later)
        _sync(path)
        segment.durable_seq = segment.next_seq
        self.found.segments.append(segment)

    def unfinished(self) -> list[OutcomeBody]:
        """The outcomes of calls that were permitted and have none."""
        outcomes = (unknown_outcome(call_id, map(_body_at, places)) for call_id, places in self._decisions.items())
        return [outcome for outcome in outcomes if outcome is not None]

    def _headless(self, number: int, path: Path, data: bytes, why: str, *, last: bool) -> None:
        if find_frame(data, 0) is not None:
            raise IntegrityError(f"the segment's header is damaged: {why}", where=f"{path}, offset 0", fix=_KEEP)
        self.found.torn.append(Torn(path=path, offset=0, size=len(data), why=why))
        if last:
            path.unlink()
            return
        self.found.segments.append(
            Segment(number=number, path=path, epoch="", sealed_epoch_key=b"", first_seq=0, next_seq=0, durable_seq=0,
                    size=len(data), durable=0)
        )  # fmt: skip

    def _link(self, header: Header, path: Path) -> None:
        """Check that the segment follows what was read before, unless something between was deleted."""
        head, before = self.found.head, header.before
        if head is None:
            self.found.head = before
        known = None
        if head is not None and before is not None and before.epoch == head.epoch:
            known = head.hash if before.seq == head.seq else self._digests.get(before.seq)
        if known is not None and before is not None and before.hash != known:
            raise IntegrityError("the segment does not follow the one before it", where=f"{path}, offset 0", fix=_KEEP)

    def _contiguous(self, header: Header, later: Sequence[Path]) -> None:
        """Check that the segment just before, if it is there, was not cut short at the end of a frame."""
        last = self.found.segments[-1] if self.found.segments else None
        if last is None or last.number != header.number - 1 or not last.epoch:
            return
        if last.epoch != header.epoch:
            whole = self.found.head == header.before
        else:
            whole = header.first_seq <= last.next_seq or _written_again(later, last)
        if not whole:
            raise IntegrityError(
                "records are missing at the end of the segment: the next one goes on further",
                where=f"{last.path}, offset {last.size}", fix=_KEEP,
            )  # fmt: skip

    def _frames(self, segment: Segment, before: Head | None, data: bytes, later: Sequence[Path]) -> None:
        at = segment.start
        if self._epoch != segment.epoch:
            self._epoch, self._digests, self._seen = segment.epoch, {}, Ranges()
        rewritten, self._digests = self._digests, {}
        previous = b64encode(before.hash).decode() if before else None
        while at < len(data):
            try:
                payload = read_frame(data, at)
                item = parse_item(payload)
            except FrameError as error:
                self._broken(segment, data, at, error, later)
                return
            link = _link_of(item, segment.path, at)
            digest = leaf_digest(item.leaf)
            again = rewritten.get(link.seq) if rewritten else None
            if (link.epoch, link.seq, link.prev) != (segment.epoch, segment.next_seq, previous) or (
                again is not None and again != digest
            ):
                raise IntegrityError(
                    "the record does not continue the chain", where=f"{segment.path}, offset {at}", fix=_KEEP
                )
            if not self._seen.covers(link.seq, link.seq + 1):
                self._note(link, segment.path, at)
            self._digests[link.seq] = digest
            previous = b64encode(digest).decode()
            segment.next_seq += 1
            at += FRAME_OVERHEAD + len(payload)
            segment.durable = at
        self._advance(segment)

    def _advance(self, segment: Segment) -> None:
        self._seen.add(segment.first_seq, segment.next_seq - segment.first_seq)
        if not self._digests:
            return
        last = segment.next_seq - 1
        head = self.found.head
        if head is None or head.epoch != segment.epoch or last >= head.seq:
            self.found.head = Head(epoch=segment.epoch, seq=last, hash=self._digests[last])

    def _note(self, link: _Link, path: Path, at: int) -> None:
        self.found.records += 1
        if link.call_id is None:
            return
        if link.type == "decision" and link.call_id not in self._closed:
            self._decisions.setdefault(link.call_id, []).append((path, at))
        elif link.type == "outcome":
            self._decisions.pop(link.call_id, None)

    def _broken(self, segment: Segment, data: bytes, at: int, error: FrameError, later: Sequence[Path]) -> None:
        """A frame is not whole: cut a torn end, pass over what the next segment writes again, stop at damage."""
        path = segment.path
        if later:
            if not _written_again(later, segment):
                raise IntegrityError(f"the segment is damaged: {error}", where=f"{path}, offset {at}", fix=_KEEP)
            self.found.torn.append(Torn(path=path, offset=at, size=len(data) - at, why=f"{error}; written again"))
        else:
            if find_frame(data, at + 1) is not None:
                raise IntegrityError(f"the segment is damaged: {error}", where=f"{path}, offset {at}", fix=_KEEP)
            self.found.torn.append(_cut(path, data, at, error))
            segment.size = at
        self._advance(segment)


def _link_of(item: Item, path: Path, at: int) -> _Link:
    try:
        return _link_decoder.decode(item.leaf)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise IntegrityError(f"the record is no leaf: {error}", where=f"{path}, offset {at}", fix=_KEEP) from None


def _written_again(later: Sequence[Path], segment: Segment) -> bool:
    for path in later:
        try:
            header, _ = parse_header(path.read_bytes())
        except FrameError:
            continue
        if header.epoch == segment.epoch and header.first_seq <= segment.next_seq:
            return True
    return False


def _cut(path: Path, data: bytes, at: int, error: FrameError) -> Torn:
    kept = None
    if not error.short:
        kept = path.with_name(f"{path.stem}-{at}.torn")
        kept.write_bytes(data[at:])
        _sync(kept)
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, at)
        os.fsync(fd)
    finally:
        os.close(fd)
    return Torn(path=path, offset=at, size=len(data) - at, why=str(error), kept=kept)


def _sync(path: Path) -> None:
    """Make durable what a predecessor only wrote: it is about to be sent, and the chain goes on from it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        raise ConfigurationError(
            f"the spool cannot be made durable: {error.strerror}",
            where=str(path),
            fix="Check the disk, then start again",
        ) from None
    finally:
        os.close(fd)


def _body_at(place: tuple[Path, int]) -> bytes:
    path, at = place
    with path.open("rb") as file:
        file.seek(at)
        length = int.from_bytes(file.read(4), "big")
        file.seek(at)
        return parse_item(read_frame(file.read(FRAME_OVERHEAD + length), 0)).body
