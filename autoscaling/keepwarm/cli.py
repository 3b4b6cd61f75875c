"""The `keepwarm` command."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from keepwarm.local import model_folder, supervisor
from keepwarm.local.errors import LocalError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


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


if __name__ == "__main__":
    app()
