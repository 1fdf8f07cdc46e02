"""gRPC's framing of messages in a body, for doors that get bodies and no messages (PROTOCOL-HTTP2.md, "Requests").

One message is a flag byte (0 as it is, 1 compressed), its length in 4 bytes, big-endian, and its bytes. Pure.
"""

import zlib
from typing import Final

from sidecar.errors import Code, InterceptError

PREFIX: Final = 5
_WINDOW = {"gzip": 31, "deflate": 15}
"""What `grpc-encoding` may be besides `identity`, and the window bits by which zlib knows it (RFC 1952, RFC 1950)."""


class FrameError(InterceptError):
    """The body is no sequence of gRPC messages that may be read here. Nothing of it is to be used."""


class Frames:
    """The messages of one body, as its bytes come in.

    * What is kept is at most one unfinished message; a length beyond the limit is refused before its bytes are kept.
    * A compressed message is expanded up to the limit and never beyond it.
    * After an error, or after `end`, nothing more is taken: `feed` raises.
    """

    __slots__ = ("_broken", "_buffer", "_encoding", "_limit")

    def __init__(self, limit: int, encoding: str = "identity") -> None:
        """`limit`: bytes of one message, after expansion. `encoding`: the body's `grpc-encoding`."""
        self._limit, self._encoding = limit, encoding
        self._buffer = bytearray()
        self._broken = False

    @property
    def partial(self) -> bool:
        """Whether a message has begun that is not whole yet."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that these bytes complete, in order.

        FrameError: INTERNAL for what is no frame, RESOURCE_EXHAUSTED beyond the limit, UNIMPLEMENTED for an encoding
        that is not known here.
        """
        if self._broken:
            raise FrameError("the body has ended already", code=Code.INTERNAL)
        try:
            return self._feed(data)
        except FrameError:
            self._broken = True
            self._buffer.clear()
            raise

    def end(self) -> None:
        """The body is complete. FrameError INTERNAL when it ends inside a message."""
        cut, self._broken = self.partial, True
        self._buffer.clear()
        if cut:
            raise FrameError("the body ends inside a message", code=Code.INTERNAL)

    def _feed(self, data: bytes) -> list[bytes]:
        buffer = self._buffer
        if not buffer and len(data) >= PREFIX and not data[0]:
            length = int.from_bytes(data[1:PREFIX])
            if len(data) == PREFIX + length <= PREFIX + self._limit:
                return [data[PREFIX:]]  # the commonest piece: one whole message, as it is
        buffer += data
        found, at = [], 0
        while len(buffer) - at >= PREFIX:
            flag, length = buffer[at], int.from_bytes(buffer[at + 1 : at + PREFIX])
            self._check(flag, length)
            end = at + PREFIX + length
            if len(buffer) < end:
                break
            message = bytes(buffer[at + PREFIX : end])
            found.append(self._expanded(message) if flag else message)
            at = end
        if len(buffer) > at and buffer[at] > 1:
            raise _no_flag(buffer[at])
        del buffer[:at]
        return found

    def _check(self, flag: int, length: int) -> None:
        if flag > 1:
            raise _no_flag(flag)
        if length > self._limit:
            raise FrameError(
                f"a message of {length} bytes is larger than the limit of {self._limit}", code=Code.RESOURCE_EXHAUSTED
            )
        if flag and self._encoding == "identity":
            raise FrameError("a message is compressed, but no grpc-encoding says how", code=Code.INTERNAL)
        if flag and self._encoding not in _WINDOW:
            raise FrameError("messages in this grpc-encoding are not read here", code=Code.UNIMPLEMENTED)

    def _expanded(self, message: bytes) -> bytes:
        machine = zlib.decompressobj(wbits=_WINDOW[self._encoding])
        try:
            out = machine.decompress(message, self._limit + 1)
        except zlib.error:
            raise FrameError("a compressed message cannot be expanded", code=Code.INTERNAL) from None
        if len(out) > self._limit:
            raise FrameError(f"a message expands beyond the limit of {self._limit}", code=Code.RESOURCE_EXHAUSTED)
        if not machine.eof or machine.unused_data:
            raise FrameError("a compressed message is cut short, or followed by more", code=Code.INTERNAL)
        return out


def only(body: bytes, limit: int) -> bytes | None:
    """The message of a body that is one message, not compressed, within the limit; None for any other, which `Frames` reads.

    What `Frames` makes of such a body, without its buffer (test_grpc_frames holds both equal).
    """
    size = len(body) - PREFIX
    if 0 <= size <= limit and body[0] == 0 and int.from_bytes(body[1:PREFIX]) == size:
        return body[PREFIX:]
    return None


def frame(message: bytes) -> bytes:
    """A message as it stands in a body, not compressed."""
    return b"\x00" + len(message).to_bytes(4) + message


def _no_flag(flag: int) -> FrameError:
    return FrameError(f"the body is not gRPC: a message begins with the byte {flag}", code=Code.INTERNAL)
