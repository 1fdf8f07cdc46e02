"""CHANGELOG.md from the fragments in `changelog.d`: `python -m tests.changelog VERSION [DATE]`.

A release's section goes above those before it; the fragments it was made from are deleted. Nothing is written when a
fragment is not a list, the version is there already or is not above the last one.
"""

import re
import sys
from datetime import UTC, date, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_SECTION = re.compile(r"^## (\d+\.\d+\.\d+) ", re.MULTILINE)


class ChangelogError(Exception):
    """What a person has to mend; nothing was written."""


def release(root: Path, version: str, day: date) -> list[Path]:
    """Write the section of `version`; the fragments that were taken up and are gone. ChangelogError."""
    file, fragments = root / "CHANGELOG.md", sorted((root / "changelog.d").glob("*.md"))
    before = file.read_text()
    if VERSION.fullmatch(version) is None:
        raise ChangelogError(f"{version}: give a version such as 1.2.3")
    known = _SECTION.findall(before)
    if known and _order(version) <= max(map(_order, known)):
        raise ChangelogError(f"{version} is not above {max(known, key=_order)}, which is released")
    if not fragments:
        raise ChangelogError("changelog.d holds nothing: there is nothing to release")
    section = [f"## {version} ({day.isoformat()})", *(topic(one) for one in fragments)]
    head, mark, rest = before.partition("\n## ")
    file.write_text(head.rstrip() + "\n\n" + "\n\n".join(section) + "\n" + (f"\n## {rest}" if mark else ""))
    for one in fragments:
        one.unlink()
    return fragments


def topic(fragment: Path) -> str:
    """A fragment under its topic's name. ChangelogError for one that is no list."""
    text = fragment.read_text().strip()
    for number, line in enumerate(text.splitlines(), 1):
        if line and not line.startswith(("* ", "  ")):
            raise ChangelogError(
                f"{fragment.name}, line {number}: a fragment is a list of `* ` items, continued by two spaces"
            )
    if not text:
        raise ChangelogError(f"{fragment.name} is empty")
    return f"### {fragment.stem.replace('-', ' ').capitalize()}\n{text}"


def _order(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def main(arguments: list[str]) -> int:
    """The exit code."""
    if not 1 <= len(arguments) <= 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        day = date.fromisoformat(arguments[1]) if len(arguments) == 2 else datetime.now(UTC).date()
        taken = release(ROOT, arguments[0], day)
    except (ChangelogError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"CHANGELOG.md: {arguments[0]}, from {len(taken)} fragments")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
