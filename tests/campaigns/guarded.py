"""An enforcement point that identifies callers for real, over a simulated engine that permits whatever it is asked.

So whoever is let in by identification gets a permit and the service's answer: a refusal is identification's own.
"""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import identity_provider as idp
from identity_provider import BATCH, NOW, WEB, Clock, People
from pipeline_rig import SERVICE, Rig, describer, get
from token_attacks import PROVIDERS, REVOKED

from sidecar.attributes import entities
from sidecar.attributes.peers import RegisteredWorkload, Workloads
from sidecar.attributes.revoked import Revocations
from sidecar.attributes.subject import Identifier
from sidecar.enforcement.call import Peer
from sidecar.enforcement.pipeline import EnforcementPoint

ENVOY = "spiffe://corp/ns/envoy"
METHOD = f"/{SERVICE}/GetProfile"
REQUEST = get(1)
RESOURCES = f"""
types:
  profile:
    service: {SERVICE}
    message: sidecar.demo.profiles.v1.Profile
    subject: user_id
    actions: {{can_view: read}}
"""


class Guarded:
    """The point and what stands around it. `peer` is the workload that every door takes its callers for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rig, self.log = folder, Rig(), Log()
        self.rig.numbers = itertools.count(1)
        self.rig.now = NOW
        self.clock, self.peer = Clock(), BATCH
        self.list = folder / "revoked.jsonl"
        self.revoke(*REVOKED)
        self.revocations = Revocations(self.list, clock=self.clock)
        self.revocations.load()
        self.desk = idp.desk(*PROVIDERS, people=People("p1", "p2", "p3"), revocations=self.revocations)
        workloads = Workloads([
            RegisteredWorkload(id=WEB, operated_from="US", may=("read",)),
            RegisteredWorkload(id=BATCH, operated_from="US", may=("read",), acts_alone=True),
            RegisteredWorkload(id=ENVOY, operated_from="US", relays=True),
        ])  # fmt: skip
        identifier = Identifier(tokens=self.desk.tokens, people=self.desk.people, workloads=workloads, binding="azp")
        self.point = EnforcementPoint(replace(self.rig.point._parts, identifier=identifier))
        self.entities = entities.Entities(entities.parse(RESOURCES, "r.yaml"), describer())

    def revoke(self, *lines: dict[str, str]) -> None:
        """Add to the list of revoked tokens."""
        before = self.list.read_text() if self.list.exists() else ""
        beside = self.folder / "revoked.new"
        beside.write_text(before + "".join(json.dumps(line) + "\n" for line in lines))
        beside.rename(self.list)

    def mark(self) -> tuple[int, int, int, int]:
        """How much has been recorded, asked of the engine and forwarded so far."""
        records, rig = self.rig.records, self.rig
        return len(records.decisions), len(records.outcomes), len(rig.engine.documents), len(rig.upstream.seen)


class Current:
    """A listener's word on its callers: whoever the world says is calling."""

    def __init__(self, world: Guarded, fixed: str | None = None) -> None:
        self._world, self._fixed = world, fixed

    def of(self, *_: object) -> Peer:
        """That workload, over no certificate."""
        return Peer(identities=(self._fixed or self._world.peer,), address="test")


class Log:
    """Keeps what the operator is told: a failure that was caught shows here."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def error(self, event: str, **details: object) -> None:
        """An error."""
        self.lines.append((event, details))

    warning = error
