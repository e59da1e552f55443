"""The verbs an operator types, as separate processes on a real database."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from tests.servers.postgres import DatabaseUrls, run

from telltale.broker import ensure_topics
from telltale.embedded import free_port


def telltale(
    *words: str, database: str, kafka: str = "", **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run the command with nothing in the environment but these settings."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("TELLTALE_")}
    kafka = kafka or f"127.0.0.1:{free_port()}"
    env |= {"TELLTALE_DATABASE": database, "TELLTALE_KAFKA": kafka} | settings
    command = [str(Path(sys.executable).with_name("telltale")), *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_migrate_says_what_it_applied_and_then_nothing(empty_database_url: str) -> None:
    first = telltale("migrate", database=empty_database_url)
    assert (first.returncode, first.stdout.splitlines()[0]) == (0, "applied 0001_core.sql")
    again = telltale("migrate", database=empty_database_url)
    assert (again.returncode, again.stdout) == (0, "nothing to apply\n")


def test_doctor_names_pending_migrations_and_a_dead_broker_and_fails(empty_database_url: str) -> None:
    done = telltale("doctor", database=empty_database_url)
    assert done.returncode == 1
    assert "→ run: telltale migrate" in done.stdout
    assert "→ kafka: no broker answers" in done.stdout


@pytest.mark.timeout(120)
def test_doctor_is_content_with_a_migrated_database_and_its_topics(
    database_urls: DatabaseUrls, kafka: str
) -> None:
    topics = {f"doctor.live.{uuid.uuid4().hex}": 3, f"doctor.backlog.{uuid.uuid4().hex}": 2}
    live, backlog = topics
    names = {"TELLTALE_LIVE_TOPIC": live, "TELLTALE_BACKLOG_TOPIC": backlog}
    missing = telltale("doctor", database=database_urls.api, kafka=kafka, **names)
    assert (missing.returncode, missing.stdout.count("→ create it")) == (1, 2)
    run(ensure_topics(kafka, topics))
    done = telltale("doctor", database=database_urls.api, kafka=kafka, **names)
    assert done.returncode == 0, done.stdout
    assert "✗" not in done.stdout
    assert f"topic {live}" in done.stdout
    assert "3 partitions" in done.stdout


def test_doctor_says_what_is_wrong_with_the_address() -> None:
    done = telltale("doctor", database=f"postgresql://x@127.0.0.1:{free_port()}/x")
    assert done.returncode == 1
    assert "is the server running, and is TELLTALE_DATABASE right?" in done.stdout
    assert "Traceback" not in done.stderr


def test_vehicles_are_imported_or_refused_with_the_line(database_urls: DatabaseUrls, tmp_path: Path) -> None:
    file = tmp_path / "fleet.csv"
    file.write_text("vin,variant,nominal_capacity_ah\nLTESTA00000000001,EU,150\n")
    done = telltale("vehicles", "import", str(file), database=database_urls.owner)
    assert done.stdout == "1 vehicles: 1 new to us, 2 attributes changed\n", done.stderr
    file.write_text("vin,nominal_capacity_ah\nLTESTA00000000001,lots\n")
    bad = telltale("vehicles", "import", str(file), database=database_urls.owner)
    assert bad.returncode == 1
    assert 'line 2, nominal_capacity_ah: expected ampere-hours between 0 and 10000, got "lots"' in bad.stderr
    refused = telltale("vehicles", "import", str(tmp_path / "none.csv"), database=database_urls.owner)
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)


def test_maintain_without_a_limit_drops_nothing(database_urls: DatabaseUrls) -> None:
    done = telltale("maintain", database=database_urls.score)
    assert (done.returncode, done.stdout) == (0, "")
