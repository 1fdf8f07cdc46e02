"""The demo's scenes at any door, held against the proxy: what callers were told, and what the store holds of it."""

import datetime as dt
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from deployment import Deployment, Recorded
from door_callers import InexpressibleError
from door_matrix import PLAYED

from sidecar.demo import staff
from sidecar.demo.client import Client
from sidecar.demo.scenes import Scene
from sidecar.demo.stage import Stage
from sidecar.demo.world import build_directory

_OF_THE_CALL = {"call_id", "trace", "door", "eval_us", "time", "as_of"}
_DECISION = ("phase", "service", "method", "input", "decision", "obligations", "level", "policy", "index")
_FIGURES = ("status", "messages", "released", "dropped", "redacted", "bytes_out", "complete")


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a scene at a door. `call_id` is empty where the door tells none; `why`, why it could not be played."""

    said: str = ""
    call_id: str = ""
    messages: list = field(default_factory=list)
    why: str = ""
    failed: Exception | None = None


class Signed:
    """The desk of the approvers, at which the exceptions of the scenes are signed already, for an hour."""

    def __init__(self, deployment: Deployment) -> None:
        self.ends = int(time.time()) + 3600
        until = dt.datetime.fromtimestamp(self.ends, dt.UTC).strftime(staff.STAMP)
        for name, person in (("EX-7", "ed"), ("EX-8", "mei")):
            deployment.grant(name, person=person, justification="incident_response", ticket="SEC-42", expires=until)

    def grant(self, name: str, person: str, now: float) -> float:
        """As `Desk.grant`."""
        return float(self.ends)


@dataclass(slots=True)
class AtDoor(Stage):
    """A stage whose clients call at one door, whichever port a scene names."""

    reach: Callable[[str], Client] = lambda _certificate: None  # type: ignore[assignment,return-value]

    def client(self, certificate: str, port: str = "proxy") -> Client:
        """The client of a workload."""
        key = (certificate, "")
        if key not in self.clients:
            self.clients[key] = self.reach(certificate)
        return self.clients[key]


def by_grpc(deployment: Deployment, port: str) -> Callable[[str], Client]:
    """Clients of a door that takes gRPC calls on this port of the world."""
    world = deployment.world
    return lambda name: Client(f"localhost:{world.ports[port]}", world.ca.read_bytes(), world.certificates[name])


def perform(deployment: Deployment, desk: Signed, reach: Callable[[str], Client]) -> dict[str, Played]:
    """Play every scene, by name."""
    stage = AtDoor(replace(deployment.world, desk=desk), deployment.processes, time.time, reach=reach)
    try:
        return {scene.name: _played(stage, scene) for scene in PLAYED}
    finally:
        build_directory(deployment.folder, dt.datetime.now(dt.UTC))  # whoever left is back for the next door
        for client in stage.clients.values():
            client.close()


def _played(stage: AtDoor, scene: Scene) -> Played:
    try:
        said, got = scene.play(stage)
    except InexpressibleError as error:
        return Played(why=str(error))
    except Exception as error:  # noqa: BLE001 - told by the test of this scene
        return Played(failed=error)
    return Played(said, got.call_id, got.messages)


def same_decisions(one: Recorded, other: Recorded) -> Iterator[str]:
    """Where the decisions of two calls differ in anything that is not the call's own."""
    if len(one.decisions) != len(other.decisions):
        yield f"{len(one.decisions)} decisions against {len(other.decisions)}"
    for first, second in zip(one.decisions, other.decisions, strict=False):
        for key in _DECISION:
            if timeless(first[key]) != timeless(second[key]):
                yield f"{key}: {timeless(first[key])} against {timeless(second[key])}"
        if sorted(map(_class, first["subjects"])) != sorted(map(_class, second["subjects"])):  # type: ignore[call-overload]
            yield f"subjects: {first['subjects']} against {second['subjects']}"


def _class(subject: dict[str, object]) -> str:
    return str(subject["class"])


def same_figures(one: Recorded, other: Recorded) -> Iterator[str]:
    """Where the outcomes of two calls differ."""
    for key in _FIGURES:
        if one.outcomes[0][key] != other.outcomes[0][key]:
            yield f"outcome {key}: {one.outcomes[0][key]} against {other.outcomes[0][key]}"


def reasons(found: Recorded) -> list[tuple[str, list[str]]]:
    """Effect and reason codes of every decision."""
    return [(one["decision"]["effect"], [reason["code"] for reason in one["decision"]["reasons"]])  # type: ignore[index]
            for one in found.decisions]  # fmt: skip


def timeless(value: object) -> object:
    """Without what two calls never have in common."""
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items() if key not in _OF_THE_CALL}
    if isinstance(value, list):
        return [timeless(one) for one in value]
    return value
