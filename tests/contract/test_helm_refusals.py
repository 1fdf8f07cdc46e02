"""Values that would not hold what the product promises are refused before anything is installed, and say what to mend."""

import pytest
from helm_matrix import EMPTY, OPA, PER_POD, WEBHOOK
from helm_parts import Helm, Tree, example, laid


@pytest.fixture(scope="module")
def helm(needs, tmp_path_factory) -> Helm:
    return Helm(needs("helm", "run `make tools`"), tmp_path_factory.mktemp("helm"))


REFUSED: dict[str, tuple[str, str, Tree, str]] = {
    "an unknown key of the chart": ("sidecar", "gateway", {"replicas": 2}, "additional properties 'replicas'"),
    "an unknown key of sidecar.yaml": (
        "sidecar", "gateway", {"config": {"producer": {"nam": "x"}}}, "at '/config/producer': additional properties 'nam'"),
    "a key of sidecar.yaml that is missing": ("sidecar", "gateway", {"config": {"record": ...}}, "missing property 'record'"),
    "a duration without a unit": (
        "sidecar", "gateway", {"config": {"decision": {"deadline": 50}}}, "'/config/decision/deadline': got number, want string"),
    "an address without a port": (
        "sidecar", "gateway", {"config": {"oversight": {"address": "store"}}}, "at '/config/oversight/address'"),
    "an engine nobody has": ("sidecar", "gateway", {"config": {"decision": {"engine": "cedar"}}}, "'embedded', 'opa'"),
    "a producer shared by pods": (
        "sidecar", "gateway", {"producer": {"nameFrom": "config"}}, "several pods cannot share one producer name"),
    "a producer by pod without names that last": ("sidecar", "gateway", EMPTY, "needs the fixed names of a StatefulSet"),
    "a spool off its volume": (
        "sidecar", "gateway", {"config": {"record": {"spool": "/tmp/spool"}}}, "not on the spool's volume"),
    "no admin socket for the probes": ("sidecar", "gateway", {"config": {"admin": ...}}, "config.admin.socket is missing"),
    "an upstream outside the pod": (
        "sidecar", "sidecar", {"config": {"upstream": {"address": "profiles:50051"}}}, "outside the pod"),
    "a socket that callers cannot reach": (
        "sidecar", "sidecar",
        {"config": {"listen": [{"door": "proxy", "address": "unix:/run/x", "workload": "spiffe://a"}]}}, "in no volume that callers",
    ),
    "a sidecar for nobody": ("sidecar", "sidecar", {"guarded": {"podLabels": ...}}, "guarded.podLabels is missing"),
    "a Service whose variables are settings": (
        "sidecar", "sidecar", {"fullnameOverride": "customhouse"}, "which the sidecar reads as settings"),
    "a privileged container": (
        "sidecar", "gateway", {"securityContext": {"allowPrivilegeEscalation": True}}, "allowPrivilegeEscalation': value must be"),
    "a container as root": ("sidecar", "gateway", {"securityContext": {"runAsUser": 0}}, "runAsUser"),
    "a service account's token": ("sidecar", "gateway", {"serviceAccount": {"automount": True}}, "automount': value must be"),
    "a secret in a variable": (
        "sidecar", "gateway", {"extraEnv": [{"name": "CUSTOMHOUSE_X", "value": "s3cret"}]}, "does not match pattern '^OTEL_'"),
    "a mount from two places": (
        "sidecar", "gateway", {"mounts": [{"name": "a", "secret": {}, "configMap": {}}]}, "maxProperties"),
    "two mounts of one name": (
        "sidecar", "gateway", {"mounts": [{"name": "a", "secret": {"secretName": "x"}}] * 2}, '"a" is there twice'),
    "keys at a URL without a way there": (
        "sidecar", "gateway", {"networkPolicy": {"egress": {"jwks": []}}}, "networkPolicy.egress.jwks is empty"),
    "a service elsewhere without a way there": (
        "sidecar", "gateway", {"networkPolicy": {"egress": {"upstream": []}}}, "networkPolicy.egress.upstream is empty"),
    "callers that are everybody": ("sidecar", "gateway", {"networkPolicy": {"callers": []}}, "networkPolicy.callers is empty"),
    "a monitor without metrics": (
        "sidecar", "gateway",
        {"config": {"metrics": {"listen": "127.0.0.1:9464"}}, "metrics": {"serviceMonitor": {"enabled": True}}},
        "metrics.serviceMonitor needs metrics.listen"),
    "an end that cuts calls off": (
        "sidecar", "gateway", {"config": {"drain": "1m"}, "terminationGracePeriodSeconds": 60}, "give it 15 s more than that"),
    "OPA without a token": ("sidecar", "gateway", laid(OPA, {"opa": {"existingSecret": ""}}), "opa.existingSecret is missing"),
    "OPA that asks for none": (
        "sidecar", "gateway", laid(OPA, {"config": {"decision": {"opa": {"token_file": ...}}}}), "it asks for a token"),
    "OPA without a bundle to read": (
        "sidecar", "gateway",
        laid(OPA, {"config": {"policy": {"bundle": {"file": ..., "folder": "policy"}}}}), "OPA in the pod reads the bundle from"),
    "a webhook in the namespace it guards": (
        "sidecar", "sidecar", laid(WEBHOOK, {"webhook": {"namespace": "profiles"}}), 'another namespace than "profiles"'),
    "a webhook the API server does not know": (
        "sidecar", "sidecar", laid(WEBHOOK, {"webhook": {"caBundle": ""}}), "exactly one of webhook.caBundle"),
    "a webhook with a private key in its values": (
        "sidecar", "sidecar", laid(WEBHOOK, {"webhook": {"caBundle": "-----BEGIN PRIVATE KEY-----"}}), "caBundle"),
    "one claim for many pods": (
        "sidecar", "sidecar", laid(WEBHOOK, {"spool": {"persistence": {"existingClaim": "x"}}}), "one claim for one pod"),
    "a webhook before a gateway": ("sidecar", "gateway", WEBHOOK, "the webhook is for mode sidecar"),
    "scaling what is not ours": ("sidecar", "sidecar", {"autoscaling": {"enabled": True}}, "autoscaling is for mode gateway"),
    "a ledger beside its secret": (
        "sidecar", "ledger", {"ledger": {"config": {"secret": "/var/lib/customhouse/secret"}}}, "beside its database"),
    "a ledger for everybody": ("sidecar", "ledger", {"ledger": {"sidecars": []}}, "sidecars must reach the ledger"),
    "an unknown key of ledger.yaml": ("sidecar", "ledger", {"ledger": {"config": {"holds": "1h"}}}, "'holds' not allowed"),
    "two stores": ("oversight", "oversight", {"replicaCount": 2}, "at '/replicaCount': value must be 1"),
    "no store": ("oversight", "oversight", {"replicaCount": 0}, "at '/replicaCount': value must be 1"),
    "an unknown key of oversight.yaml": ("oversight", "oversight", {"config": {"wit": {}}}, "additional properties 'wit'"),
    "records off the volume": (
        "oversight", "oversight", {"config": {"storage": {"sqlite": "/tmp/r"}}}, 'config.storage.sqlite is "/tmp/r", which is not'),
    "the log's key on the volume": (
        "oversight", "oversight", {"config": {"log": {"key": "/var/lib/customhouse/log.pem"}}}, "whoever takes the volume"),
    "one port for sidecars and reviewers": (
        "oversight", "oversight", {"config": {"listen": {"query": "0.0.0.0:9443"}}}, "three ports"),
    "listeners nobody reaches": (
        "oversight", "oversight", {"config": {"listen": {"append": "127.0.0.1:9443"}}}, "nobody outside the pod reaches"),
    "a store open to everybody": ("oversight", "oversight", {"networkPolicy": {"sidecars": []}}, "would let everybody in"),
    "a backup that no node would run": (
        "oversight", "oversight", {"persistence": {"accessModes": ["ReadWriteOncePod"]}}, "lets no backup run"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_and_said(helm, case):
    chart, name, change, said = REFUSED[case]
    assert said in helm.refusal(chart, laid(example(chart, name), change))


def test_without_values_it_says_what_is_missing(helm):
    assert "at '/config': missing properties 'producer'" in helm.refusal("sidecar", {})
    assert "at '/config': missing properties 'log', 'storage'" in helm.refusal("oversight", {})


def test_the_store_is_not_put_into_the_default_namespace(helm):
    values = laid(example("oversight", "oversight"), {"namespaceOverride": ""})
    assert "a namespace of its own" in helm.refusal("oversight", values, namespace="default")


@pytest.mark.parametrize(("drain", "grace"), [(..., 45), ("30s", 45), ("500ms", 16), ("1m", 75), ("1.5m", 105)])
def test_a_pod_s_end_that_is_long_enough_is_accepted(helm, drain, grace):
    change = {"config": {"drain": drain}, "terminationGracePeriodSeconds": grace}
    helm.text("sidecar", laid(example("sidecar", "gateway"), change))


def test_what_is_refused_is_refused_for_that_alone(helm):
    """The examples that the cases change are accepted as they are."""
    for chart, name in {(chart, name) for chart, name, _, _ in REFUSED.values()}:
        helm.text(chart, example(chart, name))
    helm.text("sidecar", laid(example("sidecar", "sidecar"), WEBHOOK, PER_POD, OPA))
