"""Policy bundles on disk: read, check, test, and only then answer from one.

A bundle folder has OPA's layout (openpolicyagent.org, "Bundle file format"): `.manifest`, `*.rego`, and `data.json`
files whose folder is their path under `data`. What stands beside them is not read, except `schemas/corpus.json`, the
documents that activation tries (`guard`). Nothing here reaches a network, and nothing in a bundle names a file
outside of it.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from sidecar.decision import _engine
from sidecar.decision.embedded import EmbeddedEngine
from sidecar.decision.guard import check_null_leaves, nullable_leaves
from sidecar.decision.strict_json import JsonObject, merge, parse_object
from sidecar.errors import ConfigurationError
from sidecar.vocabulary import AccessRequest

ENTRYPOINT: Final = "data.sidecar.decision"
CORPUS: Final = "schemas/corpus.json"
MAX_MODULE_BYTES: Final = 1 << 20
MAX_DATA_BYTES: Final = 64 << 20
MAX_TOTAL_BYTES: Final = 96 << 20
MAX_FILES: Final = 4096
MAX_DEPTH: Final = 16
MAX_DOCUMENTS: Final = 64
_TEST_SECONDS: Final = 10.0
_SHOWN: Final = 10
_PACKAGE: Final = re.compile(r"^package[ \t]+([A-Za-z_][A-Za-z0-9_.]*)", re.MULTILINE)
_SNAPSHOT: Final = "..data"
"""Where Kubernetes keeps the files of a mounted ConfigMap or Secret; it is swapped as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle as read, before any of it has run.

    `revision` is "sha256:" and the digest of the list of its files (`sha256sum` format, sorted by path), so that two
    folders with the same revision decide the same. `label` is the manifest's own word for it. `modules` and `tests`
    are (path, source) in path order; `data` is one JSON object; `corpus` is what activation tries.
    """

    revision: str
    label: str
    modules: tuple[tuple[str, str], ...]
    tests: tuple[tuple[str, str], ...]
    data: bytes
    corpus: tuple[AccessRequest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Activated:
    """A bundle that has loaded, passed its own tests and kept its denials without knowledge."""

    engine: EmbeddedEngine
    bundle: Bundle
    tests_passed: int
    documents_tried: int

    @property
    def revision(self) -> str:
        """The policy revision that stands in every record."""
        return self.bundle.revision


class _Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`.manifest`. `rego_version` 1 is the only one; `wasm` and `file_rego_versions` are not accepted."""

    roots: tuple[str, ...]
    revision: str = ""
    rego_version: int = 1
    metadata: dict[str, object] = {}


Mark = tuple[tuple[str, int, int, int, int, int], ...]
"""A folder seen from outside: name, device, inode, size and times of change of each file of the bundle."""


def mark(folder: Path) -> Mark:
    """What the folder's files look like now; nothing is read. ConfigurationError where `load_folder` would raise it.

    Equal marks mean equal content, but for files that were written twice within one tick of the file system's clock:
    `revision` reads them.
    """
    root = _snapshot(folder)
    return tuple(_stamp(root, path) for path in _walk(root, root, 0))


def revision(folder: Path) -> str:
    """The revision of what the folder holds now; the files are read, not understood. ConfigurationError as `mark`."""
    return _digest(dict(_read(_snapshot(folder))))


def load_folder(folder: Path) -> Bundle:
    """Read a bundle folder.

    Raises ConfigurationError naming file, finding and fix: a missing or wrong manifest, a package or data path outside
    of the manifest's roots, two files for one data path, numbers that are no integers, links that leave the folder,
    files beyond the limits.
    """
    files = dict(_read(_snapshot(folder)))
    manifest = _manifest(folder, files)
    modules: list[tuple[str, str]] = []
    tests: list[tuple[str, str]] = []
    data: JsonObject = {}
    for name, content in sorted(files.items()):
        where = f"{folder}/{name}"
        if name.endswith(".rego"):
            source = _text(where, content)
            _check_package(where, source, manifest.roots)
            (tests if name.endswith("_test.rego") else modules).append((name, source))
        elif Path(name).name == "data.json":
            path = name.split("/")[:-1]
            found = parse_object(where, content)
            _check_data_path(where, path, found, manifest.roots)
            for part in reversed(path):
                found = {part: found}
            merge(where, data, found)
    if not modules:
        raise ConfigurationError("no policy in the bundle", where=str(folder), fix="Add .rego files under its roots")
    return Bundle(
        revision=_digest(files), label=manifest.revision, modules=tuple(modules), tests=tuple(tests),
        data=msgspec.json.encode(data), corpus=_corpus(f"{folder}/{CORPUS}", files.get(CORPUS)),
    )  # fmt: skip


def activate(folder: Path, *, deadline_seconds: float = 0.05) -> Activated:
    """Load, compile, run the bundle's own tests, and try it with leaves unknown; only then may it answer.

    Raises ConfigurationError naming what does not load, which tests fail, or which unknown leaf would turn a deny into
    a permit. The caller keeps the bundle it has.
    """
    return activate_loaded(load_folder(folder), folder, deadline_seconds=deadline_seconds)


def resume(
    bundle: Bundle, folder: Path, tests_passed: int, documents_tried: int, *, deadline_seconds: float
) -> Activated:
    """Compile a bundle of which the caller has proof that exactly this code has activated exactly these files before."""
    engine = _compile(folder, bundle.modules, bundle.data, deadline_seconds, nullable_leaves())
    return Activated(
        engine=EmbeddedEngine(engine), bundle=bundle, tests_passed=tests_passed, documents_tried=documents_tried
    )


def activate_loaded(bundle: Bundle, folder: Path, *, deadline_seconds: float) -> Activated:
    """As `activate`, for a bundle that was read from `folder`."""
    if not bundle.tests:
        raise ConfigurationError(
            "the bundle has no tests", where=str(folder), fix="Add a file ending in _test.rego beside each policy"
        )
    leaves = nullable_leaves()
    tested = _compile(folder, bundle.modules + bundle.tests, bundle.data, _TEST_SECONDS, leaves)
    passed = _run_tests(folder, tested)
    # From here on without the tests: each module costs time in every decision. The trial has a deadline of its own,
    # so that a busy machine is not taken for a refusal.
    trial = _compile(folder, bundle.modules, bundle.data, _TEST_SECONDS, leaves)
    tried = check_null_leaves(trial.evaluate_json, bundle.corpus, where=str(folder))
    engine = _compile(folder, bundle.modules, bundle.data, deadline_seconds, leaves)
    return Activated(
        engine=EmbeddedEngine(engine), bundle=bundle, tests_passed=passed, documents_tried=tried
    )  # fmt: skip


def _compile(
    folder: Path, modules: tuple[tuple[str, str], ...], data: bytes, deadline: float, leaves: tuple[str, ...]
) -> _engine.Engine:
    try:
        return _engine.Engine(modules, data, ENTRYPOINT, deadline, leaves)
    except _engine.LoadError as error:
        lines = str(error).splitlines()
        more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        raise ConfigurationError(
            "the policies do not load: " + "; ".join(lines[:_SHOWN] + more), where=str(folder),
            fix="Mend the lines named; docs/adr/0003-policy-layout.md says what the engine accepts and why",
        ) from None  # fmt: skip


def _run_tests(folder: Path, engine: _engine.Engine) -> int:
    results = engine.run_tests(deadline_seconds=_TEST_SECONDS)
    failed = [
        f"{package}.{name}" + (f" ({error})" if error else "") for package, name, ok, error, _ in results if not ok
    ]
    if failed:
        more = [f"and {len(failed) - _SHOWN} more"] if len(failed) > _SHOWN else []
        raise ConfigurationError(
            "the bundle's own tests fail: " + ", ".join(failed[:_SHOWN] + more), where=str(folder),
            fix="Run `opa test -b` on the folder and mend policy or test",
        )  # fmt: skip
    if not results:
        raise ConfigurationError(
            "the bundle's test files hold no test", where=str(folder), fix="Name rules test_… in packages …_test"
        )
    return len(results)


def _snapshot(folder: Path) -> Path:
    """The folder to read: of a mounted ConfigMap the one generation that is in force now."""
    try:
        root = folder.resolve(strict=True)
        link = root / _SNAPSHOT
        if not link.is_symlink():
            return root
        inner = link.resolve(strict=True)
    except OSError as error:
        raise ConfigurationError(
            f"the bundle folder cannot be read: {error.strerror}", where=str(folder), fix="Correct policy.bundle.folder"
        ) from None
    if inner.parent != root:
        raise ConfigurationError(
            "..data leads out of the folder", where=str(folder), value=str(inner), fix="Mount the bundle anew"
        )
    return inner


def _stamp(root: Path, path: Path) -> tuple[str, int, int, int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read: {error.strerror}", where=str(path), fix="Let the sidecar's user read the bundle"
        ) from None
    name = path.relative_to(root).as_posix()
    return name, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(root: Path) -> Iterator[tuple[str, bytes]]:
    total = 0
    for count, path in enumerate(_walk(root, root, 0), start=1):
        name = path.relative_to(root).as_posix()
        limit = MAX_MODULE_BYTES if name.endswith(".rego") else MAX_DATA_BYTES
        content = _content(path, limit)
        total += len(content)
        if total > MAX_TOTAL_BYTES or count > MAX_FILES:
            raise ConfigurationError(
                f"the bundle is larger than {MAX_TOTAL_BYTES} bytes or {MAX_FILES} files", where=str(root),
                fix="Keep people and ids out of policy data: the directory and the subject index hold them",
            )  # fmt: skip
        yield name, content


def _walk(root: Path, folder: Path, depth: int) -> Iterator[Path]:
    if depth > MAX_DEPTH:
        raise ConfigurationError(f"folders nested deeper than {MAX_DEPTH}", where=str(folder), fix="Flatten the bundle")
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise ConfigurationError(
            f"cannot be listed: {error.strerror}", where=str(folder), fix="Let the sidecar's user read the bundle"
        ) from None
    for entry in entries:
        path = Path(entry.path)
        if entry.name.startswith(".") and entry.name != ".manifest":
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, path, depth + 1)
        elif _wanted(root, path):
            if entry.is_symlink() and not path.resolve().is_relative_to(root):
                raise ConfigurationError(
                    "a link leads out of the bundle", where=str(path), fix="Copy the file into the bundle"
                )
            yield path
        elif entry.is_symlink() and path.is_dir():
            raise ConfigurationError(
                "a folder of the bundle is a link", where=str(path), fix="Copy the folder into the bundle"
            )
        elif entry.name in ("data.yaml", "data.yml"):
            raise ConfigurationError("data is read as JSON only", where=str(path), fix="Rewrite it as data.json")


def _wanted(root: Path, path: Path) -> bool:
    name = path.relative_to(root).as_posix()
    return name in (".manifest", CORPUS) or path.name == "data.json" or path.suffix == ".rego"


def _content(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigurationError("not a regular file", where=str(path), fix="Replace it by one")
            content = file.read(limit + 1)
    except OSError as error:
        raise ConfigurationError(
            f"cannot be read: {error.strerror}", where=str(path), fix="Let the sidecar's user read the bundle"
        ) from None
    if len(content) > limit:
        raise ConfigurationError(f"larger than {limit} bytes", where=str(path), fix="Split the file, or trim the data")
    return content


def _manifest(folder: Path, files: Mapping[str, bytes]) -> _Manifest:
    where = f"{folder}/.manifest"
    content = files.get(".manifest")
    if content is None:
        raise ConfigurationError(
            "the bundle has no manifest", where=where, fix='Add {"revision": "…", "roots": ["sidecar", "data"]}'
        )
    try:
        manifest = msgspec.json.decode(content, type=_Manifest)
    except msgspec.MsgspecError as error:
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
    return msgspec.structs.replace(manifest, roots=tuple(roots))


def _under(path: str, roots: tuple[str, ...]) -> bool:
    return any(not root or path == root or path.startswith(f"{root}/") for root in roots)


def _check_package(where: str, source: str, roots: tuple[str, ...]) -> None:
    found = _PACKAGE.search(source)
    if found is None:
        raise ConfigurationError("no package", where=where, fix="Begin the file with `package sidecar.…`")
    if not _under(found[1].replace(".", "/"), roots):
        raise ConfigurationError(
            "the package is outside of the manifest's roots", where=where, value=found[1],
            fix=f"Move it under {', '.join(roots)}, or add a root",
        )  # fmt: skip


def _check_data_path(where: str, path: list[str], found: JsonObject, roots: tuple[str, ...]) -> None:
    folder = "/".join(path)
    for key in found:
        full = f"{folder}/{key}" if folder else key
        if not (_under(folder, roots) and folder) and not _under(full, roots):
            raise ConfigurationError(
                "data outside of the manifest's roots", where=where, value=full,
                fix=f"Move it under {', '.join(roots)}, or add a root",
            )  # fmt: skip


def _text(where: str, content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"not UTF-8 at byte {error.start}", where=where, fix="Save it as UTF-8") from None


def _corpus(where: str, content: bytes | None) -> tuple[AccessRequest, ...]:
    if content is None:
        return ()
    try:
        documents = msgspec.json.decode(content, type=tuple[AccessRequest, ...])
    except msgspec.MsgspecError as error:
        raise ConfigurationError(
            f"not a list of input documents: {error}", where=where, fix="See schemas/input.json; leaves may be left out"
        ) from None
    if len(documents) > MAX_DOCUMENTS:
        raise ConfigurationError(
            f"more than {MAX_DOCUMENTS} documents", where=where, value=len(documents), fix="Keep those that differ"
        )
    return documents


def _digest(files: Mapping[str, bytes]) -> str:
    lines = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(files.items()))
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()
