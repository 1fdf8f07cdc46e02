"""The demo's world (keys, people, users, settings), made once in a test run and copied for each deployment."""

import atexit
import functools
import json
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from sidecar.demo import world
from sidecar.demo.pki import Pair
from sidecar.demo.processes import free_port
from sidecar.demo.world import World

ROOT = Path(__file__).resolve().parents[1]
POLICIES = ROOT / "policies"
Tree = dict[str, object]


@functools.cache
def _template() -> World:
    folder = Path(tempfile.mkdtemp(prefix="customhouse-world-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return world.make(folder, time.time, POLICIES)


def make_world(folder: Path) -> World:
    """A world of its own in a new folder, with free ports."""
    made = _template()
    shutil.copytree(made.folder, folder, dirs_exist_ok=True)
    moved = {name: Pair(folder / "tls" / pair.cert.name, folder / "tls" / pair.key.name)
             for name, pair in made.certificates.items()}  # fmt: skip
    ports = {name: free_port() for name in made.ports}
    for file in folder.glob("*.yaml"):
        text = file.read_text()
        for name, port in made.ports.items():
            text = text.replace(f":{port}", f":{{{name}}}")
        for name, port in ports.items():
            text = text.replace(f":{{{name}}}", f":{port}")
        file.write_text(text)
    return replace(made, folder=folder, ports=ports, certificates=moved, ca=folder / "ca.pem", tokens=dict(made.tokens),
                   desk=replace(made.desk, folder=folder))  # fmt: skip


def changed(tree: Tree, changes: dict[str, object]) -> Tree:
    """The tree with dotted keys set; None takes a key away."""
    copy: Tree = json.loads(json.dumps(tree))
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        place: Tree = copy
        for parent in parents:
            place = place.setdefault(parent, {})  # type: ignore[assignment]
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return copy
