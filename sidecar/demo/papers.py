"""The demo's signed papers: exceptions by approvers, a licence by counsel, and what the data sets reach."""

import datetime as dt
import json
import sqlite3
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidecar.api.v1 import annotations_pb2
from sidecar.demo import staff
from sidecar.demo.profiles.v1 import profiles_pb2
from sidecar.exceptions import jws
from sidecar.exceptions.authorizations import TYPE
from sidecar.exceptions.grant import sign_grant

GRANT_SECONDS = 12
LICENCE_SECONDS = 3600
SERVICE = profiles_pb2.DESCRIPTOR.services_by_name["Profiles"].full_name


@dataclass(slots=True)
class Desk:
    """Those who sign, with their keys, and the folder into which they put what they signed."""

    folder: Path
    approvers: dict[str, Ed25519PrivateKey] = field(
        default_factory=lambda: {name: Ed25519PrivateKey.generate() for name in ("gina", "hal")}
    )
    counsel: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def open(self) -> None:
        """List whose signatures count; nothing is signed yet."""
        listed = [{"id": name, "key": _public(key)} for name, key in self.approvers.items()]
        _write(self.folder / "approvers.yaml", yaml.safe_dump({"approvers": listed}))
        signers = [{"id": "ines", "key": _public(self.counsel), "may": ["specific_licence", "general_licence"]}]
        _write(self.folder / "licence-signers.yaml", yaml.safe_dump({"signers": signers}))
        _write(self.folder / "authorizations.jsonl", "")
        _write(self.folder / "attestations.jsonl", "")

    def grant(self, name: str, person: str, now: float) -> float:
        """An exception for somebody in an incident, by both approvers; when it ends, in unix seconds."""
        begins, ends = _window(now, GRANT_SECONDS)
        payload = {
            "id": name,
            "person": person,
            "scope": {"services": [SERVICE], "categories": categories(), "subjects": "us"},
            "justification": "incident_response",
            "ticket": "SEC-42",
            "not_before": begins.strftime(staff.STAMP),
            "expires": ends.strftime(staff.STAMP),
            "requested_by": "uma",
        }
        signed: bytes | None = None
        for approver, key in self.approvers.items():
            signed = sign_grant(payload, key, approver, signed)
        _write(self.folder / "grants" / f"{name}.json", (signed or b"").decode())
        return ends.timestamp()

    def license(self, group: str, now: float) -> None:
        """A specific licence for a counterparty group, signed by counsel (28 CFR 202 subpart H)."""
        begins, ends = _window(now, LICENCE_SECONDS)
        payload = {
            "id": "AU-1",
            "kind": "specific_licence",
            "paragraph": "DSP-2026-0001",
            "persons": [],
            "groups": [group],
            "services": [SERVICE],
            "categories": categories(),
            "purposes": ["user_support"],
            "owner": "owen",
            "not_before": begins.strftime(staff.STAMP),
            "expires": ends.strftime(staff.STAMP),
        }
        signed = jws.sign(payload, self.counsel, "ines", TYPE)
        _write(self.folder / "authorizations.jsonl", signed.decode() + "\n")


def datasets(database: Path, file: Path) -> None:
    """What a grant on profiles reaches (28 CFR 202.201): everybody who is, or may be, in the United States."""
    with sqlite3.connect(database) as connection:
        (reached,) = connection.execute("SELECT count(*) FROM users WHERE country IN ('US', 'PR', 'ZZ')").fetchone()
    connection.close()
    counted = ("personal_financial", "covered_personal_identifiers", "combined")
    row = {"id": "profiles", "service": SERVICE, "population": dict.fromkeys(counted, reached)}
    _write(file, json.dumps(row) + "\n")


def categories() -> list[str]:
    """Every category that the demo's service holds."""
    fields = (field for message in profiles_pb2.DESCRIPTOR.message_types_by_name.values() for field in message.fields)
    data: Any = annotations_pb2.data
    return sorted({str(field.GetOptions().Extensions[data].category) for field in fields} - {""})


def _window(now: float, seconds: float) -> tuple[dt.datetime, dt.datetime]:
    begins = dt.datetime.fromtimestamp(int(now), dt.UTC)
    return begins, begins + dt.timedelta(seconds=seconds)


def _public(key: Ed25519PrivateKey) -> str:
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    return b64encode(key.public_key().public_bytes(*raw)).decode()


def _write(file: Path, text: str) -> None:
    """Whole or not at all: the sidecar reads these while it runs."""
    unfinished = file.with_name(f".{file.name}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.rename(file)
