"""Pod fields that Knative drops, refuses always, or refuses until a feature flag is set.

KServe's webhook takes them all, so `kubectl apply` succeeds. What Knative's CRD does not know is
gone without a word; what its webhook refuses leaves the component unready.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from manifest_lint.documents import Path, dotted
from manifest_lint.inference_service import Component, Container, InferenceService, mapping
from manifest_lint.rule import Gate, Problem, Rule, Severity

SOURCE = "knative serving pkg/apis/serving/fieldmask.go, k8s_validation.go"

DROPPED_IN_POD = (
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
DROPPED_IN_CONTAINER = (
    "lifecycle",
    "resizePolicy",
    "restartPolicy",
    "stdin",
    "stdinOnce",
    "tty",
    "volumeDevices",
)
DROPPED_IN_SECURITY_CONTEXT = ("procMount", "seLinuxOptions", "windowsOptions")
DROPPED_IN_PORT = ("hostIP", "hostPort")
DROPPED_IN_MOUNT = ("subPathExpr",)
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
    kind: f"kubernetes.podspec-volumes-{kind.lower()}" for kind in ("csi", "hostPath", "image")
} | {"persistentVolumeClaim": "kubernetes.podspec-persistent-volume-claim"}
FREE_VOLUMES = ("name", "configMap", "emptyDir", "projected", "secret")
EMPTY_DIR = "kubernetes.podspec-volumes-emptydir"
MULTI_CONTAINER = "multi-container"
MOUNT_PROPAGATION = "kubernetes.podspec-volumes-mount-propagation"
PVC_WRITE = "kubernetes.podspec-persistent-volume-write"
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
RESERVED_PORTS = (8008, 8012, 8013, 8022, 9090, 9091)
RESERVED_PATHS = ("/", "/dev", "/dev/log")
RESERVED_ENV = ("PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION")


def _set(spec: Mapping[str, Any], field: str) -> bool:
    return spec.get(field) not in (None, False, [], {})


def in_template(component: Component, path: Path) -> str:
    """How Knative names one of a component's fields: it sees a Service, not an InferenceService."""
    return dotted(("spec", "template", "spec", *path[len(component.path) :]))


def _dropped(service: InferenceService) -> Iterator[Problem]:
    for component in service.knative_components:
        for path, name in _unknown_to_knative(component):
            yield Problem(path, f"Knative drops {name}: the {component.role} runs without it.")


def _never(service: InferenceService) -> Iterator[Problem]:
    for component in service.knative_components:
        for path, name, refusal in _never_accepted(component):
            yield Problem(
                path, f"Knative never accepts {name} on the {component.role}.", refusal=refusal
            )


def _never_accepted(component: Component) -> Iterator[tuple[Path, str, str]]:
    if component.spec.get("automountServiceAccountToken") is True:
        path = component.at("automountServiceAccountToken")
        yield path, "automountServiceAccountToken: true", in_template(component, path)
    for index, volume in enumerate(component.volumes):
        for kind in sorted({str(key) for key in volume} - {*FREE_VOLUMES, *FLAG_OF_VOLUME}):
            hint = " (inside projected it is fine)" if kind == "downwardAPI" else ""
            path = component.at("volumes", index)
            refusal = f"expected exactly one, got neither: {in_template(component, path)}"
            yield (*path, kind), f"a {kind} volume{hint}", refusal
    for container in component.all_containers:
        security = mapping(container.spec.get("securityContext"))
        if _set(security, "privileged"):
            path = (*container.path, "securityContext", "privileged")
            yield path, "privileged", in_template(component, path)


def _unknown_to_knative(component: Component) -> Iterator[tuple[Path, str]]:
    for field in DROPPED_IN_POD:
        if _set(component.spec, field):
            yield component.at(field), field
    for container in component.all_containers:
        yield from _unknown_in_container(container)


def _unknown_in_container(container: Container) -> Iterator[tuple[Path, str]]:
    security = mapping(container.spec.get("securityContext"))
    places: list[tuple[Path, Mapping[str, Any], tuple[str, ...]]] = [
        ((), container.spec, DROPPED_IN_CONTAINER),
        (("securityContext",), security, DROPPED_IN_SECURITY_CONTEXT),
    ]
    places += [(("ports", i), port, DROPPED_IN_PORT) for i, port in enumerate(container.ports)]
    places += [(("volumeMounts", i), m, DROPPED_IN_MOUNT) for i, m in enumerate(container.mounts)]
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
                refusal=_off(component, path, flag),
            )


def _off(component: Component, path: Path, flag: str) -> str:
    """What the webhook says of a field whose flag is off."""
    if flag == MULTI_CONTAINER:
        return "multi-container is off"
    if flag == PVC_WRITE:
        return "Persistent volume write support is disabled"
    if path[-1] == "storageUris":
        return "pod spec support for init-containers is off"
    return in_template(component, path)


def _needing_flags(component: Component) -> Iterator[tuple[Path, str, str]]:
    for field, flag in FLAG_OF_POD_FIELD.items():
        if _set(component.spec, field):
            yield component.at(field), field, flag
    yield from _volumes_needing_flags(component)
    for container in component.all_containers:
        yield from _container_needing_flags(container)
    if len(component.containers) > 1:
        yield component.at("containers"), "more than one container", MULTI_CONTAINER
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
    for index, mount in enumerate(container.mounts):
        if _set(mount, "mountPropagation"):
            propagated = (*container.path, "volumeMounts", index, "mountPropagation")
            yield propagated, "mountPropagation", MOUNT_PROPAGATION
    security = mapping(container.spec.get("securityContext"))
    if _set(mapping(security.get("capabilities")), "add"):
        added = (*container.path, "securityContext", "capabilities", "add")
        yield added, "capabilities.add", "kubernetes.containerspec-addcapabilities"


def _volumes_needing_flags(component: Component) -> Iterator[tuple[Path, str, str]]:
    for index, volume in enumerate(component.volumes):
        if "emptyDir" in volume:
            yield component.at("volumes", index, "emptyDir"), "an emptyDir volume", EMPTY_DIR
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
                        refusal="volumeMount has no matching volume",
                    )
        for index, volume in enumerate(component.volumes):
            if str(volume.get("name")) not in mounted:
                yield Problem(
                    component.at("volumes", index),
                    f"No container of the {component.role} mounts the volume {volume.get('name')}.",
                    refusal=f'volume with name "{volume.get("name")}" not mounted',
                )


def _reserved(service: InferenceService) -> Iterator[Problem]:
    for component in service.knative_components:
        for container in component.all_containers:
            if container.name == "queue-proxy":
                yield Problem(
                    (*container.path, "name"),
                    "queue-proxy is the name of Knative's own container.",
                    refusal='"queue-proxy" is a reserved container name',
                )
            for index, port in enumerate(container.ports):
                if port.get("containerPort") in RESERVED_PORTS:
                    yield Problem(
                        (*container.path, "ports", index, "containerPort"),
                        f"Port {port['containerPort']} is queue-proxy's.",
                        refusal=f"{port['containerPort']} is a reserved port",
                    )
            for index, mount in enumerate(container.mounts):
                path = str(mount.get("mountPath", "")).rstrip("/") or "/"
                if "mountPath" in mount and path in RESERVED_PATHS:
                    yield Problem(
                        (*container.path, "volumeMounts", index, "mountPath"),
                        f"Nothing may be mounted at {path}; folders below it may be used.",
                        refusal=f'mountPath "{path}" is a reserved path',
                    )
            for index, variable in enumerate(container.env):
                if variable.get("name") in RESERVED_ENV:
                    yield Problem(
                        (*container.path, "env", index, "name"),
                        f"Knative sets the environment variable {variable['name']} itself.",
                        refusal=f'"{variable["name"]}" is a reserved environment variable',
                    )


RULES = (
    Rule(
        id="KW001",
        severity=Severity.ERROR,
        title="A field that Knative drops without a word",
        reason="KServe writes it into its Knative Service, whose schema does not know it: nothing"
        " is refused, nothing is said, and the pod runs without it.",
        fix="Remove the field. The pod's grace period is the component's `timeout`, and queue-proxy"
        " brings its own preStop hook.",
        source="seen on Knative 1.21; config/core/300-resources/service.yaml",
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
        check=_dropped,
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
        gate=Gate.KNATIVE,
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
        gate=Gate.KNATIVE,
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
        gate=Gate.KNATIVE,
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

# After the ports in the order of ids.
NEVER = Rule(
    id="KW009",
    severity=Severity.ERROR,
    title="A field that Knative always refuses",
    reason="Knative's webhook refuses the Service that KServe makes: apply succeeds, then the"
    " component stays unready with ReconcileFailed.",
    fix="Remove the field; of volumes, secret, configMap, projected and emptyDir need no flag.",
    source=SOURCE,
    gate=Gate.KNATIVE,
    failing="""
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      securityContext: {privileged: true}
      volumeMounts: [{name: models, mountPath: /mnt/models}]
  volumes: [{name: models, nfs: {server: files.example.com, path: /models}}]
""",
    passing="""
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      securityContext: {privileged: false}
""",
    check=_never,
)
