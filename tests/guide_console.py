"""Pages that are run: their files are written, their commands are run, and what they show is held against what came.

In a page, a block that opens with "```<language> file=PATH" is the content of a file. In a block that opens with
"```console", a line after `$ ` is a command (`\\` at its end joins the next) and the lines after it are its output; with
"```console exit=1" the last command ends with that code. In output `…` stands for anything within a line, and a line
`…` for any lines. A command without output may print what it likes.
"""

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = re.compile(r"^```(?P<head>[^\n`]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class File:
    """A file that the page shows."""

    path: str
    text: str


@dataclass
class Command:
    """A command, what the page says it prints, and how it should end."""

    text: str
    row: int
    output: list[str] = field(default_factory=list)
    code: int = 0


def read(page: Path) -> Iterator[File | Command]:
    """The blocks of a page that mean something, in order."""
    source = page.read_text()
    for block in _BLOCK.finditer(source):
        language, *rest = block["head"].split() or [""]
        said = dict(one.split("=", 1) for one in rest)
        if "file" in said:
            yield File(said["file"], block["body"])
        elif language == "console":
            row = source.count("\n", 0, block.start()) + 2
            yield from _commands(block["body"], row, int(said.get("exit", 0)))


def _commands(body: str, row: int, code: int) -> list[Command]:
    commands: list[Command] = []
    for number, line in enumerate(body.splitlines()):
        if line.startswith("$ "):
            commands.append(Command(line[2:], row + number))
        elif commands[-1].text.endswith("\\"):
            commands[-1].text = commands[-1].text[:-1] + line.strip()
        else:
            commands[-1].output.append(line)
    commands[-1].code = code
    return commands


def matches(shown: list[str], printed: str) -> bool:
    """Whether the output is what the page shows."""
    lines = ["(?:[^\n]*\n)*?" if one == "…" else re.escape(one.rstrip()).replace("…", "[^\n]*") + "\n" for one in shown]
    came = "".join(f"{one.rstrip()}\n" for one in printed.strip("\n").splitlines())
    return re.fullmatch("".join(lines), came) is not None


Sidecar = Callable[..., tuple[int, str]]
"""Runs a command of the product: its arguments to exit code and output."""


def run(page: Path, folder: Path, sidecar: Sidecar, programs: dict[str, list[str]]) -> int:
    """Follow a page in a folder. AssertionError where it says something that is not so; how many commands it has."""
    count = 0
    for step in read(page):
        if isinstance(step, File):
            (folder / step.path).parent.mkdir(parents=True, exist_ok=True)
            (folder / step.path).write_text(step.text)
            continue
        count += 1
        where = f"{page.name}:{step.row}: $ {step.text}"
        code, printed = _run(step.text, folder, sidecar, programs)
        assert code == step.code, f"{where}\nended with {code}:\n{printed}"
        assert not step.output or matches(step.output, printed), f"{where}\nprinted:\n{printed}"
    return count


def _run(text: str, folder: Path, sidecar: Sidecar, programs: dict[str, list[str]]) -> tuple[int, str]:
    words = shlex.split(text)
    if words[0] == "sidecar" and not {"|", ">", "<"} & set(words):
        return sidecar(*words[1:])
    command = programs.get(words[0], [words[0]]) + words[1:]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    return ran.returncode, ran.stdout + ran.stderr
