"""What the product is made of, under which licences, and whether anything of it is known to be vulnerable.

    python -m tests.supply_chain sbom FOLDER   CycloneDX 1.6 and the list of licences
    python -m tests.supply_chain licences      only whether every licence is on the list
    python -m tests.supply_chain audit         known vulnerabilities; 3: nobody could be asked

Python packages come from the virtual environment (`cyclonedx-py`, in its own folder below `.tools`), crates from
`cargo metadata`. Scope `required` is what every sidecar has, `optional` the extras, `excluded` what only builds and tests.
"""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools/supply-chain/bin"
_VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())
sys.exit(f"{sys.argv[1]} is no CycloneDX 1.6: {wrong}" if wrong else 0)
"""
SKIPPED = 3
"""Exit code of an audit that could not be made: neither good nor bad news."""

ALLOWED = {
    "0BSD": "permissive",
    "Apache-2.0": "permissive, with a grant of patents; our own",
    "Apache-2.0 WITH LLVM-exception": "Apache-2.0 with less to state in binaries",
    "BSD-2-Clause": "permissive",
    "BSD-3-Clause": "permissive",
    "ISC": "permissive",
    "MIT": "permissive",
    "MIT-0": "permissive, without even a notice",
    "MPL-2.0": "copyleft by file: used unchanged, its files stay what they are",
    "PSF-2.0": "permissive (Python's own)",
    "Unicode-3.0": "permissive, of Unicode's tables",
    "Unlicense": "public domain",
}
"""Licence (SPDX) -> why it may come in."""

SAID = {
    "apache software license": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache-2.0": "Apache-2.0",
    "bsd 2-clause license": "BSD-2-Clause",
    "3-clause bsd license": "BSD-3-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mit": "MIT",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "mpl-2.0": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
    "psf-2.0": "PSF-2.0",
}
"""What packages without an SPDX expression say, in small letters -> what it is."""
READ = {"MIT License": "MIT"}
"""First line of a licence's file, where a package says nothing else -> what it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A package or crate. `licence` is an SPDX expression; empty when it says nothing that can be read."""

    kind: str
    name: str
    version: str
    licence: str
    scope: str


def parts() -> list[Part]:
    """Everything, by kind and name."""
    return sorted([*python_parts(), *rust_parts()], key=lambda one: (one.kind, one.name.lower()))


def python_parts() -> Iterator[Part]:
    """The packages of the virtual environment, but for the product itself and what installs packages."""
    required, shipped = names("requirements/sidecar.txt"), shipped_names()
    for one in metadata.distributions():
        name = canonical(one.metadata["Name"])
        if name not in ("customhouse", "pip"):
            scope = "required" if name in required else "optional" if name in shipped else "excluded"
            licence = licence_of(one.metadata) or _read(one)
            yield Part(kind="pypi", name=name, version=one.version, licence=licence, scope=scope)


def rust_parts() -> Iterator[Part]:
    """The crates that are linked into the engine, and those that only build it."""
    tree = cargo_metadata()
    linked = _linked(tree)
    for one in tree["packages"]:
        if one["source"] is not None:
            scope = "required" if one["id"] in linked else "excluded"
            expression = (one["license"] or "").replace("/", " OR ")
            yield Part(kind="cargo", name=one["name"], version=one["version"], licence=expression, scope=scope)


def cargo_metadata() -> dict:
    """What cargo resolves for Linux, from the lock file."""
    command = [
        "cargo",
        "metadata",
        "--locked",
        "--format-version",
        "1",
        "--filter-platform",
        "x86_64-unknown-linux-gnu",
    ]
    return json.loads(subprocess.run(command, cwd=ROOT / "native", check=True, capture_output=True).stdout)


def _linked(tree: dict) -> set[str]:
    """Ids reached from the engine by normal dependencies."""
    nodes = {one["id"]: one for one in tree["resolve"]["nodes"]}
    found, waiting = set(), [tree["resolve"]["root"]]
    while waiting:
        node = nodes[waiting.pop()]
        for one in node["deps"]:
            if one["pkg"] not in found and any(kind["kind"] is None for kind in one["dep_kinds"]):
                found.add(one["pkg"])
                waiting.append(one["pkg"])
    return found


def canonical(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: str) -> set[str]:
    """The packages that a requirements file pins."""
    return {
        canonical(one)
        for one in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==", (ROOT / requirements).read_text(), re.MULTILINE)
    }


def shipped_names() -> set[str]:
    """The product's dependencies with every extra, and theirs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    found: set[str] = set()
    waiting = [(one, frozenset(re.findall(r"\[([^\]]+)\]", one))) for one in asked]
    while waiting:
        requirement, extras = waiting.pop()
        name = canonical(re.match(r"[A-Za-z0-9._-]+", requirement)[0])  # type: ignore[index]
        if name in found:
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another platform or version of Python
        found.add(name)
        for one in needs:
            marker = one.partition(";")[2]
            wanted = re.findall(r"extra\s*==\s*['\"]([^'\"]+)", marker)
            if not wanted or set(wanted) & {name.strip() for group in extras for name in group.split(",")}:
                waiting.append((one, frozenset(re.findall(r"\[([^\]]+)\]", one.partition(";")[0]))))
    return found


def licence_of(said: metadata.PackageMetadata) -> str:
    """The SPDX expression of a package; empty when what it says cannot be read."""
    if said.get("License-Expression"):
        return str(said["License-Expression"])
    classifiers = [
        one.rpartition(" :: ")[2] for one in said.get_all("Classifier") or [] if one.startswith("License ::")
    ]
    for one in [said.get("License") or "", *classifiers]:
        if one.strip().lower() in SAID:
            return SAID[one.strip().lower()]
    return ""


def _read(package: metadata.Distribution) -> str:
    files = [one for one in package.files or [] if one.name == "LICENSE" and ".dist-info" in str(one)]
    texts = [one.read_text().strip() for one in files]
    return READ.get(texts[0].splitlines()[0].strip(), "") if len(texts) == 1 and texts[0] else ""


def allows(expression: str) -> bool:
    """Whether an SPDX expression leaves a choice of licences that are all on the list. Nothing said: no."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression)
    if not tokens:
        return False
    result, rest = _either(tokens)
    return result and not rest


def _either(tokens: list[str]) -> tuple[bool, list[str]]:
    found, rest = _both(tokens)
    while rest and rest[0].upper() == "OR":
        more, rest = _both(rest[1:])
        found = found or more
    return found, rest


def _both(tokens: list[str]) -> tuple[bool, list[str]]:
    found, rest = _one(tokens)
    while rest and rest[0].upper() == "AND":
        more, rest = _one(rest[1:])
        found = found and more
    return found, rest


def _one(tokens: list[str]) -> tuple[bool, list[str]]:
    if not tokens:
        return False, []
    if tokens[0] == "(":
        found, rest = _either(tokens[1:])
        return (found, rest[1:]) if rest[:1] == [")"] else (False, rest)
    if len(tokens) > 2 and tokens[1].upper() == "WITH":
        return f"{tokens[0]} WITH {tokens[2]}" in ALLOWED, tokens[3:]
    return tokens[0] in ALLOWED, tokens[1:]


def refused(found: list[Part]) -> list[Part]:
    """The parts whose licence is not on the list."""
    return [one for one in found if not allows(one.licence)]


def licences_page(found: list[Part]) -> str:
    """The list for people."""
    lines = ["# Licences", "", "Written by `make sbom`. `required`: in every sidecar; `optional`: by an extra; `excluded`: only builds and tests.",
             "", "| part | version | licence | scope |", "|---|---|---|---|"]  # fmt: skip
    lines += [f"| {one.kind}: {one.name} | {one.version} | {one.licence or 'unknown'} | {one.scope} |" for one in found]
    lines += ["", "## Allowed", "", "| licence | why |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {why} |" for name, why in sorted(ALLOWED.items()))]) + "\n"


def bill(found: list[Part]) -> dict:
    """CycloneDX 1.6: what `cyclonedx-py` sees, with scopes, and the crates beside it."""
    command = [TOOLS / "cyclonedx-py", "environment", sys.executable, "--sv", "1.6", "--of", "JSON", "--output-reproducible",
               "--pyproject", ROOT / "pyproject.toml", "--output-file", "-"]  # fmt: skip
    document = json.loads(subprocess.run(command, check=True, capture_output=True, cwd=ROOT).stdout)
    scopes = {one.name: one.scope for one in found if one.kind == "pypi"}
    document["components"] = [{**one, "scope": scopes[canonical(one["name"])]} for one in document["components"]
                              if canonical(one["name"]) in scopes]  # fmt: skip
    for one in document["components"]:
        # Where a package was installed from is the builder's business: mirrors differ, and so would the bill.
        one["externalReferences"] = [
            link for link in one.get("externalReferences", []) if link["type"] != "distribution"
        ]
    sums = {(one["name"], one["version"]): one.get("checksum")
            for one in tomllib.loads((ROOT / "native/Cargo.lock").read_text())["package"]}  # fmt: skip
    crates = [one for one in found if one.kind == "cargo"]
    document["components"] += [_crate(one, sums.get((one.name, one.version))) for one in crates]
    kept = {document["metadata"]["component"]["bom-ref"], *(one["bom-ref"] for one in document["components"])}
    document["dependencies"] = [
        {**one, "dependsOn": [other for other in one.get("dependsOn", []) if other in kept]}
        for one in document["dependencies"] if one["ref"] in kept
    ] + [{"ref": _reference(one)} for one in crates]  # fmt: skip
    return document


def _reference(crate: Part) -> str:
    return f"pkg:cargo/{crate.name}@{crate.version}"


def _crate(crate: Part, checksum: str | None) -> dict:
    found = {"type": "library", "bom-ref": _reference(crate), "name": crate.name, "version": crate.version,
             "purl": _reference(crate), "scope": crate.scope, "licenses": [{"expression": crate.licence}]}  # fmt: skip
    return found if checksum is None else {**found, "hashes": [{"alg": "SHA-256", "content": checksum}]}


def audit() -> int:
    """0: nothing known; 1: something known; `SKIPPED`: the databases of vulnerabilities could not be asked."""
    codes = [_audit_python(), _audit_rust()]
    return 1 if 1 in codes else SKIPPED if SKIPPED in codes else 0


def _audit_python() -> int:
    command = [TOOLS / "pip-audit", "--require-hashes", "--disable-pip", "--format", "json", "--progress-spinner", "off",
               "--requirement", ROOT / "requirements/sidecar.txt"]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found = json.loads(ran.stdout)["dependencies"]
    except (ValueError, KeyError):
        print(f"python: not audited: {ran.stderr.strip().splitlines()[-1] if ran.stderr.strip() else 'no answer'}")
        return SKIPPED
    return read_audit(found)


def read_audit(found: list[dict]) -> int:
    """What pip-audit's answer means. A package that it skipped is not a package without vulnerabilities."""
    for one in found:
        for known in one.get("vulns", []):
            print(
                f"python: {one['name']} {one['version']}: {known['id']}, fixed in {', '.join(known['fix_versions']) or 'nothing yet'}"
            )
    skipped = [one["name"] for one in found if "skip_reason" in one]
    if any(one.get("vulns") for one in found):
        return 1
    if skipped or not found:
        print(f"python: not audited: {len(skipped)} of {len(found)} packages are unknown to the database that answered")
        return SKIPPED
    print(f"python: {len(found)} packages, no known vulnerability")
    return 0


def _audit_rust() -> int:
    ran = subprocess.run(
        ["cargo", "audit", "--file", ROOT / "native/Cargo.lock"], capture_output=True, text=True, check=False
    )
    if "no such command" in ran.stderr:
        print(
            "rust: not audited: there is no cargo-audit here (cargo install cargo-audit; its database is a git repository)"
        )
        return SKIPPED
    if ran.returncode not in (0, 1) or "error: couldn't fetch" in ran.stderr:
        print(f"rust: not audited: {ran.stderr.strip().splitlines()[-1] if ran.stderr.strip() else ran.returncode}")
        return SKIPPED
    print(ran.stdout or "rust: no known vulnerability")
    return ran.returncode


def main(arguments: list[str]) -> int:
    """The exit code."""
    match arguments:
        case ["sbom", folder]:
            found, to = parts(), Path(folder)
            to.mkdir(parents=True, exist_ok=True)
            (to / "sbom.json").write_text(json.dumps(bill(found), indent=1, sort_keys=True) + "\n")
            subprocess.run([TOOLS / "python", "-c", _VALIDATE, to / "sbom.json"], check=True)
            (to / "licences.md").write_text(licences_page(found))
            print(f"{to / 'sbom.json'}: {len(found)} components; {to / 'licences.md'}")
        case ["licences"]:
            found = parts()
        case ["audit"]:
            return audit()
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    wrong = refused(found)
    for one in wrong:
        print(
            f"{one.kind}: {one.name} {one.version}: {one.licence or 'says no licence'}: not in ALLOWED (tests/supply_chain.py)",
            file=sys.stderr,
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
