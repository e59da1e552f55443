"""The `telltale` command: one verb a worker or a tool. The only place that reads the environment."""

from __future__ import annotations

import typer

import telltale

app = typer.Typer(
    name="telltale",
    help="Vehicle telemetry in exactly once, failures judged early, alerts a dealer can act on.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(telltale.__version__)


@app.callback()
def verbs() -> None:
    """Keep `telltale VERB` as the form even while there is one verb."""


def main() -> None:
    """Run the command line."""
    app()
