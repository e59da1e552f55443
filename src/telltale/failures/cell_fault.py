"""Which cell (2025 edition: minimum parallel unit) is leaving its pack, and how urgent that is.

A cell with an internal leak loses charge that its neighbours keep: at rest it stands below the pack's median
by more every day. A cell that merely stands low - less capacity, or a sensor that reads low - stays where it
is. So an alert needs a fall, a cell alone in it, and a cell that ends below its pack; a cell that is low and
stays low is at most watched. The model ranks; the rules here decide what its rank may become.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from telltale.features import COLUMNS, Floats, RestPoints, cell_features, matrix_of

DETECTOR: Final = "cell_fault"
RULES_VERSION: Final = 1
SEVERITIES: Final = ("watch", "general", "important", "urgent")

# Domain of validity: outside it a vehicle is not scored.
LEAST_CELLS: Final = 8  # fewer and the median is no reference
LEAST_REST_DAYS: Final = 5
LEAST_SPAN_DAYS: Final = 5

# A falling cell, whatever the model says of it.
LEAST_FALL_MV: Final = 8.0  # over a window, more than steps of 1 mV and a day's scatter can feign
LEAST_Z: Final = 4.0  # of its trend, against the pack's trends
LEAST_ALONE_MV_DAY: Final = 0.3  # against its neighbours: a module's board that drifts is no cell
LEAST_ALONE_SHARE: Final = 0.4  # of its fall, not shared with its neighbours
LEAST_UPHELD_SHARE: Final = 0.5  # of its fall, in pairs of days with falling and with rising SOC alike
LEAST_LEAD_MV_DAY: Final = 0.0  # one cell falls faster than all others
LEAST_FALLING_SHARE: Final = 0.65  # of same-SOC pairs of days
LEAST_DEVIATION_MV: Final = 5.0  # below the pack's median in the end
IMPORTANT_DEVIATION_MV: Final = 25.0
URGENT_DEVIATION_MV: Final = 80.0
URGENT_TREND_MV_DAY: Final = 10.0

# A weak cell: low against the pack's spread, and not falling.
WEAK_DEVIATION_MV: Final = 10.0
WEAK_Z: Final = 5.0

# Episodes: in scored days.
DAYS_TO_RAISE: Final = {"watch": 3, "general": 2}
DAYS_TO_CLEAR: Final = 5
REASONS: Final = 5

Scorer = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class Finding:
    """One cell that stands out on one day."""

    cell: int  # from 1
    severity: str
    score: float
    values: dict[str, float]  # by telltale.features.COLUMNS

    @property
    def rank(self) -> int:
        """Return the severity as a number that sorts."""
        return SEVERITIES.index(self.severity)


@dataclass(frozen=True, slots=True)
class DayVerdict:
    """What one vehicle day says: not scored and why, or the cells that stand out."""

    day: int
    not_scored: str | None
    findings: tuple[Finding, ...] = ()
    top_cell: int = 0
    top_score: float = 0.0


@dataclass(frozen=True, slots=True)
class Episode:
    """One stretch of days on which a cell stood out; days are vehicle days (UTC+8)."""

    cell: int
    opened: int
    severity: str  # the highest reached
    closed: int | None
    at_opening: Finding
    newest: Finding
    newest_day: int
    steps: tuple[tuple[int, str], ...]  # (day, severity) of each rise, the opening first


def outside_domain(features: dict[str, Floats]) -> str | None:
    """Return why a vehicle cannot be scored on this day, or None when it can."""
    if len(features[COLUMNS[0]]) < LEAST_CELLS:
        return "too_few_cells"
    rest_days = features["rest_days"][0]
    if not rest_days >= LEAST_REST_DAYS:
        return "too_little_rest"
    if not features["span_days"][0] >= LEAST_SPAN_DAYS:
        return "too_short_at_same_soc"
    return None


def judge_day(points: RestPoints, day: int, score: Scorer, threshold: float) -> DayVerdict:
    """Return what is known of a vehicle at the end of `day`; later points are not looked at.

    A day without rest of its own says nothing new and is not scored: old evidence is not heard twice.
    """
    if not (points.day == day).any():
        return DayVerdict(day, "no_rest")
    features = cell_features(points, day)
    reason = outside_domain(features)
    if reason is not None:
        return DayVerdict(day, reason)
    scores = score(matrix_of(features))
    severities = severity_of(features, scores >= threshold)
    found = [i for i, severity in enumerate(severities) if severity is not None]
    findings = tuple(
        Finding(i + 1, str(severities[i]), float(scores[i]), {n: float(features[n][i]) for n in COLUMNS})
        for i in found
    )
    top = int(np.argmax(scores))
    return DayVerdict(day, None, findings, top + 1, float(scores[top]))


def severity_of(features: dict[str, Floats], ranked: np.ndarray) -> list[str | None]:
    """Return each cell's severity from the evidence; `ranked`: the model puts it above its threshold."""
    level = features["deviation_mv"]
    with np.errstate(invalid="ignore"):
        falling = ranked & evidence_of_fall(features)
        weak = (level <= -WEAK_DEVIATION_MV) & (features["deviation_z"] <= -WEAK_Z)
        important = falling & (level <= -IMPORTANT_DEVIATION_MV)
        fast = features["trend_mv_day"] <= -URGENT_TREND_MV_DAY
        urgent = important & ((level <= -URGENT_DEVIATION_MV) | fast)
    rank = np.where(weak, 1, 0)
    for step, holds in ((2, falling), (3, important), (4, urgent)):
        rank[holds] = step
    return [SEVERITIES[r - 1] if r else None for r in rank]


def evidence_of_fall(features: dict[str, Floats]) -> np.ndarray:
    """Return which cells fall, alone, and stand below their pack, in the short window or the long one."""
    with np.errstate(invalid="ignore"):
        low = features["deviation_mv"] <= -LEAST_DEVIATION_MV
        return np.asarray((_falls(features, "", 1.0) | _falls(features, "long_", 0.5)) & low)


def _falls(features: dict[str, Floats], window: str, slowness: float) -> np.ndarray:
    trend, alone = features[f"{window}trend_mv_day"], features[f"{window}trend_alone_mv_day"]
    return np.asarray(
        (features[f"{window}trend_z"] <= -LEAST_Z)
        & (features[f"{window}fall_mv"] >= LEAST_FALL_MV)
        & (alone <= -LEAST_ALONE_MV_DAY * slowness)
        & (alone <= LEAST_ALONE_SHARE * trend)
        & (features[f"{window}upheld_mv_day"] <= LEAST_UPHELD_SHARE * trend)
        & (features[f"{window}trend_lead_mv_day"] > LEAST_LEAD_MV_DAY)
        & (features[f"{window}falling_share"] >= LEAST_FALLING_SHARE)
    )


def verdicts(points: RestPoints, days: Iterable[int], score: Scorer, threshold: float) -> list[DayVerdict]:
    """Return one verdict per day, each from that day and those before it."""
    return [judge_day(points, day, score, threshold) for day in days]


def episodes(judged: Sequence[DayVerdict]) -> list[Episode]:
    """Return the episodes of one vehicle's verdicts in day order; days not scored neither raise nor clear."""
    scored = [verdict for verdict in judged if verdict.not_scored is None]
    cells = sorted({finding.cell for verdict in scored for finding in verdict.findings})
    found = [e for cell in cells for e in _episodes_of(cell, scored)]
    return sorted(found, key=lambda episode: (episode.opened, episode.cell))


def _episodes_of(cell: int, scored: Sequence[DayVerdict]) -> Iterator[Episode]:
    current: Episode | None = None
    recent: list[int] = []  # severity ranks of the last scored days, -1 where the cell did not stand out
    for verdict in scored:
        finding = next((f for f in verdict.findings if f.cell == cell), None)
        recent = [*recent, -1 if finding is None else finding.rank][-DAYS_TO_CLEAR:]
        severity = _confirmed(recent)
        if current is None and finding is not None and severity is not None:
            steps = ((verdict.day, severity),)
            current = Episode(cell, verdict.day, severity, None, finding, finding, verdict.day, steps)
        elif current is not None:
            current = _continued(current, verdict.day, finding, severity)
            if len(recent) == DAYS_TO_CLEAR and max(recent) < 0:
                yield _closed(current, verdict.day)
                current, recent = None, []
    if current is not None:
        yield current


def _confirmed(recent: Sequence[int]) -> str | None:
    """Return the highest severity that the last days uphold, each of them at least at it."""
    for rank in range(len(SEVERITIES) - 1, -1, -1):
        needed = DAYS_TO_RAISE["watch" if rank == 0 else "general"]
        if len(recent) >= needed and min(recent[-needed:]) >= rank:
            return SEVERITIES[rank]
    return None


def _continued(episode: Episode, day: int, finding: Finding | None, severity: str | None) -> Episode:
    if finding is None:
        return episode
    rises = severity is not None and SEVERITIES.index(severity) > SEVERITIES.index(episode.severity)
    reached = str(severity) if rises else episode.severity
    steps = (*episode.steps, (day, reached)) if rises else episode.steps
    return Episode(episode.cell, episode.opened, reached, None, episode.at_opening, finding, day, steps)


def _closed(episode: Episode, day: int) -> Episode:
    return Episode(
        episode.cell,
        episode.opened,
        episode.severity,
        day,
        episode.at_opening,
        episode.newest,
        episode.newest_day,
        episode.steps,
    )


def probability(score: float, trained_on: float, assumed: float) -> float:
    """Return the score as a probability at an assumed prevalence, by the odds it was trained at.

    It holds only where cells fail as they did in training; print the prevalence beside it.
    """
    odds = score / max(1.0 - score, 1e-12)
    moved = odds * (assumed / (1 - assumed)) / (trained_on / (1 - trained_on))
    return moved / (1 + moved)
