"""The course of one permitted call: what its caller does, what is left to do, and what is reported. No I/O.

* Every obligation of the permit has to be met by the end: by `keep` and `clean` here, or by the caller, who says so with
  `met`. One that was not turns the end into a denial, so that nothing computed meanwhile is returned by mistake.
* Nothing is permitted after `expires_at`: from then on `keep`, `clean` and an ordinary end are denials. `clock` is this
  host's (unix seconds); the sidecar's time is not known here.
* Figures count what passed through here and what the caller adds with `released`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from sidecar.client import duties
from sidecar.client.words import (
    OBLIGATIONS,
    Denied,
    DeniedError,
    DropRecords,
    Entity,
    LimitRecords,
    MaskFields,
    Obligation,
    Outcome,
    Permit,
    Question,
    RedactFields,
    Released,
)

R = TypeVar("R")
_UNKNOWN, _PERMISSION_DENIED, _CANCELLED = 2, 7, 1


def declared(meets: Collection[str]) -> frozenset[str]:
    """The names of obligations a caller says it meets. ValueError for one that does not exist."""
    if unknown := set(meets) - OBLIGATIONS:
        raise ValueError(f"no such obligation: {min(unknown)!r}. Known: {', '.join(sorted(OBLIGATIONS))}")
    return frozenset(meets)


class Course:
    """What `guard` gives. One thread or task at a time."""

    def __init__(self, permit: Permit, question: Question, clock: Callable[[], float]) -> None:
        self.permit, self.question = permit, question
        self._clock, self._until = clock, permit.expires_at
        self._obligations = list(permit.obligations)
        self._met = {one.name: False for one in permit.obligations}
        self._asked = set(question.ids) if isinstance(question, Entity) else set[str]()
        self._outcome = Outcome()
        self._records, self._dropped = 0, 0
        self._redacted = Counter[str]()
        self._messages = self._bytes = 0
        self.closed = False
        """The sidecar has ended the call by itself: there is nothing to report."""

    @property
    def call_id(self) -> str:
        """Names the records of the call."""
        return self.permit.call_id

    @property
    def forward(self) -> bytes | None:
        """Of a method: the request message to send on, in place of the one asked about."""
        return self.permit.forward

    @property
    def metadata(self) -> Mapping[str, str]:
        """Of a method: what to send with it."""
        return self.permit.metadata

    @property
    def obligations(self) -> tuple[Obligation, ...]:
        """All that the permits of this call oblige to."""
        return tuple(self._obligations)

    def keep(self, records: Iterable[R], id_of: Callable[[R], str]) -> list[R]:
        """Of these records, those that may be released: `drop_records` and `limit_records` are met by it.

        `id_of` gives a record's entity id. Call it for everything that is released, or not at all. DeniedError.
        """
        self._current()
        found, held = duties.kept(records, id_of, self._obligations, self._asked, self._records)
        self._records += len(found)
        self._dropped += held
        self._meets(DropRecords, LimitRecords)
        return found

    def clean(self, record: Mapping[str, object], categories: Mapping[str, str]) -> dict[str, object]:
        """A flat record without what may not be seen: `redact_fields` and `mask_fields` are met by it.

        `categories`: the category of each key; see `duties.cleaned`. Call it for every record that is released.
        DeniedError.
        """
        self._current()
        found, changed = duties.cleaned(record, categories, self._obligations)
        self._redacted.update(changed)
        self._meets(RedactFields, MaskFields)
        return found

    def met(self, *names: str) -> None:
        """These obligations were met by the caller's own means. ValueError for one that was not ordered."""
        for name in names:
            if name not in self._met:
                raise ValueError(f"the permit does not oblige to {name!r}")
            self._met[name] = True

    def released(
        self, *, us: Released | None = None, non_us: Released | None = None, unknown: Released | None = None,
        messages_in: int = 0, messages_out: int = 0, bytes_out: int = 0, dropped: int = 0, code: int = 0,
    ) -> None:  # fmt: skip
        """What the caller reports besides what it did through here. May be called once; `code` is a gRPC status code."""
        self._outcome = Outcome(
            code=code, messages_in=messages_in, messages_out=messages_out, us=us or Released(),
            non_us=non_us or Released(), unknown=unknown or Released(), dropped=dropped, bytes_out=bytes_out,
        )  # fmt: skip

    def refused(self, denied: Denied) -> DeniedError:
        """An answer of this call was denied: where the sidecar decided so, it has written the outcome."""
        self.closed = self.closed or denied.why in ("policy", "indeterminate")
        return DeniedError(denied)

    def answered(self, found: Permit, ids: Sequence[str] = ()) -> None:
        """An answer of this call was permitted: its obligations stand in the place of those before, which they include.

        But for the ids that go: a permit names those of its own question, and those of earlier ones go all the same.
        """
        if found.call_id != self.call_id:
            raise DeniedError(Denied(why="unintelligible", message="an answer about another call", code=_PERMISSION_DENIED,
                                     call_id=self.call_id))  # fmt: skip
        self._until = found.expires_at
        self._current()
        self._asked.update(ids)
        self._obligations = [*found.obligations, *(one for one in self._obligations if isinstance(one, DropRecords))]
        self._met |= {one.name: self._met.get(one.name, False) for one in found.obligations}
        if found.release is not None:
            self._messages += 1
            self._bytes += len(found.release)

    def ended(self, error: BaseException | None, *, cancelled: bool) -> tuple[Outcome, DeniedError | None]:
        """What to report, and what to raise in the place of an ordinary end."""
        unmet = sorted(name for name, done in self._met.items() if not done)
        outcome = self._outcome
        outcome = replace(
            outcome, met=dict(self._met), dropped=outcome.dropped + self._dropped, redacted=dict(self._redacted),
            messages_out=outcome.messages_out or self._messages, bytes_out=outcome.bytes_out or self._bytes,
        )  # fmt: skip
        if error is not None:
            denied = isinstance(error, DeniedError)
            code = _PERMISSION_DENIED if denied else _CANCELLED if cancelled else outcome.code or _UNKNOWN
            return replace(outcome, code=code), None
        if unmet:
            why = Denied(
                why="obligation", message=f"not met: {', '.join(unmet)}", code=_PERMISSION_DENIED, call_id=self.call_id
            )
            return replace(outcome, code=_PERMISSION_DENIED), DeniedError(why)
        instead = self._expired()
        return (outcome, None) if instead is None else (replace(outcome, code=_PERMISSION_DENIED), instead)

    def _current(self) -> None:
        """DeniedError once the permit has ended."""
        if (expired := self._expired()) is not None:
            raise expired

    def _expired(self) -> DeniedError | None:
        if self._clock() < self._until:
            return None
        return DeniedError(
            Denied(why="expired", message="the permit has ended", code=_PERMISSION_DENIED, call_id=self.call_id)
        )

    def _meets(self, *kinds: type[Obligation]) -> None:
        for kind in kinds:
            if kind.name in self._met:
                self._met[kind.name] = True
