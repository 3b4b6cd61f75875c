"""What a cluster's own ConfigMaps rule out; a stock Knative allows all of it."""

from collections.abc import Iterator

from manifest_lint.inference_service import InferenceService
from manifest_lint.quantities import whole
from manifest_lint.rule import Gate, Problem, Rule, Severity


def _no_zero(service: InferenceService) -> Iterator[Problem]:
    if service.cluster.scale_to_zero:
        return
    for component in service.knative_components:
        if whole(component.spec.get("minReplicas")) == 0:
            yield Problem(
                component.at("minReplicas"),
                f"The {component.role} never goes to zero: {service.cluster.who} has"
                " enable-scale-to-zero: false.",
            )


def _over_the_limit(service: InferenceService) -> Iterator[Problem]:
    limit = service.cluster.max_scale_limit
    for component in service.knative_components:
        said = whole(component.spec.get("maxReplicas"))
        if limit and said is not None and said > limit:
            yield Problem(
                component.at("maxReplicas"),
                f"The {component.role}'s maxReplicas {said} is over the max-scale-limit {limit} of"
                f" {service.cluster.who}.",
                refusal=f"expected 1 <= {said} <= {limit}",
            )


RULES = (
    Rule(
        id="KW038",
        severity=Severity.WARNING,
        title="A minimum of zero where the cluster does not scale to zero",
        reason="With enable-scale-to-zero: false in config-autoscaler the last pod stays, and its"
        " GPU with it. Only seen when the cluster is read (`--context`, `--kubeconfig`).",
        fix="Have the key set to true, or write minReplicas: 1, which is what will run.",
        source="knative serving pkg/reconciler/autoscaling/kpa/scaler.go",
        config="config-autoscaler: {enable-scale-to-zero: 'false'}",
        failing="predictor: {minReplicas: 0}",
        passing="predictor: {minReplicas: 1}",
        check=_no_zero,
    ),
    Rule(
        id="KW039",
        severity=Severity.ERROR,
        title="More replicas than the cluster allows",
        reason="Knative's webhook refuses a max-scale over config-autoscaler's max-scale-limit,"
        " after apply has succeeded. Only seen when the cluster is read (`--context`,"
        " `--kubeconfig`).",
        fix="Lower maxReplicas, or have the limit raised.",
        source="knative serving pkg/apis/autoscaling/annotation_validation.go",
        gate=Gate.KNATIVE,
        config="config-autoscaler: {max-scale: '3', max-scale-limit: '5'}",
        failing="predictor: {minReplicas: 1, maxReplicas: 10}",
        passing="predictor: {minReplicas: 1, maxReplicas: 5}",
        check=_over_the_limit,
    ),
)
