"""What runs, who may reach it, and the proxy beside it."""

from collections.abc import Iterator

from manifest_lint.inference_service import Container, InferenceService
from manifest_lint.rule import Problem, Rule, Severity
from manifest_lint.servers import ENV_PREFIX

VISIBILITY = ("networking.kserve.io/visibility", "networking.knative.dev/visibility")
QUEUE_PROXY = "queue.sidecar.serving.knative.dev/"


def _tag(image: str) -> str | None:
    """The tag of an image reference; a port's colon stands before a slash."""
    name, colon, tag = image.rpartition(":")
    return tag if colon and name and "/" not in tag else None


def _mutable_tag(service: InferenceService) -> Iterator[Problem]:
    for component in service.components:
        for container in component.all_containers:
            image = container.image
            if image and "@" not in image and _tag(image) in {None, "latest"}:
                yield Problem(
                    (*container.path, "image"),
                    f"The image {image} has {'the tag latest' if _tag(image) else 'no tag'}.",
                )


def _no_digest(service: InferenceService) -> Iterator[Problem]:
    for component in service.components:
        for container in component.all_containers:
            image = container.image
            if image and "@" not in image and _tag(image) not in {None, "latest"}:
                yield Problem(
                    (*container.path, "image"), f"The image {image} is not held by its digest."
                )


def _exposed_predictor(service: InferenceService) -> Iterator[Problem]:
    predictor = service.component("predictor")
    if predictor is None or not predictor.knative or service.component("transformer") is None:
        return
    if not any(predictor.labels.get(label) == "cluster-local" for label in VISIBILITY):
        yield Problem(
            predictor.path,
            "The predictor has a public route of its own beside the transformer's.",
        )


def _said(container: Container, name: str) -> bool:
    return container.flag(name) is not None or any(
        variable.get("name") == f"{ENV_PREFIX}{name.upper()}" for variable in container.env
    )


def _no_word_about_keys(service: InferenceService) -> Iterator[Problem]:
    transformer = service.component("transformer")
    main = transformer.main if transformer else None
    if main is None or not main.ours:
        return
    if not _said(main, "keys_file") and not _said(main, "allow_anonymous"):
        yield Problem(main.path, "The transformer has neither --keys_file nor --allow_anonymous.")


def _anybody(service: InferenceService) -> Iterator[Problem]:
    transformer = service.component("transformer")
    main = transformer.main if transformer else None
    if transformer is None or main is None or not _said(main, "allow_anonymous"):
        return
    if _said(main, "plans_file"):
        return
    if not any(transformer.labels.get(label) == "cluster-local" for label in VISIBILITY):
        yield Problem(main.path, "Whoever reaches the ingress is answered without a key.")


def _queue_proxy(service: InferenceService) -> Iterator[Problem]:
    for component in service.knative_components:
        said = [key for key in component.annotations if key.startswith(QUEUE_PROXY)]
        if not any("cpu" in key or "resource" in key.lower() for key in said):
            yield Problem(
                component.path,
                f"Nothing is said about the CPU of the {component.role}'s queue-proxy.",
            )


RULES = (
    Rule(
        id="KW060",
        severity=Severity.WARNING,
        title="A mutable image tag",
        reason="Two pods of one revision may run different code. Knative resolves the tag once per"
        " revision; Standard mode at each pull.",
        fix="Name a version, better a digest.",
        source="Kubernetes, image names; Knative tag resolution",
        failing="""
predictor:
  containers:
    - {name: kserve-container, image: "example/predictor:latest"}
""",
        passing="""
predictor:
  containers:
    - {name: kserve-container, image: "example/predictor:0.1.0"}
""",
        check=_mutable_tag,
    ),
    Rule(
        id="KW061",
        severity=Severity.INFO,
        title="An image without a digest",
        reason="A tag can be moved; a digest names exactly one image.",
        fix="Append @sha256:... , for example with `kustomize edit set image`.",
        source="Kubernetes, image names",
        failing="""
predictor:
  containers:
    - {name: kserve-container, image: "example/predictor:0.1.0"}
""",
        passing="""
predictor:
  containers:
    - name: kserve-container
      image: predictor@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
""",
        check=_no_digest,
    ),
    Rule(
        id="KW062",
        severity=Severity.INFO,
        title="A predictor that the ingress serves",
        reason="Whoever reaches the ingress reaches the engine and passes by the transformer with"
        " all that it checks.",
        fix="Set the label networking.knative.dev/visibility: cluster-local on the predictor.",
        source="kserve ksvc_reconciler.go: a component's labels are its Knative Service's; Knative"
        " private services",
        failing="""
transformer: {minReplicas: 1}
predictor: {minReplicas: 0}
""",
        passing="""
transformer: {minReplicas: 1}
predictor:
  minReplicas: 0
  labels: {networking.knative.dev/visibility: cluster-local}
""",
        check=_exposed_predictor,
    ),
    Rule(
        id="KW063",
        severity=Severity.INFO,
        title="queue-proxy's CPU is left to the cluster",
        reason="queue-proxy carries every byte of every stream; with a small limit it is throttled"
        " and latency jumps.",
        fix="Set queue.sidecar.serving.knative.dev/cpu-resource-request (and -limit) for the load.",
        source="knative/serving#8057",
        failing="predictor: {minReplicas: 1}",
        passing="""
predictor:
  minReplicas: 1
  annotations: {queue.sidecar.serving.knative.dev/cpu-resource-request: 200m}
""",
        check=_queue_proxy,
    ),
    Rule(
        id="KW064",
        severity=Severity.ERROR,
        title="A transformer that was told nothing about keys",
        reason="It starts only with a key file, or with the word that everybody is answered; else"
        " it exits, again and again.",
        fix="Add components/api-keys, or --allow_anonymous.",
        source="docs/settings.md",
        failing="""
transformer:
  containers:
    - {name: kserve-container, image: "keepwarm/transformer:1", args: [--model_name=chat]}
""",
        passing="""
transformer:
  containers:
    - name: kserve-container
      image: keepwarm/transformer:1
      args: [--keys_file=/etc/keepwarm/keys/keys.yaml]
""",
        check=_no_word_about_keys,
    ),
    Rule(
        id="KW065",
        severity=Severity.INFO,
        title="Anybody may call, as much as they like",
        reason="Without plans there is no limit: one caller can hold every GPU that maxReplicas"
        " allows, at your cost.",
        fix="Add components/api-keys, or let a gateway that asks for keys be the only way in (the"
        " label networking.knative.dev/visibility: cluster-local on the transformer).",
        source="docs/settings.md",
        failing="""
transformer:
  containers:
    - {name: kserve-container, image: "keepwarm/transformer:1", args: [--allow_anonymous]}
""",
        passing="""
transformer:
  labels: {networking.knative.dev/visibility: cluster-local}
  containers:
    - {name: kserve-container, image: "keepwarm/transformer:1", args: [--allow_anonymous]}
""",
        check=_anybody,
    ),
)
