"""The test stand: a broker, a database server, workers as processes of their own, and who used the CPU."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import asyncpg
import psutil
from tests.servers.kafka import ApacheKafka
from tests.servers.postgres import PASSWORD, ROLES, execute, with_database

from telltale.embedded import launch_broker, launch_postgres
from telltale.store.migrate import migrate

# Durable as delivered (fsync, synchronous_commit on); only what would disturb one run and not another is off.
SERVER = {"autovacuum": "off", "shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h"}
WORKER_START_S = 30.0


@dataclass(frozen=True, slots=True)
class Stand:
    """Servers to measure on."""

    kafka: str
    admin: str  # superuser's URL
    template: str  # a migrated database to copy
    broker: psutil.Process
    postgres: psutil.Process | None  # None: a server elsewhere

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds the servers have used so far."""
        return {
            "broker": _cpu_s(self.broker),
            "postgres": _cpu_s(self.postgres) if self.postgres else float("nan"),
        }


def _cpu_s(process: psutil.Process) -> float:
    """CPU of a process, of its children alive, and of those that have ended."""
    times = process.cpu_times()
    children = 0.0
    for child in process.children():
        with contextlib.suppress(psutil.Error):
            used = child.cpu_times()
            children += used.user + used.system
    return times.user + times.system + times.children_user + times.children_system + children


@contextlib.contextmanager
def stand(kafka: str = "embedded", database: str = "") -> Iterator[Stand]:
    """Start what is needed; everything ends, and every file goes, with the context."""
    with contextlib.ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="telltale-bench-")))
        folder.chmod(0o755)
        address, broker = _broker(kafka, folder / "broker", undo)
        postgres = None
        if not database:
            engine = launch_postgres(folder / "postgres", settings=SERVER)
            undo.callback(engine.stop)
            database, postgres = engine.address, psutil.Process(engine.process.pid)
        template = f"telltale_bench_{secrets.token_hex(4)}"
        asyncio.run(_make_template(database, template))
        undo.callback(lambda: asyncio.run(execute(database, f"DROP DATABASE {template} WITH (FORCE)")))
        yield Stand(address, database, template, broker, postgres)


def _broker(kind: str, folder: Path, undo: contextlib.ExitStack) -> tuple[str, psutil.Process]:
    if kind == "embedded":
        engine = launch_broker(folder)
        undo.callback(engine.stop)
        return engine.address, psutil.Process(engine.process.pid)
    broker = ApacheKafka(folder)
    before = set(psutil.Process().children())
    broker.start()
    undo.callback(broker.stop)
    (process,) = set(psutil.Process().children()) - before
    return broker.bootstrap, process


async def _make_template(admin: str, name: str) -> None:
    await execute(admin, f"CREATE DATABASE {name}")
    await migrate(with_database(admin, name))
    await execute(admin, *(f"ALTER ROLE telltale_{role} PASSWORD '{PASSWORD}'" for role in ROLES))


@dataclass(frozen=True, slots=True)
class Database:
    """A fresh, migrated, empty database."""

    admin: str
    ingest: str
    api: str


@contextlib.asynccontextmanager
async def fresh_database(on: Stand) -> AsyncIterator[Database]:
    """Yield an empty database right after a checkpoint; it is dropped afterwards."""
    name = f"telltale_run_{secrets.token_hex(4)}"
    await execute(on.admin, f"CREATE DATABASE {name} TEMPLATE {on.template}", "CHECKPOINT")
    try:
        yield Database(
            with_database(on.admin, name),
            with_database(on.admin, name, "telltale_ingest"),
            with_database(on.admin, name, "telltale_api"),
        )
    finally:
        await execute(on.admin, f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def worker(*verb: str, environment: Mapping[str, str]) -> Iterator[psutil.Process]:
    """Run `telltale VERB` as a process of its own; what it said is shown should the run fail."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("TELLTALE_")}
    with tempfile.TemporaryFile() as output:
        command = [sys.executable, "-m", "telltale", *verb]
        process = subprocess.Popen(command, env=inherited | dict(environment), stdout=output, stderr=output)
        try:
            yield psutil.Process(process.pid)
        except BaseException:
            output.seek(0)
            print(output.read().decode(errors="replace")[-3000:], file=sys.stderr)
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def settings_of(on: Stand, database: Database, live: str, backlog: str, **more: object) -> dict[str, str]:
    """Return the environment of a worker that reads these topics as a group of its own."""
    chosen: dict[str, object] = {
        "kafka": on.kafka,
        "database": database.ingest,
        "live_topic": live,
        "backlog_topic": backlog,
        "consumer_group": f"bench-{secrets.token_hex(4)}",
        "session_timeout_s": 10,
        **more,
    }
    return {f"TELLTALE_{name.upper()}": str(value) for name, value in chosen.items()}


async def until_sent(db: asyncpg.Connection, frames: int, process: psutil.Process, every_s: float) -> int:
    """Wait until the ledger accounts for at least this many frames; return how many it does."""
    last, moved_at = -1, time.monotonic()
    while True:
        sent = int(await db.fetchval("SELECT coalesce(sum(sent), 0) FROM telltale.ingest_batch"))
        if sent >= frames:
            return sent
        if sent != last:
            last, moved_at = sent, time.monotonic()
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            raise RuntimeError(f"the worker has ended after {sent} of {frames} frames")
        if time.monotonic() - moved_at > WORKER_START_S:
            raise RuntimeError(f"the ledger stands at {sent} of {frames} frames for {WORKER_START_S:.0f} s")
        await asyncio.sleep(every_s)


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """Return the median, and the range where there is one."""
    text = format(median(values), form)
    return text if len(values) == 1 else f"{text} ({format(min(values), form)}-{format(max(values), form)})"
