"""The words of a Rego source: tokens with their places, and what they make: references, tables, parts of a list.

Not a parser: it reads sources that the engine has loaded. A *table* is an object literal with text keys.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_TOKEN: Final = re.compile(
    r'(?P<comment>#[^\n]*)|(?P<string>"(?:\\.|[^"\\\n])*"|`[^`]*`)|(?P<number>-?[0-9]+)'
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<mark>:=|==|!=|<=|>=|[-+*/%&|<>=.,:;()\[\]{}])|(?P<space>\s+)"
)
OPENING: Final = frozenset("([{")
CLOSING: Final = frozenset(")]}")
JOINS: Final = frozenset((":=", "==", "!=", "<=", ">=", "<", ">", "=", "+", "-", "*", "/", "%", "&", "|", ",", "with",
                           "in", "as"))  # fmt: skip
"""What goes on from the line before, or on the next line."""
HANGS: Final = JOINS | {"not", "some", "every", "if", "contains", "else", "default", ":"}


@dataclass(frozen=True, slots=True)
class Token:
    """A word of the source: `row` and `col` count from 1, `start` and `end` are offsets."""

    kind: str
    text: str
    row: int
    col: int
    start: int
    end: int


Tokens = tuple[Token, ...]
Steps = tuple[str | Tokens, ...]
"""After the root of a reference: texts, or the words in brackets."""


def tokens_of(source: str) -> Tokens:
    """The words of a source, without comments. What is no Rego is left out: the engine has the say."""
    found: list[Token] = []
    row, begin = 1, 0
    for match in _TOKEN.finditer(source):
        kind, text = str(match.lastgroup), match[0]
        if kind not in ("space", "comment"):
            found.append(Token(kind, text, row, match.start() - begin + 1, match.start(), match.end()))
        lines = text.count("\n")
        if lines:
            row, begin = row + lines, match.start() + text.rindex("\n") + 1
    return tuple(found)


def split(tokens: Tokens, mark: str = ",") -> list[Tokens]:
    """The parts between commas (or another mark) outside of brackets."""
    parts: list[Tokens] = []
    start, depth = 0, 0
    for at, one in enumerate(tokens):
        if one.kind == "mark":
            depth += (one.text in OPENING) - (one.text in CLOSING)
            if depth == 0 and one.text == mark:
                parts.append(tokens[start:at])
                start = at + 1
    parts.append(tokens[start:])
    return [part for part in parts if part]


def spelled(tokens: Tokens) -> str:
    """The words as one line, with spaces where the source has any."""
    pieces: list[str] = []
    for before, one in zip((None, *tokens), tokens, strict=False):
        if before is not None and before.end < one.start:
            pieces.append(" ")
        pieces.append(one.text)
    return "".join(pieces)


def last_group(tokens: Tokens) -> int:
    """Where the last bracket group begins."""
    depth = 0
    for at in range(len(tokens) - 1, -1, -1):
        if tokens[at].kind == "mark":
            depth += (tokens[at].text in CLOSING) - (tokens[at].text in OPENING)
            if depth == 0:
                return at
    return 0


def group(tokens: Tokens, at: int) -> int:
    """Where the bracket group that opens at `at` ends, past its last bracket."""
    depth = 0
    for end in range(at, len(tokens)):
        if tokens[end].kind == "mark":
            depth += (tokens[end].text in OPENING) - (tokens[end].text in CLOSING)
            if depth == 0:
                return end + 1
    return len(tokens)


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference: `root` and the steps after it, each a text or the words in its brackets. `call`: it is called."""

    root: str
    steps: Steps
    row: int
    text: str
    start: int
    """Position among the words it was found in."""
    end: int
    call: bool


def reference(tokens: Tokens, at: int) -> Ref:
    """The reference that begins at the name at `at`."""
    steps: list[str | Tokens] = []
    end = at + 1
    while end < len(tokens):
        one = tokens[end]
        if one.text == "." and end + 1 < len(tokens) and tokens[end + 1].kind == "name":
            steps.append(tokens[end + 1].text)
            end += 2
        elif one.text == "[" and one.start == tokens[end - 1].end:
            close = group(tokens, end)
            inner = tokens[end + 1 : close - 1]
            steps.append(text_of(inner[0]) if len(inner) == 1 and inner[0].kind == "string" else inner)
            end = close
        else:
            break
    call = end < len(tokens) and tokens[end].text == "(" and tokens[end].start == tokens[end - 1].end
    return Ref(tokens[at].text, tuple(steps), tokens[at].row, spelled(tokens[at:end]), at, end, call)


KEYWORDS: Final = frozenset(("some", "every", "in", "not", "with", "as", "if", "else", "contains", "default", "true",
                             "false", "null", "import", "package"))  # fmt: skip


def references(tokens: Tokens) -> Iterator[Ref]:
    """Every reference among the words, those in the brackets of another included."""
    for at, one in enumerate(tokens):
        if one.kind != "name" or one.text in KEYWORDS:
            continue
        if at and tokens[at - 1].text == "." and tokens[at - 1].end == one.start:
            continue
        yield reference(tokens, at)


def text_of(token: Token) -> str:
    """The text of a string literal, its escapes as they stand."""
    return token.text[1:-1]


def table(tokens: Tokens) -> dict[str, tuple[Token, Tokens]]:
    """The entries of an object literal with text keys: where the key stands, and the words of its value."""
    if len(tokens) < 2 or tokens[0].text != "{" or group(tokens, 0) != len(tokens):
        return {}
    entries: dict[str, tuple[Token, Tokens]] = {}
    for part in split(tokens[1:-1]):
        if len(part) > 2 and part[0].kind == "string" and part[1].text == ":":
            entries[text_of(part[0])] = (part[0], part[2:])
    return entries
