"""The workers as child processes: started, kept running, stopped in order."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from telltale.embedded import last_line, spawn
from telltale.errors import TelltaleError

log = structlog.get_logger("telltale.dev")

LOOK_EVERY_S: Final = 0.1
SOON_S: Final = 5.0  # a worker that ends sooner after its start is started again ever more slowly
LONGEST_PAUSE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Job:
    """One process to keep running."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    ready_url: str = ""  # answers 200 once the worker can work; empty: there is nothing to ask


@dataclass(slots=True, eq=False)
class _Place:
    job: Job
    process: subprocess.Popen[bytes]
    started: float
    pause_s: float = LOOK_EVERY_S
    restart_at: float | None = None


@dataclass(slots=True)
class Crew:
    """Running jobs, in starting order. `changed` is called after every start."""

    changed: Callable[[], None] = lambda: None
    _places: list[_Place] = field(default_factory=list)

    def start(self, job: Job) -> None:
        """Start a job; from now on `watch` keeps it running."""
        self._places.append(_Place(job, _start(job), time.monotonic()))
        self.changed()

    @property
    def pids(self) -> dict[str, int]:
        """Return the process id of each job."""
        return {place.job.name: place.process.pid for place in self._places}

    async def watch(self) -> None:
        """Start again what ends by itself, for as long as this is awaited."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for place in self._places:
                self._look_after(place, time.monotonic())

    def _look_after(self, place: _Place, now: float) -> None:
        code = place.process.poll()
        if code is None:
            return
        if place.restart_at is None:
            quick = now - place.started < SOON_S
            place.pause_s = min(place.pause_s * 2, LONGEST_PAUSE_S) if quick else LOOK_EVERY_S
            place.restart_at = now + place.pause_s
            log.warning("worker_ended", worker=place.job.name, code=code, last=last_line(place.job.log))
        elif now >= place.restart_at:
            place.process, place.started, place.restart_at = _start(place.job), now, None
            self.changed()

    async def until_ready(self, timeout_s: float) -> None:
        """Return once every job that can be asked says it is ready; raise with the first one's last words."""
        deadline = time.monotonic() + timeout_s
        for place in self._places:
            while place.job.ready_url and not await asyncio.to_thread(_answers, place.job.ready_url):
                if time.monotonic() > deadline:
                    raise TelltaleError(
                        f"{place.job.name} was not ready within {timeout_s:.0f} s: "
                        f"{last_line(place.job.log)} (whole log: {place.job.log})"
                    )
                await asyncio.sleep(LOOK_EVERY_S)

    async def stop(self, timeout_s: float, *names: str) -> None:
        """Ask the named jobs, or all, to end, the last started first; kill those that take longer."""
        leaving = [p for p in reversed(self._places) if not names or p.job.name in names]
        self._places = [place for place in self._places if place not in leaving]  # watched no longer
        for place in leaving:
            place.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        for place in leaving:
            try:
                await asyncio.to_thread(place.process.wait, max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.warning("worker_killed", worker=place.job.name, after_s=timeout_s)
                place.process.kill()
                place.process.wait()


def _start(job: Job) -> subprocess.Popen[bytes]:
    return spawn(list(job.command), job.log, None, signal.SIGTERM, job.environment)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  always http on loopback
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
