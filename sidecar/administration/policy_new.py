"""Start a policy for a guarded service: a rule, its test, its table and a table of cases, which say no until filled in.

The categories are those that the service's own methods reach, from its descriptors. Nothing that exists is changed: the
lists in `data/services` stay as they are, on which an unlisted service refuses mixed answers and unclassified fields.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from sidecar.administration.policy_starter import RULE, TEST, filled
from sidecar.attributes.report import Row
from sidecar.attributes.resource import Describer, MethodDescription
from sidecar.errors import ConfigurationError

_READING: Final = ("read", "list", "search")
_HARMLESS: Final = ("aggregate", "public", "unclassified")
_NEEDED: Final = ("sidecar/decision.rego", "sidecar/facts.rego", "sidecar/fixtures_test.rego")
_RECHECK_SECONDS: Final = 30
_WORD: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What was written (paths below the folder), what the service reaches, and what is left to say about it."""

    service: str
    slug: str
    files: tuple[str, ...]
    methods: int
    categories: tuple[str, ...]
    remarks: tuple[str, ...]


def start(service: str, describer: Describer, folder: Path) -> Started:
    """Write the starter. ConfigurationError, and nothing written, for an unknown service or a name that is taken."""
    rows = [row for row in describer.report().methods if row.method.rpartition("/")[0] == service]
    if not rows:
        known = sorted({row.method.rpartition("/")[0] for row in describer.report().methods})
        raise ConfigurationError(
            "the descriptors have no such service", where=describer.descriptors.where, value=service, fix=f"They have {', '.join(known)}"
        )  # fmt: skip
    lacking = [name for name in _NEEDED if not (folder / name).is_file()]
    if lacking:
        raise ConfigurationError(
            f"{lacking[0]} is missing, and the starter builds on it",
            where=str(folder),
            fix="Copy the shipped policies/ first",
        )
    methods = [one for one in describer if one.action.service == service]
    slug = _slug(service)
    files = _files(service, slug, rows, methods)
    taken = [name for name in files if (folder / name).exists()]
    if taken:
        raise ConfigurationError(
            "is there already, and nothing is overwritten", where=str(folder / taken[0]), fix="Edit it, or move it away"
        )
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with (folder / name).open("x", encoding="utf-8") as file:
            file.write(text)
    return Started(
        service=service, slug=slug, files=tuple(files), methods=len(rows), categories=_sensitive(rows),
        remarks=tuple(_remarks(rows, service)),
    )  # fmt: skip


def _slug(service: str) -> str:
    """`rides.v1.RiderNotes` is `rider_notes`."""
    found = _WORD.sub("_", service.rpartition(".")[2]).lower()
    if not re.fullmatch(r"[a-z][a-z0-9_]*", found):
        raise ConfigurationError("not a full name of a protobuf service", where="NAME", value=service)
    return found


def _sensitive(rows: Sequence[Row]) -> tuple[str, ...]:
    """What reading methods reach and nobody may see unasked."""
    found = {one for row in rows if row.action in _READING for one in row.categories}
    return tuple(sorted(found - set(_HARMLESS)))


def _files(service: str, slug: str, rows: Sequence[Row], methods: Sequence[MethodDescription]) -> dict[str, str]:
    sensitive = _sensitive(rows)
    reading = [row.method.rpartition("/")[2] for row in rows if row.action in _READING]
    method = next(iter(reading), rows[0].method.rpartition("/")[2])
    words = {"service": service, "slug": slug, "category": next(iter(sensitive), "id_contact"), "method": method}
    streams = sorted(one.action.method or "" for one in methods if not one.unary)
    table = {
        "source": f"Operator's choice for {service}: who needs which category, and how long an open stream lives on one decision",
        "service": service,
        "needs": {category: {"roles": [], "purposes": []} for category in sensitive},
        "masks": {},
        "recheck_seconds": dict.fromkeys(streams, _RECHECK_SECONDS),
    }
    return {
        f"services/{slug}.rego": filled(RULE, **words),
        f"services/{slug}_test.rego": filled(TEST, **words),
        f"services/{slug}_cases.yaml": _cases(service, rows),
        f"data/{slug}/data.json": json.dumps(table, indent=2) + "\n",
    }


def _cases(service: str, rows: Sequence[Row]) -> str:
    """Two cases for each described method that reads: somebody abroad is refused, nobody known is refused."""
    cases: list[dict[str, object]] = []
    for row in (one for one in rows if one.status == "guarded" and one.action in _READING):
        method = row.method.rpartition("/")[2]
        over = {"action.method": method, "action.name": row.action, "resource.categories": list(row.categories),
                "resource.classes": list(row.classes)}  # fmt: skip
        cases.append({"name": f"{method}: nobody in particular", "base": "unknown", "set": over,
                      "expect": {"effect": "deny"}})  # fmt: skip
        cases.append({"name": f"{method}: staff abroad, a US user's data", "base": "abroad", "set": over,
                      "expect": {"effect": "deny"}})  # fmt: skip
    unknown = {"action": {"service": service}, "resource": {"subjects": {"us": 1}}}
    abroad = {**unknown, "subject": {"kind": "personnel", "person": {"id": "bao", "us_personnel": False,
              "location": {"country": "SG"}}}}  # fmt: skip
    cases = cases or [{"name": "nobody in particular", "base": "unknown", "expect": {"effect": "deny"}}]
    head = f"# Calls of {service}, and what the policy should say. Run by `sidecar policy test`.\n"
    tree = {"bases": {"unknown": unknown, "abroad": abroad}, "cases": cases}
    return head + yaml.dump(tree, Dumper=_Plain, sort_keys=False, width=110, default_flow_style=None)


class _Plain(yaml.SafeDumper):
    """Writes a value that stands in two places twice."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the name is PyYAML's
        return True


def _remarks(rows: Sequence[Row], service: str) -> list[str]:
    remarks = [
        f"{row.method} is not described: every call of it is refused" for row in rows if row.status == "undescribed"
    ]
    loose = [row.method for row in rows if "unclassified" in row.categories]
    if loose:
        remarks.append(
            f"{', '.join(loose)}: a field without a category is refused; annotate it, or add {service} to "
            "redact_unclassified in data/services/data.json"
        )
    if not any(row.action in _READING for row in rows):
        remarks.append("no method reads: the starter has nothing to withhold, the operator's rules judge every call")
    return remarks
