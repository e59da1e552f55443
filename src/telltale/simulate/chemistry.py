"""Open-circuit voltage, resistance and ageing of the two chemistries the simulator knows.

Sources:
- graphite and NMC811 half-cell potentials: Chen et al., J. Electrochem. Soc. 167 (2020) 080534 (LG M50);
- LFP half-cell potential: Afshar, Morris, Khajepour, arXiv:1709.03970 (2017), against the same graphite,
  as the PyBaMM parameter set Prada2013 pairs them;
- resistance over temperature: Arrhenius, 20 kJ/mol, the middle of what is published for EV cells;
- ageing: calendar loss with the square root of time and throughput loss with exponent 0.55, after
  Wang et al., J. Power Sources 196 (2011) 3942 and Schmalstieg et al., J. Power Sources 257 (2014) 325;
  the factors are set to some 2 % a year and 1 % per 100 full cycles at 25 °C, not fitted to one cell.

The curves are of one cell type each: shapes and slopes are right for a class of cells, not to the millivolt.
No hysteresis: an LFP cell's charge and discharge curves are one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

GAS_CONSTANT = 8.314  # J/(mol K)
RESISTANCE_ACTIVATION = 20_000.0  # J/mol
AGEING_ACTIVATION = 30_000.0  # J/mol
T25 = 298.15  # K
TABLE_STEPS_PER_UNIT = 8192
TABLE_MARGIN = 0.25  # of SOC on either side of 0..1, where the curve goes on with its end slope
OVERDISCHARGE_V_PER_SOC = 15.0  # least slope below 0 % SOC: an overdischarged cell collapses


@dataclass(frozen=True, slots=True)
class Chemistry:
    """One cell chemistry: which part of each electrode is used between 0 and 100 % SOC, and how it ages."""

    name: str
    anode: tuple[float, float]  # lithium fraction at 0 % and 100 % SOC
    cathode: tuple[float, float]
    calendar_loss: float  # share of capacity after one year at 25 °C
    cycle_loss: float  # share of capacity after 100 full cycles at 25 °C
    full_v: float  # charge ends when a cell reaches this
    empty_v: float  # discharge ends when a cell falls to this


NCM = Chemistry("NCM", (0.06, 0.9014), (0.9, 0.27), 0.022, 0.010, 4.25, 2.8)
LFP = Chemistry("LFP", (0.045, 0.85), (0.96, 0.03), 0.018, 0.006, 3.65, 2.5)
CHEMISTRIES = {chemistry.name: chemistry for chemistry in (NCM, LFP)}


def graphite_v(x: Floats) -> Floats:
    """Return graphite's potential against lithium in V at lithium fraction x (Chen 2020)."""
    return (
        1.9793 * np.exp(-39.3631 * x)
        + 0.2482
        - 0.0909 * np.tanh(29.8538 * (x - 0.1234))
        - 0.04478 * np.tanh(14.9159 * (x - 0.2769))
        - 0.0205 * np.tanh(30.4444 * (x - 0.6103))
    )


def nmc_v(y: Floats) -> Floats:
    """Return NMC811's potential against lithium in V at lithium fraction y (Chen 2020)."""
    return (
        4.4875
        - 0.8090 * y
        - 0.0428 * np.tanh(18.5138 * (y - 0.5542))
        - 17.7326 * np.tanh(15.7890 * (y - 0.3117))
        + 17.5842 * np.tanh(15.9308 * (y - 0.3120))
    )


def lfp_v(y: Floats) -> Floats:
    """Return LFP's potential against lithium in V at lithium fraction y (Afshar 2017)."""
    return 3.4077 - 0.020269 * y + 0.5 * np.exp(-150 * y) - 0.9 * np.exp(-30 * (1 - y))


def _full_cell_v(chemistry: Chemistry, soc: Floats) -> Floats:
    x = chemistry.anode[0] + soc * (chemistry.anode[1] - chemistry.anode[0])
    y = chemistry.cathode[0] + soc * (chemistry.cathode[1] - chemistry.cathode[0])
    return (lfp_v(y) if chemistry is LFP else nmc_v(y)) - graphite_v(x)


@cache
def _table(chemistry: Chemistry) -> NDArray[np.float32]:
    steps = round((1 + 2 * TABLE_MARGIN) * TABLE_STEPS_PER_UNIT)
    soc = np.arange(steps + 1) / TABLE_STEPS_PER_UNIT - TABLE_MARGIN
    volts = _full_cell_v(chemistry, np.clip(soc, 0.0, 1.0))
    edge = 2.0 / TABLE_STEPS_PER_UNIT
    low, high = (
        _full_cell_v(chemistry, np.array([0.0, edge])),
        _full_cell_v(chemistry, np.array([1 - edge, 1.0])),
    )
    volts += np.minimum(soc, 0.0) * np.maximum((low[1] - low[0]) / edge, OVERDISCHARGE_V_PER_SOC)
    volts += np.maximum(soc - 1.0, 0.0) * (high[1] - high[0]) / edge
    return np.maximum(volts, 0.0).astype(np.float32)


def ocv_v(chemistry: Chemistry, soc: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the open-circuit voltage in V at this SOC (0..1); outside, the end slopes go on, down to 0 V.

    A table of 1/8192 SOC read at the nearest entry: less than 0.2 mV off, and fast enough for every cell.
    """
    table = _table(chemistry)
    index = (np.asarray(soc, np.float32) + np.float32(TABLE_MARGIN)) * np.float32(TABLE_STEPS_PER_UNIT)
    index += np.float32(0.5)
    np.clip(index, 0, len(table) - 1, out=index)
    return table.take(index.astype(np.int32))


def soc_of_ocv(chemistry: Chemistry, volts: Floats) -> NDArray[np.float64]:
    """Return the SOC (0..1) at which a rested cell shows this voltage in V; ends are clipped."""
    table = _table(chemistry).astype(np.float64)
    soc = np.arange(len(table)) / TABLE_STEPS_PER_UNIT - TABLE_MARGIN
    inside = (soc >= 0) & (soc <= 1)
    return np.interp(volts, table[inside], soc[inside])


def resistance_factor(degc: Floats) -> Floats:
    """Return resistance relative to 25 °C."""
    kelvin = np.asarray(degc) + 273.15
    return np.exp(RESISTANCE_ACTIVATION / GAS_CONSTANT * (1 / kelvin - 1 / T25))


def capacity_factor(chemistry: Chemistry, years: Floats, full_cycles: Floats, mean_degc: Floats) -> Floats:
    """Return capacity relative to new after so many years and full cycles at this mean temperature."""
    heat = np.exp(AGEING_ACTIVATION / GAS_CONSTANT * (1 / T25 - 1 / (np.asarray(mean_degc) + 273.15)))
    calendar = chemistry.calendar_loss * np.sqrt(years)
    cycles = chemistry.cycle_loss * (np.asarray(full_cycles) / 100) ** 0.55
    return np.maximum(1 - heat * (calendar + cycles), 0.3)


def growth_of_resistance(capacity: Floats) -> Floats:
    """Return resistance relative to new at this relative capacity: it grows by 1.5 % per 1 % lost."""
    return 1 + 1.5 * (1 - np.asarray(capacity))
