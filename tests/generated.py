"""Generated files: `write` makes them anew, `check` fails when a checked-in one is out of date."""

import json
import sys
import tempfile
from pathlib import Path

import metrics_reference

from keepwarm.warmpool.settings import ControllerSettings
from llm_transformer.limits import plans
from llm_transformer.settings import TransformerSettings
from manifest_lint import reference
from monitoring import grafana, rules
from openinference.proto.generate import generate
from openinference.server.settings import ENV_PREFIX
from vllm_predictor.settings import PredictorSettings

REPOSITORY = Path(__file__).parents[1]
STUBS = tuple(
    f"protocol/openinference/proto/inference_pb2{ending}" for ending in (".py", ".pyi", "_grpc.py")
)
SETTINGS = "docs/settings.md"
LINT = "docs/lint.md"
METRICS = "docs/metrics.md"
PLANS = "docs/plans.schema.json"
MONITORING = "manifests/monitoring"
RULES = f"{MONITORING}/rules.yaml"
OPERATORS_RULES = f"{MONITORING}/prometheusrule.yaml"
DASHBOARDS = {
    f"{MONITORING}/dashboards/{name}": text for name, text in grafana.dashboards().items()
}
_GENERATED = (
    *(*STUBS, SETTINGS, LINT, METRICS, PLANS, RULES, OPERATORS_RULES),
    *DASHBOARDS,
)


def settings_page() -> str:
    """The reference of the servers' settings, and the controller's."""
    return f"""# Settings

Made from the settings classes by `make generate`. A flag wins over its environment variable
(`{ENV_PREFIX}` and the name in capitals), which wins over the default. KServe's other flags are
accepted and named on stderr as having no effect; `--ssl_certfile` and `--ssl_keyfile` are refused.

## Transformer: `{TransformerSettings.command}`

{TransformerSettings.markdown()}

## Predictor: `{PredictorSettings.command}`

{PredictorSettings.markdown()}

## Warm-pool controller: `python -m keepwarm.warmpool`

{ControllerSettings.markdown()}
"""


def write(out: Path) -> None:
    """Makes every generated file below `out`."""
    generate(REPOSITORY / "protocol", out / "protocol")
    (out / "docs").mkdir(parents=True, exist_ok=True)
    (out / SETTINGS).write_text(settings_page())
    (out / LINT).write_text(reference.page())
    (out / METRICS).write_text(metrics_reference.page())
    for name, text in {
        RULES: rules.rules_file(),
        OPERATORS_RULES: rules.prometheus_rule(),
        **DASHBOARDS,
    }.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)
    (out / PLANS).write_text(json.dumps(plans.schema(), indent=2) + "\n")


def main() -> int:
    if sys.argv[1:] == ["write"]:
        write(REPOSITORY)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        stale = [
            name
            for name in _GENERATED
            if (REPOSITORY / name).read_text() != (Path(folder) / name).read_text()
        ]
    if stale:
        print(f"out of date: {', '.join(stale)}; run make generate", file=sys.stderr)
        return 1
    print("generated files are current")
    return 0


if __name__ == "__main__":
    sys.exit(main())
