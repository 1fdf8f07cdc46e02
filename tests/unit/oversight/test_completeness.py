"""What is missing shows, and what is whole raises no alarm."""

import datetime as dt

import pytest
from store_rig import START

from sidecar.oversight.completeness import Completeness
from sidecar.oversight.periods import rfc3339
from sidecar.oversight.storage import Discovery, Gap, Head, Link, StreamId

pytestmark = pytest.mark.unit
SILENT = dt.timedelta(seconds=90)
NOW = START + dt.timedelta(seconds=100)
RECENT, LONG_AGO = rfc3339(NOW - dt.timedelta(seconds=5)), rfc3339(NOW - dt.timedelta(seconds=91))


def head(number, *, prev=None, last=9, received=RECENT, **fields):
    return Head(stream=StreamId(number), producer="p", slot=0, epoch=f"e{number}", last_seq=last, opened=True,
                last_digest=bytes([number]) * 32, opened_prev=prev, received=received, **fields)  # fmt: skip


def examine(*heads, gaps=(), discoveries=()):
    return Completeness({one.stream: one for one in heads}, gaps, discoveries, now=NOW, silent_after=SILENT)


def kinds(completeness):
    return [(one.kind, one.epoch, one.first_seq, one.count) for one in completeness.findings]


def test_linked_epochs_are_whole():
    whole = examine(head(1), head(2, prev=bytes([1]) * 32), head(3, prev=bytes([2]) * 32))
    assert whole.findings == []
    assert {whole.standing(StreamId(n), 5) for n in (1, 2, 3)} == {"chain"}


def test_without_the_link_the_tail_is_unknown():
    broken = examine(head(1), head(2), head(3, prev=bytes([2]) * 32))
    assert kinds(broken) == [("tail_unknown", "e1", 10, 0)]
    assert broken.standing(StreamId(1), 0) == "tail_unknown"
    assert broken.standing(StreamId(2), 0) == "chain"
    # The successor says how much is missing, though its link cannot be checked yet.
    named = examine(head(1), head(2, prev=b"x" * 32, link=Link(epoch="e1", last_seq=14)))
    assert kinds(named) == [("tail_unknown", "e1", 10, 5)]


def test_an_epoch_whose_first_leaf_is_missing_links_nothing():
    late = head(2)
    late.opened, late.opened_prev = False, None
    gap = Gap(stream=StreamId(2), first_seq=0, last_seq=3, after=None, before=b"", since=RECENT)
    found = examine(head(1), late, gaps=[gap])
    assert kinds(found) == [("tail_unknown", "e1", 10, 0), ("gap", "e2", 0, 4)]
    assert found.standing(StreamId(2), 5) == "gap"


def test_records_before_a_gap_stand_in_the_chain():
    found = examine(head(1), gaps=[Gap(stream=StreamId(1), first_seq=3, last_seq=4, after=None, before=None, since="")])
    assert [found.standing(StreamId(1), seq) for seq in (0, 2, 5)] == ["chain", "chain", "gap"]


@pytest.mark.parametrize(
    ("fields", "silent"),
    [({"received": LONG_AGO}, True), ({"received": RECENT}, False), ({"received": LONG_AGO, "closed": True}, False),
     ({"received": LONG_AGO, "attested": False}, False)],
)  # fmt: skip
def test_a_running_epoch_that_fell_silent_shows(fields, silent):
    assert kinds(examine(head(1, **fields))) == ([("silent_producer", "e1", 10, 0)] if silent else [])


def test_the_running_store_is_not_silent():
    own = head(1, received=LONG_AGO)
    own.producer = "store"
    assert examine(own).findings == []


def test_two_epochs_after_the_same_record_are_an_equivocation():
    forked = examine(head(1), head(2, prev=bytes([1]) * 32), head(3, prev=bytes([1]) * 32))
    assert ("equivocation", "e3", 0, 1) in kinds(forked)


def test_discoveries_are_findings():
    found = Discovery(kind="equivocation", stream=StreamId(1), seq=4, index=7, detail="d", since=RECENT)
    shown = examine(head(1), discoveries=[found])
    assert kinds(shown) == [("equivocation", "e1", 4, 1)]
    assert [shown.standing(StreamId(1), seq) for seq in (3, 4)] == ["chain", "equivocation"]


def test_slots_are_apart():
    other = head(2)
    other.slot = 1
    assert examine(head(1), other).findings == []
