"""Ingest workers as processes, to be killed, stopped and frozen; and the accounting they leave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import psutil

from telltale.config import Settings

SUMS = ("sent", "stored", "partial", "duplicate", "conflicting", "control", "rejected")
_SUMS = "SELECT " + ", ".join(f"coalesce(sum({name}), 0)::bigint AS {name}" for name in SUMS)


def environment(settings: Settings) -> dict[str, str]:
    """The environment of a worker with these settings."""
    changed = settings.model_dump(exclude_defaults=True)
    return os.environ | {f"TELLTALE_{name.upper()}": str(value) for name, value in changed.items()}


@dataclass
class Worker:
    """One `telltale ingest` process."""

    settings: Settings
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "telltale", "ingest"],
                env=environment(self.settings),
                stderr=log,
                stdout=log,
            )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s: float = 20) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    async def until_assigned(self, timeout_s: float = 30) -> None:
        """Wait until it has taken partitions over."""
        end = time.monotonic() + timeout_s
        while "partitions assigned" not in self.log.read_text():
            assert time.monotonic() < end, f"no assignment within {timeout_s:.0f} s: {self.log.read_text()}"
            await asyncio.sleep(0.05)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def peak_rss_mb(self) -> float:
        """Peak resident memory so far, MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024


@contextlib.contextmanager
def workers(settings: Settings, folder: Path, count: int = 1) -> Iterator[list[Worker]]:
    """Run workers and end whatever of them is left."""
    names = [folder / f"worker{uuid.uuid4().hex[:8]}.log" for _ in range(count)]
    crew = [Worker(settings, name) for name in names]
    try:
        yield crew
    finally:
        for worker in crew:
            if worker.alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.thaw()
                worker.kill()


async def sums(db: asyncpg.Connection) -> dict[str, int]:
    """The accounting so far, zeros left out."""
    row = await db.fetchrow(f"{_SUMS} FROM telltale.ingest_batch")
    return {name: int(value) for name, value in row.items() if value}


async def until_accounted(db: asyncpg.Connection, sent: int, timeout_s: float = 60) -> dict[str, int]:
    """Wait until this many frames have an outcome; return the sums."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        found = await sums(db)
        if found.get("sent", 0) >= sent:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"after {timeout_s:.0f} s only {await sums(db)} of {sent} frames are accounted for")


async def until_progress(db: asyncpg.Connection, timeout_s: float = 30) -> None:
    """Wait until a batch more than now is committed."""
    query = "SELECT coalesce(max(id), 0) FROM telltale.ingest_batch"
    before, end = await db.fetchval(query), time.monotonic() + timeout_s
    while await db.fetchval(query) == before:
        if time.monotonic() > end:
            raise AssertionError(f"no batch was committed within {timeout_s:.0f} s")
        await asyncio.sleep(0.02)
