"""Brokers for tests: the embedded one, or Apache Kafka where `TELLTALE_TEST_KAFKA=apache`.

`kafka` is the bootstrap address of a broker shared by the run; `topics` makes fresh topics on it.
`apache_kafka` is a broker of one's own that can be stopped, killed and started again on the same port and
data: always Apache Kafka, since nothing in the embedded one survives.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from telltale.broker import ensure_topics
from telltale.embedded import LOOPBACK, Engine, free_port, spawn, speaks_kafka, start_broker, wait_until

POM = Path(__file__).parent / "kafka" / "pom.xml"
CACHE = Path(__file__).parents[2] / ".cache"
HEAP = ("-Xms192m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=WARN")
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={logs}
auto.create.topics.enable=false
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=200
log.cleaner.dedupe.buffer.size=10485760
"""


class ApacheKafka:
    """One Apache Kafka node (KRaft) on loopback: port and data stay over restarts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._jars = jars()
        self._config = folder / "server.properties"
        self._engine: Engine | None = None
        self.bootstrap = f"{LOOPBACK}:{self._port}"
        self._format()

    def start(self) -> None:
        """Start the broker and return once it answers."""
        log = self._folder / "kafka.log"
        command = [*self._java(), "kafka.Kafka", str(self._config)]
        self._engine = Engine(self.bootstrap, spawn(command, log, None, signal.SIGKILL), log)
        wait_until(self._engine, "Apache Kafka", lambda: speaks_kafka(self._port))

    def stop(self) -> None:
        """Shut it down in order."""
        if self._engine is not None:
            self._engine.stop(timeout_s=20)
            self._engine = None

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        assert self._engine is not None, "not started"
        self._engine.process.kill()
        self._engine.process.wait()
        self._engine = None

    def _java(self) -> list[str]:
        return [str(shutil.which("java")), *HEAP, "-cp", f"{self._jars}/*"]

    def _format(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._config.write_text(
            PROPERTIES.format(port=self._port, controller=free_port(), logs=self._folder / "data")
        )
        command = [*self._java(), "kafka.tools.StorageTool", "format", "-t", uuid.uuid4().hex[:22]]
        subprocess.run([*command, "-c", str(self._config)], check=True, capture_output=True)


def jars() -> Path:
    """Return the folder of Apache Kafka's jars; Maven fetches them the first time."""
    folder = CACHE / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    if not folder.exists():
        fresh = folder.with_suffix(f".{os.getpid()}")
        subprocess.run(
            ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={fresh}"],
            check=True,
        )
        fresh.rename(folder)
    return folder


def _need_java() -> None:
    missing = [program for program in ("java", "mvn") if shutil.which(program) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"Apache Kafka needs {' and '.join(missing)} on PATH")
    if missing:
        pytest.skip(f"Apache Kafka needs {' and '.join(missing)} on PATH")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the bootstrap address of the run's broker."""
    folder = tmp_path_factory.mktemp("kafka")
    if os.environ.get("TELLTALE_TEST_KAFKA") == "apache":
        _need_java()
        broker = ApacheKafka(folder)
        try:
            broker.start()
            yield broker.bootstrap
        finally:
            broker.stop()
    else:
        with start_broker(folder) as bootstrap:
            yield bootstrap


@pytest.fixture
def apache_kafka(tmp_path: Path) -> Iterator[ApacheKafka]:
    """Yield a started Apache Kafka of this test alone."""
    _need_java()
    broker = ApacheKafka(tmp_path / "kafka")
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@pytest.fixture
def topics(kafka: str) -> Callable[..., Awaitable[tuple[str, str]]]:
    """Return a function that makes a live and a backlog topic of this test alone; returns their names."""

    async def make(partitions: int = 2) -> tuple[str, str]:
        run = uuid.uuid4().hex[:8]
        live, backlog = f"test.telemetry.{run}", f"test.backlog.{run}"
        await ensure_topics(kafka, {live: partitions, backlog: partitions})
        return live, backlog

    return make
