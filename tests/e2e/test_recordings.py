"""Recorded cars through replay, Kafka and ingest: what is stored is what was recorded, once.

Needs the folder of recordings in TELLTALE_TEST_DATA.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest
from tests.ingest.workers import sums, until_accounted, until_progress, workers
from tests.servers.postgres import DatabaseUrls

from telltale import records
from telltale.config import Settings
from telltale.recordings import load_recording
from telltale.records import Rows
from telltale.replay import Replay, Tally, replay
from telltale.simulate.vin import vin_of_name

DATA = os.environ.get("TELLTALE_TEST_DATA")
pytestmark = [
    pytest.mark.skipif(not DATA, reason="TELLTALE_TEST_DATA names no folder of recordings"),
    pytest.mark.timeout(600),
]
Topics = Callable[..., Awaitable[tuple[str, str]]]
CARS = ("car1", "car2", "car4")
# Half of the wire's step, and a little for the binary fractions on the way.
STEPS = {
    "speed_kmh": 0.1,
    "odometer_km": 0.1,
    "pack_voltage_v": 0.1,
    "pack_current_a": 0.1,
    "soc_pct": 1.0,
    "insulation_kohm": 1.0,
    "cell_voltage_max_v": 0.001,
    "cell_voltage_min_v": 0.001,
    "cell_temp_max_degc": 1.0,
    "cell_temp_min_degc": 1.0,
    "charging_state": 0.0,
    "alarm_level": 0.0,
}


def recorded(car: str) -> Rows:
    return load_recording(Path(str(DATA)) / "ev_cell_faults" / f"{car}.parquet")[1]


@pytest.fixture
async def settings(kafka: str, topics: Topics, database_urls: DatabaseUrls) -> Settings:
    live, backlog = await topics(4)
    return Settings(
        kafka=kafka,
        database=database_urls.ingest,
        live_topic=live,
        backlog_topic=backlog,
        consumer_group=f"group-{live}",
        session_timeout_s=6,
        max_age_days=0,
    )


@pytest.fixture
async def db(database_urls: DatabaseUrls) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_urls.admin)
    yield connection
    await connection.close()


async def send(settings: Settings, how: Replay) -> int:
    """Replay every car; return the number of frames sent."""
    tallies: list[Tally] = await replay(settings, Path(str(DATA)) / "ev_cell_faults", how)
    assert not any(tally.lost for tally in tallies)
    return sum(tally.sent for tally in tallies)


def identities(rows: Rows) -> Counter[int]:
    """How often each time occurs in a recording."""
    return Counter(rows.columns["observed_at"].tolist())


async def stored(db: asyncpg.Connection, car: str) -> tuple[dict[str, Any], list[bytes], list[bytes]]:
    """Columns, cells and probes of a car's rows in time order."""
    rows = await db.fetch(
        "SELECT r.* FROM telltale.report r JOIN telltale.vehicle v ON v.id = r.vehicle_id "
        "WHERE v.vin = $1 ORDER BY observed_at",
        vin_of_name(car),
    )
    columns = {
        name: np.array([np.nan if row[name] is None else row[name] for row in rows], float) for name in STEPS
    }
    columns["observed_at"] = np.array([round(row["observed_at"].timestamp() * 1e6) for row in rows])
    return columns, [row["cells_mv"] for row in rows], [row["probes_ddegc"] for row in rows]


async def assert_as_recorded(db: asyncpg.Connection, car: str) -> None:
    """Every stored signal of a car is the recorded one within the wire's resolution."""
    rows = recorded(car)
    times = rows.columns["observed_at"]
    columns, cells, probes = await stored(db, car)
    assert columns["observed_at"].tolist() == sorted(set(times.tolist()))
    once = np.array([count == 1 for _, count in sorted(identities(rows).items())])
    order = np.argsort(times, kind="stable")
    alone = order[np.isin(times[order], columns["observed_at"][once])]
    for name, step in STEPS.items():
        want = rows.columns[name][alone].astype(float)
        if rows.columns[name].dtype.kind == "i":
            want[rows.columns[name][alone] == records.null_of(rows.columns[name].dtype)] = np.nan
        got = columns[name][once]
        assert np.array_equal(np.isnan(got), np.isnan(want)), name
        assert np.nanmax(np.abs(got - want), initial=0.0) <= step / 2 + 1e-3 * step + 1e-4, name
    kept = np.flatnonzero(once)
    for recorded_row, stored_row in zip(alone.tolist(), kept.tolist(), strict=True):
        assert cells[stored_row] == rows.lists["cells_mv"].row(recorded_row).astype(records.CELL).tobytes()
    want_probes = np.stack([rows.lists["probes_ddegc"].row(i) for i in alone.tolist()]).astype(int)
    got_probes = np.stack([np.frombuffer(probes[i], records.PROBE) for i in kept.tolist()]).astype(int)
    absent = want_probes == records.PROBE_INVALID
    assert np.array_equal(got_probes == records.PROBE_INVALID, absent)
    assert np.abs(got_probes - want_probes)[~absent].max() <= 5


def expected() -> dict[str, int]:
    """The accounting that the files themselves ask for."""
    whole = [recorded(car) for car in CARS]
    sent = sum(len(rows) for rows in whole)
    distinct = sum(len(identities(rows)) for rows in whole)
    return {"sent": sent, "stored": distinct, "copies": sent - distinct}


async def test_recorded_cars_are_stored_once_and_exactly(
    settings: Settings, db: asyncpg.Connection, tmp_path: Path
) -> None:
    want = expected()
    with workers(settings, tmp_path) as (worker,):
        assert await send(settings, Replay()) == want["sent"]
        first = await until_accounted(db, want["sent"], 240)
        assert first["stored"] == want["stored"]
        assert first["duplicate"] + first["conflicting"] == want["copies"]
        for car in CARS:
            await assert_as_recorded(db, car)
        await send(settings, Replay())
        again = await until_accounted(db, 2 * want["sent"], 240)
        assert (again["stored"], worker.alive) == (want["stored"], True)
    assert await db.fetchval("SELECT count(*) FROM telltale.report") == want["stored"]
    evidence = await db.fetch("SELECT outcome, count(*) FROM telltale.dead_letter GROUP BY 1")
    assert [tuple(row) for row in evidence] == [("conflicting", again["conflicting"])]


@pytest.mark.kafka
async def test_reissued_shuffled_and_split_with_twenty_kills_stores_the_same_rows(
    settings: Settings, db: asyncpg.Connection, tmp_path: Path
) -> None:
    want, seeded = expected(), random.Random(20)
    how = Replay(reissued=True, shuffle=7, split_partitions=True)
    assert await send(settings, how) == want["sent"]
    harried = changed_settings(settings)
    kills = 0
    while kills < 20:
        with workers(harried, tmp_path):
            await until_progress(db)
            await asyncio.sleep(seeded.uniform(0, 0.25))
            assert (await sums(db))["sent"] < want["sent"], "the kills must hit before the end"
        kills += 1
    with workers(settings, tmp_path):
        found = await until_accounted(db, want["sent"], 240)
    assert found["stored"] == want["stored"]
    assert found["duplicate"] + found["conflicting"] == want["copies"]
    assert await db.fetchval("SELECT count(*) FROM telltale.report") == want["stored"]
    for car in CARS:
        await assert_as_recorded(db, car)


def changed_settings(settings: Settings) -> Settings:
    """Small batches and a short session, so that every kill hits work under way."""
    return settings.model_copy(update={"session_timeout_s": 1.0, "backlog_batch_records": 100})
