"""Recorded cars become report rows with every trap of the files disarmed."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from telltale.errors import SettingsError
from telltale.recordings import load_recording
from telltale.records import CELL_INVALID, PROBE_INVALID, null_of

WHOLE_FILE = pytest.mark.skipif(
    not os.environ.get("TELLTALE_TEST_DATA"), reason="TELLTALE_TEST_DATA names no folder of recordings"
)


def recording(path: Path, **columns: list[object]) -> Path:
    made = {
        "ts": pa.array([np.datetime64("2019-04-16T08:00:00", "us")] * 2),
        "vehicle": ["car9", "car9"],
        "V_1": [3.9, 0.0],
        "V_2": [4.0, 66.535],
        "temp_max_c": [26, 27],
        "T_1": [26, 511],
        "T_2": [25, 27],
    }
    parquet.write_table(pa.table(made | columns), path / "car9.parquet")
    return path / "car9.parquet"


@pytest.mark.unit
def test_local_time_of_the_file_becomes_utc(tmp_path: Path) -> None:
    name, rows = load_recording(recording(tmp_path))
    assert name == "car9"
    assert rows.columns["observed_at"].astype("M8[us]")[0] == np.datetime64("2019-04-16T00:00:00")


@pytest.mark.unit
def test_a_cell_no_wire_word_holds_is_invalid_and_a_cell_at_zero_is_kept(tmp_path: Path) -> None:
    _, rows = load_recording(recording(tmp_path))
    assert rows.lists["cells_mv"].row(1).tolist() == [0, CELL_INVALID]


@pytest.mark.unit
@pytest.mark.parametrize("wire_offset", [0, 40])
def test_probes_are_celsius_whether_the_file_holds_celsius_or_wire_codes(
    tmp_path: Path, wire_offset: int
) -> None:
    path = recording(tmp_path, T_1=[26 + wire_offset, 511], T_2=[25 + wire_offset, 27 + wire_offset])
    _, rows = load_recording(path)
    assert rows.lists["probes_ddegc"].row(0).tolist() == [260, 250]
    assert rows.lists["probes_ddegc"].row(1).tolist() == [PROBE_INVALID, 270]


@pytest.mark.unit
def test_discharge_is_negative_once_stored(tmp_path: Path) -> None:
    _, rows = load_recording(recording(tmp_path, pack_a=[12.5, -3.0]))
    assert rows.columns["pack_current_a"].tolist() == [-12.5, 3.0]


@pytest.mark.unit
def test_an_odometer_of_zero_and_a_missing_column_are_null(tmp_path: Path) -> None:
    _, rows = load_recording(recording(tmp_path, odo_km=[0, 5]))
    assert np.isnan(rows.columns["odometer_km"][0]) and rows.columns["odometer_km"][1] == 5
    assert rows.columns["alarm_level"][0] == null_of(np.dtype("i2"))


@pytest.mark.unit
def test_a_file_that_is_no_recording_is_refused_with_the_columns_it_lacks(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"ts": [1]}), tmp_path / "x.parquet")
    with pytest.raises(SettingsError, match=r"without \['V_1', 'vehicle'\]"):
        load_recording(tmp_path / "x.parquet")


@WHOLE_FILE
@pytest.mark.parametrize(("car", "reports"), [("car1", 66_666), ("car2", 7_256), ("car4", 14_890)])
def test_every_recorded_row_is_loaded_with_plausible_probes(car: str, reports: int) -> None:
    folder = Path(os.environ["TELLTALE_TEST_DATA"]) / "ev_cell_faults"
    name, rows = load_recording(folder / f"{car}.parquet")
    probes = rows.lists["probes_ddegc"].values
    probes = probes[probes != PROBE_INVALID]
    assert (name, len(rows)) == (car, reports)
    assert probes.min() >= 80 and probes.max() <= 430
