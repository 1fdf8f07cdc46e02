"""The examples for Oracle Cloud: every file is read, rendered or checked for what it lets through."""

import json
import re
from pathlib import Path

import pytest
import yaml
from helm_parts import ROOT, Helm, kinds, of_kind, strings

from sidecar.settings.ledger import LedgerSettings
from sidecar.settings.loader import load
from sidecar.settings.oversight import OversightSettings
from sidecar.settings.sidecar import SidecarSettings

OCI = ROOT / "deploy" / "oci"
MODELS = {"sidecar": SidecarSettings, "oversight": OversightSettings, "ledger": LedgerSettings}
CHART = {"sidecar": ("sidecar", "guard", "profiles"), "oversight": ("oversight", "oversight", "customhouse-oversight"),
         "ledger": ("sidecar", "ledger", "customhouse-ledger")}  # fmt: skip


@pytest.fixture(scope="module")
def helm(needs, tmp_path_factory) -> Helm:
    return Helm(needs("helm", "run `make tools`"), tmp_path_factory.mktemp("helm"))


def values(name: str):
    return yaml.safe_load((OCI / "oke" / f"{name}-values.yaml").read_text())


def rendered(helm, name: str):
    chart, release, namespace = CHART[name]
    return helm.render(chart, values(name), release=release, namespace=namespace)


def test_there_is_no_file_that_nobody_looks_at():
    found = {str(one.relative_to(OCI)) for one in OCI.rglob("*") if one.is_file()}
    assert found == {
        "README.md", "oke/namespaces.yaml", "oke/secret-provider-classes.yaml",
        *(f"oke/{name}-values.yaml" for name in CHART), *(f"host/{name}.yaml" for name in MODELS),
        *(f"network/{name}.json" for name in ("nsg-upstream", "nsg-sidecar", "nsg-oversight", "nsg-ledger", "security-list")),
    }  # fmt: skip


@pytest.mark.parametrize("name", CHART)
def test_the_values_are_rendered(helm, name):
    assert "StatefulSet" in kinds(rendered(helm, name)) or name == "sidecar"


@pytest.mark.parametrize("name", MODELS)
def test_a_host_s_settings_are_read_by_the_program(name):
    load(OCI / "host" / f"{name}.yaml", MODELS[name], {})


@pytest.mark.parametrize("name", MODELS)
def test_a_host_s_settings_are_where_its_unit_lets_it_write(name):
    unit = (ROOT / "systemd" / f"customhouse-{name}.service").read_text()
    assert f"/etc/customhouse/{name}/{name}.yaml" in unit
    for text in strings(yaml.safe_load((OCI / "host" / f"{name}.yaml").read_text())):
        if text.startswith("/"):
            assert re.match(rf"/(var/lib|run)/customhouse-{name}/", text), text


def rules(name: str):
    found = json.loads((OCI / "network" / f"{name}.json").read_text())
    for one in found:
        peer = "source" if one["direction"] == "INGRESS" else "destination"
        options = one["tcpOptions"] if one["protocol"] == "6" else one["udpOptions"]
        assert set(one) == {"direction", "protocol", peer, f"{peer}Type", "isStateless", "description",
                            "tcpOptions" if one["protocol"] == "6" else "udpOptions"}  # fmt: skip
        assert one["isStateless"] is False
        assert 1 <= len(one["description"]) <= 255
        span = options["destinationPortRange"]
        yield one["direction"], one[peer], one[f"{peer}Type"], span["min"], span["max"]


def test_the_service_is_reached_by_the_sidecar_alone():
    assert list(rules("nsg-upstream")) == [("INGRESS", "${NSG_SIDECAR}", "NETWORK_SECURITY_GROUP", 50051, 50051)]
    nothing = json.loads((OCI / "network" / "security-list.json").read_text())
    assert nothing == {"ingressSecurityRules": [], "egressSecurityRules": []}, (
        "what a security list allows, no group takes away"
    )


def test_nobody_is_everybody():
    for name in ("nsg-upstream", "nsg-sidecar", "nsg-oversight", "nsg-ledger"):
        found = list(rules(name))
        assert 1 <= len(found) <= 25, "as many as one call of the API takes"
        for _, peer, kind, _, _ in found:
            assert peer not in ("0.0.0.0/0", "::/0")
            assert kind == ("NETWORK_SECURITY_GROUP" if peer.startswith("${NSG_") else "CIDR_BLOCK")


def test_the_store_is_appended_to_by_sidecars_asked_by_reviewers_and_asks_nobody():
    assert {(peer, low, high) for _, peer, _, low, high in rules("nsg-oversight")} == {
        ("${NSG_SIDECAR}", 9443, 9444), ("${NSG_REVIEWERS}", 9445, 9445),
    }  # fmt: skip
    assert {way for way, *_ in rules("nsg-oversight")} == {"INGRESS"}
    assert {way for way, *_ in rules("nsg-ledger")} == {"INGRESS"}


@pytest.mark.parametrize("tier", ["sidecar", "oversight", "ledger"])
def test_the_ports_are_those_of_the_settings(tier):
    """Each listener's port has a rule that lets somebody in, and no rule is for a port where nobody listens."""
    tree = yaml.safe_load((OCI / "host" / f"{tier}.yaml").read_text())
    listen = tree["listen"]
    addresses = (
        [one["address"] for one in listen] if isinstance(listen, list)
        else [value for key, value in listen.items() if key != "tls"]
    )  # fmt: skip
    addresses += [tree["metrics"]["listen"]] if "metrics" in tree else []
    ports = {int(one.rpartition(":")[2]) for one in addresses}
    opened = {
        port for way, _, _, low, high in rules(f"nsg-{tier}") if way == "INGRESS" for port in range(low, high + 1)
    }
    assert opened == ports


def test_every_secret_that_is_mounted_is_fetched_and_no_other():
    classes = {
        one["metadata"]["name"]: one
        for one in yaml.safe_load_all((OCI / "oke" / "secret-provider-classes.yaml").read_text())
    }
    for name, space in (("sidecar", "profiles"), ("oversight", "customhouse-oversight")):
        (mount,) = [one for one in values(name)["mounts"] if "csi" in one]
        driver = classes.pop(mount["csi"]["volumeAttributes"]["secretProviderClass"])
        assert driver["metadata"]["namespace"] == space
        files = {one["fileName"] for one in yaml.safe_load(driver["spec"]["parameters"]["secrets"])}
        named = {text.removeprefix("vault/") for text in strings(values(name)["config"]) if text.startswith("vault/")}
        assert files == named
    assert not classes
    vaults = re.findall(r"vaultId: (\S+)", (OCI / "oke" / "secret-provider-classes.yaml").read_text())
    assert len(set(vaults)) == 2, "the store's keys and the sidecars' are not in one vault"


@pytest.mark.parametrize("name", CHART)
def test_every_path_of_the_settings_is_mounted(name):
    """Or the pod would wait, or stop, at its first start."""
    tree = values(name)
    config = tree["ledger"]["config"] if name == "ledger" else tree["config"]
    mounts = {one["name"] for one in tree["mounts"]}
    for text in strings(config):
        if re.fullmatch(r"[a-z-]+/[A-Za-z0-9._/-]+", text) and not text.endswith("/log"):
            assert text.partition("/")[0] in mounts, text


def test_the_namespaces_are_those_of_the_values(helm):
    spaces = {
        one["metadata"]["name"]: one["metadata"]["labels"]
        for one in yaml.safe_load_all((OCI / "oke" / "namespaces.yaml").read_text())
    }
    assert {space for _, _, space in CHART.values()} | {values("sidecar")["webhook"]["namespace"]} <= set(spaces)
    assert all(labels == {"pod-security.kubernetes.io/enforce": "restricted"} for labels in spaces.values())
    for name in CHART:
        for one in rendered(helm, name):
            assert one["metadata"].get("namespace", CHART[name][2]) in spaces


def test_the_sidecar_finds_store_and_ledger_by_the_names_their_charts_give_them(helm):
    config = values("sidecar")["config"]
    store = of_kind(rendered(helm, "oversight"), "Service")
    ledger = of_kind(rendered(helm, "ledger"), "Service")
    assert config["oversight"]["address"] == f"{store['metadata']['name']}.{store['metadata']['namespace']}:9443"
    assert {one["port"] for one in store["spec"]["ports"]} >= {9443, 9444}
    assert (
        config["ledger"]["address"]
        == f"{ledger['metadata']['name']}.customhouse-ledger:{ledger['spec']['ports'][0]['port']}"
    )


def test_the_commands_of_the_readme_name_files_that_exist():
    """From the root of the repository, as it says."""
    text = (OCI / "README.md").read_text()
    (loop,) = re.findall(r"for tier in ([a-z ]+);", text)
    said = "".join(text.replace("$tier", tier) for tier in loop.split())
    for name in re.findall(r"(?<![/\w])(?:deploy/oci|systemd|helm)/[\w./-]+\b", said):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"(?:file://|< |-f )([\w.][\w./-]*)", said):
        assert (ROOT / name).exists(), name


def test_there_is_no_address_of_a_real_tenancy():
    for one in OCI.rglob("*"):
        if one.is_file():
            assert not re.search(r"ocid1\.[a-z]+\.oc1\.\.[a-z0-9]{20}", Path(one).read_text()), one
