"""What the admission webhook answers, from the very file that the chart makes: pods are guarded, or do not start."""

import base64
import copy
import json

import pytest
import yaml
from helm_matrix import OPA, PER_POD, WEBHOOK
from helm_parts import Helm, example, laid, of_kind
from hypothesis import given
from hypothesis import strategies as st

from sidecar.administration.injection import Injection, Refused, ReviewError, answer, changes, read
from sidecar.errors import ConfigurationError

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"generateName": "profiles-", "labels": {"app": "profiles"}},
    "spec": {
        "containers": [
            {"name": "profiles", "image": "profiles:1", "volumeMounts": [{"name": "data", "mountPath": "/d"}]}
        ],
        "initContainers": [{"name": "migrate", "image": "profiles:1"}],
        "volumes": [{"name": "data", "emptyDir": {}}],
    },
}
CLAIM = {"name": "customhouse-spool", "persistentVolumeClaim": {"claimName": "customhouse-spool-profiles-0"}}


def injection_of(helm: Helm, *changes_) -> dict:
    objects = helm.render("sidecar", laid(example("sidecar", "sidecar"), WEBHOOK, *changes_))
    return yaml.safe_load(of_kind(objects, "ConfigMap", "webhook")["data"]["injection.yaml"])


@pytest.fixture(scope="module")
def trees(needs, tmp_path_factory) -> dict[str, dict]:
    helm = Helm(needs("helm", "run `make tools`"), tmp_path_factory.mktemp("helm"))
    return {
        "claims": injection_of(helm),
        "per pod": injection_of(helm, PER_POD),
        "opa": injection_of(helm, PER_POD, OPA),
    }


@pytest.fixture
def injection(trees) -> Injection:
    return read(trees["per pod"], "injection.yaml")


def review(pod, **more) -> bytes:
    request = {
        "uid": "u-1",
        "operation": "CREATE",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "object": pod,
    }
    return json.dumps(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {**request, **more}}
    ).encode()


def patched(pod, patch):
    """RFC 6902, the one operation that is used: `add` to a member of an object, which sets or replaces it."""
    result = copy.deepcopy(pod)
    for one in patch:
        assert one["op"] == "add"
        *parents, last = one["path"].strip("/").split("/")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {}) if parent == "metadata" else place[parent]
        place[last] = one["value"]
    return result


def refused(pod, injection) -> str:
    response = json.loads(answer(review(pod), injection))["response"]
    assert response["allowed"] is False
    assert "patch" not in response
    return response["status"]["message"]


def with_(**spec):
    return {**copy.deepcopy(POD), "spec": {**copy.deepcopy(POD["spec"]), **spec}}


def test_the_pod_gets_exactly_what_the_chart_rendered_and_keeps_the_rest(trees, injection):
    response = json.loads(answer(review(POD), injection))["response"]
    assert (response["uid"], response["allowed"], response["patchType"]) == ("u-1", True, "JSONPatch")
    after = patched(POD, json.loads(base64.b64decode(response["patch"])))
    tree = trees["per pod"]
    assert after["spec"]["initContainers"] == [*tree["initContainers"], *POD["spec"]["initContainers"]]
    assert after["spec"]["volumes"] == [*tree["volumes"], *POD["spec"]["volumes"]]
    assert after["spec"]["containers"] == POD["spec"]["containers"]
    assert after["metadata"]["annotations"] == tree["annotations"]
    assert after["spec"]["securityContext"] == {"fsGroup": 65532}


def test_a_second_look_changes_nothing(injection):
    once = patched(POD, changes(POD, injection))
    assert patched(once, changes(once, injection)) == once


def test_what_others_did_to_our_container_in_between_is_undone(injection):
    """Kubernetes fills in defaults, another webhook adds a mount: then this one is asked again (reinvocationPolicy)."""
    once = patched(POD, changes(POD, injection))
    meddled = copy.deepcopy(once)
    meddled["spec"]["initContainers"][0] |= {"image": "evil", "terminationMessagePath": "/dev/termination-log"}
    meddled["spec"]["volumes"][0] = {"name": meddled["spec"]["volumes"][0]["name"], "emptyDir": {}}
    assert patched(meddled, changes(meddled, injection)) == once


def test_a_container_under_our_name_is_ours_then(injection):
    own = with_(initContainers=[{"name": "customhouse", "image": "does-nothing"}])
    after = patched(own, changes(own, injection))
    assert [one["name"] for one in after["spec"]["initContainers"]] == ["customhouse"]
    assert after["spec"]["initContainers"][0]["image"] != "does-nothing"


def test_a_group_of_the_pod_s_own_stays(injection):
    own = with_(securityContext={"fsGroup": 2000, "runAsUser": 1000})
    assert patched(own, changes(own, injection))["spec"]["securityContext"] == {"fsGroup": 2000, "runAsUser": 1000}


def test_opa_comes_before_the_sidecar(trees):
    after = patched(POD, changes(POD, read(trees["opa"], "x")))
    assert [one["name"] for one in after["spec"]["initContainers"]] == ["customhouse-opa", "customhouse", "migrate"]


def test_the_claim_of_a_stateful_set_is_the_spool(trees):
    injection = read(trees["claims"], "x")
    pod = with_(volumes=[CLAIM])
    after = patched(pod, changes(pod, injection))
    assert [one for one in after["spec"]["volumes"] if one["name"] == "customhouse-spool"] == [CLAIM]


def test_without_a_claim_it_does_not_start_on_something_less(trees):
    injection = read(trees["claims"], "x")
    assert "brings no claim customhouse-spool" in refused(POD, injection)
    assert "brings no claim" in refused(with_(volumes=[{"name": "customhouse-spool", "emptyDir": {}}]), injection)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"shareProcessNamespace": True}, "shareProcessNamespace"),
        ({"hostPID": True}, "hostPID"),
        ({"hostNetwork": True}, "hostNetwork"),
        ({"containers": [{"name": "a", "securityContext": {"privileged": True}}]}, "privileged"),
        ({"containers": [{"name": "customhouse", "image": "x"}]}, "names that begin with customhouse"),
        ({"initContainers": [{"name": "customhouse-helper"}]}, "names that begin with customhouse"),
        ({"ephemeralContainers": [{"name": "customhouse"}]}, "names that begin with customhouse"),
        ({"containers": [{"name": "a", "volumeMounts": [{"name": "customhouse-producer", "mountPath": "/k"}]}]},
         "mounts customhouse-producer"),
        (
            {"containers": [{"name": "a", "volumeMounts": [{"name": "customhouse-run", "mountPath": "/k"}]}]},
            "mounts customhouse-run",
        ),
        ({"containers": [{"name": "a", "volumeMounts": [{"name": "customhouse-spool", "mountPath": "/k"}]}]}, "mounts customhouse-spool"),
        ({"containers": [{"name": "a", "volumeDevices": [{"name": "customhouse-spool", "devicePath": "/k"}]}]}, "mounts customhouse-spool"),
        ({"volumes": [{"name": "k", "secret": {"secretName": "profiles-producer"}}]}, "Secret profiles-producer"),
        ({"volumes": [{"name": "k", "projected": {"sources": [{"secret": {"name": "profiles-to-upstream"}}]}}]},
         "Secret profiles-to-upstream"),
        ({"containers": [{"name": "a", "env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "profiles-producer", "key": "k"}}}]}]},
         "Secret profiles-producer"),
        ({"containers": [{"name": "a", "envFrom": [{"secretRef": {"name": "profiles-to-store"}}]}]}, "Secret profiles-to-store"),
        ({"volumes": [CLAIM]}, "set up to use another volume"),
    ],
)  # fmt: skip
def test_a_pod_that_reaches_into_the_sidecar_is_refused(injection, spec, said):
    assert said in refused(with_(**spec), injection)


def test_the_socket_s_folder_may_be_shared(injection):
    pod = with_(
        containers=[
            {"name": "a", "volumeMounts": [{"name": "customhouse-sockets", "mountPath": "/run/customhouse/sockets"}]}
        ]
    )
    assert changes(pod, injection)


def test_a_secret_of_a_driver_is_protected_too(trees):
    tree = copy.deepcopy(trees["per pod"])
    volume = {"driver": "secrets-store.csi.k8s.io", "volumeAttributes": {"secretProviderClass": "profiles-vault"}}
    tree["volumes"].append({"name": "customhouse-vault", "csi": volume})
    injection = read(tree, "x")
    assert "profiles-vault" in refused(with_(volumes=[{"name": "k", "csi": volume}]), injection)


@pytest.mark.parametrize(
    "request_",
    [{"operation": "UPDATE"}, {"kind": {"kind": "Deployment"}}, {"kind": None}, {"object": None}, {"object": {"spec": []}},
     {"object": {"spec": {"containers": "a"}}}, {"object": {"spec": {"containers": [1]}}},
     {"object": {"spec": {"containers": [{"name": "a", "volumeMounts": {}}]}}}, {"object": {"spec": {}, "metadata": []}},
     {"object": {"spec": {"securityContext": []}}}, {"object": {"spec": {}, "metadata": {"annotations": []}}}],
)  # fmt: skip
def test_what_is_no_new_pod_is_refused_and_never_let_through(injection, request_):
    response = json.loads(answer(review(POD, **request_), injection))["response"]
    assert response["allowed"] is False


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"apiVersion":"admission.k8s.io/v1","request":{}}',
                                  b'{"apiVersion":"v1","request":{"uid":"a"}}', b"[" * 100_000])  # fmt: skip
def test_what_is_no_review_has_no_answer(injection, body):
    with pytest.raises(ReviewError):
        answer(body, injection)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(
        st.sampled_from(["name", "spec", "containers", "volumes", "initContainers", "volumeMounts", "secret", "metadata",
                         "annotations", "securityContext", "env", "fsGroup", "privileged", "secretName"]), below, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(pod=JSON)
def test_whatever_stands_in_a_pod_there_is_an_answer_and_a_guarded_pod_or_none(trees, pod):
    injection = read(trees["per pod"], "x")
    response = json.loads(answer(review(pod), injection))["response"]
    if response["allowed"]:
        after = patched(pod, json.loads(base64.b64decode(response["patch"])))
        assert after["spec"]["initContainers"][0] == trees["per pod"]["initContainers"][0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"initContainers": []}, "nothing would be guarded"),
        ({"initContainers": [{"name": "other"}]}, "does not begin with customhouse"),
        ({"volumes": [{"name": "customhouse-a"}, {"name": "customhouse-a"}]}, "a name twice"),
        ({"shared": ["customhouse-else"]}, "shares volumes that it does not have"),
        ({"fsGroup": "65532"}, "fsGroup that is no number"),
        ({"annotations": {"a": 1}}, "annotations that are no texts"),
        ({"more": 1}, "no mapping of"),
    ],
)
def test_an_injection_that_would_not_guard_is_refused_at_the_start(trees, change, said):
    with pytest.raises(ConfigurationError, match=said):
        read({**trees["per pod"], **change}, "injection.yaml")


def test_a_refusal_is_an_exception_of_its_own(injection):
    with pytest.raises(Refused):
        changes(with_(hostPID=True), injection)
