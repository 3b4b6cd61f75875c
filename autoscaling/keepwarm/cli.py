"""The `keepwarm` command."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from keepwarm import lint as linting
from keepwarm.engine.cli import app as engine_app
from keepwarm.keys.cli import app as keys_app
from keepwarm.kpa.cli import app as kpa_app
from keepwarm.local import model_folder, supervisor
from keepwarm.local.errors import LocalError
from keepwarm.traces.cli import app as trace_app
from keepwarm.tuner.cli import backtest_command, tune_command
from keepwarm.warmpool.cli import app as warmpool_app
from manifest_lint import InputError, Severity

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(trace_app, name="trace")
app.add_typer(kpa_app, name="kpa")
app.add_typer(keys_app, name="keys")
app.add_typer(engine_app, name="engine")
app.add_typer(warmpool_app, name="warmpool")
app.command("tune")(tune_command)
app.command("backtest")(backtest_command)


@app.callback()
def keepwarm() -> None:
    """Serverless LLM inference on KServe and Knative."""


@app.command()
def run(
    model: Annotated[
        Path | None,
        typer.Option(help="HuggingFace folder to serve. Default: SmolLM2-135M-Instruct, prepared."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name to serve it under. Default: the folder's.")
    ] = None,
    http_port: Annotated[int, typer.Option(help="The transformer's REST port.")] = 8080,
    grpc_port: Annotated[int, typer.Option(help="The transformer's gRPC port.")] = 8081,
    predictor_http_port: Annotated[int, typer.Option(help="The predictor's REST port.")] = 9080,
    predictor_grpc_port: Annotated[int, typer.Option(help="The predictor's gRPC port.")] = 9081,
) -> None:
    """Serve a model here: predictor and transformer, until Ctrl-C or until one of them dies."""
    ports = supervisor.Ports(http_port, grpc_port, predictor_http_port, predictor_grpc_port)
    try:
        folder = model_folder.prepared(model)
        served = name or (model_folder.DEMO_NAME if model is None else model_folder.name_of(folder))
        status = asyncio.run(supervisor.run(folder, served, ports))
    except LocalError as error:
        sys.exit(f"keepwarm run: {error}")
    sys.exit(status)


@app.command()
def lint(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH...",
            help="Files, folders, kustomize folders (with kubectl), or - for stdin.",
        ),
    ],
    output: Annotated[
        linting.Format, typer.Option("--format", help="How findings are printed.")
    ] = linting.Format.TEXT,
    severity: Annotated[Severity, typer.Option(help="The least that is shown.")] = Severity.INFO,
    fail_on: Annotated[
        Severity, typer.Option(help="The least that makes the exit status 1.")
    ] = Severity.WARNING,
    disable: Annotated[
        list[str] | None, typer.Option(metavar="RULE", help="A rule to leave out (repeatable).")
    ] = None,
    enabled: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="A Knative setting that the cluster has, such as kubernetes.podspec-nodeselector"
            " (repeatable).",
        ),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Read the settings of the cluster of this kubeconfig context."
        ),
    ] = None,
    kubeconfig: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Read the settings of the cluster of this kubeconfig."),
    ] = None,
) -> None:
    """Find what KServe and Knative refuse, drop or run differently than a manifest reads."""
    try:
        report, status = linting.run(
            paths,
            output=output,
            severity=severity,
            fail_on=fail_on,
            disabled=disable or (),
            enabled=enabled or (),
            kubeconfig=kubeconfig,
            context=context,
        )
    except InputError as error:
        typer.echo(f"keepwarm lint: {error}", err=True)
        sys.exit(2)
    typer.echo(report)
    sys.exit(status)


if __name__ == "__main__":
    app()
