"""Keys of periods and of data subjects: issued once, wrapped at rest, gone when erased."""

import datetime as dt
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_rig import START

from sidecar.errors import ConfigurationError
from sidecar.oversight.keys import KeyVault, OpenedRecord, read_key_encryption_key
from sidecar.oversight.periods import Period, missing, overlapping, rfc3339
from sidecar.record import pseudonym

pytestmark = pytest.mark.unit
MONTH = dt.timedelta(days=30)
KEK = secrets.token_bytes(32)
ALICE, BOB = b"a" * 32, b"b" * 32


@pytest.fixture
def reopen(tmp_path):
    held = []

    def again(kek=KEK):
        for one in held:
            one.close()
        held[:] = [KeyVault(tmp_path / "keys.sqlite", kek, secrets.token_bytes)]
        return held[0]

    yield again
    for one in held:
        one.close()


@pytest.fixture
def vault(reopen):
    return reopen()


def record(index, *names):
    return OpenedRecord(index=index, openings=tuple((bytes([index]) * 32, name) for name in names))


def raw(tmp_path):
    return b"".join(path.read_bytes() for path in tmp_path.glob("keys.sqlite*"))


def test_periods_follow_one_another_and_keep_their_keys(vault, reopen):
    first = vault.issue(now=START, length=MONTH, ahead=2)
    assert len(first) == 3
    assert first[0].period.start <= START < first[0].period.until
    assert [one.period.start for one in first[1:]] == [one.period.until for one in first[:-1]]
    assert vault.issue(now=START, length=MONTH, ahead=2) == first
    later = reopen().issue(now=START + MONTH, length=MONTH, ahead=2)
    assert later[:2] == first[1:]
    assert len({one.key for one in [*first, *later]}) == 4


def test_a_changed_length_never_makes_periods_overlap(vault):
    first = vault.issue(now=START, length=MONTH, ahead=2)
    weekly = vault.issue(now=START + 2.5 * MONTH, length=dt.timedelta(days=7), ahead=2)
    assert weekly[0].period == first[2].period or weekly[0].period.start >= first[2].period.until
    every = [one.period for one in [*first, *weekly]]
    every = sorted(set(every), key=lambda one: one.start)
    assert all(one.until <= two.start for one, two in zip(every, every[1:], strict=False))


@given(st.integers(0, 10**9), st.integers(1, 60), st.integers(1, 12), st.lists(st.integers(0, 10**8), max_size=6))
def test_the_running_period_and_those_ahead_are_always_there(second, days, ahead, steps):
    now, length = START + dt.timedelta(seconds=second), dt.timedelta(days=days)
    issued = []
    for step in [0, *steps]:
        now += dt.timedelta(seconds=step)
        issued += missing(issued[-1] if issued else None, now=now, length=length, ahead=ahead)
        running = [one for one in issued if one.start <= now < one.until]
        assert len(running) == 1
        assert sum(one.start > now for one in issued) >= ahead
    assert all(one.until <= two.start for one, two in zip(issued, issued[1:], strict=False))


def test_overlapping_periods():
    periods = [Period(start=START + n * MONTH, until=START + (n + 1) * MONTH) for n in range(4)]
    assert overlapping(periods, None, None) == periods
    assert overlapping(periods, START + MONTH, START + MONTH) == []
    assert overlapping(periods, START + MONTH, START + 2 * MONTH) == periods[1:2]
    assert rfc3339(START) == "2026-11-01T00:00:00.000000Z"


def test_pseudonyms_of_every_period(vault):
    issued = vault.issue(now=START, length=MONTH, ahead=2)
    expected = [(one.period.name, pseudonym(one.key, "user", "7")) for one in issued]
    assert vault.pseudonyms("user", "7") == expected
    assert vault.pseudonyms("user", "7", since=START, until=START + dt.timedelta(0, 1)) == expected[:1]


def test_openings_are_found_by_subject_and_by_record(vault, reopen):
    vault.take_over([record(3, ALICE), record(5, BOB, ALICE), record(9, BOB)], 10)
    again = reopen()
    assert again.cursor() == 10
    assert again.records_of([ALICE], after=-1, limit=9) == [3, 5]
    assert again.records_of([ALICE, BOB], after=3, limit=1) == [5]
    assert again.records_of([], after=-1, limit=9) == []
    assert again.openings_of(5) == {0: (bytes([5]) * 32, BOB), 1: (bytes([5]) * 32, ALICE)}
    assert again.openings_of(4) == {}


def test_taking_over_twice_changes_nothing(vault):
    vault.take_over([record(3, ALICE)], 4)
    vault.take_over([record(3, ALICE)], 4)
    vault.take_over([record(3, BOB)], 2)
    assert vault.cursor() == 4
    assert vault.records_of([ALICE, BOB], after=-1, limit=9) == [3]


def test_an_erased_person_is_gone_from_the_files_and_does_not_come_back(vault, tmp_path):
    vault.take_over([record(3, ALICE, BOB), record(5, ALICE)], 6)
    assert ALICE in raw(tmp_path)
    assert vault.erase([ALICE]) == 1
    assert ALICE not in raw(tmp_path)
    assert vault.records_of([ALICE], after=-1, limit=9) == []
    assert vault.openings_of(3) == {1: (bytes([3]) * 32, BOB)}
    # The step that took them over is repeated after a crash.
    vault.take_over([record(3, ALICE, BOB), record(5, ALICE)], 6)
    assert vault.records_of([ALICE], after=-1, limit=9) == []
    assert vault.erase([ALICE]) == 0
    # A later record of the same person starts anew.
    vault.take_over([record(8, ALICE)], 9)
    assert vault.records_of([ALICE], after=-1, limit=9) == [8]


def test_nothing_secret_is_in_the_file(vault, tmp_path):
    keys = vault.issue(now=START, length=MONTH, ahead=2)
    vault.take_over([OpenedRecord(index=1, openings=((b"S" * 32, ALICE),))], 2)
    data = raw(tmp_path)
    assert b"S" * 32 not in data
    assert not any(one.key in data for one in keys)
    assert (tmp_path / "keys.sqlite").stat().st_mode & 0o777 == 0o600


def test_another_key_encryption_key_opens_nothing(vault, reopen):
    vault.issue(now=START, length=MONTH, ahead=2)
    with pytest.raises(ConfigurationError, match="not wrapped under this key-encryption key"):
        reopen(secrets.token_bytes(32))


def test_a_transaction_that_fails_forgets_the_subjects_it_made(vault):
    with pytest.raises(ValueError, match="crash"):
        vault.take_over(_failing([record(1, ALICE)]), 2)
    vault.take_over([record(1, ALICE)], 2)
    assert vault.records_of([ALICE], after=-1, limit=9) == [1]
    assert vault.openings_of(1) == {0: (bytes([1]) * 32, ALICE)}


def _failing(records):
    yield from records
    raise ValueError("crash")


def test_a_key_encryption_key_is_32_bytes(tmp_path):
    path = tmp_path / "kek"
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_key_encryption_key(path)
    path.write_bytes(b"short")
    with pytest.raises(ConfigurationError, match="has 5 bytes"):
        read_key_encryption_key(path)
    path.write_bytes(KEK)
    assert read_key_encryption_key(path) == KEK
