"""`keepwarm tune`: reads what was measured, searches, proves, and writes what to apply."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from keepwarm.kpa.config import AutoscalerConfig
from keepwarm.kpa.errors import InputError
from keepwarm.kpa.manifest import config_of
from keepwarm.traces import histogram, latency, prometheus, sources
from keepwarm.traces.cli import FillGaps, Form, From, Sort, Start, To, Zone, cut, zone_of
from keepwarm.traces.errors import TraceError
from keepwarm.traces.histogram import Distribution, duration_s
from keepwarm.traces.prometheus import Series
from keepwarm.traces.statistics import suspicious_silences
from keepwarm.tuner import backtest, page, patches, slo, terminal
from keepwarm.tuner import manifest as manifests
from keepwarm.tuner.errors import TuneError
from keepwarm.tuner.evaluate import Rules
from keepwarm.tuner.facts import doubts_of, told_facts
from keepwarm.tuner.manifest import Manifest
from keepwarm.tuner.plan import Plan, as_json
from keepwarm.tuner.prices import NODE_LINGER_S, Prices
from keepwarm.tuner.setting import Setting
from keepwarm.tuner.space import Space
from keepwarm.tuner.tune import Options, tune
from keepwarm.tuner.workload import Measured, Workload, workload

WAKE_DRAWS = 64
NOTHING_KEEPS_IT = 3  # exit status


@contextmanager
def told(command: str) -> Iterator[None]:
    """What cannot be used ends the command with status 2 and its sentence on stderr."""
    try:
        yield
    except (InputError, TraceError, TuneError, OSError) as error:
        typer.echo(f"keepwarm {command}: {error}", err=True)
        sys.exit(2)


def tune_command(
    trace: Annotated[Path, typer.Option(help="A trace, as `keepwarm trace` reads it.")],
    isvc: Annotated[Path, typer.Option(help="The InferenceService's manifest, as it is today.")],
    cold_start: Annotated[
        str,
        typer.Option(
            help="Measured start-up, pod created to ready: p50=38s,p95=61s, a file of seconds, or"
            " FILE#METRIC of a Prometheus histogram."
        ),
    ],
    gpu_price: Annotated[float, typer.Option(help="Price of one GPU for one hour.")],
    *,
    objective: Annotated[
        str, typer.Option("--slo", help=f"What must hold: {slo.ALLOWED}.")
    ] = slo.DEFAULT,
    latency_model: Annotated[
        Path | None,
        typer.Option(help="From `keepwarm trace fit-latency`: times by tokens and load."),
    ] = None,
    service_time: Annotated[
        str | None,
        typer.Option(help="Measured time in a pod, as --cold-start; when the trace has none."),
    ] = None,
    first_token: Annotated[
        str | None, typer.Option(help="Measured time to the first token in a warm pod.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for what is written.")] = Path(
        "keepwarm-tune"
    ),
    component: Annotated[str, typer.Option(help="predictor or transformer.")] = "predictor",
    config: Annotated[
        Path | None, typer.Option(help="The cluster's config-autoscaler. Default: Knative's own.")
    ] = None,
    max_concurrency: Annotated[
        int | None,
        typer.Option(min=1, help="Most requests in a pod to search. Default: --max-num-seqs."),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="GPUs of a pod. Default: the manifest's.")
    ] = None,
    gpus_per_node: Annotated[
        int | None, typer.Option(min=1, help="GPUs of a node, paid together. Default: a pod's.")
    ] = None,
    node_linger: Annotated[
        str,
        typer.Option(
            help="How long an unneeded node is still paid for; 0s where GPUs are billed by the"
            " second. Default: cluster-autoscaler's scale-down-unneeded-time."
        ),
    ] = f"{NODE_LINGER_S / 60:g}m",
    reserved_nodes: Annotated[
        int, typer.Option(min=0, help="Nodes that are paid for in any case.")
    ] = 0,
    currency: Annotated[str, typer.Option(help="Of the prices.")] = "USD",
    wake: Annotated[
        str | None,
        typer.Option(help="Measured wake-up from sleep mode; searches an asleep tier too."),
    ] = None,
    asleep_price: Annotated[
        float | None, typer.Option(min=0, help="Price of an asleep pod for one hour.")
    ] = None,
    lead: Annotated[
        str | None,
        typer.Option(help="How long before its hours the warm pool starts. Default: p95 start-up."),
    ] = None,
    hold_out: Annotated[
        int | None,
        typer.Option(
            min=1, help="Days at the end that the search does not see. Default: half, or a third."
        ),
    ] = None,
    confidence: Annotated[
        float,
        typer.Option(min=0.5, max=1, help="Share of resamples of days in which the SLO must hold."),
    ] = 0.9,
    candidates: Annotated[
        int, typer.Option(min=80, max=20_000, help="Settings to try on the training days.")
    ] = 500,
    form: Form = sources.Format.AUTO,
    start: Start = None,
    sort: Sort = False,
    fill_gaps: FillGaps = False,
    begin: From = None,
    end: To = None,
    time_zone: Zone = "UTC",
    seed: Annotated[int, typer.Option(help="The same seed gives the same plan.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Also with less than a week.")] = False,
    json_out: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Find the cheapest scaling for an SLO on real traffic, prove it on days not seen, price it.

    Writes plan.json, report.html, patch.yaml, revision.yaml and (with a schedule) warmpool.yaml.
    A search that was stopped goes on where it was. Status 3: no setting keeps the SLO.
    """
    with told("tune"):
        settings = config_of(config.read_text()) if config else AutoscalerConfig()
        manifest = manifests.read(isvc.read_text(), settings, component)
        zone = zone_of(time_zone)
        log = sources.read(trace, form=form, start=start, any_order=sort, fill_gaps=fill_gaps)
        log = cut(log, begin, end)
        measured = Measured(
            cold_start=histogram.read(cold_start),
            latency=None if latency_model is None else latency.load(latency_model),
            service=None if service_time is None else histogram.read(service_time),
            first_token=None if first_token is None else histogram.read(first_token),
        )
        load = workload(log, measured, zone=zone, timeout_s=manifest.timeout_s, seed=seed)
        prices = _prices(
            manifest,
            per_gpu_hour=gpu_price,
            gpus=gpus,
            gpus_per_node=gpus_per_node,
            node_linger_s=duration_s(node_linger),
            reserved_nodes=reserved_nodes,
            asleep=asleep_price,
            currency=currency,
        )
        waking = _waking(wake, asleep_price)
        rules = Rules(
            terms=slo.parse(objective),
            prices=prices,
            lead_s=duration_s(lead) if lead else float(round(measured.cold_start.quantile(0.95))),
            wake_s=waking.draw(WAKE_DRAWS, seed) if waking else (),
        )
        space = Space(
            Setting(manifest.policy),
            _concurrency(manifest, measured, max_concurrency),
            sleeps=waking is not None,
            acceptable=lambda limit: (
                not patches.linted(
                    manifest,
                    replace(
                        manifest.policy,
                        container_concurrency=limit,
                        target=min(manifest.policy.target, limit),
                    ),
                )
            ),
        )
        _writable(out)
        facts = told_facts(
            manifest,
            load,
            measured,
            rules,
            concurrency=space.concurrency,
            zone=time_zone,
            waking=waking,
        )
        plan = _tuned(
            load,
            space,
            rules,
            Options(candidates, confidence, seed, force, hold_out),
            out / "evaluations.jsonl",
            facts,
        )
        odd = (*log.warnings, *suspicious_silences(log, zone))
        doubts = doubts_of(manifest, measured, prices)
        plan = replace(plan, warnings=(*plan.warnings, *odd, *doubts))
        files = (
            {}
            if plan.recommended is None
            else patches.files(
                manifest, plan.recommended, lead_s=rules.lead_s, zone=time_zone, prices=prices
            )
        )
        text = json.dumps(as_json(plan), indent=1)
        for name in ("patch.yaml", "revision.yaml", "warmpool.yaml"):
            # What an earlier run recommended must not lie beside this one's plan.
            (out / name).unlink(missing_ok=True)
        for name, body in files.items():
            (out / name).write_text(body)
        (out / "plan.json").write_text(text + "\n")
        (out / "report.html").write_text(page.render(plan, rules.terms, files))
    if json_out:
        typer.echo(text)
    else:
        terminal.show(plan, Console(), currency)
        names = ", ".join(["report.html", "plan.json", *files])
        typer.echo(f"Written to {out}: {names}")
    sys.exit(0 if plan.recommended is not None else NOTHING_KEEPS_IT)


REQUESTS = (
    "sum(increase(keepwarm_requests_total"
    '{namespace="NAMESPACE",pod=~"SERVICE-transformer-.*",status!~"4.."}[STEP]))'
)
COLD = (
    "sum(increase(keepwarm_cold_start_wait_seconds_count"
    '{namespace="NAMESPACE",pod=~"SERVICE-transformer-.*"}[STEP]))'
)
PODS = 'count(kube_pod_info{namespace="NAMESPACE",pod=~"SERVICE-COMPONENT-.*"})'


def backtest_command(
    plan: Annotated[Path, typer.Option(help="The plan.json of `keepwarm tune`.")],
    url: Annotated[str, typer.Option("--prometheus", help="Prometheus' address.")],
    begin: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%dT%H:%M:%S%z"])],
    end: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%dT%H:%M:%S%z"])],
    *,
    policy: Annotated[
        str, typer.Option(help="Which of the plan's policies was in force: recommended, current.")
    ] = "recommended",
    requests_query: Annotated[
        str, typer.Option(help="Requests to the predictor in each step, as one series.")
    ] = REQUESTS,
    pods_query: Annotated[
        str, typer.Option(help="Pods that hold a GPU at each moment, as one series.")
    ] = PODS,
    cold_query: Annotated[
        str, typer.Option(help="Requests that met a cold start in each step; empty: not asked.")
    ] = COLD,
    step: Annotated[
        str, typer.Option(help="Of the queries; not under the scrape interval.")
    ] = "15s",
    fill_gaps: FillGaps = False,
    seed: Annotated[int, typer.Option(help="Places the requests inside each step.")] = 0,
    json_out: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare what a plan predicted with what Prometheus says happened since.

    In the queries NAMESPACE, SERVICE, COMPONENT and STEP are replaced by the plan's and --step.
    """
    with told("backtest"):
        try:
            document = json.loads(plan.read_bytes())
            facts = document["facts"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise TuneError(f"{plan} is no plan.json of `keepwarm tune` ({error!r}).") from None
        step_s = duration_s(step)

        def ask(query: str) -> Series:
            for name, value in (
                ("NAMESPACE", facts["namespace"] or "default"),
                ("SERVICE", facts["service"]),
                ("COMPONENT", facts["component"]),
                ("STEP", f"{step_s:g}s"),
            ):
                query = query.replace(name, value)
            return prometheus.fetch(
                url, query, start_s=begin.timestamp(), end_s=end.timestamp(), step_s=step_s
            )

        found = backtest.back_test(
            document,
            ask(requests_query),
            ask(pods_query),
            ask(cold_query) if cold_query else None,
            setting_name=policy,
            fill_gaps=fill_gaps,
            seed=seed,
        )
    if json_out:
        typer.echo(json.dumps(found.as_json(), indent=1))
    else:
        terminal.show_back_test(found, Console())


def _tuned(
    load: Workload,
    space: Space,
    rules: Rules,
    options: Options,
    store: Path,
    facts: dict[str, Any],
) -> Plan:
    """The plan, with a progress bar on stderr."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("searching", total=options.budget)

        def progress(what: str, count: int) -> None:
            if what and what != "searching":
                bar.update(task, description=what, total=None)
            bar.advance(task, count)

        return tune(load, space, rules, options, store=store, progress=progress, facts=facts)


def _prices(
    manifest: Manifest,
    *,
    per_gpu_hour: float,
    gpus: int | None,
    gpus_per_node: int | None,
    node_linger_s: float,
    reserved_nodes: int,
    asleep: float | None,
    currency: str,
) -> Prices:
    per_pod = gpus or manifest.gpus or 1
    return Prices(
        per_gpu_hour=per_gpu_hour,
        gpus_per_pod=per_pod,
        gpus_per_node=gpus_per_node or per_pod,
        node_linger_s=node_linger_s,
        reserved_nodes=reserved_nodes,
        asleep_per_pod_hour=asleep,
        currency=currency,
    )


def _waking(wake: str | None, price: float | None) -> Distribution | None:
    if (wake is None) != (price is None):
        raise TuneError(
            "A sleep tier needs both: --wake, how long waking was measured to take, and"
            " --asleep-price, what an asleep pod costs an hour."
        )
    return None if wake is None else histogram.read(wake)


def _concurrency(manifest: Manifest, measured: Measured, told_by_hand: int | None) -> int:
    """The most requests in a pod whose slow-down is known; without any, no more than today."""
    own = manifest.policy.container_concurrency or round(manifest.policy.target)
    if measured.latency is None:
        return own
    most = told_by_hand or manifest.max_sequences
    seen = measured.latency.most_at_once
    if most is None:
        return max(own, seen)
    return max(own, min(most, seen)) if seen else most


def _writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TuneError(f"--out {out} cannot be made: {error.strerror}.") from None
