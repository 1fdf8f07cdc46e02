"""Replay: recorded questions through a candidate policy, and what would have been decided otherwise.

Compared is the record with the candidate, or, where a baseline is given, the baseline with the candidate. What no policy
decided (a stage that refused before or after it, rules named `sidecar/…`) is counted apart: no policy would change it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from typing import Final

import msgspec

from sidecar.administration.policy_children import Answers
from sidecar.administration.policy_corpus import UNREADABLE, Case
from sidecar.administration.policy_flips import Findings, Flip
from sidecar.decision import flips
from sidecar.decision.flips import Verdict
from sidecar.errors import ConfigurationError
from sidecar.vocabulary import AccessRequest

_BATCH: Final = 2048
_MOST_KNOWN: Final = 1_000_000
"""Different documents whose answer is remembered; about 100 bytes each."""
_BY_SIDECAR: Final = "sidecar/"

_request = msgspec.json.Decoder(AccessRequest).decode


class Asked:
    """The verdicts of one bundle. Each different document is asked once, and equal verdicts are one object."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._known: dict[bytes, Verdict] = {}
        self._verdicts: dict[bytes, Verdict] = {}
        self.distinct = 0
        """How many different documents were asked."""

    def verdicts(self, documents: Sequence[bytes]) -> list[Verdict]:
        """One for each document, in their order."""
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        keys = [sha256(one).digest() for one in documents]
        new = {key: one for key, one in zip(keys, documents, strict=True) if key not in self._known}
        for key, answer in zip(new, self._answers(list(new.values())), strict=True):
            if answer.decision is None:
                self._known[key] = flips.undecided(answer.error or "no decision")
            else:
                self._known[key] = self._verdict(answer.decision)
        self.distinct += len(new)
        return [self._known[key] for key in keys]

    def _verdict(self, decision: bytes) -> Verdict:
        known = self._verdicts.get(decision)
        if known is None:
            if len(self._verdicts) >= _MOST_KNOWN:
                self._verdicts.clear()
            known = self._verdicts[decision] = flips.of_answer(decision)
        return known


class _Recorded:
    """The verdicts that stand in records."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[Verdict, str | None]] = {}

    def of(self, decision: bytes) -> tuple[Verdict, str | None]:
        """The verdict, and the rule where it is the sidecar's own and no policy's. ValueError."""
        known = self._known.get(decision)
        if known is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            verdict = flips.of_record(decision)
            own = next((rule for _, rule in verdict.reasons if rule.startswith(_BY_SIDECAR)), None)
            known = self._known[decision] = verdict, own
        return known


def replay(
    cases: Iterable[Case],
    candidate: Asked,
    baseline: Asked | None,
    findings: Findings,
    *,
    found: Callable[[Flip], None],
    advance: Callable[[int], None],
) -> None:
    """Compare all of it into `findings`. `found` gets each flip, `advance` how many more cases are done.

    ConfigurationError for a case without a recorded decision when there is no baseline to compare with.
    """
    recorded = _Recorded()
    for batch in _batched(cases):
        asked = [one for one in batch if _replayable(one, recorded, findings, needs_record=baseline is None)]
        documents = [one.input for one in asked]
        after = candidate.verdicts(documents)
        if baseline is not None:
            before = baseline.verdicts(documents)
        else:
            before = [recorded.of(one.decision or b"")[0] for one in asked]
        for one, old, new in zip(asked, before, after, strict=True):
            _compare(one, old, new, findings, found)
        advance(len(batch))


def _batched(cases: Iterable[Case]) -> Iterator[list[Case]]:
    left = iter(cases)
    while batch := list(islice(left, _BATCH)):
        yield batch


def _replayable(one: Case, recorded: _Recorded, findings: Findings, *, needs_record: bool) -> bool:
    if one.decision is None:
        if needs_record:
            raise ConfigurationError(
                "is an input document without a recorded decision", where=one.name,
                fix="Compare two bundles: give --baseline, or use `sidecar policy diff`.",
            )  # fmt: skip
        return True
    try:
        _, own = recorded.of(one.decision)
    except ValueError:
        findings.passed[UNREADABLE] += 1
        return False
    if own is not None:
        findings.passed[f"decided by {own}"] += 1
        return False
    return True


def _compare(one: Case, before: Verdict, after: Verdict, findings: Findings, found: Callable[[Flip], None]) -> None:
    kind = flips.compare(before, after)
    if kind == "same" and after.undecided is None:
        findings.agreed += 1
    else:
        try:
            request = _request(one.input)
        except ValueError:
            findings.passed[UNREADABLE] += 1
            return
        if kind == "same":
            findings.agreed += 1
        else:
            flip = Flip(kind=kind, case=one, request=request, before=before, after=after)
            findings.add(flip)
            found(flip)
    findings.replayed += 1
    if one.policy is not None:
        findings.policies[one.policy] += 1
