"""Signed notes: a text, a blank line, and one line for each signature (c2sp.org/signed-note).

A note's text means nothing until `open_note` has found a valid signature of a key that the caller trusts. Signatures are
found by key name *and* key id, never by their place.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sidecar.tlog.encoding import decode_base64, encode_base64
from sidecar.tlog.errors import NoteError
from sidecar.tlog.key import KeyId, NoteSigner, SignatureVerifier, check_name

MAX_NOTE_SIZE = 1_000_000
MAX_SIGNATURES = 100
"""The limits of Go's note package. The specification asks for 16 signatures or more."""

_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f]")
_DASH = "\N{EM DASH} "


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature line: who claims to have signed, and the bytes after the key id."""

    name: str
    key_id: KeyId
    signature: bytes

    def __post_init__(self) -> None:
        """Raise `NoteError` for what cannot be written as a signature line."""
        check_name(self.name)
        if len(self.key_id) != 4 or not self.signature:
            raise NoteError(f"signature of {self.name!r} lacks a key id of 4 bytes or the signature itself")

    def line(self) -> bytes:
        """Return the line, with its newline."""
        return f"{_DASH}{self.name} {encode_base64(self.key_id + self.signature)}\n".encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A parsed note. Nothing in it is verified."""

    text: bytes
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        """Return the note's bytes; raise `NoteError` if they would not be a note."""
        if not self.signatures or len(self.signatures) > MAX_SIGNATURES:
            raise NoteError(f"a note has 1 to {MAX_SIGNATURES} signatures, not {len(self.signatures)}")
        check_text(self.text)
        message = self.text + b"\n" + b"".join(signature.line() for signature in self.signatures)
        _check_length(message)
        return message


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedNote:
    """A note signed by at least one trusted key. ``verified`` and ``unknown`` keep the order of the lines."""

    text: bytes
    verified: tuple[Signature, ...]
    unknown: tuple[Signature, ...]


def check_text(text: bytes) -> None:
    """Raise `NoteError` unless ``text`` can be the text of a note: UTF-8, no controls, ends in a newline."""
    if not text.endswith(b"\n"):
        raise NoteError("note text does not end in a newline")
    _check_characters(text)


def parse_note(message: bytes) -> Note:
    """Take a note apart; raise `NoteError` unless it is exactly in the format and within the limits."""
    _check_length(message)
    _check_characters(message)
    split = message.rfind(b"\n\n")
    if split < 0:
        raise NoteError("note has no blank line before its signatures")
    return Note(text=message[: split + 1], signatures=parse_signatures(message[split + 2 :]))


def parse_signatures(block: bytes) -> tuple[Signature, ...]:
    """Read signature lines, as at the end of a note or in a witness's answer; raise `NoteError` if malformed."""
    _check_length(block)
    try:
        lines = block.decode().split("\n")
    except UnicodeDecodeError:
        raise NoteError("signature lines are not UTF-8") from None
    if len(lines) < 2 or lines.pop():
        raise NoteError("signature lines are missing or do not end in a newline")
    if len(lines) > MAX_SIGNATURES:
        raise NoteError(f"{len(lines)} signature lines, more than {MAX_SIGNATURES}")
    return tuple(_parse_line(number, line) for number, line in enumerate(lines, start=1))


def sign_note(text: bytes, signers: Iterable[NoteSigner], signatures: Iterable[Signature] = ()) -> bytes:
    """Return the note of ``text`` with a line for each signer, then the ``signatures`` that others made of it."""
    check_text(text)
    own = [Signature(name=by.key.name, key_id=by.key.key_id, signature=by.sign(text)) for by in signers]
    return Note(text=text, signatures=(*own, *signatures)).encode()


def open_note(message: bytes, verifiers: Sequence[SignatureVerifier]) -> OpenedNote:
    """Parse a note and verify it.

    * A line whose name and key id are those of no verifier is unknown and ignored.
    * Every line of a known key must verify: one that does not makes the whole note invalid.
    * At least one line must be of a known key.

    Raises `NoteError` otherwise, also if two verifiers share name and key id.
    """
    known = {(by.key.name, by.key.key_id): by for by in verifiers}
    if len(known) != len(verifiers):
        raise NoteError("two verifiers have the same name and key id")
    note = parse_note(message)
    verified: list[Signature] = []
    unknown: list[Signature] = []
    for signature in note.signatures:
        by = known.get((signature.name, signature.key_id))
        if by is None:
            unknown.append(signature)
        else:
            by.verify(note.text, signature.signature)
            verified.append(signature)
    if not verified:
        names = ", ".join(repr(by.key.name) for by in verifiers)
        raise NoteError(f"note is not signed by a trusted key ({names})")
    return OpenedNote(text=note.text, verified=tuple(verified), unknown=tuple(unknown))


def _parse_line(number: int, line: str) -> Signature:
    where = f"signature line {number}"
    name, blank, text = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not blank:
        raise NoteError(f"{where} is not an em dash, a key name and a signature: {line[:80]!r}")
    data = decode_base64(text, error=NoteError, what=where)
    return Signature(name=name, key_id=KeyId(data[:4]), signature=data[4:])


def _check_characters(message: bytes) -> None:
    control = _CONTROL.search(message)
    if control is not None:
        raise NoteError(f"note has a control character at byte {control.start()}")
    try:
        message.decode()
    except UnicodeDecodeError as error:
        raise NoteError(f"note is not UTF-8 at byte {error.start}") from None


def _check_length(message: bytes) -> None:
    if len(message) > MAX_NOTE_SIZE:
        raise NoteError(f"note has {len(message)} bytes, more than {MAX_NOTE_SIZE}")
