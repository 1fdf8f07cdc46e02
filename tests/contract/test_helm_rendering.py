"""The charts over a matrix of values: linted, rendered, valid to Kubernetes, without privilege and without a secret."""

import functools
import re
import subprocess

import pytest
import yaml
from helm_matrix import MATRIX
from helm_parts import CHARTS, Helm, containers, documents, example, kinds, laid, of_kind, pods, strings

from sidecar.settings.ledger import LedgerSettings
from sidecar.settings.loader import load
from sidecar.settings.oversight import OversightSettings
from sidecar.settings.sidecar import SidecarSettings

UNKNOWN_TO_VALIDATOR = ("ServiceMonitor", "PrometheusRule")
"""Kinds of the Prometheus operator: their schemas come with a cluster, and are not in kubectl-validate."""


@pytest.fixture(scope="module")
def helm(needs, tmp_path_factory) -> Helm:
    return Helm(needs("helm", "run `make tools`"), tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="module")
def rendered(helm):
    @functools.cache
    def render(case: str) -> str:
        chart, name, changes = MATRIX[case]
        return helm.text(chart, laid(example(chart, name), *changes))

    return render


every_case = pytest.mark.parametrize("case", MATRIX)


@pytest.mark.parametrize(
    ("chart", "name"),
    [("sidecar", "sidecar"), ("sidecar", "gateway"), ("sidecar", "ledger"), ("oversight", "oversight")],
)
def test_helm_finds_nothing_to_say(helm, chart, name):
    ran = helm.run("lint", "--strict", CHARTS / chart, "--values", CHARTS / chart / "ci" / f"{name}-values.yaml",
                   "--namespace", "customhouse-oversight")  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "[WARNING]" not in ran.stdout
    assert "[ERROR]" not in ran.stdout


def test_kubernetes_accepts_every_object(needs, rendered, tmp_path):
    validate = needs("kubectl-validate", "run `make tools`")
    skipped = set()
    for number, case in enumerate(MATRIX):
        for place, one in enumerate(documents(rendered(case))):
            if one["kind"] in UNKNOWN_TO_VALIDATOR:
                skipped.add(one["kind"])
                continue
            file = tmp_path / f"{number:02}-{place:02}-{one['kind']}.yaml"
            file.write_text(yaml.safe_dump(one))
    ran = subprocess.run([validate, tmp_path], capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, "\n".join(line for line in (ran.stdout + ran.stderr).splitlines() if "OK" not in line)
    assert skipped == set(UNKNOWN_TO_VALIDATOR), "the list is no longer than it has to be"


def test_the_validator_would_say_so(needs, tmp_path):
    """A test that cannot fail shows nothing: one misspelled key is found."""
    file = tmp_path / "pod.yaml"
    file.write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, imagee: b}]}\n")
    validate = needs("kubectl-validate", "run `make tools`")
    ran = subprocess.run([validate, file], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode != 0
    assert "imagee" in ran.stdout + ran.stderr


def _all_pods(text: str):
    objects = documents(text)
    yield from pods(objects)
    for one in objects:
        if "injection.yaml" in one.get("data", {}):
            tree = yaml.safe_load(one["data"]["injection.yaml"])
            yield "injection", {}, {"containers": [], **tree}


@every_case
def test_every_container_is_restricted(rendered, case):
    """What the Pod Security Standard `restricted` asks for, and a root file system that cannot be written."""
    for whose, _, spec in _all_pods(rendered(case)):
        for one in containers(spec):
            security = one["securityContext"]
            assert security["runAsNonRoot"] is True, whose
            assert security["runAsUser"] > 0, whose
            assert security["readOnlyRootFilesystem"] is True, whose
            assert security["allowPrivilegeEscalation"] is False, whose
            assert security["capabilities"] == {"drop": ["ALL"]}, whose
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}, whose
            assert one["resources"]["limits"]["memory"], whose
            assert one["resources"]["requests"]["cpu"], whose
        if whose != "injection":
            assert spec["automountServiceAccountToken"] is False, whose
            assert spec["securityContext"]["runAsNonRoot"] is True, whose
            assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & set(spec), whose
        assert all("hostPath" not in volume for volume in spec.get("volumes", [])), whose


@every_case
def test_no_object_holds_a_secret(rendered, case):
    for one in documents(rendered(case)):
        assert one["kind"] != "Secret"
        assert not any(re.search(r"PRIVATE KEY|BEGIN CERTIFICATE", text) for text in strings(one))
    for whose, _, spec in _all_pods(rendered(case)):
        for container in containers(spec):
            for variable in container.get("env", []):
                assert "valueFrom" in variable or variable["name"].startswith("OTEL_"), whose
        for volume in spec.get("volumes", []):
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] & 0o007 == 0, f"{whose}: others on the node's disk read it"


@every_case
def test_every_mount_has_its_volume(rendered, case):
    for whose, _, spec in _all_pods(rendered(case)):
        volumes = {one["name"] for one in spec.get("volumes", [])}
        for container in containers(spec):
            for mount in container["volumeMounts"] if "volumeMounts" in container else []:
                claimed = mount["name"] in ("customhouse-spool", "customhouse-data", "data")
                assert claimed or mount["name"] in volumes, f"{whose}: {mount['name']}"


@every_case
def test_the_settings_are_read_by_the_program(rendered, case, tmp_path):
    """The very file in the ConfigMap, by the program's own loader."""
    models = {"sidecar.yaml": SidecarSettings, "ledger.yaml": LedgerSettings, "oversight.yaml": OversightSettings}
    found = 0
    for one in documents(rendered(case)):
        for name, text in (one.get("data") or {}).items():
            if name in models:
                file = tmp_path / name
                file.write_text(text)
                load(file, models[name], {})
                found += 1
    assert found == 1


def test_what_each_mode_makes(rendered):
    around = ["ConfigMap", "NetworkPolicy", "Pod", "PodDisruptionBudget", "Service"]
    assert kinds(documents(rendered("sidecar"))) == around
    gateway = sorted([*around, "Pod", "ServiceAccount", "StatefulSet"])
    assert kinds(documents(rendered("gateway"))) == gateway
    assert "HorizontalPodAutoscaler" in kinds(documents(rendered("gateway, scaled, opa, monitored")))
    assert "HorizontalPodAutoscaler" not in kinds(documents(rendered("gateway")))
    store = kinds(documents(rendered("oversight")))
    assert store == ["ConfigMap", "CronJob", "NetworkPolicy", "NetworkPolicy", "PersistentVolumeClaim", "Pod", "Service",
                     "ServiceAccount", "StatefulSet"]  # fmt: skip


def test_a_spool_outlives_its_pod_unless_somebody_says_otherwise(rendered):
    kept = of_kind(documents(rendered("gateway")), "StatefulSet")["spec"]
    (claim,) = kept["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "customhouse-spool"
    assert kept["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    lost = of_kind(documents(rendered("gateway, one pod, nothing kept")), "Deployment")["spec"]
    assert lost["strategy"] == {"type": "Recreate"}, "two pods would be two producers under one name"
    volumes = {one["name"]: one for one in lost["template"]["spec"]["volumes"]}
    assert "emptyDir" in volumes["customhouse-spool"]


def test_each_pod_of_a_gateway_is_a_producer_of_its_own(rendered):
    spec = of_kind(documents(rendered("gateway")), "StatefulSet")["spec"]["template"]["spec"]
    (name,) = spec["containers"][0]["env"]
    assert name == {"name": "CUSTOMHOUSE_PRODUCER__NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    assert spec["enableServiceLinks"] is False, "a Service's variables would be read as settings"


def test_the_store_is_one_writer_with_an_account_and_a_namespace_of_its_own(rendered):
    objects = documents(rendered("oversight"))
    store = of_kind(objects, "StatefulSet")["spec"]
    assert store["replicas"] == 1
    assert store["podManagementPolicy"] == "OrderedReady"
    assert {one["metadata"]["namespace"] for one in objects} == {"customhouse-oversight"}
    assert store["template"]["spec"]["serviceAccountName"] == of_kind(objects, "ServiceAccount")["metadata"]["name"]
    (data,) = store["volumeClaimTemplates"]
    assert data["metadata"]["name"] == "data"


def test_a_backup_runs_where_the_volume_is_and_holds_no_key(rendered):
    job = of_kind(documents(rendered("oversight")), "CronJob")["spec"]
    assert job["concurrencyPolicy"] == "Forbid"
    spec = job["jobTemplate"]["spec"]["template"]["spec"]
    assert not any("secret" in one for one in spec["volumes"]), "neither the log's key nor the key-encryption key"
    store = of_kind(documents(rendered("oversight")), "StatefulSet")
    (near,) = spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert near["labelSelector"]["matchLabels"] == store["spec"]["selector"]["matchLabels"]
    claims = {one["persistentVolumeClaim"]["claimName"] for one in spec["volumes"] if "persistentVolumeClaim" in one}
    assert f"data-{store['metadata']['name']}-0" in claims
    backup = set(spec["containers"][0]["args"][:2])
    assert backup == {"oversight", "backup"}


def test_probes_ask_the_program_and_not_the_store(rendered):
    """Exit code 1 is "answers, and has something to say": not a reason to take a service down."""
    container = of_kind(documents(rendered("gateway")), "StatefulSet")["spec"]["template"]["spec"]["containers"][0]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        command = container[probe]["exec"]["command"][2]
        for code, alive in ((0, True), (1, True), (2, False), (139, False)):
            stand_in = command.replace("sidecar status --config /etc/customhouse/sidecar.yaml", f"(exit {code})")
            assert (subprocess.run(["sh", "-c", stand_in], check=False).returncode == 0) is alive


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("gateway, one pod, nothing kept", "LOST"),
        ("gateway, one pod, per pod", "LOST when a pod is deleted"),
        ("sidecar, nothing round it", "networkPolicy.enabled is false"),
        ("ledger, first start", "ledger.init=false"),
    ],
)
def test_notes_warn_of_what_was_chosen(helm, case, said):
    chart, name, changes = MATRIX[case]
    assert said in helm.notes(chart, laid(example(chart, name), *changes))


def test_notes_warn_of_nothing_by_default(helm):
    for chart, name in (("sidecar", "sidecar"), ("sidecar", "gateway"), ("oversight", "oversight")):
        notes = helm.notes(chart, example(chart, name))
        assert "WARNING" not in notes
        assert "<no value>" not in notes
