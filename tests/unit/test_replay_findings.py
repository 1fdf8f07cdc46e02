"""A replay counts every record once: as agreed, as a flip, or as what no policy decided; and its gates do not let doubt pass."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from command_line import Shell
from minimal_policy import write_policy
from recorded import body, denied, permitted, question, row, write_rows

from sidecar.administration import policy_corpus
from sidecar.administration.policy_corpus import UNREADABLE, Case
from sidecar.administration.policy_flips import Findings, Flip, concerns_us, known_us
from sidecar.administration.policy_replay import Asked, replay
from sidecar.decision import flips
from sidecar.decision.replay import Answer
from sidecar.errors import ConfigurationError
from sidecar.vocabulary import (
    AccessRequest,
    Decision,
    DropRecords,
    Resource,
    Subject,
    SubjectCounts,
    Workload,
    canonical,
)

REFUSED = denied("stale_directory", "sidecar/identify")
replaced = msgspec.structs.replace


class Policy:
    """Answers by person; remembers how many documents it was asked."""

    def __init__(self, **people: Decision | None) -> None:
        self.people, self.asked = people, 0

    def __call__(self, documents: Sequence[bytes]) -> list[Answer]:
        self.asked += len(documents)
        return [self.answer(msgspec.json.decode(one)["subject"]["person"]["id"]) for one in documents]

    def answer(self, person: str) -> Answer:
        decision = self.people.get(person, denied())
        return Answer(None, "late") if decision is None else Answer(msgspec.json.encode(decision))


def compared(cases: list[Case], candidate: Policy, baseline: Policy | None = None) -> tuple[Findings, list[Flip]]:
    findings, found = Findings(), []
    asked = None if baseline is None else Asked(baseline)
    replay(cases, Asked(candidate), asked, findings, found=found.append, advance=lambda _: None)
    return findings, found


def recorded(person: str, decision: Decision, **more: object) -> Case:
    passed: Counter[str] = Counter()
    found = policy_corpus.case(body(question(person, **more), decision), "a", passed)
    assert found is not None
    return found


def test_each_record_is_counted_once_under_one_word() -> None:
    cases = [
        recorded("amy", permitted()), recorded("amy", denied()), recorded("bob", permitted()), recorded("bob", denied()),
        recorded("cy", permitted()), recorded("bob", REFUSED), Case(b"{}", b"{}", "broken"),
    ]  # fmt: skip
    findings, found = compared(cases, Policy(amy=permitted(), cy=None))
    assert (findings.replayed, findings.agreed, findings.flips) == (5, 2, 3)
    assert findings.kinds == {"newly_permitted": 1, "newly_denied": 1, "undecided": 1}
    assert findings.passed == {"decided by sidecar/identify": 1, UNREADABLE: 1}
    assert findings.replayed + findings.passed.total() == len(cases)
    assert [one.kind for one in found] == ["newly_permitted", "newly_denied", "undecided"]
    assert findings.policies == {"sha256:old": 5}


def test_a_record_that_cannot_be_read_trips_every_gate_even_where_both_bundles_are_silent() -> None:
    def silent(documents: Sequence[bytes]) -> list[Answer]:
        return [Answer(None, "not an input document")] * len(documents)

    findings = Findings()
    case = Case(b'{"x":1}', None, "line 1")
    replay([case], Asked(silent), Asked(silent), findings, found=lambda _: None, advance=lambda _: None)
    assert (findings.passed[UNREADABLE], findings.replayed) == (1, 0)
    assert findings.tripped(["newly-permitted"]) == ["unreadable: 1 records might be anything"]
    assert findings.tripped([]) == []


def test_equal_questions_are_asked_once() -> None:
    policy = Policy(amy=permitted())
    asked = Asked(policy)
    documents = [canonical(question("amy", minute=number % 3)) for number in range(30)]
    assert len({id(one) for one in asked.verdicts(documents) + asked.verdicts(documents)}) == 1
    assert (policy.asked, asked.distinct) == (3, 3)


def test_with_a_baseline_the_two_bundles_are_compared_and_not_the_records() -> None:
    cases = [recorded("amy", denied()), Case(canonical(question("bob")), None, "input")]
    findings, found = compared(cases, Policy(amy=permitted()), Policy(amy=permitted(), bob=permitted()))
    assert (findings.agreed, [one.kind for one in found]) == (1, ["newly_denied"])


def test_a_bare_document_needs_a_baseline() -> None:
    with pytest.raises(ConfigurationError, match="--baseline"):
        compared([Case(canonical(question()), None, "line 1")], Policy())


@pytest.mark.parametrize(
    ("us_personnel", "us", "before", "after", "trips"),
    [
        (False, 1, denied(), permitted(), True),
        (None, 1, denied(), permitted(), True),
        (True, 1, denied(), permitted(), False),
        (False, 0, denied(), permitted(), True),  # nothing says whose data it is
        (False, 1, denied(), None, False),
        (False, 1, permitted(DropRecords(subjects="us")), permitted(), True),
        (False, 1, permitted(), permitted(DropRecords(subjects="us")), False),
        (False, 1, permitted(), denied(), False),
    ],
)
def test_the_gate_of_the_mission(us_personnel, us, before, after, trips) -> None:
    case = recorded("bob", before, us_personnel=us_personnel, us=us)
    findings, _ = compared([case], Policy(bob=after))
    assert bool(findings.tripped(["newly-permitted-non-us"])) == trips
    assert bool(findings.tripped(["newly-permitted"])) == (trips or (us_personnel is True))


def test_the_other_gates() -> None:
    findings, _ = compared([recorded("amy", permitted()), recorded("bob", permitted())], Policy(amy=None))
    assert [one.split(":")[0] for one in findings.tripped(["any", "newly-denied", "any"])] == ["any", "newly-denied"]
    minor, _ = compared([recorded("amy", permitted())], Policy(amy=replaced(permitted(), ttl_seconds=5)))
    assert minor.tripped(["newly-permitted", "newly-denied"]) == []
    assert minor.tripped(["any"])


def asks(subject: Subject, counts: SubjectCounts, **resource: object) -> AccessRequest:
    return replaced(question(), subject=subject, resource=Resource(subjects=counts, **resource))


def test_who_is_known_to_be_in_the_united_states() -> None:
    one = SubjectCounts(us=1)
    workload = Subject(kind="workload", workload=Workload(id="w", operated_from="PR"))
    assert known_us(asks(workload, one))
    for country in ("SG", None):
        assert not known_us(asks(replaced(workload, workload=Workload(id="w", operated_from=country)), one))
    user = Subject(kind="data_subject")
    assert known_us(asks(user, SubjectCounts(us=1, own=1)))
    assert not known_us(asks(user, SubjectCounts(us=2, own=1)))
    assert not known_us(asks(Subject(), one))


def test_whose_data_may_be_that_of_a_us_subject() -> None:
    nobody = Subject()
    assert concerns_us(asks(nobody, SubjectCounts(unknown=1)))
    assert concerns_us(asks(nobody, SubjectCounts(pending=True)))
    assert concerns_us(asks(nobody, SubjectCounts(), categories=("id_contact",)))
    assert not concerns_us(asks(nobody, SubjectCounts(non_us=3), categories=("id_contact",)))
    assert not concerns_us(asks(nobody, SubjectCounts()))


def test_the_gravest_flips_are_the_examples() -> None:
    cases = [recorded(f"u{number}", permitted()) for number in range(30)]
    cases += [recorded("eve", denied(), us_personnel=False)]
    policy = Policy(eve=permitted(), **{f"u{number}": replaced(permitted(), ttl_seconds=1) for number in range(30)})
    findings, found = compared(cases, policy)
    assert len(found) == 31
    assert len(findings.examples) == 10
    assert findings.examples[0].request.subject.person.id == "eve"
    assert findings.by_person()[0][0] == "eve"


def test_what_asks_nothing_is_counted_and_what_is_nothing_is_refused(tmp_path: Path) -> None:
    passed: Counter[str] = Counter()
    kept = body(question(), permitted())
    file = write_rows(
        tmp_path / "r.jsonl", row(kept), row(None, type="decision"), row(body(question(), permitted(), part=2)),
        row(b'{"v":1,"type":"outcome","call_id":"c"}', type="outcome"), kept, canonical(question()),
    )  # fmt: skip
    found = list(policy_corpus.lines(file, passed))
    assert [one.name for one in found] == ["record 0", "line 5", "line 6"]
    assert passed == {"records without a body": 1, "further parts of a decision": 1, "other records": 1}
    for wrong in (b"{}", b"[", b'{"type":"decision","call_id":"x"}'):
        with pytest.raises(ConfigurationError, match="r.jsonl:1"):
            list(policy_corpus.lines(write_rows(tmp_path / "r.jsonl", wrong), passed))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        list(policy_corpus.lines(tmp_path / "none", passed))


def test_records_of_a_store_that_cannot_be_read_are_counted() -> None:
    passed: Counter[str] = Counter()
    found = list(policy_corpus.bodies([(0, body(question(), permitted())), (1, b""), (2, b"{")], passed))
    assert [one.name for one in found] == ["record 0"]
    assert passed == {"records without a body": 1, UNREADABLE: 1}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Records of Amy (permitted) and Bob (denied), the policy that made them, and one that lets Bob in and Amy not."""
    current, candidate = write_policy(tmp_path / "current"), write_policy(tmp_path / "candidate")
    rego = candidate / "sidecar" / "decision.rego"
    rego.write_text(rego.read_text().replace('"amy"', '"bob"'))
    rows = []
    for number, name in enumerate(("amy", "bob", "bob")):
        request = question(name, us_personnel=name == "amy")
        rows.append(row(body(request, permitted() if name == "amy" else denied(), number), number))
    return write_rows(tmp_path / "records.jsonl", *rows), current, candidate


def test_replay_shows_flips_by_reason_and_by_person(shell: Shell, files: tuple[Path, Path, Path]) -> None:
    records, current, candidate = files
    ran = shell("policy", "replay", "--against", candidate, "--from", records)
    assert ran.code == 0, ran.err
    for text in ("3 decisions replayed (2 different questions): 0 as before, 3 otherwise", "Flips by reason",
                 "Flips by person", "not_us_personnel", "call-1", "2 release US or unknown"):  # fmt: skip
        assert text in ran.out
    assert "0 otherwise" in shell("policy", "replay", "--against", current, "--from", records).out


def test_replay_fails_where_it_is_told_to(shell: Shell, files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    records, current, candidate = files
    out = tmp_path / "flips.jsonl"
    ran = shell("policy", "replay", "--against", candidate, "--from", records, "--fail-on", "newly-permitted-non-us",
                "--json", "--out", out)  # fmt: skip
    assert ran.code == 1
    said = json.loads(ran.out)
    assert said["newly_permitted_non_us"] == 2
    assert said["flips"]["newly_permitted"] == 2
    assert said["failed_on"]
    lines = [json.loads(one) for one in out.read_text().splitlines()]
    assert [(one["call_id"], one["kind"]) for one in lines] == [
        ("call-0", "newly_denied"), ("call-1", "newly_permitted"), ("call-2", "newly_permitted"),
    ]  # fmt: skip
    passing = shell("policy", "replay", "--against", current, "--from", records, "--fail-on", "any")
    assert passing.code == 0


def test_replay_of_nothing_is_no_success(shell: Shell, files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    empty = write_rows(tmp_path / "empty.jsonl", row(body(question(), REFUSED)))
    ran = shell("policy", "replay", "--against", files[1], "--from", empty)
    assert ran.code == 1
    assert "no decision was replayed" in ran.err


def test_replay_says_which_word_it_does_not_know(shell: Shell, files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    records, current, _ = files
    start = ("policy", "replay", "--against", current)
    assert "no such gate" in shell.refused(*start, "--from", records, "--fail-on", "everything")
    assert "no records are named" in shell.refused(*start)
    assert "the store's" in shell.refused(*start, "--from", records, "--since", "7d")
    assert "no point in time" in shell.refused(*start, "--since", "yesterday", "--store", "localhost:1")
    assert "cannot be read" in shell.refused("policy", "replay", "--against", tmp_path / "none", "--from", records)


def test_an_undecided_candidate_is_told_with_its_reason() -> None:
    _, found = compared([recorded("amy", permitted())], Policy(amy=None))
    assert found[0].to_json()["after"] == {
        "effect": "undecided", "reasons": [{"code": "policy_error", "rule": ""}], "redacted": [], "masked": [],
        "dropped": [], "limit": None, "recheck_seconds": None, "why": "late",
    }  # fmt: skip
    assert flips.undecided("late").effect == "undecided"
