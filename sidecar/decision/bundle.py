"""A policy bundle as read, before any of it has run: which files belong to one, and what its revision is.

The format is OPA's (openpolicyagent.org, "Bundle file format"): `.manifest`, `*.rego`, and `data.json` files whose folder
is their path under `data`; to it `schemas/corpus.json`, the documents that activation tries (`guard`). What stands beside
them is not read, and counts in nothing. `folder` and `archive` find the files, `assemble` makes the bundle of them.
"""

import hashlib
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from sidecar.decision import manifest as manifests
from sidecar.decision.strict_json import JsonObject, decoded, merge, parse_object
from sidecar.errors import ConfigurationError
from sidecar.vocabulary import AccessRequest

ENTRYPOINT: Final = "data.sidecar.decision"
"""What is asked: the only rule whose value is a decision."""
MANIFEST: Final = ".manifest"
SIGNATURES: Final = ".signatures.json"
CORPUS: Final = "schemas/corpus.json"
MAX_MANIFEST_BYTES: Final = 256 << 10
MAX_SIGNATURES_BYTES: Final = 16 << 20
MAX_MODULE_BYTES: Final = 1 << 20
MAX_DATA_BYTES: Final = 64 << 20
MAX_TOTAL_BYTES: Final = 96 << 20
MAX_VALUES: Final = 1 << 20
"""Of all data files together. A value in memory takes up to a hundred bytes, however few it takes in a file."""
MAX_FILES: Final = 4096
MAX_DEPTH: Final = 16
MAX_DOCUMENTS: Final = 64
_FOREIGN: Final = {
    "data.yaml": ("data is read as JSON only", "Rewrite it as data.json"),
    "data.yml": ("data is read as JSON only", "Rewrite it as data.json"),
    "patch.json": ("a delta bundle is not accepted", "Send the whole bundle: deltas carry no signature"),
    "plan.json": ("a plan is not accepted", "Build the bundle with --target rego"),
    "plan.pb": ("a plan is not accepted", "Build the bundle with --target rego"),
    ".manifest.pb": ("a binary manifest is not accepted", "Write .manifest as JSON"),
}
"""Files that change what OPA answers from a bundle, and that are not read here: by name, what and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle as read.

    `revision` is "sha256:" and a digest of its files (`digest`), so that two bundles with the same revision decide the
    same. `label` is the manifest's own word for it. `modules` and `tests` are (path, source) in path order; `data` is one
    JSON object; `corpus` is what activation tries. `files` are the exact files in path order, without `signatures`, the
    exact `.signatures.json` (empty without one). `signers` are the ids whose signatures were found to hold.
    """

    revision: str
    label: str
    modules: tuple[tuple[str, str], ...]
    tests: tuple[tuple[str, str], ...]
    data: bytes
    corpus: tuple[AccessRequest, ...]
    files: tuple[tuple[str, bytes], ...]
    signatures: bytes = b""
    signers: tuple[str, ...] = ()


def belongs(name: str) -> bool:
    """Whether a file of this path within the bundle is read. Not so `.signatures.json`, which is about the bundle."""
    return name in (MANIFEST, CORPUS) or posixpath.basename(name) == "data.json" or name.endswith(".rego")


def refuse_foreign(where: str, name: str) -> None:
    """ConfigurationError for a file that means something to OPA which it would not mean here."""
    last = posixpath.basename(name)
    what, fix = _FOREIGN.get(last, ("", ""))
    if last.endswith(".wasm"):
        what, fix = "compiled policies are not accepted", "Build the bundle with --target rego"
    elif name not in (MANIFEST, SIGNATURES) and last in (MANIFEST, SIGNATURES):
        what, fix = f"a second {last} below the top", "Keep the one at the top"
    if what:
        raise ConfigurationError(what, where=where, value=name, fix=fix)


def limit(name: str) -> int:
    """How many bytes a file of this path may have."""
    if name == SIGNATURES:
        return MAX_SIGNATURES_BYTES
    if name == MANIFEST:
        return MAX_MANIFEST_BYTES
    return MAX_MODULE_BYTES if name.endswith(".rego") else MAX_DATA_BYTES


def digest(where: str, files: Iterable[tuple[str, bytes]]) -> str:
    """The revision of these files: "sha256:" and the digest of their list, in `sha256sum` format, sorted by path.

    `.manifest` counts as `manifest.neutral` has it. ConfigurationError when that is no JSON object.
    """
    lines = []
    for name, content in sorted(files):
        counted = manifests.neutral(f"{where}/{name}", content) if name == MANIFEST else content
        lines.append(f"{hashlib.sha256(counted).hexdigest()}  {name}\n")
    return manifests.DIGEST + hashlib.sha256("".join(lines).encode()).hexdigest()


def assemble(where: str, files: Mapping[str, bytes]) -> Bundle:
    """The bundle that these files are, `.signatures.json` among them if there is one; `where` names it in errors.

    Raises ConfigurationError naming file, finding and fix: a missing or wrong manifest, a revision that is not that of
    the files, a package or data path outside of the manifest's roots, two files for one data path, numbers that are no
    integers.
    """
    own = {name: content for name, content in files.items() if name != SIGNATURES}
    _check_values(where, own)
    manifest = manifests.read(f"{where}/{MANIFEST}", own.get(MANIFEST))
    revision = digest(where, own.items())
    if manifest.revision.startswith(manifests.DIGEST) and manifest.revision != revision:
        raise ConfigurationError(
            "the files are not those of the revision that the manifest names", where=f"{where}/{MANIFEST}",
            value=manifest.revision, fix="Build the bundle anew; after a change by hand, take `revision` away",
        )  # fmt: skip
    modules: list[tuple[str, str]] = []
    tests: list[tuple[str, str]] = []
    data: JsonObject = {}
    for name, content in sorted(own.items()):
        at = f"{where}/{name}"
        if name.endswith(".rego"):
            source = decoded(at, content)
            manifests.check_package(at, source, manifest.roots)
            (tests if name.endswith("_test.rego") else modules).append((name, source))
        elif posixpath.basename(name) == "data.json":
            _add_data(at, name.split("/")[:-1], content, data, manifest.roots)
    if not modules:
        raise ConfigurationError("no policy in the bundle", where=where, fix="Add .rego files under its roots")
    return Bundle(
        revision=revision, label=manifest.label, modules=tuple(modules), tests=tuple(tests),
        data=msgspec.json.encode(data), corpus=_corpus(f"{where}/{CORPUS}", own.get(CORPUS)),
        files=tuple(sorted(own.items())), signatures=files.get(SIGNATURES, b""),
    )  # fmt: skip


def _check_values(where: str, files: Mapping[str, bytes]) -> None:
    """Before anything is parsed, and before anybody's signature is: a small archive may hold very many small values."""
    data = [content for name, content in files.items() if posixpath.basename(name) == "data.json"]
    if sum(content.count(sign) for content in data for sign in (b",", b"[", b"{")) > MAX_VALUES:
        raise ConfigurationError(
            f"more than {MAX_VALUES} values (commas and opening brackets) in the data", where=where,
            fix="Keep people and ids out of policy data: the directory and the subject index hold them",
        )  # fmt: skip


def _add_data(at: str, path: list[str], content: bytes, data: JsonObject, roots: tuple[str, ...]) -> None:
    found = parse_object(at, content)
    manifests.check_data_path(at, path, found, roots)
    for part in reversed(path):
        found = {part: found}
    merge(at, data, found)


def _corpus(where: str, content: bytes | None) -> tuple[AccessRequest, ...]:
    if content is None:
        return ()
    try:
        documents = msgspec.json.decode(content, type=tuple[AccessRequest, ...])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"not a list of input documents: {error}", where=where, fix="See schemas/input.json; leaves may be left out"
        ) from None
    if len(documents) > MAX_DOCUMENTS:
        raise ConfigurationError(
            f"more than {MAX_DOCUMENTS} documents", where=where, value=len(documents), fix="Keep those that differ"
        )
    return documents
