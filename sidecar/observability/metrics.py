"""Counters of calls and times of stages: one small store in memory, which `exposition` reads.

Recording through an OpenTelemetry histogram costs 3 to 5 µs each; a call passes eight stages. Here a stage costs one
search among the edges and two additions, and the exporters read sums.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain

EDGES = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)
"""Upper edges of the stage buckets in seconds."""
RPC_EDGES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Those of whole calls: OpenTelemetry's advice for `rpc.server.call.duration`, and three finer ones."""
MAX_SERIES = 4096
"""Series of calls, of decisions and of events, at most."""
OTHER = "_OTHER"
"""The method of what has none of its own (OpenTelemetry's word for it)."""

Reading = float | Mapping[tuple[str, ...], float]
"""A number, or one for each row of label values (in the order of the catalogue)."""
StageReader = Callable[[], Iterable[tuple[str, Sequence[int], float]]]
"""Stages that are timed elsewhere (`_native.StageTimes`): name, passages by bucket of `EDGES`, seconds of them all."""
Gauges = Mapping[str, tuple[str, Callable[[], Reading]]]
"""Name (without prefix) -> what it says, how to read it. The catalogue says which of them only grow."""


class Stage:
    """Times of one stage, or of calls that ended alike."""

    __slots__ = ("buckets", "total")

    def __init__(self, edges: tuple[float, ...] = EDGES) -> None:
        self.buckets = [0] * (len(edges) + 1)
        self.total = 0.0


class CallStats:
    """What has happened since the process started."""

    def __init__(self) -> None:
        self.calls: dict[tuple[str, str, str, str], int] = {}
        self._stages: dict[str, Stage] = {}
        self._timed: list[StageReader] = []
        self.events: dict[tuple[str, str], int] = {}
        self.decisions: dict[tuple[str, str, str, str], int] = {}
        self.durations: dict[tuple[str, str], Stage] = {}
        self.log_events: dict[tuple[str, str], int] = {}
        """Lines of the operator's log; `logs.make_logger` counts them."""

    @property
    def stages(self) -> dict[str, Stage]:
        """How long stages took, as of now; whoever times some is asked."""
        found: dict[str, Stage] = {}
        own = [(name, one.buckets, one.total) for name, one in list(self._stages.items())]
        for name, buckets, total in chain(own, *[read() for read in self._timed]):
            entry = found.setdefault(name, Stage())
            entry.buckets = [more + one for more, one in zip(entry.buckets, buckets, strict=True)]
            entry.total += total
        return found

    def add(self, reader: StageReader) -> None:
        """Stages are timed there as well, from now on."""
        self._timed.append(reader)

    def count(self, method: str, effect: str, reason: str, status: str, seconds: float | None = None) -> None:
        """One call has ended, after so long. Series are bounded: beyond the bound the method is `_OTHER`."""
        key = (method, effect, reason, status)
        known = self.calls.get(key, 0)
        if not known and len(self.calls) >= MAX_SERIES:
            key = (OTHER, effect, reason, status)
            known = self.calls.get(key, 0)
        self.calls[key] = known + 1
        if seconds is not None:
            pair = (key[0], status)
            entry = self.durations.get(pair)
            if entry is None:
                entry = self.durations[pair] = Stage(RPC_EDGES)
            entry.buckets[bisect_left(RPC_EDGES, seconds)] += 1
            entry.total += seconds

    def decided(self, door: str, phase: str, effect: str, reason: str) -> None:
        """A decision has been recorded. Beyond the bound the reason is `_OTHER`: policies name reasons of their own."""
        key = (door, phase, effect, reason)
        known = self.decisions.get(key, 0)
        if not known and len(self.decisions) >= MAX_SERIES:
            key = (door, phase, effect, OTHER)
            known = self.decisions.get(key, 0)
        self.decisions[key] = known + 1

    def time(self, stage: str, seconds: float) -> None:
        """One passage of a stage."""
        entry = self._stages.get(stage)
        if entry is None:
            entry = self._stages[stage] = Stage()
        entry.buckets[bisect_left(EDGES, seconds)] += 1
        entry.total += seconds

    def event(self, name: str, detail: str = "") -> None:
        """Something else worth counting, such as a dropped unknown field. Beyond the bound the detail is `_OTHER`."""
        key = (name, detail)
        if key not in self.events and len(self.events) >= MAX_SERIES:
            key = (name, OTHER)
        self.events[key] = self.events.get(key, 0) + 1
