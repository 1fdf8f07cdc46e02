"""The capabilities file: the loader's list of built-ins as OPA's own checker enforces it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import engine_capabilities
import pytest
from conftest import Needs

from sidecar import _native

POLICIES = Path("policies")
_LITERALS = {
    "string": '"a"', "number": "1", "boolean": "true", "null": "null", "array": "[]", "object": "{}", "set": "set()",
    "any": '"a"',
}  # fmt: skip
_SPELT = {"sprintf": 'sprintf("%v", [1])', "regex.match": 'regex.match("a", "a")', "format_int": "format_int(1, 10)"}


@pytest.fixture(scope="module")
def program(needs: Needs) -> Path:
    return needs("opa", "run `make tools`")


@pytest.fixture(scope="module")
def callable_builtins(program: Path) -> dict[str, str]:
    """Every built-in that OPA knows and a policy can call by name -> such a call."""
    known = engine_capabilities.reference(program)["builtins"]
    found = {
        one["name"]: call(one) for one in known if not one.get("infix") and not one["name"].startswith("internal.")
    }
    assert len(found) > 180
    return found


def call(builtin: dict[str, Any]) -> str:
    arguments = builtin["decl"].get("args", ())
    return _SPELT.get(builtin["name"]) or f"{builtin['name']}({', '.join(literal(one) for one in arguments)})"


def literal(kind: dict[str, Any]) -> str:
    return literal(kind["of"][0]) if kind["type"] == "any" and kind.get("of") else _LITERALS[kind["type"]]


def check(program: Path, *arguments: object) -> tuple[bool, str]:
    command = [program, "check", "--strict", "--max-errors", "10000", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode == 0, done.stdout + done.stderr


def test_the_committed_file_is_the_loaders_list_in_opas_words(program: Path):
    made = engine_capabilities.capabilities(program, _native.builtins_accepted())
    fix = "run `python -m tests.engine_tables --write capabilities`, then build the engine again"
    assert engine_capabilities.FILE.read_text() == made, fix
    assert _native.capabilities() == made.encode(), "build the engine again"


def test_opa_accepts_the_shipped_policies_with_it(program: Path):
    passed, why = check(program, "--capabilities", engine_capabilities.FILE, "--bundle", POLICIES)
    assert passed, why


def test_the_loader_accepts_exactly_the_built_ins_of_the_file(callable_builtins: dict[str, str]):
    accepted = set()
    for name, spelt in callable_builtins.items():
        try:
            _native.Engine([("p.rego", f"package t\n\np := {spelt}\n")], b"{}", "data.t.p")
            refused = False
        except _native.LoadError as error:
            refused = any(one["code"] in ("builtin", "rego_parse") for one in error.problems)
        if not refused:
            accepted.add(name)
    file = {one["name"] for one in json.loads(engine_capabilities.FILE.read_text())["builtins"]}
    assert accepted == file & set(callable_builtins)


def test_opa_refuses_with_it_every_built_in_that_the_loader_refuses(
    program: Path, callable_builtins: dict[str, str], tmp_path: Path
):
    file = {one["name"] for one in json.loads(engine_capabilities.FILE.read_text())["builtins"]}
    for number, (name, spelt) in enumerate(callable_builtins.items()):
        (tmp_path / f"m{number}.rego").write_text(f"package t{number}\n\np := {spelt} # {name}\n")
    _, why = check(program, "--capabilities", engine_capabilities.FILE, tmp_path)
    refused = {name for name in callable_builtins if f"undefined function {name}\n" in why + "\n"}
    assert refused == set(callable_builtins) - file


def test_both_refuse_template_strings(program: Path, tmp_path: Path):
    source = 'package t\n\np := $"a {input.x}"\n'
    module = tmp_path / "m.rego"
    module.write_text(source)
    assert check(program, module)[0]
    assert not check(program, "--capabilities", engine_capabilities.FILE, module)[0]
    with pytest.raises(_native.LoadError):
        _native.Engine([("p.rego", source)], b"{}", "data.t.p")
