"""The directory in force: what it answers, when that ends, and what happens to it when its file changes."""

import json
import os
import threading
from array import array
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.progress import Progress

from sidecar.administration.directory import build
from sidecar.attributes.directory import MAX_CACHED, SIZE_BITS, Directory, PersonEntry, PersonRow, hash_of
from sidecar.attributes.hashes import write_hashes
from sidecar.attributes.snapshots import PAGE, Snapshot, SnapshotWriter
from sidecar.errors import Code, ConfigurationError, IdentifyError, IntegrityError
from sidecar.vocabulary import Engagement, Person

NOW = 1_795_000_000.0  # 2026-11-18T11:06:40Z
AS_OF = "2026-11-18T11:00:00Z"


def person(name: str = "amy", **changes: object) -> dict[str, object]:
    return {"id": name, "us_personnel": True, "status": "active", "as_of": AS_OF} | changes


def write(target: Path, people: list[dict[str, object]], *, now: float = NOW, entities: tuple = ()) -> None:
    sources = target.with_suffix(".people"), target.with_suffix(".entities")
    for file, rows in zip(sources, (people, entities), strict=True):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Progress(disable=True) as progress:
        report = build(*sources, target, progress, clock=lambda: now)
    assert report.bad == 0, report.lines


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "people.snapshot"


def opened(target: Path, max_age: float = 3600.0) -> tuple[Directory, list[tuple[str, str]]]:
    events: list[tuple[str, str]] = []
    return Directory(target, max_age, report=lambda event, detail: events.append((event, detail))), events


def test_everything_a_row_says_comes_back(target: Path) -> None:
    entities = ({"id": "acme", "organised_under": ["US"], "principal_place": "US", "government_of": None,
                 "designated": False, "owners": [{"id": "uma", "share": 33.3}]},)  # fmt: skip
    full = person(
        "uma", vetted_until="2027-01-01T00:00:00Z", roles=["support", "security"],
        training=[{"id": "data_protection", "until": "2026-12-01T00:00:00Z"}],
        location={"country": "PR", "source": "badge", "as_of": AS_OF}, legal_status="us_citizen",
        primary_residence="US", citizenships=["US", "IE"],
        engagement={"type": "vendor", "counterparty": "acme", "group": "acme-group", "agreement_ref": "MSA-7", "onward_clause_ref": "MSA-7 s. 9",
                    "from": "2024-01-01T00:00:00Z", "until": "2026-11-30T00:00:00+01:00"},
    )  # fmt: skip
    write(target, [person(), full], entities=entities)
    found = Directory(target, 7e8)
    entry = found.person("uma")
    assert entry is not None
    said = json.loads(msgspec.json.encode(entry.person))
    assert said.pop("covered_person") == {"value": "no", "basis": "us_person_status", "as_of": AS_OF}
    wanted = {key: value for key, value in full.items() if key not in ("engagement", "as_of")}
    assert said == wanted
    assert msgspec.to_builtins(entry.engagement) == full["engagement"]
    assert entry.as_of == AS_OF
    assert entry.revision == found.revision == Snapshot(target, "directory").revision
    assert found.person("uma") is entry
    entity = found.entity("acme")
    assert entity is not None
    assert msgspec.json.decode(msgspec.json.encode(entity)) == {
        **entities[0],
        "owners": [{"id": "uma", "share": "33.3"}],
        "others": None,
        "covered": {"value": "no", "basis": "us_person_organised", "owners": []},
    }
    assert found.entity("uma") is None


def test_an_unknown_id_is_nobody_and_ids_are_exact(target: Path) -> None:
    write(target, [person()])
    found = Directory(target, 3600)
    assert found.person("amy") is not None
    for other in ("", "Amy", "amy ", "am", "amy\0", "\ud800"):
        assert found.person(other) is None


def test_leaves_that_are_not_given_are_null(target: Path) -> None:
    write(target, [person(location=None, engagement=None, vetted_until=None)])
    entry = Directory(target, 3600).person("amy")
    assert entry is not None
    assert entry.person.vetted_until is None
    assert entry.person.location.country is None
    assert entry.engagement.type is None


@pytest.mark.parametrize(
    ("changes", "after"),
    [
        ({}, 3600.0),
        ({"vetted_until": "2026-11-18T11:16:40Z"}, 600.0),
        (
            {"training": [{"id": "a", "until": "2026-11-18T11:26:40Z"}, {"id": "b", "until": "2026-11-18T11:11:40Z"}]},
            300.0,
        ),
        ({"engagement": {"until": "2026-11-18T11:08:40Z"}}, 120.0),
        ({"engagement": {"from": "2026-11-18T11:08:40Z"}}, 120.0),
        ({"vetted_until": "2025-01-01T00:00:00Z"}, 3600.0),  # lapsed before: nothing changes any more
        ({"vetted_until": "2025-01-01T00:00:00Z", "engagement": {"until": "2026-11-18T11:08:40Z"}}, 120.0),
        ({"vetted_until": "2030-01-01T00:00:00Z"}, 3600.0),
    ],
)
def test_an_answer_ends_with_the_first_thing_that_ends(target: Path, changes: dict, after: float) -> None:
    write(target, [person(**changes)])
    entry = Directory(target, 3600).person("amy")
    assert entry is not None
    assert entry.expires_at == NOW + after


@given(
    ids=st.sets(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=8), max_size=200)
)
@settings(max_examples=30, deadline=None)
def test_everybody_is_found_and_nobody_else(tmp_path_factory: pytest.TempPathFactory, ids: set[str]) -> None:
    target = tmp_path_factory.mktemp("d") / "d.snapshot"
    write(target, [person(name) for name in sorted(ids)])
    found = Directory(target, 3600)
    for name in ids:
        entry = found.person(name)
        assert entry is not None
        assert entry.person.id == name
        assert (found.person(name + "!") is None) == (name + "!" not in ids)


def test_a_row_under_the_same_hash_is_not_mistaken(target: Path) -> None:
    rows = [msgspec.json.encode(PersonRow(person=Person(id=name), engagement=Engagement(), as_of=AS_OF, turns=()))
            for name in ("first", "wanted", "last")]  # fmt: skip
    with SnapshotWriter(target, "directory") as writer:
        for name, kept in (("entities", []), ("people", rows)):
            writer.section(f"{name}.rows")
            places = [writer.write(row) << SIZE_BITS | len(row) for row in kept]
            write_hashes(writer, f"{name}.hashes", [[hash_of("wanted")] * len(kept)], len(kept))
            writer.section(f"{name}.places")
            writer.write(array("Q", places).tobytes())
        writer.commit(built_at=NOW, counts={})
    found = Directory(target, 3600)
    entry = found.person("wanted")
    assert entry is not None
    assert entry.person.id == "wanted"
    assert found.person("first") is None


def test_the_cache_is_bounded(target: Path) -> None:
    write(target, [person(str(number)) for number in range(MAX_CACHED + 1)])
    found = Directory(target, 3600)
    kept: list[PersonEntry | None] = [found.person(str(number)) for number in range(MAX_CACHED + 1)]
    assert kept[MAX_CACHED] is found.person(str(MAX_CACHED))
    assert kept[0] is not found.person("0")
    assert kept[0] == found.person("0")


def test_freshness_is_by_the_time_of_building(target: Path) -> None:
    write(target, [person()])
    found = Directory(target, 3600)
    assert found.age(NOW + 5) == 5
    assert found.fresh(NOW)
    assert found.fresh(NOW + 3600)
    assert not found.fresh(NOW + 3601)
    assert found.fresh(NOW - 60)
    assert not found.fresh(NOW - 61)  # built in the future: a wrong clock must not make it last


def test_a_missing_file_is_a_matter_of_configuration(target: Path) -> None:
    with pytest.raises(ConfigurationError, match="sidecar directory build"):
        Directory(target, 3600)


def test_a_new_file_is_taken_and_the_old_entry_keeps_its_revision(target: Path) -> None:
    write(target, [person()])
    found, events = opened(target)
    before, old = found.revision, found.person("amy")
    assert not found.reload_if_changed()
    write(target, [person(status="left"), person("bob")], now=NOW + 60)
    assert found.person("bob") is None
    assert found.reload_if_changed()
    entry = found.person("amy")
    assert entry is not None
    assert (entry.person.status, entry.revision) == ("left", found.revision)
    assert found.revision != before
    assert old is not None
    assert old.revision == before
    assert found.fresh(NOW + 3660)
    assert [event for event, _ in events] == ["directory_activated", "directory_activated"]


def test_the_same_content_built_later_is_fresher_but_no_other_revision(target: Path) -> None:
    write(target, [person()])
    found, _ = opened(target)
    before = found.revision
    write(target, [person()], now=NOW + 60)
    assert not found.reload_if_changed()
    assert found.revision == before
    assert found.age(NOW + 60) == 0


def test_an_older_file_is_refused(target: Path) -> None:
    write(target, [person()])
    found, events = opened(target)
    write(target, [person("bob")], now=NOW - 1)
    assert not found.reload_if_changed()
    assert found.person("amy") is not None
    assert found.person("bob") is None
    assert "before the one in force" in (found.error or "")
    assert events[-1][0] == "directory_refused"


def test_a_swapped_symlink_is_seen(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, [person(name)], now=NOW)
    link = tmp_path / "link"
    link.symlink_to("one")
    found = Directory(link, 3600)
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(link)
    assert found.reload_if_changed()
    assert found.person("two") is not None
    assert found.person("one") is None


def test_a_missing_file_later_is_reported_once_and_its_return_noticed(target: Path) -> None:
    write(target, [person()])
    found, events = opened(target)
    target.rename(target.with_suffix(".away"))
    assert not found.reload_if_changed()
    assert not found.reload_if_changed()
    assert [event for event, _ in events] == ["directory_activated", "directory_refused"]
    assert found.person("amy") is not None
    assert found.fresh(NOW)
    target.with_suffix(".away").rename(target)
    assert not found.reload_if_changed()
    assert found.error is None


def test_a_damaged_replacement_keeps_the_old_one(target: Path) -> None:
    write(target, [person()])
    found, events = opened(target)
    other = target.with_suffix(".new")
    write(other, [person("bob")], now=NOW + 60)
    data = bytearray(other.read_bytes())
    data[PAGE + 3] ^= 1
    other.write_bytes(data)
    other.replace(target)
    for _ in range(5):
        assert not found.reload_if_changed()
    assert found.person("amy") is not None
    assert found.fresh(NOW)
    assert [event for event, _ in events] == ["directory_activated", "directory_refused"]
    assert f"offset {PAGE}" in events[1][1]
    write(target, [person("bob")], now=NOW + 60)
    assert found.reload_if_changed()
    assert found.error is None
    assert found.person("bob") is not None


def test_a_file_read_while_it_was_written_is_read_again(target: Path) -> None:
    """A second look at the same mark: the clock of a file system is coarser than a writer."""
    write(target, [person()])
    found, _ = opened(target)
    other = target.with_suffix(".new")
    write(other, [person("bob")], now=NOW + 60)
    whole = other.read_bytes()
    mark = os.stat(other)
    other.write_bytes(whole[:PAGE] + bytes(len(whole) - PAGE))
    other.replace(target)
    assert not found.reload_if_changed()
    with target.open("r+b") as file:
        file.write(whole)
    os.utime(target, ns=(mark.st_atime_ns, mark.st_mtime_ns))
    assert found.reload_if_changed()
    assert found.person("bob") is not None


def test_a_file_damaged_in_place_ends_it(target: Path) -> None:
    """The mapping shows the damage, so the old one is gone: nobody can be identified until a good file comes."""
    write(target, [person()])
    found, events = opened(target)
    with target.open("r+b") as file:
        file.seek(PAGE + 3)
        file.write(b"\xff")
    assert not found.reload_if_changed()
    assert not found.fresh(NOW)
    with pytest.raises(IdentifyError) as caught:
        found.person("amy")
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "stale_directory")
    assert str(target) not in caught.value.message
    assert "NOTHING is in force" in events[-1][1]
    write(target, [person()], now=NOW + 1)
    assert found.reload_if_changed()
    assert found.person("amy") is not None
    assert found.fresh(NOW)


def test_a_row_damaged_before_the_file_is_looked_at_again_is_no_answer(target: Path) -> None:
    write(target, [person()])
    found = Directory(target, 3600)
    with target.open("r+b") as file:
        file.seek(PAGE)
        file.write(b"\xff" * 64)
    with pytest.raises(IdentifyError):
        found.person("amy")


def test_reading_goes_on_while_a_thread_reloads(target: Path) -> None:
    write(target, [person(status="0")])
    found, _ = opened(target)
    done = threading.Event()
    failures: list[object] = []

    def reload() -> None:
        for number in range(1, 30):
            write(target, [person(status=str(number))], now=NOW + number)
            if not found.reload_if_changed():
                failures.append(number)
        done.set()

    thread = threading.Thread(target=reload)
    thread.start()
    last = 0
    while not done.is_set():
        entry = found.person("amy")
        assert entry is not None
        assert int(entry.person.status or "") >= last
        last = int(entry.person.status or "")
    thread.join()
    assert not failures
    final = found.person("amy")
    assert final is not None
    assert final.person.status == "29"


def test_every_flipped_bit_and_every_cut_is_found(target: Path) -> None:
    write(target, [person(str(number)) for number in range(3)])
    whole = target.read_bytes()
    damaged = target.with_suffix(".damaged")
    for at in [*range(700), *range(700, PAGE, 97), *range(PAGE, len(whole))]:
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        damaged.write_bytes(data)
        with pytest.raises(IntegrityError) as caught:
            Directory(damaged, 3600)
        assert str(damaged) in caught.value.where
        assert "offset" in caught.value.where
        assert caught.value.fix
    for size in (0, 1, PAGE - 1, PAGE, PAGE + 1, len(whole) - 1):
        damaged.write_bytes(whole[:size])
        with pytest.raises(IntegrityError):
            Directory(damaged, 3600)
    damaged.write_bytes(whole + b"\0")
    with pytest.raises(IntegrityError):
        Directory(damaged, 3600)
