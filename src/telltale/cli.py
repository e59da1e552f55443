"""The `telltale` command: one verb a worker or a tool. The only place that reads the environment."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine

import structlog
import typer
from pydantic import ValidationError

import telltale
from telltale.config import Settings

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


@app.command()
def ingest() -> None:
    """Take telemetry from Kafka into the database, exactly once, and judge it for safety."""
    from telltale.ingest import run

    _work(run)


@app.command()
def resume(topic: str, partition: int, records: int = 10_000) -> None:
    """Let a halted partition go on; it does not halt again within this many RECORDS."""
    from telltale.store.ingest import resume_partition

    settings = _settings()
    for line in asyncio.run(resume_partition(settings.database, topic, partition, records)):
        typer.echo(line)


def _work(worker: Callable[[Settings, asyncio.Event], Coroutine[None, None, None]]) -> None:
    """Run a worker until SIGTERM or SIGINT; one line and exit 1 when it cannot go on."""
    settings = _settings()
    configure_logging(settings.log_format)

    async def until_told() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await worker(settings, stop)

    try:
        with asyncio.Runner(loop_factory=event_loop) as runner:
            runner.run(until_told())
    except Exception as error:
        structlog.get_logger("telltale").error("worker ends", error=f"{type(error).__name__}: {error}")
        raise typer.Exit(1) from error


def event_loop() -> asyncio.AbstractEventLoop:
    """Return a uvloop where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        for item in error.errors():
            name = "TELLTALE_" + "_".join(str(part) for part in item["loc"]).upper()
            typer.echo(f"telltale: setting {name}: {item['msg']}, got {item['input']!r}", err=True)
        raise typer.Exit(2) from error


def configure_logging(log_format: str) -> None:
    """Log one line an event to standard error: JSON, or text for people."""
    renderer = (
        structlog.processors.JSONRenderer() if log_format == "json" else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
