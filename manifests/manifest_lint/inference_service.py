"""An InferenceService as the rules see it: its components, their containers, where each field is.

Reads wrong shapes as empty: the API server's own schema check refuses them before any rule could.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from manifest_lint.cluster import STOCK, Cluster
from manifest_lint.documents import Document, Path

API = "serving.kserve.io/v1beta1"
DEPLOYMENT_MODE = "serving.kserve.io/deploymentMode"
# The defaulter rewrites the old names.
MODES = {
    "Knative": "Knative",
    "Serverless": "Knative",
    "Standard": "Standard",
    "RawDeployment": "Standard",
}
ROLES = ("transformer", "predictor", "explainer")
MAIN = "kserve-container"


class Annotation(NamedTuple):
    """An annotation that reaches a component, and where it is written."""

    path: Path
    value: Any


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: object) -> Sequence[Mapping[str, Any]]:
    """The mappings of a list, an empty one in place of anything else."""
    return [mapping(item) for item in value] if isinstance(value, list) else []


@dataclass(frozen=True)
class Container:
    """A container, or the `model` of a predictor, which a serving runtime completes."""

    path: Path
    spec: Mapping[str, Any]
    is_model: bool = False

    @property
    def name(self) -> str:
        """Its name; KServe's for a model."""
        return MAIN if self.is_model else str(self.spec.get("name", ""))

    @property
    def image(self) -> str:
        """Its image, empty if it names none."""
        return str(self.spec.get("image") or "")

    @property
    def words(self) -> tuple[str, ...]:
        """Command and arguments in one row."""
        parts = (self.spec.get("command"), self.spec.get("args"))
        return tuple(str(word) for part in parts if isinstance(part, list) for word in part)

    @property
    def ports(self) -> Sequence[Mapping[str, Any]]:
        """Its container ports."""
        return mappings(self.spec.get("ports"))

    @property
    def env(self) -> Sequence[Mapping[str, Any]]:
        """Its environment variables."""
        return mappings(self.spec.get("env"))

    @property
    def mounts(self) -> Sequence[Mapping[str, Any]]:
        """Its volume mounts."""
        return mappings(self.spec.get("volumeMounts"))

    @property
    def ours(self) -> bool:
        """Whether it runs one of this project's servers, whose defaults are known."""
        return "keepwarm" in self.image or any(
            word in {"llm_transformer", "vllm_predictor"} for word in self.words
        )

    @property
    def runs_vllm(self) -> bool:
        """Whether it holds a vLLM engine."""
        predictor = "keepwarm" in self.image and "predictor" in self.image
        words = (self.image, *self.words)
        return predictor or any("vllm" in word or "huggingfaceserver" in word for word in words)

    def flag(self, name: str) -> str | None:
        """The value of `--name value` or `--name=value`, "" for a bare flag; `-` equals `_`."""
        for index, word in enumerate(self.words):
            key, equals, value = word.partition("=")
            if not key.startswith("--") or key[2:].replace("-", "_") != name:
                continue
            if equals:
                return value
            follows = self.words[index + 1 : index + 2]
            return follows[0] if follows and not follows[0].startswith("--") else ""
        return None


@dataclass(frozen=True)
class Component:
    """The transformer, predictor or explainer."""

    role: str
    mode: str
    path: Path
    spec: Mapping[str, Any]
    metadata: Mapping[str, Any]

    @property
    def knative(self) -> bool:
        """Whether it becomes a Knative Service."""
        return self.mode == "Knative"

    @cached_property
    def annotations(self) -> Mapping[str, Annotation]:
        """Those of the InferenceService and its own, which win (`SetAutoScalingAnnotations`)."""
        levels = (
            (("metadata", "annotations"), self.metadata.get("annotations")),
            ((*self.path, "annotations"), self.spec.get("annotations")),
        )
        return {
            str(key): Annotation((*path, key), value)
            for path, level in levels
            for key, value in mapping(level).items()
        }

    @property
    def labels(self) -> Mapping[str, Any]:
        """Those of the InferenceService and its own, which win."""
        return {**mapping(self.metadata.get("labels")), **mapping(self.spec.get("labels"))}

    @cached_property
    def containers(self) -> Sequence[Container]:
        """The containers that the manifest lists."""
        return self._containers("containers")

    @cached_property
    def all_containers(self) -> Sequence[Container]:
        """The containers, the model and the init containers."""
        return (*self.served, *self._containers("initContainers"))

    @property
    def served(self) -> Sequence[Container]:
        """The containers and the model."""
        model = self.spec.get("model")
        if not isinstance(model, Mapping):
            return self.containers
        return (*self.containers, Container((*self.path, "model"), model, is_model=True))

    @property
    def main(self) -> Container | None:
        """The container that serves: KServe's name, or the first."""
        named = [container for container in self.containers if container.name == MAIN]
        return next(iter([*named, *self.served]), None)

    @property
    def volumes(self) -> Sequence[Mapping[str, Any]]:
        """Its volumes."""
        return mappings(self.spec.get("volumes"))

    def at(self, *steps: str | int) -> Path:
        """The path of one of its fields."""
        return (*self.path, *steps)

    def _containers(self, field: str) -> Sequence[Container]:
        return [
            Container(self.at(field, index), spec)
            for index, spec in enumerate(mappings(self.spec.get(field)))
        ]


@dataclass(frozen=True)
class InferenceService:
    """One InferenceService, and the cluster that it is for."""

    document: Document
    cluster: Cluster = STOCK

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Its metadata."""
        return mapping(self.document.value.get("metadata"))

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.metadata.get("name", ""))

    @property
    def deployment_mode(self) -> Any:
        """What its annotation says, None without."""
        return mapping(self.metadata.get("annotations")).get(DEPLOYMENT_MODE)

    @property
    def mode(self) -> str:
        """Knative, Standard or another.

        When nothing is said, the cluster's default; Knative, the stricter, where that is not known.
        """
        said = self.deployment_mode or self.cluster.deployment_mode or "Knative"
        return MODES.get(str(said), str(said))

    @cached_property
    def components(self) -> Sequence[Component]:
        """Its components, in the order that a request passes them."""
        spec = mapping(self.document.value.get("spec"))
        return [
            Component(role, self.mode, ("spec", role), mapping(spec[role]), self.metadata)
            for role in ROLES
            if spec.get(role) is not None
        ]

    def component(self, role: str) -> Component | None:
        """The component of that role, if there is one."""
        return next((found for found in self.components if found.role == role), None)

    @property
    def knative_components(self) -> Iterator[Component]:
        """The components that become Knative Services."""
        return (component for component in self.components if component.knative)


def is_inference_service(document: Document) -> bool:
    """Whether the rules read this object."""
    value = document.value
    return value.get("apiVersion") == API and value.get("kind") == "InferenceService"
