"""How much memory does a worker take when its database is away under full load?

Run: python -m benchmarks.memory [--seconds N] [--rows N] [--frames-per-value N]
The worker reads a full topic; after its first commits the database is stopped, and started again after a
minute. Peak RSS is the kernel's (VmHWM), of the whole life of the process; every report must then be stored.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import psutil

from benchmarks.stand import worker
from benchmarks.traffic import fill, traffic
from telltale.embedded import free_port, launch_broker, launch_postgres
from telltale.store.migrate import migrate


def peak_mb(process: psutil.Process) -> float:
    """Return the most memory the process has had resident so far, MB."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    kilobytes = next(line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(kilobytes) / 1024


async def stored(admin: str) -> int:
    """Return how many reports the database holds."""
    db = await asyncpg.connect(admin)
    try:
        return int(await db.fetchval("SELECT count(*) FROM telltale.report"))
    finally:
        await db.close()


async def until_stored(admin: str, rows: int, process: psutil.Process, limit_s: float = 120) -> int:
    """Wait until at least this many reports are stored; return how many are."""
    deadline = time.monotonic() + limit_s
    while (count := await stored(admin)) < rows:
        if time.monotonic() > deadline or process.status() == psutil.STATUS_ZOMBIE:
            raise RuntimeError(f"only {count} of {rows} reports are stored")
        await asyncio.sleep(0.1)
    return count


async def measure(folder: Path, seconds: float, rows: int, per_value: int) -> None:
    """Run the whole course in this folder, and print what came out."""
    with ExitStack() as undo:
        broker = launch_broker(folder / "broker")
        undo.callback(broker.stop)
        port = free_port()
        database = launch_postgres(folder / "postgres", port=port)
        undo.callback(lambda: database.stop())
        await migrate(database.address)
        live, backlog = (f"bench.{name}.{secrets.token_hex(3)}" for name in ("live", "backlog"))
        await fill(broker.address, backlog, traffic(0), partitions=1)
        await fill(broker.address, live, traffic(rows), frames_per_value=per_value)
        environment = {
            "TELLTALE_KAFKA": broker.address,
            "TELLTALE_DATABASE": database.address.replace("postgres@", "telltale_ingest@"),
            "TELLTALE_LIVE_TOPIC": live,
            "TELLTALE_BACKLOG_TOPIC": backlog,
        }
        process = undo.enter_context(worker("ingest", environment=environment))
        before = await until_stored(database.address, 1, process)
        database.stop()
        running = peak_mb(process)
        await asyncio.sleep(seconds)
        away = peak_mb(process)
        database = launch_postgres(folder / "postgres", port=port)
        began = time.monotonic()
        await until_stored(database.address, rows, process)
        took, count = time.monotonic() - began, await stored(database.address)
        print(
            f"{per_value} frames a value, database away for {seconds:.0f} s after {before:,} of {rows:,} rows"
        )
        print(f"peak RSS {running:.0f} MB before, {away:.0f} while away, {peak_mb(process):.0f} at the end")
        print(f"{count:,} rows stored, the last {took:.0f} s after the database was back")


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="how long the database is away")
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--frames-per-value", type=int, default=50)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="telltale-bench-") as folder:
        Path(folder).chmod(0o755)
        asyncio.run(measure(Path(folder), given.seconds, given.rows, given.frames_per_value))


if __name__ == "__main__":
    main()
