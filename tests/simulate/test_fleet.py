"""The simulated fleet: determinism, conserved charge, plausible heat, and faults that look like faults."""

from dataclasses import replace

import numpy as np
import pytest

from telltale.simulate import Fault, FaultKind, FleetSpec, Leak, simulate
from telltale.simulate.chemistry import NCM, ocv_v
from telltale.simulate.fleet import attributes, draw_fleet, truth
from telltale.simulate.packs import CHARGING, DRIVING, SELF_DISCHARGE_PER_HOUR, start_packs
from telltale.simulate.run import SimulatedFleet
from telltale.simulate.spec import DAY_S, US, VARIANTS
from telltale.simulate.vin import is_valid
from telltale.store.vehicles import COLUMNS

pytestmark = pytest.mark.unit

START = 1_790_000_000 * US
NCM_ONLY = (replace(VARIANTS[0], share=1.0),)
SMALL = FleetSpec(seed=3, vehicles=6, start_us=START, days=2, interval_s=180)


def history(spec):
    """Return the columns and the cells in mV of every report of a one-variant fleet, with the vehicle."""
    chunks = list(simulate(spec))
    columns = np.concatenate([chunk.rows.columns for chunk in chunks])
    cells = [chunk.rows.lists["cells_mv"].values.reshape(len(chunk), -1).astype(int) for chunk in chunks]
    return columns, np.concatenate(cells), np.concatenate([chunk.vehicle for chunk in chunks])


def deviation_at_rest(columns, cells, cell):
    """Return per resting row how far in mV the cell stands below the median, with the row's time in days."""
    rest = (np.abs(columns["pack_current_a"]) < 1) & (columns["soc_pct"] > 30)
    below = np.median(cells[rest], axis=1) - cells[rest, cell - 1]
    return (columns["observed_at"][rest] - START) / (DAY_S * US), below


def test_same_seed_gives_the_same_reports_and_another_seed_others():
    def fingerprint(spec):
        columns, cells = [], []
        for chunk in simulate(spec):
            columns.append(chunk.rows.columns.tobytes() + chunk.vin.tobytes())
            cells.append(chunk.rows.lists["cells_mv"].values.tobytes())
        return b"".join(columns), b"".join(cells)

    short = replace(SMALL, days=0.7)
    first = fingerprint(short)
    assert first == fingerprint(short)
    assert first != fingerprint(replace(short, seed=4))


def test_every_vehicle_reports_in_time_order_and_never_twice_at_one_time():
    last = {}
    for chunk in simulate(SMALL):
        for vin, at in zip(chunk.vin.tolist(), chunk.rows.columns["observed_at"].tolist(), strict=True):
            assert at > last.get(vin, 0)
            assert at % US == 0
            last[vin] = at
    assert len(last) == SMALL.vehicles
    assert all(is_valid(vin.decode()) for vin in last)


def test_charge_is_conserved():
    packs = start_packs(draw_fleet(replace(SMALL, vehicles=20)))
    before, moved_ah, hours = packs.state["soc"].copy(), np.zeros(20), 0.0
    capacity = packs.fleet.of_variant("capacity_ah") * packs.state["capacity"]
    for _ in range(200):
        state = packs.advance(60.0)
        moved_ah += state["current_a"] * 60 / 3600
        hours += 60 / 3600
    expected = before + moved_ah / capacity - SELF_DISCHARGE_PER_HOUR * hours
    assert np.allclose(packs.state["soc"], expected, atol=1e-4)


def test_vehicles_drive_charge_and_stay_within_physical_bounds():
    packs = start_packs(draw_fleet(replace(SMALL, vehicles=30)))
    states = np.array([packs.advance(120.0).copy() for _ in range(3 * 720)])
    assert {DRIVING, CHARGING} <= set(np.unique(states["mode"]).tolist())
    assert states["soc"].min() > 0 and states["soc"].max() < 1.01
    assert states["pack_degc"].min() > -25 and states["pack_degc"].max() < 60
    assert (np.diff(states["odometer_km"], axis=0) >= 0).all()
    driving = states["mode"] == DRIVING
    km = states["odometer_km"][-1].sum() - states["odometer_km"][0].sum()
    kwh = -(states["current_a"] * driving).sum() * 350 * 120 / 3.6e6
    assert 8 < kwh / km * 100 < 25


def test_packs_cool_towards_the_air_about_them_in_winter_and_summer():
    january, july = 1_768_400_000 * US, 1_784_100_000 * US
    means = [history(replace(SMALL, variants=NCM_ONLY, start_us=at))[0] for at in (january, july)]
    cold, hot = (np.median(columns["cell_temp_min_degc"]) for columns in means)
    assert cold < 15 < hot < 50


def test_pack_voltage_is_the_sum_of_its_cells():
    columns, cells, _ = history(replace(SMALL, variants=NCM_ONLY))
    assert np.abs(cells.sum(axis=1) / 1000 - columns["pack_voltage_v"]).max() < 1.0
    assert (columns["cell_voltage_min_v"] == (cells.min(axis=1) / 1000).astype(np.float32)).all()


def test_a_leaking_cell_deviates_at_rest_as_the_drawn_charge_says():
    fault = Fault(FaultKind.LEAK, 0, START, size=60.0, cell=7)
    spec = replace(SMALL, vehicles=1, days=10, interval_s=300, variants=NCM_ONLY, faults=(fault,))
    columns, cells, _ = history(spec)
    days, below = deviation_at_rest(columns, cells, 7)
    healthy = deviation_at_rest(*history(replace(spec, faults=()))[:2], 7)[1]
    late = days > 9
    lag = (Leak(0, 60.0 - 4.0).drawn_ah(round(9.5 * DAY_S * US))) / (150.0 * 0.95)
    soc = np.array([float(np.median(columns["soc_pct"])) / 100])
    expected = 1000 * float(ocv_v(NCM, soc)[0] - ocv_v(NCM, soc - lag)[0])
    assert np.median(below[late]) == pytest.approx(expected, rel=0.6)
    assert np.median(below[late]) > 3 * abs(np.median(below[days < 2])) + 20
    assert abs(np.median(healthy)) < 15


def test_a_resistive_cell_sags_under_load_and_not_at_rest():
    fault = Fault(FaultKind.RESISTANCE, 0, START, size=3.0, cell=9)
    spec = replace(SMALL, vehicles=1, days=3, variants=NCM_ONLY, faults=(fault,))
    columns, cells, _ = history(spec)
    loaded = columns["pack_current_a"] < -50
    sag = np.median(cells[loaded], axis=1) - cells[loaded, 8]
    assert np.median(sag) > 60
    assert abs(np.median(deviation_at_rest(columns, cells, 9)[1])) < 15


def test_a_thermal_runaway_collapses_a_cell_heats_a_probe_raises_level_3_and_ends_the_vehicle():
    simulated = SimulatedFleet(draw_fleet(replace(SMALL, vehicles=3, days=0.01, variants=NCM_ONLY)))
    list(simulated.history())
    now = simulated.fleet.spec.end_us
    simulated.add_fault(Fault(FaultKind.THERMAL, 1, now + 10 * US, cell=40))
    seen = []
    for second in range(0, 400, 5):
        for chunk in simulated.report(now + second * US, 5.0):
            cells = chunk.rows.lists["cells_mv"]
            seen += [
                (second, chunk.rows.columns[row], cells.row(row)[39])
                for row in np.nonzero(chunk.vehicle == 1)[0]
            ]
    before = [(columns, mv) for second, columns, mv in seen if second < 10]
    burning = [(columns, mv) for second, columns, mv in seen if second >= 60]
    assert all(columns["alarm_level"] < 3 and mv > 3_000 for columns, mv in before)
    assert all(columns["alarm_level"] == 3 and columns["alarm_flags"] & 2 for columns, _ in burning)
    assert all(mv < 100 and columns["cell_temp_max_degc"] > 150 for columns, mv in burning)
    assert max(second for second, _, _ in seen) < 260


def test_insulation_falls_until_the_alarm_and_a_stuck_sensor_never_moves():
    faults = (
        Fault(FaultKind.INSULATION, 0, START + DAY_S * US, size=10.0, rate_per_day=9.0),
        Fault(FaultKind.INSULATION_STUCK, 1, START, size=5.0),
    )
    columns, _, vehicle = history(replace(SMALL, vehicles=2, variants=NCM_ONLY, faults=faults))
    falling = columns[vehicle == 0]
    assert falling["insulation_kohm"][0] > 500 and falling["insulation_kohm"][-1] < 35
    assert falling["alarm_level"][-1] == 3 and falling["alarm_flags"][-1] & 1 << 11
    assert set(columns["insulation_kohm"][vehicle == 1]) == {5.0}


def test_a_present_without_a_read_past_goes_on_from_where_that_past_ends():
    spec = replace(SMALL, days=0.5, closing_days=0.1)
    read, skipped = SimulatedFleet(draw_fleet(spec)), SimulatedFleet(draw_fleet(spec))
    assert sum(len(chunk) for chunk in read.history()) > 0
    skipped.skip_history()
    assert read.packs.state.tobytes() == skipped.packs.state.tobytes()
    now = spec.end_us + 7 * US
    odometers = [
        np.concatenate([chunk.rows.columns["odometer_km"] for chunk in fleet.report(now, 1.0)])
        for fleet in (read, skipped)
    ]
    assert len(odometers[0]) == spec.vehicles and (odometers[0] == odometers[1]).all()


def test_live_reports_come_once_per_interval_for_every_vehicle_parked_or_not():
    simulated = SimulatedFleet(draw_fleet(replace(SMALL, vehicles=40, days=0.01)))
    list(simulated.history())
    count = np.zeros(40, int)
    for second in range(60):
        for chunk in simulated.report(simulated.fleet.spec.end_us + second * US, 10.0):
            np.add.at(count, chunk.vehicle, 1)
    assert set(count.tolist()) == {6}


def test_attributes_and_truth_name_the_vehicles_that_report():
    fault = Fault(FaultKind.LEAK, 2, START, size=40.0, cell=7)
    fleet = draw_fleet(replace(SMALL, faults=(fault,)))
    assert [row["vin"] for row in attributes(fleet)] == [vin.decode() for vin in fleet.vin]
    assert all(set(row) <= COLUMNS for row in attributes(fleet))
    assert truth(fleet)[0]["vin"] == fleet.vin[2].decode()
    assert all(row["build_date"] < row["in_service_date"] < "2026-09-30" for row in attributes(fleet))
