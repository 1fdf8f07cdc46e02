# The compiled parts (`native/`, Rust): the embedded engine behind a loader that keeps it equal to OPA (ADR 2, 33), the bytes
# of records (31) and of batches for the store (34), and messages read and edited as bytes (36).
# What each name promises stands in its documentation string, which `help()` shows.

from collections.abc import Callable, Sequence
from typing import Self, TypedDict

from sidecar.spool.slot import Drafted

# `line` and `column` count from 1; 0 means the whole file.
class Problem(TypedDict):
    file: str
    line: int
    column: int
    code: str
    message: str

class EngineError(Exception): ...

# The text has one line for each problem: `file:line:column: code: what to do`.
class LoadError(EngineError):
    problems: list[Problem]

class EvaluationError(EngineError): ...
class DeadlineExceeded(EvaluationError): ...  # noqa: N818 - the name says what happened
class MemoryExceeded(EvaluationError): ...  # noqa: N818 - the name says what happened
class Undefined(EvaluationError): ...  # noqa: N818 - the word of the language

class Engine:
    def __new__(
        cls,
        modules: Sequence[tuple[str, str]],
        data: bytes,
        entrypoint: str = "data.sidecar.decision",
        deadline_seconds: float = 0.05,
        nullable: Sequence[str] = (),
        coverage: bool = False,
        memory_bytes: int = 67108864,
        interpreted: bool = False,
    ) -> Self: ...
    @property
    def planned(self) -> bool: ...
    def evaluate(self, document: object) -> object: ...
    def evaluate_json(self, document: bytes) -> bytes: ...
    def run_tests(
        self, prefix: str = "", deadline_seconds: float = 1.0
    ) -> list[tuple[str, str, bool, str | None, int]]: ...
    def covered(self) -> list[tuple[str, list[int], list[int]]]: ...
    def clear_covered(self) -> None: ...

def outline(modules: Sequence[tuple[str, str]]) -> bytes: ...
def builtins_accepted() -> list[str]: ...
def capabilities() -> bytes: ...

class RandomPool:
    def __new__(cls, source: Callable[[int], bytes] | None = None) -> Self: ...
    def take(self, size: int) -> bytes: ...

class Framer:
    def __new__(cls, producer: str, slot: int, epoch: str, key: bytes, random: RandomPool) -> Self: ...
    def frames(self, seq: int, before: bytes, drafts: Sequence[Drafted]) -> tuple[bytes, bytes]: ...

# `entry`: a `DecisionEntry`. The answer is a draft.
def decision_draft(
    entry: object,
    subjects: Sequence[tuple[str, str, str]],
    period: str,
    key: bytes,
    time: str,
    random: RandomPool,
    part: int = 1,
    parts: int = 1,
) -> Drafted: ...
def stamp(seconds: float) -> str: ...

class Shapes:
    def __new__(cls, words: Sequence[str], impersonal: Sequence[int], unclassified: int) -> Self: ...
    def add(
        self,
        types: Sequence[tuple[bool, bool, bool, Sequence[tuple[int, int, int, int, int, int, str | None]]]],
    ) -> None: ...
    def __len__(self) -> int: ...
    def read(
        self, root: int, data: bytes, countries: bool
    ) -> tuple[Reading, tuple[tuple[str, str, str | None, bool], ...], int, int] | None: ...

class Rules:
    def __new__(cls, ask: Callable[[int], Sequence[tuple[int, int]]]) -> Self: ...

class Reading:
    @property
    def personal(self) -> bool: ...
    def release(
        self, rules: Rules | None, classes: Sequence[int], loose: int, drop: int = 0, room: int | None = None
    ) -> (
        tuple[bytes | None, int, dict[str, int] | None, list[tuple[int, int, dict[str, int]]], list[int] | None] | None
    ): ...

# Consecutive records of one epoch, as they are sent to the store.
class Parcel:
    first_seq: int
    count: int
    items: bytes
    leaf_hashes: bytes
    root: bytes
    next_seq: int
    end: int
    stopped: bool

def parcel(data: bytes, seq: int, after: int, until: int, limit: int, most_bytes: int) -> Parcel: ...
def range_root(leaf_hashes: bytes, first: int, size: int, proof: Sequence[bytes]) -> bytes | None: ...
