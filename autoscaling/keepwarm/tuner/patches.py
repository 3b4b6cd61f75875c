"""The recommendation as files to apply: a patch, live annotations of the Revision, a WarmPool.

A patch of the InferenceService starts a new Revision, and so for a while a second GPU; the live
annotations (Knative 1.21 and later) do not, but the next rollout forgets them. Both say the same.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import yaml

import manifest_lint
from keepwarm.kpa.model import Policy
from keepwarm.tuner.manifest import Manifest
from keepwarm.tuner.prices import Prices
from keepwarm.tuner.setting import Setting
from keepwarm.warmpool import api, durations

GROUP = "autoscaling.knative.dev"
MODE = "serving.kserve.io/deploymentMode"
# Read only when the decider or the Revision is made (Knative scaling/autoscaler.go, deploy.go).
NOT_LIVE = ("scale-down-delay", "initial-scale")


def files(
    manifest: Manifest, setting: Setting, *, lead_s: float, zone: str, prices: Prices
) -> dict[str, str]:
    """File names and what is in them."""
    knobs = annotations(setting.policy, manifest.policy)
    found: dict[str, str] = {}
    if manifest.kind in {"InferenceService", "Service"}:
        found["patch.yaml"] = _patch_text(manifest, setting, knobs)
    found["revision.yaml"] = _revision_text(manifest, setting.policy, knobs)
    if setting.week is not None and manifest.kind == "InferenceService":
        found["warmpool.yaml"] = _warm_pool_text(manifest, setting, lead_s, zone, prices)
    return found


def annotations(policy: Policy, current: Policy) -> dict[str, str]:
    """What is set: the window and the burst capacity always, the rest where it changes."""
    values = {
        "window": (
            policy.stable_window_s,
            durations.show(timedelta(seconds=policy.stable_window_s)),
        ),
        "target-burst-capacity": (
            policy.target_burst_capacity,
            f"{policy.target_burst_capacity:g}",
        ),
        "scale-to-zero-pod-retention-period": (
            policy.pod_retention_s,
            durations.show(timedelta(seconds=policy.pod_retention_s)),
        ),
        "scale-down-delay": (
            policy.scale_down_delay_s,
            durations.show(timedelta(seconds=policy.scale_down_delay_s)),
        ),
        "target": (policy.target, f"{policy.target:g}"),
        "activation-scale": (policy.activation_scale, str(policy.activation_scale)),
        "initial-scale": (policy.initial_scale, str(policy.initial_scale)),
    }
    fields = {
        "scale-to-zero-pod-retention-period": "pod_retention_s",
        "scale-down-delay": "scale_down_delay_s",
        "target": "target",
        "activation-scale": "activation_scale",
        "initial-scale": "initial_scale",
    }
    changed = {name for name, field in fields.items() if values[name][0] != getattr(current, field)}
    if policy.container_concurrency != current.container_concurrency:
        # A target that nobody set follows containerConcurrency; now it is set.
        changed.add("target")
    return {
        name: text for name, (_, text) in values.items() if name not in fields or name in changed
    }


def linted(manifest: Manifest, policy: Policy) -> list[str]:
    """What `keepwarm lint` warns of once a policy is patched in, and did not before: rules' ids."""
    if manifest.kind != "InferenceService":
        return []
    (original,) = [
        d
        for d in yaml.safe_load_all(manifest.text)
        if isinstance(d, Mapping)
        and d.get("kind") == manifest.kind
        and (d.get("metadata") or {}).get("name") == manifest.name
    ]
    patch = yaml.safe_load(
        _patch_text(manifest, Setting(policy), annotations(policy, manifest.policy))
    )
    before, after = (_warnings(_yaml(d)) for d in (original, merged(original, patch)))
    return sorted(after - before)


def _warnings(text: str) -> set[str]:
    documents = list(manifest_lint.parse(text, "manifest"))
    result = manifest_lint.lint(documents).at_least(manifest_lint.Severity.WARNING)
    return {finding.rule.id for finding in result.findings}


def merged(into: Any, patch: Any) -> Any:
    """RFC 7386, as `kubectl patch --type merge` applies it."""
    if not isinstance(patch, Mapping):
        return patch
    found = dict(into) if isinstance(into, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), value)
    return found


def _patch_text(manifest: Manifest, setting: Setting, knobs: Mapping[str, str]) -> str:
    policy = setting.policy
    document = yaml.safe_load_all(manifest.text)
    original = next(
        d for d in document if isinstance(d, Mapping) and d.get("kind") == manifest.kind
    )
    metadata: dict[str, Any] = {"name": manifest.name}
    if manifest.namespace:
        metadata["namespace"] = manifest.namespace
    marked = {f"{GROUP}/{name}": text for name, text in knobs.items()}
    concurrency: dict[str, Any] = {}
    if policy.container_concurrency != manifest.policy.container_concurrency:
        concurrency["containerConcurrency"] = policy.container_concurrency
    if manifest.kind == "Service":
        if policy.min_scale != manifest.policy.min_scale:
            marked[f"{GROUP}/min-scale"] = str(policy.min_scale)
        template: dict[str, Any] = {"metadata": {"annotations": marked}}
        if concurrency:
            template["spec"] = concurrency
        spec: dict[str, Any] = {"template": template}
        resource = "ksvc"
    else:
        # Without the mode, a reader of the patch alone cannot tell that Knative acts on it.
        mode = (original.get("metadata", {}).get("annotations") or {}).get(MODE)
        if mode:
            metadata["annotations"] = {MODE: mode}
        component: dict[str, Any] = {"minReplicas": policy.min_scale, **concurrency}
        target = marked.pop(f"{GROUP}/target", None)
        if target is not None:
            if policy.target == int(policy.target):
                component |= {"scaleMetric": policy.metric, "scaleTarget": int(policy.target)}
            else:
                # KServe's own field takes whole numbers and goes before the annotation.
                component["scaleTarget"] = None
                marked[f"{GROUP}/target"] = target
        component["annotations"] = marked
        spec = {manifest.component: component}
        resource = "inferenceservice"
    place = f" -n {manifest.namespace}" if manifest.namespace else ""
    sleeping = ""
    if setting.sleep_after_s is not None:
        # A merge patch replaces lists, so arguments cannot be added by one.
        sleeping = (
            "# The asleep tier is the predictor's own. Give its container these arguments too:\n"
            f"#   --sleep_mode --sleep_after_s={setting.sleep_after_s:g}\n"
        )
    head = (
        f"# kubectl patch {resource} {manifest.name}{place} --type merge --patch-file patch.yaml\n"
        "# Starts a new Revision. To change the running one instead: revision.yaml.\n" + sleeping
    )
    body = {
        "apiVersion": original["apiVersion"],
        "kind": manifest.kind,
        "metadata": metadata,
        "spec": spec,
    }
    return head + _yaml(body)


def _revision_text(manifest: Manifest, policy: Policy, knobs: Mapping[str, str]) -> str:
    live = {f"{GROUP}/{name}": text for name, text in knobs.items() if name not in NOT_LIVE}
    if policy.min_scale != manifest.policy.min_scale:
        live[f"{GROUP}/min-scale"] = str(policy.min_scale)
    left = [name for name in NOT_LIVE if name in knobs]
    if policy.container_concurrency != manifest.policy.container_concurrency:
        left.append("containerConcurrency")
    service = manifest.name
    if manifest.kind == "InferenceService":
        service = f"{manifest.name}-{manifest.component}"
    place = f" -n {manifest.namespace}" if manifest.namespace else ""
    head = (
        "# Knative 1.21 and later: acts at once, no new Revision, no second GPU; the next rollout\n"
        "# forgets it.\n"
        f"# kubectl patch revision{place} --type merge --patch-file revision.yaml \\\n"
        f"#   $(kubectl get ksvc {service}{place}"
        " -o jsonpath='{.status.latestReadyRevisionName}')\n"
    )
    if left:
        head += (
            f"# Not to be changed on a live Revision, so only in patch.yaml: {', '.join(left)}.\n"
        )
    return head + _yaml({"metadata": {"annotations": live}})


def _warm_pool_text(
    manifest: Manifest, setting: Setting, lead_s: float, zone: str, prices: Prices
) -> str:
    assert setting.week is not None
    spec = api.Spec(
        target=api.Target(
            inference_service=manifest.name,
            component=manifest.component,  # type: ignore[arg-type]
        ),
        time_zone=zone,
        floor=setting.policy.min_scale,
        windows=tuple(setting.week.windows()),
        lead=api.Lead(fixed=timedelta(seconds=lead_s)),
        price=api.Price(
            per_replica_hour=round(prices.per_gpu_hour * prices.gpus_per_pod, 6),
            currency=prices.currency,
        ),
    )
    body = api.manifest(f"{manifest.name}-tuned", spec, namespace=manifest.namespace)
    head = (
        "# kubectl apply -f warmpool.yaml (needs the warm-pool controller)\n"
        f"# {setting.week.hours} of the week's 168 hours, asked for {lead_s:g} s early.\n"
    )
    return head + _yaml(body)


def _yaml(body: Mapping[str, Any]) -> str:
    return str(yaml.safe_dump(body, sort_keys=False))
