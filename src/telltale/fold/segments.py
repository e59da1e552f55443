"""Fold raw report rows into segments that can be merged: any split of the rows gives the same summary.

A segment summarises the frames of one vehicle between two moments: counts, sums and extremes of its main
signals, time by state, charge moved, and what the cells showed at rest. It carries its edges, so a rest or a
charge that crosses the border between two buckets is one rest or charge after `merge`. Every sum is an
integer at the wire's resolution: merging is exact and its order of grouping does not matter.

At rest: pack current within ±2 A, for 30 s of observed time. A gap in the frames of more than 300 s ends a
run: nobody saw whether the vehicle rested. Frames whose time is not the vehicle's own are left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Final

import numpy as np

from telltale.fold.frames import (
    CURRENT,
    MAX_GAP_US,
    NULL,
    SECOND_US,
    SIGNALS,
    SOC,
    TEMP_MAX,
    Bools,
    Frames,
    Ints,
    State,
)

SETTLE_US: Final = 30 * SECOND_US
DEVIATION_LIMIT: Final = 800  # half mV per frame: one mad frame must not own the day
SOC_BAND_PCT: Final = 10
COUNT, SUM, MIN, MAX = range(4)


@dataclass(frozen=True, slots=True)
class RestFrame:
    """One frame at rest: how far each cell stood from the pack's median."""

    at_us: int
    soc: int
    temp: int  # NULL when unknown
    level: int  # the pack's median cell, half mV
    deviation: Ints  # per cell, half mV; NULL where masked


@dataclass(frozen=True, slots=True)
class RestSum:
    """Sums over settled rest frames with the same number of cells in the same band of SOC."""

    frames: int
    soc: int
    temp: int
    temps: int  # frames with a temperature
    level: int
    count: Ints  # per cell
    deviation: Ints  # per cell, half mV


Key = tuple[int, int]  # number of cells, band of SOC


@dataclass(frozen=True, slots=True)
class Segment:
    """The summary of a stretch of frames, with the state of its edges."""

    frames: int
    first_us: int
    last_us: int
    signals: Ints  # SIGNALS x (count, sum, min, max)
    state_us: Ints  # observed time by State
    charge: Ints  # deciampere-microseconds: into the pack, out of the pack
    charges: int  # runs of charging
    first_state: int
    last_state: int
    last_current: int
    rest: dict[Key, RestSum]
    head: tuple[RestFrame, ...]  # of a rest that touches the first frame: settled only if it began before
    rest_from_us: int  # since when the rest that touches the last frame has run; NULL when not at rest
    whole: bool  # one rest from the first frame to the last


def fold(frames: Frames) -> Segment | None:
    """Return the segment of these frames, or None when there are none."""
    if not len(frames):
        return None
    at, state = frames.at_us, frames.state
    resting = state == State.REST
    begins = _run_begins(at, resting)
    since = at[np.maximum.accumulate(np.where(begins, np.arange(len(at)), 0))]
    in_head = resting & (np.cumsum(begins) == 1) & bool(resting[0])
    settled = resting & (at - since >= SETTLE_US)
    charging = state == State.CHARGE
    return Segment(
        frames=len(at),
        first_us=int(at[0]),
        last_us=int(at[-1]),
        signals=_signal_sums(frames.signals),
        state_us=_state_time(at, state),
        charge=_moved(np.diff(at), frames.signals[:-1, CURRENT]),
        charges=int((charging & _run_begins(at, charging)).sum()),
        first_state=int(state[0]),
        last_state=int(state[-1]),
        last_current=int(frames.signals[-1, CURRENT]),
        rest=_rest_sums(frames, np.flatnonzero(settled)),
        head=tuple(
            f for i in np.flatnonzero(in_head & ~settled) if (f := _rest_frame(frames, int(i))) is not None
        ),
        rest_from_us=int(since[-1]) if resting[-1] else NULL,
        whole=bool(in_head.all()),
    )


def _run_begins(at: Ints, member: Bools) -> Bools:
    begins = np.ones(len(at), bool)
    begins[1:] = (np.diff(at) > MAX_GAP_US) | (member[1:] != member[:-1])
    return begins


def _signal_sums(signals: Ints) -> Ints:
    known = signals != NULL
    low = np.where(known, signals, np.iinfo(np.int64).max).min(axis=0)
    return np.column_stack(
        [known.sum(axis=0), np.where(known, signals, 0).sum(axis=0), low, signals.max(axis=0)]
    )


def _state_time(at: Ints, state: Ints) -> Ints:
    elapsed = np.diff(at)
    seen = elapsed <= MAX_GAP_US
    return np.bincount(state[:-1][seen], elapsed[seen], len(State)).astype(np.int64)


def _moved(elapsed: Ints, current: Ints) -> Ints:
    seen = (elapsed <= MAX_GAP_US) & (current != NULL)
    moved = np.where(seen, elapsed * np.where(seen, current, 0), 0)
    return np.array([moved[moved > 0].sum(), -moved[moved < 0].sum()], np.int64)


def _deviation(cells: Ints) -> tuple[Ints, Ints]:
    """Return each frame's median in half mV and each cell's limited deviation from it; frames x cells."""
    known = cells != NULL
    ordered = np.sort(np.where(known, cells, np.iinfo(np.int64).max), axis=1)
    count, row = known.sum(axis=1), np.arange(len(cells))
    level = ordered[row, (count - 1) // 2] + ordered[row, count // 2]
    off = np.clip(2 * cells - level[:, None], -DEVIATION_LIMIT, DEVIATION_LIMIT)
    return level, np.where(known, off, NULL)


def _usable(cells: Ints) -> bool:
    return len(cells) > 0 and 2 * int((cells != NULL).sum()) > len(cells)


def _rest_frame(frames: Frames, index: int) -> RestFrame | None:
    soc, cells = int(frames.signals[index, SOC]), frames.cells[index]
    if soc == NULL or not _usable(cells):
        return None
    level, deviation = _deviation(cells[None, :])
    temp = int(frames.signals[index, TEMP_MAX])
    return RestFrame(int(frames.at_us[index]), soc, temp, int(level[0]), deviation[0])


def band_of(soc: int) -> int:
    """Return the band of a SOC in tenths of a percent; 100 % belongs to the last."""
    return min(soc // (10 * SOC_BAND_PCT), 100 // SOC_BAND_PCT - 1)


def _rest_sums(frames: Frames, rows: Ints) -> dict[Key, RestSum]:
    kept = [int(i) for i in rows if frames.signals[i, SOC] != NULL and _usable(frames.cells[i])]
    groups: dict[Key, list[int]] = {}
    for i in kept:
        groups.setdefault((len(frames.cells[i]), band_of(int(frames.signals[i, SOC]))), []).append(i)
    return {key: _rest_sum(frames, np.array(members)) for key, members in sorted(groups.items())}


def _rest_sum(frames: Frames, rows: Ints) -> RestSum:
    level, deviation = _deviation(np.stack([frames.cells[i] for i in rows]))
    known, temp = deviation != NULL, frames.signals[rows, TEMP_MAX]
    return RestSum(
        frames=len(rows),
        soc=int(frames.signals[rows, SOC].sum()),
        temp=int(temp[temp != NULL].sum()),
        temps=int((temp != NULL).sum()),
        level=int(level.sum()),
        count=known.sum(axis=0).astype(np.int64),
        deviation=np.where(known, deviation, 0).sum(axis=0),
    )


def _sum_of(frame: RestFrame) -> dict[Key, RestSum]:
    known = frame.deviation != NULL
    has_temp = frame.temp != NULL
    total = RestSum(
        1,
        frame.soc,
        frame.temp if has_temp else 0,
        int(has_temp),
        frame.level,
        known.astype(np.int64),
        np.where(known, frame.deviation, 0),
    )
    return {(len(frame.deviation), band_of(frame.soc)): total}


def _add(a: RestSum, b: RestSum) -> RestSum:
    return RestSum(
        a.frames + b.frames,
        a.soc + b.soc,
        a.temp + b.temp,
        a.temps + b.temps,
        a.level + b.level,
        a.count + b.count,
        a.deviation + b.deviation,
    )


def _united(parts: Iterable[dict[Key, RestSum]]) -> dict[Key, RestSum]:
    total: dict[Key, RestSum] = {}
    for part in parts:
        for key, sums in part.items():
            total[key] = _add(total[key], sums) if key in total else sums
    return dict(sorted(total.items()))


def merge(a: Segment, b: Segment) -> Segment:
    """Return the segment of a's frames followed by b's; every frame of b lies after a's last."""
    gap = b.first_us - a.last_us
    seen = gap <= MAX_GAP_US
    goes_on = seen and a.last_state == State.REST == b.first_state
    pending, settled = _by_rest(b.head, a.rest_from_us) if goes_on else ((), ())
    state_us = a.state_us + b.state_us
    charge = a.charge + b.charge
    if seen:
        state_us[a.last_state] += gap
        charge += _moved(np.array([gap]), np.array([a.last_current]))
    one_charge = seen and a.last_state == State.CHARGE == b.first_state
    return Segment(
        frames=a.frames + b.frames,
        first_us=a.first_us,
        last_us=b.last_us,
        signals=_merge_signals(a.signals, b.signals),
        state_us=state_us,
        charge=charge,
        charges=a.charges + b.charges - one_charge,
        first_state=a.first_state,
        last_state=b.last_state,
        last_current=b.last_current,
        rest=_united([a.rest, b.rest, *map(_sum_of, settled)]),
        head=a.head + (pending if goes_on and a.whole else ()),
        rest_from_us=a.rest_from_us if goes_on and b.whole else b.rest_from_us,
        whole=a.whole and b.whole and goes_on,
    )


def _by_rest(
    head: tuple[RestFrame, ...], since_us: int
) -> tuple[tuple[RestFrame, ...], tuple[RestFrame, ...]]:
    split = sum(frame.at_us - since_us < SETTLE_US for frame in head)
    return head[:split], head[split:]


def _merge_signals(a: Ints, b: Ints) -> Ints:
    return np.column_stack(
        [
            a[:, COUNT] + b[:, COUNT],
            a[:, SUM] + b[:, SUM],
            np.minimum(a[:, MIN], b[:, MIN]),
            np.maximum(a[:, MAX], b[:, MAX]),
        ]
    )


def edge(segment: Segment) -> Segment:
    """Return nothing but a segment's right edge: merged before a day, it settles that day's first rest."""
    blank = np.zeros((len(SIGNALS), 4), np.int64)
    blank[:, MIN], blank[:, MAX] = np.iinfo(np.int64).max, NULL
    return replace(
        segment,
        frames=0,
        first_us=segment.last_us,
        signals=blank,
        state_us=np.zeros(len(State), np.int64),
        charge=np.zeros(2, np.int64),
        charges=0,
        rest={},
        head=(),
        whole=False,
    )


def day_segment(before: Segment | None, hours: Iterable[Segment]) -> Segment | None:
    """Return the summary of a vehicle day from its hours in order and the hour before it, if there is one."""
    parts = list(hours)
    if not parts:
        return None
    if before is None:
        return replace(reduce(merge, parts), head=())
    return replace(reduce(merge, [edge(before), *parts]), first_us=parts[0].first_us)
