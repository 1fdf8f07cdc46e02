"""`.manifest`: what a bundle says of itself, and which paths it may define (openpolicyagent.org, "Bundle file format").

The manifest may carry the bundle's revision, which is a digest of the bundle: so it counts in that digest without its
`revision`, and without `metadata.label`, which is where a human's word for the bundle goes when the digest takes its
place. White space and the order of keys do not count.
"""

import re
from typing import Final

import msgspec

from sidecar.decision.strict_json import JsonObject, parse_object
from sidecar.errors import ConfigurationError

DIGEST: Final = "sha256:"
MAX_LABEL: Final = 200
_PACKAGE: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*\n)*+package[ \t]+([A-Za-z_][A-Za-z0-9_.]*)")
"""The first statement of a module; what stands before it is white space and comments. A later line may be in a string."""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As OPA's. `rego_version` 1 is the only one; `wasm` and `file_rego_versions` are not accepted.

    `roots` have no slash at either end. `revision` is either a digest, which must be the bundle's, or a human's word.
    """

    roots: tuple[str, ...]
    revision: str = ""
    rego_version: int = 1
    metadata: dict[str, object] = {}

    @property
    def label(self) -> str:
        """The human's word for the bundle; empty without one."""
        if not self.revision.startswith(DIGEST):
            return self.revision
        said = self.metadata.get("label", "")
        return said if isinstance(said, str) else ""


def read(where: str, content: bytes | None) -> Manifest:
    """The manifest. ConfigurationError when it is missing or says what cannot be."""
    if content is None:
        raise ConfigurationError(
            "the bundle has no manifest", where=where, fix='Add {"revision": "…", "roots": ["sidecar", "data"]}'
        )
    try:
        manifest = msgspec.convert(parse_object(where, content), Manifest)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            f"not a manifest: {error}", where=where, fix="Keys are revision, roots, rego_version and metadata"
        ) from None
    if manifest.rego_version != 1:
        raise ConfigurationError("not Rego version 1", where=where, value=manifest.rego_version, fix="Write 1")
    roots = [root.strip("/") for root in manifest.roots]
    if not roots or any(a != b and _under(a, (b,)) for a in roots for b in roots) or len(set(roots)) != len(roots):
        raise ConfigurationError(
            "the roots are missing or overlap", where=where, value=list(manifest.roots),
            fix='Name each once, such as ["sidecar", "data"]',
        )  # fmt: skip
    if len(manifest.label) > MAX_LABEL or not manifest.label.isprintable():
        raise ConfigurationError(
            f"the label is not one printable line of at most {MAX_LABEL} characters", where=where,
            fix="Shorten `revision`, or `metadata.label`",
        )  # fmt: skip
    return msgspec.structs.replace(manifest, roots=tuple(roots))


def neutral(where: str, content: bytes) -> bytes:
    """The manifest as it counts in the revision. ConfigurationError when it is no JSON object."""
    tree = parse_object(where, content)
    tree.pop("revision", None)
    _unlabelled(tree)
    return msgspec.json.encode(tree, order="sorted")


def stamped(where: str, content: bytes, revision: str) -> bytes:
    """The manifest with the bundle's digest as its revision; the human's word moves to `metadata.label`."""
    label = read(where, content).label
    tree = parse_object(where, content)
    tree["revision"] = revision
    _unlabelled(tree)
    if label:
        metadata = tree.setdefault("metadata", {})
        if isinstance(metadata, dict):
            metadata["label"] = label
    return msgspec.json.format(msgspec.json.encode(tree, order="sorted"), indent=2) + b"\n"


def _unlabelled(tree: JsonObject) -> None:
    metadata = tree.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop("label", None)
        if not metadata:
            del tree["metadata"]


def check_package(where: str, source: str, roots: tuple[str, ...]) -> None:
    """ConfigurationError for a module without package, or with one that the roots do not hold."""
    found = _PACKAGE.match(source)
    if found is None:
        raise ConfigurationError("no package", where=where, fix="Begin the file with `package sidecar.…`")
    if not _under(found[1].replace(".", "/"), roots):
        raise ConfigurationError(
            "the package is outside of the manifest's roots", where=where, value=found[1],
            fix=f"Move it under {', '.join(roots)}, or add a root",
        )  # fmt: skip


def check_data_path(where: str, path: list[str], found: JsonObject, roots: tuple[str, ...]) -> None:
    """ConfigurationError for data at a path that the roots do not hold. `path` is the folder of the data file."""
    if path and _under("/".join(path), roots):
        return
    for key, value in found.items():
        full = [*path, key]
        name = "/".join(full)
        if _under(name, roots):
            continue
        # One data.json at the top, as `opa build` writes it, begins above the roots.
        if isinstance(value, dict) and any(root.startswith(f"{name}/") for root in roots):
            check_data_path(where, full, value, roots)
        else:
            raise ConfigurationError(
                "data outside of the manifest's roots", where=where, value=name,
                fix=f"Move it under {', '.join(roots)}, or add a root",
            )  # fmt: skip


def _under(path: str, roots: tuple[str, ...]) -> bool:
    return any(not root or path == root or path.startswith(f"{root}/") for root in roots)
