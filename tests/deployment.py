"""A whole deployment in a folder, as tests need it: a data service, a store and sidecars, each a process of its own.

The world (keys, people, users, settings) is the demo's; it is made once in a test run and copied for each deployment,
which gets ports of its own. The service is the test's `Puppet`. A second sidecar, with settings that a test changes,
runs beside the first as `variant`.
"""

import datetime as dt
import json
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import grpc
import yaml
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from puppet import Puppet
from worlds import ROOT, Tree, changed, make_world

from sidecar.api.v1 import oversight_pb2
from sidecar.attributes.directory import Directory
from sidecar.demo import epilogue, papers, processes, staff, world
from sidecar.demo.pki import Pair
from sidecar.demo.processes import Processes, listening
from sidecar.demo.service import SERVICE
from sidecar.demo.stage import Stage
from sidecar.demo.world import CONSOLE, sidecar_command
from sidecar.exceptions.grant import sign_grant
from sidecar.oversight.reviewer import Reviewer

CALL_ID = "x-customhouse-call-id"
TIMEOUT = 30.0
SOON = 60.0
"""What is only meant to happen may take this long on a busy machine."""
processes.STOP_SECONDS = SOON  # nothing is killed for ending slowly on a busy machine


@dataclass(slots=True)
class Answer:
    """What a caller got. `reason` and `info` are of google.rpc.ErrorInfo; `retry` whether RetryInfo came with it."""

    status: str
    messages: list[bytes] = field(default_factory=list)
    text: str = ""
    reason: str = ""
    info: dict[str, str] = field(default_factory=dict)
    retry: bool = False
    headers: list[tuple[str, str | bytes]] = field(default_factory=list)
    trailers: list[tuple[str, str | bytes]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def call_id(self) -> str:
        """The sidecar's id of the call, wherever it stands; empty when the sidecar did not answer."""
        found = {str(value) for key, value in (*self.headers, *self.trailers) if key == CALL_ID}
        found |= {self.info["call_id"]} if "call_id" in self.info else set()
        assert len(found) < 2, f"one call, several ids: {found}"
        return next(iter(found), "")

    @property
    def said(self) -> str:
        """Status and reason."""
        return f"{self.status} {self.reason}".strip()


class Caller:
    """An ordinary gRPC client of one workload that sends and gets bytes."""

    def __init__(self, port: int, ca: Path, pair: Pair | None) -> None:
        chain = (pair.key.read_bytes(), pair.cert.read_bytes()) if pair else (None, None)
        options = [("grpc.enable_retries", 0), ("grpc.max_reconnect_backoff_ms", 200), ("grpc.use_local_subchannel_pool", 1),
                   ("grpc.min_reconnect_backoff_ms", 100), ("grpc.initial_reconnect_backoff_ms", 50),
                   ("grpc.max_metadata_size", 1 << 20)]  # fmt: skip
        credentials = grpc.ssl_channel_credentials(ca.read_bytes(), *chain)
        self.channel = grpc.secure_channel(f"localhost:{port}", credentials, options)

    def open(self, method: str, requests: Iterator[bytes], metadata: Iterable[tuple[str, str | bytes]],
             timeout: float | None = TIMEOUT) -> grpc.Call:  # fmt: skip
        """A call that the test reads itself. `method` may be a whole path."""
        return self.channel.stream_stream(_path(method))(requests, metadata=tuple(metadata), timeout=timeout)

    def call(self, method: str, requests: Iterable[bytes], metadata: Iterable[tuple[str, str | bytes]],
             timeout: float | None = TIMEOUT) -> Answer:  # fmt: skip
        """A call to its end."""
        begun = time.monotonic()
        call = self.open(method, iter(requests), metadata, timeout)
        answer = ended(call)
        answer.seconds = time.monotonic() - begun
        return answer

    def close(self) -> None:
        """Close the connection."""
        self.channel.close()


def _path(method: str) -> str:
    return method if method.startswith("/") else f"/{SERVICE}/{method}"


def ended(call: grpc.Call) -> Answer:
    """Read a call to its end; how it ended."""
    answer = Answer("OK")
    try:
        answer.messages.extend(call)
    except grpc.RpcError:
        answer.status = call.code().name
        answer.text = call.details() or ""
    answer.headers = [(one[0], one[1]) for one in call.initial_metadata() or ()]
    answer.trailers = [(one[0], one[1]) for one in call.trailing_metadata() or ()]
    for key, value in answer.trailers:
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    answer.reason, answer.info = info.reason, dict(info.metadata)
                answer.retry |= detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
    return answer


@dataclass(slots=True)
class Recorded:
    """What the store holds of one call: bodies, in the order of the log."""

    decisions: list[Tree] = field(default_factory=list)
    outcomes: list[Tree] = field(default_factory=list)

    @property
    def effects(self) -> list[str]:
        """The decisions' effects."""
        return [str(one["decision"]["effect"]) for one in self.decisions]  # type: ignore[index]

    @property
    def codes(self) -> list[str]:
        """The reason codes of the last decision."""
        return [one["code"] for one in self.decisions[-1]["decision"]["reasons"]]  # type: ignore[index]

    @property
    def status(self) -> str:
        """The outcome's status; there is exactly one outcome."""
        assert len(self.outcomes) == 1, self.outcomes
        return str(self.outcomes[0]["status"])


class Deployment:
    """Use as a context manager: everything runs inside, and nothing is left after it."""

    def __init__(self, folder: Path) -> None:
        self.world = make_world(folder)
        self.folder = self.world.folder
        self.stage = Stage(self.world, Processes(folder / "logs"), time.time)
        self.processes = self.stage.processes
        self._callers: dict[tuple[str | None, str], Caller] = {}
        self.upstream = Puppet(self.world)

    def __enter__(self) -> Self:
        try:
            self.stage.start_store()
            self.start_sidecar()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for caller in self._callers.values():
            caller.close()
        self.processes.stop_all()
        self.upstream.stop()

    host: tuple[str, ...] = ()
    """What `sidecar run` is told besides its settings."""

    def start_sidecar(self) -> None:
        """Start the first sidecar."""
        command = sidecar_command("run", "--config", self.folder / "sidecar.yaml", *self.host)
        self.processes.start("sidecar", command, listening(self.world.ports["proxy"]))

    @contextmanager
    def variant(self, command: list[str] | None = None, **changes: object) -> Iterator[None]:
        """A second sidecar, called by port="abroad", with changed settings: `identity__leeway="1s"`.

        Unlike the demo's, its data is kept in the US.
        """
        self.write_variant(**changes)
        command = (command or []) + sidecar_command("run", "--config", self.folder / "variant.yaml", *self.host)
        serves = listening(self.world.ports["abroad"])
        self.processes.start("variant", command, lambda: serves() and bool(self._answers("variant.yaml")))
        try:
            yield
        finally:
            if "variant" in self.processes._running:
                self.processes.stop("variant")

    def write_variant(self, **changes: object) -> Path:
        """Write the variant's settings."""
        tree = yaml.safe_load((self.folder / "sidecar-abroad.yaml").read_text())
        home = yaml.safe_load((self.folder / "sidecar.yaml").read_text())["upstream"]["location"]
        dotted = {key.replace("__", "."): value for key, value in changes.items()}
        tree = changed(tree, {"upstream.location": home, **dotted})
        file = self.folder / "variant.yaml"
        file.write_text(yaml.safe_dump(tree, sort_keys=False))
        return file

    def caller(self, certificate: str | None = "console", port: str = "proxy") -> Caller:
        """The client of a workload, kept for the whole deployment."""
        key = (certificate, port)
        if key not in self._callers:
            self._callers[key] = self.new_caller(certificate, port)
        return self._callers[key]

    def new_caller(self, certificate: str | None = "console", port: str = "proxy") -> Caller:
        """A client with a connection of its own; the test closes it."""
        pair = self.world.certificates[certificate] if certificate else None
        return Caller(self.world.ports[port], self.world.ca, pair)

    def call(self, method: str, *requests: Message | bytes, token: str | None = "amy", certificate: str | None = "console",
             port: str = "proxy", timeout: float | None = TIMEOUT, more: Iterable[tuple[str, str | bytes]] = (),
             **claims: str | None) -> Answer:  # fmt: skip
        """Call as somebody at work would, to the end of the call."""
        return self.caller(certificate, port).call(
            method, encoded(requests), (*self.metadata(token, **claims), *more), timeout
        )

    def metadata(self, token: str | None = "amy", **claims: str | None) -> list[tuple[str, str]]:
        """What a tool sends. `token`: the name of one of the world's tokens, or the token itself."""
        known = token is None or token in self.world.tokens
        found = self.stage.metadata(token if known else None, **claims)  # type: ignore[arg-type]
        return found if known else [("authorization", f"Bearer {token}"), *found]

    def token(self, person: str, **claims: object) -> str:
        """A token signed by the staff's identity provider."""
        return self.world.staff_idp.token(person, CONSOLE, time.time(), **claims)

    def people(self, *extra: Tree, without: str | None = None) -> None:
        """Build the directory anew, with more people or without somebody, and wait until it is in force."""
        stamp = dt.datetime.now(dt.UTC).strftime(staff.STAMP)
        rows, (file, entities) = staff.people(stamp, without=without), staff.write(self.folder, stamp)
        rows += [{**rows[0], **one} for one in extra]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        snapshot = self.folder / "people.snapshot"
        world.run("directory", "build", file, entities, snapshot)
        built = Directory(snapshot, 3600.0).revision
        wait(lambda: self.status()["directory"] == built, SOON, "the sidecar has taken up the new directory")

    def grant(self, name: str, **payload: object) -> None:
        """An exception signed by both approvers, for a minute from now."""
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        document: Tree = {
            "id": name,
            "scope": {"services": [SERVICE], "categories": papers.categories(), "subjects": "us"},
            "justification": "legal_order", "ticket": "LEG-9", "requested_by": "uma",
            "not_before": now.strftime(staff.STAMP),
            "expires": (now + dt.timedelta(seconds=60)).strftime(staff.STAMP), **payload,
        }  # fmt: skip
        signed = b""
        for approver, key in self.world.desk.approvers.items():
            signed = sign_grant(document, key, approver, signed or None)
        unfinished = self.folder / "grants" / f".{name}"
        unfinished.write_bytes(signed)
        unfinished.rename(self.folder / "grants" / f"{name}.json")

    def revoke(self, **entry: str) -> None:
        """Add a line to the list of revoked tokens, the way its documentation asks for."""
        file = self.folder / "revoked.jsonl"
        beside = self.folder / "revoked.new"
        beside.write_text(file.read_text() + json.dumps(entry) + "\n")
        beside.rename(file)

    # -- what the parts say ------------------------------------------------------------------------------------------

    def status(self, settings: str = "sidecar.yaml") -> Tree:
        """What a running sidecar says on its admin socket."""
        path = self.folder / yaml.safe_load((self.folder / settings).read_text())["admin"]["socket"]
        with socket.socket(socket.AF_UNIX) as talk:
            talk.settimeout(SOON)
            talk.connect(str(path))
            talk.sendall(b"status\n")
            with talk.makefile("rb") as answer:
                return json.loads(answer.read())

    def delivered(self, seconds: float = SOON, settings: str = "sidecar.yaml") -> None:
        """Wait until the store's receipts cover everything that a sidecar has recorded."""

        wait(lambda: self._answers(settings).get("spool_records") == 0, seconds, "the store has all records")

    def _answers(self, settings: str) -> Tree:
        """As `status`; nothing while nobody answers: a sidecar serves before it listens on its admin socket."""
        try:
            return self.status(settings)
        except OSError:
            return {}

    def recorded(self, call_id: str, seconds: float = SOON) -> Recorded:
        """What the store holds of a call, once its outcome is there."""
        assert call_id, "the answer names no call"
        found = Recorded()

        def there() -> bool:
            nonlocal found
            with epilogue.reviewer(self.stage) as asks:
                found = by_call(_search(asks, call_id=call_id)).get(call_id, Recorded())
            return bool(found.outcomes)

        wait(there, seconds, f"the outcome of {call_id} is in the store")
        return found

    def calls(self, **asked: str) -> dict[str, Recorded]:
        """What the store holds, by call."""
        return by_call(self.records(**asked))

    def records(self, **asked: str) -> list[tuple[Tree, Tree]]:
        """Leaves and bodies, in the order of the log; of all that had been published when this was called."""
        published = int((self.folder / "oversight" / "log" / "checkpoint").read_bytes().split(b"\n")[1])
        with epilogue.reviewer(self.stage) as asks:
            wait(lambda: _searched_to(asks) >= published, SOON, "the store's index has what is published")
            return _search(asks, **asked)

    def audit(self) -> subprocess.CompletedProcess[str]:
        """`sidecar oversight audit` of the log and of the bodies."""
        store = self.folder / "oversight"
        return sidecar("oversight", "audit", store / "log", "--trust", self.folder / "trust.txt",
                       "--database", store / "records.sqlite")  # fmt: skip

    def incompleteness(self) -> list[tuple[str, str]]:
        """Kind and producer of everything that the store says is missing or doubled."""
        with epilogue.reviewer(self.stage) as asks:
            return [(one.kind, one.producer) for one in asks.completeness().findings]

    def log(self, name: str) -> str:
        """What a process has written."""
        return (self.folder / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace")


def encoded(requests: Iterable[Message | bytes]) -> list[bytes]:
    """Messages as bytes."""
    return [one if isinstance(one, bytes) else one.SerializeToString() for one in requests]


def sidecar(*arguments: str | Path, seconds: float = 180.0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as a user would."""
    return subprocess.run(
        sidecar_command(*arguments), capture_output=True, text=True, timeout=seconds, check=False, cwd=ROOT
    )


def wait(holds: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait until something holds; how long it took. AssertionError when it does not happen in time."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.03)
    return time.monotonic() - begun


def by_call(records: Iterable[tuple[Tree, Tree]]) -> dict[str, Recorded]:
    """Decisions and outcomes of each call."""
    found: dict[str, Recorded] = defaultdict(Recorded)
    for leaf, body in records:
        if leaf["type"] in ("decision", "outcome"):
            one = found[str(leaf["call_id"])]
            (one.decisions if leaf["type"] == "decision" else one.outcomes).append(body)
    return dict(found)


def _search(asks: Reviewer, **asked: str) -> list[tuple[Tree, Tree]]:
    return [(json.loads(one.leaf), json.loads(one.body)) for one in asks.search(asked, 0)]


def _searched_to(asks: Reviewer) -> int:
    """How far the store's index has come: on a busy machine an answer may say that it is not at the end yet."""
    nothing = oversight_pb2.SearchRequest(limit=1, until="1970-01-01T00:00:01Z")
    return int(asks._stub.Search(nothing, timeout=SOON).searched_to)
