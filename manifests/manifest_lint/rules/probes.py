"""Probes that lie, and probes that are missing."""

from collections.abc import Iterator

from manifest_lint.inference_service import InferenceService, mapping
from manifest_lint.quantities import whole
from manifest_lint.rule import Problem, Rule, Severity

HEALTH_PATHS = ("/v2/health/ready", "/v2/health/live")
# Servers whose /v2/health/ready waits for their models.
HONEST = ("triton", "mlserver")
HEALTH_CHECK = "enable_predictor_health_check"


def _no_readiness(service: InferenceService) -> Iterator[Problem]:
    predictor = service.component("predictor")
    if predictor is None:
        return
    for container in predictor.containers[:1]:
        if not container.spec.get("readinessProbe"):
            yield Problem(container.path, "The predictor has no readinessProbe.")


def _liveness_kills(service: InferenceService) -> Iterator[Problem]:
    predictor = service.component("predictor")
    if predictor is None:
        return
    for container in predictor.containers[:1]:
        if container.spec.get("livenessProbe") and not container.spec.get("startupProbe"):
            yield Problem(
                (*container.path, "livenessProbe"),
                "The predictor has a livenessProbe and no startupProbe.",
            )


def _lies(service: InferenceService) -> Iterator[Problem]:
    for component in service.components:
        for container in component.served:
            if container.ours or any(name in container.image for name in HONEST):
                continue
            for probe in ("readinessProbe", "startupProbe"):
                http = mapping(mapping(container.spec.get(probe)).get("httpGet"))
                if http.get("path") in HEALTH_PATHS:
                    yield Problem(
                        (*container.path, probe, "httpGet", "path"),
                        f"{http['path']} of a KServe server answers 200 before the"
                        f" {component.role}'s model is there.",
                    )


def _keeps_awake(service: InferenceService) -> Iterator[Problem]:
    outer, inner = (service.component(role) for role in ("transformer", "predictor"))
    if outer is None or inner is None or whole(inner.spec.get("minReplicas")) != 0:
        return
    for container in outer.containers:
        said = container.flag(HEALTH_CHECK)
        if said is not None and said.lower() not in {"false", "0", "no"}:
            yield Problem(
                (*container.path, "args"),
                f"The transformer's --{HEALTH_CHECK} asks a predictor that may scale to zero.",
            )


RULES = (
    Rule(
        id="KW050",
        severity=Severity.WARNING,
        title="A predictor without a readinessProbe",
        reason="Knative then probes the TCP port, and Standard mode nothing: the pod gets requests"
        " while its model still loads.",
        fix="Add a readinessProbe that the server answers once the model generates; for this"
        " project's predictor `grpc: {port: 8081}`.",
        source="knative serving, default readiness probe",
        failing="""
predictor:
  containers:
    - {name: kserve-container, image: "example/predictor:1"}
""",
        passing="""
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      readinessProbe: {grpc: {port: 8081}}
""",
        check=_no_readiness,
    ),
    Rule(
        id="KW051",
        severity=Severity.WARNING,
        title="A livenessProbe without a startupProbe",
        reason="A model loads for minutes; the livenessProbe kills the container meanwhile, again"
        " and again.",
        fix="Add a startupProbe with periodSeconds x failureThreshold over the longest start.",
        source="Kubernetes, container probes; kserve/kserve#1247",
        failing="""
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      livenessProbe: {grpc: {port: 8081}}
""",
        passing="""
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      livenessProbe: {grpc: {port: 8081}}
      startupProbe: {grpc: {port: 8081}, periodSeconds: 5, failureThreshold: 60}
""",
        check=_liveness_kills,
    ),
    Rule(
        id="KW052",
        severity=Severity.WARNING,
        title="A readiness path that does not wait for the model",
        reason="KServe's own server answers 200 on /v2/health/ready while its engine still loads"
        " and after its model was unloaded.",
        fix="Probe /v2/models/NAME/ready. This project's servers wait on both paths and are not"
        " reported.",
        source="tried on kserve 0.21.0",
        failing="""
predictor:
  containers:
    - name: kserve-container
      image: kserve/huggingfaceserver:v0.17.0
      readinessProbe: {httpGet: {path: /v2/health/ready, port: 8080}}
""",
        passing="""
predictor:
  containers:
    - name: kserve-container
      image: kserve/huggingfaceserver:v0.17.0
      readinessProbe: {httpGet: {path: /v2/models/chat/ready, port: 8080}}
""",
        check=_lies,
    ),
    Rule(
        id="KW053",
        severity=Severity.ERROR,
        title="A health check that asks a predictor at zero",
        reason="Each of the transformer's probes becomes a request to the predictor: it never goes"
        " to zero, or the transformer is unready while it sleeps.",
        fix="Remove --enable_predictor_health_check, or keep minReplicas at 1.",
        source="docs/settings.md; kserve dataplane",
        failing="""
transformer:
  containers:
    - name: kserve-container
      image: example/transformer:1
      args: [--enable_predictor_health_check]
predictor: {minReplicas: 0}
""",
        passing="""
transformer:
  containers:
    - name: kserve-container
      image: example/transformer:1
      args: [--enable_predictor_health_check]
predictor: {minReplicas: 1}
""",
        check=_keeps_awake,
    ),
)
