"""`sidecar policy build|sign|verify`: bundles as files; `activate|rollback|status`: the policy of a running sidecar."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sidecar.cli.console import FINDING, fail, out, plain
from sidecar.errors import ConfigurationError

if TYPE_CHECKING:
    from sidecar.decision.bundle import Bundle
    from sidecar.decision.signers import PrivateKey

ACTIVATION_SECONDS = 120.0
"""How long a running sidecar may take to read, test and put in force a policy before this side gives up asking."""
_DIGITS = 19

Config = Annotated[Path, typer.Option("--config", help="Settings file of the sidecar.", metavar="FILE")]
Source = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle folder, or a .tar.gz.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def build(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The bundle folder.")],
    target: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The .tar.gz to write.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Check a bundle folder's form and write it as one file, in OPA's format. It is not tested: `sidecar policy test`.

    The same files give the same bytes. The manifest's revision becomes their digest, the policy revision in every record.
    """
    from sidecar.decision import archive
    from sidecar.main.sources import load

    content = archive.write_archive(archive.built(load(folder)))
    # Read again: what is written is what a sidecar would accept.
    bundle = archive.load_archive(content, str(target))
    _replace(target, content)
    _tell(_described(bundle, target) | {"bytes": len(content)}, as_json=as_json)


def sign(
    bundle: Source,
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="Your private key (PEM): Ed25519, EC or RSA.")],
    name: Annotated[str, typer.Option("--as", metavar="ID", help="Your id in the signers' file.")],
    *,
    scope: Annotated[str, typer.Option(help="The scope that the signers' file asks for, if it does.")] = "",
    as_json: AsJson = False,
) -> None:
    """Add your signature to a bundle, in OPA's format. Others may add theirs after you; the bundle's content stays."""
    from dataclasses import replace

    from sidecar.decision import archive, signatures
    from sidecar.decision.bundle import SIGNATURES
    from sidecar.main.sources import load

    found = load(bundle)
    signed = signatures.sign(found, _private(key), name, scope=scope, now=_now(), where=str(bundle))
    if bundle.is_dir():
        _replace(bundle / SIGNATURES, signed)
    else:
        _replace(bundle, archive.write_archive(archive.exact(replace(found, signatures=signed))))
    _tell(_described(found, bundle) | {"signed_by": name}, as_json=as_json)


def verify(
    bundle: Source,
    keys: Annotated[Path, typer.Option("--keys", metavar="FILE", help="The signers' file, as policy.keys.file.")],
    *,
    require: Annotated[int, typer.Option(help="How many signers it takes.", min=1, max=16)] = 1,
    as_json: AsJson = False,
) -> None:
    """Check a bundle's signatures as a sidecar would. Exits 1 when too few of them count, and says why."""
    from sidecar.decision import signatures
    from sidecar.main.policy_signers import read_signers
    from sidecar.main.sources import load

    found, signers = load(bundle), read_signers(keys)
    try:
        counted = signatures.verify(found, signers, require=require, now=_now(), where=str(bundle))
    except ConfigurationError as error:
        fail(str(error), FINDING)
    _tell(_described(found, bundle) | {"signers": list(counted)}, as_json=as_json)


def activate(
    config: Config,
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="A folder or .tar.gz that the sidecar can read.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Have a running sidecar look at its policy's source now, and put in force what is there.

    With BUNDLE, that one is put in force instead, and stays until the source holds another than it does now, or
    `sidecar policy activate` is said again. It needs the same signatures and passes the same tests as the source's.
    """
    _changed(config, ["policy.activate", *([str(bundle.absolute())] if bundle is not None else [])], as_json=as_json)


def rollback(
    config: Config,
    *,
    to: Annotated[
        str | None, typer.Option("--to", metavar="REVISION", help="Not the one before, but this one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Have a running sidecar go back to the policy before. `sidecar policy status` lists those it keeps.

    It stays, also over a restart, until the source holds another bundle than it does now, or `sidecar policy activate` is
    said.
    """
    _changed(config, ["policy.rollback", *([to] if to is not None else [])], as_json=as_json)


def status(config: Config, *, as_json: AsJson = False) -> None:
    """Say which policy a running sidecar has in force, what its source holds, and what one can go back to."""
    found = _asked(config, ["policy.status"], 5.0)
    if as_json:
        out().print(json.dumps(found), markup=False)
        return
    for line in _status_lines(found):
        out().print(plain(line))


def _changed(config: Path, words: list[str], *, as_json: bool) -> None:
    found = dict(_asked(config, words, ACTIVATION_SECONDS))
    if not as_json and not found.pop("changed"):
        out().print(plain("already in force"))
    _tell(found, as_json=as_json)


def _asked(config: Path, words: list[str], seconds: float) -> Mapping[str, object]:
    from sidecar.cli.running import asked
    from sidecar.settings.loader import load
    from sidecar.settings.sidecar import SidecarSettings

    found = asked(load(config, SidecarSettings), *words, seconds=seconds)
    if "error" in found:
        fail(f"refused: {found['error']}", FINDING)
    return found


def _tell(found: Mapping[str, object], *, as_json: bool) -> None:
    if as_json:
        out().print(json.dumps(found), markup=False)
        return
    for key, value in found.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else "yes" if value is True else value
        if shown not in ("", None, False):
            out().print(plain(f"{key.replace('_', ' '):16} {shown}"))


def _described(bundle: "Bundle", where: Path) -> dict[str, object]:
    return {
        "bundle": str(where),
        "revision": bundle.revision,
        "label": bundle.label,
        "policies": len(bundle.modules),
        "tests": len(bundle.tests),
    }


def _status_lines(found: Mapping[str, object]) -> list[str]:
    held, source, pin = _part(found, "in_force"), _part(found, "source"), found.get("pinned")
    age = f"seen at its source {held['age_seconds']} s ago; calls are refused after {held['max_age_seconds']} s"
    lines = [
        f"in force         {held['revision']}  {held['label']}",
        f"                 since {held['since']} by {held['by']}, from {held['source']}",
        f"                 {held['tests']} tests passed, engine {held['engine']}, {_signed(held)}",
        f"                 {age}",
        f"source           {source['kind']} {source['where']}: {_HOLDS[str(source['holds'])]}",
    ]
    if source["holds"] in ("refused", "pinned over"):
        lines.append(f"                 {source['revision']}  {source['label']}")
    if isinstance(pin, Mapping):
        lines.append(f"pinned           since {pin['since']} by {pin['by']}, until the source holds another bundle")
    if found.get("problem"):
        lines.append(f"problem          {found['problem']}")
    history = found.get("history")
    for one in history if isinstance(history, list) else ():
        mark = "*" if one["in_force"] else " "
        lines.append(
            f"kept           {mark} {str(one['revision'])[:_DIGITS]}  {one['since']}  {one['by']}  {_signed(one)}  {one['label']}"
        )
    return lines


_HOLDS = {
    "in force": "holds what is in force",
    "pinned over": "holds another, which the pin keeps out of force",
    "refused": "holds a bundle that is refused",
    "unreadable": "cannot be read",
}


def _part(found: Mapping[str, object], key: str) -> Mapping[str, object]:
    part = found.get(key)
    return part if isinstance(part, Mapping) else {}


def _signed(said: Mapping[str, object]) -> str:
    signers = said["signers"]
    return (
        f"signed by {', '.join(map(str, signers))}"
        if isinstance(signers, list) and signers
        else "no signature asked for"
    )


def _private(file: Path) -> "PrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    from sidecar.decision.signers import PrivateKey

    try:
        key = load_pem_private_key(file.read_bytes(), None)
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", where=str(file), fix="Give --key FILE.") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(
            "holds no PEM key without a password", where=str(file), fix="Make one with `sidecar keys new FILE`."
        ) from None
    if not isinstance(key, PrivateKey):
        raise ConfigurationError("this kind of key does not sign", where=str(file), fix="Use Ed25519, EC or RSA.")
    return key


def _replace(path: Path, content: bytes) -> None:
    """In one step: who looks sees the old file or the new one."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(content)
    beside.replace(path)


def _now() -> float:
    return time.time()  # noqa: TID251 - an edge
