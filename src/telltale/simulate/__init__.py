"""A deterministic fleet, cell by cell: healthy, faulty and troublesome vehicles to order.

Modelled
    Cells: open-circuit voltage over SOC per chemistry, ohmic resistance and one RC element, Arrhenius over
    temperature; spread of capacity, resistance and top-of-charge SOC, with production lots; self-discharge,
    passive balancing as a mean current. Ageing: capacity over calendar and cycles, resistance with it.
    Pack: one lumped thermal mass with Joule heat, passive and active cooling, a heater for cold charging;
    probes with place, offset and noise. Vehicle: longitudinal dynamics about a wandering speed, regeneration,
    climate load; commuters and taxis; AC and DC charging with taper; season, hour and weather of a region.
    Faults: see `spec.FaultKind`; troubles on the way: see `spec.Trouble`. Measurement: BMS noise, then the
    wire's grid (1 mV, 1 °C, 0.1 V, 0.1 A, 1 % SOC), alarms by thresholds with a few spurious ones.

Not modelled
    LFP hysteresis; diffusion slower than the one RC element (a minute), so rests relax fast; temperature
    differences between cells; current between reports (a step has one current); balancing as events; SOC
    estimation errors of the BMS; lithium plating and knees of ageing; the 1 Hz reports around alarms that
    the standard asks for; positions; sub-packs and packs of more than 200 cells. A thermal runaway is a
    scripted course (voltage, temperature, spread), not a reaction model.

Sources stand where they are used: `chemistry` (curves, ageing), `fleet` (spreads), `spec` (climate).
"""

from telltale.simulate.demo import DemoFleet, demo_fleet
from telltale.simulate.inject import Leak, inject_leak, inject_leak_deviation, leak_for_deviation
from telltale.simulate.measure import Chunk
from telltale.simulate.run import SimulatedFleet, simulate
from telltale.simulate.spec import COMMON_TROUBLE, Fault, FaultKind, FleetSpec, Trouble, Variant
from telltale.simulate.transit import Frame, Outgoing, Transit, messages, start_transit

__all__ = [
    "COMMON_TROUBLE",
    "Chunk",
    "DemoFleet",
    "Fault",
    "FaultKind",
    "FleetSpec",
    "Frame",
    "Leak",
    "Outgoing",
    "SimulatedFleet",
    "Transit",
    "Trouble",
    "Variant",
    "demo_fleet",
    "inject_leak",
    "inject_leak_deviation",
    "leak_for_deviation",
    "messages",
    "simulate",
    "start_transit",
]
