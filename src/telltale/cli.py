"""The `telltale` command: one verb a worker or a tool. The only place that reads the environment."""

from __future__ import annotations

import asyncio
import logging
import os
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
key = typer.Typer(help="API keys: make one, end one.", no_args_is_help=True)
app.add_typer(key, name="key")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(telltale.__version__)


@app.command()
def decode(values: Annotated[list[str], typer.Argument(help="values of frames, in hex")]) -> None:
    """Show the GB/T 32960 frames in these bytes, one JSON line each, by the wire's names and signs."""
    import json

    from telltale.decode.gbt32960.describe import describe_value

    for value in values:
        try:
            frame = bytes.fromhex(value)
        except ValueError as error:
            raise TelltaleError(f"decode: expected hex digits, got {value[:40]!r} ({error})") from None
        for found in describe_value(frame):
            typer.echo(json.dumps(found, ensure_ascii=False))


@app.command()
def ingest() -> None:
    """Take telemetry from Kafka into the database, exactly once, and judge it for safety."""
    from telltale.ingest import run, tune_interpreter

    tune_interpreter()
    run_until_stopped(run)


@app.command()
def score() -> None:
    """Fold stored rows into summaries, judge vehicles with the failure models, and raise alerts."""
    from telltale.score import run

    run_until_stopped(run)


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="which failure model: cell_fault")],
    data: Annotated[Path, typer.Option(help="a recorded car (Parquet) or a folder of them")],
    out: Annotated[Path | None, typer.Option(help="folder for the model; default: <models>/<model>")] = None,
) -> None:
    """Train a failure model and write it with its card."""
    from telltale.train.cell_fault import train as train_cell_fault

    _only_cell_fault(model)
    folder = out or settings_from_environment().models / model
    command = f"telltale train {model} --data PATH"
    card = train_cell_fault(data, folder, command=command, say=typer.echo)
    typer.echo(f"{model} {card.version} written to {folder}")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="which failure model: cell_fault")],
    data: Annotated[Path, typer.Option(help="a recorded car (Parquet) or a folder of them")],
    out: Annotated[Path, typer.Option(help="report to write (JSON)")],
) -> None:
    """Judge recorded cars with a trained model, as the worker would, and write a report."""
    import orjson

    from telltale import boosting
    from telltale.features import FEATURES_VERSION, RANKED_BY
    from telltale.train.evaluate import evaluate as judge

    _only_cell_fault(model)
    folder = boosting.folder_of(settings_from_environment().models, model)
    loaded = boosting.load(folder, features=RANKED_BY, features_version=FEATURES_VERSION)
    report = judge(data, loaded)
    out.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    typer.echo(f"{report['rows']} rows, {len(report['episodes'])} episodes: {out}")


def _only_cell_fault(model: str) -> None:
    if model != "cell_fault":
        raise SettingsError(f"model {model!r}: expected cell_fault")


@app.command()
def resume(topic: str, partition: int, records: int = 10_000) -> None:
    """Let a halted partition go on; it does not halt again within the next RECORDS records."""
    from telltale.store.offsets import resume_partition

    settings = settings_from_environment()
    for line in asyncio.run(resume_partition(settings.database, topic, partition, records)):
        typer.echo(line)


@app.command()
def api() -> None:
    """Serve alerts, vehicles, live events and the dealer's page over HTTP."""
    from telltale.api.serve import run

    run_until_stopped(run)


@key.command("create")
def key_create(
    role: str = typer.Option(help="dealer, quality or ops"),
    name: str = typer.Option(help="whose key it is; shown in the history of alerts"),
    dealer: str | None = typer.Option(None, help="the dealer's code, for role dealer"),
) -> None:
    """Make an API key and print it, once. TELLTALE_DATABASE names the role that migrated."""
    from telltale.store.keys import make_key

    made = asyncio.run(make_key(settings_from_environment().database, role, dealer, name))
    typer.echo(made.token)


@key.command("revoke")
def key_revoke(key_id: str = typer.Argument(help="the part between tt_live_ and the next _")) -> None:
    """End an API key at once. TELLTALE_DATABASE names the role that migrated."""
    from telltale.store.keys import end_key

    asyncio.run(end_key(settings_from_environment().database, key_id))


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
    leak_cell: Annotated[
        int | None, typer.Option(min=1, help="let this cell leak, under another VIN")
    ] = None,
    leak_mv: Annotated[float, typer.Option(help="how far it stands below the others at rest ...")] = 40.0,
    leak_day: Annotated[float, typer.Option(min=0.01, help="... so many days after the first report")] = 14.0,
) -> None:
    """Send recorded cars as GB/T 32960 frames: as fast as Kafka takes them, or at a SPEED."""
    from telltale.replay import LeakAt, Replay, report
    from telltale.replay import replay as send

    leak = None if leak_cell is None else LeakAt(leak_cell, leak_mv, leak_day)
    how = Replay(speed, reissued, shuffle, partitions, split_partitions, vin_prefix, leak)
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
    edition: Annotated[int, typer.Option(help="of GB/T 32960: 2016 or 2025")] = 2016,
    calm: Annotated[bool, typer.Option("--calm", help="no lost networks, retries, broken frames")] = False,
    partitions: Annotated[int | None, typer.Option(min=1, help="make the topics with so many")] = None,
    csv_vehicles: Annotated[Path | None, typer.Option(help="write the vehicles for import here")] = None,
    truth: Annotated[Path | None, typer.Option(help="write the injected faults here, as JSON lines")] = None,
) -> None:
    """Send the frames of a simulated fleet: the same for the same options and start."""
    from telltale.simulate.publish import fleet_to_order, publish_fleet, write_about

    begin = start.replace(tzinfo=UTC) if start else datetime.now(UTC) - timedelta(days=days)
    spec = fleet_to_order(vehicles, days, seed, interval, begin, fault or [], edition=edition, calm=calm)
    write_about(spec, csv_vehicles, truth)
    sent = asyncio.run(publish_fleet(settings_from_environment(), spec, partitions))
    typer.echo(f"{sent.live:,} frames sent live, {sent.backlog:,} reissued to the backlog")


@app.command()
def migrate() -> None:
    """Bring the database up to this version; TELLTALE_DATABASE names a role that may create roles."""
    from telltale.store.migrate import migrate as run

    files = asyncio.run(run(settings_from_environment().database))
    typer.echo("\n".join(f"applied {file}" for file in files) or "nothing to apply")


@app.command()
def maintain() -> None:
    """Drop raw readings older than TELLTALE_RETENTION_DAYS, once; for cron. 0 days keeps all."""
    from telltale.store.retention import maintain as run

    for piece in asyncio.run(run(settings_from_environment())):
        typer.echo(f"dropped {piece}")


@app.command()
def doctor() -> None:
    """Look at the database and Kafka: what is there, what is missing, what to do next."""
    from telltale.doctor import examine, told

    findings = asyncio.run(examine(settings_from_environment()))
    typer.echo(told(findings))
    if any(finding.next_step for finding in findings):
        raise typer.Exit(1)


DataDir = Annotated[Path, typer.Option(help="the one folder everything is kept in")]


@app.command()
def dev(
    headless: Annotated[bool, typer.Option(help="print one JSON line for scripts, open nothing")] = False,
    broker: Annotated[str | None, typer.Option(help="bootstrap servers of a real Kafka")] = None,
    database: Annotated[str | None, typer.Option(help="URL of a real PostgreSQL; it is migrated")] = None,
    with_demo: Annotated[bool, typer.Option("--demo", help="fill it with a simulated fleet")] = False,
    data_dir: DataDir = Path(".telltale"),
) -> None:
    """Run everything on this machine: broker, database and all workers, until told to stop."""
    from telltale.dev import desk

    run_until_stopped(
        lambda settings, stop: desk.run(
            desk.Wish(data_dir, _verbs(), headless, broker, database, with_demo), settings, stop
        ),
        logging.WARNING,
    )


@app.command()
def demo(
    headless: Annotated[bool, typer.Option(help="print one JSON line for scripts, open nothing")] = False,
    check: Annotated[bool, typer.Option(help="stop after a while and hold the demo to its accounts")] = False,
    seconds: Annotated[float, typer.Option(help="how long --check lets it run")] = 60.0,
    data_dir: DataDir = Path(".telltale"),
) -> None:
    """Show telltale at work: `telltale dev` with a simulated fleet, opened in the browser."""
    from telltale.dev import desk

    wish = desk.Wish(data_dir, _verbs(), headless, with_demo=True, open_page=not headless and _has_screen())
    if not check:
        run_until_stopped(lambda settings, stop: desk.run(wish, settings, stop), logging.WARNING)
        return
    run_until_stopped(lambda settings, stop: desk.check(wish, settings, stop, seconds), logging.WARNING)


@app.command("demo-feed", hidden=True)
def demo_feed(data_dir: DataDir = Path(".telltale")) -> None:
    """Feed the demo's fleet; `telltale dev --demo` starts it."""
    from telltale import demo

    run_until_stopped(lambda settings, stop: demo.run(settings, stop, data_dir))


def _has_screen() -> bool:
    """Tell whether a browser would open in a window: on a server a text browser would take the terminal."""
    return sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())


def _verbs() -> frozenset[str]:
    return frozenset(
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    )


@vehicles.command("import")
def vehicles_import(
    file: Annotated[Path, typer.Argument(help="CSV: vin, any attributes, optionally valid_from")],
    valid_from: Annotated[
        datetime | None, typer.Option(help="since when lines without valid_from hold")
    ] = None,
) -> None:
    """Record what vehicles are: all of FILE or nothing and each fault. Connect as the role that migrated."""
    from telltale.store.vehicles import import_file

    since = valid_from.replace(tzinfo=UTC) if valid_from and valid_from.tzinfo is None else valid_from
    done = asyncio.run(import_file(settings_from_environment(), file, since))
    typer.echo(f"{done.vehicles} vehicles: {done.registered} new to us, {done.changes} attributes changed")


def settings_from_environment() -> Settings:
    """Return the settings of this process. Raises SettingsError naming each variable that does not fit."""
    try:
        return Settings()
    except ValidationError as error:
        faults = [
            f"TELLTALE_{str(e['loc'][0]).upper()}: {e['msg']}, got {e['input']!r}" for e in error.errors()
        ]
        raise SettingsError("; ".join(faults)) from error


def run_until_stopped(
    work: Callable[[Settings, asyncio.Event], Awaitable[Any]], level: int = logging.INFO
) -> None:
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

    logs.configure(settings.log_format, level)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_stoppable(work, settings))


async def _stoppable(work: Callable[[Settings, asyncio.Event], Awaitable[Any]], settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await work(settings, stop)


def main() -> None:
    """Run the command line; what telltale or a server raises on purpose becomes one line and exit code 1."""
    from telltale.store.pool import InterfaceError, PostgresError, next_step

    logging.getLogger("aiokafka").addHandler(logging.NullHandler())  # what it says is in the error raised
    try:
        app()
    except TelltaleError as error:
        typer.echo(f"telltale: {error}", err=True)
        raise SystemExit(1) from None
    except (PostgresError, InterfaceError, OSError) as error:
        step = next_step(error)
        typer.echo(f"telltale: {error or type(error).__name__}{step and f'; {step}'}", err=True)
        raise SystemExit(1) from None
