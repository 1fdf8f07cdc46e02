"""What a counterparty group has been given: reserved with the ledger before anything leaves, settled by what has left.

The ledger is asked only where 28 CFR 202.205 may matter: somebody who is, or may be, a covered person, a broker, or a
service operated from a country of concern, reaching data of 202.249(a) or listed identifiers. Nobody else waits for it.

* Before a decision, everybody whom the message concerns is reserved: with what it really holds where it is an answer,
  with all that the method can show where it is a request. The decision sees the group's figures with that.
* What leaves is noted message by message. When the call has ended and its outcome is recorded, one settlement makes
  that permanent and gives the rest back. A settlement that fails is owed and tried again; until then, and if this
  process dies, everything reserved goes on counting.
* Without an answer from the ledger there are no figures: every category is null, and policy refuses where they matter.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from sidecar.attributes.countries import COUNTRIES_OF_CONCERN
from sidecar.attributes.coverage import OF_A_US_PERSON
from sidecar.attributes.described import Described
from sidecar.attributes.holdings import LOOSE, subject_holdings
from sidecar.attributes.messages import ParsedMessage
from sidecar.attributes.presence import inventory
from sidecar.attributes.reach import Reach
from sidecar.attributes.resource import MethodDescription, SubjectKey
from sidecar.errors import DecideError
from sidecar.identifiers import SENSITIVE
from sidecar.ledger.items import MOST_ITEMS, Item, LedgerError, Seen, Settlement
from sidecar.vocabulary import CATEGORIES, NO_COUNTS, ReasonCode, Subject, SubjectClass

Exposure = dict[str, int | None]
Classes = Mapping[SubjectKey, SubjectClass]
Wanted = Callable[[], Sequence[Item]]

GEOLOCATION = "precise_geolocation"
DEVICE = "device"
NAMELESS = "nameless"
"""Kind under which a record that names nobody is counted: each as a person of its own."""
_AGREEMENTS = frozenset({"employment", "vendor", "investment"})
_IN_SCOPE = SENSITIVE | {one for one in CATEGORIES if one.startswith("id_")} | {"commerce_order", "unclassified"}
_NOTHING_SEEN: Exposure = dict.fromkeys(CATEGORIES, 0)
_MOST_OPEN = 5_000
"""Data subjects of one call that may be reserved before what is done with is settled: a stream may last for days."""
_NO_SEQUENCE = 0
OWED_SECONDS = 1.0
MOST_OWED = 10_000


class Ledger(Protocol):
    """The rolling ledger. Every request is idempotent and either done, and durable, or LedgerError."""

    async def reserve(
        self, call: str, sequence: int, group: str, source: str, items: Sequence[Item]
    ) -> Mapping[str, int]:
        """Count these for the group from now on; its figures with them, those above 0. `sequence` begins with 1."""

    async def peek(self, group: str) -> Mapping[str, int]:
        """The group's figures."""

    async def settle(self, settlement: Settlement) -> None:
        """What was released stays counted; the rest of what these reservations hold does not."""


def group_of(subject: Subject) -> str | None:
    """Whose volumes a call adds to; None where 28 CFR 202.205 does not ask.

    The group of the engagement; failing that its counterparty, or the person; behind anybody else, all that is operated
    from the country, or the service of which nobody says from where it is operated.
    """
    place = subject.workload.operated_from
    if subject.kind == "personnel" and _judged(subject):
        engagement = subject.engagement
        return engagement.group or engagement.counterparty or f"person/{subject.person.id}"
    if place in COUNTRIES_OF_CONCERN:
        return f"operated-from/{place}"
    return f"operated-by/{subject.workload.id}" if place is None else None


def _judged(subject: Subject) -> bool:
    """Covered, unresolved, a broker, or a foreign person of whose agreement nobody knows (202.210, 202.302)."""
    covered, agreement = subject.person.covered_person, subject.engagement.type
    if covered.value != "no" or agreement == "brokerage":
        return True
    return agreement not in _AGREEMENTS and covered.basis not in OF_A_US_PERSON


def in_scope(reach: Reach) -> bool:
    """Whether anything here is sensitive personal data or a listed identifier (202.249(a), 202.234)."""
    return bool(reach.listed) or not reach.categories.isdisjoint(_IN_SCOPE)


def nobody_asks() -> Sequence[Item]:
    """Where there is no ledger, nobody wants to know whom a message concerns."""
    return ()


def of_request(
    description: Described, reached: Reach | None, classes: Classes, nameless: int, label: str
) -> list[Item]:
    """Whom a request concerns, with all that the method can show of them."""
    reach = description.reach if reached is None else description.reach | reached
    letters: dict[str, int] = {}
    for letter, _, many in reach.listed:
        letters[letter] = letters.get(letter, 0) + (2 if many else 1)
    seen = _seen(reach.categories, tuple(sorted(letters.items())), description)
    return [Item(key[0], key[1], seen) for key, class_ in classes.items() if class_ != "non_us"] + _nameless(
        nameless, label, seen
    )


def of_answer(
    description: MethodDescription, parsed: ParsedMessage, classes: Classes, named: Classes, nameless: int, label: str
) -> list[Item]:
    """Whom an answer concerns, with what it holds of them.

    `named`: whom the call's requests named; what stands outside every record is theirs where the method says so.
    `nameless`: how many more it concerns than it names; data of nobody who is known is of one more at least. Whoever
    has no class counts as a US person.
    """
    held = {key: Seen(*holding) for key, holding in subject_holdings(parsed).items()}
    loose = held.pop(LOOSE, None)
    concerned = {**named, **classes} if parsed.source.about == "named" else classes
    if loose is not None and parsed.source.about == "named":
        for key in concerned:
            held[key] = _joined(held.get(key), loose)
    found = []
    devices = _devices(parsed, held)
    if devices and loose is not None and GEOLOCATION in loose.categories:
        for key in concerned:
            devices.setdefault(key, []).append(())
    for key, holding in held.items():
        if concerned.get(key, "unknown") != "non_us":
            seen = _seen(holding.categories, holding.listed, description)
            found += [Item(key[0], key[1], seen, each) for each in devices.get(key, [()])]
    if loose is None or (parsed.source.about == "named" and concerned and not nameless):
        return found
    return found + _nameless(max(1, nameless), label, _seen(loose.categories, loose.listed, description))


def _seen(categories: Iterable[str], letters: Sequence[tuple[str, int]], description: Described) -> Seen:
    more = ("government_related",) if description.dataset.flags else ()
    return Seen(frozenset((*categories, *more)), tuple(letters))


def _nameless(count: int, label: str, seen: Seen) -> list[Item]:
    return [Item(NAMELESS, f"{label}/{number}", seen) for number in range(count)]


def _joined(one: Seen | None, other: Seen) -> Seen:
    """What a record and the message around it hold of somebody: nothing says that their identifiers are the same."""
    if one is None:
        return other
    letters = dict(one.listed)
    for letter, count in other.listed:
        letters[letter] = letters.get(letter, 0) + count
    return Seen(one.categories | other.categories, tuple(sorted(letters.items())))


def _devices(parsed: ParsedMessage, held: Mapping[SubjectKey, Seen]) -> dict[SubjectKey, list[tuple[str, ...]]]:
    """Whose locations are those of devices that the same records name; once more without, where a record names none."""
    if not any(kind == DEVICE and GEOLOCATION in holding.categories for (kind, _), holding in held.items()):
        return {}
    found: dict[SubjectKey, list[tuple[str, ...]]] = {}
    units, _ = inventory(parsed.source, parsed.message)
    for ids, categories in units:
        if GEOLOCATION in categories:
            mine = tuple(name for kind, name in ids if kind == DEVICE)
            for key in ids:
                if key[0] != DEVICE:
                    found.setdefault(key, []).append(mine)
    return found


class Exposures:
    """The ledger as the enforcement point uses it. One per process and event loop."""

    def __init__(self, ledger: Ledger, report: Callable[[DecideError], None], clock: Callable[[], float]) -> None:
        """`report` tells the operator what failed, and must not block. `clock` is UTC in unix seconds."""
        self.ledger, self._report, self.clock = ledger, report, clock
        self._owed: deque[Settlement] = deque()
        self.lost = 0

    @property
    def owed(self) -> int:
        """Settlements that the ledger has not taken yet."""
        return len(self._owed)

    def failed(self, error: LedgerError) -> None:
        """Tell the operator."""
        self._report(
            DecideError(
                "volumes cannot be told now", reason=ReasonCode.DSP_STATUS_UNKNOWN,
                operator=f"{error}. Covered and unresolved persons are refused until the ledger answers.",
            )
        )  # fmt: skip

    async def settle(self, settlement: Settlement) -> None:
        """Say what has left, now or as soon as the ledger can be told. Never raises."""
        try:
            await self.ledger.settle(settlement)
        except LedgerError as error:
            self.failed(error)
            self.owe(settlement)
        except BaseException:
            self.owe(settlement)
            raise

    def owe(self, settlement: Settlement) -> None:
        """To be told later. Beyond the bound it is not: then everything that was reserved goes on counting."""
        if len(self._owed) >= MOST_OWED:
            self.lost += 1
            return
        self._owed.append(settlement)

    async def run(self) -> None:
        """Tell the ledger what it could not be told. Until cancelled."""
        while True:
            await asyncio.sleep(OWED_SECONDS)
            await self.pay()

    async def pay(self) -> None:
        """Tell what is owed, oldest first, until the ledger fails again."""
        while self._owed:
            first = self._owed[0]
            try:
                await self.ledger.settle(first)
            except LedgerError:
                return
            if self._owed and self._owed[0] is first:
                self._owed.popleft()


class _Reserved:
    """One reservation of a call. `done`: what it was made for has left, or will not."""

    __slots__ = ("answer", "done", "group", "items", "sequence")

    def __init__(self, sequence: int, group: str, items: Sequence[Item], *, answer: bool) -> None:
        self.sequence, self.group, self.items, self.answer = sequence, group, items, answer
        self.done = False


class CallExposure:
    """One call's account with the ledger. Both directions of a stream may use it."""

    def __init__(self, exposures: Exposures, call_id: str, source: str) -> None:
        """`source`: the guarded service, by its full protobuf name."""
        self._exposures, self._call_id, self._source = exposures, call_id, source
        self._sequence = _NO_SEQUENCE
        self._groups: dict[str, None] = {}
        self._reserved: list[_Reserved] = []
        self._released: dict[Item, None] = {}

    async def ask(self, group: str, wanted: Sequence[Item], *, answer: bool) -> Exposure:
        """Reserve what is not reserved yet and give the group's figures: every category, or null for all of them."""
        self._groups[group] = None
        try:
            await self._flush()
            known = {(one.kind, one.id, one.devices): one.seen for each in self._reserved if each.group == group
                     for one in each.items}  # fmt: skip
            new = [one for one in wanted if not one.seen.within(known.get((one.kind, one.id, one.devices), Seen()))]
            figures: Mapping[str, int] | None = None
            for items in _portions(new):
                self._sequence += 1
                one = _Reserved(self._sequence, group, items, answer=answer)
                self._reserved.append(one)  # before it is known to have been made: a lost answer is settled as well
                figures = await self._exposures.ledger.reserve(
                    self._call_id, one.sequence, group, self._source, items
                )  # fmt: skip
            if figures is None:
                figures = await self._exposures.ledger.peek(group)
        except LedgerError as error:
            self._exposures.failed(error)
            return NO_COUNTS
        return {**_NOTHING_SEEN, **{category: figures[category] for category in CATEGORIES if category in figures}}

    def release(self, items: Iterable[Item], *, answer: bool) -> None:
        """These leave now. With an answer, everything that was reserved for answers so far is done with."""
        self._released.update(dict.fromkeys(items))
        if answer:
            for one in self._reserved:
                one.done = one.done or one.answer

    def keep(self) -> None:
        """Nobody sees what leaves: everything that was asked for counts as released."""
        for one in self._reserved:
            self._released.update(dict.fromkeys(one.items))

    async def close(self) -> None:
        """The call has ended, its outcome recorded. Never raises LedgerError."""
        for settlement in self._settlements():
            await self._exposures.settle(settlement)

    def owe(self) -> None:
        """The call has ended and nobody can wait."""
        for settlement in self._settlements():
            self._exposures.owe(settlement)

    async def _flush(self) -> None:
        """Settle what is done with when there is much of it; requests that are still open count as released whole."""
        if sum(len(one.items) for one in self._reserved) <= _MOST_OPEN:
            return
        done = [one for one in self._reserved if one.done]
        asked = [one for one in self._reserved if not one.done and not one.answer]
        self._reserved = [one for one in self._reserved if not one.done and one.answer]
        if done:
            for settlement in self._settlements(tuple(one.sequence for one in done)):
                await self._exposures.settle(settlement)
        if asked:
            sequences = tuple(one.sequence for one in asked)
            await self._exposures.settle(
                Settlement(self._call_id, sequences, everything=True, released_at=self._exposures.clock())
            )

    def _settlements(self, sequences: tuple[int, ...] = ()) -> list[Settlement]:
        """What has left so far, in requests that the ledger takes; the last one closes the reservations."""
        if not self._sequence and not self._released:
            return []
        now, groups = self._exposures.clock(), tuple(self._groups)
        portions = _portions(list(self._released)) or [[]]
        self._released.clear()
        closing = [(_NO_SEQUENCE,)] * (len(portions) - 1) + [sequences]
        return [
            Settlement(
                self._call_id, closes, groups=groups if items else (), source=self._source, items=items, released_at=now
            )
            for items, closes in zip(portions, closing, strict=True)
        ]


def _portions(items: Sequence[Item]) -> list[list[Item]]:
    """As many as one request may hold, several times."""
    found: list[list[Item]] = []
    size = MOST_ITEMS
    for one in items:
        size += 1 + len(one.devices)
        if size > MOST_ITEMS:
            found.append([])
            size = 1 + len(one.devices)
        found[-1].append(one)
    return found
