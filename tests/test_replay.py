"""Recorded cars become valid frames: everything read is sent, or counted with the reason."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from telltale.broker import Consumer, Record, TopicPartition
from telltale.config import Settings
from telltale.decode import decoder_for
from telltale.embedded import start_broker
from telltale.errors import SettingsError, WaitableError
from telltale.recordings import load_recording
from telltale.records import CELL_INVALID, Decoded, Values
from telltale.replay import LeakAt, Replay, encode_rows, load_timeline, replay, report
from telltale.simulate.publish import fleet_to_order, publish_fleet
from telltale.simulate.vin import is_valid

ROWS = 12


def recording(folder: Path, car: str = "car9", cells: int = 4, **columns: Sequence[Any]) -> Path:
    """Write twelve reports, 30 s apart, of a car."""
    start = np.datetime64("2019-04-16T08:00:00", "us")
    made: dict[str, Any] = {
        "ts": pa.array(start + np.arange(ROWS) * np.timedelta64(30, "s")),
        "vehicle": [car] * ROWS,
        "speed_kmh": [42.5] * ROWS,
        "pack_v": [351.2] * ROWS,
        "pack_a": [44.3] * ROWS,
        "soc_pct": [81] * ROWS,
        "alarm_level": [0, 1] * (ROWS // 2),
        "cell_v_max": [3.9] * ROWS,
        "temp_max_c": [26] * ROWS,
        "T_1": [26] * ROWS,
        "T_2": [511] * ROWS,
    }
    made |= {f"V_{cell}": [3.6 + cell / 1000] * ROWS for cell in range(1, cells + 1)}
    path = folder / f"{car}.parquet"
    parquet.write_table(pa.table(made | columns), path)
    return path


def decode(frames: list[bytes]) -> Decoded:
    decoder = decoder_for("gbt32960")
    assert decoder is not None
    return decoder.decode(Values(frames, np.zeros(len(frames), np.int64)))


@pytest.mark.unit
def test_frames_decode_to_what_was_recorded(tmp_path: Path) -> None:
    path = recording(tmp_path)
    (tally,), timeline = load_timeline(path, Replay())
    decoded = decode(timeline.values)
    ours, theirs = load_recording(path)[1].columns, decoded.reports.rows.columns
    assert not decoded.evidence and len(theirs) == ROWS == tally.read
    for name in ("observed_at", "speed_kmh", "pack_voltage_v", "pack_current_a", "soc_pct", "alarm_level"):
        assert np.allclose(ours[name].astype(float), theirs[name].astype(float), atol=0.05), name
    assert decoded.reports.rows.lists["cells_mv"].row(0).tolist() == [3601, 3602, 3603, 3604]
    assert np.isnan(theirs["insulation_kohm"]).all()
    assert set(decoded.reports.vin.tolist()) == {tally.vin.encode()} and is_valid(tally.vin)


@pytest.mark.unit
def test_a_cell_the_wire_cannot_carry_goes_as_invalid_and_its_row_is_sent(tmp_path: Path) -> None:
    _, timeline = load_timeline(recording(tmp_path, V_2=[66.535] + [3.6] * (ROWS - 1)), Replay())
    cells = decode(timeline.values).reports.rows.lists["cells_mv"]
    assert cells.row(0).tolist() == [3601, CELL_INVALID, 3603, 3604]


@pytest.mark.unit
def test_a_row_no_frame_holds_is_counted_with_column_and_reason_and_the_others_are_sent(
    tmp_path: Path,
) -> None:
    (tally,), timeline = load_timeline(recording(tmp_path, speed_kmh=[40.0] * 11 + [9_999.0]), Replay())
    assert len(timeline.values) == tally.sendable == ROWS - 1
    assert tally.refused.total() == 1 and "speed_kmh" in next(iter(tally.refused))
    said: list[str] = []
    tally.sent = tally.sendable
    assert not report([tally], said.append)
    assert said[-1] == "12 rows read, 11 frames sent, 1 rows not sent"


@pytest.mark.unit
def test_more_than_200_cells_go_in_sub_reports_of_one_time(tmp_path: Path) -> None:
    _, rows = load_recording(recording(tmp_path, cells=430))
    refused: Counter[str] = Counter()
    values, of_row = encode_rows(rows, b"L0TEVREC0KT000001", 2, refused)
    assert not refused and of_row.tolist() == [row for row in range(ROWS) for _ in range(3)]
    reports = decode(values).reports.rows
    assert reports.columns["part"][:3].tolist() == [0, 1 << 16 | 201, 1 << 16 | 401]
    assert reports.lists["cells_mv"].lengths[:3].tolist() == [200, 200, 30]
    assert np.array_equal(reports.lists["cells_mv"].values, rows.lists["cells_mv"].values)
    assert len(set(reports.columns["observed_at"].tolist())) == ROWS
    assert np.isnan(reports.columns["pack_voltage_v"][1])


@pytest.mark.unit
def test_cars_recorded_at_different_times_run_side_by_side(tmp_path: Path) -> None:
    recording(tmp_path, "car8")
    later = np.datetime64("2021-05-05T08:00:00", "us") + np.arange(ROWS) * np.timedelta64(30, "s")
    recording(tmp_path, "car9", ts=pa.array(later))
    tallies, timeline = load_timeline(tmp_path, Replay())
    assert timeline.car.tolist() == [0, 1] * ROWS
    assert timeline.after_us.tolist() == [30_000_000 * step for step in range(ROWS) for _ in range(2)]
    assert tallies[0].vin != tallies[1].vin


@pytest.mark.unit
def test_shuffling_changes_the_order_and_nothing_else_and_is_repeatable(tmp_path: Path) -> None:
    path = recording(tmp_path)
    straight = load_timeline(path, Replay())[1].values
    mixed = load_timeline(path, Replay(shuffle=3))[1].values
    assert mixed != straight and sorted(mixed) == sorted(straight)
    assert mixed == load_timeline(path, Replay(shuffle=3))[1].values


@pytest.mark.unit
def test_a_folder_without_recordings_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=str(tmp_path)):
        load_timeline(tmp_path, Replay())


@pytest.mark.unit
def test_a_vin_prefix_outside_the_alphabet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="without I, O and Q"):
        load_timeline(recording(tmp_path), Replay(vin_prefix="L0O"))


@pytest.mark.unit
def test_a_fault_that_fits_no_vehicle_is_refused_with_the_limits() -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    with pytest.raises(SettingsError, match=r"vehicle in 0\.\.4"):
        fleet_to_order(5, 1.0, 1, 30, begin, ["leak,vehicle=5"], calm=True)
    with pytest.raises(SettingsError, match="lak"):
        fleet_to_order(5, 1.0, 1, 30, begin, ["lak"], calm=True)


async def records_of(settings: Settings, expected: int) -> list[tuple[TopicPartition, Record]]:
    """Return this many records of the two topics."""
    found: list[tuple[TopicPartition, Record]] = []

    async def from_the_beginning(partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            consumer.seek(partition, 0)

    consumer = Consumer(settings, on_assigned=from_the_beginning)
    async with consumer:
        for _ in range(200):
            batch = await consumer.fetch(consumer.assignment, 10_000, 100)
            found += [(partition, record) for partition, records in batch.items() for record in records]
            if len(found) >= expected:
                break
    return found


async def topic_settings(kafka: str, topics: Any) -> Settings:
    live, backlog = await topics(3)
    return Settings(
        kafka=kafka, live_topic=live, backlog_topic=backlog, consumer_group=live, session_timeout_s=6
    )


async def test_realtime_reports_reach_the_live_topic_keyed_by_vin_in_order(
    kafka: str, topics: Any, tmp_path: Path
) -> None:
    settings = await topic_settings(kafka, topics)
    recording(tmp_path, "car8")
    recording(tmp_path, "car9")
    tallies = await replay(settings, tmp_path, Replay(speed=3_000.0))
    assert report(tallies, lambda _: None)
    found = await records_of(settings, 2 * ROWS)
    assert len(found) == 2 * ROWS and {partition.topic for partition, _ in found} == {settings.live_topic}
    for tally in tallies:
        values = [record.value or b"" for _, record in found if record.key == tally.vin.encode()]
        observed = decode(values).reports.rows.columns["observed_at"]
        assert len(values) == ROWS and (np.diff(observed) > 0).all()
    assert {dict(record.headers)["protocol"] for _, record in found} == {b"gbt32960"}


async def test_reissued_reports_reach_the_backlog_topic_over_all_partitions(
    kafka: str, topics: Any, tmp_path: Path
) -> None:
    settings = await topic_settings(kafka, topics)
    await replay(settings, recording(tmp_path), Replay(reissued=True, shuffle=1, split_partitions=True))
    found = await records_of(settings, ROWS)
    assert len(found) == ROWS and {(record.value or b"")[2] for _, record in found} == {3}
    assert {partition for partition, _ in found} == {
        TopicPartition(settings.backlog_topic, number) for number in range(3)
    }


async def test_replay_without_the_topics_says_which_are_missing(kafka: str, tmp_path: Path) -> None:
    settings = Settings(kafka=kafka, live_topic="not.made.live", backlog_topic="not.made.backlog")
    with pytest.raises(SettingsError, match=r"not\.made\.backlog, not\.made\.live"):
        await replay(settings, recording(tmp_path), Replay())


async def test_a_simulated_fleet_reaches_both_topics(kafka: str, topics: Any) -> None:
    settings = await topic_settings(kafka, topics)
    spec = fleet_to_order(20, 0.5, 1, 120, datetime(2026, 3, 1, tzinfo=UTC), [], calm=False)
    sent = await publish_fleet(settings, spec)
    assert sent.live > 500
    found = await records_of(settings, sent.live + sent.backlog)
    by_topic = Counter(partition.topic for partition, _ in found)
    assert by_topic[settings.live_topic] == sent.live
    assert by_topic[settings.backlog_topic] == sent.backlog


@pytest.mark.unit
def test_a_leak_put_into_a_recording_makes_it_another_vehicle_whose_cell_sags(tmp_path: Path) -> None:
    days = np.datetime64("2019-04-16T08:00:00", "us") + np.arange(ROWS) * np.timedelta64(86_400, "s")
    path = recording(tmp_path, ts=pa.array(days), pack_a=[0.0] * ROWS)
    (plain,), straight = load_timeline(path, Replay())
    (leaking,), injected = load_timeline(path, Replay(leak=LeakAt(2, mv=40.0, day=10.0)))
    assert leaking.vin != plain.vin and is_valid(leaking.vin)
    before, after = (decode(t.values).reports.rows.lists["cells_mv"] for t in (straight, injected))
    sags = [before.row(day).astype(int) - after.row(day).astype(int) for day in (0, 10)]
    assert sags[0].tolist() == [0, 0, 0, 0]
    assert sags[1][[0, 2, 3]].tolist() == [0, 0, 0] and abs(int(sags[1][1]) - 40) <= 1


@pytest.mark.unit
def test_a_leak_in_a_cell_the_car_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cells 1 to 4"):
        load_timeline(recording(tmp_path), Replay(leak=LeakAt(5)))


async def test_a_broker_that_is_gone_is_named(tmp_path: Path) -> None:
    broker = tmp_path / "broker"
    broker.mkdir()
    path = recording(tmp_path)
    with start_broker(broker) as bootstrap:
        settings = Settings(kafka=bootstrap)
        await replay(settings, path, Replay(partitions=1))
    with pytest.raises(WaitableError, match="no broker answers"):
        await replay(settings, path, Replay())
