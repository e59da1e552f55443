"""What to simulate: the fleet, its faults and its troubles, as plain frozen data."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from telltale.errors import SettingsError

DAY_S = 86_400
US = 1_000_000


@dataclass(frozen=True, slots=True)
class Variant:
    """One model of vehicle with its pack. Cells are series groups (minimum parallel units)."""

    name: str
    pack_design: str
    chemistry: str
    cells: int
    probes: int
    capacity_ah: float
    cell_mohm: float  # ohmic, new, at 25 °C
    cell_rc_mohm: float  # the slow part, one RC element
    heat_capacity_kj_k: float  # of the whole pack
    vehicle_kg: float
    drag_area_m2: float  # drag coefficient times frontal area
    edition: int = 2016
    share: float = 1.0  # of the fleet, relative


VARIANTS = (
    Variant("Sedan 400", "P96-NCM", "NCM", 96, 24, 150.0, 0.75, 0.45, 380.0, 1_780.0, 0.62, share=0.5),
    Variant("City 300", "P88-NCM", "NCM", 88, 19, 120.0, 0.95, 0.55, 300.0, 1_480.0, 0.66, share=0.2),
    Variant("Sedan LFP", "P104-LFP", "LFP", 104, 26, 202.0, 0.60, 0.50, 520.0, 1_860.0, 0.62, share=0.3),
)


@dataclass(frozen=True, slots=True)
class Region:
    """A climate: January and July mean temperatures (climate normals 1991-2020, rounded), day-night swing."""

    name: str
    january_degc: float
    july_degc: float
    swing_k: float


REGIONS = (
    Region("Harbin", -17.5, 23.5, 10.0),
    Region("Beijing", -2.5, 27.0, 10.0),
    Region("Shanghai", 5.0, 29.0, 7.0),
    Region("Chengdu", 6.0, 26.0, 7.0),
    Region("Guangzhou", 14.0, 29.0, 7.0),
)


class FaultKind(StrEnum):
    """Faults with physics, and sensors that lie. What `size` and `rate_per_day` mean stands beside each."""

    LEAK = "leak"  # internal leak of one cell: size mA, rising by rate mA a day
    RESISTANCE = "resistance"  # a cell's resistance grows by rate (share of new) a day, from size
    LOOSE = "loose"  # a connection beside one cell: bursts of size mΩ while driving
    WEAK = "weak"  # a cell holds size (share) less than its neighbours, and stays so
    INSULATION = "insulation"  # falls e-fold rate times a day, to size kΩ at the lowest
    COOLING = "cooling"  # size (share) of active cooling is lost
    THERMAL = "thermal"  # thermal runaway beginning at one cell
    CELL_OFFSET = "cell_offset"  # the sensor of one cell reads size mV too low
    INSULATION_STUCK = "insulation_stuck"  # the insulation sensor reads size kΩ whatever is the case


PACK_WIDE = frozenset((FaultKind.INSULATION, FaultKind.COOLING, FaultKind.INSULATION_STUCK))


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one vehicle (index from 0), from one time on."""

    kind: FaultKind
    vehicle: int
    start_us: int
    size: float = 0.0
    rate_per_day: float = 0.0
    cell: int = 0  # from 1; 0 where the fault has no cell


def parse_fault(text: str, start_us: int) -> Fault:
    """Return the fault of `kind,vehicle=3,cell=17,size=40,rate=1,day=2`; all but kind may be left out.

    `day` counts from `start_us`. Raises SettingsError naming what does not fit.
    """
    kind, *pairs = text.split(",")
    numbers = {"vehicle": 0.0, "cell": 1.0, "size": 0.0, "rate": 0.0, "day": 0.0}
    try:
        for pair in pairs:
            name, _, value = pair.partition("=")
            if name not in numbers:
                raise ValueError(f"{name} is none of {', '.join(numbers)}")
            numbers[name] = float(value)
        begins = start_us + round(numbers["day"] * DAY_S * US)
        cell = 0 if kind in PACK_WIDE else int(numbers["cell"])
        return Fault(FaultKind(kind), int(numbers["vehicle"]), begins, numbers["size"], numbers["rate"], cell)
    except ValueError as error:
        kinds = ", ".join(FaultKind)
        raise SettingsError(f"fault {text!r}: {error}; expected KIND,vehicle=…,cell=… of {kinds}") from error


@dataclass(frozen=True, slots=True)
class Trouble:
    """What the way from vehicle to topic does to frames. Shares are of frames unless told otherwise."""

    duplicated: float = 0.0
    late: float = 0.0  # handed over after frames that are newer
    broken: float = 0.0  # a flipped or a missing byte: the reading is lost to the dead letters
    markers: float = 0.0  # of reports: one cell sent as invalid or abnormal
    offline: float = 0.0  # of vehicle hours: no network; reports follow as 0x03 once it is back
    silent: float = 0.0  # of vehicles: stop sending for good half-way

    @property
    def any_in_transit(self) -> bool:
        """Tell whether frames are touched on their way."""
        return any((self.duplicated, self.late, self.broken, self.offline))


NO_TROUBLE = Trouble()
COMMON_TROUBLE = Trouble(duplicated=0.002, late=0.01, broken=0.0002, markers=0.002, offline=0.02, silent=0.01)


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """A fleet and the days to simulate. The same spec gives the same bytes."""

    seed: int
    vehicles: int
    start_us: int
    days: float
    interval_s: int = 30
    variants: tuple[Variant, ...] = VARIANTS
    regions: tuple[Region, ...] = REGIONS
    dealers: int = 6
    lots: int = 8
    taxi_share: float = 0.25
    oldest_years: float = 5.0
    faults: tuple[Fault, ...] = ()
    trouble: Trouble = field(default=NO_TROUBLE)
    closing_days: float = 0.0  # the last days report at `closing_interval_s`: a long past, a dense present
    closing_interval_s: int = 30

    @property
    def end_us(self) -> int:
        """Return the first instant that is no longer simulated."""
        return self.start_us + round(self.days * DAY_S * US)
