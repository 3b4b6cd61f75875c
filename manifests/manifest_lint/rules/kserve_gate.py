"""What KServe's webhook refuses, and what its controller drops or breaks."""

import re
from collections.abc import Iterator

from manifest_lint.documents import Path
from manifest_lint.inference_service import (
    DEPLOYMENT_MODE,
    MAIN,
    InferenceService,
    mapping,
)
from manifest_lint.quantities import number, whole
from manifest_lint.rule import Gate, Problem, Rule, Severity

SOURCE = "kserve pkg/apis/serving/v1beta1/inference_service_validation.go"
NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
CLASS = "serving.kserve.io/autoscalerClass"
CLASSES = ("hpa", "external", "keda", "none")


def _name(service: InferenceService) -> Iterator[Problem]:
    if not NAME.fullmatch(service.name):
        yield Problem(
            ("metadata", "name"),
            f"The name {service.name!r} must be small letters, digits and -, begin with a letter"
            " and not end with -.",
            refusal=f'the InferenceService "{service.name}" is invalid',
        )


def _replicas(service: InferenceService) -> Iterator[Problem]:
    for component in service.components:
        low, high = (whole(component.spec.get(f"{side}Replicas")) for side in ("min", "max"))
        if low is not None and low < 0:
            yield Problem(
                component.at("minReplicas"),
                f"minReplicas is {low}; 0 is the least.",
                refusal="'MinReplicas' cannot be less than 0",
            )
        if high is not None and high < 0:
            yield Problem(
                component.at("maxReplicas"),
                f"maxReplicas is {high}; 0 is no limit.",
                refusal="'MaxReplicas' cannot be less than 0",
            )
        # KServe's default of minReplicas is 1, and maxReplicas 0 is no limit.
        if high and high > 0 and (1 if low is None else low) > high:
            yield Problem(
                component.at("minReplicas"),
                f"minReplicas {1 if low is None else low} is more than maxReplicas {high}.",
                refusal="'MinReplicas' cannot be greater than MaxReplicas",
            )


def _scale_metric(service: InferenceService) -> Iterator[Problem]:
    written = mapping(service.metadata.get("annotations")).get(CLASS)
    said = written or "hpa"
    # In Standard mode the webhook looks only where the class is written out.
    gated = service.mode == "Knative" or written is not None
    for component in service.components:
        metric, target = (component.spec.get(f"scale{part}") for part in ("Metric", "Target"))
        if metric is None:
            continue
        if component.knative:
            allowed: tuple[str, ...] = ("concurrency", "rps")
        elif component.mode == "Standard" and said == "hpa":
            allowed = ("cpu", "memory")
        elif component.mode == "Standard" and said == "keda":
            yield Problem(
                component.at("scaleMetric"),
                "KEDA takes no scaleMetric; say it in autoScaling.metrics.",
                refusal="ScaleMetric is not supported for KEDA",
            )
            continue
        else:
            continue
        target = number(target)
        if metric not in allowed:
            yield Problem(
                component.at("scaleMetric"),
                f"In {component.mode} mode scaleMetric is {' or '.join(allowed)}, not {metric}.",
                refusal=f"[{metric}] is not a supported metric" if gated else None,
            )
        elif metric == "rps" and target is not None and target < 1:
            yield Problem(
                component.at("scaleTarget"),
                "A scaleTarget in rps is at least 1.",
                refusal="the target for rps should be greater than 1",
            )


def _python_path(service: InferenceService) -> Iterator[Problem]:
    for component in service.components:
        for container in component.all_containers:
            for index, variable in enumerate(container.env):
                if variable.get("name") == "PYTHONPATH":
                    yield Problem(
                        (*container.path, "env", index, "name"),
                        f"The {component.role} may not set PYTHONPATH.",
                    )


def _autoscaler_class(service: InferenceService) -> Iterator[Problem]:
    said = mapping(service.metadata.get("annotations")).get(CLASS)
    if said is not None and said not in CLASSES:
        yield Problem(
            ("metadata", "annotations", CLASS),
            f"{CLASS} is {', '.join(CLASSES[:-1])} or {CLASSES[-1]}, not {said}.",
            refusal=f"[{said}] is not a supported autoscaler class type",
        )


def _deployment_strategy(service: InferenceService) -> Iterator[Problem]:
    for component in service.knative_components:
        if component.spec.get("deploymentStrategy"):
            yield Problem(
                component.at("deploymentStrategy"),
                f"The {component.role} is a Knative Service, which rolls out by traffic.",
                refusal="customizing deploymentStrategy is only supported for raw deployment mode",
            )


def _mode(service: InferenceService) -> Iterator[Problem]:
    if service.deployment_mode is None:
        known = service.cluster.deployment_mode
        here = f"; {service.cluster.who} makes it {service.mode}" if known else ""
        yield Problem(
            ("metadata", "annotations"),
            f"{DEPLOYMENT_MODE} is not set to Knative or Standard{here}.",
        )


def _first_container(service: InferenceService) -> Iterator[Problem]:
    predictor = service.component("predictor")
    if predictor and len(predictor.containers) > 1 and predictor.containers[0].name != MAIN:
        yield Problem(
            predictor.at("containers", 0, "name"),
            f"The predictor's first container is {predictor.containers[0].name or 'unnamed'};"
            f" it must be {MAIN}.",
        )


def _unsaid_workers(service: InferenceService) -> Iterator[tuple[Path, int | None]]:
    """Where a transformer could say --workers and does not, and its containerConcurrency."""
    transformer = service.component("transformer")
    if transformer is None or not transformer.containers:
        return
    container = transformer.containers[0]
    # The controller looks at `args` only, and not into `command` or a shell's script.
    args = container.spec.get("args")
    if isinstance(args, list) and any(str(word).startswith("--workers") for word in args):
        return
    yield (*container.path, "args"), whole(transformer.spec.get("containerConcurrency"))


def _workers(service: InferenceService) -> Iterator[Problem]:
    for path, limit in _unsaid_workers(service):
        if limit not in {None, 1}:
            yield Problem(
                path, f"KServe's controller will add --workers {limit} to the transformer."
            )


def _workers_later(service: InferenceService) -> Iterator[Problem]:
    for path, limit in _unsaid_workers(service):
        if limit in {None, 1}:
            yield Problem(path, "The transformer does not say --workers=1.")


RULES = (
    Rule(
        id="KW010",
        severity=Severity.ERROR,
        title="A name that KServe's webhook refuses",
        reason="The name becomes part of host names.",
        fix="Use a name that matches `^[a-z]([-a-z0-9]*[a-z0-9])?$`.",
        source=SOURCE,
        gate=Gate.KSERVE,
        failing="""
metadata:
  name: 7b-chat
  annotations: {serving.kserve.io/deploymentMode: Knative}
spec: {predictor: {minReplicas: 1}}
""",
        passing="""
metadata:
  name: chat-7b
  annotations: {serving.kserve.io/deploymentMode: Knative}
spec: {predictor: {minReplicas: 1}}
""",
        check=_name,
    ),
    Rule(
        id="KW011",
        severity=Severity.ERROR,
        title="Replica bounds that contradict each other",
        reason="KServe's webhook refuses minReplicas over maxReplicas, and negative ones.",
        fix="Raise maxReplicas (0 is no limit) or lower minReplicas (1 when not given).",
        source=SOURCE,
        gate=Gate.KSERVE,
        failing="predictor: {minReplicas: 3, maxReplicas: 2}",
        passing="predictor: {minReplicas: 3, maxReplicas: 0}",
        check=_replicas,
    ),
    Rule(
        id="KW012",
        severity=Severity.ERROR,
        title="A scaleMetric that the mode does not have",
        reason="Knative's autoscaler knows concurrency and rps, the HPA that KServe makes cpu and"
        " memory, and KEDA has its own field.",
        fix="Choose one that the mode has.",
        source=SOURCE,
        gate=Gate.KSERVE,
        failing="predictor: {scaleMetric: cpu, scaleTarget: 70}",
        passing="predictor: {scaleMetric: concurrency, scaleTarget: 16}",
        check=_scale_metric,
    ),
    Rule(
        id="KW013",
        severity=Severity.ERROR,
        title="PYTHONPATH in a container's environment",
        reason="KServe's webhook refuses it from 0.18 on; older releases take it.",
        fix="Set it in the image.",
        source="kserve/kserve#5340",
        failing="""
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      env: [{name: PYTHONPATH, value: /code}]
""",
        passing="""
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      env: [{name: HF_HUB_OFFLINE, value: "1"}]
""",
        check=_python_path,
    ),
    Rule(
        id="KW014",
        severity=Severity.ERROR,
        title="An autoscaler class that KServe does not have",
        reason="KServe's webhook refuses it.",
        fix="Use hpa, external, keda or none; Knative's class is autoscaling.knative.dev/class.",
        source=SOURCE,
        gate=Gate.KSERVE,
        failing="""
metadata:
  name: chat
  annotations:
    serving.kserve.io/deploymentMode: Standard
    serving.kserve.io/autoscalerClass: kpa
spec: {predictor: {minReplicas: 1}}
""",
        passing="""
metadata:
  name: chat
  annotations:
    serving.kserve.io/deploymentMode: Standard
    serving.kserve.io/autoscalerClass: external
spec: {predictor: {minReplicas: 1}}
""",
        check=_autoscaler_class,
    ),
    Rule(
        id="KW015",
        severity=Severity.ERROR,
        title="A deploymentStrategy in Knative mode",
        reason="KServe's webhook refuses it: a Knative Service has no Deployment of its own to"
        " roll.",
        fix="Remove it; use canaryTrafficPercent to shift traffic by degrees.",
        source=SOURCE,
        gate=Gate.KSERVE,
        failing="predictor: {deploymentStrategy: {type: Recreate}}",
        passing="predictor: {canaryTrafficPercent: 20}",
        check=_deployment_strategy,
    ),
    Rule(
        id="KW016",
        severity=Severity.WARNING,
        title="No deployment mode",
        reason="The mode of an unannotated service depends on the cluster's ConfigMap and on"
        " KServe's release, and cannot be changed once the service lives.",
        fix="Set the annotation serving.kserve.io/deploymentMode to Knative or Standard.",
        source="kserve defaulter: Standard in code, Serverless in the shipped ConfigMap",
        failing="""
metadata: {name: chat}
spec: {predictor: {minReplicas: 0}}
""",
        passing="""
metadata:
  name: chat
  annotations: {serving.kserve.io/deploymentMode: Knative}
spec: {predictor: {minReplicas: 0}}
""",
        check=_mode,
    ),
    Rule(
        id="KW017",
        severity=Severity.ERROR,
        title="kserve-container is not the predictor's first container",
        reason="KServe's controller writes the predictor's container over the first of the list.",
        fix="List kserve-container first.",
        source="kserve components/predictor.go buildPredictorResources",
        failing="""
predictor:
  containers:
    - {name: proxy, image: "example/proxy:1"}
    - name: kserve-container
      image: example/predictor:1
      ports: [{containerPort: 8080}]
""",
        passing="""
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      ports: [{containerPort: 8080}]
    - {name: proxy, image: "example/proxy:1"}
""",
        check=_first_container,
    ),
    Rule(
        id="KW018",
        severity=Severity.ERROR,
        title="containerConcurrency becomes the transformer's --workers",
        reason="KServe's controller adds `--workers <containerConcurrency>`; a KServe transformer"
        ' with more than one worker answers 501 "Could not find PredictorConfig." to every'
        " request.",
        fix="Pass --workers=1 and scale by replicas.",
        source="kserve pkg/apis/serving/v1beta1/transformer_custom.go; tried on kserve 0.21.0",
        failing="""
transformer:
  containerConcurrency: 8
  containers:
    - {name: kserve-container, image: "example/transformer:1"}
""",
        passing="""
transformer:
  containerConcurrency: 8
  containers:
    - {name: kserve-container, image: "example/transformer:1", args: [--workers=1]}
""",
        check=_workers,
    ),
    Rule(
        id="KW019",
        severity=Severity.INFO,
        title="A transformer that does not say --workers=1",
        reason="It works until somebody sets containerConcurrency, which KServe's controller then"
        " passes on as the number of workers.",
        fix="Pass --workers=1.",
        source="kserve pkg/apis/serving/v1beta1/transformer_custom.go",
        failing="""
transformer:
  containers:
    - {name: kserve-container, image: "example/transformer:1"}
""",
        passing="""
transformer:
  containers:
    - {name: kserve-container, image: "example/transformer:1", args: [--workers=1]}
""",
        check=_workers_later,
    ),
)
