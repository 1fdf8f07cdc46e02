"""Frames: `length (uint32) | CRC32C (uint32) | payload`, big-endian; one record in one payload.

The payload is `leaf length (uint16) | body length (uint32) | leaf | salt (32) | body | nonce (12) | sealed openings`;
nonce and openings are absent when the body names no data subject. The leaf stands at a fixed place, which lets a reader
that met damage look for whole frames behind it: that is what tells a damaged middle from a torn end.
"""

import struct
from typing import NamedTuple

from google_crc32c import value as crc32c

from sidecar.record import SALT_SIZE

MAX_PAYLOAD = 256 * 1024
"""Longer is damage: a leaf, a body and the openings of 500 subjects are less."""
FRAME_OVERHEAD = 8
NONCE_SIZE = 12

_FRAME = struct.Struct(">II")
_ITEM = struct.Struct(">HI")
_LEAF_START = b'{"v":1,"type":"'
_LEAF_AT = _FRAME.size + _ITEM.size


class Item(NamedTuple):
    """One record as it is kept and sent. `nonce` and `sealed_openings` are empty when there are no openings."""

    leaf: bytes
    salt: bytes
    body: bytes
    nonce: bytes
    sealed_openings: bytes


class FrameError(ValueError):
    """Bytes that are no whole frame. `short`: the data ends before the frame does."""

    def __init__(self, what: str, *, short: bool) -> None:
        super().__init__(what)
        self.short = short


def frame(payload: bytes) -> bytes:
    """The payload with its length and checksum in front."""
    return _FRAME.pack(len(payload), crc32c(payload)) + payload


def frame_item(item: Item) -> bytes:
    """The frame of one record."""
    leaf, salt, body, nonce, sealed = item
    payload = b"".join((_ITEM.pack(len(leaf), len(body)), leaf, salt, body, nonce, sealed))
    return _FRAME.pack(len(payload), crc32c(payload)) + payload


def read_frame(data: bytes, at: int) -> bytes:
    """The payload of the frame at `at`; FrameError unless it is whole."""
    if len(data) - at < FRAME_OVERHEAD:
        raise FrameError("the data ends within a frame's length and checksum", short=True)
    length, checksum = _FRAME.unpack_from(data, at)
    if not 0 < length <= MAX_PAYLOAD:
        raise FrameError(f"a frame of {length} bytes; at most {MAX_PAYLOAD}", short=False)
    start = at + FRAME_OVERHEAD
    payload = data[start : start + length]
    if len(payload) < length:
        raise FrameError(f"the data ends after {len(payload)} of {length} bytes of a frame", short=True)
    if crc32c(payload) != checksum:
        raise FrameError("the checksum does not fit", short=False)
    return payload


def parse_item(payload: bytes) -> Item:
    """The record in a frame's payload; FrameError when the parts do not add up."""
    if len(payload) < _ITEM.size:
        raise FrameError("a payload without lengths", short=False)
    leaf_size, body_size = _ITEM.unpack_from(payload)
    salt_at = _ITEM.size + leaf_size
    body_at = salt_at + SALT_SIZE
    nonce_at = body_at + body_size
    rest = len(payload) - nonce_at
    if rest < 0 or 0 < rest <= NONCE_SIZE:
        raise FrameError("a payload whose parts do not add up", short=False)
    return Item(
        payload[_ITEM.size : salt_at],
        payload[salt_at:body_at],
        payload[body_at:nonce_at],
        payload[nonce_at : nonce_at + NONCE_SIZE],
        payload[nonce_at + NONCE_SIZE :],
    )


def find_frame(data: bytes, start: int) -> int | None:
    """Where the first whole record frame at or after `start` begins; None when there is none."""
    at = data.find(_LEAF_START, start + _LEAF_AT)
    while at >= 0:
        try:
            read_frame(data, at - _LEAF_AT)
        except FrameError:
            at = data.find(_LEAF_START, at + 1)
        else:
            return at - _LEAF_AT
    return None
