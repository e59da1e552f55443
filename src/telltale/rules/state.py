"""What is remembered of a vehicle while a condition holds: dwell, hysteresis, a small window of evidence.

A condition is first *pending*, until it has been observed for its dwell; then *active*, which is when an
alert is raised; and gone once it has been observed to be absent for its clearing time. Only observed time
counts: the time between two reports counts when both say so and they are no more than `gap_s` apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

# Levels of a condition in one row. Below WATCH it cannot raise; HELD keeps what is active (hysteresis).
UNKNOWN, CLEAR, HELD, WATCH, GENERAL, IMPORTANT, URGENT = -1, 0, 1, 2, 3, 4, 5
SEVERITY: Final = {WATCH: "watch", GENERAL: "general", IMPORTANT: "important", URGENT: "urgent"}


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition seen in one row, on one component."""

    level: int
    value: float | None  # the main quantity, for the window
    evidence: Callable[[], Mapping[str, Any]] = dict  # asked for only where an alert comes of it


@dataclass(frozen=True, slots=True)
class Entry:
    """One pending or active condition of one component."""

    since: int  # µs, first row of the condition
    last_at: int  # µs, newest row that could say anything about it
    raised: int = 0  # level of the alert; 0 while pending
    held_s: Mapping[int, float] = field(default_factory=dict)  # level → observed seconds at or above it
    clear_s: float = 0.0
    clearing: bool = False
    window: tuple[tuple[int, float | None], ...] = ()


@dataclass(frozen=True, slots=True)
class VehicleState:
    """Conditions of one vehicle that hold or may come to hold; a healthy vehicle has none.

    Keys of `entries` are `detector/component`. `judged_until` (µs) is the newest row that has been judged.
    """

    judged_until: int
    entries: Mapping[str, Entry]

    def to_json(self) -> str:
        """Return the state as JSON text, `judged_until` included."""
        entries = {key: _dump(entry) for key, entry in self.entries.items()}
        return json.dumps({"judged_until": self.judged_until, "entries": entries}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> VehicleState:
        """Return the state that `to_json` wrote."""
        raw = json.loads(text)
        return cls(raw["judged_until"], {key: _load(entry) for key, entry in raw["entries"].items()})


def _dump(entry: Entry) -> dict[str, Any]:
    return {
        "since": entry.since,
        "last_at": entry.last_at,
        "raised": entry.raised,
        "held_s": {str(level): seconds for level, seconds in entry.held_s.items()},
        "clear_s": entry.clear_s,
        "clearing": entry.clearing,
        "window": entry.window,
    }


def _load(raw: Mapping[str, Any]) -> Entry:
    return Entry(
        since=raw["since"],
        last_at=raw["last_at"],
        raised=raw["raised"],
        held_s={int(level): seconds for level, seconds in raw["held_s"].items()},
        clear_s=raw["clear_s"],
        clearing=raw["clearing"],
        window=tuple((at, value) for at, value in raw["window"]),
    )


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a rule waits, in seconds of observed time."""

    dwell_s: Mapping[int, float]  # level → how long it has to hold before it raises
    clear_s: float
    gap_s: float
    window_points: int


def advance(
    entry: Entry | None, finding: Finding | None, at: int, timing: Timing
) -> tuple[Entry | None, str]:
    """Return the entry after one more row, and what happened: '', raised, escalated or cleared.

    `finding` is None when the row says that the condition is absent.
    """
    level = finding.level if finding else CLEAR
    if entry is None:
        return _open(finding, at, timing) if finding and level >= WATCH else (None, "")
    if level >= WATCH or (level == HELD and entry.raised):
        return _hold(entry, finding, at, timing)
    return _release(entry, at, timing) if entry.raised else (None, "")


def _open(finding: Finding, at: int, timing: Timing) -> tuple[Entry, str]:
    held = {level: 0.0 for level in timing.dwell_s if level <= finding.level}
    entry = Entry(at, at, held_s=held, window=((at, finding.value),))
    return _raise_if_due(entry, timing)


def _hold(entry: Entry, finding: Finding | None, at: int, timing: Timing) -> tuple[Entry, str]:
    level = finding.level if finding else HELD
    seen_s = 0.0 if entry.clearing else _observed(entry.last_at, at, timing)
    held = {k: entry.held_s[k] + seen_s if k in entry.held_s else 0.0 for k in timing.dwell_s if k <= level}
    window = (*entry.window, (at, finding.value if finding else None))[-timing.window_points :]
    return _raise_if_due(Entry(entry.since, at, entry.raised, held, window=window), timing)


def _raise_if_due(entry: Entry, timing: Timing) -> tuple[Entry, str]:
    due = max((k for k, seconds in entry.held_s.items() if seconds >= timing.dwell_s[k]), default=0)
    if due <= entry.raised:
        return entry, ""
    return replace(entry, raised=due), "escalated" if entry.raised else "raised"


def _release(entry: Entry, at: int, timing: Timing) -> tuple[Entry | None, str]:
    clear_s = entry.clear_s + _observed(entry.last_at, at, timing) if entry.clearing else 0.0
    if clear_s >= timing.clear_s:
        return None, "cleared"
    return replace(entry, last_at=at, clear_s=clear_s, clearing=True, held_s={}), ""


def _observed(before: int, at: int, timing: Timing) -> float:
    seconds = (at - before) / 1e6
    return seconds if 0 <= seconds <= timing.gap_s else 0.0
