"""The values over which the charts are rendered: what an operator turns on, one by one and together."""

from helm_parts import Tree

OPA = {
    "config": {"decision": {"engine": "opa", "opa": {"url": "http://127.0.0.1:8181", "token_file": "opa/token"}}},
    "opa": {"existingSecret": "profiles-opa"},
    "mounts": [
        {"name": "opa", "secret": {"secretName": "profiles-opa"}},
        {"name": "policy", "configMap": {"name": "policy-bundle"}},
    ],
}
OPA_ELSEWHERE = {
    "config": {"decision": {"engine": "opa", "opa": {"url": "https://opa.opa:8443", "ca": "opa/ca.crt"}}},
    "networkPolicy": {"egress": {"opa": [{"namespaceSelector": {}}]}},
}
OPA_POLLING = {
    "config": {
        "policy": {
            "bundle": {
                "file": ...,
                "url": "https://policy.example.com:8443/bundles/bundle.tar.gz?env=live",
                "token_file": "policy/token",
                "ca": "policy/ca.crt",
            }
        }
    },
    "networkPolicy": {"egress": {"policy": [{"ipBlock": {"cidr": "192.0.2.11/32"}}]}},
}
LEDGER = {
    "config": {"ledger": {"address": "ledger:443", "tls": {"ca": "to-store/ca.crt"}}},
    "networkPolicy": {"egress": {"ledger": [{"podSelector": {"matchLabels": {"app": "ledger"}}}]}},
}
WEBHOOK = {
    "webhook": {
        "enabled": True,
        "namespace": "customhouse-webhook",
        "existingSecret": "webhook-tls",
        "caBundle": "Q0E=",
    }
}
PER_POD = {"spool": {"persistence": {"perPod": True}}}
EMPTY = {"spool": {"persistence": {"enabled": False}}}
MONITORED = {"metrics": {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}}}
ONE_POD = {"replicaCount": 1, "producer": {"nameFrom": "config"}}
SCALED = {"autoscaling": {"enabled": True}, "producer": {"nameFrom": "pod"}}
SOCKET = {
    "config": {
        "listen": [{"door": "proxy", "address": "unix:/run/customhouse/sockets/proxy", "workload": "spiffe://a/b"}]
    }
}
CLOSED = {"networkPolicy": {"enabled": False}, "podDisruptionBudget": {"enabled": False}, "service": {"enabled": False}}
DIGEST = {"image": {"digest": "sha256:" + "a" * 64}}
PLACED = {
    "nodeSelector": {"disk": "ssd"}, "priorityClassName": "high", "tolerations": [{"key": "a", "operator": "Exists"}],
    "imagePullSecrets": [{"name": "registry"}], "podAnnotations": {"a": "b"}, "podLabels": {"team": "profiles"},
    "affinity": {"nodeAffinity": {}},
}  # fmt: skip
S3 = {
    "config": {"policy": {"bundle": {"file": ..., "s3": "s3://policies/bundle.tar.gz", "region": "us-ashburn-1"}}},
    "networkPolicy": {"egress": {"policy": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}},
}
MATRIX: dict[str, tuple[str, str, tuple[Tree, ...]]] = {
    "sidecar": ("sidecar", "sidecar", ()),
    "sidecar, opa": ("sidecar", "sidecar", (OPA,)),
    "sidecar, opa, bundle by URL": ("sidecar", "sidecar", (OPA, OPA_POLLING)),
    "sidecar, opa elsewhere": ("sidecar", "sidecar", (OPA_ELSEWHERE,)),
    "sidecar, ledger, monitored": ("sidecar", "sidecar", (LEDGER, MONITORED)),
    "sidecar, webhook": ("sidecar", "sidecar", (WEBHOOK,)),
    "sidecar, webhook, opa, per pod": ("sidecar", "sidecar", (WEBHOOK, OPA, PER_POD)),
    "sidecar, webhook, nothing kept": ("sidecar", "sidecar", (WEBHOOK, EMPTY)),
    "sidecar, socket": ("sidecar", "sidecar", (SOCKET,)),
    "sidecar, nothing round it": ("sidecar", "sidecar", (CLOSED,)),
    "gateway": ("sidecar", "gateway", ()),
    "gateway, one pod": ("sidecar", "gateway", (ONE_POD,)),
    "gateway, one pod, nothing kept": ("sidecar", "gateway", (ONE_POD, EMPTY)),
    "gateway, one pod, per pod": ("sidecar", "gateway", (ONE_POD, PER_POD)),
    "gateway, scaled, opa, monitored": ("sidecar", "gateway", (SCALED, OPA, MONITORED)),
    "gateway, placed, s3, digest": ("sidecar", "gateway", (PLACED, S3, DIGEST)),
    "ledger": ("sidecar", "ledger", ()),
    "ledger, first start": ("sidecar", "ledger", ({"ledger": {"init": True}}, PLACED)),
    "oversight": ("oversight", "oversight", ()),
    "oversight, placed, digest": ("oversight", "oversight", (PLACED, DIGEST)),
    "oversight, no backup": ("oversight", "oversight", ({"backup": {"enabled": False}},)),
    "oversight, open": ("oversight", "oversight", ({"networkPolicy": {"enabled": False}},)),
    "oversight, monitored": (
        "oversight", "oversight",
        ({"config": {"metrics": {"listen": "0.0.0.0:9464"}}, "metrics": {"serviceMonitor": {"enabled": True}},
          "networkPolicy": {"scrapers": [{"namespaceSelector": {}}]}},),
    ),
    "oversight, guarded drain": ("oversight", "oversight", ({"podDisruptionBudget": {"enabled": True}},)),
}  # fmt: skip
