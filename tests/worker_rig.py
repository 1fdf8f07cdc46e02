"""A deployment whose sidecar has several workers, and callers that go on whatever happens to it."""

import json
import os
import random
import signal
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Self

import psutil
import pytest
import yaml
from deployment import Answer, Deployment, Tree, wait
from hosted_parts import ENVOY
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from sidecar.demo.processes import free_port
from sidecar.demo.profiles.v1 import profiles_pb2 as pb
from sidecar.demo.world import sidecar_command

SOON = 60.0
SIDECAR = "sidecar"
PAUSE = 0.02
RETRIABLE = {"UNAVAILABLE"}
"""What a caller may try again without asking anybody (gRPC, statuscodes.md)."""


class Several(Deployment):
    """`with Several(folder, workers=2) as deployment`. `changes` are dotted keys of the settings, `__` for a dot."""

    def __init__(self, folder: Path, workers: int = 2, **changes: object) -> None:
        super().__init__(folder)
        self.workers = workers
        self.metrics_port = free_port()
        listen = f"127.0.0.1:{self.metrics_port}"
        self.configure(metrics__listen=listen, **{"limits__connection_age": "2s", **changes})

    def configure(self, **changes: object) -> None:
        """Change sidecar.yaml; None takes a key away."""
        file = self.folder / "sidecar.yaml"
        tree = yaml.safe_load(file.read_text())
        for dotted, value in changes.items():
            *parents, last = dotted.split("__")
            place = tree
            for parent in parents:
                place = place.setdefault(parent, {})
            if value is None:
                place.pop(last, None)
            else:
                place[last] = value
        beside = file.with_suffix(".new")
        beside.write_text(yaml.safe_dump(tree, sort_keys=False))
        beside.rename(file)

    def start_sidecar(self) -> None:
        """Start it, and wait for its line `ready`."""
        before = self.told("ready")
        self.processes.start(SIDECAR, self.command(), lambda: self.told("ready") > before)

    def command(self) -> list[str]:
        """As its operator would start it."""
        config = self.folder / "sidecar.yaml"
        return sidecar_command("run", "--config", config, "--workers", self.workers, *self.host)

    def said(self, event: str) -> list[Tree]:
        """The lines of the log with this event."""
        try:
            lines = self.log(SIDECAR).splitlines()
        except FileNotFoundError:
            return []
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [one for one in found if one["event"] == event]

    def told(self, event: str) -> int:
        """How many there are."""
        return len(self.said(event))

    def signal(self, number: signal.Signals) -> None:
        """Send the supervisor a signal."""
        os.kill(self.processes.pid(SIDECAR), number)

    def reload(self) -> bool:
        """SIGHUP; whether new workers serve, and those before them have gone."""
        done, refused, ended = self.told("reloaded"), self.told("reload_refused"), self.told("generation_ended")
        self.signal(signal.SIGHUP)
        wait(
            lambda: self.told("reloaded") > done or self.told("reload_refused") > refused, SOON, "the reload has ended"
        )
        if self.told("reload_refused") > refused:
            return False
        wait(lambda: self.told("generation_ended") > ended, SOON, "the workers before have gone")
        return True

    def worker_pids(self) -> list[int]:
        """The processes below the supervisor, in the order of their workers."""
        return [int(one["pid"]) for one in self.status()["workers"] if one["state"] == "serving"]  # type: ignore[index]

    def serving(self, seconds: float = SOON) -> None:
        """Wait until every worker serves."""
        wait(lambda: len(self.answers_of_workers()) == self.workers, seconds, "all workers serve")

    def answers_of_workers(self) -> list[Tree]:
        """What the serving workers say of themselves."""
        return [one for one in self._answers("sidecar.yaml").get("workers", []) if "policy" in one]  # type: ignore[attr-defined]

    def ended(self, seconds: float = SOON) -> int:
        """Wait for the end of the sidecar; its exit code."""
        process = self.processes._running.pop(SIDECAR)
        return process.wait(seconds)

    def profile(self, token: str = "amy") -> Answer:
        """One ordinary call over a connection of its own: any worker may get it."""
        caller = self.new_caller()
        try:
            request = pb.GetProfileRequest(user_id=self.world.cast.us).SerializeToString()
            return caller.call("GetProfile", [request], self.metadata(token))
        finally:
            caller.close()

    def page(self) -> list[Sample]:
        """The metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=SOON) as answer:
            text = answer.read().decode()
        return [one for family in text_string_to_metric_families(text) for one in family.samples]

    def admin(self, *words: str) -> Tree:
        """A question on the admin socket."""
        with socket.socket(socket.AF_UNIX) as talk:
            talk.settimeout(SOON)
            talk.connect(str(self.folder / "run" / "admin"))
            talk.sendall(json.dumps(words).encode() + b"\n")
            with talk.makefile("rb") as answer:
                return json.loads(answer.read())


class HostedSeveral(Several):
    """Each worker of it is an Envoy with the sidecar inside."""

    host = ENVOY


KINDS = [pytest.param(Several, id="grpc"), pytest.param(HostedSeveral, id="envoy")]
"""For a fixture's `params`: what is said of several workers holds whatever carries their doors."""


class Load:
    """Callers, each with a connection of its own that it changes now and then, until told to stop."""

    def __init__(self, deployment: Deployment, threads: int = 6, token: str = "amy") -> None:
        self._deployment, self._token, self._stop = deployment, token, threading.Event()
        self.answers: list[Answer] = []
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        wait(lambda: len(self.answers) > 2 * len(self._threads), SOON, "the load has begun")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        deployment, dice = self._deployment, random.Random(number)
        caller = deployment.new_caller()
        request = pb.GetProfileRequest(user_id=deployment.world.cast.us).SerializeToString()
        stream = pb.SyncRequest(user_id=deployment.world.cast.us).SerializeToString()
        while not self._stop.wait(PAUSE):
            method, messages = ("Sync", [stream] * 2) if dice.random() < 0.1 else ("GetProfile", [request])
            self.answers.append(caller.call(method, messages, deployment.metadata(self._token), timeout=SOON))
            if dice.random() < 0.05:
                caller.close()
                caller = deployment.new_caller()
        caller.close()

    def counted(self) -> Counter[str]:
        """How the calls ended."""
        return Counter(answer.status for answer in self.answers)


def unrecorded(deployment: Deployment, answers: list[Answer]) -> list[Answer]:
    """Answers of the sidecar itself that have no record, or another outcome than was answered."""
    recorded = deployment.calls()
    # A stream that broke off has the id from its headers, and no status of the sidecar's.
    own = [one for one in answers if one.status == "OK" or "call_id" in one.info]
    return [
        one for one in own
        if one.call_id not in recorded or [str(body["status"]) for body in recorded[one.call_id].outcomes] != [one.status]
    ]  # fmt: skip


def doubled(deployment: Deployment) -> list[object]:
    """Places in the log, and calls, that are there twice."""
    places = Counter((leaf["producer"], leaf["slot"], leaf["epoch"], leaf["seq"]) for leaf, _ in deployment.records())
    return [place for place, times in places.items() if times > 1]


def findings(deployment: Deployment) -> list[tuple[str, str]]:
    """What the store misses, beside producers that have nothing to say."""
    return [one for one in deployment.incompleteness() if one[0] != "silent_producer"]


def alive(pids: list[int]) -> list[int]:
    """Those that still run."""
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def until(holds: Callable[[], bool], what: str) -> float:
    """`wait`, for as long as a busy machine may need."""
    begun = time.monotonic()
    wait(holds, SOON, what)
    return time.monotonic() - begun
