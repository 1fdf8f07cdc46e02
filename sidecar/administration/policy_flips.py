"""What a comparison of two policies found: counts, flips by reason and by person, the first examples, and the gates."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from sidecar.administration.policy_corpus import UNREADABLE, Case
from sidecar.attributes.countries import UNITED_STATES
from sidecar.decision.flips import KINDS, Kind, Verdict, releases_more
from sidecar.vocabulary import AccessRequest

Gate = Literal["newly-permitted-non-us", "newly-permitted", "newly-denied", "any"]
GATES: Final[Mapping[Gate, str]] = {
    "newly-permitted-non-us": "US data subjects' data leaves to somebody who is not known to be US personnel",
    "newly-permitted": "something leaves that did not leave before",
    "newly-denied": "something is refused that was permitted",
    "any": "a decision is another one",
}
"""What each `--fail-on` means."""
EXAMPLES: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """One question on which the two differ."""

    kind: Kind
    case: Case
    request: AccessRequest
    before: Verdict
    after: Verdict

    @property
    def releases_more(self) -> bool:
        """Whether something leaves now that did not before: a permit instead of a deny, or weaker duties."""
        return releases_more(self.before, self.after)

    @property
    def abroad(self) -> bool:
        """Whether it releases more, of US or unknown subjects, to somebody who is not known to be US personnel."""
        return self.releases_more and concerns_us(self.request) and not known_us(self.request)

    @property
    def gates(self) -> Iterable[Gate]:
        """The gates that it trips."""
        if self.abroad:
            yield "newly-permitted-non-us"
        if self.releases_more:
            yield "newly-permitted"
        if self.before.permits and not self.after.permits:
            yield "newly-denied"
        yield "any"

    def to_json(self) -> dict[str, object]:
        """A line of `--out`."""
        asked = self.request
        return {
            "kind": self.kind, "call_id": self.case.call_id, "from": self.case.name, "policy": self.case.policy,
            "subject": asked.subject.kind, "person": asked.subject.person.id, "workload": asked.subject.workload.id,
            "us_personnel": asked.subject.person.us_personnel, "service": asked.action.service,
            "method": asked.action.method, "action": asked.action.name, "phase": asked.context.phase,
            "time": asked.context.time, "purpose": asked.context.purpose, "newly_permitted_non_us": self.abroad,
            "before": _side(self.before), "after": _side(self.after), "input": msgspec.to_builtins(asked),
        }  # fmt: skip


def _side(verdict: Verdict) -> dict[str, object]:
    duties = verdict.duties
    found: dict[str, object] = {
        "effect": verdict.effect,
        "reasons": [{"code": code, "rule": rule} for code, rule in verdict.reasons],
        "redacted": sorted(duties.redacted), "masked": sorted(duties.masked), "dropped": sorted(duties.dropped),
        "limit": duties.most, "recheck_seconds": duties.recheck,
    }  # fmt: skip
    if verdict.undecided is not None:
        found["why"] = verdict.undecided
    return found


def who(request: AccessRequest) -> str:
    """Who asks, for people: data subjects have no name here, and nobody else shares one."""
    subject = request.subject
    if subject.kind == "data_subject":
        return "(a data subject)"
    if subject.kind == "workload":
        return f"workload {subject.workload.id or '(unidentified)'}"
    return subject.person.id or "(unidentified)"


def known_us(request: AccessRequest) -> bool:
    """Whether this is US personnel, a workload operated from the United States, or a data subject's own record.

    Unknown is no.
    """
    subject, counts = request.subject, request.resource.subjects
    if subject.kind == "personnel":
        return subject.person.us_personnel is True
    if subject.kind == "workload":
        return subject.workload.operated_from in UNITED_STATES
    named = counts.us + counts.non_us + counts.unknown
    return subject.kind == "data_subject" and (counts.own == named or counts.pending)


def concerns_us(request: AccessRequest) -> bool:
    """Whether data of US subjects is or may be at stake: unknown counts as US, and so does what shows only later."""
    counts, resource = request.resource.subjects, request.resource
    if counts.us or counts.unknown or counts.pending:
        return True
    return not counts.non_us and bool(resource.categories or resource.classes)


@dataclass(slots=True)
class Findings:
    """What came of a comparison, as it grows."""

    replayed: int = 0
    agreed: int = 0
    kinds: Counter[Kind] = field(default_factory=Counter)
    gates: Counter[Gate] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)
    policies: Counter[str] = field(default_factory=Counter)
    reasons: dict[tuple[Kind, tuple[str, ...], tuple[str, ...]], Counter[str]] = field(default_factory=dict)
    people: dict[str, Counter[Kind]] = field(default_factory=dict)
    examples: list[Flip] = field(default_factory=list)

    def add(self, flip: Flip) -> None:
        """Count a flip."""
        self.kinds[flip.kind] += 1
        self.gates.update(flip.gates)
        person = who(flip.request)
        key = (flip.kind, flip.before.codes, flip.after.codes)
        self.reasons.setdefault(key, Counter())[person] += 1
        self.people.setdefault(person, Counter())[flip.kind] += 1
        self._keep(flip)

    def _keep(self, flip: Flip) -> None:
        """Examples of the gravest kinds; the first of each come first."""
        self.examples.append(flip)
        if len(self.examples) > EXAMPLES:
            self.examples.sort(key=lambda one: (not one.abroad, KINDS.index(one.kind)))
            self.examples.pop()

    @property
    def flips(self) -> int:
        """How many decisions are other ones."""
        return self.kinds.total()

    def tripped(self, gates: Iterable[Gate]) -> list[str]:
        """Why a gate does not let this pass; what could not be read might be anything, so it trips every gate."""
        wanted = list(dict.fromkeys(gates))
        found = [f"{gate}: {self.gates[gate]} ({GATES[gate]})" for gate in wanted if self.gates[gate]]
        if wanted and self.passed[UNREADABLE]:
            found.append(f"unreadable: {self.passed[UNREADABLE]} records might be anything")
        return found

    def to_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "replayed": self.replayed,
            "agreed": self.agreed,
            "flips": {kind: self.kinds[kind] for kind in KINDS},
            "newly_permitted_non_us": self.gates["newly-permitted-non-us"],
            "not_replayed": dict(self.passed),
            "policies": dict(self.policies),
            "by_reason": [
                {"kind": kind, "before": before, "after": after, "decisions": people.total(), "people": len(people)}
                for (kind, before, after), people in self.by_reason()
            ],
            "by_person": [{"person": person, **counts} for person, counts in self.by_person()],
            "examples": [one.to_json() for one in self.examples],
        }

    def by_reason(self) -> list[tuple[tuple[Kind, tuple[str, ...], tuple[str, ...]], Counter[str]]]:
        """Kind, codes before and after; how often for whom. The gravest and the most frequent first."""
        return sorted(self.reasons.items(), key=lambda one: (KINDS.index(one[0][0]), -one[1].total(), one[0][1:]))

    def by_person(self) -> list[tuple[str, Counter[Kind]]]:
        """Who is concerned, those with most newly permitted first."""
        return sorted(self.people.items(), key=lambda one: (*(-one[1][kind] for kind in KINDS), one[0]))
