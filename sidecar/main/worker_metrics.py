"""One page of metrics for all workers: each tells its families, and the supervisor labels and joins them.

A series keeps its worker's number, whoever that is by now: a restarted worker counts from 0 again, which is what `rate`
expects, and `customhouse_worker_restarts_total` says that it happened. Imports no grpc.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec
from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

LABEL = "worker"
SUPERVISOR = "supervisor"


class Family(msgspec.Struct, array_like=True, frozen=True):
    """A family on its way: name, type, text, and (name, labels, value) of each sample."""

    name: str
    type: str
    text: str
    samples: list[tuple[str, dict[str, str], float]]


def packed(families: Iterable[Metric]) -> list[Family]:
    """Families, ready to be sent."""
    return [
        Family(one.name, one.type, one.documentation, [(a.name, dict(a.labels), float(a.value)) for a in one.samples])
        for one in families
    ]


class Joined(Collector):
    """The families of the supervisor and of every worker, each series with its `worker`."""

    def __init__(self, own: Callable[[], Iterable[Metric]], workers: Callable[[], Mapping[str, list[Family]]]) -> None:
        """`workers` asks them; a worker that does not answer is not on the page."""
        self._own, self._workers = own, workers
        self._process = ProcessCollector(registry=None)

    def collect(self) -> Iterator[Metric]:
        """As they are now. Called on the exporters' threads."""
        found: dict[str, Metric] = {}
        parts: dict[str, list[Family]] = {SUPERVISOR: packed([*self._own(), *self._process.collect()])}
        for worker, families in (parts | dict(self._workers())).items():
            for family in families:
                if not family.samples:
                    continue
                joined = found.get(family.name)
                if joined is None:
                    joined = found[family.name] = Metric(family.name, family.text, family.type)
                joined.samples += [
                    Sample(name, labels if LABEL in labels else {**labels, LABEL: worker}, value)
                    for name, labels, value in family.samples
                ]
        yield from found.values()
