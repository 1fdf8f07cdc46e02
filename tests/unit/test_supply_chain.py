"""What comes in from elsewhere: pinned by hash, of a licence that is allowed, and consistent with what is asked for."""

import json
import re
import tomllib
from email.message import Message
from pathlib import Path

import pytest
import supply_chain as chain
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def pins(name: str) -> dict[str, Version]:
    text = (ROOT / "requirements" / name).read_text()
    return {chain.canonical(one): Version(version) for one, version in
            re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(\S+)", text, re.MULTILINE)}  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_requirement_is_pinned_by_version_and_hash(file: Path) -> None:
    text = re.sub(r"\\\n\s*", " ", file.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert lines
    for line in lines:
        assert re.match(r"[A-Za-z0-9._-]+(\[[^\]]*\])?==\S+ ", line), line[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", line), line[:80]
        assert "://" not in line, "where packages come from is the builder's business"


def asked(group: str) -> list[Requirement]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    found = list(PROJECT["project"]["dependencies"])
    if group == "dev":
        found += [one for extra in extras for one in extra] + PROJECT["dependency-groups"]["dev"]
    return [Requirement(one) for one in found]


@pytest.mark.parametrize("group", ["sidecar", "dev"])
def test_pins_are_what_the_project_asks_for(group: str) -> None:
    found = pins(f"{group}.txt")
    for one in asked(group):
        name = chain.canonical(one.name)
        assert name in found, f"{name} is asked for and not pinned: compile the requirements again (CONTRIBUTING.md)"
        assert one.specifier.contains(found[name], prereleases=True), f"{name}: {found[name]} is not {one.specifier}"


def test_what_is_tested_is_what_is_shipped() -> None:
    shipped, tested = pins("sidecar.txt"), pins("dev.txt")
    assert shipped.items() <= tested.items()
    assert chain.shipped_names() >= shipped.keys() & {one.name for one in chain.python_parts()}


def test_uv_is_one_version() -> None:
    said = re.search(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert said is not None
    assert pins("uv.txt") == {"uv": Version(said[1])}


def test_every_licence_of_python_packages_is_on_the_list() -> None:
    found = list(chain.python_parts())
    assert len(found) > 50
    assert {one.scope for one in found} == {"required", "optional", "excluded"}
    assert [(one.name, one.licence) for one in chain.refused(found)] == []


def test_every_licence_of_crates_is_on_the_list(needs) -> None:
    needs("cargo", "get Rust from https://rustup.rs, or apt-get install cargo-web")
    found = list(chain.rust_parts())
    assert any(one.name == "regorus" and one.scope == "required" for one in found)
    assert [(one.name, one.licence) for one in chain.refused(found)] == []


def test_reasons_stand_beside_every_allowed_licence() -> None:
    assert all(chain.ALLOWED.values())
    assert set(chain.SAID.values()) <= chain.ALLOWED.keys()


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True), ("GPL-3.0-only", False), ("", False), ("MIT OR GPL-3.0-only", True), ("MIT AND GPL-3.0-only", False),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", True), ("(MIT OR Apache-2.0) AND AGPL-3.0-only", False),
        ("Apache-2.0 WITH LLVM-exception", True), ("Apache-2.0 WITH Some-exception", False), ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("MIT OR Apache-2.0 OR LGPL-2.1-or-later", True), ("(MIT", False), ("MIT MIT", False), ("LicenseRef-Own", False),
    ],
)  # fmt: skip
def test_an_expression_is_allowed_when_a_choice_of_it_is(expression: str, allowed: bool) -> None:
    assert chain.allows(expression) is allowed


def test_what_says_nothing_readable_has_no_licence() -> None:
    said = Message()
    said["License"] = "see the file"
    assert chain.licence_of(said) == ""  # type: ignore[arg-type]
    said["Classifier"] = "License :: OSI Approved :: MIT License"
    assert chain.licence_of(said) == "MIT"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], 0),
        ([{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": []}]}], 1),
        ([{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}, {"name": "b", "skip_reason": "unknown"}], 1),
        ([{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "unknown"}], chain.SKIPPED),
        ([], chain.SKIPPED),
    ],
)  # fmt: skip
def test_what_was_not_looked_at_is_not_called_well(found: list[dict], code: int) -> None:
    assert chain.read_audit(found) == code


def test_the_list_for_people_names_everything() -> None:
    part = chain.Part(kind="pypi", name="a", version="1", licence="", scope="required")
    assert "| pypi: a | 1 | unknown | required |" in chain.licences_page([part])
    assert json.dumps(chain._crate(part, "ab"))
