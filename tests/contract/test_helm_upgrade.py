"""Upgrade and roll-back: what changes rolls the pods, what must not change does not, and back is exactly as before."""

import copy
import shutil

import pytest
import yaml
from helm_matrix import MATRIX, OPA, WEBHOOK
from helm_parts import CHARTS, Helm, documents, example, laid, of_kind, pods

CHARTED = [("sidecar", "gateway"), ("sidecar", "ledger"), ("oversight", "oversight")]
TUNED = {
    "gateway": {"config": {"limits": {"streams": 64}}},
    "ledger": {"ledger": {"config": {"hold": "12h"}}},
    "oversight": {"config": {"retention": {"years": 11}}},
}


@pytest.fixture(scope="module")
def helm(needs, tmp_path_factory) -> Helm:
    return Helm(needs("helm", "run `make tools`"), tmp_path_factory.mktemp("helm"))


def marks(text: str) -> dict[str, str]:
    """Workload -> what Kubernetes compares to decide whether its pods have to be replaced."""
    found = {}
    for one in documents(text):
        if one["kind"] in ("StatefulSet", "Deployment"):
            found[one["metadata"]["name"]] = yaml.safe_dump(one["spec"]["template"])
    return found


@pytest.fixture
def next_version(tmp_path):
    """A copy of a chart as its next version."""

    def bump(chart: str):
        folder = tmp_path / chart
        shutil.copytree(CHARTS / chart, folder)
        about = yaml.safe_load((folder / "Chart.yaml").read_text())
        (folder / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": "9.9.9", "appVersion": "9.9.9"}))
        return folder

    return bump


@pytest.mark.parametrize(("chart", "name"), CHARTED)
def test_changed_settings_replace_the_pods(helm, chart, name):
    values = example(chart, name)
    before, after = helm.text(chart, values), helm.text(chart, laid(values, TUNED[name]))
    assert marks(before).keys() == marks(after).keys()
    assert all(marks(before)[one] != marks(after)[one] for one in marks(before))


@pytest.mark.parametrize(("chart", "name"), CHARTED)
def test_what_is_not_about_the_pods_leaves_them_alone(helm, chart, name):
    values = example(chart, name)
    changed = laid(values, {"service": {"annotations": {"a": "b"}}})
    assert helm.text(chart, values) != helm.text(chart, changed)
    assert marks(helm.text(chart, values)) == marks(helm.text(chart, changed))


def test_a_change_of_the_injection_replaces_the_webhook(helm):
    values = laid(example("sidecar", "sidecar"), WEBHOOK)
    assert marks(helm.text("sidecar", values)) != marks(
        helm.text("sidecar", laid(values, {"resources": {"limits": {"memory": "1Gi"}}}))
    )


def test_a_change_of_settings_reaches_injected_pods_by_their_annotation(helm):
    def digest(values) -> str:
        found = of_kind(helm.render("sidecar", laid(values, WEBHOOK)), "ConfigMap", "webhook")
        return yaml.safe_load(found["data"]["injection.yaml"])["annotations"]["customhouse.io/config-sha256"]

    values = example("sidecar", "sidecar")
    assert digest(values) != digest(laid(values, {"config": {"limits": {"streams": 64}}}))


@pytest.mark.parametrize("case", MATRIX)
def test_the_next_version_keeps_selectors_names_and_claims(helm, next_version, case):
    """Kubernetes refuses a workload whose selector or claims changed, and another name is another workload."""
    chart, name, changes = MATRIX[case]
    values = laid(example(chart, name), *changes)

    def fixed(objects):
        return {
            (one["kind"], one["metadata"]["name"]): (
                copy.deepcopy(one["spec"].get("selector")), one["spec"].get("volumeClaimTemplates"), one["spec"].get("serviceName"),
            )
            for one in objects if one["kind"] in ("StatefulSet", "Deployment")
        }  # fmt: skip

    before, after = helm.render(chart, values), helm.render(chart, values, folder=next_version(chart))
    assert fixed(before) == fixed(after)
    assert {(one["kind"], one["metadata"]["name"]) for one in before} == {
        (one["kind"], one["metadata"]["name"]) for one in after
    }
    for _, metadata, _ in pods(after):
        assert "9.9.9" not in str(
            {k: v for k, v in metadata["labels"].items() if k.endswith(("name", "instance", "component"))}
        )


@pytest.mark.parametrize(("chart", "name"), CHARTED)
def test_rolling_back_gives_the_very_same_bytes(helm, next_version, chart, name):
    values = example(chart, name)
    first = helm.text(chart, values)
    other = helm.text(chart, laid(values, TUNED[name]), folder=next_version(chart))
    assert other != first
    assert helm.text(chart, values) == first, "nothing random, no clock, nothing of the release before"


def test_turning_opa_on_and_off_again(helm):
    values = example("sidecar", "gateway")
    first, with_opa = helm.text("sidecar", values), helm.text("sidecar", laid(values, OPA))
    assert marks(first) != marks(with_opa)
    assert helm.text("sidecar", values) == first


@pytest.mark.parametrize(("chart", "name"), CHARTED)
def test_selectors_match_their_own_pods_and_no_others(helm, chart, name):
    objects = helm.render(chart, example(chart, name))
    workload = of_kind(objects, "StatefulSet")
    selector = workload["spec"]["selector"]["matchLabels"]
    matched = [whose for whose, metadata, _ in pods(objects) if selector.items() <= metadata.get("labels", {}).items()]
    assert matched == [f"StatefulSet {workload['metadata']['name']}"]
    service = of_kind(objects, "Service")
    assert service["spec"]["selector"] == selector
