"""The embedded engine, in a process of its own: `python -m tests.benchmarks.evaluations` with a task as JSON.

The shipped policies, and beside them a rule that looks the person up in a table of so many entries; the people asked
about vary. The engine with little data and the one with much take turns.
"""

import json
import os
import random
import sys
import time
from pathlib import Path

import msgspec

from sidecar._native import Engine
from sidecar.decision import bundle
from sidecar.decision import folder as folders
from sidecar.decision.guard import nullable_leaves
from sidecar.vocabulary import AccessRequest, canonical
from tests.benchmarks.machine import rss

RULE = """
package sidecar.services

answer contains {
	"withheld": set(),
	"masked": set(),
	"obligations": [{"id": "recheck_seconds", "seconds": entry.seconds}],
} if {
	person := input.subject.person.id
	entry := data.data.colleagues[person]
	entry.team == "support"
}
"""
_SLICE = 50


def loaded(folder: Path, entries: int) -> tuple[Engine, dict[str, float]]:
    """The bundle with a table of so many colleagues; seconds and MiB it took."""
    found = folders.load_folder(folder)
    data = msgspec.json.decode(found.data)
    data["data"]["colleagues"] = {
        f"c{number:06d}": {"team": "support", "seconds": 60 + number % 60, "roles": ["support"]}
        for number in range(entries)
    }
    encoded, leaves, before = msgspec.json.encode(data), nullable_leaves(), rss(os.getpid())
    del data
    began = time.perf_counter()
    modules = (*found.modules, ("bench/colleagues.rego", RULE))
    engine = Engine(modules, encoded, bundle.ENTRYPOINT, 1.0, leaves)
    return engine, {"seconds": time.perf_counter() - began, "mib": rss(os.getpid()) - before}


def documents(folder: Path, entries: int, count: int) -> list[bytes]:
    """Questions that are permitted, about colleagues at random."""
    corpus = folders.load_folder(folder).corpus
    plain, dice = corpus[0], random.Random(entries)
    return [canonical(_about(plain, f"c{dice.randrange(entries):06d}")) for _ in range(count)]


def _about(plain: AccessRequest, name: str) -> AccessRequest:
    person = msgspec.structs.replace(plain.subject.person, id=name)
    return msgspec.structs.replace(plain, subject=msgspec.structs.replace(plain.subject, person=person))


def main(task: dict[str, object]) -> dict[str, object]:
    """Microseconds per evaluation, slice by slice in turns."""
    folder = Path(task["policies"])
    made = [(*loaded(folder, entries), documents(folder, entries, task["evaluations"])) for entries in task["entries"]]
    times: list[list[float]] = [[] for _ in made]
    for at in range(0, task["evaluations"], _SLICE):
        for place, (engine, _, asked) in enumerate(made):
            began = time.perf_counter()
            for document in asked[at : at + _SLICE]:
                engine.evaluate_json(document)
            times[place].append((time.perf_counter() - began) / _SLICE * 1e6)
    used = [json.loads(engine.evaluate_json(asked[0]))["obligations"] for engine, _, asked in made]
    if not all(any(one["id"] == "recheck_seconds" for one in obligations) for obligations in used):
        raise SystemExit(f"the table was not used: {used}")
    return {"times": times, "loads": [load for _, load, _ in made]}


if __name__ == "__main__":
    json.dump(main(json.load(sys.stdin)), sys.stdout)
