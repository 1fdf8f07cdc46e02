"""The subject index: who is a US data subject, from the file that `sidecar subjects build` wrote.

A snapshot of kind `index` holds two sorted arrays (see `hashes`), `us` and `non_us`, of 64-bit keyed hashes of ids: BLAKE2b
with the file's own random key over kind, NUL and the id in UTF-8, read big-endian. An id in neither is `unknown`, which
policies weigh as US.

No id can be read out of the file, and without it nobody can prepare ids that collide. Among listed ids US always wins,
so no listed US subject is ever cleared. An id that is *not* listed meets a listed hash with a chance of n / 2^64: at
10^7 ids 5 in 10^13.
"""

import hashlib
from pathlib import Path

from sidecar.attributes.followed import Followed, Report
from sidecar.attributes.hashes import HashTable
from sidecar.attributes.snapshots import Snapshot
from sidecar.errors import IntegrityError
from sidecar.vocabulary import SubjectClass

KIND = "index"
DEFAULT_KIND = "person"
"""The namespace of ids where neither the annotation nor the row names one."""
KEY_SIZE = 16
_MAX_KINDS = 256
_RECENT = 64
"""Ids whose class is remembered: an answer names whom its request named. No more, since they stand there in the clear."""


def hasher(key: bytes, kind: str) -> hashlib.blake2b:
    """A hash that has been fed everything but the id. `copy`, `update(id)`, `digest` gives 8 bytes, big-endian."""
    return hashlib.blake2b(kind.encode("utf-8", "surrogatepass") + b"\0", digest_size=8, key=key)


class _Content:
    def __init__(self, snapshot: Snapshot) -> None:
        try:
            self._us, self._non_us = HashTable(snapshot, "us"), HashTable(snapshot, "non_us")
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"its sections do not fit: {error}", where=KIND,
                                 fix="Build the index again.") from None  # fmt: skip
        if len(snapshot.key) != KEY_SIZE:
            raise IntegrityError("the key has the wrong length", where=KIND, fix="Build the index again.")
        self._key = snapshot.key
        self._hashers: dict[str, hashlib.blake2b] = {}
        self.recent: dict[tuple[str, str], SubjectClass] = {}

    def classify(self, kind: str, subject_id: str) -> SubjectClass:
        key = (kind, subject_id)
        found = self.recent.get(key)
        if found is None:
            if len(self.recent) >= _RECENT:
                self.recent.clear()
            found = self.recent[key] = self._look(kind, subject_id)
        return found

    def _look(self, kind: str, subject_id: str) -> SubjectClass:
        fed = self._hashers.get(kind) or self._feed(kind)
        fed = fed.copy()
        fed.update(subject_id.encode("utf-8", "surrogatepass"))
        number = int.from_bytes(fed.digest(), "big")
        if number in self._us:
            return "us"
        return "non_us" if number in self._non_us else "unknown"

    def _feed(self, kind: str) -> hashlib.blake2b:
        fed = hasher(self._key, kind)
        if len(self._hashers) < _MAX_KINDS:
            self._hashers[kind] = fed
        return fed


class SubjectIndex:
    """The index in force. `classify` is for the event loop; `reload_if_changed` blocks and may run in a thread."""

    def __init__(self, path: Path, max_age: float, *, report: Report = lambda _event, _detail: None) -> None:
        """`max_age` in seconds, by the file's time of building. `report` is told (event, detail): see `followed`.

        ConfigurationError when the file is missing, IntegrityError when it is damaged.
        """
        self._file = Followed(path, KIND, _Content, max_age=max_age, report=report, build="sidecar subjects build")
        self.reload_if_changed = self._file.reload_if_changed
        self.age, self.fresh = self._file.age, self._file.fresh

    @property
    def revision(self) -> str:
        """SHA-256 (hex) of the content, key included: it differs from build to build."""
        return self._file.latest.revision

    @property
    def error(self) -> str | None:
        """What is wrong with the file at present, or None."""
        return self._file.error

    def classify(self, kind: str, id: str) -> SubjectClass:  # noqa: A002 - the word of the annotation
        """The class of a data subject by exact id. `unknown` when the id is not listed or nothing is in force.

        Asks nothing about age: the caller treats every subject as `unknown` when the index is not `fresh`.
        """
        content = self._file.held
        if content is None:
            return "unknown"
        return content.recent.get((kind, id)) or content.classify(kind, id)
