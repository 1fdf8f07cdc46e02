"""The schemas of the charts' own values: everything but the settings files, which `helm_schema` makes from their models.

What Kubernetes itself checks (affinity, peers of a network policy) is an object or a list here. What this product
promises (no privilege, no secret in a value, one writer) is said outright, so that no value can take it away.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WORD: Schema = {"type": "string", "minLength": 1}
FLAG: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}
LIST: Schema = {"type": "array", "items": {"type": "object"}}
QUANTITY: Schema = {"type": ["string", "integer"], "pattern": "^[0-9.]+([EPTGMk]i?|m)?$"}
NAME: Schema = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$"}
LABELS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}


def keys(optional: Schema | None = None, /, **known: Any) -> Schema:
    """An object with these keys and no other."""
    return {"type": "object", "additionalProperties": False, "properties": {**known, **(optional or {})}}


def whole(least: int, most: int) -> Schema:
    """A whole number in between."""
    return {"type": "integer", "minimum": least, "maximum": most}


def one_of(*words: str) -> Schema:
    """One of these words."""
    return {"enum": list(words)}


IMAGE = keys(
    repository=WORD, pullPolicy=one_of("Always", "IfNotPresent", "Never"), tag=TEXT,
    digest={"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
)  # fmt: skip
ACCESS: Schema = {"type": "array", "minItems": 1, "items": one_of("ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany")}
CLAIM = {"storageClass": TEXT, "accessModes": ACCESS, "size": QUANTITY, "annotations": OBJECT}
MOUNT = {
    **keys(name=NAME, secret=OBJECT, configMap=OBJECT, projected=OBJECT, csi=OBJECT, persistentVolumeClaim=OBJECT),
    "required": ["name"],
    "minProperties": 2,
    "maxProperties": 2,
}
ENV = {
    **keys(name=WORD, value=TEXT, valueFrom=OBJECT),
    "required": ["name"],
    "description": "only OTEL_* carries a value; a secret comes by valueFrom",
    "if": {"required": ["value"]},
    "then": {"properties": {"name": {"pattern": "^OTEL_"}}},
    "else": {"required": ["valueFrom"]},
}
POD_SECURITY = {
    **keys(
        runAsNonRoot={"const": True}, runAsUser=whole(1, 2**31 - 1), runAsGroup=whole(1, 2**31 - 1),
        fsGroup=whole(1, 2**31 - 1), fsGroupChangePolicy=one_of("OnRootMismatch", "Always"), supplementalGroups={"type": "array"},
        seccompProfile=keys(type=one_of("RuntimeDefault", "Localhost"), localhostProfile=TEXT), seLinuxOptions=OBJECT,
    ),
    "required": ["runAsNonRoot", "fsGroup", "seccompProfile"],
}  # fmt: skip
SECURITY = {
    **keys(
        allowPrivilegeEscalation={"const": False}, readOnlyRootFilesystem={"const": True}, runAsNonRoot={"const": True},
        runAsUser=whole(1, 2**31 - 1), runAsGroup=whole(1, 2**31 - 1),
        capabilities=keys(drop={"const": ["ALL"]}),
        seccompProfile=keys(type=one_of("RuntimeDefault", "Localhost"), localhostProfile=TEXT), seLinuxOptions=OBJECT,
    ),
    "required": ["allowPrivilegeEscalation", "readOnlyRootFilesystem", "runAsNonRoot", "capabilities", "seccompProfile"],
}  # fmt: skip
ACCOUNT = keys(create=FLAG, automount={"const": False}, annotations=OBJECT, name=TEXT)
SERVICE = keys(
    enabled=FLAG, type=one_of("ClusterIP", "LoadBalancer", "NodePort"), port=whole(1, 65535), annotations=OBJECT
)
METRICS = keys(
    serviceMonitor=keys(enabled=FLAG, interval=TEXT, labels=LABELS),
    prometheusRule=keys(enabled=FLAG, labels=LABELS, groups=LIST),
)
PLACEMENT = {
    "nodeSelector": OBJECT, "tolerations": LIST, "affinity": OBJECT, "topologySpreadConstraints": LIST, "priorityClassName": TEXT,
}  # fmt: skip
COMMON = {
    "image": IMAGE, "imagePullSecrets": LIST, "nameOverride": TEXT, "fullnameOverride": TEXT,
    "mounts": {"type": "array", "items": MOUNT}, "serviceAccount": ACCOUNT, "podAnnotations": OBJECT, "podLabels": LABELS,
    "podSecurityContext": POD_SECURITY, "securityContext": SECURITY, "resources": OBJECT, "test": keys(enabled=FLAG),
    **PLACEMENT,
}  # fmt: skip

SIDECAR = keys(
    COMMON,
    mode=one_of("sidecar", "gateway", "ledger"),
    replicaCount=whole(1, 100),
    config=OBJECT,
    guarded=keys(podLabels=LABELS),
    producer=keys(nameFrom=one_of("config", "pod")),
    spool=keys(
        mountPath={"type": "string", "pattern": "^/.*[^/]$"},
        persistence=keys(CLAIM, enabled=FLAG, existingClaim=TEXT, perPod=FLAG),
        emptyDir=keys(sizeLimit=QUANTITY),
    ),
    opa=keys(image=IMAGE, existingSecret=TEXT, tokenKey=WORD, resources=OBJECT),
    service=SERVICE,
    startupProbe=OBJECT,
    readinessProbe=OBJECT,
    livenessProbe=OBJECT,
    terminationGracePeriodSeconds=whole(15, 3600),
    extraArgs={"type": "array", "items": TEXT},
    extraEnv={"type": "array", "items": ENV},
    autoscaling=keys(
        enabled=FLAG, minReplicas=whole(1, 100), maxReplicas=whole(1, 100), targetCPUUtilizationPercentage=whole(1, 100)
    ),
    podDisruptionBudget=keys(enabled=FLAG, maxUnavailable={"type": ["integer", "string"]}),
    networkPolicy=keys(
        enabled=FLAG, callers=LIST, scrapers=LIST, extraEgress=LIST,
        egress=keys(store=LIST, ledger=LIST, jwks=LIST, policy=LIST, opa=LIST, upstream=LIST, dns=LIST),
    ),
    metrics=METRICS,
    webhook=keys(
        enabled=FLAG, namespace=TEXT, replicaCount=whole(1, 20), existingSecret=TEXT,
        caBundle={"type": "string", "pattern": "^[A-Za-z0-9+/]*=*$"}, certManagerCertificate=TEXT,
        port=whole(1024, 65535), timeoutSeconds=whole(1, 30), resources=OBJECT,
    ),
    ledger=keys(config=OBJECT, persistence=keys(CLAIM), init=FLAG, sidecars=LIST),
)  # fmt: skip

OVERSIGHT = keys(
    COMMON,
    config=OBJECT,
    namespaceOverride=TEXT,
    replicaCount={"const": 1, "description": "one writer: a second store would sign a second history"},
    persistence=keys(CLAIM),
    service=keys(enabled=FLAG, type=one_of("ClusterIP", "LoadBalancer", "NodePort"), annotations=OBJECT),
    terminationGracePeriodSeconds=whole(15, 3600),
    podDisruptionBudget=keys(enabled=FLAG),
    networkPolicy=keys(enabled=FLAG, sidecars=LIST, reviewers=LIST, scrapers=LIST),
    metrics=METRICS,
    backup=keys(
        enabled=FLAG, schedule=WORD, keep=whole(1, 1000), existingClaim=TEXT, persistence=keys(CLAIM), resources=OBJECT
    ),
)  # fmt: skip
