"""What is replayed: recorded decisions, from a store or a file, and documents that nobody has asked yet.

A line of a file is a record as `sidecar oversight search --json` prints it, a decision's body, or an input document.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from sidecar.decision import guard
from sidecar.decision.bundle import Bundle
from sidecar.errors import ConfigurationError
from sidecar.vocabulary import canonical

_LONGEST_WORD: Final = 64
_LITERAL: Final = re.compile(r'"([^"\\\n]{1,64})"')
_MAX_LINE: Final = 1 << 20
"""A body has at most 64 kB; a line around it is not much longer."""


class Case(NamedTuple):
    """One question, and what was decided on it where that was recorded.

    `input` and `decision` are the bytes as they were recorded; `policy` is the revision that decided. A document from
    elsewhere has neither `decision` nor `call_id`; `name` says where it is from.
    """

    input: bytes
    decision: bytes | None
    name: str
    call_id: str | None = None
    policy: str | None = None


_NOTHING: Final = msgspec.Raw(b"")
"""Where a key is missing."""


class _Policy(msgspec.Struct, frozen=True):
    revision: str | None = None


class _Body(msgspec.Struct, frozen=True):
    type: str | None = None
    call_id: str | None = None
    input: msgspec.Raw = _NOTHING
    decision: msgspec.Raw = _NOTHING
    policy: _Policy = _Policy()
    part: int = 1


class _Line(_Body, frozen=True):
    index: int | str | None = None  # of a row its place in the log; of a body the revision of the subject index
    leaf: msgspec.Raw = _NOTHING
    body: _Body | None = None
    subject: msgspec.Raw = _NOTHING
    action: msgspec.Raw = _NOTHING


_line = msgspec.json.Decoder(_Line).decode


def case(data: bytes, name: str, passed: Counter[str]) -> Case | None:
    """The question in a line or body; None for what asks nothing, counted in `passed`. ValueError for what is none."""
    found = _line(data)
    if found.leaf and found.body is None:
        passed["records without a body"] += 1
        return None
    if not found.leaf and found.subject and found.action:
        return Case(data, None, name)
    body = found.body or found
    if body.type is None:
        raise ValueError("neither a record nor an input document")
    if body.type != "decision":
        passed["other records"] += 1
        return None
    if not body.input or not body.decision:
        raise ValueError("a decision without its input or decision document")
    if body.part != 1:
        passed["further parts of a decision"] += 1
        return None
    if found.leaf:
        name = f"record {found.index}"
    return Case(bytes(body.input), bytes(body.decision), name, body.call_id, body.policy.revision)


def lines(file: Path, passed: Counter[str]) -> Iterator[Case]:
    """The questions of a JSON Lines file. ConfigurationError naming the line that is none."""
    try:
        with file.open("rb") as opened:
            for number, line in enumerate(iter(lambda: opened.readline(_MAX_LINE), b""), start=1):
                if line.isspace():
                    continue
                try:
                    found = case(line, f"line {number}", passed)
                except ValueError as error:
                    raise ConfigurationError(
                        f"is no record: {error}", where=f"{file}:{number}",
                        fix="Give what `sidecar oversight search --json` prints, decision bodies, or input documents.",
                    ) from None  # fmt: skip
                if found is not None:
                    yield found
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read: {error.strerror}", where=str(file), fix="Give a JSON Lines file that exists."
        ) from None


def bodies(records: Iterable[tuple[int, bytes]], passed: Counter[str]) -> Iterator[Case]:
    """The questions of records from a store: (index, body). What cannot be read is counted, not hidden."""
    for index, body in records:
        if not body:
            passed["records without a body"] += 1
            continue
        try:
            found = case(body, f"record {index}", passed)
        except ValueError:
            passed[UNREADABLE] += 1
            continue
        if found is not None:
            yield found


UNREADABLE: Final = "unreadable"
"""The word under which records that cannot be read are counted: they might be anything."""


def generated(bundles: Sequence[Bundle], count: int, seed: int) -> Iterator[Case]:
    """The bundles' own corpora, and documents made from them and the words they know: the same for the same seed."""
    corpus = list({canonical(one): one for bundle in bundles for one in bundle.corpus}.values())
    known = sorted({word for bundle in bundles for word in _words(bundle)})
    for number, request in enumerate(corpus):
        yield Case(canonical(request), None, f"corpus {number}")
    for number, request in enumerate(guard.generated_inputs(seed, count, corpus, known)):
        yield Case(canonical(request), None, f"generated {number}")


def _words(bundle: Bundle) -> Iterator[str]:
    """Texts in the bundle's rules and data: codes and names that decide something."""
    for _, source in bundle.modules:
        yield from _LITERAL.findall(source)
    yield from _texts(msgspec.json.decode(bundle.data))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str) and len(value) <= _LONGEST_WORD:
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
