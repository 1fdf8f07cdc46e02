"""Attacks by way of a pod: what would reach the sidecar's own volumes without naming them."""

import base64
import json

import pytest

from sidecar.administration.injection import PREFIX, Injection, Refused, answer, changes

pytestmark = pytest.mark.unit
OURS = Injection(
    containers=[{"name": PREFIX, "volumeMounts": [{"name": f"{PREFIX}-spool"}, {"name": f"{PREFIX}keys"}]}],
    volumes=[{"name": f"{PREFIX}-data", "persistentVolumeClaim": {"claimName": "profiles-spool"}},
             {"name": f"{PREFIX}keys", "secret": {"secretName": "keys"}}],
    annotations={}, shared=frozenset(), fs_group=None,
)  # fmt: skip
SPOOL = {"name": f"{PREFIX}-spool", "persistentVolumeClaim": {"claimName": "own-claim"}}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"volumes": [SPOOL, {"name": "mine", "persistentVolumeClaim": {"claimName": "own-claim"}}]}, "own-claim"),
        ({"volumes": [SPOOL, {"name": "mine", "persistentVolumeClaim": {"claimName": "profiles-spool"}}]}, "profiles-spool"),
        ({"volumes": [SPOOL, {"name": "mine", "persistentVolumeClaim": {"claimName": "customhouse-spool-profiles-0"}}]},
         "customhouse-spool-profiles-0"),
        ({"volumes": [SPOOL, {"name": "mine", "persistentVolumeClaim": {"claimName": "profiles-0-customhouse-spool"}}]},
         "profiles-0-customhouse-spool"),
        ({"volumes": [SPOOL, {"name": "mine", "hostPath": {"path": "/var/lib/kubelet/pods"}}]}, "folder of the host"),
        ({"volumes": [SPOOL], "containers": [{"name": "a", "securityContext": {"capabilities": {"add": ["KILL", "CAP_sys_admin"]}}}]}, "CAP_sys_admin"),
        ({"volumes": [SPOOL], "containers": [{"name": "a", "volumeMounts": [{"name": f"{PREFIX}keys"}]}]}, "mounts"),
    ],
)  # fmt: skip
def test_a_pod_that_brings_the_sidecars_volumes_under_another_name_is_refused(spec, said):
    with pytest.raises(Refused, match=said):
        changes({"spec": spec}, OURS)


def test_a_pod_with_volumes_of_its_own_is_guarded():
    plain = {"name": "a", "securityContext": {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}
    mine = {"name": "mine", "persistentVolumeClaim": {"claimName": "mine"}}
    assert changes(
        {"spec": {"volumes": [SPOOL, mine, {"name": "odd", "persistentVolumeClaim": None}], "containers": [plain]}},
        OURS,
    )


def debugging(**container: object) -> dict:
    request = {
        "uid": "u", "operation": "UPDATE", "subResource": "ephemeralcontainers", "kind": {"kind": "Pod"},
        "object": {"spec": {"volumes": [SPOOL], "ephemeralContainers": [{"name": "debug", **container}]}},
    }  # fmt: skip
    body = json.dumps({"apiVersion": "admission.k8s.io/v1", "request": request}).encode()
    found: dict = json.loads(answer(body, OURS))["response"]
    return found


@pytest.mark.parametrize("container", [
    {"targetContainerName": PREFIX}, {"targetContainerName": f"{PREFIX}-opa"}, {"name": f"{PREFIX}-debug"},
    {"securityContext": {"privileged": True}}, {"volumeMounts": [{"name": f"{PREFIX}-spool"}]},
    {"envFrom": [{"secretRef": {"name": "keys"}}]}, {"securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}},
])  # fmt: skip
def test_nobody_debugs_their_way_into_the_sidecar(container):
    assert debugging(**container)["allowed"] is False


def test_the_service_itself_may_be_debugged_and_its_pod_is_not_changed():
    found = debugging(targetContainerName="profiles")
    assert (found["allowed"], base64.b64decode(found["patch"])) == (True, b"[]")
