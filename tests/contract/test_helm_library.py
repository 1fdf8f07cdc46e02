"""A team's own chart that takes the container from this one: as its README says."""

import re
import shutil

import pytest
import yaml
from helm_matrix import OPA
from helm_parts import CHARTS, KUBERNETES, Helm, documents, example, laid, of_kind

README = (CHARTS / "sidecar" / "README.md").read_text()


@pytest.fixture(scope="module")
def helm(needs, tmp_path_factory) -> Helm:
    return Helm(needs("helm", "run `make tools`"), tmp_path_factory.mktemp("helm"))


def shown(name: str) -> str:
    """The file that the README shows under this name."""
    found = re.search(rf"```yaml\n# {re.escape(name)}\n(.*?)```", README, re.DOTALL)
    assert found, name
    return found[1]


@pytest.fixture
def team(tmp_path):
    """The team's chart, its dependency beside it as `helm dependency update` would put it there."""
    folder = tmp_path / "profiles"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text(shown("Chart.yaml"))
    (folder / "templates" / "statefulset.yaml").write_text(shown("templates/statefulset.yaml"))
    shutil.copytree(CHARTS / "sidecar", folder / "charts" / "customhouse-sidecar")
    return folder


def rendered(helm, team, values):
    file = team / "values.yaml"
    file.write_text(yaml.safe_dump({"guard": values}))
    ran = helm.run("template", "profiles", team, "--namespace", "profiles", "--kube-version", KUBERNETES)
    assert ran.returncode == 0, ran.stderr
    return documents(ran.stdout)


def test_the_container_is_first_stays_and_gates_the_service(helm, team):
    objects = rendered(helm, team, example("sidecar", "sidecar"))
    spec = of_kind(objects, "StatefulSet")["spec"]
    pod = spec["template"]["spec"]
    first = pod["initContainers"][0]
    assert first["name"] == "customhouse"
    assert first["restartPolicy"] == "Always", "a native sidecar: starts before the service, ends after it"
    assert first["startupProbe"]["exec"]["command"]
    assert [one["metadata"]["name"] for one in spec["volumeClaimTemplates"]] == ["customhouse-spool"]
    volumes = {one["name"] for one in pod["volumes"]} | {"customhouse-spool"}
    assert {one["name"] for one in first["volumeMounts"]} <= volumes
    assert pod["securityContext"]["fsGroup"] == 65532, "or it could not read its own keys"
    assert pod["enableServiceLinks"] is False


def test_opa_comes_before_it(helm, team):
    objects = rendered(helm, team, laid(example("sidecar", "sidecar"), OPA))
    names = [one["name"] for one in of_kind(objects, "StatefulSet")["spec"]["template"]["spec"]["initContainers"]]
    assert names == ["customhouse-opa", "customhouse"]


def test_changed_settings_replace_the_team_s_pods(helm, team):
    values = example("sidecar", "sidecar")
    first = of_kind(rendered(helm, team, values), "StatefulSet")["spec"]["template"]["metadata"]["annotations"]
    then = laid(values, {"config": {"limits": {"streams": 64}}})
    assert of_kind(rendered(helm, team, then), "StatefulSet")["spec"]["template"]["metadata"]["annotations"] != first


def test_the_service_leads_to_the_door(helm, team):
    objects = rendered(helm, team, example("sidecar", "sidecar"))
    service = of_kind(objects, "Service", "guard")
    labels = of_kind(objects, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["ports"][0] == {"name": "proxy-0", "port": 443, "targetPort": 8443, "protocol": "TCP"}
