"""What the charts tell Prometheus: alerts and dashboards of `operations/` hold for what it finds through them."""

import re
import socket
import subprocess
import sys

import pytest
import yaml
from helm_matrix import MONITORED, SOCKET
from helm_parts import ROOT, Helm, Tree, documents, example, laid, of_kind

SCRAPED: Tree = {
    "config": {"metrics": {"listen": "0.0.0.0:9464"}}, "networkPolicy": {"scrapers": [{"namespaceSelector": {}}]},
}  # fmt: skip
LEDGER_SCRAPED: Tree = {"ledger": {"config": SCRAPED["config"]}, "networkPolicy": SCRAPED["networkPolicy"]}
CASES = {
    "customhouse-sidecar": ("sidecar", laid(example("sidecar", "sidecar"), MONITORED)),
    "customhouse-ledger": ("sidecar", laid(example("sidecar", "ledger"), MONITORED, LEDGER_SCRAPED)),
    "customhouse-oversight": ("oversight", laid(example("oversight", "oversight"), MONITORED, SCRAPED)),
}
"""Process, as alerts call its job -> the chart and values that run and watch it."""
RULES = yaml.safe_load((ROOT / "operations/alerts/customhouse.yaml").read_text())["groups"]
every_process = pytest.mark.parametrize("process", CASES)


@pytest.fixture(scope="module")
def helm(needs, tmp_path_factory) -> Helm:
    return Helm(needs("helm", "run `make tools`"), tmp_path_factory.mktemp("helm"))


@every_process
def test_the_job_is_named_as_alerts_and_dashboards_look_for_it(helm, process):
    """By default the operator names a job after the Service, which begins with the release's name."""
    (endpoint,) = of_kind(helm.render(*CASES[process]), "ServiceMonitor")["spec"]["endpoints"]
    (job,) = [one["replacement"] for one in endpoint["relabelings"] if one["targetLabel"] == "job"]
    texts = [(ROOT / "operations/alerts/customhouse.yaml").read_text()]
    texts += [file.read_text() for file in (ROOT / "operations/dashboards").glob("*.json")]
    looked_for = {one for text in texts for one in re.findall(r'job=~\\?"([^"\\]+)', text) if process in one}
    assert looked_for
    assert all(re.fullmatch(one, job) for one in looked_for)


@every_process
def test_a_monitor_finds_a_port_of_the_service(helm, process):
    objects = helm.render(*CASES[process])
    monitor, service = of_kind(objects, "ServiceMonitor"), of_kind(objects, "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {one["port"] for one in monitor["spec"]["endpoints"]} <= {one["name"] for one in service["spec"]["ports"]}


def test_a_sidecar_with_doors_on_sockets_alone_is_scraped_too(helm):
    objects = helm.render("sidecar", laid(example("sidecar", "sidecar"), MONITORED, SOCKET))
    assert [one["name"] for one in of_kind(objects, "Service")["spec"]["ports"]] == ["metrics"]


@every_process
def test_the_rules_are_those_that_have_runbooks_and_tests(helm, process):
    rule = of_kind(helm.render(*CASES[process]), "PrometheusRule")
    assert rule["spec"]["groups"] == [one for one in RULES if one["name"] == process]


def test_rules_of_one_s_own_take_their_place(helm):
    mine = [{"name": "mine", "rules": [{"alert": "A", "expr": "up == 0"}]}]
    for process in ("customhouse-sidecar", "customhouse-oversight"):
        chart, values = CASES[process]
        changed = laid(values, {"metrics": {"prometheusRule": {"groups": mine}}})
        assert of_kind(helm.render(chart, changed), "PrometheusRule")["spec"]["groups"] == mine


@pytest.mark.parametrize(
    ("process", "change", "said"),
    [
        ("customhouse-sidecar", {"service": {"enabled": False}}, "by the chart's Service"),
        ("customhouse-oversight", {"service": {"enabled": False}}, "by the chart's Service"),
        ("customhouse-sidecar", {"networkPolicy": {"scrapers": []}}, "needs networkPolicy.scrapers"),
        ("customhouse-oversight", {"networkPolicy": {"scrapers": []}}, "needs networkPolicy.scrapers"),
    ],
)
def test_a_monitor_that_would_see_nothing_is_refused(helm, process, change, said):
    chart, values = CASES[process]
    assert said in helm.refusal(chart, laid(values, change))


def test_the_ledger_sends_otlp_where_it_is_told(helm):
    env = [{"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "https://collector.monitoring:4317"}]
    rule = {"to": [{"podSelector": {}}], "ports": [{"protocol": "TCP", "port": 4317}]}
    values = laid(example("sidecar", "ledger"), {"extraEnv": env, "networkPolicy": {"extraEgress": [rule]}})
    objects = helm.render("sidecar", values)
    (container,) = of_kind(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert container["env"] == env
    assert of_kind(objects, "NetworkPolicy")["spec"]["egress"] == [rule]


def _way(helm: Helm, values: Tree, port: int) -> subprocess.CompletedProcess[str]:
    """The program of the test pod, run here against a port of this machine."""
    pod = next(one for one in documents(helm.text("sidecar", values)) if one["metadata"]["name"].endswith("-test"))
    (container,) = pod["spec"]["containers"]
    text = re.sub(r'where = \(".*", \d+\)', f'where = ("127.0.0.1", {port})', container["args"][0])
    assert str(port) in text
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("name", "guarded", "reached", "passes"),
    [
        ("gateway", True, True, True),
        ("gateway", True, False, False),
        ("ledger", True, False, True),
        ("ledger", True, True, False),
        ("ledger", False, True, True),
        ("ledger", False, False, False),
    ],
)
def test_helm_test_says_whether_the_way_is_as_the_network_policy_has_it(helm, name, guarded, reached, passes):
    values = laid(example("sidecar", name), {"networkPolicy": {"enabled": guarded}})
    with socket.socket() as held:  # bound, so that nobody else has the port; answered only where it is listened on
        held.bind(("127.0.0.1", 0))
        if reached:
            held.listen()
        ran = _way(helm, values, held.getsockname()[1])
    assert (ran.returncode == 0) is passes, ran.stdout + ran.stderr
