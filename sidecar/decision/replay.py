"""Replay: what a bundle answers to documents that were asked before.

`python -m sidecar.decision.replay BUNDLE` does it as a child process, for whoever must not load the sidecar: a JSON object
a line in, `{"id": …, "input": {…}}`; one a line out, in the same order, `{"id": …, "decision": {…}}` or
`{"id": …, "error": "…"}`. It loads `sidecar.decision`, `vocabulary` and `errors`, nothing else of this package, and ends
with the input. A bundle that cannot be loaded is one line on standard error and exit code 2.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

from sidecar.decision.archive import MAX_ARCHIVE_BYTES, load_archive
from sidecar.decision.bundle import Bundle
from sidecar.decision.document import parse_decision
from sidecar.decision.embedded import EmbeddedMaker
from sidecar.decision.engines import Evaluate
from sidecar.decision.folder import load_folder
from sidecar.errors import ConfigurationError, DecideError
from sidecar.vocabulary import AccessRequest, canonical

USAGE: Final = 2
_SECONDS: Final = 5.0
_MOST_KNOWN: Final = 65_536
"""Different answers that are remembered as well-formed. A policy has few."""

_request = msgspec.json.Decoder(AccessRequest).decode
_decode = msgspec.json.Decoder().decode


class Answer(NamedTuple):
    """The decision document as the engine wrote it, or why there is none."""

    decision: bytes | None
    error: str | None = None


class Replayer:
    """Answers documents from one bundle. No caller, no token, no clock: only documents."""

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        self._well_formed: set[bytes] = set()

    def answer(self, document: bytes) -> Answer:
        """What the bundle says. Never raises for a document: what is none, or gets no decision, is an error."""
        try:
            asked = total(document)
        except ValueError as error:
            return Answer(None, f"not an input document: {error}")
        try:
            answer = self._evaluate(asked)
        except Exception as error:  # noqa: BLE001 - each engine has its own; whatever it was, there is no decision
            return Answer(None, f"no decision: {error}")
        if answer in self._well_formed:
            return Answer(answer)
        try:
            parse_decision(_decode(answer))
        except (ValueError, DecideError) as error:
            return Answer(None, f"no decision: {error.operator if isinstance(error, DecideError) else error}")
        if len(self._well_formed) >= _MOST_KNOWN:
            self._well_formed.clear()
        self._well_formed.add(answer)
        return Answer(answer)


def total(document: bytes) -> bytes:
    """The document in the one encoding, with every leaf that it was written without unknown.

    Records are kept for ten years and the input document grows: a leaf that an old record has not got is unknown in it.
    ValueError for what is no input document.
    """
    return canonical(_request(document))


def read(path: Path) -> Bundle:
    """A bundle folder, or a built bundle (.tar.gz). Signatures are not asked for: nothing is put in force by this.

    ConfigurationError.
    """
    if path.is_dir():
        return load_folder(path)
    try:
        with path.open("rb") as file:
            content = file.read(MAX_ARCHIVE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read: {error.strerror}", where=str(path), fix="Give a bundle folder or a .tar.gz."
        ) from None
    return load_archive(content, str(path))


@contextmanager
def replaying(bundle: Bundle, where: Path) -> Iterator[Replayer]:
    """The bundle, loaded to be asked. ConfigurationError when it does not load."""
    try:
        with EmbeddedMaker(_SECONDS, compared=False).trial(bundle) as evaluate:
            yield Replayer(evaluate)
    except ConfigurationError as error:
        if error.where:
            raise
        raise ConfigurationError(error.what, where=str(where), value=error.value, fix=error.fix) from None


class _Question(msgspec.Struct, frozen=True):
    input: msgspec.Raw
    id: msgspec.Raw = msgspec.Raw(b"null")


class _Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    id: msgspec.Raw
    decision: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET


def serve(answer: Callable[[bytes], Answer], questions: BinaryIO, replies: BinaryIO) -> None:
    """Answer line by line until the input ends. Each reply is flushed: whoever asks may wait for it."""
    question, encode = msgspec.json.Decoder(_Question).decode, msgspec.json.Encoder().encode
    for line in questions:
        if line.isspace():
            continue
        try:
            asked = question(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            reply = _Reply(msgspec.Raw(b"null"), error=f"not a question: {error}")
        else:
            found = answer(bytes(asked.input))
            if found.decision is None:
                reply = _Reply(asked.id, error=found.error or "no decision")
            else:
                reply = _Reply(asked.id, decision=msgspec.Raw(found.decision))
        replies.write(encode(reply) + b"\n")
        replies.flush()


def main(arguments: list[str]) -> int:
    """The child process."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m sidecar.decision.replay BUNDLE < questions.jsonl\n")
        return USAGE
    where = Path(arguments[0])
    try:
        with replaying(read(where), where) as replayer:
            serve(replayer.answer, sys.stdin.buffer, sys.stdout.buffer)
    except ConfigurationError as error:
        sys.stderr.write(" ".join(f"configuration: {error}".split()) + "\n")
        return USAGE
    except BrokenPipeError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
