"""Judge recorded cars with a trained model, by the fold, features and rules the worker uses."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from telltale.boosting import Model
from telltale.failures.cell_fault import DayVerdict, Episode, episodes, verdicts
from telltale.fold.frames import DAY_OFFSET_US, DAY_US
from telltale.recordings import load_recording
from telltale.records import Rows
from telltale.store.times import moment
from telltale.train.histories import points_of, recordings_in
from telltale.train.intervals import rate, share


@dataclass(frozen=True, slots=True)
class Judged:
    """One vehicle with everything the model said of it."""

    vehicle: str
    rows: int
    days: int  # vehicle days with reports
    verdicts: list[DayVerdict]
    episodes: list[Episode]

    @property
    def scored(self) -> int:
        """Return the number of days scored."""
        return sum(verdict.not_scored is None for verdict in self.verdicts)


def judge_vehicle(name: str, rows: Rows, model: Model) -> Judged:
    """Return what the model says of one vehicle's rows, day by day."""
    points = points_of(rows)
    days = np.unique(points.day).tolist()
    judged = verdicts(points, days, model.score, model.card.threshold)
    reported = np.unique((rows.columns["observed_at"] + DAY_OFFSET_US) // DAY_US)
    return Judged(name, len(rows), len(reported), judged, episodes(judged))


def evaluate(data: Path, model: Model) -> dict[str, Any]:
    """Return the report of judging every recorded car under `data` as it is.

    Recorded cars carry no fault labels: the episodes are listed, not called right or wrong.
    """
    paths = recordings_in(data)
    cars = [judge_vehicle(*load_recording(path), model) for path in paths]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
    return {
        "model": model.card.name,
        "version": model.card.version,
        "data_digest": digest,
        "rows": sum(car.rows for car in cars),
        "metrics": _metrics(cars),
        "not_scored": _not_scored(cars),
        "episodes": [_episode(car.vehicle, episode) for car in cars for episode in car.episodes],
    }


def _metrics(cars: list[Judged]) -> dict[str, Any]:
    scored, days = sum(car.scored for car in cars), sum(car.days for car in cars)
    work = [e for car in cars for e in car.episodes if e.severity != "watch"]
    watched = [e for car in cars for e in car.episodes if e.severity == "watch"]
    return {
        "episodes_above_watch_per_vehicle_day": rate(len(work), days),
        "episodes_of_watch_per_vehicle_day": rate(len(watched), days),
        "days_scored_share": share(scored, days),
    }


def _not_scored(cars: list[Judged]) -> dict[str, int]:
    reasons = [v.not_scored for car in cars for v in car.verdicts if v.not_scored is not None]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}


def _episode(vehicle: str, episode: Episode) -> dict[str, Any]:
    return {
        "vehicle": vehicle,
        "cell": episode.cell,
        "opened_at": day_end(episode.opened).isoformat(),
        "closed_at": None if episode.closed is None else day_end(episode.closed).isoformat(),
        "severity": episode.severity,
        "deviation_mv": round(episode.newest.values["deviation_mv"], 1),
        "trend_mv_day": round(episode.newest.values["trend_mv_day"], 2),
    }


def day_end(day: int) -> datetime:
    """Return the last second of a vehicle day."""
    return moment((day + 1) * DAY_US - DAY_OFFSET_US - 1_000_000)
