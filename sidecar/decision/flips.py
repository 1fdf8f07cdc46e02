"""Two decisions on one question, compared: does a candidate policy permit more, less, or the same?

What counts is what an enforcer would do. Texts of reasons, advice and lifetimes are lesser things: they are told apart
from a change of the effect or of the duties, and never hide one. A policy that gives no decision refuses, so it compares
as a deny with the reason `policy_error`.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from sidecar.decision.document import parse_decision
from sidecar.errors import DecideError
from sidecar.vocabulary import KNOWN_OBLIGATIONS, LEVELS, Decision, UnknownObligation

Kind = Literal[
    "same", "newly_permitted", "newly_denied", "undecided", "obligations_weaker", "obligations_stronger", "reasons", "minor"
]  # fmt: skip
KINDS: Final[tuple[Kind, ...]] = (
    "newly_permitted", "newly_denied", "undecided", "obligations_weaker", "obligations_stronger", "reasons", "minor",
)  # fmt: skip
"""Every kind of flip, the gravest first. `same` is none."""

_Duty = Mapping[str, object]
_decode = msgspec.json.Decoder().decode
_to_plain = msgspec.to_builtins


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A decision as far as it is compared. `reasons` are (code, rule), sorted; `rest` is advice, texts and lifetime.

    `undecided`: there was no decision, for this reason; the effect is then deny.
    """

    permits: bool
    reasons: tuple[tuple[str, str], ...]
    duties: "Duties"
    rest: bytes = b""
    undecided: str | None = None

    @property
    def codes(self) -> tuple[str, ...]:
        """The reason codes, each once, sorted."""
        return tuple(sorted({code for code, _ in self.reasons}))

    @property
    def effect(self) -> str:
        """The word for it."""
        return "undecided" if self.undecided is not None else "permit" if self.permits else "deny"


class Duties(msgspec.Struct, frozen=True, kw_only=True):
    """The obligations of a decision, so that two lists can be ordered. Names are `category:…` and `field:…`.

    `unknown` are obligations that no door can fulfil.
    """

    redacted: frozenset[str] = frozenset()
    masked: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    most: int | None = None
    level: int = -1
    recheck: int | None = None
    unknown: frozenset[str] = frozenset()

    def holds_back(self, other: "Duties") -> bool:
        """Whether at least as little is released under these as under `other`."""
        return (
            other.redacted <= self.redacted
            and other.masked <= (self.masked | self.redacted)
            and other.dropped <= self.dropped
            and _tighter(self.most, other.most)
            and other.unknown <= self.unknown
        )

    def covers(self, other: "Duties") -> bool:
        """Whether these ask at least as much as `other`."""
        return self.holds_back(other) and self.level >= other.level and _tighter(self.recheck, other.recheck)


def _tighter(one: int | None, other: int | None) -> bool:
    return other is None or (one is not None and one <= other)


NO_DUTIES: Final = Duties()


def undecided(why: str) -> Verdict:
    """No decision: the call is refused (`policy_error`)."""
    return Verdict(permits=False, reasons=(("policy_error", ""),), duties=NO_DUTIES, undecided=why)


def of_decision(decision: Decision) -> Verdict:
    """What an enforcer was told."""
    plain = _to_plain(decision)
    names = {one.name for one in decision.obligations if isinstance(one, UnknownObligation)}
    return _verdict(plain, [one for one in plain["obligations"] if one["id"] != "?"], frozenset(names))


def of_answer(answer: bytes) -> Verdict:
    """What an engine answered; an ill-typed document is no decision."""
    try:
        return of_decision(parse_decision(_decode(answer)))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return undecided(f"the answer is no JSON: {error}")
    except DecideError as error:
        return undecided(error.operator)


class _Reason(msgspec.Struct, frozen=True):
    code: str
    message: str = ""
    rule: str = ""


class _Recorded(msgspec.Struct, frozen=True):
    """A decision of any version that was ever recorded: codes that are no longer known are codes all the same."""

    effect: Literal["permit", "deny"]
    reasons: list[_Reason] = []
    obligations: list[dict[str, object]] = []
    advice: list[str] = []
    ttl_seconds: int = 0


_recorded = msgspec.json.Decoder(_Recorded).decode


def of_record(decision: bytes) -> Verdict:
    """What a record holds. ValueError when it is no decision document."""
    plain = _to_plain(_recorded(decision))
    known = [one for one in plain["obligations"] if one.get("id") in KNOWN_OBLIGATIONS]
    unknown = {str(one.get("name", one.get("id"))) for one in plain["obligations"] if one not in known}
    return _verdict(plain, known, frozenset(unknown))


def _verdict(plain: Mapping[str, object], known: Iterable[_Duty], unknown: frozenset[str]) -> Verdict:
    reasons: list[dict[str, str]] = plain["reasons"]  # type: ignore[assignment]
    return Verdict(
        permits=plain["effect"] == "permit",
        reasons=tuple(sorted({(one["code"], one["rule"]) for one in reasons})),
        duties=_duties(known, unknown),
        rest=msgspec.json.encode([plain["advice"], plain["ttl_seconds"], sorted(one["message"] for one in reasons)]),
    )


def _duties(known: Iterable[_Duty], unknown: frozenset[str]) -> Duties:
    names: dict[str, set[str]] = {"redact_fields": set(), "mask_fields": set(), "drop_records": set()}
    numbers: dict[str, int] = {}
    for one in known:
        kind = str(one["id"])
        if kind in ("redact_fields", "mask_fields"):
            names[kind] |= {f"category:{name}" for name in _texts(one.get("categories"))}
            names[kind] |= {f"field:{name}" for name in _texts(one.get("fields"))}
        elif kind == "drop_records":
            names[kind].add(str(one.get("subjects")))
        elif kind == "require_durability":
            numbers[kind] = max(numbers.get(kind, -1), _level(one.get("level")))
        else:
            value = one.get("max") if kind == "limit_records" else one.get("seconds")
            if isinstance(value, int):
                numbers[kind] = min(numbers.get(kind, value), value)
    return Duties(
        redacted=frozenset(names["redact_fields"]), masked=frozenset(names["mask_fields"] - names["redact_fields"]),
        dropped=frozenset(names["drop_records"]), most=numbers.get("limit_records"),
        level=numbers.get("require_durability", -1), recheck=numbers.get("recheck_seconds"), unknown=unknown,
    )  # fmt: skip


def _texts(value: object) -> Iterable[str]:
    return (str(one) for one in value) if isinstance(value, list | tuple) else ()


def _level(value: object) -> int:
    return next((place for place, level in enumerate(LEVELS) if level == value), -1)


def compare(before: Verdict, after: Verdict) -> Kind:
    """What changes for the caller when `after` takes the place of `before`; only the gravest word of it."""
    if after.undecided is not None:
        return "same" if before.undecided is not None else "undecided"
    if before.permits != after.permits:
        return "newly_permitted" if after.permits else "newly_denied"
    if after.permits and before.duties != after.duties:
        return "obligations_stronger" if after.duties.covers(before.duties) else "obligations_weaker"
    if before.undecided is not None or before.reasons != after.reasons:
        return "reasons"
    return "same" if before.rest == after.rest else "minor"


def releases_more(before: Verdict, after: Verdict) -> bool:
    """Whether something leaves under `after` that did not leave under `before`."""
    return after.permits and not (before.permits and after.duties.holds_back(before.duties))
