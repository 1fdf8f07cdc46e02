"""Covered persons as `sidecar directory build` resolves them: from rows to what a policy is shown, and why."""

import json
import time
from pathlib import Path

import pytest
from command_line import Shell
from rich.progress import Progress

from sidecar.administration.directory import Bounds, build
from sidecar.attributes.directory import Directory
from sidecar.errors import ConfigurationError

pytestmark = pytest.mark.unit
NOW = 1_795_000_000.0  # 2026-11-18T11:06:40Z
AS_OF = "2026-11-18T11:00:00Z"
ENTITIES = [
    {"id": "prc", "government_of": "CN"},
    {"id": "fund", "organised_under": ["KY"], "principal_place": "KY", "owners": [{"id": "prc", "share": "50.0"}]},
    {"id": "holding", "organised_under": ["US"], "principal_place": "US", "owners": [{"id": "fund", "share": 51}]},
    {"id": "dublin", "organised_under": ["IE"], "principal_place": "IE",
     "owners": [{"id": "holding", "share": "25"}, {"id": "li", "share": "25.0"}]},
    {"id": "clean", "organised_under": ["IE"], "principal_place": "IE", "others": "dispersed"},
]  # fmt: skip


def person(name, employer="clean", kind="employment", **changes):
    usual = {
        "id": name, "us_personnel": False, "status": "active", "as_of": AS_OF, "legal_status": "foreign",
        "primary_residence": "IE", "location": {"country": "IE", "source": "badge", "as_of": AS_OF},
        "engagement": {"type": kind, "counterparty": employer},
    }  # fmt: skip
    return usual | changes


LI = person("li", employer=None, kind="none", primary_residence="CN")
PRESENT = {"country": "PR", "source": "badge", "as_of": AS_OF}


class Bench:
    def __init__(self, folder):
        self.people, self.entities, self.target = folder / "people.jsonl", folder / "entities.jsonl", folder / "out"
        self.designated = folder / "designated.jsonl"

    def build(self, *people, entities=ENTITIES, designated=None, now=NOW, **options):
        self.people.write_text("".join(json.dumps(row) + "\n" for row in (LI, *people)))
        self.entities.write_text("".join(json.dumps(row) + "\n" for row in entities))
        if designated is not None:
            self.designated.write_text(designated)
            options["designated"] = self.designated
        with Progress(disable=True) as progress:
            return build(self.people, self.entities, self.target, progress, clock=lambda: now, **options)

    def verdicts(self, *people, **options):
        report = self.build(*people, **options)
        assert report.bad == 0, report.lines
        directory = Directory(self.target, 3600)
        found = [directory.person(row["id"]).person.covered_person for row in people]
        return [(one.value, one.basis) for one in found]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_from_rows_to_verdicts(bench):
    assert bench.verdicts(
        person("a"), person("b", "dublin"), person("c", "dublin", location=PRESENT),
        person("d", "dublin", "vendor", location=PRESENT), person("e", "holding"),
        person("f", "holding", "vendor", legal_status="us_citizen"), person("g", designated=True, legal_status="asylee"),
        person("h", primary_residence="MO"), person("i", "fund", "vendor", legal_status="us_citizen"),
    ) == [
        ("no", "foreign_not_covered"), ("yes", "employed_by_covered"), ("no", "us_person_present"),
        ("yes", "counterparty_covered"), ("no", "foreign_not_covered"),
        ("no", "us_person_status"), ("yes", "designated"),
        ("yes", "resident_of_concern"), ("yes", "counterparty_covered"),
    ]  # fmt: skip
    directory = Directory(bench.target, 3600)
    covered = {name: directory.entity(name).covered for name in ("prc", "fund", "holding", "dublin", "clean")}
    assert {name: (one.value, one.basis) for name, one in covered.items()} == {
        "prc": ("yes", "government"), "fund": ("yes", "entity_owned_50"), "holding": ("no", "us_person_organised"),
        "dublin": ("yes", "entity_owned_50"), "clean": ("no", "foreign_not_covered"),
    }  # fmt: skip
    assert covered["dublin"].owners == ("holding", "li")
    assert directory.person("a").person.covered_person.as_of == AS_OF


@pytest.mark.parametrize(
    ("as_of", "changes", "found"),
    [
        ("2026-08-20T11:06:40Z", {}, "foreign_not_covered"),
        ("2026-08-20T11:06:39Z", {}, "residence_unattested"),
        ("2026-08-20T11:06:39Z", {"legal_status": "us_citizen"}, "us_person_status"),
        (
            AS_OF,
            {"location": PRESENT | {"as_of": "2026-11-11T11:06:40Z"}, "primary_residence": "CN"},
            "us_person_present",
        ),
        (
            AS_OF,
            {"location": PRESENT | {"as_of": "2026-11-11T11:06:39Z"}, "primary_residence": "CN"},
            "presence_unattested",
        ),
        ("2026-11-11T11:06:40Z", {"location": {"country": "US"}, "primary_residence": "CN"}, "us_person_present"),
        ("2026-11-11T11:06:39Z", {"location": {"country": "US"}, "primary_residence": "CN"}, "presence_unattested"),
        (AS_OF, {"location": {"country": "CN"}, "primary_residence": "CN"}, "resident_of_concern"),
        (AS_OF, {"location": None, "primary_residence": "CN"}, "resident_of_concern"),
    ],
)
def test_what_was_attested_too_long_ago_is_not_known(bench, as_of, changes, found):
    assert bench.verdicts(person("a", as_of=as_of, **changes))[0][1] == found


def test_the_days_are_a_switch(bench):
    old = person("a", as_of="2026-11-16T11:00:00Z", location={"country": "US"}, primary_residence="CN")
    assert bench.verdicts(old, bounds=Bounds(presence_days=1)) == [("unknown", "presence_unattested")]
    assert bench.verdicts(old | {"location": None, "primary_residence": "IE"}, bounds=Bounds(residence_days=1)) == [
        ("unknown", "residence_unattested")
    ]


def test_202_211_a_5_the_list_of_designations(bench):
    line = '{"id": "%s", "reference": "91 FR 1"}\n'
    people = (person("a"), person("b", "clean"))
    assert bench.verdicts(*people, designated=line % "a" + line % "somebody else") == [
        ("yes", "designated"), ("no", "foreign_not_covered")]  # fmt: skip
    assert bench.verdicts(*people, designated=line % "clean") == [("yes", "employed_by_covered")] * 2
    said = bench.build(*people, designated=line % "a" + line % "A").lines
    assert "designated: 2 listed, 1 without a row, such as A" in said
    assert bench.verdicts(*people, designated="") == [("no", "foreign_not_covered")] * 2


@pytest.mark.parametrize(
    "line", ['{"id": "a"}', '{"id": "", "reference": "x"}', '{"id": "a", "reference": "x", "until": "y"}', "[]", "{",
             '{"id": "a", "id": "b", "reference": "x"}']
)  # fmt: skip
def test_a_bad_designation_is_named_and_nothing_is_written(bench, line):
    report = bench.build(designated=line + "\n")
    assert report.bad == 1
    assert report.lines[0].startswith(f"{bench.designated}:1: ")
    assert not bench.target.exists()


def test_the_target_is_no_source(bench):
    bench.target = bench.designated
    with pytest.raises(ConfigurationError, match="the target is a source"):
        bench.build(designated="")


def test_why(bench):
    report = bench.build(person("d", "dublin", "vendor"), explain=("d", "prc"))
    assert report.lines[3:-1] == [
        "d: covered person (counterparty_covered): engaged through a covered person, whose access this is",
        "  legal status foreign, primary residence IE, in the US no",
        "  vendor with",
        (
            "    dublin: covered person (entity_owned_50): 50 % or more held by covered persons or countries of concern, "
            "202.211(a)(1), (2)"
        ),
        (
            "      25 % held by holding: not a covered person (us_person_organised): a US person, organised solely under US "
            "law, 202.256; 50 % or more of it is held by covered persons, and so is what it owns"
        ),
        (
            "        51 % held by fund: covered person (entity_owned_50): 50 % or more held by covered persons or countries of "
            "concern, 202.211(a)(1), (2)"
        ),
        "          50.0 % held by prc: covered person (government): government of a country of concern, 202.601",
        "      25.0 % held by li: a person whose shares count: yes",
        "prc: covered person (government): government of a country of concern, 202.601",
    ]


def test_why_for_nobody(bench):
    with pytest.raises(ConfigurationError, match="no such person or entity to explain"):
        bench.build(explain=("nobody",))
    assert not bench.target.exists()


def test_an_owner_who_changes_while_the_file_is_read(bench, monkeypatch):
    bench.build()
    bench.target.unlink()

    class Swapping(Progress):
        def add_task(self, description, **options):
            if description == "Reading people.jsonl" and not hasattr(self, "second"):
                self.second = False
            elif description == "Reading people.jsonl":
                bench.people.write_text(json.dumps(LI | {"legal_status": "us_citizen"}) + "\n")
            return super().add_task(description, **options)

    with pytest.raises(ConfigurationError, match="changed while it was read"), Swapping(disable=True) as progress:
        build(bench.people, bench.entities, bench.target, progress, clock=lambda: NOW)
    assert not bench.target.exists()


def test_the_same_facts_make_the_same_revision_until_one_of_them_is_too_old(bench):
    revisions = []
    for now in (NOW, NOW + 60, NOW + 91 * 86_400):
        bench.build(person("a"), now=now)
        revisions.append(Directory(bench.target, 3600).revision)
    assert revisions[0] == revisions[1] != revisions[2]


def test_the_command_explains(shell: Shell, tmp_path: Path):
    bench = Bench(tmp_path)
    as_of = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 60))
    rows = [row | {"as_of": as_of, "location": None} for row in (LI, person("b", "fund"))]
    bench.people.write_text("".join(json.dumps(row) + "\n" for row in rows))
    bench.entities.write_text("".join(json.dumps(row) + "\n" for row in ENTITIES))
    bench.designated.write_text("")
    ran = shell("directory", "build", bench.people, bench.entities, bench.target, "--explain", "b", "--explain", "fund",
                "--designated", bench.designated, "--residence-days", 30, "--presence-days", 3)  # fmt: skip
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[1] == "covered persons: 2 people, 3 entities"
    assert lines[2] == "unknown, weighed as covered: 0 people, 0 entities"
    assert lines[3].startswith("b: covered person (employed_by_covered)")
    assert any(line.strip().startswith("50.0 % held by prc") for line in lines)
    assert "no such person or entity" in shell.refused(
        "directory", "build", bench.people, bench.entities, bench.target, "--explain", "zoe")  # fmt: skip
