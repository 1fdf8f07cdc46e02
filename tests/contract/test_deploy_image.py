"""The Dockerfile, read: there is no engine to build it with where tests run, so what can be seen in it is checked.

Where there is one, `docker build .` is the test; these rules hold either way.
"""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helm_parts import CHARTS, ROOT

TEXT = (ROOT / "Dockerfile").read_text()


def instructions() -> list[tuple[str, str]]:
    """(word, rest) of each instruction, lines joined, comments gone."""
    lines = [line for line in TEXT.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [
        (word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())
    ]


def stages() -> list[list[tuple[str, str]]]:
    found: list[list[tuple[str, str]]] = []
    for word, rest in instructions():
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, rest))
    return found


def of(word: str, within=None) -> list[str]:
    return [rest for one, rest in (within or instructions()) if one == word]


def ignored() -> list[str]:
    return (ROOT / ".dockerignore").read_text().splitlines()


def test_only_words_that_docker_knows():
    known = {
        "ARG",
        "FROM",
        "RUN",
        "COPY",
        "ENV",
        "WORKDIR",
        "LABEL",
        "USER",
        "HEALTHCHECK",
        "STOPSIGNAL",
        "ENTRYPOINT",
        "CMD",
    }
    assert {word for word, _ in instructions()} <= known, "ADD is not among them: it would fetch what nobody checked"


def test_it_runs_as_nobody_who_may_do_anything():
    (user,) = of("USER", stages()[-1])
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "a number, so that Kubernetes can see that it is not root"
    values = (CHARTS / "sidecar" / "values.yaml").read_text()
    assert user == "{0}:{0}".format(re.search(r"runAsUser: (\d+)", values)[1]), "the charts run it as the same user"
    last = [word for word, _ in stages()[-1]]
    assert last.index("USER") > max(place for place, word in enumerate(last) if word in ("RUN", "COPY"))


def test_bases_are_pinned_by_exact_version():
    """Not by digest: none can be known here. The file says how to give one."""
    bases = dict(one.split("=", 1) for one in of("ARG"))
    for stage in stages():
        name = re.fullmatch(r"\$\{(\w+)\}(?: AS \w+)?", stage[0][1])[1]
        assert re.search(r":\d+\.\d+\.\d+-slim-bookworm$", bases[name]), bases[name]
    assert "@sha256:" in TEXT


def test_the_base_has_the_python_and_cargo_that_the_project_asks_for():
    bases = dict(one.split("=", 1) for one in of("ARG"))
    python = tuple(map(int, re.search(r"python:(\d+)\.(\d+)", bases["PYTHON"]).groups()))
    rust = tuple(map(int, re.search(r"rust:(\d+)\.(\d+)", bases["RUST"]).groups()))
    least = re.search(
        r">=(\d+)\.(\d+)", tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    )
    assert python >= tuple(map(int, least.groups()))
    cargo = tomllib.loads((ROOT / "native" / "Cargo.toml").read_text())["package"]["rust-version"]
    assert rust >= tuple(map(int, cargo.split(".")))


def test_every_package_comes_with_its_hash():
    installs = [one for run in of("RUN") for one in re.split(r"&&|;", run) if re.search(r"\bpip\b.*\binstall\b", one)]
    assert len(installs) == 3
    for one in installs:
        assert "--require-hashes" in one or ("--no-index" in one and "--no-deps" in one), one
    for name in ("build.txt", "requirements.txt"):
        text = (ROOT / "docker" / name).read_text()
        pins = re.findall(r"^[\w.\[\]-]+==\S+", text, re.MULTILINE)
        assert pins
        for block in re.split(r"\n(?=\S)", text.strip()):
            assert "--hash=sha256:" in block, block.splitlines()[0]
        assert "://" not in text, "no address of an index"


def test_the_packages_are_those_that_are_tested():
    def pins(file: Path) -> dict[str, str]:
        return dict(re.findall(r"^([\w.-]+)==(\S+)", file.read_text(), re.MULTILINE))

    tested = pins(ROOT / "requirements" / "dev.txt")
    for name in ("build.txt", "requirements.txt"):
        for package, version in pins(ROOT / "docker" / name).items():
            assert tested.get(package) == version, package
    runtime = pins(ROOT / "requirements" / "sidecar.txt")
    assert runtime.items() <= pins(ROOT / "docker" / "requirements.txt").items()


def test_what_is_copied_exists_and_is_in_the_context():
    for stage in stages():
        for one in of("COPY", stage):
            if one.startswith("--from="):
                source = one.removeprefix("--from=").split()[0]
                assert any(f" AS {source}" in other[0][1] for other in stages())
                continue
            *sources, _ = one.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert any(
                    line.removeprefix("!") == source
                    or line.startswith(f"!{source}/")
                    or (line == "!docker/*.txt" and source.startswith("docker/"))
                    for line in ignored()
                ), source


def test_the_context_holds_no_key_no_history_and_no_data():
    assert ignored()[1] == "*", "everything is out unless it is named"
    named = [line for line in ignored() if line.startswith("!")]
    assert not any(word in line for line in named for word in (".git", "tests", ".venv", "demo-data", "target"))
    assert "**/*.so" in ignored(), "the engine is built here, not brought along"


def test_nothing_is_fetched_by_hand():
    assert not re.search(r"\b(curl|wget|git clone)\b", TEXT)


def test_one_entry_point_for_everything_that_the_charts_and_units_run():
    last = stages()[-1]
    assert json.loads(of("ENTRYPOINT", last)[0]) == ["sidecar"]
    assert of("HEALTHCHECK", last) == ["NONE"], "the orchestrator's probes are the health check"
    assert of("STOPSIGNAL", last) == ["SIGTERM"]
    environment = " ".join(of("ENV", last))
    assert "PATH=/opt/customhouse/bin:" in environment
    assert not re.search(r"CUSTOMHOUSE_", environment), "a setting in an image is a setting nobody sees"


@pytest.mark.parametrize("module", ["sidecar.cli.webhook", "sidecar.cli.store_backup", "sidecar.decision.opa"])
def test_the_image_s_packages_are_enough(module):
    """What is imported beyond the standard library and ourselves is among what the image installs."""

    def loaded(code: str) -> set[str]:
        code += "; import sys; print(' '.join({name.partition('.')[0] for name in sys.modules}))"
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
        return set(ran.stdout.split())

    needed = loaded(f"import {module}") - loaded("pass") - set(sys.stdlib_module_names) - {"sidecar"}
    installed = {re.sub(r"[-_.]+", "-", name).lower() for name in re.findall(
        r"^([\w.-]+)==", (ROOT / "docker" / "requirements.txt").read_text(), re.MULTILINE)}  # fmt: skip
    of_module = importlib.metadata.packages_distributions()
    for one in needed:
        homes = {re.sub(r"[-_.]+", "-", name).lower() for name in of_module.get(one, [])}
        assert not homes or homes & installed, f"{one} of {homes}"
