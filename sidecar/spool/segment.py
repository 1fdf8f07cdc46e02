"""Segments: files named by number, `00000001.seg`: eight bytes of magic, a header frame, then record frames.

The header's payload is JSON. `before` names the record that the segment's first one follows: the last of the previous
epoch for an epoch's first segment. A segment holds one epoch, and its seqs rise by one from `first_seq`.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from sidecar.spool.frame import FRAME_OVERHEAD, FrameError, frame, read_frame

MAGIC = b"CHSPOOL1"
_NAME = re.compile(r"(\d{8,})\.seg\Z")


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A record's place in the chain, and the SHA-256 of its leaf."""

    epoch: str
    seq: int
    hash: bytes


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a segment says of itself. `sealed_epoch_key` is what the store opens (HPKE)."""

    v: Literal[1] = 1
    number: int
    producer: str
    slot: int
    epoch: str
    sealed_epoch_key: bytes
    first_seq: int
    before: Head | None


@dataclass(slots=True, kw_only=True)
class Segment:
    """A segment on disk, as this process knows it.

    `size` bytes are written, `durable` of them known to survive the host; records `[first_seq, next_seq)` and
    `[first_seq, durable_seq)` accordingly. `named`: the file's name is durable. `sealed`: nothing more is appended.
    `rewrite`: holds only copies of records that stand in earlier segments, until it has been synced once.
    """

    number: int
    path: Path
    epoch: str
    sealed_epoch_key: bytes
    first_seq: int
    next_seq: int
    durable_seq: int
    start: int = 0
    size: int
    durable: int
    fd: int | None = None
    named: bool = True
    sealed: bool = True
    rewrite: bool = False


_decoder = msgspec.json.Decoder(Header)


def segment_path(folder: Path, number: int) -> Path:
    """Where segment `number` is kept."""
    return folder / f"{number:08d}.seg"


def list_segments(folder: Path) -> dict[int, Path]:
    """The segments in a folder by number, in order. Other names are left alone."""
    found = {}
    for path in folder.iterdir():
        match = _NAME.match(path.name)
        if match:
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def encode_header(header: Header) -> bytes:
    """The first bytes of a segment."""
    return MAGIC + frame(msgspec.json.encode(header))


def parse_header(data: bytes) -> tuple[Header, int]:
    """The header and where the first record's frame begins; FrameError unless it is whole."""
    if data[: len(MAGIC)] != MAGIC:
        raise FrameError("not a segment of version 1", short=len(data) < len(MAGIC))
    payload = read_frame(data, len(MAGIC))
    try:
        header = _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FrameError(f"the segment's header is not of version 1: {error}", short=False) from None
    return header, len(MAGIC) + FRAME_OVERHEAD + len(payload)
