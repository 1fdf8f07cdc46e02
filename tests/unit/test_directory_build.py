"""What the builder of the directory refuses, and that it writes all or nothing."""

import json
from pathlib import Path

import pytest
from rich.progress import Progress

from sidecar.administration.directory import build
from sidecar.administration.rows import BuildReport
from sidecar.attributes.directory import Directory
from sidecar.errors import ConfigurationError

NOW = 1_795_000_000.0
AS_OF = "2026-11-18T11:00:00Z"
PERSON = {"id": "amy", "us_personnel": True, "status": "active", "as_of": AS_OF}
ENTITY = {"id": "acme"}


def lines(*rows: object) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.people, self.entities, self.target = folder / "people.jsonl", folder / "entities.jsonl", folder / "out"
        self.folder = folder

    def build(self, people: str | bytes, entities: str | bytes = "", now: float = NOW) -> BuildReport:
        for file, content in ((self.people, people), (self.entities, entities)):
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        with Progress(disable=True) as progress:
            return build(self.people, self.entities, self.target, progress, clock=lambda: now)

    def left_over(self) -> set[str]:
        return {file.name for file in self.folder.iterdir()} - {self.people.name, self.entities.name}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


BAD_PEOPLE = [
    ({"vetted": "x"}, "unknown field `vetted`", "vetted_until"),
    ({"location": {"county": "US"}}, "unknown field `county`", "country"),
    ({"us_personnel": "yes"}, "Expected `bool`", "us_personnel"),
    ({"us_personnel": None}, "Expected `bool`", "us_personnel"),
    ({"us_personnel": 1}, "Expected `bool`", "us_personnel"),
    ({"id": "a b"}, "cannot stand in a token", "ASCII"),
    ({"id": ""}, "cannot stand in a token", "ASCII"),
    ({"id": "zoë"}, "cannot stand in a token", "ASCII"),
    ({"status": ""}, "status '' is empty", "null"),
    ({"roles": ["a", "a"]}, "'a' is in roles twice", "Keep one"),
    ({"roles": ["a\u0000"]}, "roles", "printable"),
    ({"roles": None}, "Expected `array`", "Keys"),
    ({"training": [{"id": "t", "until": AS_OF}, {"id": "t", "until": AS_OF}]}, "'t' is in training twice", "Keep one"),
    ({"training": [{"id": "t"}]}, "missing required field `until`", "until"),
    ({"training": [{"id": "t", "until": "2026"}]}, "training 't' until '2026'", "2026-11-30T17:00:00Z"),
    ({"vetted_until": "2026-11-18"}, "no RFC 3339 instant", "2026-11-30T17:00:00Z"),
    ({"vetted_until": "2026-11-18T11:00:00"}, "no RFC 3339 instant", "Z"),
    ({"vetted_until": "2026-11-18 11:00:00Z"}, "no RFC 3339 instant", "Z"),
    ({"vetted_until": "2026-11-18t11:00:00z"}, "no RFC 3339 instant", "Z"),
    ({"vetted_until": "2026-02-29T11:00:00Z"}, "no RFC 3339 instant", "Z"),
    ({"vetted_until": "2026-11-18T24:00:00Z"}, "no RFC 3339 instant", "Z"),
    ({"vetted_until": "2026-11-18T11:00:60Z"}, "no RFC 3339 instant", "Z"),
    ({"vetted_until": "2026-11-18T11:00:00+24:00"}, "no RFC 3339 instant", "Z"),
    ({"vetted_until": "9999-12-31T00:00:00Z"}, "out of range", "1970 to 2261"),  # engines count nanoseconds in 64 bits
    ({"vetted_until": "1969-12-31T23:59:59Z"}, "out of range", "1970 to 2261"),
    ({"vetted_until": "0001-01-01T00:00:00+23:00"}, "out of range", "1970"),
    ({"as_of": "2026-11-18T11:08:00Z"}, "is in the future", "clock"),
    ({"location": {"country": "US", "as_of": "2026-11-18T11:08:00Z"}}, "location.as_of", "clock"),
    ({"location": {"country": "USA"}}, "location.country 'USA'", "two capitals"),
    ({"location": {"country": "us"}}, "location.country 'us'", "Write 'US'"),
    ({"primary_residence": "ZZ"}, "primary_residence 'ZZ'", "assigned"),
    ({"citizenships": ["XK"]}, "citizenships 'XK'", "assigned"),
    ({"citizenships": ["US", "US"]}, "'US' is in citizenships twice", "Keep one"),
    ({"engagement": {"type": "contractor"}}, "Invalid enum value 'contractor'", "Keys"),
    ({"engagement": {"type": "vendor", "counterparty": "acne"}}, "'acne' is no entity", "Did you mean 'acme'?"),
    ({"engagement": {"from": AS_OF, "until": AS_OF}}, "engagement.from is not before", "Correct"),
    ({"legal_status": "alien"}, "legal_status 'alien' is none of the list", "us_permanent_resident"),
    ({"legal_status": ""}, "legal_status '' is none of the list", "null is not known"),
    ({"designated": "yes"}, "Expected `bool", "Keys"),
    ({"engagement": {"onward_clause_ref": ""}}, "engagement.onward_clause_ref '' is empty", "null"),
    ({"covered_person": {"value": "no"}}, "unknown field `covered_person`", "Did you mean"),
]


@pytest.mark.parametrize(("change", "what", "fix"), BAD_PEOPLE)
def test_a_bad_person_is_named_and_nothing_is_written(bench: Bench, change: dict, what: str, fix: str) -> None:
    report = bench.build(lines(PERSON | {"id": "good"}, PERSON | change), lines(ENTITY))
    assert report.bad == 1
    assert report.lines[0].startswith(f"{bench.people}:2: ")
    assert repr((PERSON | change)["id"]) in report.lines[0]
    assert what in report.lines[0]
    assert fix in report.lines[0]
    assert "not written" in report.lines[-1]
    assert bench.left_over() == set()


@pytest.mark.parametrize("key", ["id", "us_personnel", "status", "as_of"])
def test_what_a_person_needs(bench: Bench, key: str) -> None:
    report = bench.build(lines({name: value for name, value in PERSON.items() if name != key}))
    assert report.bad == 1
    assert f"missing required field `{key}`" in report.lines[0]


BAD_ENTITIES = [
    ({"organised_under": ["UK"]}, "organised_under 'UK'"),
    ({"principal_place": "Texas"}, "principal_place 'Texas'"),
    ({"government_of": "cn"}, "Write 'CN'"),
    ({"designated": "no"}, "Expected `bool"),
    ({"owners": [{"id": "acme", "share": 10}]}, "it owns itself"),
    ({"owners": [{"id": "b", "share": 0}]}, "no percentage"),
    ({"owners": [{"id": "b", "share": -1}]}, "no percentage"),
    ({"owners": [{"id": "b", "share": 100.1}]}, "no percentage"),
    ({"owners": [{"id": "b", "share": "NaN"}]}, "no percentage"),
    ({"owners": [{"id": "b", "share": "Infinity"}]}, "no percentage"),
    ({"owners": [{"id": "b", "share": 1e-13}]}, "no percentage"),
    ({"owners": [{"id": "b", "share": 50.1}, {"id": "c", "share": 50}]}, "the shares make 100.1 %"),
    ({"owners": [{"id": "b", "share": 5}, {"id": "b", "share": 5}]}, "'b' is in owners twice"),
    ({"owners": [{"id": "b", "shares": 5}]}, "Did you mean 'share'?"),
    ({"others": "nobody"}, "Invalid enum value 'nobody'"),
    ({"covered": {"value": "no"}}, "unknown field `covered`"),
    ({"owners": [{"id": "nobody", "share": 5}]}, "owner 'nobody' is neither"),
    ({"id": ""}, "id '' is empty"),
    ({"id": "amy"}, "the entity of"),
]


@pytest.mark.parametrize(("change", "what"), BAD_ENTITIES)
def test_a_bad_entity_is_named(bench: Bench, change: dict, what: str) -> None:
    report = bench.build(lines(PERSON), lines(ENTITY | change, {"id": "b"}, {"id": "c"}))
    assert report.bad == 1, report.lines
    assert what in report.lines[0]
    assert bench.left_over() == set()


def test_shares_are_exact_and_cross_holdings_allowed(bench: Bench) -> None:
    a = {"id": "a", "owners": [{"id": "b", "share": 33.4}, {"id": "c", "share": 33.3}, {"id": "amy", "share": 33.3}]}
    b = {"id": "b", "owners": [{"id": "a", "share": 50.0}]}
    assert bench.build(lines(PERSON), lines(a, b, {"id": "c"})).bad == 0
    entity = Directory(bench.target, 3600).entity("a")
    assert entity is not None
    assert sum(owner.share for owner in entity.owners) == 100


def test_every_bad_row_is_named(bench: Bench) -> None:
    report = bench.build(lines(*({**PERSON, "id": f"p{number}", "status": ""} for number in range(100))))
    assert report.bad == 100
    assert sum("status" in line for line in report.lines) == 100


def test_one_mistake_is_one_bad_row(bench: Bench) -> None:
    """An entity with a bad country is still the entity that people name."""
    report = bench.build(lines(PERSON | {"engagement": {"counterparty": "acme"}}),
                         lines(ENTITY | {"organised_under": ["UK"], "typo": 1}))  # fmt: skip
    assert report.bad == 1


@pytest.mark.parametrize("repeated", [PERSON, PERSON | {"status": "left"}])
def test_an_id_twice(bench: Bench, repeated: dict) -> None:
    report = bench.build(lines(PERSON, "", repeated))
    assert report.bad == 1
    assert report.lines[0].startswith(f"{bench.people}:3: 'amy': the id is in line 1 too")


def test_a_key_twice(bench: Bench) -> None:
    row = json.dumps(PERSON)[:-1] + ', "us_personnel": false}'
    assert "key 'us_personnel' is there twice" in bench.build(row).lines[0]
    nested = json.dumps(PERSON)[:-1] + ', "location": {"country": "CN", "country": "US"}}'
    assert "key 'country' is there twice" in bench.build(nested).lines[0]


@pytest.mark.parametrize("line", [b"[]", b"null", b"{", b"\xff", b'{"id":"\xff"}', b'{"id":"\\ud800"}', b"[" * 5000, b"{}x",
                                  b'"' + b"x" * (1 << 20) + b'"'])  # fmt: skip
def test_lines_that_are_no_row(bench: Bench, line: bytes) -> None:
    report = bench.build(lines(PERSON).encode() + line + b"\n" + lines(PERSON | {"id": "bob", "status": ""}).encode())
    assert report.bad == 2, report.lines
    assert report.lines[0].startswith(f"{bench.people}:2: ")
    assert report.lines[1].startswith(f"{bench.people}:3: 'bob'")


def test_a_failed_build_leaves_the_old_snapshot(bench: Bench) -> None:
    assert bench.build(lines(PERSON)).bad == 0
    before = bench.target.read_bytes()
    bench.target.chmod(0o600)
    assert bench.build(lines(PERSON | {"status": ""})).bad == 1
    assert bench.target.read_bytes() == before
    assert bench.build(lines(PERSON), now=NOW + 1).bad == 0
    assert bench.target.stat().st_mode & 0o777 == 0o600
    assert bench.left_over() == {"out"}


def test_a_crash_while_writing_leaves_the_old_snapshot(bench: Bench) -> None:
    assert bench.build(lines(PERSON)).bad == 0
    before = bench.target.read_bytes()

    class Full(Progress):
        def advance(self, task_id: object, advance: float = 1) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(ConfigurationError, match="No space"), Full(disable=True) as progress:
        build(bench.people, bench.entities, bench.target, progress, clock=lambda: NOW)
    assert bench.target.read_bytes() == before
    assert bench.left_over() == {"out"}


def test_a_new_snapshot_is_not_for_everybody(bench: Bench) -> None:
    assert bench.build(lines(PERSON)).bad == 0
    assert bench.target.stat().st_mode & 0o007 == 0


def test_a_link_stays_a_link(bench: Bench) -> None:
    real = bench.folder / "real"
    real.write_text("")
    bench.target.symlink_to(real)
    assert bench.build(lines(PERSON)).bad == 0
    assert bench.target.is_symlink()
    assert Directory(real, 3600).person("amy") is not None


def test_equal_sources_give_equal_revisions(bench: Bench) -> None:
    revisions = []
    for now, people in ((NOW, PERSON), (NOW + 9, PERSON), (NOW + 9, PERSON | {"us_personnel": False})):
        bench.build(lines(people), now=now)
        revisions.append(Directory(bench.target, 3600).revision)
    assert revisions[0] == revisions[1] != revisions[2]


def test_the_report_says_what_was_done_and_what_was_not(bench: Bench) -> None:
    report = bench.build(lines(PERSON, PERSON | {"id": "bob", "us_personnel": False}), lines(ENTITY))
    assert report.lines[0] == "2 people (1 US personnel), 1 entities"
    assert report.lines[1] == "covered persons: 0 people, 0 entities"
    assert report.lines[2] == "unknown, weighed as covered: 2 people, 1 entities"
    assert Directory(bench.target, 3600).revision in report.lines[3]
    assert "2026-11-18T" in report.lines[3]


def test_files_that_cannot_be_used(bench: Bench) -> None:
    bench.people.write_text(lines(PERSON))
    with Progress(disable=True) as progress:
        with pytest.raises(ConfigurationError, match=r"entities\.jsonl"):
            build(bench.people, bench.entities, bench.target, progress)
        bench.entities.write_text("")
        with pytest.raises(ConfigurationError, match="the target is a source"):
            build(bench.people, bench.entities, bench.people, progress)
        with pytest.raises(ConfigurationError, match="nothing can be written there"):
            build(bench.people, bench.entities, bench.folder / "no" / "out", progress)
        with pytest.raises(ConfigurationError, match="not a regular file"):
            build(bench.people, bench.entities, bench.folder, progress)
    assert bench.left_over() == set()
