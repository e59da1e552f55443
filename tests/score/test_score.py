"""The score worker's transaction on a real database, as the role it runs as."""

import asyncio
import os
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from telltale import boosting
from telltale.errors import FencedError
from telltale.features import FEATURES_VERSION, RANKED_BY
from telltale.fold.days import hour_segments
from telltale.fold.frames import DAY_OFFSET_US, DAY_US, frames_of
from telltale.fold.packed import pack as packed_segment
from telltale.recordings import load_recording
from telltale.records import CELL, REPORT_COLUMNS, REPORT_LISTS, Ragged, Rows, empty_ragged, nulls
from telltale.score import work as scoring
from telltale.score.work import Limits, work
from telltale.simulate import inject_leak_deviation
from telltale.store import score as store
from telltale.store.copy import REPORT_LAYOUT, copy_packed, pack
from telltale.store.pool import connect, open_pool
from telltale.store.times import moment
from telltale.train.evaluate import judge_vehicle

LIMITS = Limits(ttl_s=30, quiet_s=0, longest_wait_s=0, vehicles=50, buckets=5000, marks=5000)
FIRST_DAY = 19_000
CELLS, DAYS, LEAK_MV_DAY, LEAKING = 24, 16, 3.0, 7
MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture(scope="module")
def model() -> boosting.Model:
    return boosting.load(MODELS / "cell_fault", features=RANKED_BY, features_version=FEATURES_VERSION)


def resting(vehicle: int, *, leak_mv_day: float, days: range = range(DAYS), seed: int = 1) -> Rows:
    """Return ten minutes of rest at midnight, across the border of two hours, on each day."""
    rng = np.random.default_rng(seed)
    offsets = rng.normal(0, 4, CELLS)
    at = [
        (FIRST_DAY + day) * DAY_US - DAY_OFFSET_US + 3600_000_000 * 12 + step * 30_000_000
        for day in days
        for step in range(-10, 10)
    ]
    day = np.repeat(np.array(days), 20)
    mv = 3700 + offsets + rng.normal(0, 1, (len(at), CELLS))
    mv[:, LEAKING - 1] -= leak_mv_day * day
    columns = nulls(REPORT_COLUMNS, len(at))
    for name in ("part", "source_id", "time_source", "flags", "digest"):
        columns[name] = 0
    columns["vehicle_id"] = vehicle
    columns["observed_at"] = columns["received_at"] = at
    columns["pack_current_a"], columns["soc_pct"], columns["cell_temp_max_degc"] = 0.4, 60 + day % 3, 25
    lists = {c.name: empty_ragged(c.item, len(at)) for c in REPORT_LISTS}
    lists["cells_mv"] = Ragged(np.rint(mv).astype(CELL).reshape(-1), np.arange(len(at) + 1) * CELLS)
    return Rows(columns, lists)


async def ingest(url: str, rows: Rows) -> None:
    """Store rows and mark their hours, as the ingest worker does."""
    db = await connect(url, role_name="ingest", timeout_s=20)
    try:
        times = [moment(int(t)) for t in np.unique(rows.columns["observed_at"])]
        pairs = np.unique(
            np.stack([rows.columns["vehicle_id"], rows.columns["observed_at"] // 3_600_000_000]), axis=1
        )
        async with db.transaction():
            await db.execute("SELECT ensure_partitions($1)", times)
            await copy_packed(db, "report", REPORT_LAYOUT.columns, pack(REPORT_LAYOUT, rows))
            await db.execute(
                "INSERT INTO dirty_mark (vehicle_ids, hours) VALUES ($1, $2)", *(p.tolist() for p in pairs)
            )
    finally:
        await db.close()


async def register(url: str, *vins: str) -> list[int]:
    db = await connect(url, role_name="owner", timeout_s=20)
    try:
        return [
            await db.fetchval(
                "INSERT INTO vehicle (vin, vin_valid, pack_design, chemistry, dealer) "
                "VALUES ($1, true, 'P96-NCM', 'NCM', 'D01') RETURNING id",
                vin,
            )
            for vin in vins
        ]
    finally:
        await db.close()


async def score_all(url: str, model: boosting.Model, holder: str = "one") -> int:
    """Score until nothing is left; return the number of hours folded."""
    pool = await open_pool(url, role_name="score", timeout_s=20)
    folded = 0
    try:
        while True:
            leases = await store.claim(pool, holder, 30)
            async with pool.acquire() as db:
                done = [await work(db, lease, model, LIMITS) for lease in leases]
            folded += sum(d.buckets for d in done)
            if not any(d.buckets or d.marks for d in done):
                return folded
    finally:
        await pool.close()


async def fetch(url: str, sql: str, *args: object) -> list[dict]:
    db = await connect(url, role_name="test", timeout_s=20)
    try:
        return [dict(row) for row in await db.fetch(sql, *args)]
    finally:
        await db.close()


async def test_a_leak_in_stored_rows_becomes_an_alert_that_names_the_cell(database_urls, model) -> None:
    sick, healthy = await register(database_urls.owner, "LTEST000000000001", "LTEST000000000002")
    await ingest(database_urls.ingest, resting(sick, leak_mv_day=LEAK_MV_DAY))
    await ingest(database_urls.ingest, resting(healthy, leak_mv_day=0.0, seed=2))
    assert await score_all(database_urls.score, model) == 2 * 2 * DAYS

    (alert,) = await fetch(database_urls.admin, "SELECT * FROM telltale.alert WHERE severity <> 'watch'")
    assert (alert["vehicle_id"], alert["component"], alert["dealer"]) == (sick, f"cell:{LEAKING}", "D01")
    assert alert["severity"] == "important"
    evidence = alert["evidence"]
    assert evidence["trend_mv_day"] == pytest.approx(-LEAK_MV_DAY, abs=0.4)
    assert evidence["service_unit"]["en"] == "module (12 cells in series) 1"
    assert 1 <= len(evidence["reasons"]) <= 5
    assert evidence["assumed_prevalence"] > 0
    assert evidence["model_version"] == model.card.version
    kinds = await fetch(database_urls.admin, "SELECT kind FROM telltale.alert_event ORDER BY id")
    assert kinds[0]["kind"] == "raised"
    scores = await fetch(
        database_urls.admin,
        "SELECT component, not_scored FROM telltale.failure_score WHERE vehicle_id = $1 ORDER BY day",
        sick,
    )
    assert scores[0]["not_scored"] == "too_little_rest"
    assert scores[-1]["component"] == f"cell:{LEAKING}"


async def test_what_is_stored_equals_what_the_offline_tools_fold(database_urls, model) -> None:
    (vehicle,) = await register(database_urls.owner, "LTEST000000000001")
    rows = resting(vehicle, leak_mv_day=1.0, days=range(3))
    await ingest(database_urls.ingest, rows)
    await score_all(database_urls.score, model)
    stored = await fetch(database_urls.admin, "SELECT segment FROM telltale.vehicle_hour ORDER BY hour_start")
    offline = [packed_segment(segment) for _, segment in sorted(hour_segments(frames_of(rows)).items())]
    assert [row["segment"] for row in stored] == offline
    (day,) = await fetch(
        database_urls.admin,
        "SELECT frames, rest_frames FROM telltale.vehicle_day WHERE day = $1",
        date.fromordinal(date(1970, 1, 1).toordinal() + FIRST_DAY),
    )
    assert day == {"frames": 20, "rest_frames": 19}  # rest goes on across the hour's border


async def test_late_rows_in_any_order_end_in_the_same_summaries_and_scores(database_urls, model) -> None:
    early, late = await register(database_urls.owner, "LTEST000000000001", "LTEST000000000002")
    rows = resting(early, leak_mv_day=2.0)
    await ingest(database_urls.ingest, rows)
    await score_all(database_urls.score, model)
    same = replace(rows, columns=rows.columns.copy())
    same.columns["vehicle_id"] = late
    for part in np.array_split(np.random.default_rng(3).permutation(len(same)), 4):
        await ingest(database_urls.ingest, same.take(part))
        await score_all(database_urls.score, model)
    for table, columns in (
        ("vehicle_hour", "hour_start, segment"),
        ("vehicle_day", "day, segment"),
        ("failure_score", "day, not_scored, component, score, findings"),
    ):
        sql = f"SELECT {columns} FROM telltale.{table} WHERE vehicle_id = $1 ORDER BY 1"  # noqa: S608
        assert await fetch(database_urls.admin, sql, early) == await fetch(database_urls.admin, sql, late)


async def test_late_rows_that_disprove_a_finding_correct_its_alert_in_sight(database_urls, model) -> None:
    (vehicle,) = await register(database_urls.owner, "LTEST000000000001")
    leaking = resting(vehicle, leak_mv_day=LEAK_MV_DAY)
    await ingest(database_urls.ingest, leaking)
    await score_all(database_urls.score, model)
    (before,) = await fetch(database_urls.admin, "SELECT id, version FROM telltale.alert")
    calm = resting(vehicle, leak_mv_day=0.0)
    calm.columns["observed_at"] += 15_000_000  # between the frames there are, and many more of them
    more = [calm]
    for shift in range(1, 6):
        shifted = replace(calm, columns=calm.columns.copy())
        shifted.columns["observed_at"] += shift * 1_000_000
        more.append(shifted)
    for rows in more:
        await ingest(database_urls.ingest, rows)
    await score_all(database_urls.score, model)
    events = await fetch(database_urls.admin, "SELECT kind, payload FROM telltale.alert_event ORDER BY id")
    corrected = [e["payload"] for e in events if e["kind"] == "corrected"]
    assert corrected, [e["kind"] for e in events]
    assert corrected[-1]["before"]["deviation_mv"] < -8
    (after,) = await fetch(database_urls.admin, "SELECT id, version, cleared_at FROM telltale.alert")
    assert after["id"] == before["id"]
    assert after["version"] > before["version"]


async def test_scoring_again_changes_nothing(database_urls, model) -> None:
    (vehicle,) = await register(database_urls.owner, "LTEST000000000001")
    await ingest(database_urls.ingest, resting(vehicle, leak_mv_day=LEAK_MV_DAY))
    await score_all(database_urls.score, model)
    events = "SELECT id, kind FROM telltale.alert_event ORDER BY id"
    before = await fetch(database_urls.admin, events)
    await fetch(
        database_urls.admin,
        "INSERT INTO telltale.dirty_mark (vehicle_ids, hours) SELECT array_agg(vehicle_id), "
        "array_agg((extract(epoch FROM hour_start) / 3600)::int) FROM telltale.vehicle_hour RETURNING id",
    )
    assert await score_all(database_urls.score, model) == 2 * DAYS
    assert await fetch(database_urls.admin, events) == before


async def test_two_workers_never_fold_the_same_hour(database_urls, model, monkeypatch) -> None:
    vehicles = await register(database_urls.owner, *(f"LTEST00000000010{i}" for i in range(10)))
    for vehicle in vehicles:
        await ingest(database_urls.ingest, resting(vehicle, leak_mv_day=0.0, days=range(4), seed=vehicle))
    folded: list[tuple[int, int]] = []
    settle = scoring.score.folded

    async def noted(db, buckets) -> None:
        folded.extend((bucket.vehicle_id, bucket.hour) for bucket in buckets)
        await settle(db, buckets)

    monkeypatch.setattr(scoring.score, "folded", noted)
    pool = await open_pool(database_urls.score, role_name="score", timeout_s=20)
    held = [len(await store.claim(pool, holder, 30)) for holder in ("one", "two", "one", "two")]
    await pool.close()
    assert held == [8, 0, 4, 4]  # each a fair share, once both are known
    counts = await asyncio.gather(
        score_all(database_urls.score, model, "one"), score_all(database_urls.score, model, "two")
    )
    assert len(folded) == len(set(folded)) == sum(counts) == 10 * 2 * 4
    assert min(counts) > 0


async def test_a_worker_that_lost_its_lease_writes_nothing(database_urls, model) -> None:
    (vehicle,) = await register(database_urls.owner, "LTEST000000000001")
    await ingest(database_urls.ingest, resting(vehicle, leak_mv_day=0.0, days=range(2)))
    pool = await open_pool(database_urls.score, role_name="score", timeout_s=20)
    try:
        stale = await store.claim(pool, "slow", 30)
        async with pool.acquire() as db:
            await db.execute("UPDATE score_shard SET expires_at = '-infinity'")
            await db.execute("DELETE FROM score_worker")
        fresh = await store.claim(pool, "quick", 30)
        assert len(fresh) == len(stale) == 8
        async with pool.acquire() as db:
            for lease in stale:
                with pytest.raises(FencedError):
                    await work(db, lease, model, LIMITS)
            assert await db.fetchval("SELECT count(*) FROM vehicle_hour") == 0
    finally:
        await pool.close()


async def test_a_mark_is_not_taken_while_an_older_transaction_runs(database_urls, model) -> None:
    """Otherwise the cursor would pass marks that the older transaction has yet to commit."""
    (vehicle,) = await register(database_urls.owner, "LTEST000000000001")
    older = await connect(database_urls.ingest, role_name="ingest", timeout_s=20)
    try:
        transaction = older.transaction()
        await transaction.start()
        await older.execute("SELECT pg_current_xact_id()")
        await ingest(database_urls.ingest, resting(vehicle, leak_mv_day=0.0, days=range(2)))
        assert await score_all(database_urls.score, model) == 0
        await transaction.commit()
        assert await score_all(database_urls.score, model) == 4
    finally:
        await older.close()


async def test_an_hour_whose_raw_rows_are_gone_is_merged_into_and_not_rebuilt(database_urls, model) -> None:
    (vehicle,) = await register(database_urls.owner, "LTEST000000000001")
    rows = resting(vehicle, leak_mv_day=0.0, days=range(1))
    hour = rows.columns["observed_at"] // 3_600_000_000
    first_hour = rows.take(np.flatnonzero(hour == hour.min()))
    await ingest(database_urls.ingest, first_hour.take(np.arange(8)))
    await score_all(database_urls.score, model)
    await fetch(database_urls.admin, "DELETE FROM telltale.report RETURNING 1")  # as retention does
    await ingest(database_urls.ingest, first_hour.take(np.arange(8, 10)))
    await score_all(database_urls.score, model)
    (stored,) = await fetch(database_urls.admin, "SELECT frames, segment FROM telltale.vehicle_hour")
    assert stored["frames"] == 10
    assert stored["segment"] == packed_segment(*hour_segments(frames_of(first_hour)).values())


def test_a_model_of_other_features_is_refused(tmp_path) -> None:
    shutil.copytree(MODELS / "cell_fault", tmp_path / "cell_fault")
    with pytest.raises(boosting.SettingsError, match="features of version"):
        boosting.load(tmp_path / "cell_fault", features=RANKED_BY, features_version=FEATURES_VERSION + 1)


async def test_a_recorded_car_with_a_leak_put_in_gives_the_alert_the_offline_tools_give(
    database_urls, model
) -> None:
    folder = os.environ.get("TELLTALE_TEST_DATA")
    if not folder:
        pytest.skip("TELLTALE_TEST_DATA names no folder of recordings")
    name, rows = load_recording(Path(folder) / "ev_cell_faults" / "car4.parquet")
    (vehicle,) = await register(database_urls.owner, "LTEST000000000004")
    rows.columns["vehicle_id"] = vehicle
    start_us = int(rows.columns["observed_at"].min())
    leaking = inject_leak_deviation(rows, 40, 40.0, 14.0, start_us)
    await ingest(database_urls.ingest, leaking)
    await score_all(database_urls.score, model)
    alerts = await fetch(
        database_urls.admin,
        "SELECT component, severity, evidence FROM telltale.alert WHERE severity <> 'watch'",
    )
    offline = [e for e in judge_vehicle(name, leaking, model).episodes if e.severity != "watch"]
    assert [(a["component"], a["severity"]) for a in alerts] == [
        (f"cell:{e.cell}", e.severity) for e in offline
    ]
    assert alerts[0]["component"] == "cell:40"
    opening = alerts[0]["evidence"]["opening"]
    assert date.fromisoformat(opening["day"]).toordinal() - date(1970, 1, 1).toordinal() == offline[0].opened
    assert opening["deviation_mv"] == offline[0].at_opening.values["deviation_mv"]
