"""The model card as text, from `model.json`: numbers are never typed twice."""

from __future__ import annotations

from typing import Any

from telltale.boosting import Card


def readme(card: Card) -> str:
    """Return README.md of the `cell_fault` model."""
    histories = "\n".join(f"| {kind} | {count} |" for kind, count in card.data["histories"].items())
    metrics = "\n".join(_metric(name, value) for name, value in card.metrics.items())
    digests = "\n".join(f"- `{name}` sha256 `{digest}`" for name, digest in card.data["recordings"].items())
    return TEXT.format(
        card=card, histories=histories, metrics=metrics, digests=digests, rows=card.data["rows"],
        positive=card.data["positive_rows"], seed=card.parameters["training_seed"],
        libraries=", ".join(f"{name} {version}" for name, version in card.libraries.items()),
        cells=card.domain["least_cells"], days=card.domain["least_rest_days_of_28"],
        span=card.domain["least_span_days_at_same_soc"],
    )  # fmt: skip


def _metric(name: str, value: dict[str, Any]) -> str:
    exact = {key: f"{value[key]:.4g}" for key in ("value", "low", "high")}
    return f"| {name.replace('_', ' ')} | {exact['value']} | {exact['low']} to {exact['high']} |"


TEXT = """# cell_fault {card.version}

**What it says.** Which cell (GB/T 32960.3-2025: minimum parallel unit) of a vehicle is leaving its pack: falling
below the pack's median at rest, alone, day by day, as a cell with an internal leak does. It ranks cells and
vehicles. A probability is only printed with the prevalence it assumes ({card.assumed_prevalence:g} per cell and
day, an assumption: there are no field outcomes yet).

**Horizon.** Slow leaks: a cell that shows some 40 mV at rest within {card.horizon_days} days of its leak's begin.
Not sudden shorts, and not a thermal event under way: those belong to the safety rules.

**Who should use it, and for what.** Dealers, to put a vehicle on a charger, rest it and re-measure the named cell;
quality engineers, to rank. Not for judging a pack as safe: no alert proves nothing.

## How it judges
Cell voltages at rest (current within 2 A for 30 s), their deviation from the pack's median per vehicle day and
10 % band of SOC; days are compared only at the same SOC. Trends are Theil-Sen medians over 10 and 28 days, set
against the pack's other cells and the cell's neighbours. LightGBM (monotone: more fall never lowers the rank)
ranks cells; above {card.threshold:.3g} and with the evidence that `telltale.failures.cell_fault` asks for, a cell
becomes an alert. A cell that is low and stays low is at most watched.

## What it was trained on
| histories | number |
|---|---|
{histories}

{rows} rows, {positive} of leaking cells. **Real:** every voltage, current, temperature and SOC of the recorded cars,
which carry no fault labels and are taken as healthy. **Injected:** all leaks, sensor offsets and weak cells in
them, on the published curve of one NCM cell. **Simulated:** `telltale.simulate` vehicles, NCM and LFP.
No real leaking cell was seen in training. A recording of less than ten days gets no injected fault, and one with
rest on fewer than {days} days adds nothing but its name.

Recordings:
{digests}

Made by `{card.command}` with seed {seed}, {libraries}.

## How well
Every figure is of vehicles the model that judged them had not seen (recorded: one car left out; simulated: four
folds). Intervals: 95 %, exact for shares and rates, bootstrap over histories elsewhere. Leaks count from 12 mV.

| figure | value | interval |
|---|---|---|
{metrics}

The same car with different faults put in is not another car: intervals over histories of two cars say little of
a third. The recorded days are far too few to prove a low rate of false alerts.

## Where it fails
- LFP on its plateau: a cell may lag by several percent of charge and show nothing at rest.
- Vehicles never at rest at comparable SOC: fewer than {days} days with rest of 28, or {span} days between them, or
  fewer than {cells} cells: *not scored*, with the reason, counted.
- Leaks that a balancing BMS hides by discharging the other cells; two cells of one module that leak alike.
- A sensor that drifts by itself looks the same: the first thing to do is to measure again.
- Cars whose cell readings are not taken at the same moment, when rest is short.
"""
