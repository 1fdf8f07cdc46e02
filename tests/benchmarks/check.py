"""The decision API: one question, and fifty in one call, `written` and `committed`, over a Unix socket.

Beside Cerbos, which the targets name, it stands in `rivals_cerbos`.
"""

from collections.abc import Callable, Sequence

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.demo.service import SERVICE
from sidecar.demo.world import CONSOLE
from tests.benchmarks import load
from tests.benchmarks.calls import BARE, levels
from tests.benchmarks.deployment import Deployment, Server
from tests.benchmarks.load import LoadError, Request, Seen
from tests.benchmarks.rows import Row, middle
from tests.benchmarks.scale import Scale

GROUP = "the decision API, over a Unix socket (decision and outcome records written)"
ITEMS = 50
CONCURRENCIES = (1, 32)
API = "/sidecar.api.v1.DecisionPoint"
RESOURCES = f"types: {{profile: {{service: {SERVICE}, message: sidecar.demo.profiles.v1.Profile, subject: person}}}}\n"


def questions(deployment: Deployment) -> tuple[Request, Request]:
    """One question, and a batch of fifty: may amy read this profile, for a ticket."""
    subject = pb.Subject(token=deployment.world.tokens["amy"])
    context = pb.Context(purpose="user_support", ticket="SUP-1204")
    question = pb.Question(entity=pb.Entity(type="profile", action="read", ids=[str(deployment.user)]))
    one = pb.CheckRequest(subject=subject, context=context, question=question)
    items = [pb.BatchItem(id=str(number), question=question) for number in range(ITEMS)]
    several = pb.BatchCheckRequest(subject=subject, context=context, items=items)
    return (
        Request(method=f"{API}/Check", metadata=(), body=one.SerializeToString()),
        Request(method=f"{API}/BatchCheck", metadata=(), body=several.SerializeToString()),
    )


def measure(deployment: Deployment, scale: Scale, say: Callable[[str], None]) -> list[Row]:
    """Checks and batches a second, in turns with a bare echo. LoadError when what was asked was not permitted."""
    (deployment.folder / "resources.yaml").write_text(RESOURCES, encoding="utf-8")
    bare = deployment.peer("check-bare", "echo")
    servers = {level: _server(deployment, level) for level in ("written", "committed")}
    single, batch = questions(deployment)
    for server in servers.values():
        load.send(server.socket, single, 4, 200)
    rows = []
    for concurrency in CONCURRENCIES:
        seen: dict[str, list[Seen]] = {}
        for number in range(scale.rounds):
            say(f"the decision API, {concurrency} at a time, round {number + 1} of {scale.rounds}")
            asked = [(BARE, bare, single), *((f"Check, {name}", one, single) for name, one in servers.items()),
                     *((f"BatchCheck of {ITEMS}, {name}", one, batch) for name, one in servers.items())]  # fmt: skip
            for what, server, request in asked:
                got = load.put(server.socket, request, concurrency, scale.seconds, scale.warm_up)
                seen.setdefault(what, []).append(got)
                _permitted(server)
        rows += [_row(what, concurrency, found, seen[BARE]) for what, found in seen.items()]
    for one in (bare, *servers.values()):
        deployment.stop(one.name)
    return rows


def _server(deployment: Deployment, level: str) -> Server:
    name = f"check-{level}"
    return deployment.sidecar(
        name, listen=[{"door": "check", "address": f"unix:{deployment.folder / name}", "workload": CONSOLE}],
        describe__resources="resources.yaml", checks={"report_within": "1s", "waiting": 1_000_000}, **levels(level),
    )  # fmt: skip


def _permitted(server: Server) -> None:
    if server.metrics is None:
        return
    good, other = server.answered()
    if other > max(64.0 * ITEMS, good / 100):  # the batches that the load generator broke off at its end
        raise LoadError(f"{server.name}: {other:.0f} questions were not permitted, {good:.0f} were")


def _row(what: str, concurrency: int, seen: Sequence[Seen], bare: Sequence[Seen]) -> Row:
    rate = middle([one.rate for one in seen])
    decisions = f", {rate * ITEMS:,.0f} decisions/s" if what.startswith("BatchCheck") else ""
    return Row(
        group=GROUP, what=what, note=f"{concurrency} at a time{decisions}", figure=rate, unit="/s",
        p50=middle([one.p50 for one in seen]), p99=middle([one.p99 for one in seen]),
        bare=rate / middle([one.rate for one in bare]), samples=tuple(one.rate for one in seen),
    )  # fmt: skip
