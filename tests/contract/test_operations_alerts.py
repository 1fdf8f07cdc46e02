"""Alert rules, dashboards and runbooks, held against the metrics and commands that there are."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml

from sidecar.cli.app import app
from sidecar.observability.catalogue import CATALOGUE, Metric
from sidecar.observability.events import EVENTS

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = ROOT / "operations"
RULES = OPERATIONS / "alerts/customhouse.yaml"
TESTS = OPERATIONS / "alerts/customhouse_test.yaml"
RUNBOOKS = sorted((OPERATIONS / "runbooks").glob("*.md"))
DASHBOARDS = sorted((OPERATIONS / "dashboards").glob("*.json"))
SECTIONS = ["What it means", "What users feel", "What to look at", "What to do", "When to escalate"]
FROM_PROMETHEUS = {"instance", "job"}
SERIES = {name: metric for metric in CATALOGUE.values() for name in metric.samples}
UP = Metric(name="up", kind="gauge", means="Prometheus's own: whether a page could be read", of=("sidecar",))
WORDS = {
    "by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool", "and", "or", "unless", "sum", "max",
    "min", "avg", "count", "topk", "rate", "increase", "histogram_quantile", "predict_linear", "time", "vector", "absent",
    "label_values",
}  # fmt: skip
"""Of PromQL (and Grafana): what is a word and no metric."""


def rules() -> list[dict[str, object]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> Iterator[tuple[str, dict[str, object]]]:
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            yield f"{file.stem}: {panel['title']}", panel


def expressions() -> Iterator[tuple[str, str]]:
    yield from ((str(rule["alert"]), str(rule["expr"])) for rule in rules())
    for name, panel in panels():
        yield from ((name, target["expr"]) for target in panel["targets"])  # type: ignore[attr-defined]
    for file in DASHBOARDS:
        for variable in json.loads(file.read_text())["templating"]["list"]:
            if variable["type"] == "query":
                yield f"{file.stem}: {variable['name']}", variable["query"]["query"]
    for file in RUNBOOKS:
        for code in re.findall(r"`([^`]*customhouse_[^`]*)`", file.read_text()):
            yield file.stem, code


def read(expression: str) -> tuple[set[str], dict[str, set[str]], list[set[str]]]:
    """Metrics; label names matched in each one's braces; groups of labels that aggregations keep or join by."""
    groups = [set(re.findall(r"\w+", one)) for one in
              re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", expression)]  # fmt: skip
    bare = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", expression)
    bare = re.sub(r"(label_values\(.*),\s*\w+\)", r"\1)", bare)
    labels: dict[str, set[str]] = {}
    for name, inside in re.findall(r"([a-zA-Z_:][\w:]*)\s*\{((?:[^{}\"]|\"(?:[^\"\\]|\\.)*\")*)\}", bare):
        labels.setdefault(name, set()).update(
            re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r"\"(?:[^\"\\]|\\.)*\"", '""', inside))
        )
    bare = re.sub(r"\{[^{}]*\}|\[[^\]]*\]", " ", re.sub(r"\"(?:[^\"\\]|\\.)*\"", "", bare))
    names = set(re.findall(r"(?<![\w.$])[a-zA-Z_:][\w:]*", bare)) - WORDS
    return {name for name in names if not re.fullmatch(r"(?:[0-9]+[smhdwy])+|d|inf", name)}, labels, groups


ALL = list(expressions())


@pytest.mark.parametrize(("where", "expression"), ALL, ids=[f"{where}-{place}" for place, (where, _) in enumerate(ALL)])
def test_an_expression_names_metrics_and_labels_that_there_are(where: str, expression: str) -> None:
    names, labels, groups = read(expression)
    assert names, f"{where}: {expression}"
    known = {**SERIES, "up": UP, "customhouse_bundle": UP}
    assert names - known.keys() == set(), f"{where}: {expression}"
    allowed = {label for name in names for label in known[name].labels} | FROM_PROMETHEUS
    allowed |= {"le"} if any(name.endswith("_bucket") for name in names) else set()
    for name, used in labels.items():
        own = {*known[name].labels, *FROM_PROMETHEUS} | ({"le"} if name.endswith("_bucket") else set())
        assert used <= own, f"{where}: {name} has no label {used - own}"
    for group in groups:
        assert group <= allowed, f"{where}: {group - allowed} is no label of {names}"


def test_the_reading_of_expressions_sees_wrong_ones() -> None:
    assert read('sum by (le, stage) (rate(a_bucket{x="b{c}",y=~"z"}[5m] offset 1d)) > 0.5 * b_total')[0] == {
        "a_bucket",
        "b_total",
    }
    assert read('rate(a_total{x="b, y=c"}[5m])')[1] == {"a_total": {"x"}}
    assert read("sum by (wrong) (a) / on (job) b")[2] == [{"wrong"}, {"job"}]


def test_rates_are_of_what_grows_and_of_nothing_else() -> None:
    for where, expression in ALL:
        for name in re.findall(r"\b(?:rate|increase)\(\s*([a-zA-Z_]\w*)", expression):
            assert SERIES[name].kind in ("counter", "histogram"), (where, name)


def test_events_that_expressions_count_are_written() -> None:
    names = [event.name for event in EVENTS]
    for where, expression in ALL:
        for how, pattern in re.findall(r'\bevent(=~?)"((?:[^"\\]|\\.)*)"', expression):
            for one in pattern.split("|") if how == "=~" else [re.escape(pattern)]:
                assert any(re.fullmatch(one, name) for name in names), (where, one)


def test_every_alert_has_its_runbook_and_every_runbook_its_alert() -> None:
    linked = [str(rule["annotations"]["runbook"]) for rule in rules()]  # type: ignore[index]
    assert sorted(linked) == sorted(str(file.relative_to(ROOT)) for file in RUNBOOKS)
    for rule in rules():
        assert rule["alert"] == f"Customhouse{Path(str(rule['annotations']['runbook'])).stem}"  # type: ignore[index]
        assert rule["labels"]["severity"] in ("page", "ticket")  # type: ignore[index]
        assert rule["labels"]["team"] in ("operations", "security")  # type: ignore[index]


@pytest.mark.parametrize("runbook", RUNBOOKS, ids=lambda file: file.stem)
def test_a_runbook_says_everything_and_its_commands_exist(runbook: Path) -> None:
    text = runbook.read_text()
    assert text.startswith(f"# {runbook.stem}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    for section in re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]:
        assert section.strip(), "an empty section"
    for quoted in re.findall(r"`(sidecar [^`]*)`", text):
        check_command(re.sub(r"\s+", " ", quoted), runbook.stem)
    others = {file.stem for file in RUNBOOKS}
    for named in re.findall(r"(?:runbook |As |see |See )([A-Z][a-z]+[A-Z]\w+)", text):
        assert named in others, named


def check_command(quoted: str, where: str) -> None:
    command = typer.main.get_command(app)
    words = quoted.split(" ")[1:]
    while hasattr(command, "commands") and words:
        assert words[0] in command.commands, f"{where}: there is no `{quoted}`"
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), f"{where}: `{quoted}` is no whole command"
    options = {name for one in command.params for name in one.opts}
    for word in words:
        assert not word.startswith("--") or word in options, f"{where}: `{quoted}` has no {word}"


def test_every_alert_is_tested_to_fire_and_to_stay_quiet() -> None:
    fires, quiet = set(), set()
    for one in yaml.safe_load(TESTS.read_text())["tests"]:
        for case in one["alert_rule_test"]:
            (fires if case["exp_alerts"] else quiet).add(case["alertname"])
    alerts = {rule["alert"] for rule in rules()}
    assert fires == alerts
    assert quiet == alerts


def test_series_of_the_rule_tests_are_such_as_processes_expose() -> None:
    for one in yaml.safe_load(TESTS.read_text())["tests"]:
        for series in one["input_series"]:
            name, _, inside = series["series"].partition("{")
            if name == "up":
                continue
            used = set(re.findall(r"(\w+)=", re.sub(r'"[^"]*"', '""', inside)))
            bucket = {"le"} if name.endswith("_bucket") else set()
            assert used == {*SERIES[name].labels, *FROM_PROMETHEUS} | bucket, one["name"]


def test_prometheus_takes_the_rules_and_they_do_as_their_tests_say(needs) -> None:
    promtool = needs("promtool", "run `make tools`")
    checked = subprocess.run(
        [promtool, "check", "rules", "--lint=all", "--lint-fatal", RULES], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = subprocess.run([promtool, "test", "rules", TESTS], capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_prometheus_reads_the_dashboards_queries(needs, tmp_path: Path) -> None:
    promtool = needs("promtool", "run `make tools`")
    found = [target["expr"] for _, panel in panels() for target in panel["targets"]]  # type: ignore[attr-defined]
    rules_ = [{"record": f"panel:query:{place}", "expr": expression} for place, expression in enumerate(found)]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules_}]}))
    checked = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_panels_have_places_of_their_own() -> None:
    for file in DASHBOARDS:
        dashboard = json.loads(file.read_text())
        assert dashboard["uid"] == file.stem
        taken: set[tuple[int, int]] = set()
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(ids) == len(set(ids))
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            assert at["x"] + at["w"] <= 24
            assert not cells & taken, panel["title"]
            taken |= cells


def test_what_an_operator_must_see_is_alerted_or_shown() -> None:
    """Every metric of ours is looked at somewhere, but for those that only accompany another."""
    used = {SERIES[name].name for _, expression in ALL for name in read(expression)[0] if name in SERIES}
    beside = {
        "customhouse_store_connected", "customhouse_spool_records", "customhouse_delivery_sent", "customhouse_delivery_acknowledged",
        "customhouse_delivery_rejected", "customhouse_jwks_age_seconds", "customhouse_events",
        "customhouse_decision_cache_entries", "customhouse_decision_cache_bytes", "customhouse_token_cache_entries",
        "customhouse_ledger_reservations", "customhouse_ledger_reserved_subjects",
        "customhouse_ledger_oldest_reservation_seconds", "customhouse_ledger_waiting", "customhouse_ledger_commits",
        "customhouse_ledger_bytes", "customhouse_shadow_asked", "customhouse_shadow_agreed", "customhouse_shadow_dropped",
        "customhouse_shadow_refused", "process_virtual_memory_bytes", "process_start_time_seconds",
    }  # fmt: skip
    assert CATALOGUE.keys() - used == beside
