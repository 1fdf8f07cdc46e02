"""The two text encodings that every format of this package is built from, read back exactly.

Python's own decoders accept several texts for one value (unused base64 bits, blanks, ``+1``, ``1_0``, digits of other
scripts). Two texts for one value would mean two notes, or two proofs, that look alike to one tool and not to another.
"""

import binascii
import re

from sidecar.tlog.errors import TlogError

MAX_SIZE = 2**63 - 1
"""Largest tree size, index or time that is read or written: the largest signed 64-bit integer."""

_DECIMAL = re.compile(r"(?:0|[1-9][0-9]{0,18})\Z", re.ASCII)


def encode_base64(data: bytes) -> str:
    """Return the RFC 4648 section 4 base64 of ``data``, padded and without line breaks."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def decode_base64(text: str, *, error: type[TlogError], what: str) -> bytes:
    """Return the bytes of which ``text`` is the one base64 encoding; raise ``error`` naming ``what`` otherwise."""
    try:
        data = binascii.a2b_base64(text.encode("ascii"), strict_mode=True)
    except ValueError:
        raise error(f"{what} is not base64: {text[:80]!r}") from None
    if encode_base64(data) != text:
        raise error(f"{what} is not canonical base64: {text[:80]!r}")
    return data


def decode_decimal(text: str, *, error: type[TlogError], what: str) -> int:
    """Return the number that ``text`` writes in ASCII digits without leading zeroes, at most `MAX_SIZE`."""
    if not _DECIMAL.match(text) or (value := int(text)) > MAX_SIZE:
        raise error(f"{what} is not a decimal number from 0 to 2^63-1 without leading zeroes: {text[:80]!r}")
    return value
