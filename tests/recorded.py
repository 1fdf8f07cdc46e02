"""Recorded decisions, as a store would give them, for tests that replay them."""

import json
from pathlib import Path

import msgspec

from sidecar.record import DecisionBody, PolicyRef, Trace, encode_body
from sidecar.vocabulary import (
    AccessRequest,
    Action,
    Decision,
    Effect,
    Environment,
    Person,
    Reason,
    Resource,
    Subject,
    SubjectCounts,
    canonical,
)  # fmt: skip

Tree = dict[str, object]


def question(
    person: str = "amy", *, us_personnel: bool | None = True, us: int = 1, minute: int = 0, **more: object
) -> AccessRequest:
    """Somebody at work reads a user's profile."""
    return AccessRequest(
        subject=Subject(kind="personnel", person=Person(id=person, us_personnel=us_personnel)),
        action=Action(name="read", service="a.b.Profiles", method="GetProfile"),
        resource=Resource(categories=("id_contact",), classes=("protected",), subjects=SubjectCounts(us=us)),
        context=Environment(time=f"2026-01-01T00:{minute:02d}:00Z", phase="response"), **more,
    )  # fmt: skip


def denied(code: str = "not_us_personnel", rule: str = "sidecar.trial") -> Decision:
    """A deny for one reason."""
    return Decision(effect=Effect.DENY, reasons=(Reason(code=code, message="only Amy", rule=rule),))


def permitted(*obligations: object) -> Decision:
    """A permit."""
    return Decision(
        effect=Effect.PERMIT, reasons=(Reason(code="trial", message="Amy may", rule="sidecar.trial"),),
        obligations=obligations,
    )  # fmt: skip


def body(request: AccessRequest | bytes, decision: Decision | bytes, number: int = 0, part: int = 1) -> bytes:
    """The body of a decision record."""
    asked = request if isinstance(request, bytes) else canonical(request)
    made = decision if isinstance(decision, bytes) else msgspec.json.encode(decision)
    return encode_body(
        DecisionBody(
            call_id=f"call-{number}", phase="response", service="a.b.Profiles", method="GetProfile", door="proxy",
            trace=Trace(trace_id=None, span_id=None, from_="sidecar"), policy=PolicyRef(revision="sha256:old"),
            directory="people", index="subjects", input=msgspec.Raw(asked), decision=msgspec.Raw(made), subjects=(),
            obligations=(), level="committed", engine="embedded", eval_us=1, part=part, parts=part,
        )
    )  # fmt: skip


def row(of: bytes | None, number: int = 0, type: str = "decision", time: str = "2026-01-01T00:00:00.000000Z") -> Tree:
    """What `sidecar oversight search --json` prints of a record."""
    leaf = {"v": 1, "type": type, "producer": "p", "time": time, "call_id": f"call-{number}"}
    return {"index": number, "attested": True, "standing": "chain", "leaf": leaf, "body": of and json.loads(of)}


def write_rows(file: Path, *rows: Tree | bytes) -> Path:
    """A JSON Lines file of rows, bodies or documents."""
    file.write_bytes(b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in rows))
    return file
