"""The demo's scenes through any door that takes gRPC calls, held against the proxy: equal answers, equal records.

A scene is played twice, once at the deployment's own sidecar and once at another door of the same world; what its caller
was told must be the same words, and what the store holds of both calls the same decisions about the same input documents.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from deployment import Deployment, Recorded

from sidecar.demo.scenes import SCENES, SYNC_TOO_FAR, Scene
from sidecar.demo.stage import Stage

_ELSEWHERE = {
    "an exception, approved by two", "an exception does not lift that", "a licence does, and the ledger counts",
    "a direct call past the sidecar", "the data is served from Frankfurt", "somebody leaves while a stream is open",
    "the store is killed and comes back", "the exception, when its time has passed",
}  # fmt: skip
"""Scenes that change the world, or are about another sidecar: they have tests of their own."""
PLAYED = tuple(scene for scene in SCENES if scene.name not in _ELSEWHERE)
STREAMS = {"messages, a stream from the service", "contacts, a stream to the service", SYNC_TOO_FAR}
_OF_THE_CALL = {"call_id", "trace", "door", "eval_us", "time", "as_of"}


@dataclass(frozen=True, slots=True)
class Played:
    """What a caller was told, and under which id it is recorded (empty where the door tells none)."""

    said: str
    call_id: str


def played(deployment: Deployment, scene: Scene, port: str) -> Played:
    """Play a scene at the door that listens on this port of the world."""
    world = deployment.world
    stage = Stage(replace(world, ports={**world.ports, "proxy": world.ports[port]}), deployment.processes, time.time)
    try:
        said, got = scene.play(stage)
        return Played(said, got.call_id)
    finally:
        for client in stage.clients.values():
            client.close()


def same(one: Recorded, other: Recorded) -> Iterator[str]:
    """Where the decisions of two calls differ in anything that is not the call's own."""
    if len(one.decisions) != len(other.decisions):
        yield f"{len(one.decisions)} decisions against {len(other.decisions)}"
    for first, second in zip(one.decisions, other.decisions, strict=False):
        for key in ("phase", "service", "method", "input", "decision", "obligations", "level", "policy", "index"):
            if _timeless(first[key]) != _timeless(second[key]):
                yield f"{key}: {_timeless(first[key])} against {_timeless(second[key])}"
        if len(first["subjects"]) != len(second["subjects"]):  # type: ignore[arg-type]
            yield "subjects"
    for key in ("status", "messages", "released", "dropped", "redacted", "bytes_out", "complete"):
        if one.outcomes[0][key] != other.outcomes[0][key]:
            yield f"outcome {key}: {one.outcomes[0][key]} against {other.outcomes[0][key]}"


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {key: _timeless(one) for key, one in value.items() if key not in _OF_THE_CALL}
    if isinstance(value, list):
        return [_timeless(one) for one in value]
    return value


def differing(deployment: Deployment, scene: Scene, port: str) -> list[str]:
    """What is different when a scene is played at the proxy and at the door on this port."""
    here, there = played(deployment, scene, "proxy"), played(deployment, scene, port)
    if here.said != there.said:
        return [f"{here.said!r} at the proxy, {there.said!r} here"]
    if not (here.call_id and there.call_id):
        return ["a call without an id"]
    return list(same(deployment.recorded(here.call_id, 20.0), deployment.recorded(there.call_id, 20.0)))
