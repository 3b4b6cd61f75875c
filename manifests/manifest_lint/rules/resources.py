"""CPU, memory, GPUs and shared memory."""

from collections.abc import Iterator

from manifest_lint.inference_service import Container, InferenceService, mapping
from manifest_lint.quantities import whole
from manifest_lint.rule import Gate, Problem, Rule, Severity

SHM = "/dev/shm"  # noqa: S108 (a mount path in a manifest)


def _missing(service: InferenceService) -> Iterator[Problem]:
    for component in service.components:
        for container in component.containers:
            resources = mapping(container.spec.get("resources"))
            named = {*mapping(resources.get("requests")), *mapping(resources.get("limits"))}
            unsaid = [kind for kind in ("cpu", "memory") if kind not in named]
            if unsaid:
                yield Problem(
                    container.path,
                    f"The {component.role}'s container {container.name} says nothing about"
                    f" {' and '.join(unsaid)}; KServe will say {_defaults(service, unsaid)}.",
                )


def _defaults(service: InferenceService, kinds: list[str]) -> str:
    """What KServe's webhook fills in, request and limit."""
    said = service.cluster.resources
    return ", ".join(f"{kind} {said[f'{kind}Request']} to {said[f'{kind}Limit']}" for kind in kinds)


def _extended(service: InferenceService) -> Iterator[Problem]:
    for component in service.components:
        for container in component.all_containers:
            yield from _amounts(container)


def _amounts(container: Container) -> Iterator[Problem]:
    resources = mapping(container.spec.get("resources"))
    requests, limits = (mapping(resources.get(side)) for side in ("requests", "limits"))
    # Extended resources are the ones with a domain; only they are whole and not overcommitted.
    for kind in sorted({str(key) for key in (*requests, *limits) if "/" in str(key)}):
        side = "limits" if kind in limits else "requests"
        path = (*container.path, "resources", side, kind)
        amount = limits.get(kind, requests.get(kind))
        if kind not in limits:
            yield Problem(
                path,
                f"{kind} is requested without a limit.",
                refusal="Limit must be set for non overcommitable resources",
            )
        elif kind in requests and str(requests[kind]) != str(limits[kind]):
            yield Problem(
                path,
                f"{kind} has the limit {limits[kind]} and the request {requests[kind]}.",
                refusal=f"must be equal to {kind} limit",
            )
        if whole(amount) is None:
            yield Problem(
                path,
                f"{kind} is a whole number, not {amount}.",
                refusal="must be an integer",
            )


def _shared_memory(service: InferenceService) -> Iterator[Problem]:
    for component in service.components:
        for container in component.containers:
            mounts = {str(mount.get("mountPath", "")).rstrip("/") for mount in container.mounts}
            if component.role == "predictor" and container.runs_vllm and SHM not in mounts:
                yield Problem(
                    (*container.path, "volumeMounts"),
                    f"The container {container.name} runs vLLM and has no volume at {SHM}.",
                )


RULES = (
    Rule(
        id="KW040",
        severity=Severity.WARNING,
        title="A container without CPU or memory",
        reason="KServe's webhook then fills in its own default, 1 CPU and 2 GiB as request and"
        " limit: too little for an engine and often too much for a transformer.",
        fix="Set resources.requests and resources.limits.",
        source="kserve ConfigMap inferenceservice-config, inferenceService.resource",
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
      resources:
        requests: {cpu: "4", memory: 16Gi}
        limits: {cpu: "8", memory: 24Gi}
""",
        check=_missing,
    ),
    Rule(
        id="KW041",
        severity=Severity.ERROR,
        title="A GPU that Kubernetes does not give out like this",
        reason="Extended resources are whole, need a limit, and have a request only if it equals"
        " the limit; the API server refuses the pod otherwise.",
        fix="Write a whole number under limits, and the same or nothing under requests.",
        source="Kubernetes, Schedule GPUs",
        gate=Gate.KNATIVE,
        failing="""
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      resources: {requests: {nvidia.com/gpu: "0.5"}}
""",
        passing="""
predictor:
  containers:
    - name: kserve-container
      image: example/predictor:1
      resources: {limits: {nvidia.com/gpu: "1"}}
""",
        check=_extended,
    ),
    Rule(
        id="KW042",
        severity=Severity.ERROR,
        title="vLLM without shared memory",
        reason="A pod's own /dev/shm has 64 MiB; the engine needs 160 MiB and more, and dies with"
        ' "Insufficient space in /dev/shm".',
        fix="Mount an emptyDir with medium: Memory and a sizeLimit of 1Gi or more at /dev/shm.",
        source="seen with vLLM 0.32 on a real cluster",
        failing="""
predictor:
  containers:
    - {name: kserve-container, image: "example/vllm:1"}
""",
        passing="""
predictor:
  containers:
    - name: kserve-container
      image: example/vllm:1
      volumeMounts: [{name: shm, mountPath: /dev/shm}]
  volumes: [{name: shm, emptyDir: {medium: Memory, sizeLimit: 1Gi}}]
""",
        check=_shared_memory,
    ),
)
