"""The decision document an engine returns, checked and typed."""

from typing import Final

import msgspec

from sidecar.errors import DecideError
from sidecar.vocabulary import (
    KNOWN_OBLIGATIONS,
    AnyObligation,
    Decision,
    Document,
    Effect,
    KnownObligation,
    Reason,
    ReasonCode,
    UnknownObligation,
)


class _RawDecision(Document, frozen=True, kw_only=True):
    effect: Effect
    reasons: list[Reason]
    obligations: list[dict[str, object]]
    advice: list[str]
    ttl_seconds: int


_REASON_CODES = frozenset(ReasonCode)
_decode = msgspec.json.Decoder().decode
_MOST_KEPT: Final = 1024
_MOST_BYTES: Final = 8 << 10


class Decisions:
    """Decisions from the bytes of decision documents; equal bytes give the same object while they are remembered.

    What follows from a decision is worked out once for each object (`enforcement.prepared`), so an engine that is asked
    anew and answers the same costs that once. A decision follows from the bytes alone, hence nothing remembered can be
    out of date; it goes when the memory is full. Answers above 8 KiB, and those that are no decision, are not kept.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[bytes, Decision] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, answer: bytes) -> Decision:
        """The decision that this JSON document is. Raises as `parse_decision`."""
        known = self._kept.get(answer)
        if known is not None:
            return known
        try:
            document = _decode(answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _ill_typed(str(error)) from None
        decision = parse_decision(document)
        if len(answer) <= _MOST_BYTES:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[answer] = decision
        return decision


def parse_decision(document: object) -> Decision:
    """Check what an engine returned and type it.

    A deny has at least one code of the closed list and only such; a permit names the rule that permitted. Unknown
    keys, missing keys and wrong types are DecideError(policy_error); an unknown obligation is kept by name.
    """
    try:
        raw = msgspec.convert(document, _RawDecision, strict=True)
        obligations = tuple(_obligation(item) for item in raw.obligations)
    except (msgspec.ValidationError, ValueError) as error:
        raise _ill_typed(str(error)) from None
    if not raw.reasons:
        raise _ill_typed("a decision needs at least one reason")
    codes = {reason.code for reason in raw.reasons}
    if raw.effect is Effect.DENY and not codes <= _REASON_CODES:
        raise _ill_typed(f"unknown reason code {min(codes - _REASON_CODES)!r}")
    if not all(reason.rule for reason in raw.reasons):
        raise _ill_typed("every reason names its rule")
    if raw.ttl_seconds < 0:
        raise _ill_typed("ttl_seconds is negative")
    return Decision(effect=raw.effect, reasons=tuple(raw.reasons), obligations=obligations,
                    advice=tuple(raw.advice), ttl_seconds=raw.ttl_seconds)  # fmt: skip


def _obligation(item: dict[str, object]) -> AnyObligation:
    name = item.get("id")
    if not isinstance(name, str):
        raise ValueError("an obligation has no id")  # noqa: TRY004 - one kind of error for the caller
    if name not in KNOWN_OBLIGATIONS:
        return UnknownObligation(name=name)
    known: KnownObligation = msgspec.convert(item, KnownObligation, strict=True)
    return known


def _ill_typed(detail: str) -> DecideError:
    return DecideError(
        "the policy gave no valid decision",
        reason=ReasonCode.POLICY_ERROR,
        operator=f"data.sidecar.decision is not a decision document: {detail}. See policies/schemas/decision.json.",
    )
