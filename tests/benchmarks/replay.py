"""How long 100,000 recorded decisions take to replay: `python -m tests.benchmarks.replay [--records N] [--jobs N]
[--only SET]`.

Three sets of records, since what costs is a *different* question (equal ones are asked once), and the input document
tells time to the minute:

* a day of a busy service: 7 in 10 calls are users reading their own records, 2 are workloads reading pages, 1 is somebody
  of 40 people at work;
* the same over a week;
* none like another.

Each set is decided by the bundle itself, written as records, and replayed through the same bundle from a file, as the
command does it; so every decision must agree.
"""

import argparse
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from sidecar.administration import policy_corpus
from sidecar.administration.policy_children import answering
from sidecar.administration.policy_flips import Findings
from sidecar.administration.policy_replay import Asked, replay
from sidecar.decision.replay import read, replaying
from sidecar.record import DecisionBody, PolicyRef, Trace, encode_body
from sidecar.vocabulary import AccessRequest, Subject, SubjectCounts, Workload, canonical

POLICIES = Path(__file__).resolve().parents[2] / "policies"
START = datetime(2026, 3, 2, tzinfo=UTC)
SETS = {"day": 24 * 60, "week": 7 * 24 * 60, "different": 0}
"""Minutes that the records cover."""
METHODS = ("GetProfile", "ListOrders", "GetSettings", "UpdateProfile", "ListMessages")
_replace = msgspec.structs.replace


def asked(records: int, minutes: int, dice: random.Random) -> Iterator[AccessRequest]:
    """Questions in the order of time. With `minutes` 0 none is like another."""
    corpus = read(POLICIES).corpus
    person = next(one for one in corpus if one.subject.kind == "personnel")
    staff = [f"p{number}" for number in range(40)]
    for number in range(records):
        at = START + timedelta(minutes=number * minutes // records if minutes else number)
        context = _replace(person.context, time=at.strftime("%Y-%m-%dT%H:%M:00Z"), phase="response")
        action = _replace(person.action, method=dice.choices(METHODS, (60, 20, 10, 5, 5))[0])
        kind = dice.random()
        if kind < 0.7:
            subject = Subject(kind="data_subject", workload=person.subject.workload)
            counts = SubjectCounts(us=1, own=1)
            context = _replace(context, purpose=None, ticket=None)
        elif kind < 0.9:
            name = f"spiffe://corp/ns/w{dice.randrange(3)}"
            subject = Subject(kind="workload", workload=Workload(id=name, operated_from="US", may=("read", "list")))
            us = dice.randrange(1, 50)
            counts = SubjectCounts(us=us, non_us=50 - us)
            context = _replace(context, ticket=None)
        else:
            who = _replace(person.subject.person, id=dice.choice(staff), us_personnel=dice.random() < 0.95)
            subject = _replace(person.subject, person=who)
            counts = SubjectCounts(us=1)
            context = _replace(context, ticket=f"CASE-{dice.randrange(200)}")
        resource = _replace(person.resource, subjects=counts)
        yield AccessRequest(subject=subject, action=action, resource=resource, context=context)


def write(file: Path, documents: Iterator[AccessRequest], revision: str) -> None:
    """Decide them, and write the records as `sidecar oversight search --json` would."""
    bundle = read(POLICIES)
    with replaying(bundle, POLICIES) as replayer, file.open("w") as out:
        known: dict[bytes, bytes] = {}
        for number, request in enumerate(documents):
            document = canonical(request)
            if document not in known:
                answer = replayer.answer(document)
                if answer.decision is None:
                    raise SystemExit(f"no decision: {answer.error}")
                known[document] = answer.decision
            body = DecisionBody(
                call_id=f"00000000-0000-7000-8000-{number:012d}", phase="response", service="s", method="m", door="proxy",
                trace=Trace(trace_id=None, span_id=None, from_="sidecar"), policy=PolicyRef(revision=revision),
                directory=None, index=None, input=msgspec.Raw(document), decision=msgspec.Raw(known[document]),
                subjects=(), obligations=(), level="committed", engine="embedded", eval_us=0,
            )  # fmt: skip
            row = {"index": number, "attested": True, "standing": "chain", "leaf": {"v": 1}}
            out.write(json.dumps({**row, "body": json.loads(encode_body(body))}) + "\n")


def measure(file: Path, jobs: int) -> tuple[float, float, int, Findings]:
    """Seconds, seconds of this process's processor time, different questions, findings."""
    findings = Findings()
    candidate = read(POLICIES)
    begun, used = time.perf_counter(), time.process_time()
    with answering(candidate, POLICIES, jobs) as answers:
        questions = Asked(answers)
        cases = policy_corpus.lines(file, findings.passed)
        replay(cases, questions, None, findings, found=lambda _: None, advance=lambda _: None)
    return time.perf_counter() - begun, time.process_time() - used, questions.distinct, findings


def main() -> None:
    """Print a line for each set."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.replay", description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", choices=tuple(SETS), help="one of the sets")
    options = parser.parse_args()
    revision = read(POLICIES).revision
    with tempfile.TemporaryDirectory(prefix="chreplay-") as folder:
        for name, minutes in SETS.items():
            if options.only not in (None, name):
                continue
            file = Path(folder) / "records.jsonl"
            write(file, asked(options.records, minutes, random.Random(1)), revision)
            wall, cpu, distinct, findings = measure(file, options.jobs)
            if findings.agreed != options.records:
                raise SystemExit(f"not all agree: {findings.kinds}, {Counter(findings.passed)}")
            print(f"{name:14} {options.records} records, {distinct} different: {wall:.1f} s, {cpu:.1f} s of processor "
                  f"time here, {(wall / distinct) * 1e6:.0f} µs a question, {options.jobs} jobs")  # fmt: skip


if __name__ == "__main__":
    main()
