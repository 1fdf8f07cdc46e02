"""The rules of the ledger: reserve, settle, peek, and what time does.

* What is reserved counts from that moment, for everybody, as if it had been released: two calls cannot cross a threshold
  together. It goes on counting until it is settled, also when the sidecar that reserved it is gone; after `hold` seconds
  nobody will say any more what became of it, and it counts as released.
* A reservation made twice counts once; one that comes after its call was settled is refused. A settlement made twice
  changes nothing: what was released is a union, and a later day only replaces an earlier one.
* Counting is exact: `counters` moves a subject from day to day as `marks` says, before and after each change.
* Days only go forward. A clock that goes back leaves the day where it was; one that leaps is not believed.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sidecar.errors import ConfigurationError
from sidecar.ledger.book import Book, Subjects
from sidecar.ledger.calendar import date_of, day_of, first_day
from sidecar.ledger.counters import Counters
from sidecar.ledger.items import Item, LedgerError, RefusedError, Settlement
from sidecar.ledger.marks import Days, Marks, decode_days, sightings
from sidecar.ledger.secret import Secret

HOLD_SECONDS = 86_400.0
SETTLED_SECONDS = 3_600.0
"""How long a settled call is remembered: longer than any reservation of it can be on its way."""
MOST_RESERVED = 2_000_000
"""Outstanding data subjects, at most: they are held in memory."""
LONGEST_PAUSE_DAYS = 31
LONGEST_LEAP_DAYS = 2
"""Days that may pass between two requests: a running ledger looks at its clock every minute."""
_GRACE_DAYS = 31
"""Expired sightings are kept so much longer, so that a clock that was wrong can still be set right."""

Exposure = dict[str, int]


class Reservation(NamedTuple):
    """What one message of one call may release."""

    sequence: int
    group: int
    made: float
    day: int
    """Under which it counts until it is settled."""
    subjects: Subjects


class Rolling:
    """The ledger over a `Book`. One thread. After any exception other than RefusedError or `believe`'s it is to be thrown away."""

    def __init__(self, book: Book, secret: Secret, now: float, *, hold: float = HOLD_SECONDS,
                 longest_pause: int | None = LONGEST_PAUSE_DAYS) -> None:  # fmt: skip
        """Within a transaction. `longest_pause`: days that may have passed since the ledger last ran; None for any.

        ConfigurationError when the clock is further ahead, for it may be wrong.
        """
        self._book, self._secret, self._hold = book, secret, hold
        self._marks = Marks(book.marks())
        self._groups = book.groups()
        self.day = int(book.about("day"))
        self._counters = Counters(book.database, first_day(self.day))
        self._calls: dict[tuple[str, str], dict[int, Reservation]] = {}
        self._of_subject: dict[tuple[int, bytes], dict[tuple[str, str, int], Reservation]] = {}
        self.reserved = 0
        self._swept = (0, b"")
        for sidecar, call, sequence, group, made, day, subjects in book.reservations():
            self._hold_on((sidecar, call), Reservation(sequence, group, made, day, subjects))
        pause = day_of(now) - self.day
        if longest_pause is not None and pause > longest_pause:
            raise ConfigurationError(
                f"the clock is {pause} days ahead of the ledger's last day, {date_of(self.day)}: if it is wrong, what "
                "counts would be forgotten", where=str(book.path),
                fix="Check the clock; if the ledger has really not run for so long, start it with --after-pause.",
            )  # fmt: skip
        self._set_day(day_of(now))

    @property
    def outstanding(self) -> int:
        """Reservations that nobody has settled."""
        return sum(map(len, self._calls.values()))

    @property
    def oldest(self) -> float | None:
        """When the oldest of them was made."""
        return min((one.made for call in self._calls.values() for one in call.values()), default=None)

    def believe(self, now: float) -> None:
        """LedgerError for a clock that has leapt."""
        leap = day_of(now) - self.day
        if leap > LONGEST_LEAP_DAYS:
            raise LedgerError(f"the ledger's clock has leapt {leap} days: set it right, or start the ledger again")

    def advance(self, now: float) -> None:
        """The day may have changed. Within a transaction."""
        self._set_day(day_of(now))

    def finish(self) -> None:
        """Write what has been counted and numbered, at the end of a transaction."""
        if self._marks.added:
            self._book.add_marks(self._marks.added)
            self._marks.added = []
        self._counters.flush()

    # -- what sidecars ask -------------------------------------------------------------------------------------------

    def peek(self, group: str) -> Exposure:
        """Category -> distinct subjects (devices for locations), those above 0."""
        number = self._groups.get(group)
        if number is None:
            return {}
        return {self._marks.name(category): count for category, count in self._counters.totals(number).items()}

    def reserve(
        self, sidecar: str, call: str, sequence: int, group: str, source: str, items: Sequence[Item], now: float
    ) -> Exposure:
        """Count these from now on; the group's exposure with them. RefusedError."""
        wanted = {
            subject: self._marks.numbers(names)
            for subject, names in sightings(items, source, self._secret).items()
        }  # fmt: skip
        known = self._calls.get((sidecar, call), {}).get(sequence)
        if known is not None:
            if (known.group, known.subjects) != (self._groups.get(group), wanted):
                raise RefusedError("differs", "this reservation was made with other content")
            return self.peek(group)
        if self._book.is_settled(sidecar, call):
            raise RefusedError("settled", "the call has been settled")
        if self.reserved + len(wanted) > MOST_RESERVED:
            raise RefusedError("full", "too many data subjects are reserved and not settled")
        number = self._group(group)
        made = Reservation(sequence, number, now, self.day, wanted)
        before = {subject: self._live(number, subject) for subject in wanted}
        self._book.add_reservation((sidecar, call, *made))
        self._hold_on((sidecar, call), made)
        for subject, marks in wanted.items():
            after = dict(before[subject])
            after.update(dict.fromkeys(marks, self.day))
            self._count(number, before[subject], after)
        return self.peek(group)

    def settle(self, sidecar: str, settlement: Settlement, now: float) -> None:
        """What was released stays counted, the rest does not. RefusedError."""
        key = (sidecar, settlement.call)
        released = {
            subject: self._marks.numbers(names)
            for subject, names in sightings(settlement.items, settlement.source, self._secret).items()
        }  # fmt: skip
        at = min(max(settlement.released_at, now - self._hold), now)
        stays: dict[tuple[int, bytes], frozenset[int]] = {}
        for group in settlement.groups if released else ():
            number = self._group(group)
            stays.update({(number, subject): marks for subject, marks in released.items()})
        closing = [
            one for one in self._calls.get(key, {}).values()
            if not settlement.sequences or one.sequence in settlement.sequences
        ]  # fmt: skip
        self._close(key, closing, stays, day_of(at), everything=settlement.everything)
        if not settlement.sequences:
            self._book.add_settled(*key, now)

    # -- what time does ----------------------------------------------------------------------------------------------

    def lapse(self, now: float) -> int:
        """Reservations that nobody has settled for `hold` seconds become permanent; how many. Old settlements go."""
        lapsed = 0
        for key, call in list(self._calls.items()):
            closing = [one for one in call.values() if one.made < now - self._hold]
            if closing:
                self._close(key, closing, {}, self.day, everything=True)
                lapsed += len(closing)
        self._book.forget_settled(now - SETTLED_SECONDS)
        return lapsed

    def sweep(self, most: int) -> int:
        """Look at some sightings and remove those that no window reaches any more; how many were looked at.

        They have not counted for a month; this is only about space.
        """
        rows = self._book.sightings_after(*self._swept, most)
        self._swept = rows[-1][:2] if len(rows) == most else (0, b"")
        oldest = first_day(self.day) - _GRACE_DAYS
        gone = [
            (group, subject) for group, subject, data in rows
            if all(day < oldest for day in decode_days(data).values())
        ]  # fmt: skip
        self._book.forget_sightings(gone)
        return len(rows)

    def _set_day(self, day: int) -> None:
        if day > self.day:
            self.day = day
            self._book.save_day(day)
            self._counters.begin_at(first_day(day))

    # -- what they share ---------------------------------------------------------------------------------------------

    def _close(
        self, key: tuple[str, str], closing: Sequence[Reservation], stays: Mapping[tuple[int, bytes], frozenset[int]],
        day: int, *, everything: bool,
    ) -> None:  # fmt: skip
        permanent = dict(stays)
        concerned = set(permanent)
        for one in closing:
            for subject, marks in one.subjects.items():
                concerned.add((one.group, subject))
                if everything:
                    permanent[one.group, subject] = permanent.get((one.group, subject), frozenset()) | marks
        before = {place: self._live(*place) for place in concerned}
        for one in closing:
            self._let_go(key, one)
        for (group, subject), marks in permanent.items():
            first = first_day(self.day)
            held = {mark: seen for mark, seen in self._book.sighting(group, subject).items() if seen >= first}
            for mark in marks:
                held[mark] = max(day, held.get(mark, 0))
            self._book.save_sighting(group, subject, held)
        for place in concerned:
            self._count(place[0], before[place], self._live(*place))

    def _live(self, group: int, subject: bytes) -> Days:
        """The marks that count now, those of outstanding reservations included."""
        first = first_day(self.day)
        held = {mark: day for mark, day in self._book.sighting(group, subject).items() if day >= first}
        for one in self._of_subject.get((group, subject), {}).values():
            if one.day >= first:
                held.update({mark: max(one.day, held.get(mark, 0)) for mark in one.subjects[subject]})
        return held

    def _count(self, group: int, before: Days, after: Days) -> None:
        if before == after:
            return
        was, will = self._marks.days(before), self._marks.days(after)
        for category in was.keys() | will.keys():
            if was.get(category) != will.get(category):
                self._counters.move(group, self._marks.number(category), was.get(category), will.get(category))

    def _group(self, name: str) -> int:
        number = self._groups.get(name)
        if number is None:
            number = self._groups[name] = self._book.add_group(name)
        return number

    def _hold_on(self, key: tuple[str, str], one: Reservation) -> None:
        self._calls.setdefault(key, {})[one.sequence] = one
        self.reserved += len(one.subjects)
        for subject in one.subjects:
            self._of_subject.setdefault((one.group, subject), {})[*key, one.sequence] = one

    def _let_go(self, key: tuple[str, str], one: Reservation) -> None:
        self._book.remove_reservation(*key, one.sequence)
        call = self._calls[key]
        del call[one.sequence]
        if not call:
            del self._calls[key]
        self.reserved -= len(one.subjects)
        for subject in one.subjects:
            holders = self._of_subject[one.group, subject]
            del holders[*key, one.sequence]
            if not holders:
                del self._of_subject[one.group, subject]
