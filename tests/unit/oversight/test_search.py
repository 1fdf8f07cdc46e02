"""The search index answers as a plain scan would, from any crash, and reports bodies that are not what they should be."""

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_rig import CLOCK, START, Producer

from sidecar.errors import ConfigurationError
from sidecar.oversight.extract import terms_of
from sidecar.oversight.ingest import check_batch
from sidecar.oversight.periods import rfc3339
from sidecar.oversight.search import BLOCK, Query, SearchIndex
from sidecar.oversight.sequencer import place
from sidecar.oversight.sqlite import SqliteStorage, connect

pytestmark = pytest.mark.unit
PEOPLE, REASONS, CATEGORIES, SERVICES = ("amy", "ben"), ("r1", "r2"), ("c1", "c2", "c3"), ("S", "T")
CALLS = ("01a19467-e800-704d-a788-142cc2b79638", "01a19467-e800-704d-a788-142cc2b79639", "plain text")
TRACES = ("0af7651916cd43dd8448eb211c80319c", "1af7651916cd43dd8448eb211c80319c")


def body(number):
    """Many different bodies, by number."""
    return (
        '{{"service":"{}","trace":{{"trace_id":"{}"}},"input":{{"subject":{{"person":{{"id":"{}"}}}},'
        '"resource":{{"categories":["{}"],"computed":["{}"]}}}},"decision":{{"effect":"{}","reasons":[{{"code":"{}"}}]}}{}}}'
    ).format(
        SERVICES[number % 2], TRACES[number // 3 % 2], PEOPLE[number % 5 > 1], CATEGORIES[number % 3],
        CATEGORIES[number // 2 % 3], "deny" if number % 4 == 0 else "permit", REASONS[number // 5 % 2],
        ("", ',"seen":"reported"', ',"seen":"unobserved"', "")[number // 7 % 4],
    ).encode()  # fmt: skip


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    storage = SqliteStorage(folder / "log.sqlite")
    producer = Producer()
    for number in range(2 * BLOCK + 300):
        # Times mostly rise; some producers' clocks are wrong.
        moment = START + dt.timedelta(seconds=number - (500 if number % 97 == 0 else 0))
        type_ = "open" if number == 0 else "outcome" if number % 7 == 0 else "decision"
        producer.record(type_, body(number), call_id=CALLS[number % 3], time=rfc3339(moment))
    for first in range(0, len(producer.items), 256):
        batch = check_batch(*producer.batch(first, min(first + 256, len(producer.items))), producer.key.public_key())
        with storage.transaction() as transaction:
            place(transaction, batch, now=CLOCK)
    index = SearchIndex(folder / "search.sqlite", storage, lambda: CLOCK)
    while index.step(200):
        pass
    yield storage, index, [terms_of(record) for record in storage.record_range(0, 10_000)], folder
    index.close()
    storage.close()


def matches(query, terms):
    moment = terms.time
    return all((
        query.person in (None, terms.person), query.effect in (None, terms.effect), query.trace in (None, terms.trace),
        query.producer in (None, terms.leaf.producer), query.call_id in (None, terms.leaf.call_id),
        query.type in (None, terms.leaf.type), query.service in (None, terms.service),
        query.reason is None or query.reason in terms.reasons,
        query.category is None or query.category in terms.categories, query.seen in (None, terms.seen),
        query.since is None or moment >= query.since.timestamp() * 1e6,
        query.until is None or moment < query.until.timestamp() * 1e6,
    ))  # fmt: skip


def optional(values):
    return st.none() | st.sampled_from(values)


MOMENTS = st.none() | st.integers(-600, 3000).map(lambda seconds: START + dt.timedelta(seconds=seconds))
QUERIES = st.builds(
    Query, person=optional([*PEOPLE, "nobody"]), reason=optional(REASONS), effect=optional(["permit", "deny"]),
    since=MOMENTS, until=MOMENTS, trace=optional(TRACES), producer=optional(["profiles-1", "other"]),
    call_id=optional([*CALLS, "01A19467-E800-704D-A788-142CC2B79638"]), type=optional(["open", "decision", "outcome"]),
    service=optional(SERVICES), category=optional(CATEGORIES), seen=optional(("reported", "unobserved")), after=st.integers(-1, 2400), limit=st.integers(1, 300),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(query=QUERIES)
def test_it_finds_what_a_scan_finds(filled, query):
    _, index, terms, _ = filled
    wanted = [one.index for one in terms if matches(query, one)]
    assert index.find(query) == [number for number in wanted if number > query.after][: query.limit]


@settings(max_examples=50, deadline=None)
@given(query=QUERIES, indices=st.lists(st.integers(0, 2400), unique=True, max_size=30).map(sorted))
def test_it_keeps_those_that_match(filled, query, indices):
    _, index, terms, _ = filled
    query = Query(person=query.person, reason=query.reason, category=query.category, since=query.since)
    assert index.keep(query, indices) == [n for n in indices if n < len(terms) and matches(query, terms[n])]


def test_the_term_in_the_fewest_records_drives(filled):
    _, index, _, _ = filled
    rare = index._plan(Query(person="amy", type="open"))[0]
    assert "AND type = ?" in rare
    assert "+person = ?" in rare
    assert index._plan(Query(category="c1", call_id=CALLS[0]))[0].startswith("SELECT entry.idx FROM entry")


def test_pages_give_everything_once(filled):
    _, index, terms, _ = filled
    found, after = [], -1
    while page := index.find(Query(category="c2", after=after, limit=37)):
        found += page
        after = page[-1]
    assert found == [one.index for one in terms if "c2" in one.categories]


def test_a_repeated_step_gives_the_same_answers(filled, tmp_path):
    storage, index, _, _ = filled
    again = SearchIndex(tmp_path / "search.sqlite", storage, lambda: CLOCK)
    again.step(500)
    again._database.execute("UPDATE cursor SET idx = 400")
    again.close()
    again = SearchIndex(tmp_path / "search.sqlite", storage, lambda: CLOCK)
    assert again.cursor == 400
    while again.step(700):
        pass
    for person in PEOPLE:
        assert again.find(Query(person=person, limit=5000)) == index.find(Query(person=person, limit=5000))
    again.close()


def test_an_index_of_another_log_is_refused(filled, tmp_path):
    _, _, _, folder = filled
    empty = SqliteStorage(tmp_path / "log.sqlite")
    with pytest.raises(ConfigurationError, match="knows more records than the log"):
        SearchIndex(folder / "search.sqlite", empty, lambda: CLOCK)
    empty.close()


def test_bodies_that_are_not_what_they_should_be_are_findings(tmp_path):
    storage = SqliteStorage(tmp_path / "log.sqlite")
    producer = Producer()
    producer.record("open")
    producer.record("decision", b"not json", call_id="x")
    producer.record("decision")
    batch = check_batch(*producer.batch(0, 3), producer.key.public_key())
    with storage.transaction() as transaction:
        place(transaction, batch, now=CLOCK)
    database = connect(tmp_path / "log.sqlite")
    database.execute("DROP TRIGGER body_no_update")
    database.execute("UPDATE body SET body = CAST('{}' AS BLOB) WHERE idx = 2")
    database.close()
    index = SearchIndex(tmp_path / "search.sqlite", storage, lambda: CLOCK)
    assert index.step() == 3
    assert [(one.kind, one.index) for one in storage.discoveries()] == [("bad_body", 1), ("bad_digest", 2)]
    assert index.find(Query(call_id="x")) == [1]
    index.close()
    storage.close()
