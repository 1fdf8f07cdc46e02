"""What tests of the charts share: rendering with the real helm, and looking into what comes out."""

import copy
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CHARTS = ROOT / "helm"
KUBERNETES = "1.34.0"
Tree = dict[str, Any]
RELEASES = {"sidecar": ("guard", "profiles"), "oversight": ("oversight", "customhouse-oversight")}
"""Chart -> (release, namespace)."""


class Helm:
    """The real program, on a chart of this repository."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.program, self._folder, self._count = program, folder, 0

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Offline: nothing of the user's own configuration, no cluster."""
        here = {"HOME": str(self._folder), "PATH": "/usr/bin:/bin", "KUBECONFIG": "/dev/null"}
        command = [str(self.program), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=here)

    def template(self, chart: str, values: Tree, *, namespace: str | None = None, release: str | None = None,
                 folder: Path | None = None) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """`helm template`; `folder` is another copy of the chart."""
        self._count += 1
        file = self._folder / f"values-{self._count}.yaml"
        file.write_text(yaml.safe_dump(values))
        name, space = RELEASES[chart]
        return self.run("template", release or name, folder or CHARTS / chart, "--namespace", namespace or space,
                        "--kube-version", KUBERNETES, "--values", file)  # fmt: skip

    def text(self, chart: str, values: Tree, **more: Any) -> str:
        ran = self.template(chart, values, **more)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def render(self, chart: str, values: Tree, **more: Any) -> list[Tree]:
        return documents(self.text(chart, values, **more))

    def notes(self, chart: str, values: Tree) -> str:
        """What NOTES.txt says. Helm shows it only with a cluster at hand, so a copy of the chart shows it as an object."""
        copied = self._folder / f"noted-{self._count}"
        shutil.copytree(CHARTS / chart, copied)
        notes = copied / "templates" / "NOTES.txt"
        (copied / "templates" / "_notes.tpl").write_text('{{ define "notes" }}' + notes.read_text() + "{{ end }}")
        notes.unlink()
        (copied / "templates" / "notes.yaml").write_text(
            'apiVersion: v1\nkind: Notes\nmetadata: {name: notes}\ntext: {{ include "notes" . | quote }}\n'
        )
        return str(of_kind(self.render(chart, values, folder=copied), "Notes")["text"])

    def refusal(self, chart: str, values: Tree, **more: Any) -> str:
        """What it says when it refuses."""
        ran = self.template(chart, values, **more)
        assert ran.returncode != 0, f"rendered:\n{ran.stdout[:500]}"
        assert ran.stdout == ""
        return ran.stderr


def documents(text: str) -> list[Tree]:
    return [one for one in yaml.safe_load_all(text) if one]


def example(chart: str, name: str) -> Tree:
    """The values in helm/CHART/ci, which are also what a reader begins with."""
    return yaml.safe_load((CHARTS / chart / "ci" / f"{name}-values.yaml").read_text())


def laid(values: Tree, *changes: Tree) -> Tree:
    """The values with changes laid over them: mappings merge, anything else replaces; `...` takes a key out."""
    result = copy.deepcopy(values)
    for change in changes:
        _lay(result, change)
    return result


def _lay(below: Tree, above: Tree) -> None:
    for key, value in above.items():
        if value is ...:
            below.pop(key, None)
        elif isinstance(value, dict) and isinstance(below.get(key), dict):
            _lay(below[key], value)
        else:
            below[key] = copy.deepcopy(value)


def of_kind(objects: list[Tree], kind: str, name: str = "") -> Tree:
    """The one object of this kind (whose name ends so)."""
    found = [one for one in objects if one["kind"] == kind and one["metadata"]["name"].endswith(name)]
    assert len(found) == 1, [one["metadata"]["name"] for one in found]
    return found[0]


def kinds(objects: list[Tree]) -> list[str]:
    return sorted(one["kind"] for one in objects)


def pods(objects: list[Tree]) -> Iterator[tuple[str, Tree, Tree]]:
    """(whose, metadata, spec) of every pod that the objects make, those of the webhook's injection too."""
    for one in objects:
        whose = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield whose, one["metadata"], one["spec"]
        elif one["kind"] in ("Deployment", "StatefulSet"):
            yield whose, one["spec"]["template"]["metadata"], one["spec"]["template"]["spec"]
        elif one["kind"] == "CronJob":
            template = one["spec"]["jobTemplate"]["spec"]["template"]
            yield whose, template["metadata"], template["spec"]


def containers(spec: Tree) -> list[Tree]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def strings(tree: object) -> Iterator[str]:
    """Every text in a piece of YAML."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield str(key)
            yield from strings(value)
    elif isinstance(tree, list):
        for one in tree:
            yield from strings(one)
    elif isinstance(tree, str):
        yield tree


def as_json(tree: object) -> str:
    return json.dumps(tree, sort_keys=True)
