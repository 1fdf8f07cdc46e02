"""The demo's personnel, as its HR system would export them."""

import json
from pathlib import Path

STAMP = "%Y-%m-%dT%H:%M:%SZ"
LATER = "2031-01-01T00:00:00Z"
EARLIER = "2024-01-01T00:00:00Z"


def _person(name: str, as_of: str, **changes: object) -> dict[str, object]:
    person: dict[str, object] = {
        "id": name,
        "us_personnel": True,
        "vetted_until": LATER,
        "status": "active",
        "roles": ["support"],
        "training": [{"id": "data_protection", "until": LATER}],
        "location": {"country": "US", "source": "badge", "as_of": as_of},
        "legal_status": "us_citizen",
        "primary_residence": "US",
        "citizenships": ["US"],
        "engagement": {
            "type": "employment", "counterparty": "platform-us", "group": "platform", "agreement_ref": "HR-1",
            "from": EARLIER, "until": LATER,
        },
        "as_of": as_of,
    }  # fmt: skip
    return person | changes


def people(as_of: str, *, without: str | None = None) -> list[dict[str, object]]:
    """Everybody, or everybody but one who has left."""
    abroad = {
        "us_personnel": False,
        "location": {"country": "IE", "source": "badge", "as_of": as_of},
        "legal_status": "foreign",
        "primary_residence": "IE",
        "citizenships": ["IE"],
    }
    staff = [
        _person("amy", as_of),
        _person("uma", as_of, roles=["support", "trust_and_safety"]),
        _person("niall", as_of, **abroad),
        _person("vic", as_of, vetted_until="2025-01-01T00:00:00Z"),
        _person("lou", as_of),
        _person("ed", as_of, roles=["security"], **abroad),
        _person("mei", as_of, engagement=_VENDOR),
    ]
    return [person for person in staff if person["id"] != without]


_VENDOR = {
    "type": "vendor", "counterparty": "lotus-sg", "group": "lotus", "agreement_ref": "V-9",
    "from": EARLIER, "until": LATER,
}  # fmt: skip
"""Mei is a US citizen who works in Columbus for a vendor in Singapore, half of which a Chinese company owns."""


def _entity(name: str, country: str, owners: list[dict[str, object]]) -> dict[str, object]:
    return {
        "id": name, "organised_under": [country], "principal_place": country, "government_of": None,
        "designated": False, "owners": owners,
    }  # fmt: skip


ENTITIES = [
    _entity("platform-us", "US", []),
    _entity("lotus-cn", "CN", []),
    _entity("lotus-sg", "SG", [{"id": "lotus-cn", "share": 50}, {"id": "platform-us", "share": 10}]),
]


def write(folder: Path, as_of: str, *, without: str | None = None) -> tuple[Path, Path]:
    """people.jsonl and entities.jsonl in the folder."""
    files = folder / "people.jsonl", folder / "entities.jsonl"
    both: tuple[list[dict[str, object]], ...] = (people(as_of, without=without), ENTITIES)
    for file, rows in zip(files, both, strict=True):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return files
