"""A policy with a rule that never comes to an end for one person: their calls are refused at the deadline."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deployment import Deployment
from minimal_policy import PERMIT, write_policy

from campaigns.crowd import Compared, compared
from campaigns.figures import percentile
from sidecar.demo.profiles.v1 import profiles_pb2 as pb

DEADLINE = 0.5
RUNAWAY = "niall"
_RULE = """package sidecar

decision := {permit} if {{
	input.subject.person.id == "{runaway}"
	found := [1 | some i in numbers.range(1, 9000); some j in numbers.range(1, 9000); i * j == -1]
	count(found) == 0
}} else := {permit} if {{
	input.subject.person.id == "amy"
}} else := {deny}
"""


@dataclass(slots=True)
class Ran:
    """`said` and `seconds`: of the runaway's own calls."""

    said: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    compared: Compared = field(default_factory=Compared)

    def __str__(self) -> str:
        return (f"runaway policy: {dict(self.said)}, median {percentile(self.seconds, 0.5):.2f} s at a deadline of "
                f"{DEADLINE:g} s; {self.compared}")  # fmt: skip


def policy(folder: Path) -> Path:
    """The bundle."""
    write_policy(folder)
    deny = {
        **PERMIT,
        "effect": "deny",
        "reasons": [{"code": "not_us_personnel", "message": "only Amy", "rule": "sidecar.trial"}],
    }
    rule = _RULE.format(permit=json.dumps(PERMIT), deny=json.dumps(deny), runaway=RUNAWAY)
    (folder / "sidecar" / "decision.rego").write_text(rule)
    return folder


def campaign(deployment: Deployment, *, seconds: float = 3.0, callers: int = 2, rounds: int = 1) -> Ran:
    """Calls of the runaway's beside honest ones."""
    found = Ran()
    request = pb.GetProfileRequest(user_id=deployment.world.cast.us)

    @contextmanager
    def running() -> Iterator[None]:
        over = threading.Event()

        def call() -> None:
            while not over.is_set():
                answer = deployment.call("GetProfile", request, token=RUNAWAY, port="abroad", timeout=30.0)
                found.said[answer.said] += 1
                found.seconds.append(answer.seconds)

        threads = [threading.Thread(target=call) for _ in range(callers)]
        for one in threads:
            one.start()
        try:
            yield
        finally:
            over.set()
            for one in threads:
                one.join()

    folder = policy(deployment.folder / "runaway")
    with deployment.variant(policy__bundle={"folder": str(folder)}, decision__deadline=f"{DEADLINE:g}s"):
        found.compared = compared(deployment, running, seconds=seconds, rounds=rounds, port="abroad", process="variant")
    return found
