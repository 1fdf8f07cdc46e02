"""Answers from a bundle, in this process or from several child processes."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Protocol

import msgspec

from sidecar.decision.bundle import Bundle
from sidecar.decision.replay import Answer, replaying
from sidecar.errors import ConfigurationError

_encode = msgspec.json.Encoder().encode


class Answers(Protocol):
    """What a bundle says to documents, in their order."""

    def __call__(self, documents: Sequence[bytes]) -> list[Answer]:
        """One answer for each document."""


@contextmanager
def answering(bundle: Bundle, path: Path, jobs: int) -> Iterator[Answers]:
    """The bundle, ready to be asked by this process, or by `jobs` children where there are more than one.

    ConfigurationError when it does not load.
    """
    # Loaded here in any case: what does not load is then said once, and not by every child.
    with replaying(bundle, path) as replayer:
        if jobs <= 1:
            yield lambda documents: [replayer.answer(one) for one in documents]
            return
        with ExitStack() as stack:
            # The children end before the threads that wait for them.
            pool = stack.enter_context(ThreadPoolExecutor(2 * jobs))
            children = [stack.enter_context(_child(path)) for _ in range(jobs)]
            yield lambda documents: _shared(pool, children, documents)


class _Question(msgspec.Struct, frozen=True):
    id: int
    input: msgspec.Raw


class _Reply(msgspec.Struct, frozen=True):
    id: int
    decision: msgspec.Raw = msgspec.Raw(b"")
    error: str | None = None


_reply = msgspec.json.Decoder(_Reply).decode


class _Child:
    def __init__(self, path: Path, questions: IO[bytes], replies: IO[bytes]) -> None:
        self._path, self._questions, self._replies = path, questions, replies

    def ask(self, documents: Sequence[bytes]) -> None:
        for number, document in enumerate(documents):
            self._questions.write(_encode(_Question(number, msgspec.Raw(document))) + b"\n")
        self._questions.flush()

    def hear(self, count: int) -> list[Answer]:
        found = []
        for number in range(count):
            line = self._replies.readline()
            reply = _reply(line) if line else None
            if reply is None or reply.id != number:
                raise ConfigurationError(
                    "a child process of the replay ended", where=str(self._path), fix="Try again with --jobs 1."
                )
            found.append(Answer(bytes(reply.decision) or None, reply.error))
        return found


@contextmanager
def _child(path: Path) -> Iterator[_Child]:
    command = (sys.executable, "-m", "sidecar.decision.replay", str(path))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # noqa: S603 - our own module
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("a process without pipes")
        try:
            yield _Child(path, process.stdin, process.stdout)
        finally:
            process.kill()


def _shared(pool: ThreadPoolExecutor, children: Sequence[_Child], documents: Sequence[bytes]) -> list[Answer]:
    """Each child gets every so-manieth document: whoever asks and whoever hears must not wait for one another."""
    shares = [documents[place :: len(children)] for place in range(len(children))]
    asked = [pool.submit(child.ask, share) for child, share in zip(children, shares, strict=True)]
    heard = [pool.submit(child.hear, len(share)) for child, share in zip(children, shares, strict=True)]
    found: list[Answer] = [Answer(None)] * len(documents)
    for place, one in enumerate(heard):
        found[place :: len(children)] = one.result()
    for writing in asked:
        writing.result()
    return found
