"""The `telltale` command: one verb a worker or a tool. The only place that reads the environment."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

import telltale
from telltale.config import Settings
from telltale.errors import SettingsError, TelltaleError

app = typer.Typer(
    name="telltale",
    help="Vehicle telemetry in exactly once, failures judged early, alerts a dealer can act on.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

vehicles = typer.Typer(help="What vehicles are.", no_args_is_help=True)
app.add_typer(vehicles, name="vehicles")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(telltale.__version__)


@app.command()
def ingest() -> None:
    """Take telemetry from Kafka into the database, exactly once, and judge it for safety."""
    from telltale.ingest import run

    run_until_stopped(run)


@app.command()
def resume(topic: str, partition: int, records: int = 10_000) -> None:
    """Let a halted partition go on; it does not halt again within the next RECORDS records."""
    from telltale.store.offsets import resume_partition

    settings = settings_from_environment()
    for line in asyncio.run(resume_partition(settings.database, topic, partition, records)):
        typer.echo(line)


@app.callback()
def verbs() -> None:
    """Keep `telltale VERB` as the form even while there is one verb."""


@app.command()
def replay(
    path: Annotated[Path, typer.Argument(help="a recorded car (Parquet), or a folder of them")],
    speed: Annotated[float | None, typer.Option(min=1e-3, help="factor on recorded time")] = None,
    reissued: Annotated[bool, typer.Option("--reissued", help="send as 0x03, to the backlog")] = False,
    shuffle: Annotated[int | None, typer.Option(metavar="SEED", help="send in random order")] = None,
    partitions: Annotated[int | None, typer.Option(min=1, help="make the topics with so many")] = None,
    split_partitions: Annotated[bool, typer.Option("--split-partitions", help="ignore the key")] = False,
    vin_prefix: Annotated[str, typer.Option(help="maker code of the synthetic VINs")] = "L0T",
) -> None:
    """Send recorded cars as GB/T 32960 frames: as fast as Kafka takes them, or at a SPEED."""
    from telltale.replay import Replay, report
    from telltale.replay import replay as send

    how = Replay(speed, reissued, shuffle, partitions, split_partitions, vin_prefix)
    settings = settings_from_environment()
    if not report(asyncio.run(send(settings, path, how)), typer.echo):
        raise typer.Exit(1)


@app.command()
def simulate(
    vehicles: Annotated[int, typer.Option(min=1)] = 200,
    days: Annotated[float, typer.Option(min=0.001)] = 1.0,
    seed: int = 1,
    interval: Annotated[int, typer.Option(min=1, max=300, help="seconds between reports")] = 30,
    start: Annotated[datetime | None, typer.Option(help="first instant, UTC; default: DAYS ago")] = None,
    fault: Annotated[list[str] | None, typer.Option(help="KIND,vehicle=0,cell=1,size=…,rate=…,day=0")] = None,
    calm: Annotated[bool, typer.Option("--calm", help="no lost networks, retries, broken frames")] = False,
    partitions: Annotated[int | None, typer.Option(min=1, help="make the topics with so many")] = None,
    csv_vehicles: Annotated[Path | None, typer.Option(help="write the vehicles for import here")] = None,
    truth: Annotated[Path | None, typer.Option(help="write the injected faults here, as JSON lines")] = None,
) -> None:
    """Send the frames of a simulated fleet: the same for the same options and start."""
    from telltale.simulate.publish import fleet_to_order, publish_fleet, write_about

    begin = start.replace(tzinfo=UTC) if start else datetime.now(UTC) - timedelta(days=days)
    spec = fleet_to_order(vehicles, days, seed, interval, begin, fault or [], calm=calm)
    write_about(spec, csv_vehicles, truth)
    sent = asyncio.run(publish_fleet(settings_from_environment(), spec, partitions))
    typer.echo(f"{sent.live:,} frames sent live, {sent.backlog:,} reissued to the backlog")


@vehicles.command("import")
def vehicles_import(
    file: Annotated[Path, typer.Argument(help="CSV: vin, any attributes, optionally valid_from")],
    valid_from: Annotated[
        datetime | None, typer.Option(help="since when rows without valid_from hold; default: now")
    ] = None,
) -> None:
    """Record what vehicles are: variant, chemistry, dealer, ...; connect as telltale_owner."""
    run_until_stopped(lambda settings, _: _import_vehicles(settings, file, valid_from or datetime.now(UTC)))


async def _import_vehicles(settings: Settings, file: Path, valid_from: datetime) -> None:
    from telltale.store.pool import connect
    from telltale.store.vehicles import import_vehicles, read_csv

    since = valid_from if valid_from.tzinfo else valid_from.replace(tzinfo=UTC)
    rows = read_csv(file)
    connection = await connect(settings.database, role_name="import", timeout_s=settings.database_timeout_s)
    try:
        count = await import_vehicles(connection, rows, origin=file.name, valid_from=since)
    finally:
        await connection.close()
    typer.echo(f"{count} vehicles")


def settings_from_environment() -> Settings:
    """Return the settings of this process. Raises SettingsError naming each variable that does not fit."""
    try:
        return Settings()
    except ValidationError as error:
        faults = [f"TELLTALE_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]
        raise SettingsError("; ".join(faults)) from error


def run_until_stopped(work: Callable[[Settings, asyncio.Event], Awaitable[Any]]) -> None:
    """Run `work(settings, stop)`; SIGTERM and SIGINT set `stop`. What every worker's verb does.

    A TelltaleError ends the process with code 1 and its one line.
    """
    settings = settings_from_environment()
    if sys.platform == "win32":
        loop_factory = asyncio.new_event_loop
    else:
        import uvloop

        loop_factory = uvloop.new_event_loop
    from telltale import logs

    logs.configure(settings.log_format)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_stoppable(work, settings))


async def _stoppable(work: Callable[[Settings, asyncio.Event], Awaitable[Any]], settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await work(settings, stop)


def main() -> None:
    """Run the command line; what telltale raises on purpose becomes one line and exit code 1."""
    try:
        app()
    except TelltaleError as error:
        typer.echo(f"telltale: {error}", err=True)
        raise SystemExit(1) from None
