"""What `opa check --strict` finds in a bundle, where an `opa` is at hand: a second opinion, never the only one."""

import json
import subprocess
from pathlib import Path
from typing import Final

from sidecar.administration.policy_check import Finding
from sidecar.errors import ConfigurationError

_SECONDS: Final = 60.0


def strict(opa: Path, bundle: Path) -> tuple[Finding, ...]:
    """Run `opa check --strict` on a folder or a .tar.gz. ConfigurationError when the program does not do its work."""
    command = [str(opa), "check", "--strict", "--bundle", str(bundle), "--format", "json"]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603 - the user named it
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"opa cannot be run: {error}", where=str(opa), fix="Correct --opa") from None
    if ran.returncode == 0:
        return ()
    try:
        errors = json.loads(ran.stderr or ran.stdout)["errors"]
        return tuple(_finding(one, bundle) for one in errors)
    except (ValueError, KeyError, TypeError):
        said = (ran.stderr or ran.stdout).strip().splitlines() or ["nothing"]
        raise ConfigurationError(
            f"opa gave no list of errors, but: {said[0]}", where=str(opa), fix="Use OPA 1.22.2, or leave --opa out"
        ) from None


def _finding(error: dict[str, object], bundle: Path) -> Finding:
    place = error.get("location")
    at: dict[str, object] = place if isinstance(place, dict) else {}
    file = Path(str(at.get("file", "")))
    inside = next((file.relative_to(top) for top in (bundle, bundle.resolve()) if file.is_relative_to(top)), file)
    row, col = at.get("row"), at.get("col")
    return Finding(
        file=str(inside).lstrip("/"), row=row if isinstance(row, int) else 0, col=col if isinstance(col, int) else 0, level="warning",
        code="opa_strict", message=f"opa: {error.get('message', '')}", fix="`opa check --strict` says the same",
    )  # fmt: skip
