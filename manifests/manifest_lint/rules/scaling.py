"""Targets, limits and deadlines of Knative's autoscaler against what the engine can do."""

from collections.abc import Iterator

from manifest_lint.cluster import Cluster
from manifest_lint.documents import Path
from manifest_lint.inference_service import Component, InferenceService, mapping
from manifest_lint.quantities import duration_s, number, whole
from manifest_lint.rule import Gate, Problem, Rule, Severity
from manifest_lint.rules.annotations import DEADLINE, PREFIX
from manifest_lint.servers import setting

BURST_CAPACITY = f"{PREFIX}target-burst-capacity"


def _burst_capacity(service: InferenceService) -> Iterator[Problem]:
    if service.cluster.burst_capacity in {-1, 0}:
        return
    for component in service.knative_components:
        if BURST_CAPACITY not in component.annotations:
            yield Problem(
                component.path,
                f"The {component.role} does not say target-burst-capacity; the default of"
                f" {service.cluster.burst_capacity:g} keeps the activator in the path until its"
                " pods have that much capacity to spare.",
            )


def _metric(component: Component) -> str:
    said = component.annotations.get(f"{PREFIX}metric")
    return str(component.spec.get("scaleMetric") or (said.value if said else "concurrency"))


def _limit(component: Component, cluster: Cluster) -> int:
    said = whole(component.spec.get("containerConcurrency"))
    return cluster.container_concurrency if said is None else said


def _target(component: Component) -> tuple[Path, float] | None:
    """The target that is written, and where."""
    annotation = component.annotations.get(f"{PREFIX}target")
    target = number(component.spec.get("scaleTarget"))
    if target is not None:
        return component.at("scaleTarget"), target
    found = number(annotation.value) if annotation else None
    return (annotation.path, found) if annotation and found is not None else None


def _utilisation(component: Component, cluster: Cluster) -> float:
    annotation = component.annotations.get(f"{PREFIX}target-utilization-percentage")
    said = number(annotation.value) if annotation else None
    return cluster.utilisation if said is None else said / 100


def _target_over_batch(service: InferenceService) -> Iterator[Problem]:
    """KPA: wanted pods = load / (min(target, containerConcurrency) x utilisation)."""
    predictor = service.component("predictor")
    if predictor is None or not predictor.knative or _metric(predictor) != "concurrency":
        return
    batch = setting(predictor.main, "max_num_seqs")
    limit = _limit(predictor, service.cluster)
    path, total = _target(predictor) or (predictor.path, float(limit) or service.cluster.target)
    scales_at = (min(total, limit) if limit else total) * _utilisation(predictor, service.cluster)
    if batch is not None and scales_at > batch:
        yield Problem(
            path,
            f"The predictor scales out above {scales_at:g} requests a pod, but its engine runs"
            f" {batch:g} at a time (--max_num_seqs).",
        )


def _target_over_limit(service: InferenceService) -> Iterator[Problem]:
    for component in service.knative_components:
        limit, target = _limit(component, service.cluster), _target(component)
        if target and 0 < limit < target[1] and _metric(component) == "concurrency":
            yield Problem(
                target[0],
                f"The {component.role}'s target {target[1]:g} is over its containerConcurrency"
                f" {limit}, and {limit} counts.",
            )


def _limit_under_batch(service: InferenceService) -> Iterator[Problem]:
    predictor = service.component("predictor")
    if predictor is None or not predictor.knative:
        return
    limit = _limit(predictor, service.cluster)
    batch = setting(predictor.main, "max_num_seqs")
    if batch is not None and 0 < limit < batch:
        yield Problem(
            predictor.at("containerConcurrency"),
            f"queue-proxy lets {limit} requests through to an engine that runs {batch:g} at a time"
            f" (--max_num_seqs), and refuses the {11 * limit + 1}th with 503.",
        )


def _limit_out_of_range(service: InferenceService) -> Iterator[Problem]:
    for component in service.knative_components:
        said = component.spec.get("containerConcurrency")
        limit = whole(said)
        low = 0 if service.cluster.zero_container_concurrency else 1
        high = service.cluster.max_container_concurrency
        if said is not None and (limit is None or not low <= limit <= high):
            yield Problem(
                component.at("containerConcurrency"),
                f"For {service.cluster.who} containerConcurrency is a whole number from {low} to"
                f" {high}, not {said}.",
                refusal=f"expected {low} <= {said} <= {high}",
            )


def _deadline(service: InferenceService) -> Iterator[Problem]:
    for component in service.knative_components:
        annotation = component.annotations.get(DEADLINE)
        said = duration_s(str(annotation.value)) if annotation else None
        limit_s = service.cluster.progress_deadline_s if said is None else float(said)
        for container in component.served:
            probe = mapping(container.spec.get("startupProbe"))
            if not probe:
                continue
            delay_s, period_s, failures = (
                number(probe.get(field, default)) or 0.0
                for field, default in (
                    ("initialDelaySeconds", 0),
                    ("periodSeconds", 10),
                    ("failureThreshold", 3),
                )
            )
            budget_s = delay_s + period_s * failures
            if budget_s > limit_s:
                yield Problem(
                    (*container.path, "startupProbe"),
                    f"The {component.role}'s startupProbe allows {budget_s:g} s, but the revision's"
                    f" progress deadline is {limit_s:g} s.",
                )


RULES = (
    Rule(
        id="KW026",
        severity=Severity.INFO,
        title="An unsaid target burst capacity",
        reason="Knative's default of 211 keeps the activator in the path of a service whose target"
        " is small, as a language model's is. That buffers bursts, and makes latency, timeouts and"
        " availability the activator's too: choose it.",
        fix='Set autoscaling.knative.dev/target-burst-capacity: "-1" (activator always in the path)'
        ' or "0" (only at zero).',
        source="knative serving autoscaler.go, config-autoscaler",
        failing="predictor: {scaleTarget: 16}",
        passing="""
predictor:
  scaleTarget: 16
  annotations: {autoscaling.knative.dev/target-burst-capacity: "-1"}
""",
        check=_burst_capacity,
    ),
    Rule(
        id="KW027",
        severity=Severity.WARNING,
        title="Scaling out later than the engine is full",
        reason="A pod is added when requests a pod exceed target x utilisation (0.7 by default; the"
        " default target is 100). Above --max_num_seqs requests already wait in the engine,"
        " unseen.",
        fix="Set scaleTarget so that target x utilisation is at most --max_num_seqs.",
        source="knative serving pkg/reconciler/autoscaling/resources/target.go",
        failing="""
predictor:
  scaleTarget: 64
  containers:
    - name: kserve-container
      image: example/vllm:1
      args: [--max-num-seqs=32]
""",
        passing="""
predictor:
  scaleTarget: 32
  containers:
    - name: kserve-container
      image: example/vllm:1
      args: [--max-num-seqs=32]
""",
        check=_target_over_batch,
    ),
    Rule(
        id="KW028",
        severity=Severity.WARNING,
        title="A target over the container concurrency",
        reason="The autoscaler takes the smaller of the two, so the target has no effect.",
        fix="Lower scaleTarget, or raise or remove containerConcurrency.",
        source="knative serving pkg/reconciler/autoscaling/resources/target.go",
        failing="predictor: {scaleTarget: 32, containerConcurrency: 16}",
        passing="predictor: {scaleTarget: 16, containerConcurrency: 32}",
        check=_target_over_limit,
    ),
    Rule(
        id="KW029",
        severity=Severity.WARNING,
        title="A container concurrency under the engine's batch",
        reason="It is a hard limit: the engine never fills its batch while requests wait in"
        " queue-proxy, which holds ten times as many and answers 503 to the rest.",
        fix="Leave containerConcurrency out and scale by scaleTarget, or set it to --max_num_seqs"
        " or more.",
        source="knative serving pkg/queue/breaker.go, sharedmain/main.go",
        failing="""
predictor:
  containerConcurrency: 8
  containers:
    - {name: kserve-container, image: "example/vllm:1", args: [--max-num-seqs=64]}
""",
        passing="""
predictor:
  scaleTarget: 32
  containers:
    - {name: kserve-container, image: "example/vllm:1", args: [--max-num-seqs=64]}
""",
        check=_limit_under_batch,
    ),
    Rule(
        id="KW030",
        severity=Severity.ERROR,
        title="A container concurrency that Knative refuses",
        reason="A stock Knative accepts 0 (no limit) to 1000.",
        fix="Use 0 to 1000.",
        source="knative serving pkg/apis/serving/metadata_validation.go",
        gate=Gate.KNATIVE,
        failing="predictor: {containerConcurrency: 2000}",
        passing="predictor: {containerConcurrency: 1000}",
        check=_limit_out_of_range,
    ),
    Rule(
        id="KW031",
        severity=Severity.WARNING,
        title="A progress deadline shorter than the start",
        reason="A revision that is not ready within its progress deadline (600 s by default,"
        " scheduling and image pull included) is marked failed, however much time its startupProbe"
        " still allows.",
        fix="Set serving.knative.dev/progress-deadline above the startupProbe's"
        " periodSeconds x failureThreshold, with room for the image pull.",
        source="knative serving config-deployment; knative/serving#15316",
        failing="""
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      startupProbe: {grpc: {port: 8081}, periodSeconds: 10, failureThreshold: 120}
""",
        passing="""
predictor:
  annotations: {serving.knative.dev/progress-deadline: 30m}
  containers:
    - name: kserve-container
      image: example/predictor:1
      startupProbe: {grpc: {port: 8081}, periodSeconds: 10, failureThreshold: 120}
""",
        check=_deadline,
    ),
)
