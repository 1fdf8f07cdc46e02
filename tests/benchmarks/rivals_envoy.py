"""Envoy with the sidecar's ext_authz, beside Envoy alone, with a service that permits everything, and with OPA.

The sidecar believes Envoy about callers whose certificates Envoy has verified, so all of these have mutual TLS with the
caller; the plain proxy, by way of which OPA's plugin is compared, has none. Envoy and what it asks share one core.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml

from tests.benchmarks import envoys, h2load, rivals, rivals_opa
from tests.benchmarks.calls import PLAIN, levels
from tests.benchmarks.deployment import METHOD, Deployment, Server, request
from tests.benchmarks.envoys import Envoy
from tests.benchmarks.h2load import LoadError, Seen
from tests.benchmarks.hosted import echo
from tests.benchmarks.load import Request
from tests.benchmarks.machine import LOAD, SERVER
from tests.benchmarks.rivals import CONCURRENCIES, SETTLE_SECONDS, Rival
from tests.benchmarks.rows import Row
from tests.benchmarks.scale import Scale

GROUP = "Envoy asks by ext_authz, mutual TLS with the caller"
ENVOY = "spiffe://corp/ns/envoy"
LEAST = {1: 1.0, 32: 1.2}
ALONE, NOTHING = "Envoy alone", "Envoy + an ext_authz service that permits everything"
OURS = {"miss": "Envoy + the sidecar, cache miss", "hit": "Envoy + the sidecar, cache hit"}
_OFF = {"decision__cache__entries": 0}
_UP, _NOTHING, _OPA = "authz-up", "authz-nothing", "authz-opa"


def measure(deployment: Deployment, scale: Scale, say: Callable[[str], None]) -> list[Row]:
    """All of them, in turns, at concurrency 1 and 32. LoadError where one does not answer as it should."""
    upstream = echo(deployment, _UP, LOAD, str(deployment.reply))
    found, started = {}, [_UP]
    for what, rival, names in _started(deployment, upstream):
        found[what] = rival
        started += names
    seen, refusals = rivals.turns(found, scale, say)
    rows = [
        rivals.row(GROUP, what, concurrency, one, seen[what, concurrency], refusals.note(what, concurrency))
        for concurrency in CONCURRENCIES for what, one in found.items()
    ]  # fmt: skip
    for concurrency in CONCURRENCIES:
        rows += _ratios(concurrency, seen)
    for name in started:
        deployment.stop(name)
    return rows


def _ratios(concurrency: int, seen: dict[tuple[str, int], list[Seen]]) -> Iterator[Row]:
    """Against OPA, and against the service that permits everything."""
    at = {what: found for (what, each), found in seen.items() if each == concurrency}
    for cache, what in OURS.items():
        yield from rivals_opa.against(
            GROUP, f"our ext_authz, cache {cache}", concurrency, at[what], at, LEAST[concurrency]
        )
        yield rivals.ratio(GROUP, f"our ext_authz, cache {cache}, against permitting everything", concurrency, at[what],
                           at[NOTHING])  # fmt: skip


def _started(deployment: Deployment, upstream: str) -> Iterator[tuple[str, Rival, list[str]]]:
    """Each, with the names of what was started for it. Nothing is measured before all run."""
    asked = _own(deployment)
    plain = deployment.peer("authz-plain", "plain")
    target = h2load.grpc(f"http://localhost{METHOD}", asked.body, asked.metadata, plain.socket)
    yield PLAIN, Rival(target=target, pids=(plain.pid,)), [plain.name]

    alone = envoys.start(deployment, "envoy-alone", upstream, tls=True)
    yield ALONE, _rival(deployment, alone, asked, ()), _names(alone)

    socket, pid = _permitting(deployment)
    nothing = envoys.start(deployment, "envoy-nothing", upstream, socket, tls=True)
    yield NOTHING, _rival(deployment, nothing, asked, (pid,)), [*_names(nothing), _NOTHING]

    opa = rivals_opa.start(deployment, _OPA)
    if opa is not None:
        asking = envoys.start(deployment, "envoy-opa", upstream, opa.where, reads="headers", tls=True)
        rivals_opa.proven(deployment, opa, asking.target(asked))
        yield opa.title, _rival(deployment, asking, asked, (opa.pid,)), [*_names(asking), opa.name]

    for cache, what in OURS.items():
        server = _sidecar(deployment, f"authz-{cache}", **(_OFF if cache == "miss" else {}))
        asking = envoys.start(deployment, f"envoy-{cache}", upstream, server.socket, tls=True)
        stranger = dict(asked.metadata) | {"authorization": f"Bearer {deployment.world.tokens['user-de']}"}
        rivals.refused(asking.target(asked), tuple(stranger.items()))
        yield what, _rival(deployment, asking, asked, (server.pid,), server), [*_names(asking), server.name]


def _own(deployment: Deployment) -> Request:
    """A user reads what is their own: the policy permits it without obligations, which ext_authz could not fulfil."""
    return request(deployment.world.tokens["user-us"], deployment.user)


def _names(one: Envoy) -> list[str]:
    """The processes of one Envoy: its tunnel last, so that it is stopped after Envoy."""
    return [one.name, *([f"{one.name}-tunnel"] if one.socket.name == envoys.TUNNEL else [])]


def _rival(
    deployment: Deployment, one: Envoy, asked: Request, beside: tuple[int, ...], server: Server | None = None
) -> Rival:
    target = one.target(asked)
    if rivals.answer(target) != deployment.reply.read_bytes():
        raise LoadError(f"{one.name} answers something else")
    return Rival(
        target=target, pids=(one.pid, *beside), counted=one.counted,
        settle=(lambda: server.settle(SETTLE_SECONDS)) if server is not None else lambda: None,
    )  # fmt: skip


def _sidecar(deployment: Deployment, name: str, **changes: object) -> Server:
    known = yaml.safe_load((deployment.folder / "sidecar.yaml").read_text(encoding="utf-8"))["identity"]["workloads"]
    return deployment.sidecar(
        name, listen=[{"door": "ext_authz", "address": f"unix:{deployment.folder / name}", "workload": ENVOY}],
        identity__workloads=[*known, {"id": ENVOY, "operated_from": "US", "relays": True}], **levels("written"), **changes,
    )  # fmt: skip


def _permitting(deployment: Deployment) -> tuple[Path, int]:
    """A grpc.aio service that answers at once: an empty CheckResponse, which permits. Its socket and pid."""
    folder = deployment.folder / _NOTHING
    folder.mkdir(mode=0o700)
    socket, reply = folder / "0.sock", folder / "reply"
    reply.write_bytes(b"")
    command = [sys.executable, "-m", "tests.benchmarks.peers", "echo", str(socket), str(reply)]
    deployment.launch(_NOTHING, command, SERVER, socket.exists)
    return socket, deployment.pid(_NOTHING)
