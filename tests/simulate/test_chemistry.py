"""The curves of the chemistries: monotone, in the range of real cells, and invertible."""

import numpy as np
import pytest

from telltale.simulate.chemistry import (
    LFP,
    NCM,
    capacity_factor,
    growth_of_resistance,
    ocv_v,
    resistance_factor,
    soc_of_ocv,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("chemistry", [NCM, LFP], ids=lambda c: c.name)
def test_open_circuit_voltage_rises_with_charge_everywhere(chemistry):
    volts = ocv_v(chemistry, np.linspace(0, 1, 4097))
    assert (np.diff(volts) > 0).all()


def test_open_circuit_voltages_are_those_of_real_cells():
    half, full = ocv_v(NCM, np.array([0.5, 1.0]))
    assert 3.6 < half < 3.8 and 4.1 < full < 4.25
    plateau = ocv_v(LFP, np.linspace(0.3, 0.95, 100))
    assert plateau.min() > 3.15 and plateau.max() < 3.4


def test_soc_of_ocv_inverts_the_curve():
    soc = np.linspace(0.02, 0.98, 50)
    assert np.allclose(soc_of_ocv(NCM, ocv_v(NCM, soc)), soc, atol=2e-3)


def test_an_overdischarged_cell_falls_towards_zero_and_not_below():
    volts = ocv_v(LFP, np.array([0.0, -0.05, -0.1, -5.0]))
    assert (np.diff(volts) <= 0).all() and volts[-1] >= 0


def test_cold_cells_resist_more_and_aged_cells_hold_less():
    assert resistance_factor(np.array([-10.0]))[0] > 2 > 1 > resistance_factor(np.array([40.0]))[0]
    young, old = capacity_factor(NCM, np.array([1.0, 5.0]), np.array([60.0, 300.0]), np.array([25.0, 25.0]))
    assert 0.7 < old < young < 1
    assert growth_of_resistance(np.array([old]))[0] > 1
