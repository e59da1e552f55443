"""From a stored alert to what a template prints: words, times, evidence rows, chart addresses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

from telltale.api.pages.words import Language, catalogue, say

CHINA: Final = timezone(timedelta(hours=8), "UTC+8")  # shown until the page's script knows the viewer's zone
AROUND: Final = timedelta(minutes=30)
LONGEST: Final = timedelta(days=7)
_CELL: Final = re.compile(r"cell:(\d{1,4})")
_UNITS: Final = {
    "ohm_per_v": "Ω/V",
    "mv_day": "mV/d",
    "kohm": "kΩ",
    "degc": "°C",
    "pct": "%",
    "kmh": "km/h",
    "rpm": "r/min",
    "mv": "mV",
    "ddegc": "0.1 °C",
    "km": "km",
    "ah": "Ah",
    "ma": "mA",
    "v": "V",
    "a": "A",
    "s": "s",
    "days": "d",
}
# What else a chart shows beside the cells, by what stands in the detector's name.
_SIGNALS: Final = (
    ("insulation", ("insulation_kohm", "pack_voltage_v")),
    ("thermal", ("cell_temp_max_degc", "cell_temp_min_degc")),
    ("temp", ("cell_temp_max_degc", "cell_temp_min_degc")),
    ("drive", ("speed_kmh", "pack_current_a")),
    ("dcdc", ("speed_kmh", "pack_voltage_v")),
    ("interlock", ("speed_kmh", "pack_voltage_v")),
)
USUAL: Final = ("pack_current_a", "soc_pct")


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of evidence."""

    name: str
    value: str
    unit: str = ""


def zoned(at: datetime | str) -> datetime:
    """Return a time in the zone that pages fall back to."""
    known = datetime.fromisoformat(at) if isinstance(at, str) else at
    return known.astimezone(CHINA)


def clock(at: datetime | str) -> str:
    """Return a time on a 24-hour clock with its zone."""
    local = zoned(at)
    return f"{local:%Y-%m-%d %H:%M:%S} {local.tzname()}"


def utc(at: datetime | str) -> str:
    """Return a time as RFC 3339 in UTC, for machines."""
    return zoned(at).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def cell_of(component: str) -> int | None:
    """Return the number of the cell a component names, from 1; None when it names none."""
    match = _CELL.fullmatch(component)
    return int(match[1]) if match else None


def component_words(language: Language, component: str) -> str:
    """Return a component such as `cell:57` or `subsystem:2/cell:5` in words."""
    return " · ".join(_component(language, part) for part in component.split("/"))


def _component(language: Language, part: str) -> str:
    kind, _, number = part.partition(":")
    key = f"component.{kind}"
    return say(language, key, number=number).strip() if key in catalogue() else part


def facts(language: Language, evidence: Mapping[str, Any]) -> list[Fact]:
    """Return the numbers of an evidence object, one line each, in its order; texts have their own place."""
    return list(_facts(language, {k: v for k, v in evidence.items() if not _elsewhere(k)}, ""))


def _elsewhere(key: str) -> bool:
    return (
        key in {"title", "check", "ready", "reasons", "window", "gap_s"}
        or key.startswith("window_")
        or key.endswith("_us")
    )


def _facts(language: Language, found: Mapping[str, Any], above: str) -> Iterator[Fact]:
    for key, value in found.items():
        name, unit = named(language, key)
        full = f"{above} · {name}" if above else name
        if isinstance(value, Mapping) and isinstance(value.get(language), str):
            yield Fact(full, value[language])
        elif isinstance(value, Mapping):
            yield from _facts(language, value, full)
        elif isinstance(value, list) and (len(value) > 8 or any(isinstance(v, list | dict) for v in value)):
            continue  # a curve belongs in the chart
        elif value is not None:
            yield Fact(full, _number(language, value), unit)


def named(language: Language, key: str) -> tuple[str, str]:
    """Return a signal's name in words, and its unit, from a name such as `cell_voltage_max_v`."""
    for ending, unit in _UNITS.items():
        if key.endswith("_" + ending):
            stem = key.removesuffix("_" + ending)
            return _signal(language, stem), unit
    return _signal(language, key), ""


def _signal(language: Language, stem: str) -> str:
    key = f"signal.{stem}"
    return say(language, key) if key in catalogue() else stem.replace("_", " ")


def _number(language: Language, value: Any) -> str:
    if isinstance(value, bool):
        return say(language, "yes" if value else "no")
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(_number(language, item) for item in value)
    return str(value)


def reasons(language: Language, evidence: Mapping[str, Any]) -> list[str]:
    """Return the detector's own reasons in this language, most important first."""
    found = evidence.get("reasons")
    texts = [_reason(language, item) for item in found] if isinstance(found, list) else []
    return [text for text in texts if text]


def _reason(language: Language, item: Any) -> str:
    if isinstance(item, str):
        return item
    if not isinstance(item, Mapping):
        return ""
    text = item.get(language) or item.get("text")
    if isinstance(text, str):
        return text
    key = str(item.get("name") or item.get("feature") or item.get("signal") or "")
    name, unit = named(language, key)
    limit = item.get("limit", item.get("threshold"))
    parts = [name, _number(language, item.get("value", "")), str(item.get("unit") or unit)]
    shown = " ".join(part for part in parts if part)
    return shown + (f" ({say(language, 'limit')} {_number(language, limit)})" if limit is not None else "")


def signals_of(detector: str) -> tuple[str, ...]:
    """Return the columns worth a second chart for this detector."""
    return next((columns for part, columns in _SIGNALS if part in detector), USUAL)


def chart_words(language: Language, columns: str, cell: int | None) -> str:
    """Return the words a chart of these columns needs, as JSON for its script."""
    keys = ("min", "median", "max", "low", "high", "none", "failed")
    words: dict[str, Any] = {key: say(language, f"chart.{key}") for key in keys}
    words["time"] = say(language, "time")
    words["cell"] = say(language, "component.cell", number=cell) if cell else ""
    words["columns"] = {name: named(language, name) for name in columns.split(",")}
    return json.dumps(words, ensure_ascii=False)


def stretch(alert: Mapping[str, Any]) -> tuple[datetime, datetime]:
    """Return the event time a chart shows: the evidence's window and half an hour on either side."""
    start = end = zoned(alert["happened_at"])
    window = alert["evidence"].get("window")
    if isinstance(window, Mapping):
        try:
            start = min(start, zoned(str(window.get("from") or window.get("start"))))
            end = max(end, zoned(str(window.get("to") or window.get("end"))))
        except ValueError:
            pass  # a window of another kind: the event itself is what there is
    start = max(start, end - LONGEST + 2 * AROUND)
    return start - AROUND, end + AROUND


def series_url(vehicle: UUID, columns: str, start: datetime, end: datetime, cell: int | None) -> str:
    """Return the address of a chart's data."""
    query = {"columns": columns, "from": utc(start), "to": utc(end), "points": "600"}
    return f"/v1/vehicles/{vehicle}/series?{urlencode(query | ({'cell': str(cell)} if cell else {}))}"
