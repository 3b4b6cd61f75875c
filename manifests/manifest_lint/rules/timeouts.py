"""Timeouts along the path of a request: gateway, component, server, drain."""

from collections.abc import Iterator

from manifest_lint.cluster import Cluster
from manifest_lint.documents import Path
from manifest_lint.inference_service import Component, InferenceService
from manifest_lint.quantities import number
from manifest_lint.rule import Gate, Problem, Rule, Severity
from manifest_lint.servers import setting

MAX_TIMEOUT_KEY = "max-revision-timeout-seconds"
ROUTE_TIMEOUT_S = 60
DEFAULT_GRACE_S = 30
# What queue-proxy waits for late requests before the server gets its SIGTERM (cmd/queue/main.go).
QUIET_S = 30


def _timeout(component: Component, cluster: Cluster) -> tuple[Path, float]:
    said = number(component.spec.get("timeout"))
    if said is None:
        return component.path, cluster.timeout_s
    return component.at("timeout"), said


def _cuts_the_server(service: InferenceService) -> Iterator[Problem]:
    for component in service.knative_components:
        path, timeout_s = _timeout(component, service.cluster)
        longest_s = setting(component.main, "max_timeout_s")
        if longest_s is not None and timeout_s <= longest_s:
            yield Problem(
                path,
                f"The {component.role}'s timeout of {timeout_s:g} s ends requests that its server"
                f" gives {longest_s:g} s (--max_timeout_s).",
            )


def _cuts_the_drain(service: InferenceService) -> Iterator[Problem]:
    for component in service.knative_components:
        path, timeout_s = _timeout(component, service.cluster)
        drain_s = setting(component.main, "drain_s")
        if drain_s is not None and timeout_s < drain_s + QUIET_S:
            yield Problem(
                path,
                f"The {component.role}'s pod is killed {timeout_s:g} s after its end has begun (its"
                f" timeout), while its server drains for up to {drain_s:g} s (--drain_s), from"
                f" {QUIET_S} s on.",
            )


def _over_the_maximum(service: InferenceService) -> Iterator[Problem]:
    for component in service.knative_components:
        path, timeout_s = _timeout(component, service.cluster)
        if timeout_s > service.cluster.max_timeout_s:
            yield Problem(
                path,
                f"The {component.role}'s timeout of {timeout_s:g} s is over"
                f" {service.cluster.max_timeout_s:g} s; config-defaults must set {MAX_TIMEOUT_KEY}"
                " to that much.",
                needs=MAX_TIMEOUT_KEY,
                refusal=f"expected 0 <= {timeout_s:g} <= {service.cluster.max_timeout_s:g}",
            )


def _outer_shorter(service: InferenceService) -> Iterator[Problem]:
    outer, inner = (service.component(role) for role in ("transformer", "predictor"))
    if outer is None or inner is None or not outer.knative:
        return
    path, outer_s = _timeout(outer, service.cluster)
    _, inner_s = _timeout(inner, service.cluster)
    if outer_s < inner_s:
        yield Problem(
            path,
            f"The transformer's timeout of {outer_s:g} s is shorter than the predictor's"
            f" {inner_s:g} s.",
        )


def _route_timeout(service: InferenceService) -> Iterator[Problem]:
    for component in service.components:
        if component.mode == "Standard" and component.spec.get("timeout") is None:
            yield Problem(
                component.path,
                f"The {component.role} sets no timeout, so its route ends every request after"
                f" {ROUTE_TIMEOUT_S} s.",
            )


def _grace_shorter(service: InferenceService) -> Iterator[Problem]:
    for component in service.components:
        said = number(component.spec.get("terminationGracePeriodSeconds"))
        grace_s, drain_s = (
            DEFAULT_GRACE_S if said is None else said,
            setting(component.main, "drain_s"),
        )
        if component.mode == "Standard" and drain_s is not None and grace_s < drain_s:
            yield Problem(
                component.path if said is None else component.at("terminationGracePeriodSeconds"),
                f"The {component.role}'s pod is killed {grace_s:g} s after SIGTERM, while its"
                f" server drains for up to {drain_s:g} s (--drain_s).",
            )


RULES = (
    Rule(
        id="KW032",
        severity=Severity.WARNING,
        title="A component timeout that is not longer than its server's",
        reason="The proxy then cuts the connection before the server can answer 504, stop the"
        " engine and say why. Both are 300 s by default.",
        fix="Set the component's `timeout` above --max_timeout_s.",
        source="knative serving pkg/http/handler/timeout.go; docs/settings.md",
        failing="""
predictor:
  timeout: 120
  containers:
    - {name: kserve-container, image: "keepwarm/predictor-gpu:1", args: [--max_timeout_s=300]}
""",
        passing="""
predictor:
  timeout: 330
  containers:
    - {name: kserve-container, image: "keepwarm/predictor-gpu:1", args: [--max_timeout_s=300]}
""",
        check=_cuts_the_server,
    ),
    Rule(
        id="KW033",
        severity=Severity.WARNING,
        title="A pod that is killed while it drains",
        reason="In Knative mode the pod's grace period is the component's timeout, and queue-proxy"
        f" keeps SIGTERM from the server for the first {QUIET_S} s.",
        fix=f"Set the component's `timeout` to --drain_s and {QUIET_S} s or more, or lower"
        " --drain_s.",
        source="knative serving pkg/reconciler/revision/resources/deploy.go, cmd/queue/main.go",
        failing="""
predictor:
  timeout: 120
  containers:
    - {name: kserve-container, image: "keepwarm/predictor-gpu:1", args: [--drain_s=300]}
""",
        passing="""
predictor:
  timeout: 120
  containers:
    - {name: kserve-container, image: "keepwarm/predictor-gpu:1", args: [--drain_s=90]}
""",
        check=_cuts_the_drain,
    ),
    Rule(
        id="KW034",
        severity=Severity.ERROR,
        title="A timeout over 600 s",
        reason="A stock Knative refuses it.",
        fix="Lower it, or have max-revision-timeout-seconds raised in the ConfigMap config-defaults"
        " (and the activator's own grace period with it) and say `--enabled"
        " max-revision-timeout-seconds`.",
        source="knative serving pkg/apis/config/defaults.go",
        gate=Gate.KNATIVE,
        failing="predictor: {timeout: 900}",
        passing="predictor: {timeout: 600}",
        check=_over_the_maximum,
    ),
    Rule(
        id="KW035",
        severity=Severity.WARNING,
        title="A transformer that gives up before its predictor",
        reason="A request passes the transformer first: what the predictor does after the"
        " transformer's timeout, its cold start included, is work for nobody.",
        fix="Give the transformer at least the predictor's timeout.",
        source="kserve ksvc_reconciler.go: timeout becomes timeoutSeconds of each",
        failing="""
transformer: {timeout: 60}
predictor: {timeout: 330}
""",
        passing="""
transformer: {timeout: 330}
predictor: {timeout: 330}
""",
        check=_outer_shorter,
    ),
    Rule(
        id="KW036",
        severity=Severity.WARNING,
        title="Standard mode without a timeout",
        reason="KServe's Gateway API route times out after 60 s unless the component says"
        " otherwise; long generations and streams end there.",
        fix="Set the component's `timeout`.",
        source="kserve, HTTPRoute reconciler",
        failing="""
metadata:
  name: chat
  annotations: {serving.kserve.io/deploymentMode: Standard}
spec: {predictor: {minReplicas: 1}}
""",
        passing="""
metadata:
  name: chat
  annotations: {serving.kserve.io/deploymentMode: Standard}
spec: {predictor: {minReplicas: 1, timeout: 330}}
""",
        check=_route_timeout,
    ),
    Rule(
        id="KW037",
        severity=Severity.WARNING,
        title="A grace period shorter than the drain",
        reason="In Standard mode Kubernetes kills the pod after terminationGracePeriodSeconds, 30 s"
        " by default.",
        fix="Set terminationGracePeriodSeconds to --drain_s or more.",
        source="Kubernetes, pod termination; docs/settings.md",
        failing="""
metadata:
  name: chat
  annotations: {serving.kserve.io/deploymentMode: Standard}
spec:
  predictor:
    containers:
      - {name: kserve-container, image: "keepwarm/predictor-gpu:1"}
""",
        passing="""
metadata:
  name: chat
  annotations: {serving.kserve.io/deploymentMode: Standard}
spec:
  predictor:
    terminationGracePeriodSeconds: 330
    containers:
      - {name: kserve-container, image: "keepwarm/predictor-gpu:1"}
""",
        check=_grace_shorter,
    ),
)
