"""The reference page of the rules, made from the rules."""

from manifest_lint.rule import Rule
from manifest_lint.rules import RULES

HEAD = """# keepwarm lint

Made from the rules by `make generate`. `keepwarm lint PATH...` reads manifests from files, folders,
kustomize folders (with kubectl) or `-` (stdin) and reports what KServe or Knative refuses, drops or
runs differently than it reads. It reads InferenceServices (`serving.kserve.io/v1beta1`) and passes
over other objects. Without a deployment mode it takes Knative, the stricter.

| option | |
|---|---|
| `--format text`, `json` or `sarif` | SARIF 2.1.0 is what code hosts show beside the lines |
| `--severity info`, `warning` or `error` | the least that is shown (default: info) |
| `--fail-on info`, `warning` or `error` | the least that fails (default: warning) |
| `--disable KW061` | leaves a rule out; may be repeated |
| `--context NAME`, `--kubeconfig FILE` | a cluster whose ConfigMaps count (read with kubectl) |
| `--enabled KEY` | a key of Knative's config-features, such as kubernetes.podspec-nodeselector |

Without a cluster the defaults of Knative 1.21 and KServe 0.17 hold. With one, the rules know what
it enables, its limits and defaults (timeouts, concurrency, target, burst capacity, progress
deadline, scale to zero), the deployment mode and resources that KServe fills in, and the
annotations that it drops. Read are config-features, config-autoscaler, config-defaults and
config-deployment in knative-serving, and inferenceservice-config in kserve; nothing is written.

For a cluster that is out of reach, name each key that it enables: what only needs that key is then
no finding. Two keys are of other ConfigMaps: max-revision-timeout-seconds (config-defaults, for
timeouts over 600 s) and allow-zero-initial-scale (config-autoscaler).

Exit status: 0 nothing to fail on, 1 findings, 2 input that cannot be read. An *error* is refused or
does not work as written, a *warning* works until a bad moment, an *info* is a choice to make.

Each example is the `spec` (or `metadata` and `spec`) of an InferenceService `chat` in Knative mode,
and a test of its rule.
"""


def page() -> str:
    """The page in Markdown."""
    rows = [f"| [{r.id}](#{r.id.lower()}) | {r.severity} | {r.title} |" for r in RULES]
    table = "\n".join(["| rule | severity | |", "|---|---|---|", *rows])
    return "\n".join([HEAD, table, *map(_section, RULES), ""])


def _section(rule: Rule) -> str:
    return f"""
## {rule.id}

**{rule.title}** ({rule.severity}). {rule.reason}

*Fix*: {rule.fix}

*Source*: {rule.source}.
{_config(rule)}
Fails:

```yaml
{rule.failing.strip()}
```

Passes:

```yaml
{rule.passing.strip()}
```"""


def _config(rule: Rule) -> str:
    if not rule.config:
        return ""
    return f"""
With these ConfigMaps:

```yaml
{rule.config.strip()}
```
"""
