"""What the builder of the subject index refuses, how it names it, and that it writes all or nothing."""

from pathlib import Path

import pytest
from rich.progress import Progress

from sidecar.administration.rows import BuildReport
from sidecar.administration.subjects import SHOWN, build
from sidecar.attributes.subjects_index import SubjectIndex
from sidecar.errors import ConfigurationError

NOW = 1_795_000_000.0


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder, self.source, self.target = folder, folder / "in", folder / "out"

    def build(self, source: bytes) -> BuildReport:
        self.source.write_bytes(source)
        with Progress(disable=True) as progress:
            return build(self.source, self.target, progress, clock=lambda: NOW)

    def classes(self, *ids: str) -> list[str]:
        index = SubjectIndex(self.target, 100)
        return [index.classify("person", one) for one in ids]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


BAD_CSV = [
    (b"1,us", "country 'us' is no ISO 3166-1", "Write 'US'."),
    (b"1,USA", "country 'USA'", "two capitals"),
    (b"1,ZZ", "country 'ZZ'", "assigned"),
    (b"1, US", "country ' US'", "Write 'US'."),
    (b"1,", "no country", "Leave the row out"),
    (b",US", "the id has 0 bytes", "1 to 1024"),
    (b"1", "1 fields, not 2", "comma"),
    (b"1,US,x", "3 fields, not 2", "comma"),
    (b"\xff,US", "not UTF-8", "UTF-8"),
    (b"x" * 1025 + b",US", "the id has 1025 bytes", "1 to 1024"),
    (b'"1,US', "not CSV", "RFC 4180"),
    (b'"1"x,US', "not CSV", "RFC 4180"),
    (b"1\r2,US", "not CSV", "RFC 4180"),
    (b" ", "1 fields, not 2", "comma"),
]


@pytest.mark.parametrize(("line", "what", "fix"), BAD_CSV)
@pytest.mark.parametrize("quoted_before", [False, True])
def test_a_bad_row_of_csv_is_named(bench: Bench, line: bytes, what: str, fix: str, quoted_before: bool) -> None:
    good = b'"0",DE' if quoted_before else b"0,DE"
    report = bench.build(b"id,country\n" + good + b"\n\n" + line)
    assert report.bad == 1, report.lines
    assert report.lines[0].startswith(f"{bench.source}:4:")
    assert what in report.lines[0]
    assert fix in report.lines[0]
    assert not bench.target.exists()


@pytest.mark.parametrize(
    ("as_of", "good"),
    [("2026-11-18", True), ("2026-11-18T11:00:00Z", True), ("", True), ("yesterday", False), ("2026-02-30", False),
     ("2026-11-18T11:00:00", False), ("18.11.2026", False)],
)  # fmt: skip
@pytest.mark.parametrize("form", ["id,country,as_of\n1,US,{}\n", 'id,as_of,country\n1,"{}",US\n'])
def test_when_it_was_so(bench: Bench, as_of: str, good: bool, form: str) -> None:
    report = bench.build(form.format(as_of).encode())
    assert report.bad == (not good)


BAD_JSON = [
    (b'{"id":"1"}', "missing required field `country`"),
    (b'{"id":1.0,"country":"US"}', "got `float`"),
    (b'{"id":true,"country":"US"}', "got `bool`"),
    (b'{"id":null,"country":"US"}', "got `null`"),
    (b'{"id":"","country":"US"}', "0 bytes"),
    (b'{"id":"1","country":"US","name":"x"}', "unknown field `name`"),
    (b'{"id":"1","country":"DE","id":"2"}', "key 'id' is there twice"),
    (b'{"id":"1","country":"DE","country":"DE"}', "key 'country' is there twice"),
    (b'{"id":1,"country":"DE","id":"2"}', "key 'id' is there twice"),
    (b'{"id":"1","country":"DE","id":2}', "key 'id' is there twice"),
    (b'{"id":"1","country":"DE","as_of":null,"as_of":null}', "key 'as_of' is there twice"),
    (b'{"id":"1","country":"DE","i\\u0064":"2"}', "key 'id' is there twice"),
    (b'{"id":"1","country":"DE","kind":""}', "kind '' cannot be a namespace"),
    (b'{"id":"1","country":"DE","kind":"a\\u0000b"}', "cannot be a namespace"),
    (b'{"id":"\xff","country":"DE"}', "not UTF-8"),
    (b'{"id":"\\ud800","country":"DE"}', "surrogate"),
    (b"x,US", "JSON is malformed"),
    (b"[]", "Expected `object`"),
    (b'{"id":' + b"9" * 5000 + b',"country":"DE"}', ""),
]


@pytest.mark.parametrize(("line", "what"), BAD_JSON)
def test_a_bad_row_of_json_is_named(bench: Bench, line: bytes, what: str) -> None:
    report = bench.build(b'{"id":"0","country":"DE"}\n' + line + b'\n{"id":"3","country":"DE"}\n')
    assert report.bad == 1, report.lines
    assert report.lines[0].startswith(f"{bench.source}:2:")
    assert what in report.lines[0]
    assert not bench.target.exists()


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (b"", "the source is empty"),
        (b"\n", "the source is empty"),
        (b"1,US\n", "unknown column '1'"),
        (b"id,contry\n", "Did you mean 'country'"),
        (b"id, country\n", "unknown column ' country'"),
        (b"id\n1\n", "lacks id or country"),
        (b"id,country,id\n", "twice"),
        (b"id;country\n", "unknown column"),
        (b"\xff\n", "the header cannot be read"),
    ],
)
def test_a_source_without_a_header(bench: Bench, source: bytes, what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        bench.build(source)
    assert {file.name for file in bench.folder.iterdir()} == {"in"}


def test_forms_that_mean_the_same(bench: Bench) -> None:
    plain = b"id,country\n1,US\n2,DE\n"
    for source in (plain, plain.rstrip(), plain.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + plain, b"country,id\nUS,1\nDE,2\n",
                   b'"id","country"\r\n"1","US"\r\n"2","DE"\r\n', b"id,country,as_of,kind\n1,US,2026-11-18,\n2,DE,,person\n",
                   b'{"id":"1","country":"US"}\r\n{"country":"DE","id":2}',
                   b'\xef\xbb\xbf{"id":"1","country":"US","as_of":null}\n{"id":"\\u0032","country":"DE"}\n'):  # fmt: skip
        report = bench.build(source)
        assert report.bad == 0, report.lines
        assert report.lines[0].startswith("2 rows: 1 US and 1 non-US ids")
        assert bench.classes("1", "2", "3") == ["us", "non_us", "unknown"]


def test_a_header_alone_is_an_index_of_nobody(bench: Bench) -> None:
    assert bench.build(b"id,country\n").bad == 0
    assert bench.classes("1", "") == ["unknown", "unknown"]


def test_separators_of_other_alphabets_end_no_row(bench: Bench) -> None:
    ids = ["a\u2028b", "a\x0bb", "a\x85b", "a\x1cb", "\x0c"]
    for quote in ("", '"'):
        source = "id,country\n" + "".join(f"{quote}{one}{quote},DE\n" for one in ids)
        assert bench.build(source.encode()).bad == 0
        assert bench.classes(*ids) == ["non_us"] * len(ids)


def test_many_bad_rows_are_counted_and_the_first_named(bench: Bench) -> None:
    report = bench.build(b"id,country\n" + b"1,XX\n" * 1000)
    assert report.bad == 1000
    assert sum("country 'XX'" in line for line in report.lines) == SHOWN
    assert f"... and {1000 - SHOWN} more bad rows" in report.lines
    assert "not written" in report.lines[-1]


def test_a_failed_build_leaves_the_old_index(bench: Bench) -> None:
    assert bench.build(b"id,country\n1,US\n").bad == 0
    before = bench.target.read_bytes()
    assert bench.build(b"id,country\n1,DE\n1,XX\n").bad == 1
    assert bench.target.read_bytes() == before
    assert {file.name for file in bench.folder.iterdir()} == {"in", "out"}


def test_files_that_cannot_be_used(bench: Bench) -> None:
    with Progress(disable=True) as progress:
        with pytest.raises(ConfigurationError, match="cannot be read"):
            build(bench.source, bench.target, progress)
        bench.source.write_bytes(b"id,country\n")
        with pytest.raises(ConfigurationError, match="the target is the source"):
            build(bench.source, bench.source, progress)
        with pytest.raises(ConfigurationError, match="nothing can be written there"):
            build(bench.source, bench.folder / "no" / "out", progress)
    assert bench.source.read_bytes() == b"id,country\n"
