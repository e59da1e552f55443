"""Day summaries of one vehicle as named columns per cell: the one feature function of training and serving.

A row says what was known of one cell at the end of one vehicle day (UTC+8); no later day is looked at.

How far a cell stands from its pack's median at rest depends on the SOC: a cell that lags by one percent of
charge shows 15 mV where the curve is steep and 2 mV where it is flat. So days are compared only at the same
SOC (within 12 %), pair by pair, and the trend of a cell is the median of the slopes of those pairs
(Theil-Sen), weighted by the time between them: one wild day, or a stretch of odd readings, does not move it.
Where a pack is only ever discharged, even 12 % let a cell of less capacity seem to fall; so a trend is also
asked whether it holds in pairs in which SOC fell and in pairs in which it rose.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from telltale.fold.segments import RestSum, Segment

FEATURES_VERSION: Final = 1

Floats = NDArray[np.float64]

LEVEL_DAYS: Final = 3  # "now" is the last days with rest, at most this many
SHORT_DAYS: Final = 10  # a leak that shows within two weeks
LONG_DAYS: Final = 28  # a slow one
SAME_SOC_PCT: Final = 12.0
SOC_STEP_PCT: Final = 1.0  # a pair with no more than this between its SOCs counts as falling and as rising
BANDS_PER_DAY: Final = 2
LEAST_FRAMES: Final = 2  # of a cell in a band: one frame may be a glitch
TREND_FLOOR: Final = 0.12  # mV a day: what the wire's 1 mV steps let one tell over ten days
LEVEL_FLOOR: Final = 2.0  # mV
NEIGHBOURS: Final = 4  # on either side: cells of one module, measured by one board, drift together

COLUMNS: Final = (
    "deviation_mv",  # from the pack's median, newest days with rest
    "deviation_z",  # against the spread of the pack's cells
    "trend_mv_day",  # Theil-Sen, short window
    "trend_z",  # against the spread of the pack's trends
    "trend_lead_mv_day",  # how much faster it falls than the fastest falling other cell
    "trend_alone_mv_day",  # against its neighbours' median: a module drifts together
    "upheld_mv_day",  # the trend that holds both where SOC fell and where it rose: no shadow of the curve
    "falling_share",  # of same-SOC pairs in which the later deviation is lower
    "fall_mv",  # trend times the span of the days it was read from; positive is falling
    "long_trend_mv_day",
    "long_trend_z",
    "long_trend_lead_mv_day",
    "long_trend_alone_mv_day",
    "long_upheld_mv_day",
    "long_falling_share",
    "long_fall_mv",
    "residual_mv",  # scatter around the trend, short window
    "deviation_soc_pct",  # deviation over the pack's own slope of voltage by SOC
    "trend_soc_pct_day",
    "pack_trend_spread_mv_day",
    "pack_level_spread_mv",
    "slope_mv_pct",  # of the pack's median by SOC, around the newest SOC
    "soc_pct",
    "temp_degc",
    "rest_days",  # with rest in the long window
    "rest_frames",
    "span_days",  # between the first and the last day of the short window
)

# What a model ranks by: what a cell did, not the circumstances, which differ between fleets.
RANKED_BY: Final = COLUMNS[: COLUMNS.index("slope_mv_pct") + 1]


@dataclass(frozen=True, slots=True)
class RestPoints:
    """What the cells of one vehicle showed at rest: one point per day and band of SOC, ascending by day."""

    day: NDArray[np.int64]
    frames: NDArray[np.int64]
    cells: NDArray[np.int64]  # how many there were
    soc_pct: Floats
    temp_degc: Floats
    level_mv: Floats  # the pack's median cell
    deviation_mv: Floats  # points x most cells; NaN where a cell was absent or not readable

    def until(self, day: int, days: int) -> RestPoints:
        """Return the points of the last `days` days up to and including `day`."""
        return self.take((self.day <= day) & (self.day > day - days))

    def take(self, kept: NDArray[np.bool_]) -> RestPoints:
        """Return some of the points."""
        return RestPoints(*(getattr(self, name)[kept] for name in self.__slots__))

    def of_one_pack(self) -> RestPoints:
        """Return the points with the number of cells that was seen at rest most: others are another pack."""
        sizes = np.unique(self.cells)
        if not len(sizes):
            return self
        usual = max(sizes, key=lambda size: (self.frames[self.cells == size].sum(), size))
        kept = self.take(self.cells == usual)
        return replace(kept, deviation_mv=kept.deviation_mv[:, : int(usual)])


def rest_points(days: Iterable[tuple[int, Segment]]) -> RestPoints:
    """Return the rest points of day summaries, given as (vehicle day, segment) in order.

    Of each day, and number of cells seen on it, the two bands of SOC with most rest count.
    """
    kept = [point for day, segment in days for point in _busiest_bands(day, segment)]
    frames = np.array([total.frames for _, total in kept], np.int64)
    cells = np.array([len(total.count) for _, total in kept], np.int64)
    deviation = np.full((len(kept), int(cells.max(initial=0))), np.nan)
    for row, (_, total) in enumerate(kept):
        enough = np.flatnonzero(total.count >= LEAST_FRAMES)
        deviation[row, enough] = total.deviation[enough] / total.count[enough] / 2
    return RestPoints(
        day=np.array([day for day, _ in kept], np.int64),
        frames=frames,
        cells=cells,
        soc_pct=np.array([total.soc for _, total in kept]) / np.maximum(frames, 1) / 10,
        temp_degc=np.array([t.temp / t.temps / 10 if t.temps else np.nan for _, t in kept]),
        level_mv=np.array([total.level for _, total in kept]) / np.maximum(frames, 1) / 2,
        deviation_mv=deviation,
    )


def _busiest_bands(day: int, segment: Segment) -> list[tuple[int, RestSum]]:
    by_cells: dict[int, list[tuple[int, int, RestSum]]] = {}
    for (cells, band), total in segment.rest.items():
        if total.frames >= LEAST_FRAMES:
            by_cells.setdefault(cells, []).append((-total.frames, band, total))
    return [
        (day, total)
        for cells in sorted(by_cells)
        for _, _, total in sorted(by_cells[cells], key=lambda found: found[:2])[:BANDS_PER_DAY]
    ]


@dataclass(frozen=True, slots=True)
class Trend:
    """Slopes of every cell over a window, from pairs of days at the same SOC."""

    pairs: int
    span_days: int
    mv_day: Floats
    upheld_mv_day: Floats  # the weaker fall of two: pairs in which SOC fell, and pairs in which it rose
    falling_share: Floats
    residual_mv: Floats


def trend_of(points: RestPoints) -> Trend:
    """Return the same-SOC Theil-Sen trend of every cell; NaN where no two days compare."""
    first, second = np.triu_indices(len(points.day), 1)
    apart = points.day[second] - points.day[first]
    change = points.soc_pct[second] - points.soc_pct[first]
    alike = (np.abs(change) <= SAME_SOC_PCT) & (apart > 0)
    first, second, apart, change = first[alike], second[alike], apart[alike], change[alike]
    cells = points.deviation_mv.shape[1]
    if not len(apart):
        nothing = np.full(cells, np.nan)
        return Trend(0, 0, nothing, nothing, nothing, nothing)
    rise = points.deviation_mv[second] - points.deviation_mv[first]
    slope, weight = rise / apart[:, None], apart.astype(np.float64)
    mv_day = weighted_median(slope, weight)
    upheld = np.maximum(
        weighted_median(slope, weight * (change <= SOC_STEP_PCT)),
        weighted_median(slope, weight * (change >= -SOC_STEP_PCT)),
    )
    known = np.isfinite(rise)
    share = ((rise < 0) & known).sum(axis=0) + ((rise == 0) & known).sum(axis=0) / 2
    left = np.abs(rise - mv_day * apart[:, None])
    return Trend(
        pairs=len(apart),
        span_days=int(points.day[second].max() - points.day[first].min()),
        mv_day=mv_day,
        upheld_mv_day=upheld,
        falling_share=share / np.maximum(known.sum(axis=0), 1),
        residual_mv=weighted_median(left, np.ones(len(left))),
    )


def weighted_median(values: Floats, weights: Floats) -> Floats:
    """Return the weighted median of each column; NaN values carry no weight, a column of them gives NaN."""
    order = np.argsort(values, axis=0)  # NaN sorts last
    weight = np.where(np.isfinite(values), weights[:, None], 0.0)
    reached = np.cumsum(np.take_along_axis(weight, order, 0), axis=0)
    half = reached[-1] / 2
    row = (reached >= half).argmax(axis=0)
    picked = np.take_along_axis(values, order, 0)[row, np.arange(values.shape[1])]
    return np.where(half > 0, picked, np.nan)


def _spread(values: Floats, floor: float) -> float:
    known = values[np.isfinite(values)]
    if not len(known):
        return floor
    return max(1.4826 * float(np.median(np.abs(known - np.median(known)))), floor)


def _z(values: Floats, floor: float) -> Floats:
    known = values[np.isfinite(values)]
    middle = float(np.median(known)) if len(known) else 0.0
    return (values - middle) / _spread(values, floor)


def _lead(trend: Floats) -> Floats:
    """Return how much faster each cell falls than the fastest falling other one; positive for one at most."""
    filled = np.where(np.isfinite(trend), trend, np.inf)
    ordered = np.sort(filled)
    second = ordered[1] if len(ordered) > 1 else np.inf
    others = np.where(filled == ordered[0], second, ordered[0])
    return np.where(np.isfinite(trend) & np.isfinite(others), others - trend, np.nan)


def _alone(trend: Floats) -> Floats:
    """Return each cell's trend less the median trend of its neighbours in the string."""
    padded = np.pad(trend, NEIGHBOURS, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * NEIGHBOURS + 1)
    around = np.delete(windows, NEIGHBOURS, axis=1).T
    return trend - weighted_median(around, np.ones(len(around)))


def _level(points: RestPoints) -> tuple[Floats, float, float]:
    """Return each cell's deviation over the newest days with rest, their mean SOC and temperature."""
    newest = np.isin(points.day, np.unique(points.day)[-LEVEL_DAYS:])
    weights = np.minimum(points.frames[newest], 20).astype(np.float64)
    level = weighted_median(points.deviation_mv[newest], weights)
    temp = points.temp_degc[newest]
    known = np.isfinite(temp)
    degc = float(temp[known].mean()) if known.any() else np.nan
    return level, float(np.average(points.soc_pct[newest], weights=weights)), degc


def slope_mv_pct(points: RestPoints, soc_pct: float) -> float:
    """Return the pack's own slope of rest voltage by SOC around this SOC in mV per percent, or NaN.

    Least squares over points within 20 % of SOC; needs three points that span 5 %.
    """
    near = np.abs(points.soc_pct - soc_pct) <= 20
    soc, level = points.soc_pct[near], points.level_mv[near]
    if len(soc) < 3 or np.ptp(soc) < 5:
        return float("nan")
    off = soc - soc.mean()
    return max(float((off * level).sum() / (off * off).sum()), 0.5)


def cell_features(points: RestPoints, day: int) -> dict[str, Floats]:
    """Return COLUMNS as known at the end of `day`: one value per cell, NaN where nothing can be said."""
    window = points.until(day, LONG_DAYS).of_one_pack()
    cells = window.deviation_mv.shape[1]
    if not len(window.day):
        return {name: np.full(cells, np.nan) for name in COLUMNS}
    short, long = trend_of(window.until(day, SHORT_DAYS)), trend_of(window)
    level, soc, temp = _level(window)
    slope = slope_mv_pct(window, soc)
    per_cell = {
        "deviation_mv": level,
        "deviation_z": _z(level, LEVEL_FLOOR),
        "trend_mv_day": short.mv_day,
        "trend_z": _z(short.mv_day, TREND_FLOOR),
        "trend_lead_mv_day": _lead(short.mv_day),
        "trend_alone_mv_day": _alone(short.mv_day),
        "upheld_mv_day": short.upheld_mv_day,
        "falling_share": short.falling_share,
        "fall_mv": 0.0 - short.mv_day * short.span_days,
        "long_trend_mv_day": long.mv_day,
        "long_trend_z": _z(long.mv_day, TREND_FLOOR),
        "long_trend_lead_mv_day": _lead(long.mv_day),
        "long_trend_alone_mv_day": _alone(long.mv_day),
        "long_upheld_mv_day": long.upheld_mv_day,
        "long_falling_share": long.falling_share,
        "long_fall_mv": 0.0 - long.mv_day * long.span_days,
        "residual_mv": short.residual_mv,
        "deviation_soc_pct": level / slope,
        "trend_soc_pct_day": short.mv_day / slope,
    }
    of_pack = {
        "pack_trend_spread_mv_day": _spread(short.mv_day, TREND_FLOOR),
        "pack_level_spread_mv": _spread(level, LEVEL_FLOOR),
        "slope_mv_pct": slope,
        "soc_pct": soc,
        "temp_degc": temp,
        "rest_days": float(len(np.unique(window.day))),
        "rest_frames": float(window.frames.sum()),
        "span_days": float(short.span_days),
    }
    return per_cell | {name: np.full(cells, value) for name, value in of_pack.items()}


def matrix_of(features: dict[str, Floats]) -> Floats:
    """Return features as cells x RANKED_BY: what a model is given."""
    return np.column_stack([features[name] for name in RANKED_BY])
