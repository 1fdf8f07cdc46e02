"""The shape of the tree: what ARCHITECTURE.md names exists, files stay small, the two programs stay apart."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("ARCHITECTURE.md", "README.md", "CONTRIBUTING.md", "SECURITY.md")
TOPS = ("sidecar", "policies", "proto", "tests", "helm", "docs", "engine", "requirements", "changelog.d", ".ci")
GENERATED = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")
MOST_LINES = 400
LONGER = {
    # The words of the input and decision documents, one after the other: apart they could not be compared at a glance.
    "sidecar/vocabulary.py": 450,
}
STORE = ("sidecar.oversight", "sidecar.record", "sidecar.tlog", "sidecar.observability", "sidecar.settings", "sidecar.api",
         "sidecar.vocabulary", "sidecar.errors")  # fmt: skip
SIDECAR_ONLY = ("sidecar.main", "sidecar.enforcement", "sidecar.attributes", "sidecar.decision", "sidecar.exceptions",
                "sidecar.spool", "sidecar.administration")  # fmt: skip
# A stroke within each word, taken out below, so that this file does not hold them.
UNFINISHED = ("TO|DO", "FIX|ME", "X|XX", "HA|CK", "simplified for| now", "lorem| ipsum")
REGISTRIES = (
    "pypi|.org", "python|hosted.org", "npm|js.org", "npm|js.com", "crates|.io", "proxy.golang|.org", "sum.golang|.org",
    "docker|.io",
)  # fmt: skip
MACHINES = ("/wo|rk/", "/ro|ot/", "/ho|me/")
LOCKS = ("Cargo.lock", "go.sum", "LICENSE")


def whole(words: tuple[str, ...]) -> list[str]:
    return [word.replace("|", "") for word in words]


def tracked() -> list[str]:
    """Files that are, or would be, committed."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        pytest.skip("the tree is no git repository here: clone it with git to check what is committed")
    return sorted({line for line in found.stdout.splitlines() if (ROOT / line).is_file()})


def text_of(name: str) -> str:
    try:
        return (ROOT / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_that_a_document_names_exists(document: str) -> None:
    text = text_of(document)
    paths = set(re.findall(rf"`((?:{'|'.join(map(re.escape, TOPS))})/[\w./*-]*)`", text))
    paths |= {path.split("#")[0] for path in re.findall(r"\]\((?!https?://|#)([^)\s]+)\)", text)}
    missing = [path for path in sorted(paths) if path and not list(ROOT.glob(path.rstrip("/")))]
    assert not missing, f"{document} names what is not there: {missing}"


def test_the_stage_table_and_the_walks_name_files() -> None:
    text = text_of("ARCHITECTURE.md")
    stages = [line for line in text.splitlines() if re.match(r"\| \d \|", line)]
    assert len(stages) == 8
    assert all(re.search(r"`sidecar/[\w/.]+`", line) for line in stages)
    walks = re.findall(r"^\* \*\*A (call|record|policy)\*\*:((?:.|\n)*?)(?=^\* |^## )", text, re.MULTILINE)
    lengths = {name: len(re.findall(r"`[\w/.]+`", walk)) for name, walk in walks}
    assert set(lengths) == {"call", "record", "policy"}
    assert lengths["call"] <= 8
    assert lengths["record"] <= 7
    assert lengths["policy"] <= 5


def test_the_layers_in_the_document_are_those_that_are_checked() -> None:
    drawn = re.search(r"## Layers\n.*?```\n(.*?)```", text_of("ARCHITECTURE.md"), re.DOTALL)
    checked = re.search(r"^layers = \[\n(.*?)^\]", text_of("pyproject.toml"), re.DOTALL | re.MULTILINE)
    assert drawn is not None
    assert checked is not None

    def layers(text: str) -> list[set[str]]:
        return [set(re.findall(r"\w+", line)) for line in text.splitlines() if line.strip()]

    assert layers(drawn[1]) == layers(checked[1])


def test_files_stay_small() -> None:
    lengths = {name: text_of(name).count("\n") for name in tracked()
               if name.startswith("sidecar/") and name.endswith(".py") and not name.endswith(GENERATED)}  # fmt: skip
    assert len(lengths) > 100
    long = {name: lines for name, lines in lengths.items() if lines > LONGER.get(name, MOST_LINES)}
    assert not long, f"more than {MOST_LINES} lines: {long}"


def test_modules_are_called_after_what_they_do() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "base", "interfaces", "misc", "manager"}
    assert not [name for name in tracked() if name.endswith(".py") and Path(name).stem in vague]


def test_every_package_and_module_says_what_it_is() -> None:
    silent = [
        name
        for name in tracked()
        if name.startswith("sidecar/") and name.endswith(".py") and not name.endswith(GENERATED)
        and not name.startswith(("sidecar/api/v1/", "sidecar/demo/profiles/"))
        and not re.match(r'(?:#[^\n]*\n)*r?"""', text_of(name))
    ]  # fmt: skip
    assert silent == []


def loaded(module: str) -> set[str]:
    """Every module of the project that importing this one loads, in a process of its own."""
    program = f"import sys, {module}\nprint('\\n'.join(name for name in sys.modules if name.startswith('sidecar')))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.split())


def below(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in packages)


def test_the_store_loads_nothing_of_the_sidecar_s_side() -> None:
    modules = loaded("sidecar.oversight.main")
    assert "sidecar.oversight.integrator" in modules
    assert [name for name in sorted(modules) if name != "sidecar" and not below(name, STORE)] == []


def test_the_sidecar_s_side_loads_nothing_of_the_store() -> None:
    modules = loaded("sidecar.main.process")
    assert "sidecar.enforcement.pipeline" in modules
    assert [name for name in sorted(modules) if below(name, ("sidecar.oversight", "sidecar.cli", "sidecar.demo"))] == []


@pytest.mark.parametrize("module", ["sidecar.cli.review", "sidecar.cli.oversight", "sidecar.cli.producers"])
def test_nor_do_the_store_s_commands(module: str) -> None:
    assert [name for name in sorted(loaded(module)) if below(name, SIDECAR_ONLY)] == []


@pytest.mark.parametrize("module", ["sidecar.record", "sidecar.tlog.proof", "sidecar.vocabulary", "sidecar.errors"])
def test_pure_modules_load_nothing_that_touches_the_world(module: str) -> None:
    program = f"import sys, {module}\nprint('\\n'.join(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(ran.stdout.split()) & {"grpc", "asyncio", "sqlite3", "logging", "sidecar.api"} == set()


def test_nothing_is_left_to_do() -> None:
    words = re.compile("|".join(rf"(?<![\w/]){re.escape(word)}(?!\w)" for word in whole(UNFINISHED)))
    found = [f"{name}: {match[0]}" for name in tracked() if not name.endswith(LOCKS)
             for match in words.finditer(text_of(name))]  # fmt: skip
    assert found == []


def test_no_package_registry_and_no_machine_is_named() -> None:
    words = re.compile("|".join(map(re.escape, whole((*REGISTRIES, *MACHINES)))))
    found = [f"{name}: {match[0]}" for name in tracked() if not name.endswith(LOCKS)
             for match in words.finditer(text_of(name))]  # fmt: skip
    assert found == []


def test_every_test_has_a_kind_by_its_folder(request: pytest.FixtureRequest) -> None:
    assert "unit" in {mark.name for mark in request.node.iter_markers()}
    kinds = {Path(name).parts[1] for name in tracked() if re.match(r"tests/.*/?test_\w+\.py$", name)}
    assert kinds <= {"unit", "contract", "conformance", "integration", "fault"}
