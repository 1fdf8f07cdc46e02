"""What every test shares: its mark, by folder, and what it does when a program is missing."""

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc.aio
import pytest
from command_line import Shell
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).resolve().parent
TOOLS = TESTS.parent / ".tools" / "bin"
KINDS = ("unit", "contract", "conformance", "integration", "fault")
# Taken out of the environment: a sidecar started by a test would read it as a setting, and refuse it.
LONG = os.environ.pop("CUSTOMHOUSE_CAMPAIGN", "short") == "long"

Needs = Callable[[str, str], Path]

# An example takes as long as it takes: how busy the machine is says nothing about what is tested.
settings.register_profile("patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# grpc.aio ends its poller with its last object, in whichever thread collects that, and may wait there for ever: with
# this it stays, as it does in a process that serves.
grpc.aio.init_grpc_aio()


@pytest.hookimpl(tryfirst=True)  # before the deselection by mark
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the name of its folder. A test outside the five folders has no kind: that is an error."""
    for item in items:
        kind = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        if kind not in KINDS:
            raise pytest.UsageError(f"{item.path} is in none of tests/{', tests/'.join(KINDS)}")
        item.add_marker(kind)


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    """What a command that runs in this process does to the root logger ends with its test: its stream is closed then."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for one in [one for one in root.handlers if one not in before]:
        root.removeHandler(one)
    root.setLevel(level)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """The command line, in this process."""
    for name in [name for name in os.environ if name.startswith("CUSTOMHOUSE_")]:
        monkeypatch.delenv(name)
    return Shell(monkeypatch, capsys)


@pytest.fixture(scope="session")
def long_campaign() -> bool:
    """Whether campaigns run in full: set CUSTOMHOUSE_CAMPAIGN=long."""
    return LONG


@pytest.fixture(scope="session")
def needs() -> Needs:
    """`needs(program, how_to_get)`: where the program is.

    Without it the test is skipped with the reason; in CI (CI=true) it fails, because there nothing may go untested.
    """

    def find(program: str, how_to_get: str) -> Path:
        built = TOOLS / program
        found = str(built) if os.access(built, os.X_OK) else shutil.which(program)
        if found is not None:
            return Path(found)
        reason = f"{program} is missing: {how_to_get}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)

    return find
