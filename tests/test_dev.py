"""`telltale dev --headless`, as a script uses it: real processes, one folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.stack import alive, described, start, status


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "dev"


@pytest.fixture
def dev(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = start(folder)
    yield process
    if process.poll() is None:
        process.kill()
        process.wait()


def test_it_says_where_all_is_restarts_a_killed_worker_and_leaves_nothing_running(
    dev: subprocess.Popen[str], folder: Path
) -> None:
    said = described(dev)
    assert {"kafka", "database", "api", "dealer", "quality", "ops", "processes", "topics", "data_dir"} <= set(
        said
    )
    assert status(f"{said['api']}/readyz") == 200
    assert status(f"{said['api']}/v1/alerts") == 401
    assert [status(f"{said['api']}/v1/alerts", said[role]) for role in ("dealer", "quality", "ops")] == [
        200
    ] * 3

    os.kill(said["processes"]["ingest"], signal.SIGKILL)
    successor = await_other_pid(folder / "state.json", "ingest", said["processes"]["ingest"])
    assert alive(successor)

    began = time.monotonic()
    dev.send_signal(signal.SIGTERM)
    assert dev.wait(timeout=20) == 0
    assert time.monotonic() - began < 10
    assert dev.stdout is not None
    assert dev.stdout.read() == ""
    assert not alive(successor)
    assert not (folder.parent / "home").exists()


def test_keys_and_data_survive_a_restart_and_topics_are_new(folder: Path) -> None:
    said = []
    for _ in range(2):
        process = start(folder)
        said.append(described(process))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    first, second = said
    assert [first[role] for role in ("dealer", "quality", "ops")] == [
        second[role] for role in ("dealer", "quality", "ops")
    ]
    assert first["topics"] != second["topics"]


def test_workers_and_engines_end_when_dev_is_killed(dev: subprocess.Popen[str]) -> None:
    said = described(dev)
    dev.kill()
    dev.wait()
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in said["processes"].values()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [name for name, pid in said["processes"].items() if alive(pid)]
    with pytest.raises(OSError):
        status(f"{said['api']}/healthz")


def test_a_second_dev_on_the_same_folder_is_refused_in_one_line(
    dev: subprocess.Popen[str], folder: Path
) -> None:
    described(dev)
    second = subprocess.run(
        [sys.executable, "-m", "telltale", "dev", "--headless", "--data-dir", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert second.returncode == 1
    assert second.stdout == ""
    assert "is in use by another telltale" in second.stderr.splitlines()[-1]


def test_engines_that_are_given_are_used_and_left_running(
    kafka: str, empty_database_url: str, folder: Path
) -> None:
    process = start(folder, "--broker", kafka, "--database", empty_database_url)
    try:
        said = described(process)
        assert (said["kafka"], said["database"]) == (kafka, empty_database_url)
        assert said["topics"] == {"live": "telltale.telemetry.v1", "backlog": "telltale.backlog.v1"}
        assert status(f"{said['api']}/v1/alerts", said["dealer"]) == 200
        assert not (folder / "postgres").exists()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


def await_other_pid(state: Path, worker: str, old: int) -> int:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        pid = int(json.loads(state.read_text())["processes"][worker])
        if pid != old:
            return pid
        time.sleep(0.1)
    raise AssertionError(f"{worker} was not started again")
