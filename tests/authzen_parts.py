"""The AuthZEN door in memory: real identification, a directory, grants in a folder; and a client over TLS."""

import asyncio
import functools
import itertools
import json
import re
import ssl
from dataclasses import replace
from pathlib import Path

import identity_provider as idp
from grant_signing import KEYS, listed, public
from pipeline_rig import NOW as RIG_NOW
from pipeline_rig import PERMIT, SERVICE, US, Rig, describer

from sidecar.attributes import entities
from sidecar.attributes.peers import RegisteredWorkload, Workloads
from sidecar.attributes.subject import Identifier
from sidecar.decision.activation import activate
from sidecar.decision.embedded import EmbeddedMaker
from sidecar.decision.folder import load_folder
from sidecar.doors.authzen import AuthZen, Parts
from sidecar.doors.authzen_drafts import Drafts
from sidecar.doors.authzen_evaluation import Evaluator
from sidecar.doors.authzen_http import HttpHead
from sidecar.doors.authzen_outcome import Outcomes
from sidecar.doors.authzen_requests import Requests, Terms
from sidecar.doors.authzen_search import Searches
from sidecar.doors.waiting import Waiting
from sidecar.enforcement.call import Peer
from sidecar.enforcement.circumstances import Circumstances
from sidecar.enforcement.pipeline import EnforcementPoint
from sidecar.exceptions.store import GrantStore
from sidecar.vocabulary import Place

GATEWAY, WEB, BATCH, STRANGER = "spiffe://corp/ns/gateway", idp.WEB, idp.BATCH, "spiffe://corp/ns/stranger"
NOW = idp.NOW
assert RIG_NOW < NOW
RESOURCES = f"""
types:
  profile:
    service: {SERVICE}
    categories: [id_contact]
    subject: person
    actions: {{can_view: read}}
    variants:
      - {{property: resource.status, equals: archived, type: old_profile}}
      - {{property: action.soft, equals: true, of: delete, action: write}}
  old_profile: {{service: {SERVICE}, categories: [id_contact], subject: person}}
  banner: {{service: {SERVICE}, personal: false, subject: none}}
  record:
    service: {SERVICE}
    categories: [user_content]
    subject: record
    variants:
      - {{property: resource.status, equals: archived, type: record_archived}}
      - {{property: action.soft, equals: true, of: delete, action: write}}
  record_archived: {{service: {SERVICE}, categories: [user_content], subject: record}}
"""
FIXTURE = """package sidecar

decision := {
	"effect": "permit",
	"reasons": [{"code": "fixture", "message": "a rule of the fixture", "rule": rule}],
	"obligations": [], "advice": [], "ttl_seconds": 30,
} if {
	rule := permitted
} else := {
	"effect": "deny",
	"reasons": [{"code": "action_not_allowed", "message": "no rule permits", "rule": "sidecar.fixture.none"}],
	"obligations": [], "advice": [], "ttl_seconds": 30,
}

has(role) if {
	some held in input.subject.person.roles
	held == role
}

permitted := "sidecar.fixture.read" if {
	input.subject.kind == "personnel"
	input.action.name == "read"
} else := "sidecar.fixture.write" if {
	has("writer")
	input.action.name == "write"
	input.resource.type == "record"
} else := "sidecar.fixture.archived" if {
	has("admin")
	input.action.name == "write"
	input.resource.type == "record_archived"
}
"""
FIXTURE_TEST = """package sidecar.fixture_test

test_nobody if {
	nobody := {"subject": {"kind": "workload", "person": {"roles": []}}, "action": {"name": "read"}, "resource": {"type": "record"}}
	answer := data.sidecar.decision with input as nobody
	answer.effect == "deny"
}
"""


class People(idp.People):
    """The directory of the certification fixture: the facts are here, not in a request's properties."""

    def __init__(self, *more):
        super().__init__(*more)
        for name, roles in (("alice", ("writer",)), ("bob", ("admin",))):
            self.entries[name] = idp.Entry(idp.person(name, roles=roles))

    def ids(self, start, most):
        return list(self.entries)[start : start + most]


class Rego:
    """The embedded engine on a bundle, as the pipeline asks one."""

    name = "embedded"

    def __init__(self, folder):
        (folder / "sidecar").mkdir(parents=True)
        (folder / ".manifest").write_text('{"revision": "fixture", "roots": ["sidecar"], "rego_version": 1}')
        (folder / "sidecar" / "fixture.rego").write_text(FIXTURE)
        (folder / "sidecar" / "fixture_test.rego").write_text(FIXTURE_TEST)
        self._engine = activate(load_folder(folder), str(folder), EmbeddedMaker(5.0)).engine

    def peek(self, canonical):
        return None

    async def decide(self, request, canonical, *, valid_for):
        return await self._engine.decide(request, canonical)


@functools.cache
def _providers():
    return idp.Provider(), idp.Provider(issuer="https://users", kind="data_subject", kid="u1")


@functools.cache
def _described():
    return entities.Entities(entities.parse(RESOURCES, "r.yaml"), describer())


class Log:
    def __init__(self):
        self.lines = []

    def error(self, event, **details):
        self.lines.append((event, details))

    warning = error


class Reply:
    """An HTTP answer."""

    def __init__(self, response):
        self.status, self.body, self.type = response.status, response.body, response.content_type
        self.headers = dict(response.headers)

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def text(self):
        return self.body.decode()


class Door:
    """Everything, and what a caller may send. `rig` bends the engine and the records."""

    def __init__(self, folder=None, *, engine=None, most=100, requests=True, names=("p1", "p2")):
        self.rig, self.people, self.log, self.monotonic = Rig(), People(*names), Log(), 1000.0
        self.rig.now, self.rig.numbers = NOW, itertools.count(1)
        self.idp, self.users = _providers()
        self.desk = idp.desk(self.idp, self.users, people=self.people)
        workloads = Workloads([
            RegisteredWorkload(id=GATEWAY, operated_from="US", may=("read",), asserts=True),
            RegisteredWorkload(id=WEB, operated_from="US", may=("read",)),
            RegisteredWorkload(id=BATCH, operated_from="US", may=("read",), acts_alone=True),
        ])  # fmt: skip
        identifier = Identifier(tokens=self.desk.tokens, people=self.people, workloads=workloads, binding="none")
        parts = replace(self.rig.point._parts, identifier=identifier)
        if engine is not None:
            parts = replace(parts, decisions=engine)
        self.grants = None
        asked = None
        if folder is not None:
            self.folder = folder / "grants"
            self.folder.mkdir(parents=True)
            (folder / "approvers.yaml").write_bytes(listed(*({"id": name, "key": public(name)} for name in KEYS)))
            self.grants = GrantStore(folder=self.folder, approvers=folder / "approvers.yaml",
                                     clock=lambda: self.rig.now, on_event=lambda _event: None)  # fmt: skip
            circumstances = Circumstances(ticket_pattern=r"[A-Z]+-\d+", justification_pattern=r"[a-z_]+",
                                          destination=Place(country="US"), grants=self.grants)  # fmt: skip
            parts = replace(parts, circumstances=circumstances)
        self.point = EnforcementPoint(parts)
        self.waiting = Waiting(lambda: self.monotonic, 300.0, most)
        self.events, self.event_error = [], None
        if folder is not None and requests:
            self.drafts = Drafts(self.folder, self.grants, max_window=86_400.0, clock=lambda: self.rig.now)
            numbers = iter(range(1000))
            asked = Requests(
                point=self.point, drafts=self.drafts, record=self._record, clock=lambda: self.rig.now,
                new_id=lambda: f"EX-{next(numbers):032d}",
                terms=Terms(ticket=re.compile(r"[A-Z]+-\d+"), justification=re.compile(r"[a-z_]+"), max_window=86_400.0),
            )  # fmt: skip
        described = _described()
        evaluator = Evaluator(self.point, described, self.waiting, lambda: self.rig.now,
                              (lambda _denied: {}) if asked is None else asked.offer)  # fmt: skip
        self.app = AuthZen(Parts(
            evaluator=evaluator, searches=Searches(self.point, described, self.people),
            outcomes=Outcomes(self.point, self.waiting), requests=asked,
            asserts=lambda peer: (found := workloads.of(peer.identities)) is not None and found.asserts,
        ))  # fmt: skip

    async def _record(self, details):
        if self.event_error is not None:
            raise self.event_error
        self.events.append(dict(details))

    @property
    def decisions(self):
        return self.rig.records.decisions

    @property
    def outcomes(self):
        return self.rig.records.outcomes

    async def send(self, method, path, body=b"", *, who=GATEWAY, headers=(), anonymous=False):
        """A request as a transport hands it over."""
        headers = (("host", "pdp.example:8444"), *headers)
        if not any(name == "content-type" for name, _ in headers) and method == "POST":
            headers = (*headers, ("content-type", "application/json"))
        peer = Peer(identities=() if who is None else (who,))
        head = HttpHead(method=method, path=path, headers=headers, peer=peer, anonymous=anonymous)
        return Reply(self.app.early(head) or await self.app.answer(head, body))

    async def post(self, path, document, **how):
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return await self.send("POST", path, body, **how)

    async def ask(self, document=None, **how):
        return await self.post("/access/v1/evaluation", question() if document is None else document, **how)

    async def batch(self, document, **how):
        return await self.post("/access/v1/evaluations", document, **how)

    def token(self, person="p1", **claims):
        return (("authorization", f"Bearer {self.idp.token(sub=person, **claims)}"),)


def question(subject="p1", action="read", resource=US, *, type="profile", kind="user", properties=None, **more):
    """One evaluation."""
    named = {"type": type, "id": str(resource)}
    if properties is not None:
        named["properties"] = properties
    return {"subject": {"type": kind, "id": subject}, "action": {"name": action}, "resource": named, **more}


def permits(*obligations):
    return {**PERMIT, "obligations": list(obligations)}


class Wire:
    """A raw connection to the door, with or without TLS."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, address, context=None):
        if address.startswith("unix:"):
            return cls(*await asyncio.open_unix_connection(address.removeprefix("unix:")))
        host, _, port = address.rpartition(":")
        name = {} if context is None else {"server_hostname": "localhost"}
        return cls(*await asyncio.open_connection(host, int(port), ssl=context, **name))

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self):
        """(status, headers, body) of one answer."""
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 60)).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await asyncio.wait_for(self.reader.readexactly(int(headers.get("content-length", 0))), 60)
        return int(first.split(" ")[1]), headers, body

    async def ended(self, seconds=60):
        """Whether the other side closes within this time, having said nothing more."""
        try:
            return await asyncio.wait_for(self.reader.read(1), seconds) == b""
        except OSError:
            return True

    async def close(self):
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass


def http(path, document=b"", *headers, method="POST"):
    """A request's bytes."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def client_context(ca: Path, pair=None, **bounds):
    """A client's TLS."""
    context = ssl.create_default_context(cafile=str(ca))
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    for name, value in bounds.items():
        setattr(context, name, value)
    return context
