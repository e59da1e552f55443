"""Faults as an operator writes them, and what the fleet makes of the specification."""

from dataclasses import replace

import numpy as np
import pytest

from telltale.decode import decoder_for
from telltale.errors import SettingsError
from telltale.records import Values
from telltale.simulate import Fault, FaultKind, FleetSpec, simulate
from telltale.simulate.spec import DAY_S, US, VARIANTS, parse_fault
from telltale.simulate.transit import encode

pytestmark = pytest.mark.unit

START = 1_790_000_000 * US
SPEC = FleetSpec(seed=3, vehicles=3, start_us=START, days=1, interval_s=120)


def test_a_fault_is_written_as_kind_and_numbers():
    fault = parse_fault("leak,vehicle=3,cell=17,size=40,rate=1.5,day=2", START)
    assert fault == Fault(FaultKind.LEAK, 3, START + 2 * DAY_S * US, 40.0, 1.5, 17)
    assert parse_fault("insulation,vehicle=1", START).cell == 0


@pytest.mark.parametrize("text", ["lak", "leak,cel=3", "leak,cell=x", "leak,cell"])
def test_a_fault_that_cannot_be_read_is_refused_with_the_kinds_there_are(text):
    with pytest.raises(SettingsError, match="insulation_stuck"):
        parse_fault(text, START)


def test_the_closing_days_report_more_often_and_time_never_goes_back():
    spec = replace(SPEC, vehicles=1, days=2, closing_days=1.0, closing_interval_s=30)
    at = np.concatenate([chunk.rows.columns["observed_at"] for chunk in simulate(spec)])
    steps, change = np.diff(at) // US, START + DAY_S * US
    assert (steps > 0).all()
    assert np.median(steps[at[1:] <= change]) == 120
    assert np.median(steps[at[:-1] > change]) == 30


def test_a_2025_vehicle_flags_its_thermal_event_with_level_4_and_lists_it():
    variants = tuple(replace(variant, edition=2025) for variant in VARIANTS)
    fault = Fault(FaultKind.THERMAL, 0, START + DAY_S * US // 2, cell=20)
    spec = replace(SPEC, interval_s=30, variants=variants, faults=(fault,))
    levels, listed = [], []
    for chunk in simulate(spec):
        frames = encode(chunk, 2)
        received = np.zeros(len(frames), np.int64)
        decoded = decoder_for("gbt32960").decode(Values([frame.value for frame in frames], received))
        columns = decoded.reports.rows.columns
        editions = {decoded.source_of[source].edition for source in columns["source_id"].tolist()}
        assert not decoded.evidence and editions == {2025}
        event = columns["alarm_flags"] & 1 << 23 != 0
        assert (columns["alarm_level"][event] == 4).all() and (columns["alarm_level"][~event] < 4).all()
        levels += columns["alarm_level"].tolist()
        listed += decoded.reports.rows.lists["alarm_levels"].values.tolist()
    assert levels.count(4) >= 6
    assert listed.count((23, 4)) == levels.count(4)
