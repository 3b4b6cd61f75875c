"""cpu-demo with an engine of fixed speed in place of vLLM's: a predictor that starts in seconds.

Everything else is the overlay's and the image's own: transformer, both edges, start-up, admission,
drain, probes, Knative's path. perf/fixed_predictor.py says what the engine does.
"""

import functools
import runpy
from collections.abc import Callable, Sequence

import yaml

from .conftest import REPOSITORY, rendered

SOURCE = REPOSITORY / "perf/fixed_predictor.py"
PYTHON = "/opt/keepwarm/bin/python"
FOLDER = "/fixed-engine"


@functools.cache
def answer() -> Callable[[str, int], str]:
    """The text that a prompt gets, as a function of the prompt and the number of tokens."""
    return runpy.run_path(str(SOURCE))["answer"]


def manifest(
    *components: str,
    slots: int,
    token_ms: int,
    target: int,
    most: int,
    window: str,
    load_s: int = 0,
    transformer_flags: Sequence[str] = (),
) -> str:
    """`slots` sequences a pod at a time, scaled at `target` up to `most` pods.

    A pod takes `load_s` more seconds to start than it needs.
    """
    documents = list(yaml.safe_load_all(rendered("cpu-demo", *components)))
    (service,) = (each for each in documents if each["kind"] == "InferenceService")
    predictor = service["spec"]["predictor"]
    predictor["scaleTarget"] = target
    predictor["maxReplicas"] = most
    for component in (predictor, service["spec"]["transformer"]):
        annotations = component.setdefault("annotations", {})
        annotations["autoscaling.knative.dev/window"] = window
    (transformer,) = service["spec"]["transformer"]["containers"]
    transformer["args"] += transformer_flags
    (container,) = predictor["containers"]
    container["command"] = [
        *("/bin/sh", "-c", f'sleep {load_s}; exec "$0" "$@"', PYTHON),
        f"{FOLDER}/{SOURCE.name}",
    ]
    container["args"] = [
        "--model_name=chat",
        f"--slots={slots}",
        f"--token_ms={token_ms}",
        # All that a burst can bring before a second pod is there.
        f"--max_num_queued_reqs={4 * slots}",
    ]
    container["resources"] = {
        "requests": {"cpu": "50m", "memory": "128Mi"},
        "limits": {"cpu": "1", "memory": "512Mi"},
    }
    container["volumeMounts"].append({"name": "fixed-engine", "mountPath": FOLDER})
    predictor["volumes"].append({"name": "fixed-engine", "configMap": {"name": "fixed-engine"}})
    source = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "fixed-engine"},
        "data": {SOURCE.name: SOURCE.read_text()},
    }
    return yaml.safe_dump_all([source, *documents])
