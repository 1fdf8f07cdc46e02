"""The guide for policy authors, followed word for word: every command is run, and prints what the page says."""

import shutil
import sys
from pathlib import Path

import pytest
from deployment import Deployment, sidecar
from guide_console import Command, matches, read, run

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "policies"
PROGRAMS = {"protoc": [sys.executable, "-m", "grpc_tools.protoc"]}


@pytest.fixture
def in_process(shell, monkeypatch: pytest.MonkeyPatch):
    """The command line in this process, in a folder."""

    def at(folder: Path):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PATH", "/usr/bin:/bin")  # no opa: what it would add is another test's

        def ran(*arguments: str) -> tuple[int, str]:
            found = shell(*arguments)
            return found.code, found.out + found.err

        return ran

    return at


@pytest.mark.parametrize("page", ["README.md", "rego.md"])
def test_an_author_can_follow_the_guide(in_process, tmp_path: Path, page: str) -> None:
    shutil.copytree(ROOT / "policies", tmp_path / "policies")
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    assert run(PAGES / page, tmp_path, in_process(tmp_path), PROGRAMS) > 3


def test_a_recorded_call_is_explained_and_a_policy_shipped_and_taken_back(in_process, tmp_path: Path) -> None:
    """Of a call, its id is all that a caller has to pass on."""
    with Deployment(tmp_path / "world") as world:
        answer = world.call("GetProfile", b"")
        world.delivered()
        world.recorded(answer.call_id)
        certificate = world.world.certificates["reviewer"]
        ran = sidecar("policy", "explain", world.folder / "policies", "--record", answer.call_id,
                      "--store", f"localhost:{world.world.ports['query']}", "--ca", world.world.ca,
                      "--cert", certificate.cert, "--key", certificate.key)  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        assert "recorded in phase" in ran.stdout
        assert "by this policy. This policy says:" in ran.stdout
        assert run(PAGES / "ship.md", world.folder, in_process(world.folder), PROGRAMS) > 8


def test_every_page_is_followed_or_generated() -> None:
    followed = {"README.md", "rego.md", "ship.md"}
    pages = {page.name for page in PAGES.glob("*.md")}
    assert pages == followed | {"documents.md", "reasons.md", "obligations.md"}
    for page in pages - followed:
        assert not [one for one in read(PAGES / page) if isinstance(one, Command)]


@pytest.mark.parametrize(("shown", "printed", "same"), [
    (["a", "b"], "a\nb\n", True), (["a"], "a\nb\n", False), (["a", "…"], "a\nb\nc\n", True), (["a", "…"], "a\n", True), (["a", "…", "b"], "a\nb\n", True), (["…", "c"], "a\nb\nc\n", True),
    (["a …b"], "a xyz b\n", True), (["a …b"], "a xyz c\n", False), (["…", "z"], "a\nb\n", False), (["a", "…", "c"], "a\nb\nb\nc", True),
])  # fmt: skip
def test_output_is_compared_line_by_line(shown: list[str], printed: str, same: bool) -> None:
    assert matches(shown, printed) is same
