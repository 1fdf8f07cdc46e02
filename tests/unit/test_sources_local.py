"""Folder and file: what changes is seen, what rests is read, and nothing half-copied is taken."""

import os
import shutil
from pathlib import Path

import pytest
from bundle_signing import write_bundle
from minimal_policy import write_policy
from policy_rig import Clock

from sidecar.decision.bundle import Bundle
from sidecar.decision.folder import load_folder
from sidecar.errors import ConfigurationError
from sidecar.main.sources import REREAD_SECONDS, LocalSource, Look, file_source, folder_source


@pytest.fixture
def monotonic() -> Clock:
    return Clock()


class Place:
    """A policy in one of the two forms."""

    def __init__(self, form: str, folder: Path, monotonic: Clock) -> None:
        self.form, self.work = form, folder / "work"
        self.path = folder / ("policies" if form == "folder" else "b.tar.gz")
        self.write()
        make = folder_source if form == "folder" else file_source
        self.source: LocalSource = make(self.path, monotonic)

    def write(self, **decision: object) -> str:
        write_policy(self.path if self.form == "folder" else self.work, **decision)
        if self.form == "file":
            write_bundle(self.path, self.work)
        return load_folder(self.path if self.form == "folder" else self.work).revision

    def remove(self) -> None:
        (shutil.rmtree if self.form == "folder" else os.unlink)(self.path)

    def spoil(self) -> None:
        if self.form == "folder":
            (self.path / ".manifest").write_text("{")
        else:
            self.path.write_bytes(self.path.read_bytes()[:-20])

    def settled(self) -> Bundle | Look:
        """Two looks: the first sees a change, the second that it rests."""
        found = self.source.look()
        return found if isinstance(found, Bundle) else self.source.look()


@pytest.fixture(params=["folder", "file"])
def place(request, tmp_path, monotonic) -> Place:
    return Place(request.param, tmp_path, monotonic)


def test_what_stays_as_it_is_is_unchanged(place, monotonic):
    first = place.source.read()
    for _ in range(3):
        assert place.source.look() is Look.UNCHANGED
    monotonic.now += REREAD_SECONDS
    assert place.source.look() is Look.UNCHANGED
    assert first.label == "trial"
    assert place.source.kind == place.form
    assert place.source.where == str(place.path)


def test_what_changes_is_given_once(place):
    first = place.source.read()
    second = place.write(ttl_seconds=7)
    assert place.source.look() is Look.UNSETTLED  # somebody may still be copying
    found = place.source.look()
    assert found.revision == second != first.revision
    assert place.source.look() is Look.UNCHANGED


def test_what_is_still_being_copied_is_left_alone(place):
    place.source.read()
    for number in range(4):
        place.write(ttl_seconds=number + 1)
        assert place.source.look() is Look.UNSETTLED
    assert isinstance(place.source.look(), Bundle)


def test_what_changes_while_it_is_read_is_left_alone(place, monkeypatch):
    place.source.read()
    place.write(ttl_seconds=1)
    place.source.look()
    load, place.source._load = place.source._load, lambda path: (load(path), place.write(ttl_seconds=2))[0]
    assert place.source.look() is Look.UNSETTLED
    place.source._load = load
    assert isinstance(place.settled(), Bundle)


def test_a_reading_is_of_one_state(place):
    numbers = iter(range(1, 100))
    load = place.source._load
    place.source._load = lambda path: (load(path), place.write(ttl_seconds=next(numbers)))[0]
    with pytest.raises(ConfigurationError, match="changes while it is read"):
        place.source.read()


def test_a_place_swapped_by_two_renames_is_missed_by_one_look_without_an_alarm(place):
    place.source.read()
    place.remove()
    assert place.source.look() is Look.UNSETTLED
    place.write(ttl_seconds=9)
    assert isinstance(place.settled(), Bundle)


def test_a_place_that_has_gone_is_a_problem_until_it_is_back(place):
    place.source.read()
    place.remove()
    place.source.look()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            place.source.look()
    place.write()
    assert isinstance(place.settled(), Bundle), "what was said before the alarm is said again after it"


def test_what_cannot_be_understood_is_a_problem_until_it_is_mended(place, monotonic):
    place.source.read()
    place.spoil()
    place.source.look()
    with pytest.raises(ConfigurationError):
        place.source.look()
    assert place.source.look() is Look.UNCHANGED, "it is not read again at every look"
    monotonic.now += REREAD_SECONDS
    with pytest.raises(ConfigurationError):
        place.source.look()
    place.write()
    assert isinstance(place.settled(), Bundle)


def test_signatures_alone_are_a_change(tmp_path, monotonic):
    place = Place("folder", tmp_path, monotonic)
    first = place.source.read()
    (place.path / ".signatures.json").write_text("{}")
    found = place.settled()
    assert (found.revision, found.signatures) == (first.revision, b"{}")


def test_a_link_that_turns_in_a_circle_is_a_problem(tmp_path, monotonic):
    place = Place("folder", tmp_path, monotonic)
    place.source.read()
    os.symlink(place.path / "sidecar" / "loop.rego", place.path / "sidecar" / "loop.rego")
    place.source.look()
    with pytest.raises(ConfigurationError):
        place.source.look()


def test_a_pipe_is_no_bundle(tmp_path, monotonic):
    os.mkfifo(tmp_path / "pipe")
    source = file_source(tmp_path / "pipe", monotonic)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        source.read()


def mounted(mount: Path, generation: str, ttl: int, *, as_file: bool) -> None:
    """As Kubernetes puts a ConfigMap there: a new folder, then one rename of the link `..data`."""
    inner = mount / f"..{generation}"
    write_policy(inner, ttl_seconds=ttl)
    names = [".manifest", "sidecar"]
    if as_file:
        write_bundle(inner / "b.tar.gz", inner)
        names = ["b.tar.gz"]
    (mount / "..data_tmp").symlink_to(inner.name)
    (mount / "..data_tmp").rename(mount / "..data")
    for name in names:
        if not (mount / name).is_symlink():
            (mount / name).symlink_to(f"..data/{name}")


@pytest.mark.parametrize("as_file", [False, True])
def test_a_mounted_volume_that_is_swapped(tmp_path, monotonic, as_file):
    mounted(tmp_path, "one", 1, as_file=as_file)
    source = file_source(tmp_path / "b.tar.gz", monotonic) if as_file else folder_source(tmp_path, monotonic)
    first = source.read()
    assert source.look() is Look.UNCHANGED
    mounted(tmp_path, "two", 2, as_file=as_file)
    assert source.look() is Look.UNSETTLED
    assert source.look().revision != first.revision
    shutil.rmtree(tmp_path / "..one")
    assert source.look() is Look.UNCHANGED
