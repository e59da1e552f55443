"""The whole of telltale on one machine: engines, topics, tables, keys, workers."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlencode, urlsplit, urlunsplit

import structlog

from telltale.broker import ensure_topics
from telltale.config import Settings
from telltale.dev.crew import Crew, Job
from telltale.dev.keys import keys_for
from telltale.embedded import Engine, free_port, is_free, launch_broker, launch_postgres
from telltale.errors import SettingsError, TelltaleError
from telltale.store.migrate import migrate

log = structlog.get_logger("telltale.dev")

PARTITIONS: Final = 4
READY_TIMEOUT_S: Final = 45.0
EMBEDDED_SESSION_S: Final = "6"  # Tansu lets a group wait half its session timeout before it begins
WORKERS_STOP_S: Final = 5.0
ENGINE_STOP_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Worker:
    """A verb to keep running, and the database role it runs as."""

    verb: str
    role: str


WORKERS: Final = (
    Worker("ingest", "telltale_ingest"),
    Worker("score", "telltale_score"),
    Worker("api", "telltale_api"),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run and where."""

    data_dir: Path
    settings: Settings
    verbs: frozenset[str]  # those the command line has; workers of other verbs are left out
    broker: str | None = None  # bootstrap servers of a real Kafka; None: the embedded broker
    database: str | None = None  # URL of a role that may migrate a real PostgreSQL; None: the embedded one
    demo: bool = False
    dealer: str = "D01"  # whose link to make


class Stack:
    """The running whole. Use as an async context manager; leaving it stops everything in order."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._engines = contextlib.ExitStack()
        self._broker: Engine | None = None
        self._database: Engine | None = None
        self.root = plan.data_dir.resolve()
        self.crew = Crew(self._write_state)
        self.kafka = ""
        self.database = ""
        self.api = ""
        self.live_topic = plan.settings.live_topic
        self.backlog_topic = plan.settings.backlog_topic
        self.keys: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _start(self) -> None:
        self._claim_folder()
        self._start_engines()
        for migration in await migrate(self.database):
            log.info("migrated", file=migration)
        await ensure_topics(self.kafka, {self.live_topic: PARTITIONS, self.backlog_topic: PARTITIONS})
        self.keys = await keys_for(self.url_of("telltale_owner"), self.root / "keys.json", self._plan.dealer)
        port = self._plan.settings.http_port
        self.api = f"http://127.0.0.1:{port if is_free(port) else free_port()}"
        for worker in WORKERS:
            if worker.verb in self._plan.verbs:
                self.crew.start(self._job(worker))
        if self._plan.demo:
            self.crew.start(self._feeder())
        await self.crew.until_ready(READY_TIMEOUT_S)

    async def stop(self) -> None:
        """Stop the workers, then the broker, then the database."""
        await self.crew.stop(WORKERS_STOP_S)
        if self._broker is not None:
            await asyncio.to_thread(self._broker.stop, ENGINE_STOP_S)
        if self._database is not None:
            await asyncio.to_thread(self._database.stop, ENGINE_STOP_S)
        self._engines.close()

    async def watch(self) -> None:
        """Keep the workers and the database running. Raises TelltaleError when the embedded broker ends."""
        watching = asyncio.create_task(self.crew.watch())
        try:
            while not watching.done():
                self._look_after_engines()
                await asyncio.sleep(0.2)
            await watching
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    def url_of(self, role: str) -> str:
        """Return the database URL as this role.

        The embedded server lets the role itself log in. On a real one the given login takes the role on for
        the session, so that no password has to be set for it here.
        """
        parts = urlsplit(self.database)
        if self._plan.database is None:
            return urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))
        query = "&".join(filter(None, [parts.query, urlencode({"role": role})]))
        return urlunsplit(parts._replace(query=query))

    def link(self, role: str) -> str:
        """Return the address that signs a browser in as this role."""
        return f"{self.api}/login?{urlencode({'key': self.keys[role]})}"

    def describe(self) -> dict[str, Any]:
        """Return what a script needs: addresses, a key per role, process ids, topics, the folder."""
        return {
            "kafka": self.kafka,
            "database": self.database,
            "api": self.api,
            **self.keys,
            "processes": self.crew.pids,
            "topics": {"live": self.live_topic, "backlog": self.backlog_topic},
            "data_dir": str(self.root),
        }

    def _claim_folder(self) -> None:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.root / ".gitignore").write_text("*\n")
        (self.root / "logs").mkdir(exist_ok=True)
        self._engines.enter_context(_locked(self.root / "lock"))

    def _start_engines(self) -> None:
        """Start what was not given. The embedded broker forgets: its topics get new names on every start."""
        if self._plan.broker is None:
            self._broker = launch_broker(self.root / "broker")
            self.kafka = self._broker.address
            run = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}.{secrets.token_hex(2)}"
            self.live_topic, self.backlog_topic = f"{self.live_topic}.{run}", f"{self.backlog_topic}.{run}"
        else:
            self.kafka = self._plan.broker
        if self._plan.database is None:
            self._database = launch_postgres(self.root / "postgres")
            self.database = self._database.address
        else:
            self.database = self._plan.database

    def _look_after_engines(self) -> None:
        if self._broker is not None and self._broker.process.poll() is not None:
            raise TelltaleError(f"the embedded broker ended, and all it held with it: see {self._broker.log}")
        if self._database is not None and self._database.process.poll() is not None:
            log.warning("database_ended", code=self._database.process.returncode)
            port = urlsplit(self.database).port or 0
            self._database = launch_postgres(self.root / "postgres", port=port)

    def _job(self, worker: Worker) -> Job:
        metrics_port = free_port()
        base = self.api if worker.verb == "api" else f"http://127.0.0.1:{metrics_port}"
        return Job(
            name=worker.verb,
            command=(sys.executable, "-m", "telltale", worker.verb),
            environment=self._environment(worker.role, metrics_port),
            log=self.root / "logs" / f"{worker.verb}.log",
            ready_url=f"{base}/readyz",
        )

    def _feeder(self) -> Job:
        return Job(
            name="demo",
            command=(sys.executable, "-m", "telltale", "demo-feed", "--data-dir", str(self.root)),
            environment=self._environment("telltale_owner", free_port()),
            log=self.root / "logs" / "demo.log",
        )

    def _environment(self, role: str, metrics_port: int) -> dict[str, str]:
        """Return a worker's environment: ours, and the settings that differ."""
        hasty = {"TELLTALE_SESSION_TIMEOUT_S": EMBEDDED_SESSION_S} if self._plan.broker is None else {}
        return {
            **hasty,
            "TELLTALE_MAX_AGE_DAYS": "0",  # recordings of years ago are what one tries here
            **os.environ,
            "TELLTALE_KAFKA": self.kafka,
            "TELLTALE_DATABASE": self.url_of(role),
            "TELLTALE_LIVE_TOPIC": self.live_topic,
            "TELLTALE_BACKLOG_TOPIC": self.backlog_topic,
            "TELLTALE_HTTP_HOST": "127.0.0.1",
            "TELLTALE_HTTP_PORT": str(urlsplit(self.api).port),
            "TELLTALE_METRICS_PORT": str(metrics_port),
        }

    def _write_state(self) -> None:
        """Keep state.json true: process ids change when a worker is started again."""
        state = self.root / "state.json"
        fresh = state.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(self.describe(), indent=1))
        fresh.replace(state)


async def run_stack(plan: Plan, stop: asyncio.Event, announce: Callable[[Stack], None]) -> None:
    """Run the whole until `stop` is set; `announce` is called once everything answers."""
    async with Stack(plan) as stack:
        announce(stack)
        async with _watching(stack) as watching:
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()


@contextlib.asynccontextmanager
async def _watching(stack: Stack) -> AsyncIterator[asyncio.Task[None]]:
    """Watch in the background; what ends the watching is raised on leaving."""
    task = asyncio.create_task(stack.watch())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the folder: two stacks on one database would fight over it."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(
                f"{path.parent} is in use by another telltale: stop that one, or choose another --data-dir"
            ) from None
        yield
