"""The subject index in force: the same classes as a dictionary would give, damage found, changes followed."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.progress import Progress

from sidecar.administration import subject_rows
from sidecar.administration.subjects import build
from sidecar.attributes.snapshots import PAGE, Snapshot, SnapshotWriter
from sidecar.attributes.subjects_index import SubjectIndex, hasher
from sidecar.errors import ConfigurationError, IntegrityError

NOW = 1_795_000_000.0
US = ("US", "PR", "GU", "VI", "AS", "MP", "UM")


def make(target: Path, source: bytes, *, now: float = NOW) -> list[str]:
    file = target.with_suffix(".source")
    file.write_bytes(source)
    with Progress(disable=True) as progress:
        report = build(file, target, progress, clock=lambda: now)
    assert report.bad == 0, report.lines
    return report.lines


def rows_csv(rows: Iterable[tuple[str, str, str]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)  # RFC 4180: quoted where needed, lines end with CR LF
    writer.writerow(("kind", "id", "country"))
    writer.writerows(rows)
    return out.getvalue().encode()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "us-subjects.idx"


@pytest.mark.parametrize("country", US)
def test_the_united_states_are_more_than_us(target: Path, country: str) -> None:
    make(target, f"id,country\n1,{country}\n2,DE\n".encode())
    index = SubjectIndex(target, 86400)
    assert [index.classify("person", one) for one in "123"] == ["us", "non_us", "unknown"]


def test_ids_are_exact_and_namespaces_apart(target: Path) -> None:
    make(target, b"id,country,as_of,kind\n42,US,,\n42,DE,,device\n007,FR,,\n a,FR,,\n")
    index = SubjectIndex(target, 86400)
    assert index.classify("person", "42") == "us"
    assert index.classify("device", "42") == "non_us"
    assert index.classify("other", "42") == "unknown"
    assert index.classify("person", "007") == "non_us"
    assert index.classify("person", " a") == "non_us"
    for other in ("7", "a", "42 ", "4", "", "４２", "\ud800", "42\0"):
        assert index.classify("person", other) == "unknown"
    assert index.classify("person\x0042", "") == "unknown"


def test_an_integer_is_its_decimal(target: Path) -> None:
    make(target, b'{"id":42,"country":"US"}\n\n{"id":-7,"country":"DE","kind":"person"}\n'
                 b'{"id":123456789012345678901234567890,"country":"DE","as_of":"2026-11-18"}\n{"id":"1.0","country":"DE"}')  # fmt: skip
    index = SubjectIndex(target, 86400)
    assert index.classify("person", "42") == "us"
    assert index.classify("person", "-7") == "non_us"
    assert index.classify("person", "123456789012345678901234567890") == "non_us"
    assert index.classify("person", "1") == "unknown"


def test_rows_that_disagree_make_a_subject_us(target: Path) -> None:
    for source in (b"id,country\n1,US\n1,DE\n2,DE\n", b"id,country\n1,DE\n2,DE\n1,US\n1,FR\n"):
        said = make(target, source)
        index = SubjectIndex(target, 86400)
        assert index.classify("person", "1") == "us"
        assert index.classify("person", "2") == "non_us"
        assert "1 US and 1 non-US ids" in said[0]
        assert said[1].startswith("1 ids are both")


IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
ROWS = st.lists(
    st.tuples(st.sampled_from(["person", "device"]), IDS, st.sampled_from(["US", "PR", "DE", "FR", "BR"])), max_size=60
)


def reference(rows: list[tuple[str, str, str]]) -> dict[tuple[str, str], str]:
    classes: dict[tuple[str, str], str] = {}
    for kind, one, country in rows:
        if country in US:
            classes[kind, one] = "us"
        else:
            classes.setdefault((kind, one), "non_us")
    return classes


def check(target: Path, rows: list[tuple[str, str, str]], others: list[str]) -> None:
    classes = reference(rows)
    index = SubjectIndex(target, 86400)
    for (kind, one), class_ in classes.items():
        assert index.classify(kind, one) == class_
    for one in others:
        assert index.classify("person", one) == classes.get(("person", one), "unknown")
    counts = Snapshot(target, "index").counts
    wanted = list(classes.values())
    assert counts == {"us": wanted.count("us"), "non_us": wanted.count("non_us")}


@given(rows=ROWS, others=st.lists(IDS, max_size=10))
@settings(max_examples=60, deadline=None)
def test_csv_classifies_as_a_dictionary_would(
    tmp_path_factory: pytest.TempPathFactory, rows: list, others: list
) -> None:
    target = tmp_path_factory.mktemp("i") / "i.idx"
    make(target, rows_csv(rows))
    check(target, rows, others)


@given(rows=ROWS.filter(bool), others=st.lists(IDS, max_size=10), ascii_only=st.booleans())
@settings(max_examples=60, deadline=None)
def test_json_classifies_as_a_dictionary_would(
    tmp_path_factory: pytest.TempPathFactory, rows: list, others: list, ascii_only: bool
) -> None:
    target = tmp_path_factory.mktemp("i") / "i.idx"
    lines = [
        json.dumps({"id": one, "country": country, "kind": kind}, ensure_ascii=ascii_only)
        for kind, one, country in rows
    ]
    make(target, "\n".join(lines).encode())
    check(target, rows, others)


def test_many_rows_over_many_blocks_and_slots(target: Path) -> None:
    """More than one block of the source, every bucket filled, and quotation marks only in the middle of the file."""
    rows = [("person", f"user-{number:07d}", "US" if number % 3 else "DE") for number in range(120_000)]
    plain = rows_csv(rows).replace(b"\r\n", b"\n")
    assert len(plain) > 2 * subject_rows.BLOCK
    make(target, plain)
    check(target, rows, [f"user-{number:07d}" for number in range(120_000, 121_000)])
    quoted = plain.replace(b"person,user-0045000,DE", b'person,"user,""45000""\n",DE')
    make(target, quoted, now=NOW + 1)
    rows[45_000] = ("person", 'user,"45000"\n', "DE")
    check(target, rows, ["user-0045000"])


def test_a_file_tells_no_ids_and_two_builds_differ(target: Path) -> None:
    make(target, b"id,country\nsecret-subject,US\n")
    first = target.read_bytes()
    make(target, b"id,country\nsecret-subject,US\n")
    second = target.read_bytes()
    assert b"secret" not in first
    assert first[PAGE : PAGE + 8] != second[PAGE : PAGE + 8]
    assert Snapshot(target, "index").key not in (bytes(16), bytes.fromhex(json.loads(first.split(b"\n")[1])["key"]))


def test_the_hash_is_the_documented_one(target: Path) -> None:
    """8 bytes an id: BLAKE2b over kind, NUL, id, with the key of the header; numbers little-endian in the file."""
    make(target, "id,country\nzoë,US\n".encode())
    data = target.read_bytes()
    header = json.loads(data.split(b"\n")[1])
    digest = hashlib.blake2b("person\0zoë".encode(), digest_size=8, key=bytes.fromhex(header["key"])).digest()
    at = header["sections"]["us"]["at"]
    assert header["sections"]["us"]["size"] == 8
    assert data[at : at + 8] == digest[::-1]
    fed = hasher(bytes.fromhex(header["key"]), "person")
    fed.update("zoë".encode())
    assert fed.digest() == digest


def test_freshness(target: Path) -> None:
    make(target, b"id,country\n1,US\n")
    index = SubjectIndex(target, 100)
    assert index.age(NOW + 7) == 7
    assert index.fresh(NOW + 100)
    assert not index.fresh(NOW + 101)
    assert not index.fresh(NOW - 61)


def test_start_needs_a_whole_file(target: Path) -> None:
    with pytest.raises(ConfigurationError, match="sidecar subjects build"):
        SubjectIndex(target, 100)
    target.write_bytes(b"id,country\n1,US\n")
    with pytest.raises(IntegrityError, match="within its header"):
        SubjectIndex(target, 100)


def test_a_new_index_is_taken_a_damaged_one_is_not(target: Path) -> None:
    events: list[tuple[str, str]] = []
    make(target, b"id,country\n1,US\n2,DE\n")
    index = SubjectIndex(target, 100, report=lambda event, detail: events.append((event, detail)))
    first = index.revision
    assert not index.reload_if_changed()
    make(target, b"id,country\n1,DE\n3,US\n", now=NOW + 1)
    assert index.reload_if_changed()
    assert index.revision != first
    assert [index.classify("person", one) for one in "123"] == ["non_us", "unknown", "us"]
    damaged = bytearray(target.read_bytes())
    damaged[PAGE] ^= 1
    other = target.with_suffix(".new")
    other.write_bytes(damaged)
    other.replace(target)
    assert not index.reload_if_changed()
    assert [index.classify("person", one) for one in "123"] == ["non_us", "unknown", "us"]
    assert [event for event, _ in events] == ["index_activated", "index_activated", "index_refused"]


def test_an_index_damaged_in_place_clears_nobody(target: Path) -> None:
    make(target, b"id,country\n1,US\n2,DE\n")
    index = SubjectIndex(target, 100)
    with target.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\0")
    assert not index.reload_if_changed()
    assert not index.fresh(NOW)
    assert [index.classify("person", one) for one in "12"] == ["unknown", "unknown"]


def test_every_flipped_bit_is_found(target: Path) -> None:
    make(target, b"id,country\n1,US\n2,DE\n3,DE\n")
    whole = target.read_bytes()
    for at in [*range(600), *range(600, PAGE, 89), *range(PAGE, len(whole))]:
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        target.write_bytes(data)
        with pytest.raises(IntegrityError, match="offset"):
            SubjectIndex(target, 100)


@given(data=st.binary(max_size=6000))
@settings(max_examples=100, deadline=None)
def test_garbage_is_never_an_index(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    target = tmp_path_factory.mktemp("g") / "garbage"
    target.write_bytes(b"customhouse index 1\n" + data)
    with pytest.raises(IntegrityError):
        SubjectIndex(target, 100)


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({}, 16),
        ({"us": b"", "non_us": b""}, 16),
        ({"us": b"", "us.fan": bytes(8), "non_us": b"", "non_us.fan": bytes(8)}, 15),
        ({"us": bytes(8), "us.fan": bytes(8), "non_us": b"", "non_us.fan": bytes(8)}, 16),
        ({"us": b"", "us.fan": bytes(12 + 4), "non_us": b"", "non_us.fan": bytes(8)}, 16),
        ({"us": bytes(7), "us.fan": bytes(8), "non_us": b"", "non_us.fan": bytes(8)}, 16),
    ],
)
def test_a_whole_file_with_other_content_is_refused(target: Path, sections: dict[str, bytes], key: int) -> None:
    with SnapshotWriter(target, "index") as writer:
        for name, data in sections.items():
            writer.section(name)
            writer.write(data)
        writer.commit(built_at=NOW, key=bytes(key), counts={})
    with pytest.raises(IntegrityError):
        SubjectIndex(target, 100)
