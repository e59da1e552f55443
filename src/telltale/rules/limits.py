"""Every threshold of the safety rules, in one frozen place.

Sources: Ω/V limits as in the EV safety standards (ISO 6469-3, GB 18384: 100 Ω/V for DC); cell limits from
common data sheets, on the lenient side, because a cell beyond them is beyond any maker's window; times and
steps from the physics named beside them. None was fitted to a recording.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class CellLimits:
    """Voltages outside of which a cell is being harmed."""

    over_important_v: float
    over_urgent_v: float
    under_general_v: float
    under_important_v: float


# Keys are the battery type codes of GB/T 32960 static data; 0 stands for unknown, which has to be safe for
# every lithium chemistry at once: a 2.3 V lithium-titanate cell is healthy, a 4.35 V cobalt cell as well.
CHEMISTRIES: Final[Mapping[int, CellLimits]] = {
    0: CellLimits(4.50, 4.70, 2.00, 1.50),
    1: CellLimits(3.80, 4.00, 2.30, 2.00),  # LFP, charged to 3.65 V, discharged to 2.5 V (2.0 V in the cold)
    2: CellLimits(4.35, 4.50, 2.70, 2.50),  # LMO
    3: CellLimits(4.50, 4.65, 2.70, 2.50),  # LCO, up to 4.45 V in high-voltage cells
    4: CellLimits(4.45, 4.60, 2.50, 2.00),  # ternary (NCM, NCA), 4.2 V and high-voltage 4.35–4.4 V cells
    5: CellLimits(4.50, 4.65, 2.70, 2.50),  # polymer
    7: CellLimits(2.90, 3.10, 1.50, 1.20),  # LTO
    8: CellLimits(4.10, 4.30, 1.50, 1.20),  # sodium-ion
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Thresholds of all rules. Times are seconds of observed time."""

    gap_s: float = 60.0  # a longer silence is no observation: it adds to no dwell
    window_points: int = 12  # rows of the main value kept beside a condition

    insulation_urgent_ohm_per_v: float = 100.0
    insulation_important_ohm_per_v: float = 500.0
    insulation_hold_ohm_per_v: float = 600.0  # an alert ends above this
    high_voltage_v: float = 60.0  # DC above this is dangerous to touch (ISO 6469-3); below, the bus is off

    cells: Mapping[int, CellLimits] = field(default_factory=lambda: CHEMISTRIES)
    cell_over_hold_v: float = 0.05
    cell_under_hold_v: float = 0.10
    cell_charge_urgent_v: float = 1.5  # copper dissolves below; charging such a cell grows a short
    cell_charge_current_a: float = 1.0
    cell_impossible_v: float = 5.5  # no cell of any chemistry shows this: the measurement is lost
    cells_are_pack: int = 3  # more cells than this at once are the pack's affair

    probe_hot_degc: float = 60.0  # above what any maker lets a lithium pack reach in use
    probe_hold_degc: float = 50.0
    step_degc: float = 10.0  # in at most a minute; fast charging heats a pack by 1–2 °C a minute
    cell_collapse_v: float = 0.5  # one cell, more than its neighbours, in at most a minute
    pack_collapse_share: float = 0.2  # of the pack's voltage; load alone takes some 10 %
    cell_spread_v: float = 1.0
    contradiction_v: float = 0.5  # extremes against the list; groups refreshed in turn differ by 0.1 V
    contradiction_degc: float = 10.0

    moving_kmh: float = 5.0
    drive_moving_kmh: float = 10.0


DEFAULT: Final = Limits()
