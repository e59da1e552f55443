"""Injected leaks: the analytic deviation, at rest and in use, on the wire's grid."""

import numpy as np
import pytest

from telltale.errors import TelltaleError
from telltale.records import CELL, CELL_INVALID, REPORT_COLUMNS, SUBSYSTEM, Ragged, Rows, nulls
from telltale.simulate import Leak, inject_leak, inject_leak_deviation
from telltale.simulate.chemistry import NCM, ocv_v
from telltale.simulate.inject import DAY_US

pytestmark = pytest.mark.unit

START = 1_700_000_000_000_000
CELLS = 8


def recorded(days: int, soc_pct: float = 60.0) -> Rows:
    """Return one row an hour of a resting pack of eight equal cells."""
    count = days * 24 + 1
    columns = nulls(REPORT_COLUMNS, count)
    columns["observed_at"] = START + np.arange(count) * DAY_US // 24
    columns["soc_pct"], columns["pack_current_a"] = soc_pct, 0.0
    mv = round(float(ocv_v(NCM, np.array([soc_pct / 100]))[0]) * 1000)
    columns["pack_voltage_v"] = round(CELLS * mv / 1000, 1)
    columns["cell_voltage_min_v"] = mv / 1000
    subsystems = np.zeros(count, SUBSYSTEM)
    subsystems["voltage_dv"] = round(CELLS * mv / 100)
    return Rows(
        columns,
        {
            "cells_mv": Ragged(np.full(count * CELLS, mv, CELL), np.arange(count + 1) * CELLS),
            "subsystems": Ragged(subsystems, np.arange(count + 1)),
        },
    )


def cell_of(rows: Rows, cell: int) -> np.ndarray:
    return rows.lists["cells_mv"].values.reshape(-1, CELLS)[:, cell - 1].astype(int)


def test_drawn_charge_is_the_integral_of_the_leak():
    leak = Leak(START, ma=20.0, ma_per_day=2.0)
    at = START + np.array([-5, 0, 1, 10]) * DAY_US
    assert np.allclose(leak.drawn_ah(at), [0, 0, 24 * (20 + 1) / 1000, 24 * (200 + 100) / 1000])


def test_leak_lowers_the_cell_by_the_curve_at_its_lagging_soc():
    rows = recorded(10)
    leaked = inject_leak(rows, 3, Leak(START, ma=50.0), capacity_ah=120.0)
    lag = 50.0 * 24 * 10 / 1000 / 120.0
    expected = 1000 * float(ocv_v(NCM, np.array([0.6]))[0] - ocv_v(NCM, np.array([0.6 - lag]))[0])
    assert abs((cell_of(rows, 3) - cell_of(leaked, 3))[-1] - expected) <= 1
    assert (np.diff(cell_of(leaked, 3)) <= 0).all()


def test_only_the_leaking_cell_and_what_sums_it_up_change():
    rows = recorded(14)
    leaked = inject_leak_deviation(rows, 5, 40.0, 14.0, START)
    for cell in (1, 2, 3, 4, 6, 7, 8):
        assert (cell_of(leaked, cell) == cell_of(rows, cell)).all()
    low = cell_of(leaked, 5)[-1]
    assert leaked.columns["cell_voltage_min_v"][-1] == pytest.approx(low / 1000)
    assert leaked.columns["pack_voltage_v"][-1] == pytest.approx(
        rows.columns["pack_voltage_v"][-1] - 0.04, abs=0.06
    )
    assert (
        leaked.lists["subsystems"].values["voltage_dv"][0] == rows.lists["subsystems"].values["voltage_dv"][0]
    )
    assert leaked.columns["observed_at"] is not rows.columns["observed_at"]


def test_target_deviation_is_reached_on_the_target_day():
    rows = recorded(20)
    leaked = inject_leak_deviation(rows, 2, 40.0, 14.0, START)
    deviation = cell_of(rows, 2) - cell_of(leaked, 2)
    assert deviation[0] == 0
    assert abs(deviation[14 * 24] - 40) <= 1
    assert 15 < deviation[7 * 24] < 25


def test_rows_before_the_leak_are_untouched():
    rows = recorded(10)
    leaked = inject_leak_deviation(rows, 2, 40.0, 5.0, START + 5 * DAY_US)
    assert (cell_of(leaked, 2)[: 5 * 24] == cell_of(rows, 2)[: 5 * 24]).all()
    assert cell_of(leaked, 2)[-1] < cell_of(rows, 2)[-1]


def test_markers_stay_markers_and_no_voltage_falls_below_zero():
    rows = recorded(10)
    rows.lists["cells_mv"].values[1] = CELL_INVALID
    leaked = inject_leak(rows, 2, Leak(START, ma=5_000.0), capacity_ah=50.0)
    assert cell_of(leaked, 2)[0] == CELL_INVALID
    assert cell_of(leaked, 2)[-1] == 0


def test_a_deviation_no_cell_can_show_is_refused_with_the_reason():
    with pytest.raises(TelltaleError, match="sags by at most"):
        inject_leak_deviation(recorded(2), 1, 9_000.0, 14.0, START)
