"""The parts of the ledger by themselves: days, marks, the secret, the clock, and the same counts as by definition."""

import asyncio
import datetime as dt
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_rig import SECRET, Local
from ledger_simulator import DAY, NOON, Simulator

from sidecar.errors import ConfigurationError, IntegrityError
from sidecar.identifiers import computed
from sidecar.ledger import book, secret
from sidecar.ledger.calendar import date_of, day_of, first_day
from sidecar.ledger.inspection import verify
from sidecar.ledger.items import Item, LedgerError, RefusedError, Seen, Settlement
from sidecar.ledger.marks import Marks, decode_days, encode_days, names_of, sightings
from sidecar.ledger.rolling import Rolling
from sidecar.vocabulary import ANNOTATED_CATEGORIES

numbers = st.integers(min_value=1, max_value=70_000)


@given(st.dictionaries(numbers, st.integers(min_value=0, max_value=0xFFFF), max_size=300))
def test_what_is_remembered_of_a_subject_is_read_as_it_was_written(held):
    assert decode_days(encode_days(held)) == held


@given(st.dictionaries(numbers, st.integers(min_value=0, max_value=0xFFFF), min_size=1, max_size=40), st.data())
def test_a_sighting_that_is_cut_short_is_no_sighting(held, data):
    whole = encode_days(held)
    short = whole[: data.draw(st.integers(min_value=1, max_value=len(whole) - 1))]
    try:
        assert len(decode_days(short)) < len(held)
    except ValueError:
        pass


def test_many_marks_of_one_day_are_all_kept():
    held = dict.fromkeys(range(1, 700), 9)
    assert decode_days(encode_days(held)) == held


@given(st.dates(min_value=dt.date(2021, 1, 1), max_value=dt.date(2190, 12, 31)))
def test_the_window_begins_with_the_same_day_of_last_year_and_never_goes_back(date):
    today = day_of(dt.datetime.combine(date, dt.time(), dt.UTC).timestamp())
    assert date_of(today) == date
    first = date_of(first_day(today))
    assert (first.month, first.day) == ((2, 28) if (date.month, date.day) == (2, 29) else (date.month, date.day))
    assert first.year == date.year - 1
    assert first_day(today + 1) >= first_day(today)


@pytest.mark.parametrize("at", [0.0, 1e10])
def test_a_clock_out_of_all_bounds_is_no_clock(at):
    with pytest.raises(ValueError, match="clock"):
        day_of(at)


def test_subjects_are_named_by_kind_and_id_under_the_secret():
    one = SECRET.subject("person", "1")
    assert len(one) == 16
    assert one == SECRET.subject("person", "1")
    others = {
        SECRET.subject("person", "2"),
        SECRET.subject("account", "1"),
        secret.Secret(bytes(32)).subject("person", "1"),
    }
    assert len(others | {one}) == 4
    assert b"\x00\x01\x02" not in repr(SECRET).encode()


seen = st.builds(
    lambda categories, letters: Seen(frozenset(categories), tuple(sorted(letters.items()))),
    st.sets(st.sampled_from(["personal_health", "personal_financial", "precise_geolocation", "id_contact", "behaviour"])),
    st.dictionaries(st.sampled_from("cdf"), st.integers(min_value=1, max_value=3), max_size=2),
)  # fmt: skip


@given(seen, seen)
def test_what_one_sighting_counts_as_is_what_the_rule_of_the_product_says(one, other):
    marks = Marks({})
    held = dict.fromkeys(marks.numbers(names_of(one | other, "s")), 5)
    both = one | other
    letters = {letter: min(count, 2) for letter, count in both.listed} | (
        {"d": 1} if "id_contact" in both.categories and "d" not in dict(both.listed) else {}
    )
    found = marks.days(held)
    assert {"covered_personal_identifiers", "combined"} & found.keys() == set(
        computed(both.categories, letters.items())
    )


@given(st.dictionaries(st.integers(min_value=1, max_value=9), st.integers(min_value=0, max_value=6)), st.integers(0, 6))
def test_a_category_lives_exactly_while_the_marks_that_live_make_it(days, today):
    """What is counted by the day it ends on is what counting anew on every day would give."""
    marks = Marks({})
    names = [
        "personal_health",
        "personal_financial",
        "human_genomic",
        "d1@a",
        "d2@a",
        "d1@b",
        "c1@a",
        "c1@b",
        "behaviour",
    ]
    held = {marks.number(names[number - 1]): day for number, day in days.items()}
    live = {mark: day for mark, day in held.items() if day >= today}
    assert {category for category, day in marks.days(held).items() if day >= today} == marks.days(live).keys()


@pytest.mark.parametrize("bad", [Seen(frozenset({"shoes"})), Seen(listed=(("z", 1),)), Seen(listed=(("a", 0),))])
def test_words_that_nobody_knows_are_refused(bad):
    with pytest.raises(RefusedError):
        names_of(bad, "s")


def test_every_annotated_category_is_known():
    names_of(Seen(frozenset(ANNOTATED_CATEGORIES)), "s")


def test_a_device_is_the_same_subject_whether_named_alone_or_with_a_person():
    place = Seen(frozenset({"precise_geolocation"}))
    alone = sightings([Item("device", "d1", place)], "s", SECRET)
    with_person = sightings([Item("person", "1", place, ("d1",))], "s", SECRET)
    assert alone.keys() < with_person.keys()


# -- the secret -------------------------------------------------------------------------------------------------------


def test_a_secret_is_written_once_and_for_its_owner_only(tmp_path):
    made = secret.write(tmp_path / "s", lambda size: bytes(range(size)))
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
    assert secret.read(tmp_path / "s").check == made.check
    with pytest.raises(FileExistsError):
        secret.write(tmp_path / "s", bytes)


@pytest.mark.parametrize(("content", "mode", "said"), [
    ("", 0o600, "no ledger secret"), ("00" * 31, 0o600, "no ledger secret"), ("00" * 32 + "\n", 0o604, "every user"),
])  # fmt: skip
def test_a_secret_that_cannot_be_one_is_refused(tmp_path, content, mode, said):
    (tmp_path / "s").write_text(content)
    (tmp_path / "s").chmod(mode)
    with pytest.raises(ConfigurationError, match=said):
        secret.read(tmp_path / "s")


def test_a_secret_that_is_gone_is_said_to_be_gone(tmp_path):
    with pytest.raises(ConfigurationError, match="put the ledger's secret back|Put the ledger's secret back"):
        secret.read(tmp_path / "s")


def test_another_secret_is_refused():
    with pytest.raises(IntegrityError, match="counted anew"):
        secret.Secret(bytes(32)).verify(SECRET.check, Path("s"))


# -- the clock --------------------------------------------------------------------------------------------------------


def rules(kept, now, **more):
    return Rolling(kept, SECRET, now, **more)


@pytest.fixture
def kept(tmp_path):
    book.create(tmp_path / "l", SECRET, day_of(NOON))
    database = book.connect(tmp_path / "l", write=True)
    yield book.Book(tmp_path / "l", database)
    database.close()


def test_a_ledger_that_has_not_run_for_long_wants_to_be_told_that_the_clock_is_right(kept):
    with kept.transaction():
        rules(kept, NOON + 31 * DAY)
    with pytest.raises(ConfigurationError, match="--after-pause"), kept.transaction():
        rules(kept, NOON + 63 * DAY)
    with kept.transaction():
        assert rules(kept, NOON + 400 * DAY, longest_pause=None).day == day_of(NOON + 400 * DAY)


def test_a_clock_that_leaps_while_the_ledger_runs_is_not_believed(kept):
    with kept.transaction():
        running = rules(kept, NOON)
    running.believe(NOON + 2 * DAY)
    with pytest.raises(LedgerError, match="leapt 3 days"):
        running.believe(NOON + 3 * DAY)


def test_a_clock_that_goes_back_leaves_the_day_where_it_was(kept):
    with kept.transaction():
        running = rules(kept, NOON)
        running.advance(NOON - 90 * DAY)
        running.reserve(
            "s", "c", 1, "acme", "x", [Item("person", "1", Seen(frozenset({"personal_health"})))], NOON - 90 * DAY
        )
        running.settle("s", Settlement("c", everything=True, released_at=NOON), NOON - 90 * DAY)
        assert running.day == day_of(NOON)
        assert running.peek("acme") == {"personal_health": 1}
        running.finish()
    assert verify(kept.path, lambda _done, _of: None) == []


def test_what_no_window_reaches_any_more_is_removed_a_month_later(kept):
    with kept.transaction():
        running = rules(kept, NOON)
        for number in range(30):
            item = Item("person", str(number), Seen(frozenset({"personal_health"})))
            running.settle(
                "s", Settlement(f"c{number}", groups=["acme"], source="x", items=[item], released_at=NOON), NOON
            )
        running.finish()
    for days, left in ((390, 30), (398, 0)):
        with kept.transaction():
            running = rules(kept, NOON + days * DAY, longest_pause=None)
            assert running.peek("acme") == {}
            assert [running.sweep(20) for _ in range(3)] in ([20, 10, 20], [20, 10, 0])
            running.finish()
        assert kept.database.execute("SELECT count(*) FROM sighting").fetchone() == (left,)


# -- the same counts as by definition ---------------------------------------------------------------------------------

people = st.lists(
    st.builds(
        lambda number, seen, devices: Item("person", str(number), seen, tuple(sorted(devices))),
        st.integers(1, 4), seen, st.sets(st.sampled_from(["d1", "d2"]), max_size=2),
    ), max_size=3,
)  # fmt: skip
calls, sequences, groups = st.sampled_from(["c1", "c2", "c3"]), st.integers(1, 2), st.sampled_from(["acme", "other"])
services = st.sampled_from(["a.v1.A", "b.v1.B"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), calls, sequences, groups, services, people),
        st.tuples(st.just("settle"), calls, st.lists(sequences, max_size=1), st.booleans(), st.lists(groups, unique=True),
                  services, people, st.floats(-3 * DAY, DAY)),
        st.tuples(st.just("pass"), st.sampled_from([3_600.0, 0.9 * DAY, 40 * DAY, 180 * DAY, 366 * DAY])),
        st.tuples(st.just("reopen")),
    ), max_size=14,
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
def test_any_course_of_requests_days_and_restarts_counts_as_by_definition(tmp_path_factory, script):
    asyncio.run(_same(tmp_path_factory, script))


async def _same(tmp_path_factory, script):
    local, simulator = Local(tmp_path_factory.mktemp("l") / "ledger.sqlite"), Simulator()
    try:
        for step in script:
            match step:
                case ("pass", seconds):
                    simulator.now += seconds
                    local.now = simulator.now
                    simulator.lapse()
                    await local.lapse()
                    simulator.settled.clear()
                    local.database.execute("DELETE FROM settled")
                case ("reopen",):
                    local.reopen()
                case ("reserve", *asked):
                    assert await _answer(local.reserve(*asked)) == await _answer(simulator.reserve(*asked))
                case ("settle", call, some, everything, of, source, items, earlier):
                    told = Settlement(
                        call, tuple(some), everything, tuple(of), source, tuple(items), simulator.now + earlier
                    )
                    await local.settle(told)
                    await simulator.settle(told)
            for group in ("acme", "other"):
                assert await local.peek(group) == simulator.exposure(group)
    finally:
        local.close()
    assert not local.broken
    assert verify(local.path, lambda _done, _of: None) == []


async def _answer(asked):
    try:
        return dict(await asked)
    except RefusedError as error:
        return error.reason
