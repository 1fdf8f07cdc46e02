"""The changelog from its fragments; and the fragments that there are can all be taken up."""

from datetime import date
from pathlib import Path

import changelog
import pytest

ROOT = Path(__file__).resolve().parents[2]
DAY = date(2026, 12, 1)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "changelog.d").mkdir()
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\nWhat is ahead is in `changelog.d/`.\n")
    (tmp_path / "changelog.d/two-doors.md").write_text("* A second door,\n  on its own port.\n* Another.\n")
    (tmp_path / "changelog.d/a.md").write_text("* First.\n")
    return tmp_path


def test_a_release_takes_up_every_fragment(tree: Path) -> None:
    taken = changelog.release(tree, "0.2.0", DAY)
    assert [one.name for one in taken] == ["a.md", "two-doors.md"]
    assert not list((tree / "changelog.d").glob("*"))
    assert (tree / "CHANGELOG.md").read_text() == (
        "# Changelog\n\nWhat is ahead is in `changelog.d/`.\n\n## 0.2.0 (2026-12-01)\n\n### A\n* First.\n\n"
        "### Two doors\n* A second door,\n  on its own port.\n* Another.\n"
    )


def test_the_newest_release_is_on_top(tree: Path) -> None:
    changelog.release(tree, "0.2.0", DAY)
    (tree / "changelog.d/b.md").write_text("* Second.\n")
    changelog.release(tree, "0.10.0", DAY)
    text = (tree / "CHANGELOG.md").read_text()
    assert text.index("## 0.10.0") < text.index("## 0.2.0")
    assert text.count("* First.") == 1


@pytest.mark.parametrize("version", ["0.2.0", "0.1.9", "1", "v1.0.0", ""])
def test_a_version_that_is_there_or_is_none_is_refused(tree: Path, version: str) -> None:
    changelog.release(tree, "0.2.0", DAY)
    (tree / "changelog.d/b.md").write_text("* Second.\n")
    before = (tree / "CHANGELOG.md").read_text()
    with pytest.raises(changelog.ChangelogError):
        changelog.release(tree, version, DAY)
    assert (tree / "CHANGELOG.md").read_text() == before
    assert (tree / "changelog.d/b.md").exists()


@pytest.mark.parametrize("text", ["", "No list.\n", "* One.\nNot continued.\n"])
def test_a_fragment_that_is_no_list_stops_the_release(tree: Path, text: str) -> None:
    (tree / "changelog.d/z.md").write_text(text)
    with pytest.raises(changelog.ChangelogError, match=r"z\.md"):
        changelog.release(tree, "0.2.0", DAY)
    assert (tree / "changelog.d/a.md").exists()


def test_nothing_to_release(tree: Path) -> None:
    changelog.release(tree, "0.2.0", DAY)
    with pytest.raises(changelog.ChangelogError, match="nothing to release"):
        changelog.release(tree, "0.3.0", DAY)


@pytest.mark.parametrize("fragment", sorted((ROOT / "changelog.d").glob("*.md")), ids=lambda one: one.stem)
def test_the_fragments_that_there_are_can_be_taken_up(fragment: Path) -> None:
    assert changelog.topic(fragment)
