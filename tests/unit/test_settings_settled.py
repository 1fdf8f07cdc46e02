"""Settings without their models: the same values under the same names, and nothing of pydantic where they are used."""

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from settings_files import SIDECAR, changed, written

from sidecar.settings.loader import load, settled
from sidecar.settings.settled import Settled
from sidecar.settings.sidecar import SidecarSettings

ROOT = Path(__file__).resolve().parents[2]


def same(one: object, other: object) -> bool:
    """Whether `other` is the settled form of `one`, all the way down."""
    if isinstance(one, BaseModel):
        assert isinstance(other, Settled)
        # Not by `dict`, which takes a section with a key `keys` for a mapping.
        ours, theirs = ({name: value for name, value in section} for section in (one, other))  # noqa: C416
        return list(ours) == list(theirs) and all(
            same(value, theirs[name]) and same(value, getattr(other, name)) for name, value in ours.items()
        )
    if isinstance(one, list | tuple):
        assert type(one) is type(other)
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@pytest.fixture
def read(tmp_path: Path) -> SidecarSettings:
    return load(written(tmp_path, SIDECAR), SidecarSettings, {})


def test_every_value_is_there_under_its_name_also_through_pickle(read: SidecarSettings) -> None:
    found = settled(read)
    assert same(read, found)
    again = pickle.loads(pickle.dumps(found))
    assert same(read, again)
    assert again == found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    workers=st.integers(1, 256),
    entries=st.integers(0, 1_000),
    drain=st.sampled_from(["1s", "90s", "2m"]),
    level=st.sampled_from(["written", "committed"]),
)
def test_so_it_is_for_other_settings(tmp_path: Path, workers: int, entries: int, drain: str, level: str) -> None:
    text = changed("drain", drain, changed("record.levels.personnel", level, changed("workers", workers)))
    found = load(written(tmp_path, changed("decision.cache", {"entries": entries}, text)), SidecarSettings, {})
    assert same(found, settled(found))


def sections(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield kind
    waiting: list[object] = [field.annotation for field in kind.model_fields.values()]
    while waiting:
        one = waiting.pop()
        waiting += get_args(one)
        if isinstance(one, type) and issubclass(one, BaseModel):
            yield from sections(one)


def test_sections_have_nothing_but_keys_that_the_settled_ones_would_lack() -> None:
    found = set(sections(SidecarSettings))
    assert len(found) > 20
    more = {
        f"{section.__name__}.{name}"
        for section in found
        for one in section.__mro__[: section.__mro__.index(BaseModel)]
        for name in vars(one)
        if not name.startswith(("_", "model_")) and name not in section.model_fields and name != "later"
    }
    assert more == set()


def test_they_are_not_changed_but_copied(read: SidecarSettings) -> None:
    found = settled(read)
    with pytest.raises(AttributeError, match="workers"):
        found.workers = 2  # type: ignore[misc]
    with pytest.raises(AttributeError, match="workers"):
        del found.workers
    copied = found.model_copy(update={"workers": 7})
    assert (copied.workers, found.workers) == (7, read.workers)
    assert copied.record == found.record
    assert copied != found


@pytest.mark.parametrize(
    "module", ["sidecar.cli.serving, sidecar.main.process", "sidecar.main.worker", "sidecar.main.hosted_worker"]
)
def test_what_serves_loads_neither_models_nor_command_line(module: str) -> None:
    heavy = ("pydantic", "pydantic_core", "typer", "click", "rich", "pygments", "structlog", "aiohttp")
    program = f"import sys, {module}\nprint(*(one for one in {heavy!r} if one in sys.modules))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []
