"""`native/capabilities.json`: what the embedded engine accepts, in OPA's own words for it.

The names are the loader's list; the declarations are those of the pinned OPA. `opa check --capabilities` with this
file refuses, outside of the sidecar, what the sidecar would refuse.
"""

import json
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Any

FILE = Path("native/capabilities.json")
# Not template strings, and nothing of Rego version 2.
_FEATURES = ("keywords_in_refs", "rego_v1", "rego_v1_import")


def reference(program: Path) -> dict[str, Any]:
    """What OPA itself can do."""
    answer = subprocess.run([program, "capabilities", "--current"], capture_output=True, check=True, timeout=60)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def capabilities(program: Path, accepted: Collection[str]) -> str:
    """The file's text for these names of built-ins; AssertionError for one that OPA does not know."""
    known = reference(program)
    builtins = [
        {key: one[key] for key in ("name", "decl", "infix", "nondeterministic", "deprecated") if key in one}
        for one in known["builtins"]
        if one["name"] in accepted
    ]
    assert {one["name"] for one in builtins} == set(accepted)
    features = [feature for feature in known["features"] if feature in _FEATURES]
    lines = ",\n".join("    " + json.dumps(one, sort_keys=True, ensure_ascii=False) for one in builtins)
    return f'{{\n  "builtins": [\n{lines}\n  ],\n  "features": {json.dumps(features)}\n}}\n'
