"""`keepwarm warmpool`: what a WarmPool will keep in the coming days; applying a tuner's."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
import yaml

from keepwarm.warmpool.api import API_VERSION, KIND, InvalidWarmPool, Spec
from keepwarm.warmpool.lead import lead
from keepwarm.warmpool.plan import Plan, document, text

MANAGER = "keepwarm-tune"
TIMEOUT_S = 60

app = typer.Typer(no_args_is_help=True, help="Warm pools: minimum replicas on a schedule.")

Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="The WarmPool's.")]
Context = Annotated[str | None, typer.Option(metavar="NAME", help="Context of the kubeconfig.")]
Days = Annotated[int, typer.Option(help="How many days.", min=1, max=366)]
Start = Annotated[
    datetime | None, typer.Option(help="From when, in the object's time zone. Default: now.")
]


class InputError(Exception):
    """A sentence about a file or a cluster that cannot be used."""


@app.command()
def plan(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE|NAME", help="A file with WarmPools, - for stdin, or one's name."
        ),
    ],
    namespace: Namespace = None,
    context: Context = None,
    days: Days = 7,
    start: Start = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the replicas by hour of the coming week, what they cost, and every change."""
    try:
        if source == "-" or Path(source).is_file():
            found = _documents(source)
        else:
            got = _kubectl("get", f"warmpool/{source}", "--output=json", on=(namespace, context))
            found = [json.loads(got)]
        plans = [_plan(each, days, start) for each in found]
    except (InputError, InvalidWarmPool, OSError) as error:
        typer.echo(f"keepwarm warmpool plan: {error}", err=True)
        sys.exit(2)
    if as_json:
        typer.echo(json.dumps([document(each, name) for name, each in plans], indent=2))
    else:
        typer.echo("\n\n".join(text(each, name) for name, each in plans))


@app.command()
def apply(
    file: Annotated[str, typer.Argument(help="What keepwarm tune wrote, or - for stdin.")],
    namespace: Namespace = None,
    context: Context = None,
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Let the API server check it, and change nothing.")
    ] = False,
) -> None:
    """Create the WarmPools of a file, or set the fields that it names in those that are there.

    Fields that it does not name stay as they are: windows beside a new forecast, say. No kubectl
    apply, which would drop what an earlier apply by anybody has set.
    """
    try:
        for each in _documents(file):
            name, made = _plan(each, 7, None)
            typer.echo(text(made, name) + "\n")
            on = (each["metadata"].get("namespace", namespace), context)
            options = [f"--field-manager={MANAGER}", *(["--dry-run=server"] if dry_run else [])]
            if _kubectl("get", f"warmpool/{name}", "--ignore-not-found", "--output=name", on=on):
                change = json.dumps({"spec": each["spec"]})
                command = ["patch", f"warmpool/{name}", "--type=merge", f"--patch={change}"]
                typer.echo(_kubectl(*command, *options, on=on).strip())
            else:
                command = ["create", "--filename=-", *options]
                typer.echo(_kubectl(*command, on=on, stdin=json.dumps(each)).strip())
    except (InputError, InvalidWarmPool, OSError) as error:
        typer.echo(f"keepwarm warmpool apply: {error}", err=True)
        sys.exit(2)


def _documents(source: str) -> list[dict[str, Any]]:
    """The WarmPools among the documents of a file."""
    content = sys.stdin.read() if source == "-" else Path(source).read_text()
    try:
        documents = list(yaml.safe_load_all(content))
    except yaml.YAMLError as error:
        raise InputError(f"{source} is no YAML: {error}") from None
    found = [each for each in documents if isinstance(each, dict) and each.get("kind") == KIND]
    if not found:
        raise InputError(f"{source} has no {KIND}")
    for each in found:
        if each.get("apiVersion") != API_VERSION:
            raise InputError(f"{source}: apiVersion must be {API_VERSION}")
        if not (each.get("metadata") or {}).get("name"):
            raise InputError(f"{source}: a {KIND} has no metadata.name")
    return found


def _plan(manifest: dict[str, Any], days: int, start: datetime | None) -> tuple[str, Plan]:
    spec = Spec.of(manifest.get("spec"))
    status = manifest.get("status") or {}
    ahead = lead(spec.lead, status.get("coldStartSeconds") or ())
    name = manifest["metadata"]["name"]
    if start is None:
        begin = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    else:
        begin = start.replace(tzinfo=ZoneInfo(spec.time_zone)).astimezone(UTC)
    return name, Plan.of(spec, ahead, begin, days)


def _kubectl(*args: str, on: tuple[str | None, str | None], stdin: str | None = None) -> str:
    """What kubectl prints: it brings every way to log in. Raises InputError."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise InputError("kubectl is not there to reach the cluster: install kubectl.")
    namespace, context = on
    options = [f"--namespace={namespace}"] if namespace else []
    options += [f"--context={context}"] if context else []
    try:
        done = subprocess.run(  # noqa: S603 (kubectl, with names that the user gave)
            [kubectl, *options, *args],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"The cluster did not answer within {TIMEOUT_S} s.") from None
    if done.returncode:
        raise InputError(done.stderr.strip())
    return done.stdout
