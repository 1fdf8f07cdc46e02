"""The catalogue of metrics, held against what running processes answer: nothing more, nothing less, and as it says."""

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from deployment import SERVICE, Deployment, wait
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from sidecar.demo.processes import free_port, listening
from sidecar.demo.profiles.v1.profiles_pb2 import GetProfileRequest
from sidecar.demo.world import sidecar_command
from sidecar.observability.catalogue import CATALOGUE, PREFIX, Metric, Process

SETTINGS = {"sidecar": "sidecar.yaml", "oversight": "oversight.yaml", "ledger": "ledger.yaml"}


class Pages:
    """The three processes' pages, after some calls."""

    def __init__(self, folder: Path) -> None:
        self.ports: dict[str, int] = {}
        self.deployment = Deployment(folder)
        for process, name in SETTINGS.items():
            file = self.deployment.folder / name
            self.ports[process] = free_port()
            tree = yaml.safe_load(file.read_text()) | {"metrics": {"listen": f"127.0.0.1:{self.ports[process]}"}}
            file.write_text(yaml.safe_dump(tree, sort_keys=False))

    def text(self, process: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[process]}/metrics", timeout=60) as answer:
            return answer.read().decode()

    def samples(self, process: str) -> list[Sample]:
        return [one for family in text_string_to_metric_families(self.text(process)) for one in family.samples]

    def value(self, process: str, name: str, **labels: str) -> float:
        found = [one.value for one in self.samples(process)
                 if one.name == name and labels.items() <= one.labels.items()]  # fmt: skip
        return sum(found) if found else float("nan")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    found = Pages(tmp_path_factory.mktemp("metrics"))
    with found.deployment as running:
        ledger = sidecar_command("ledger", "run", "--config", running.folder / "ledger.yaml")
        running.processes.start("ledger", ledger, listening(running.world.ports["ledger"]))
        request = GetProfileRequest(user_id=1001)
        for _ in range(3):
            running.call("GetProfile", request)
        running.call("GetProfile", request, token=None)
        running.call("/nobody.v1.Nothing/Made", request)
        running.delivered()
        wait(lambda: found.value("oversight", "customhouse_store_unpublished_records") == 0, 60, "all is published")
        yield found


PROCESSES: list[Process] = ["sidecar", "oversight", "ledger"]


def belongs(process: Process) -> dict[str, Metric]:
    return {name: metric for metric in CATALOGUE.values() if process in metric.of for name in metric.samples}


@pytest.mark.parametrize("process", PROCESSES)
def test_a_page_shows_nothing_that_the_catalogue_lacks(pages: Pages, process: Process) -> None:
    known = belongs(process)
    assert {one.name for one in pages.samples(process)} - known.keys() == set()
    for one in pages.samples(process):
        metric = known[one.name]
        wanted = {*metric.labels, "le"} if one.name.endswith("_bucket") else set(metric.labels)
        assert set(one.labels) == wanted, one.name


@pytest.mark.parametrize("process", PROCESSES)
def test_what_the_catalogue_promises_is_on_the_page(pages: Pages, process: Process) -> None:
    shown = {one.name for one in pages.samples(process)}
    for name, metric in belongs(process).items():
        assert metric.sometimes or name in shown, name
    assert pages.value(process, "customhouse_metrics_unreadable") == 0


@pytest.mark.parametrize("process", PROCESSES)
def test_types_and_texts_are_the_catalogues(pages: Pages, process: Process) -> None:
    text = pages.text(process)
    said = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE))
    for metric in belongs(process).values():
        name = f"{metric.name}_total" if metric.kind == "counter" else metric.name
        if name in said:
            assert said[name] == metric.kind
        if metric.name.startswith(PREFIX) and name in helps:
            assert helps[name] == metric.means.replace("\\", "\\\\")


def test_calls_show_what_became_of_them(pages: Pages) -> None:
    method = f"{SERVICE}/GetProfile"
    answered = pages.value("sidecar", "customhouse_calls_total", method=method)
    assert answered == 4
    assert (
        pages.value("sidecar", "rpc_server_call_duration_seconds_count", rpc_method=method, rpc_system_name="grpc") == 4
    )
    assert pages.value("sidecar", "customhouse_calls_total", method="_OTHER") == 1
    denied = pages.value("sidecar", "customhouse_decisions_total", door="proxy", effect="deny")
    assert denied >= 1
    assert pages.value("sidecar", "customhouse_decisions_total") >= 4
    assert pages.value("sidecar", "customhouse_stage_duration_seconds_count", stage="record") >= 4


def test_the_store_has_what_the_sidecar_says_it_took(pages: Pages) -> None:
    taken = pages.value("sidecar", "customhouse_delivery_acknowledged_total")
    assert taken >= 5
    assert pages.value("oversight", "customhouse_store_records_total") >= taken
    assert pages.value("oversight", "customhouse_store_tree_size") >= taken
    assert pages.value("oversight", "customhouse_store_integration_lag_seconds") < 60
    assert pages.value("oversight", "customhouse_store_producers") >= 1
    assert pages.value("oversight", "customhouse_store_free_bytes", place="records") > 0
    assert pages.value("sidecar", "customhouse_store_connected") == 1


def test_certificates_and_keys_have_an_end(pages: Pages) -> None:
    for process in PROCESSES:
        ends = [one for one in pages.samples(process) if one.name == "customhouse_certificate_not_after_seconds"]
        assert ends
        assert all(one.value > 1_600_000_000 for one in ends)
    issuers = {one.labels["issuer"] for one in pages.samples("sidecar") if one.name == "customhouse_jwks_keys"}
    assert len(issuers) == 2
    assert pages.value("sidecar", "customhouse_jwks_left_seconds") > 0


def test_the_log_is_counted(pages: Pages) -> None:
    for process, level in (("sidecar", "warning"), ("oversight", "info"), ("ledger", "info")):
        assert pages.value(process, "customhouse_log_events_total", event="ready", level=level) == 1
