"""The decision API beside Cerbos: one question, and fifty in one call, over a Unix socket.

Cerbos keeps its audit log on disk (backend `local`, access and decision entries) and decides by an ordinary policy of eight
rules (`cerbos/policies`) about a principal whose attributes the caller states. The sidecar verifies the person's token,
looks person and data subjects up, decides by the shipped policies, and writes a decision and an outcome record for each
question. Fifty are fifty different profiles in both.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.request import urlopen

import yaml
from google.protobuf.struct_pb2 import ListValue, Value

from sidecar.api.v1 import decision_point_pb2 as pb
from sidecar.demo.processes import free_port
from sidecar.demo.world import CONSOLE
from tests.benchmarks import h2load, hosted, rivals
from tests.benchmarks.calls import levels
from tests.benchmarks.check import API, ITEMS, RESOURCES
from tests.benchmarks.deployment import Deployment, Server
from tests.benchmarks.h2load import LoadError, MissingError, Target
from tests.benchmarks.machine import SERVER
from tests.benchmarks.rivals import CONCURRENCIES, SETTLE_SECONDS, TOOLS, Rival
from tests.benchmarks.rows import Row
from tests.benchmarks.scale import FEW, Scale

GROUP = "the decision API beside Cerbos with its audit log, over a Unix socket"
PROGRAM = TOOLS / "cerbos" / "node_modules" / "@cerbos" / "cerbos-linux-x64" / "cerbos-linux-x64"
HERE = Path(__file__).resolve().parent / "cerbos"
METHOD = "/cerbos.svc.v1.CerbosService/CheckResources"
PURPOSE, TICKET = "user_support", "SUP-1204"
LEAST = {1: 1.0, 32: 1.2}
LEAST_BATCH = 1.5
ALLOW, DENY = 1, 2
STRETCH = 2.0
"""Fifty in one call take their time: so that enough of them are seen."""
REPORT_SECONDS = 1
"""After which a permit that nobody reported on has its outcome record."""
PRINCIPAL: Mapping[str, str | bool | float] = {
    "status": "citizen", "residence": "US", "engagement": "employment", "suspended": False, "covered": False,
    "operated_from": "US", "purpose": PURPOSE, "ticket": TICKET, "trained_days_ago": 30,
}  # fmt: skip
THEIRS, THEIR_BATCH = "Cerbos", f"Cerbos, {ITEMS} resources"
OURS = {"grpc": "on grpc.aio, cache hit", "miss": "in Envoy, cache miss", "hit": "in Envoy, cache hit"}


def measure(deployment: Deployment, scale: Scale, say: Callable[[str], None]) -> list[Row]:
    """All of them, in turns, at concurrency 1 and 32. LoadError where one does not answer as it should."""
    if not PROGRAM.is_file():
        raise MissingError("Cerbos is not installed: .ci/build-bench-tools says what it needs")
    found = dict(_theirs(deployment)) | dict(_ours(deployment))
    seen, refusals = rivals.turns(found, scale, say)
    _audited(deployment.folder / "cerbos" / "audit")
    rows = []
    for concurrency in CONCURRENCIES:
        rows += [
            rivals.row(GROUP, what, concurrency, one, seen[what, concurrency], refusals.note(what, concurrency))
            for what, one in found.items()
        ]
    for concurrency in CONCURRENCIES:
        for kind, theirs, least in (
            ("Check", THEIRS, LEAST[concurrency]), (f"BatchCheck of {ITEMS}", THEIR_BATCH, LEAST_BATCH),
        ):  # fmt: skip
            for where, what in OURS.items():
                ours = seen[f"{kind} {what}", concurrency]
                judged = None if where == "grpc" else least
                rows.append(
                    rivals.ratio(
                        GROUP, f"{kind} {what} against {theirs}", concurrency, ours, seen[theirs, concurrency], judged
                    )
                )
    for name in ("cerbos", *(f"decide-{where}" for where in OURS)):
        deployment.stop(name)
    return rows


# -- Cerbos ----------------------------------------------------------------------------------------------------------


def _theirs(deployment: Deployment) -> Iterator[tuple[str, Rival]]:
    """One server, asked for one and for fifty."""
    folder, port = deployment.folder / "cerbos", free_port()
    folder.mkdir(mode=0o700)
    socket = folder / "0.sock"
    settings = {
        "server": {"grpcListenAddr": f"unix:{socket}", "httpListenAddr": f"127.0.0.1:{port}"},
        "storage": {"driver": "disk", "disk": {"directory": str(HERE / "policies"), "watchForChanges": False}},
        "audit": {
            "enabled": True, "backend": "local", "accessLogsEnabled": True, "decisionLogsEnabled": True,
            "local": {"storagePath": str(folder / "audit")},
        },
        "telemetry": {"disabled": True},
    }  # fmt: skip
    file = folder / "cerbos.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = [str(PROGRAM), "server", f"--config={file}", "--debug-listen-addr=", "--log-level=error"]
    deployment.launch("cerbos", command, SERVER, socket.exists)
    for what, ids in ((THEIRS, _ids(deployment)[:1]), (THEIR_BATCH, _ids(deployment))):
        target = _asking(socket, PRINCIPAL, ids)
        if (effects := _effects(rivals.answer(target))) != [ALLOW] * len(ids):
            raise LoadError(f"Cerbos answers {effects} where it should allow")
        for wrong in ({"status": "foreign"}, {"purpose": "curiosity"}, {"ticket": ""}, {"residence": "RU"}):
            effects = _effects(rivals.answer(_asking(socket, {**PRINCIPAL, **wrong}, ids)))
            if effects != [DENY] * len(ids):
                raise LoadError(f"Cerbos answers {effects} where it should deny: {wrong}")
        yield what, Rival(
            target=target, pids=(deployment.pid("cerbos"),), counted=lambda: _counted(port),
            stretch=STRETCH if len(ids) > 1 else 1.0,
        )  # fmt: skip


def _asking(socket: Path, principal: Mapping[str, str | bool | float], ids: list[str]) -> Target:
    """May a principal of support with these attributes read these profiles: a CheckResourcesRequest, by its fields."""
    classes = Value(list_value=ListValue(values=[Value(string_value="id_contact")]))
    about = _attributes(4, {"jurisdiction": _value("US"), "classes": classes, "records": _value(1)})
    who = _part(1, b"amy") + _part(3, b"support") + _attributes(4, {key: _value(one) for key, one in principal.items()})
    resources = (_part(1, b"read") + _part(2, _part(1, b"profile") + _part(3, one.encode()) + about) for one in ids)
    message = _part(1, b"bench") + _part(3, who) + b"".join(_part(4, one) for one in resources)
    return h2load.grpc(f"http://localhost{METHOD}", message, (), socket)


def _attributes(number: int, values: Mapping[str, Value]) -> bytes:
    """A map<string, google.protobuf.Value>."""
    pairs = (_part(1, key.encode()) + _part(2, value.SerializeToString()) for key, value in values.items())
    return b"".join(_part(number, one) for one in pairs)


def _value(one: str | bool | float) -> Value:
    if isinstance(one, bool):
        return Value(bool_value=one)
    return Value(string_value=one) if isinstance(one, str) else Value(number_value=one)


def _part(number: int, data: bytes) -> bytes:
    """A length-delimited field."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    low, high = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(high) if high else bytes([low])


def _effects(data: bytes) -> list[int]:
    """The effects in a CheckResourcesResponse: `results` (2), their `actions` (2), the value of each pair (2)."""
    return [
        effect for key, result in _fields(data) if key == 2 and isinstance(result, bytes)
        for key, pair in _fields(result) if key == 2 and isinstance(pair, bytes)
        for key, effect in _fields(pair) if key == 2 and isinstance(effect, int)
    ]  # fmt: skip


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            one = data[at]
            at, value, shift = at + 1, value | (one & 0x7F) << shift, shift + 7
            if one < 0x80:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        if key & 7 != 2:
            raise LoadError(f"Cerbos answers with a field of wire type {key & 7}")
        size = varint()
        yield key >> 3, data[at : at + size]
        at += size


def _counted(port: int) -> tuple[float, float]:
    """Calls of CheckResources answered OK, and all."""
    with urlopen(f"http://127.0.0.1:{port}/_cerbos/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    calls = {
        line: float(line.rsplit(" ", 1)[1]) for line in lines
        if line.startswith("rpc_server_call_duration_seconds_count") and "/CheckResources" in line
    }  # fmt: skip
    return sum(value for line, value in calls.items() if '"OK"' in line), sum(calls.values())


def _audited(folder: Path) -> None:
    """Its audit log has to be on disk, or Cerbos did less than it was measured for."""
    if not any(
        TICKET.encode() in one.read_bytes() for one in folder.iterdir() if one.suffix in (".mem", ".vlog", ".sst")
    ):
        raise LoadError(f"Cerbos wrote no audit log into {folder}")


# -- the sidecar -----------------------------------------------------------------------------------------------------


def _ours(deployment: Deployment) -> Iterator[tuple[str, Rival]]:
    (deployment.folder / "resources.yaml").write_text(RESOURCES, encoding="utf-8")
    known = deployment.build("decide-about", FEW, FEW)
    servers = {where: _server(deployment, where, known) for where in OURS}
    ids = _ids(deployment)
    subject = pb.Subject(token=deployment.world.tokens["amy"])
    context = pb.Context(purpose=PURPOSE, ticket=TICKET)
    asked = [pb.Question(entity=pb.Entity(type="profile", action="read", ids=[one])) for one in ids]
    single = pb.CheckRequest(subject=subject, context=context, question=asked[0])
    items = [pb.BatchItem(id=one, question=question) for one, question in zip(ids, asked, strict=True)]
    batch = pb.BatchCheckRequest(subject=subject, context=context, items=items)
    for method, message, each in (("Check", single, 1), ("BatchCheck", batch, ITEMS)):
        for where, server in servers.items():
            target = h2load.grpc(f"http://localhost{API}/{method}", message.SerializeToString(), (), server.socket)
            _permitted(method, rivals.answer(target))
            name = f"{method} of {ITEMS}" if each > 1 else method
            yield f"{name} {OURS[where]}", Rival(
                target=target, pids=(server.pid,), counted=lambda one=server: _questions(one), each=each, lag=REPORT_SECONDS + 0.5,
                stretch=STRETCH if each > 1 else 1.0,
                settle=lambda one=server: one.settle(SETTLE_SECONDS),
            )  # fmt: skip


def _server(deployment: Deployment, where: str, known: dict[str, str]) -> Server:
    name = f"decide-{where}"
    start = deployment.sidecar if where == "grpc" else lambda *a, **b: hosted.sidecar(deployment, *a, **b)
    return start(
        name, listen=[{"door": "check", "address": f"unix:{deployment.folder / name}", "workload": CONSOLE}],
        describe__resources="resources.yaml", checks={"report_within": f"{REPORT_SECONDS}s", "waiting": 1_000_000}, **levels("written"),
        **known, **({"decision__cache__entries": 0} if where == "miss" else {}),
    )  # fmt: skip


def _questions(server: Server) -> tuple[float, float]:
    good, other = server.answered()
    return good, good + other


def _ids(deployment: Deployment) -> list[str]:
    """Fifty US users: every other one, as `Deployment.build` has it."""
    first = deployment.user % 2 or 2
    return [str(number) for number in range(first, first + 2 * ITEMS, 2)]


def _permitted(method: str, data: bytes) -> None:
    several = pb.BatchCheckResponse.FromString(data).results if method == "BatchCheck" else ()
    answers = [one.response for one in several] or [pb.CheckResponse.FromString(data)]
    denied = [one for one in answers if one.decision != pb.DECISION_PERMIT]
    if denied or (method == "BatchCheck" and len(answers) != ITEMS):
        raise LoadError(f"{method}: {len(denied)} of {len(answers)} were not permitted: {denied[:1]}")
