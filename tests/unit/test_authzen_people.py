"""The personnel directory, page by page, as a subject search looks through it."""

import json

import pytest
from rich.progress import Progress

from sidecar.administration.directory import build
from sidecar.attributes.directory import Directory
from sidecar.errors import IdentifyError

NOW = 1_795_000_000.0


@pytest.fixture
def directory(tmp_path):
    names = [f"p{number}" for number in range(57)]
    rows = [{"id": name, "us_personnel": True, "status": "active", "as_of": "2026-11-18T11:00:00Z"} for name in names]
    people, entities, target = (tmp_path / name for name in ("people", "entities", "snapshot"))
    people.write_text("".join(json.dumps(row) + "\n" for row in rows))
    entities.write_text("")
    with Progress(disable=True) as progress:
        assert build(people, entities, target, progress, clock=lambda: NOW).bad == 0
    return names, Directory(target, 3600.0)


@pytest.mark.parametrize("most", [1, 7, 57, 1000])
def test_pages_hold_everybody_once(directory, most):
    names, found = directory
    seen, at = [], 0
    while page := found.ids(at, most):
        assert len(page) <= most and all(found.person(one) is not None for one in page)
        seen += page
        at += len(page)
    assert sorted(seen) == sorted(names)


def test_past_the_end_there_is_nobody(directory):
    names, found = directory
    assert found.ids(len(names), 10) == found.ids(1 << 40, 10) == []


def test_a_damaged_row_is_said_and_not_left_out(directory, monkeypatch):
    _, found = directory
    content = found._content()
    monkeypatch.setattr(content._people, "_data", memoryview(b"\0" * len(content._people._data)))
    with pytest.raises(IdentifyError, match="identified"):
        found.ids(0, 5)
