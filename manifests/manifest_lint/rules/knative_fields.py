"""Pod fields that Knative's webhook refuses, always or until a feature flag is set.

KServe's webhook takes them all: `kubectl apply` succeeds, and the component never becomes ready.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from manifest_lint.documents import Path
from manifest_lint.inference_service import Component, Container, InferenceService, mapping
from manifest_lint.rule import Problem, Rule, Severity

SOURCE = "knative serving pkg/apis/serving/fieldmask.go, k8s_validation.go"

NEVER_IN_POD = (
    "activeDeadlineSeconds",
    "ephemeralContainers",
    "hostUsers",
    "hostname",
    "nodeName",
    "os",
    "overhead",
    "preemptionPolicy",
    "priority",
    "readinessGates",
    "resourceClaims",
    "restartPolicy",
    "schedulingGates",
    "setHostnameAsFQDN",
    "subdomain",
    "terminationGracePeriodSeconds",
)
NEVER_IN_CONTAINER = (
    "lifecycle",
    "resizePolicy",
    "restartPolicy",
    "stdin",
    "stdinOnce",
    "tty",
    "volumeDevices",
)
NEVER_IN_SECURITY_CONTEXT = ("privileged", "procMount", "seLinuxOptions", "windowsOptions")
NEVER_IN_PORT = ("hostIP", "hostPort")
NEVER_IN_MOUNT = ("subPathExpr",)
FLAG_OF_POD_FIELD = {
    field: f"kubernetes.podspec-{field.lower()}"
    for field in (
        "affinity",
        "dnsConfig",
        "dnsPolicy",
        "hostAliases",
        "hostIPC",
        "hostNetwork",
        "hostPID",
        "nodeSelector",
        "priorityClassName",
        "runtimeClassName",
        "schedulerName",
        "securityContext",
        "shareProcessNamespace",
        "tolerations",
        "topologySpreadConstraints",
    )
} | {
    "initContainers": "kubernetes.podspec-init-containers",
    "storageUris": "kubernetes.podspec-init-containers",
}
FLAG_OF_VOLUME = {
    kind: f"kubernetes.podspec-volumes-{kind.lower()}"
    for kind in ("csi", "ephemeral", "hostPath", "image")
} | {"persistentVolumeClaim": "kubernetes.podspec-persistent-volume-claim"}
FREE_VOLUMES = ("name", "configMap", "emptyDir", "projected", "secret")
PVC_WRITE = "kubernetes.podspec-persistent-volume-write"
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
RESERVED_PORTS = (8008, 8012, 8013, 8022, 9090, 9091)
RESERVED_PATHS = ("/", "/dev", "/dev/log")
RESERVED_ENV = ("PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION")


def _set(spec: Mapping[str, Any], field: str) -> bool:
    return spec.get(field) not in (None, False, [], {})


def _never(service: InferenceService) -> Iterator[Problem]:
    for component in service.knative_components:
        for path, name in _never_accepted(component):
            yield Problem(path, f"Knative never accepts {name} on the {component.role}.")


def _never_accepted(component: Component) -> Iterator[tuple[Path, str]]:
    for field in NEVER_IN_POD:
        if _set(component.spec, field):
            yield component.at(field), field
    if component.spec.get("automountServiceAccountToken") is True:
        yield component.at("automountServiceAccountToken"), "automountServiceAccountToken: true"
    for index, volume in enumerate(component.volumes):
        for kind in sorted({str(key) for key in volume} - {*FREE_VOLUMES, *FLAG_OF_VOLUME}):
            hint = " (inside projected it is fine)" if kind == "downwardAPI" else ""
            yield component.at("volumes", index, kind), f"a {kind} volume{hint}"
    for container in component.all_containers:
        yield from _never_in_container(container)


def _never_in_container(container: Container) -> Iterator[tuple[Path, str]]:
    security = mapping(container.spec.get("securityContext"))
    places: list[tuple[Path, Mapping[str, Any], tuple[str, ...]]] = [
        ((), container.spec, NEVER_IN_CONTAINER),
        (("securityContext",), security, NEVER_IN_SECURITY_CONTEXT),
    ]
    places += [(("ports", i), port, NEVER_IN_PORT) for i, port in enumerate(container.ports)]
    places += [(("volumeMounts", i), m, NEVER_IN_MOUNT) for i, m in enumerate(container.mounts)]
    for path, spec, fields in places:
        for field in fields:
            if _set(spec, field):
                yield (*container.path, *path, field), field


def _flagged(service: InferenceService) -> Iterator[Problem]:
    for component in service.knative_components:
        for path, name, flag in _needing_flags(component):
            yield Problem(
                path,
                f"Knative refuses {name} on the {component.role} unless config-features sets"
                f" {flag}: enabled.",
                needs=flag,
            )


def _needing_flags(component: Component) -> Iterator[tuple[Path, str, str]]:
    for field, flag in FLAG_OF_POD_FIELD.items():
        if _set(component.spec, field):
            yield component.at(field), field, flag
    yield from _volumes_needing_flags(component)
    for container in component.all_containers:
        yield from _container_needing_flags(container)
    sidecars = component.containers if len(component.containers) > 1 else ()
    for container in sidecars:
        for probe in PROBES:
            if not container.ports and _set(container.spec, probe):
                path = (*container.path, probe)
                yield path, f"the {probe} of a sidecar", "multi-container-probing"


def _container_needing_flags(container: Container) -> Iterator[tuple[Path, str, str]]:
    for index, variable in enumerate(container.env):
        for field in ("fieldRef", "resourceFieldRef"):
            if _set(mapping(variable.get("valueFrom")), field):
                path = (*container.path, "env", index, "valueFrom", field)
                yield path, f"env {field}", "kubernetes.podspec-fieldref"
    security = mapping(container.spec.get("securityContext"))
    if _set(mapping(security.get("capabilities")), "add"):
        added = (*container.path, "securityContext", "capabilities", "add")
        yield added, "capabilities.add", "kubernetes.containerspec-addcapabilities"


def _volumes_needing_flags(component: Component) -> Iterator[tuple[Path, str, str]]:
    for index, volume in enumerate(component.volumes):
        for kind, flag in FLAG_OF_VOLUME.items():
            if kind in volume:
                yield component.at("volumes", index, kind), f"a {kind} volume", flag
        claim = volume.get("persistentVolumeClaim")
        mounts = [
            mount
            for container in component.all_containers
            for mount in container.mounts
            if mount.get("name") == volume.get("name")
        ]
        readonly = mapping(claim).get("readOnly") or all(m.get("readOnly") for m in mounts)
        if claim is not None and not readonly:
            path = component.at("volumes", index, "persistentVolumeClaim")
            yield path, "a persistentVolumeClaim that is not readOnly", PVC_WRITE


def _unmounted(service: InferenceService) -> Iterator[Problem]:
    for component in service.knative_components:
        if not component.containers:
            continue
        volumes = {str(volume.get("name")) for volume in component.volumes}
        mounted = set()
        for container in component.all_containers:
            for index, mount in enumerate(container.mounts):
                mounted.add(str(mount.get("name")))
                if str(mount.get("name")) not in volumes:
                    yield Problem(
                        (*container.path, "volumeMounts", index),
                        f"The {component.role} has no volume {mount.get('name')} to mount.",
                    )
        for index, volume in enumerate(component.volumes):
            if str(volume.get("name")) not in mounted:
                yield Problem(
                    component.at("volumes", index),
                    f"No container of the {component.role} mounts the volume {volume.get('name')}.",
                )


def _reserved(service: InferenceService) -> Iterator[Problem]:
    for component in service.knative_components:
        for container in component.all_containers:
            if container.name == "queue-proxy":
                yield Problem(
                    (*container.path, "name"), "queue-proxy is the name of Knative's own container."
                )
            for index, port in enumerate(container.ports):
                if port.get("containerPort") in RESERVED_PORTS:
                    yield Problem(
                        (*container.path, "ports", index, "containerPort"),
                        f"Port {port['containerPort']} is queue-proxy's.",
                    )
            for index, mount in enumerate(container.mounts):
                path = str(mount.get("mountPath", "")).rstrip("/") or "/"
                if "mountPath" in mount and path in RESERVED_PATHS:
                    yield Problem(
                        (*container.path, "volumeMounts", index, "mountPath"),
                        f"Nothing may be mounted at {path}; folders below it may be used.",
                    )
            for index, variable in enumerate(container.env):
                if variable.get("name") in RESERVED_ENV:
                    yield Problem(
                        (*container.path, "env", index, "name"),
                        f"Knative sets the environment variable {variable['name']} itself.",
                    )


RULES = (
    Rule(
        id="KW001",
        severity=Severity.ERROR,
        title="A field that Knative never accepts",
        reason="Knative's webhook refuses the Service that KServe makes: apply succeeds, then the"
        " component stays unready with ReconcileFailed.",
        fix="Remove the field. The pod's grace period is the component's `timeout`, and queue-proxy"
        " brings its own preStop hook.",
        source=SOURCE,
        failing="""
predictor:
  terminationGracePeriodSeconds: 120
  containers:
    - name: kserve-container
      image: example/predictor:1
      lifecycle: {preStop: {exec: {command: [sleep, "10"]}}}
""",
        passing="""
predictor:
  timeout: 120
  containers:
    - name: kserve-container
      image: example/predictor:1
""",
        check=_never,
    ),
    Rule(
        id="KW002",
        severity=Severity.ERROR,
        title="A field that needs a Knative feature flag",
        reason="A stock Knative refuses it after apply has succeeded; the flag is the cluster"
        " administrator's to set.",
        fix="Do without, or have the key set in the ConfigMap config-features and say so with"
        " `--enabled KEY`.",
        source="knative serving pkg/apis/config/features.go",
        failing="""
predictor:
  nodeSelector: {gpu: a100}
  containers:
    - name: kserve-container
      image: example/predictor:1
""",
        passing="""
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      volumeMounts: [{name: tmp, mountPath: /tmp}]
  volumes: [{name: tmp, emptyDir: {}}]
""",
        check=_flagged,
    ),
    Rule(
        id="KW003",
        severity=Severity.ERROR,
        title="A volume without a mount, or a mount without a volume",
        reason="Knative refuses a revision whose volumes and volumeMounts do not match by name.",
        fix="Mount the volume or remove it; add the volume that is mounted.",
        source=SOURCE,
        failing="""
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
  volumes: [{name: tmp, emptyDir: {}}]
""",
        passing="""
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      volumeMounts: [{name: tmp, mountPath: /tmp}]
  volumes: [{name: tmp, emptyDir: {}}]
""",
        check=_unmounted,
    ),
    Rule(
        id="KW004",
        severity=Severity.ERROR,
        title="A name, port or path that Knative keeps for itself",
        reason="Knative refuses a revision that uses what its own container in the pod uses.",
        fix="Choose another; 8080, 8081, /tmp and /dev/shm are fine.",
        source=SOURCE,
        failing="""
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      ports: [{containerPort: 9090}]
      env: [{name: PORT, value: "9090"}]
""",
        passing="""
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      ports: [{containerPort: 8080}]
""",
        check=_reserved,
    ),
)
