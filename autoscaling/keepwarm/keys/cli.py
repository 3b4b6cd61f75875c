"""`keepwarm keys`: create, list, revoke."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from keepwarm.keys.file import KeyFile
from keepwarm.keys.moments import moment
from openinference.api_keys import ALL_MODELS, Key, new_key

app = typer.Typer(no_args_is_help=True, help="API keys, in a file or in a Secret's manifest.")

File = Annotated[Path, typer.Option("--file", help="The key file; a Secret's manifest stays one.")]
_NEVER = "-"


@contextmanager
def _told(command: str) -> Iterator[None]:
    """What cannot be used ends the command with status 2 and its sentence on stderr."""
    try:
        yield
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        name = "-".join(map(str, problem["loc"][:1])).replace("_", "-")
        typer.echo(f"keepwarm keys {command}: --{name}: {problem['msg']}", err=True)
        sys.exit(2)
    except (ValueError, OSError) as error:
        typer.echo(f"keepwarm keys {command}: {error}", err=True)
        sys.exit(2)


@app.command()
def create(
    file: File,
    tenant: Annotated[str, typer.Option(help="Whose key it is.")],
    plan: Annotated[str, typer.Option(help="Its plan, a name in the plans file.")] = "default",
    model: Annotated[
        list[str] | None, typer.Option(help="A model it is for (repeatable). Default: all.")
    ] = None,
    priority: Annotated[int, typer.Option(help="A higher one goes first; batch is below 0.")] = 0,
    not_before: Annotated[
        str | None, typer.Option(help="Valid from: a date, a time, or a span such as 2h.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="Not valid from then on: 2027-01-31, or 90d.")
    ] = None,
    note: Annotated[str, typer.Option(help="For people.")] = "",
    secret: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Make a new file the manifest of this Secret."),
    ] = None,
    namespace: Annotated[str | None, typer.Option(help="The Secret's namespace.")] = None,
) -> None:
    """Make a key, write down what recognises it, and print it: it cannot be had again."""
    now = datetime.now(UTC)
    with _told("create"):
        keys = KeyFile(file)
        if keys.exists and (secret or namespace):
            raise ValueError(f"{file} exists: --secret and --namespace are for a new file")
        if namespace and not secret:
            raise ValueError("--namespace is for --secret")
        text, key = new_key(
            tenant=tenant,
            plan=plan,
            models=frozenset(model or (ALL_MODELS,)),
            priority=priority,
            not_before=None if not_before is None else moment(not_before, now),
            expires=None if expires is None else moment(expires, now),
            note=note,
        )
        if secret is None:
            keys.write([*keys.keys, key])
        else:
            keys.write_secret([key], name=secret, namespace=namespace)
    typer.echo(text)
    typer.echo(f"keepwarm keys create: {key.id} is in {file}; only its hash is kept", err=True)


@app.command(name="list")
def show(file: File) -> None:
    """List the keys of a file."""
    with _told("list"):
        keys = KeyFile(file).keys
    now = datetime.now(UTC)
    rows = [("ID", "TENANT", "PLAN", "MODELS", "PRIORITY", "FROM", "UNTIL", "STATE", "NOTE")]
    rows += [
        (
            key.id,
            key.tenant,
            key.plan,
            ",".join(sorted(key.models)),
            str(key.priority),
            _shown(key.not_before),
            _shown(key.expires),
            _state(key, now),
            key.note,
        )
        for key in keys
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())


@app.command()
def revoke(
    file: File, key_id: Annotated[list[str], typer.Argument(metavar="ID...", help="Keys' ids.")]
) -> None:
    """Take keys out of a file; transformers notice within seconds of its change."""
    with _told("revoke"):
        keys = KeyFile(file)
        unknown = sorted(set(key_id) - {key.id for key in keys.keys})
        if unknown:
            raise ValueError(f"{file} has no key {unknown[0]!r:.40}")
        keys.write([key for key in keys.keys if key.id not in key_id])


def _shown(moment_: datetime | None) -> str:
    return _NEVER if moment_ is None else moment_.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")


def _state(key: Key, now: datetime) -> str:
    if key.is_valid_at(now):
        return "valid"
    return "expired" if key.expires is not None and key.expires <= now else "early"
