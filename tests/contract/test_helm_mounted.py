"""A pod's file system as kubelet lays it out, from the rendered chart: the program reads every file that the settings name.

Secrets and ConfigMaps are mounted as links to a folder that is swapped as a whole; here that is made by hand, with the
demo's keys, people, users and policies.
"""

import shutil
from pathlib import Path

import pytest
import yaml
from command_line import Shell
from helm_parts import Helm, example, laid, of_kind
from worlds import POLICIES, make_world

FOLDERS = ("keys", "tls")


@pytest.fixture
def world(tmp_path, shell):
    made = make_world(tmp_path / "world")
    assert shell("policy", "build", POLICIES, "-o", made.folder / "bundle.tar.gz").code == 0
    return made.folder


def moved(tree, world: Path):
    """The settings with each path below a mount: what stands in the demo's top folder is in the mount `files`."""
    if isinstance(tree, dict):
        return {key: moved(value, world) for key, value in tree.items()}
    if isinstance(tree, list):
        return [moved(one, world) for one in tree]
    if isinstance(tree, str) and "/" not in tree and (world / tree).exists():
        return f"files/{tree}"
    return tree


def settings(world: Path):
    tree = moved(yaml.safe_load((world / "sidecar.yaml").read_text()), world)
    tree["policy"] = {"bundle": {"file": "files/bundle.tar.gz"}}
    tree["record"] = {"spool": "/var/lib/customhouse/spool"}
    tree["admin"] = {"socket": "/run/customhouse/admin"}
    tree["upstream"]["address"] = "127.0.0.1:50051"
    tree["oversight"] |= {"address": "store:9443", "keys": "store:9444"}
    tree["ledger"]["address"] = "ledger:443"
    tree["listen"][0]["address"] = "0.0.0.0:8443"
    return tree


def mount(source: Path, target: Path, names: list[str]) -> None:
    """As kubelet's atomic writer: the files in a folder of their own, `..data` a link to it, each name a link through that."""
    real = target / "..2026_11_23_04_40_30.1234567890"
    real.mkdir(parents=True)
    (target / "..data").symlink_to(real.name)
    for name in names:
        if (source / name).is_dir():
            shutil.copytree(source / name, real / name)
        else:
            shutil.copyfile(source / name, real / name)
            (real / name).chmod(0o440)
        (target / name).symlink_to(Path("..data") / name)


@pytest.fixture
def pod(needs, world, tmp_path):
    """(settings file, folder) of the pod that the chart renders."""
    helm = Helm(needs("helm", "run `make tools`"), tmp_path)
    values = laid(example("sidecar", "sidecar"), {
        "config": dict.fromkeys(example("sidecar", "sidecar")["config"], ...),
    })  # fmt: skip
    values["config"] = settings(world)
    values["mounts"] = [{"name": name, "secret": {"secretName": name}} for name in (*FOLDERS, "files")]
    values["networkPolicy"]["egress"] = {"ledger": [{"podSelector": {}}]}
    text = of_kind(helm.render("sidecar", values), "ConfigMap", "sidecar")["data"]["sidecar.yaml"]
    root = tmp_path / "etc"
    for name in FOLDERS:
        mount(world / name, root / name, sorted(one.name for one in (world / name).iterdir()))
    mount(world, root / "files", sorted(one.name for one in world.iterdir() if one.name not in FOLDERS))
    for place in ("/var/lib/customhouse", "/run/customhouse"):
        (tmp_path / place.strip("/")).mkdir(parents=True)
        text = text.replace(place, str(tmp_path / place.strip("/")))
    (root / "sidecar.yaml").write_text(text)
    return root


def test_the_program_reads_everything_the_chart_mounts(pod, shell: Shell):
    ran = shell("check-config", "--config", pod / "sidecar.yaml")
    assert ran.code == 0, ran.err
    for part in ("directory", "subject index", "policy", "methods", "issuer", "revoked", "records", "listener"):
        assert part in ran.out


def test_a_mount_that_is_forgotten_is_said(pod, shell: Shell):
    shutil.rmtree(pod / "keys")
    said = shell.refused("check-config", "--config", pod / "sidecar.yaml")
    assert "keys/producer.pem" in said
