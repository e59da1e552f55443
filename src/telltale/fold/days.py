"""From frames to hours, and from hours to vehicle days: the way of the worker and of the offline tools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from telltale.fold.frames import HOUR_US, Frames, hours_of_day
from telltale.fold.segments import Segment, day_segment, fold


def hour_segments(frames: Frames) -> dict[int, Segment]:
    """Return one vehicle's segments by hour since 1970."""
    hours, starts = np.unique(frames.at_us // HOUR_US, return_index=True)
    bounds = np.append(starts, len(frames))
    segments: dict[int, Segment] = {}
    for hour, first, past in zip(hours, bounds[:-1], bounds[1:], strict=True):
        segment = fold(frames.part(int(first), int(past)))
        if segment is not None:
            segments[int(hour)] = segment
    return segments


def day_summary(hours: Mapping[int, Segment], day: int) -> Segment | None:
    """Return the summary of a vehicle day from its hours and the hour before it; None without frames."""
    of_day = hours_of_day(day)
    return day_segment(hours.get(of_day[0] - 1), [hours[hour] for hour in of_day if hour in hours])


def day_summaries(hours: Mapping[int, Segment], days: Iterable[int]) -> list[tuple[int, Segment]]:
    """Return (day, summary) of these days, in order, where there are frames."""
    found = ((day, day_summary(hours, day)) for day in sorted(days))
    return [(day, segment) for day, segment in found if segment is not None]


def days_touched(hour: int) -> set[int]:
    """Return the days whose summary a change in this hour may change: its own, and that of the next hour.

    A rest settles frames of the next hour at most: in an hour of unbroken rest all later frames settle.
    """
    return {_day_of_hour(hour), _day_of_hour(hour + 1)}


def _day_of_hour(hour: int) -> int:
    return (hour + 8) // 24
