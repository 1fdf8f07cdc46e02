"""What the admission webhook answers: the guarded pod gets exactly the containers and volumes that the operator wrote down.

AdmissionReview in, AdmissionReview out (Kubernetes, admission.k8s.io/v1); no clock, no network. What stands in the pod
under our names is replaced, so nobody brings a container of their own under them, and a second look at the same pod
changes nothing. A pod that could reach into our containers is refused.
"""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.errors import ConfigurationError

PREFIX = "customhouse"
"""Names of containers and volumes that begin with it are ours."""
SPOOL = f"{PREFIX}-spool"
Tree = Mapping[str, Any]
_SECRETS = {"secret": ("secretName", "name"), "secretKeyRef": ("name",), "secretRef": ("name",),
            "nodePublishSecretRef": ("name",), "volumeAttributes": ("secretProviderClass",)}  # fmt: skip
"""Key of a pod's piece that refers to a Secret (or to a class of secrets that a CSI driver fetches) -> where its name is."""


_HARMLESS = frozenset({
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT", "NET_ADMIN", "NET_RAW",
})  # fmt: skip
"""Capabilities that a container may add: Kubernetes, Pod Security Standards, "Baseline", and what the init containers of
service meshes need. They reach the pod's network, where the sidecar trusts nobody, and not its files."""


class ReviewError(ValueError):
    """The request is no AdmissionReview that can be answered."""


class Refused(Exception):  # noqa: N818 - it says what happens to the pod
    """Why the pod may not start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """What goes into a pod. `shared`: our volumes that its own containers may mount, for sockets.

    `fs_group` is given to a pod that names none: our files belong to it.
    """

    containers: Sequence[Tree]
    volumes: Sequence[Tree]
    annotations: Mapping[str, str]
    shared: frozenset[str]
    fs_group: int | None

    @property
    def secrets(self) -> frozenset[str]:
        """The Secrets that our volumes and containers hold."""
        return frozenset(_secrets([*self.containers, *self.volumes]))


def read(tree: object, where: str) -> Injection:
    """The injection as it stands in the file. ConfigurationError, naming what is wrong."""
    known = {"initContainers", "volumes", "annotations", "shared", "fsGroup"}
    if not isinstance(tree, dict) or not set(tree) <= known:
        raise _wrong(f"is no mapping of {', '.join(sorted(known))}", where)
    containers, volumes = (_named(tree.get(kind, []), f"{where}: {kind}") for kind in ("initContainers", "volumes"))
    if not containers:
        raise _wrong("holds no container, so nothing would be guarded", where)
    annotations, shared, group = tree.get("annotations", {}), tree.get("shared", []), tree.get("fsGroup")
    if not isinstance(annotations, dict) or not all(
        isinstance(one, str) for pair in annotations.items() for one in pair
    ):
        raise _wrong("has annotations that are no texts", where)
    if not isinstance(shared, list) or not set(shared) <= {one["name"] for one in volumes}:
        raise _wrong("shares volumes that it does not have", where)
    if not (group is None or (isinstance(group, int) and not isinstance(group, bool))):
        raise _wrong("has an fsGroup that is no number", where)
    return Injection(containers=containers, volumes=volumes, annotations=annotations,
                     shared=frozenset(map(str, shared)), fs_group=group)  # fmt: skip


def answer(body: bytes, injection: Injection) -> bytes:
    """The answer to a review. ReviewError when it is none; whatever else is wrong with the pod is a refusal in it."""
    request = _request(body)
    response: dict[str, Any] = {"uid": request["uid"]}
    try:
        pod = _pod(request)
        patch = changes(pod, injection) if request["operation"] == "CREATE" else _debugged(pod, injection)
    except Refused as why:
        response |= {"allowed": False, "status": {"code": 403, "reason": "Forbidden", "message": f"customhouse: {why}"}}
    else:
        response |= {"allowed": True, "patchType": "JSONPatch",
                     "patch": base64.b64encode(json.dumps(patch).encode()).decode("ascii")}  # fmt: skip
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).encode()


def changes(pod: Tree, injection: Injection) -> list[Tree]:
    """The JSON Patch (RFC 6902) that makes the pod a guarded one. Refused for a pod that would reach into our containers."""
    spec, metadata = pod["spec"], pod.get("metadata") or {}
    _check(spec, injection)
    patch: list[Tree] = []
    for kind, ours in (("initContainers", injection.containers), ("volumes", injection.volumes)):
        names = {one["name"] for one in ours}
        others = [one for one in spec.get(kind) or [] if one.get("name") not in names]
        # Before the pod's own: an init container of the service may call through the sidecar already.
        patch.append({"op": "add", "path": f"/spec/{kind}", "value": [*ours, *others]})
    annotations = {**(metadata.get("annotations") or {}), **injection.annotations}
    patch.append({"op": "add", "path": "/metadata/annotations", "value": annotations})
    security = spec.get("securityContext") or {}
    if injection.fs_group is not None and security.get("fsGroup") is None:
        value = {**security, "fsGroup": injection.fs_group}
        patch.append({"op": "add", "path": "/spec/securityContext", "value": value})
    return patch


def _debugged(pod: Tree, injection: Injection) -> list[Tree]:
    """Nothing to change in a running pod. Refused for an ephemeral container that would reach into ours."""
    for container in pod["spec"].get("ephemeralContainers") or []:
        name = str(container.get("name"))
        if str(container.get("targetContainerName")).startswith(PREFIX):
            raise Refused(f"container {name} would share the processes of the sidecar, and with them its files")
        _check_other(name, container, injection)
    return []


def _check(spec: Tree, injection: Injection) -> None:
    for key in ("shareProcessNamespace", "hostPID", "hostNetwork", "hostIPC"):
        if spec.get(key):
            raise Refused(f"spec.{key} would let others reach into the sidecar; take it away")
    _check_spool(spec, injection)
    ours = {one["name"] for one in injection.containers}
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or []:
            name = str(container.get("name"))
            if kind != "initContainers" or name not in ours:
                _check_other(name, container, injection)
    others = [one for one in spec.get("volumes") or [] if not str(one.get("name")).startswith(PREFIX)]
    for secret in _secrets(others):
        if secret in injection.secrets:
            raise Refused(f"a volume of the pod holds the Secret {secret}, which is the sidecar's alone")
    claims = _claims([*injection.volumes, *(one for one in spec.get("volumes") or [] if one.get("name") == SPOOL)])
    for one in others:
        _check_volume(one, claims)


def _check_volume(volume: Tree, claims: frozenset[str]) -> None:
    """The spool under another name, or the host's own folders, where the kubelet keeps everybody's volumes."""
    if "hostPath" in volume:
        raise Refused(
            f"volume {volume.get('name')} is a folder of the host, where the sidecar's own volumes lie as well"
        )
    for claim in _claims([volume]):
        if claim in claims or SPOOL in claim:
            raise Refused(f"volume {volume.get('name')} is the claim {claim}, which is the sidecar's alone")


def _claims(volumes: Iterable[Tree]) -> frozenset[str]:
    found = [one.get("persistentVolumeClaim") for one in volumes]
    return frozenset(str(one.get("claimName")) for one in found if isinstance(one, Mapping))


def _check_spool(spec: Tree, injection: Injection) -> None:
    """Where we bring no volume for the spool, the pod's StatefulSet brings a claim; nothing less keeps records."""
    brought = {str(one.get("name")): one for one in spec.get("volumes") or []}.get(SPOOL, {})
    mounted = {one["name"] for container in injection.containers for one in container.get("volumeMounts", ())}
    own = SPOOL in {one["name"] for one in injection.volumes}
    if SPOOL in mounted and not own and "persistentVolumeClaim" not in brought:
        raise Refused(f"the pod brings no claim {SPOOL}: let its StatefulSet make one (volumeClaimTemplates), or set "
                      "spool.persistence.perPod")  # fmt: skip
    if own and "persistentVolumeClaim" in brought:
        raise Refused(f"the pod brings a claim {SPOOL}, but the sidecar is set up to use another volume")


def _check_other(name: str, container: Tree, injection: Injection) -> None:
    if name.startswith(PREFIX):
        raise Refused(f"container {name}: names that begin with {PREFIX} are the sidecar's")
    security = container.get("securityContext") or {}
    if security.get("privileged"):
        raise Refused(f"container {name} is privileged, so it could reach into the sidecar")
    capabilities = security.get("capabilities")
    added = capabilities.get("add") if isinstance(capabilities, Mapping) else None
    for one in added if isinstance(added, list) else ():
        if str(one).upper().removeprefix("CAP_") not in _HARMLESS:
            raise Refused(f"container {name} adds the capability {one}, with which it could reach into the sidecar")
    for mount in (container.get("volumeMounts") or []) + (container.get("volumeDevices") or []):
        volume = str(mount.get("name"))
        if volume.startswith(PREFIX) and volume not in injection.shared:
            raise Refused(f"container {name} mounts {volume}, which is the sidecar's alone")
    for secret in _secrets(container):
        if secret in injection.secrets:
            raise Refused(f"container {name} reads the Secret {secret}, which is the sidecar's alone")


def _secrets(tree: object) -> Iterator[str]:
    """The names of the Secrets that a piece of a pod refers to, wherever it does."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            if key in _SECRETS and isinstance(value, Mapping):
                yield from (value[word] for word in _SECRETS[key] if isinstance(value.get(word), str))
            yield from _secrets(value)
    elif isinstance(tree, list | tuple):
        for one in tree:
            yield from _secrets(one)


def _request(body: bytes) -> dict[str, Any]:
    try:
        review = json.loads(body)
    except (ValueError, RecursionError):
        raise ReviewError("not JSON") from None
    request = review.get("request") if isinstance(review, dict) else None
    if not isinstance(request, dict) or review.get("apiVersion") != "admission.k8s.io/v1":
        raise ReviewError("not an AdmissionReview of admission.k8s.io/v1")
    if not isinstance(request.get("uid"), str):
        raise ReviewError("a request without a uid")
    return request


def _pod(request: Tree) -> Tree:
    """The pod to be created, or to get ephemeral containers. Anything else is refused, never let through unguarded."""
    pod, kind = request.get("object"), request.get("kind")
    asked = (request.get("operation"), request.get("subResource") or "")
    known = asked in (("CREATE", ""), ("UPDATE", "ephemeralcontainers"))
    if not known or not isinstance(kind, dict) or kind.get("kind") != "Pod":
        raise Refused("only pods that are created come this way; mend the webhook's rules")
    if not isinstance(pod, dict) or not isinstance(pod.get("spec"), dict):
        raise Refused("the object is no pod")
    spec = pod["spec"]
    for key in ("volumes", "initContainers", "containers", "ephemeralContainers"):
        if not _mappings(spec.get(key)):
            raise Refused(f"spec.{key} is no list of mappings")
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for one in spec.get(key) or []:
            _check_shape(one)
    if not all(isinstance(one, dict | None) for one in (pod.get("metadata"), spec.get("securityContext"))):
        raise Refused("the object is no pod")
    if not isinstance((pod.get("metadata") or {}).get("annotations"), dict | None):
        raise Refused("the object is no pod")
    return pod


def _check_shape(container: Tree) -> None:
    if not (_mappings(container.get("volumeMounts")) and _mappings(container.get("volumeDevices"))
            and isinstance(container.get("securityContext"), dict | None)):  # fmt: skip
        raise Refused("a container is no container")


def _mappings(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(one, dict) for one in value))


def _named(value: object, where: str) -> list[Tree]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise _wrong("is no list of mappings", where)
    names = [one.get("name") for one in value]
    if not all(isinstance(name, str) and name.startswith(PREFIX) for name in names) or len(set(names)) < len(names):
        raise _wrong(f"has a name twice, or one that does not begin with {PREFIX}", where)
    return value


def _wrong(what: str, where: str) -> ConfigurationError:
    return ConfigurationError(what, where=where, fix="The chart writes it: helm/sidecar, webhook.enabled.")
