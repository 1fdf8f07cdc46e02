"""One suite for every door: the demo's scenes, with the decisions and records that the proxy makes of them.

What is expected is the table in `door_matrix`; docs/doors.md shows it. And load by a program that nobody here wrote.
"""

import asyncio
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import door_matrix as table
import pytest
import yaml
from benchmarks import h2load
from deployment import Deployment, Recorded
from door_callers import RESOURCES, AuthZenCaller, DecisionCaller, HttpCaller, JsonProfiles
from door_matrix import COLUMNS, PLAYED, Column, Denied, Equal, Inexpressible, expected
from door_scenes import Played, Signed, by_grpc, perform, reasons, same_decisions, same_figures, timeless
from envoy_parts import enveloped
from hosted_parts import ENVOY

from sidecar.demo.client import Client
from sidecar.demo.processes import listening
from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.demo.service import SERVICE
from sidecar.demo.world import CONSOLE, sidecar_command
from sidecar.main.in_process import guarding

HERE = Path(__file__).resolve().parents[1]
Needs = Callable[[str, str], Path]
Reach = Callable[[str], Client]
INSIDE: dict[str, object] = {"listen": [], "upstream__address": None, "upstream__tls": None, "admin": None,
                             "describe__reflection": "off", "describe__resources": "resources.yaml"}  # fmt: skip


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("d"))
    folder, port = deployment.folder, deployment.world.ports["ledger"]
    (folder / "resources.yaml").write_text(RESOURCES)
    tree = yaml.safe_load((folder / "sidecar.yaml").read_text())
    # h2load shows no certificate
    tree["listen"].append({"door": "proxy", "address": "unix:run/h2", "workload": CONSOLE})
    (folder / "sidecar.yaml").write_text(yaml.safe_dump(tree))
    with deployment:
        command = sidecar_command("ledger", "run", "--config", folder / "ledger.yaml")
        deployment.processes.start("ledger", command, listening(port))
        yield deployment


@dataclass(frozen=True, slots=True)
class Door:
    """A door at which all scenes have been played. `curled`: what grpcurl was told there, if it takes gRPC calls."""

    column: Column
    played: dict[str, Played]
    curled: str | None


class Suite:
    """Every door is opened once, whatever the order of tests: all scenes are played at it, and it is closed."""

    def __init__(self, deployment: Deployment, needs: Needs) -> None:
        self._deployment, self._needs, self._desk = deployment, needs, Signed(deployment)
        self._doors: dict[Column, Door] = {}
        self.proxied = perform(deployment, self._desk, by_grpc(deployment, "proxy"))

    def at(self, column: Column) -> Door:
        """The scenes at a door."""
        if column not in self._doors:
            with OPEN[column](self._deployment, self._needs) as (reach, port):
                curled = grpcurl(self._deployment, self._needs, port) if port else None
                self._doors[column] = Door(column, perform(self._deployment, self._desk, reach), curled)
        return self._doors[column]


@pytest.fixture(scope="module")
def suite(deployed: Deployment, needs: Needs) -> Suite:
    return Suite(deployed, needs)


@pytest.fixture(params=COLUMNS, ids=lambda one: one.name)
def door(request: pytest.FixtureRequest, suite: Suite) -> Door:
    return suite.at(request.param)


def grpcurl(deployed: Deployment, needs: Needs, port: str) -> str:
    """What grpcurl prints of a refusal."""
    program, tls, user = needs("grpcurl", "run `make tools`"), deployed.folder / "tls", deployed.world.cast.us
    said = [word for key, value in deployed.metadata("niall") for word in ("-H", f"{key}: {value}")]
    done = subprocess.run(
        [str(program), "-max-time", "60", "-format-error", "-cacert", str(deployed.world.ca), "-cert",
         str(tls / "console.pem"), "-key", str(tls / "console.key"), "-protoset", str(deployed.folder / "profiles.binpb"),
         *said, "-d", json.dumps({"user_id": user}), f"localhost:{deployed.world.ports[port]}", f"{SERVICE}/GetProfile"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.stderr


Opened = AbstractContextManager[tuple[Reach, str | None]]


def _inside(kind: str) -> Callable[[Deployment, Needs], Opened]:
    @contextmanager
    def opened(deployment: Deployment, _: Needs) -> Iterator[tuple[Reach, str | None]]:
        """The service with the guard inside, a process of its own."""
        folder, port = deployment.folder, deployment.world.ports["abroad"]
        deployment.write_variant(**INSIDE)
        command = [
            sys.executable, str(HERE / "guarded_service.py"), kind, str(folder / "variant.yaml"), f"127.0.0.1:{port}",
            str(folder / "tls/abroad.pem"), str(folder / "tls/abroad.key"), str(folder / "ca.pem"),
            str(folder / "users.sqlite"),
        ]  # fmt: skip
        deployment.processes.start("variant", command, listening(port))
        try:
            yield by_grpc(deployment, "abroad"), "abroad"
        finally:
            deployment.processes.stop("variant")

    return opened


@contextmanager
def _http(deployment: Deployment, _: Needs) -> Iterator[tuple[Reach, None]]:
    """An application with JSON, guarded in this process on a loop of its own."""
    settings = deployment.write_variant(**INSIDE)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    guard = guarding(settings)

    def run(what: object) -> object:
        return asyncio.run_coroutine_threadsafe(what, loop).result(60)  # type: ignore[arg-type]

    try:
        entered = run(guard.__aenter__())
        app = entered.asgi(JsonProfiles(deployment.folder / "users.sqlite"))
        try:
            yield lambda name: HttpCaller(deployment.world, name, app, loop), None
        finally:
            run(guard.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def _hosted(deployment: Deployment, _: Needs) -> Iterator[tuple[Reach, str]]:
    deployment.host = ENVOY
    try:
        with deployment.variant():
            yield by_grpc(deployment, "abroad"), "abroad"
    finally:
        del deployment.host


def _asked_by_envoy(mode: str) -> Callable[[Deployment, Needs], Opened]:
    @contextmanager
    def opened(deployment: Deployment, needs: Needs) -> Iterator[tuple[Reach, str]]:
        with enveloped(deployment, needs, mode):
            yield by_grpc(deployment, "envoy"), "envoy"

    return opened


def _decisions(kind: str, caller: Callable[..., Client]) -> Callable[[Deployment, Needs], Opened]:
    @contextmanager
    def opened(deployment: Deployment, _: Needs) -> Iterator[tuple[Reach, None]]:
        port = deployment.world.ports["abroad"]
        tls = {"cert": "tls/abroad.pem", "key": "tls/abroad.key", "client_ca": "ca.pem"}
        listens = [{"door": kind, "address": f"127.0.0.1:{port}", "tls": tls}]
        with deployment.variant(listen=listens, describe__resources="resources.yaml"):
            yield lambda name: caller(deployment.world, name, port), None

    return opened


OPEN: dict[Column, Callable[[Deployment, Needs], Opened]] = {
    table.AIO: _inside("aio"), table.THREADS: _inside("threads"), table.HTTP: _http, table.HOSTED: _hosted,
    table.EXT_PROC: _asked_by_envoy("ext_proc"), table.EXT_AUTHZ: _asked_by_envoy("ext_authz"),
    table.CHECK: _decisions("check", DecisionCaller), table.AUTHZEN: _decisions("authzen", AuthZenCaller),
}  # fmt: skip


@pytest.mark.parametrize("scene", PLAYED, ids=[one.name for one in PLAYED])
def test_a_scene_ends_as_expected_and_is_recorded_as_at_the_proxy(
    door: Door, deployed: Deployment, suite: Suite, scene
) -> None:
    cell, there, here = expected(door.column, scene.name), suite.proxied[scene.name], door.played[scene.name]
    for one in (there, here):
        if one.failed is not None:
            raise one.failed
    assert there.said == scene.expected, "at the proxy"
    if isinstance(cell, Inexpressible):
        assert here.why, f"{cell.why}, and yet: {here.said}"
        return
    assert not here.why, here.why
    at_proxy, at_door = deployed.recorded(there.call_id, 20.0), deployed.recorded(here.call_id, 20.0)
    assert {one["door"] for one in at_door.decisions} == {door.column.recorded}
    if isinstance(cell, Denied):
        assert here.said == cell.told
        assert at_door.effects == ["deny"] and cell.code in at_door.codes, reasons(at_door)
        assert at_door.outcomes[0]["complete"] and "seen" not in at_door.outcomes[0], at_door.outcomes
        assert not deployed.upstream.calls_of(here.call_id), "nothing went on"
        same_subjects = cell.code != "subjects_unknown" and scene.name not in table.STREAMS
        assert _asked(at_door, same_subjects) == _asked(at_proxy, same_subjects)
        return
    assert _differences(door.column, cell, there, here, at_proxy, at_door) == []
    if at_proxy.effects[0] == "permit":
        assert at_door.outcomes[0].get("seen", "") == door.column.seen


def _differences(
    column: Column, cell: Equal, there: Played, here: Played, at_proxy: Recorded, at_door: Recorded
) -> list[str]:
    """What is not as at the proxy, of all that is comparable at this door."""
    found = [] if here.said == (cell.said or _shown(column, there.said)) else [f"{there.said!r}, here {here.said!r}"]
    compared = cell.only or column.equal
    if compared in ("reasons", "question"):
        if reasons(at_proxy) != reasons(at_door):
            found.append(f"{reasons(at_proxy)}, here {reasons(at_door)}")
        one, other = ({}, {}) if compared == "reasons" else (_question(at_proxy), _question(at_door))
        return found + [f"{key}: {one[key]}, here {other[key]}" for key in one if one[key] != other[key]]
    found += same_decisions(at_proxy, at_door)
    if compared == "all":
        found += same_figures(at_proxy, at_door)
        found += [] if there.messages == here.messages else ["what was released"]
    return found


def _asked(found: Recorded, subjects: bool) -> object:
    """The input of the first decision, with or without who it is about."""
    document = timeless(found.decisions[0]["input"])
    if not subjects:
        document["resource"].pop("subjects")  # type: ignore[index]
    return document


def _question(found: Recorded) -> dict[str, object]:
    """Of an entity, what there is of a call: who asks what for, about whom, and what they are obliged to."""
    first = found.decisions[0]
    document = timeless(first["input"])
    return {"subject": document["subject"], "context": document["context"], "subjects": document["resource"]["subjects"],  # type: ignore[index]
            "action": document["action"]["name"], "obligations": first["obligations"]}  # type: ignore[index]  # fmt: skip


def _shown(column: Column, said: str) -> str:
    """The words of a scene, for a door that shows no message to its caller."""
    return said.partition(":")[0] if column is table.AUTHZEN else said


def test_grpcurl_is_answered_at_every_door_that_takes_grpc(door: Door, deployed: Deployment) -> None:
    if door.curled is None:
        return  # foreign clients of these: test_check_api, test_authzen_api
    error = json.loads(door.curled)
    told = re.fullmatch(r"refused: not_us_personnel, .*\(call (\S+)\)", error["message"])
    assert error["code"] == 7 and told, error
    assert deployed.recorded(told[1]).codes[0] == "not_us_personnel"


def test_h2load_every_call_is_answered_and_recorded_once(deployed: Deployment, needs: Needs) -> None:
    needs("h2load", "apt-get install nghttp2-client")
    (socket,) = (deployed.folder / "run" / "h2").glob("*.sock")
    calls, before = 500, len(deployed.upstream.seen)
    message = pb.GetProfileRequest(user_id=deployed.world.cast.us).SerializeToString()
    said = deployed.metadata(ticket="LOAD-2")
    h2load.send(h2load.grpc(f"http://localhost/{SERVICE}/GetProfile", message, said, socket), 20, calls)
    seen = [one.call_id for one in deployed.upstream.seen[before:]]
    assert (len(seen), len(set(seen))) == (calls, calls)
    deployed.delivered(60)
    found = deployed.calls()
    assert {(*found[one].effects, found[one].status) for one in seen} == {("permit", "OK")}


def test_the_page_shows_the_matrix_that_is_proven_here() -> None:
    assert {scene for _, scene in table.CELLS} <= {one.name for one in PLAYED}
    assert table.PAGE.read_text() == table.page(), "run `make generate`"
    print(f"\n{table.matrix()}")
