"""An enforcement point with a ledger behind it, and a covered person who calls."""

import dataclasses

import msgspec
from ledger_simulator import Simulator
from pipeline_rig import PERMIT, Rig, deny, personnel

from sidecar.enforcement.exposure import Exposures
from sidecar.enforcement.pipeline import EnforcementPoint
from sidecar.vocabulary import CoveredPerson, Engagement, Person, Subject, Workload

GROUP = "acme"


def covered(name="wei", value="yes", group=GROUP, type_="employment", place="US", basis=None):
    return Subject(
        kind="personnel", person=Person(id=name, covered_person=CoveredPerson(value=value, basis=basis)),
        engagement=Engagement(type=type_, counterparty="acme-cn", group=group),
        workload=Workload(id="spiffe://t/console", operated_from=place),
    )  # fmt: skip


class Counted(Rig):
    """A rig with a ledger, and a covered person who calls."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Simulator(self.now)
        self.exposures = Exposures(self.ledger, self.reports.append, lambda: self.now)
        self.point = EnforcementPoint(dataclasses.replace(self.point._parts, exposures=self.exposures))
        self.calls(covered())

    def calls(self, *subjects):
        self.identifier.identity = msgspec.structs.replace(personnel(), subjects=subjects)

    @property
    def asked(self):
        return [what for what, _ in self.ledger.asked]

    @property
    def figures(self):
        """The figures in each question to the policy."""
        return [one.context.exposure for one in self.engine.documents]

    def left(self, group=GROUP):
        """What the ledger holds once nothing is outstanding."""
        assert not self.ledger.reserved
        return self.ledger.exposure(group)


def limit(category, most):
    """A policy that refuses more than so many, and whatever has no figure."""

    def rule(request):
        figure = request.context.exposure[category]
        return PERMIT if figure is not None and figure <= most else deny("dsp_bulk")

    return rule
