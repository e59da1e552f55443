"""Put an internal leak into recorded rows: what the cell would have shown had it leaked.

An internal short of high resistance draws a current from one cell all the time, parked or not. The cell's
SOC falls behind its neighbours' by the charge drawn over its capacity, and its voltage by the difference of
the open-circuit curve between the two SOCs, at rest and in use alike.

Not modelled: balancing (a recording does not say when it balanced), the ohmic drop of the leak itself
(40 mA across 1 mΩ is 0.04 mV) and its heat (0.15 W).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from telltale.errors import TelltaleError
from telltale.records import CELL_ABNORMAL, Ragged, Rows
from telltale.simulate.chemistry import NCM, Chemistry, ocv_v

DAY_US = 86_400_000_000
HOURS_PER_DAY = 24.0
REST_CURRENT_A = 1.0


@dataclass(frozen=True, slots=True)
class Leak:
    """An internal leak current from one time on: constant, or rising by the day."""

    start_us: int
    ma: float
    ma_per_day: float = 0.0

    def drawn_ah(self, at_us: NDArray[np.int64] | int) -> NDArray[np.float64]:
        """Return the charge in Ah drawn from the cell since the leak began; 0 before."""
        days = np.maximum(np.asarray(at_us, np.float64) - self.start_us, 0.0) / DAY_US
        return HOURS_PER_DAY / 1000 * (self.ma * days + self.ma_per_day * days * days / 2)


def inject_leak(rows: Rows, cell: int, leak: Leak, *, capacity_ah: float, chemistry: Chemistry = NCM) -> Rows:
    """Return these rows of one vehicle as they would be had this cell (from 1) leaked.

    Cell voltages, pack and subsystem voltage and the lowest-cell columns change; wire markers stay, no
    voltage falls below 0, all is rounded as the wire rounds. Rows without this cell or without SOC stay.
    The shift is judged on the published curve of the chemistry at the row's SOC.
    """
    lag = leak.drawn_ah(rows.columns["observed_at"]) / capacity_ah
    return _shift_cell(rows, cell, sag_v(rows.columns["soc_pct"], lag, chemistry))


def inject_leak_deviation(
    rows: Rows,
    cell: int,
    target_mv: float,
    target_day: float,
    start_us: int,
    *,
    capacity_ah: float = 150.0,
    chemistry: Chemistry = NCM,
) -> Rows:
    """Return `inject_leak` of the constant leak that shows `target_mv` at rest `target_day` days later.

    "At rest" is at the median SOC of the recording's resting rows (|I| < 1 A), so that one row taken on a
    flat or steep part of the curve does not set the current.
    """
    leak = leak_for_deviation(
        rows, target_mv, target_day, start_us, capacity_ah=capacity_ah, chemistry=chemistry
    )
    return inject_leak(rows, cell, leak, capacity_ah=capacity_ah, chemistry=chemistry)


def leak_for_deviation(
    rows: Rows,
    target_mv: float,
    target_day: float,
    start_us: int,
    *,
    capacity_ah: float = 150.0,
    chemistry: Chemistry = NCM,
) -> Leak:
    """Return the constant leak whose cell stands `target_mv` below its neighbours at rest on that day."""
    lag = _lag_for_sag(_resting_soc_pct(rows), target_mv / 1000, chemistry)
    return Leak(start_us, lag * capacity_ah * 1000 / (HOURS_PER_DAY * target_day))


def sag_v(
    soc_pct: NDArray[np.floating], lag: NDArray[np.floating], chemistry: Chemistry
) -> NDArray[np.float64]:
    """Return how far in V a cell stands below a neighbour at `soc_pct` when its SOC (0..1) lags by `lag`."""
    soc = np.nan_to_num(np.asarray(soc_pct, np.float64) / 100)
    below = ocv_v(chemistry, soc).astype(np.float64) - ocv_v(chemistry, soc - lag)
    return np.where(np.isnan(soc_pct), 0.0, below)


def _resting_soc_pct(rows: Rows) -> float:
    soc, current = rows.columns["soc_pct"], rows.columns["pack_current_a"]
    known = ~np.isnan(soc)
    resting = known & (np.abs(current) < REST_CURRENT_A)
    if not known.any():
        raise TelltaleError("inject_leak_deviation: expected rows with a state of charge, got none")
    return float(np.median(soc[resting] if resting.any() else soc[known]))


def _lag_for_sag(soc_pct: float, target_v: float, chemistry: Chemistry) -> float:
    lags = np.linspace(0.0, 1.2, 12_001)
    sags = sag_v(np.full(len(lags), soc_pct), lags, chemistry)
    reached = np.maximum.accumulate(sags) >= target_v
    if not reached.any():
        raise TelltaleError(
            f"inject_leak_deviation: a cell at {soc_pct:.0f} % SOC sags by at most {sags.max():.3f} V, "
            f"expected {target_v:.3f} V; choose a smaller deviation"
        )
    return float(lags[int(np.argmax(reached))])


def _shift_cell(rows: Rows, cell: int, sag: NDArray[np.float64]) -> Rows:
    cells = rows.lists["cells_mv"]
    has = cells.lengths >= cell
    at = np.where(has, cells.offsets[:-1] + cell - 1, 0)
    before = cells.values[at].astype(np.int64) if len(cells.values) else np.zeros(len(rows), np.int64)
    has &= before < CELL_ABNORMAL
    after = np.where(has, np.maximum(before - np.rint(sag * 1000).astype(np.int64), 0), before)
    values = cells.values.copy()
    values[at[has]] = after[has]
    lowered = np.where(has, (before - after) / 1000, 0.0)
    lists = rows.lists | {"cells_mv": Ragged(values, cells.offsets)}
    shifted = replace(rows, columns=_lower_pack(rows, cell, lowered, after, has), lists=lists)
    return _lower_subsystem(shifted, lowered)


def _lower_pack(
    rows: Rows, cell: int, lowered: NDArray[np.float64], cell_mv: NDArray[np.int64], has: NDArray[np.bool_]
) -> NDArray[np.void]:
    columns = rows.columns.copy()
    columns["pack_voltage_v"] = np.round(columns["pack_voltage_v"].astype(np.float64) - lowered, 1)
    is_lowest = has & (lowered > 0) & (cell_mv / 1000 < columns["cell_voltage_min_v"])
    columns["cell_voltage_min_v"][is_lowest] = cell_mv[is_lowest] / 1000
    named = is_lowest & (columns["cell_voltage_min_cell"] > 0)
    columns["cell_voltage_min_cell"][named] = cell
    return columns


def _lower_subsystem(rows: Rows, lowered: NDArray[np.float64]) -> Rows:
    subsystems = rows.lists.get("subsystems")
    if subsystems is None or not len(subsystems.values):
        return rows
    one = subsystems.lengths == 1
    values = subsystems.values.copy()
    at = subsystems.offsets[:-1][one]
    known = values["voltage_dv"][at] >= 0
    values["voltage_dv"][at[known]] -= np.rint(lowered[one][known] * 10).astype(values["voltage_dv"].dtype)
    return replace(rows, lists=rows.lists | {"subsystems": Ragged(values, subsystems.offsets)})
