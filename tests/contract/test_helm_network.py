"""What the network policies let through: all of it, listed, so that one more rule is a failing test."""

import pytest
from helm_matrix import LEDGER, OPA, OPA_ELSEWHERE, S3, WEBHOOK
from helm_parts import Helm, as_json, example, laid, of_kind

STORE = [
    {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "customhouse-oversight"}},
     "podSelector": {"matchLabels": {"app.kubernetes.io/name": "customhouse-oversight"}}}
]  # fmt: skip
DNS = [
    {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
     "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}
]  # fmt: skip
JWKS = [{"ipBlock": {"cidr": "192.0.2.10/32"}}]
UPSTREAM = [
    {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "profiles"}},
     "podSelector": {"matchLabels": {"app": "profiles"}}}
]  # fmt: skip
MONITORING = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


@pytest.fixture(scope="module")
def helm(needs, tmp_path_factory) -> Helm:
    return Helm(needs("helm", "run `make tools`"), tmp_path_factory.mktemp("helm"))


def rules(policy, way: str, word: str) -> set[tuple[str, tuple[tuple[str, int], ...]]]:
    """(peers, ports) of each rule. A rule without peers lets everybody through: "everybody"."""
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}, "what is not named is not limited"
    found = set()
    for rule in policy["spec"][way.lower()] or []:
        assert set(rule) <= {word, "ports"}
        peers = as_json(rule[word]) if rule.get(word) else "everybody"
        found.add((peers, tuple((one["protocol"], one["port"]) for one in rule["ports"])))
    return found


def allowed(peers, *ports: int) -> tuple[str, tuple[tuple[str, int], ...]]:
    return as_json(peers), tuple(("TCP", port) for port in ports)


NAMES = (as_json(DNS), (("UDP", 53), ("TCP", 53)))


def test_a_sidecar_is_called_at_its_door_and_scraped_and_nothing_else(helm):
    policy = of_kind(helm.render("sidecar", example("sidecar", "sidecar")), "NetworkPolicy")
    assert policy["spec"]["podSelector"] == {"matchLabels": {"app": "profiles"}}
    assert rules(policy, "Ingress", "from") == {allowed([{"podSelector": {}}], 8443), allowed(MONITORING, 9464)}
    assert rules(policy, "Egress", "to") == {allowed(STORE, 9443, 9444), allowed(JWKS, 443), NAMES}


def test_the_service_s_own_port_is_never_open(helm):
    for changes in ((), (LEDGER,), (OPA,), (WEBHOOK,)):
        objects = helm.render("sidecar", laid(example("sidecar", "sidecar"), *changes))
        assert "50051" not in as_json(
            [of_kind(objects, "NetworkPolicy", "sidecar"), of_kind(objects, "Service", "sidecar")]
        )


def test_a_gateway_reaches_the_service_besides(helm):
    policy = of_kind(helm.render("sidecar", example("sidecar", "gateway")), "NetworkPolicy")
    assert rules(policy, "Egress", "to") == {
        allowed(STORE, 9443, 9444), allowed(JWKS, 443), allowed(UPSTREAM, 50051), NAMES,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "peers", "port"),
    [
        (LEDGER, LEDGER["networkPolicy"]["egress"]["ledger"], 443),
        (OPA_ELSEWHERE, OPA_ELSEWHERE["networkPolicy"]["egress"]["opa"], 8443),
        (S3, S3["networkPolicy"]["egress"]["policy"], 443),
    ],
)
def test_what_the_settings_name_is_reached_and_no_more(helm, change, peers, port):
    before = of_kind(helm.render("sidecar", example("sidecar", "sidecar")), "NetworkPolicy")
    after = of_kind(helm.render("sidecar", laid(example("sidecar", "sidecar"), change)), "NetworkPolicy")
    assert rules(after, "Egress", "to") - rules(before, "Egress", "to") == {allowed(peers, port)}
    assert rules(after, "Ingress", "from") == rules(before, "Ingress", "from")


def test_opa_in_the_pod_opens_nothing(helm):
    before = of_kind(helm.render("sidecar", example("sidecar", "sidecar")), "NetworkPolicy")
    after = of_kind(helm.render("sidecar", laid(example("sidecar", "sidecar"), OPA)), "NetworkPolicy")
    assert after["spec"] == before["spec"]


def test_sidecars_append_and_fetch_keys_reviewers_ask_and_the_store_asks_nobody(helm):
    objects = helm.render("oversight", example("oversight", "oversight"))
    policy = of_kind(objects, "NetworkPolicy", "oversight")
    sidecars = [{"namespaceSelector": {"matchLabels": {"customhouse.io/guard": "enabled"}}}]
    reviewers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "customhouse-review"}}}]
    assert rules(policy, "Ingress", "from") == {allowed(sidecars, 9443, 9444), allowed(reviewers, 9445)}
    assert rules(policy, "Egress", "to") == set()
    store = of_kind(objects, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= store.items()


def test_a_backup_talks_to_nobody(helm):
    objects = helm.render("oversight", example("oversight", "oversight"))
    policy = of_kind(objects, "NetworkPolicy", "backup")
    assert rules(policy, "Ingress", "from") == rules(policy, "Egress", "to") == set()
    job = of_kind(objects, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= job.items()
    store = of_kind(objects, "StatefulSet")["spec"]["selector"]["matchLabels"]
    assert not store.items() <= job.items(), "or callers would be sent to a backup"


def test_without_reviewers_nobody_asks(helm):
    values = laid(example("oversight", "oversight"), {"networkPolicy": {"reviewers": []}})
    policy = of_kind(helm.render("oversight", values), "NetworkPolicy", "oversight")
    assert all(("TCP", 9445) not in ports for _, ports in rules(policy, "Ingress", "from"))


def test_the_ledger_is_reached_by_sidecars_and_asks_nobody(helm):
    policy = of_kind(helm.render("sidecar", example("sidecar", "ledger")), "NetworkPolicy")
    peers = example("sidecar", "ledger")["ledger"]["sidecars"]
    assert rules(policy, "Ingress", "from") == {allowed(peers, 9446)}
    assert rules(policy, "Egress", "to") == set()


def test_the_webhook_answers_and_asks_nobody(helm):
    objects = helm.render("sidecar", laid(example("sidecar", "sidecar"), WEBHOOK))
    policy = of_kind(objects, "NetworkPolicy", "webhook")
    assert rules(policy, "Ingress", "from") == {("everybody", (("TCP", 8443),))}, (
        "the API server's address is not known"
    )
    assert rules(policy, "Egress", "to") == set()
