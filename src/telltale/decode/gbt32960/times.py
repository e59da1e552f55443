"""China Standard Time on the wire: six plain binary bytes, year from 2000, UTC+8 without daylight saving."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from telltale.records import Array

NO_TIME: Final = int(np.iinfo(np.int64).min)
ZONE_US: Final = 8 * 3_600_000_000
_DAYS_IN_MONTH = np.array([0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], np.int32)
_DAYS_BEFORE_MONTH = np.array([0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334], np.int32)
_DAYS_TO_2000 = 10_957


def times(stamps: Array) -> NDArray[np.int64]:
    """Return µs since 1970 UTC of time stamps (n, 6), `NO_TIME` where there is no such date."""
    year, month, day, hour, minute, second = stamps.T.astype(np.int32)
    fits = (month >= 1) & (month <= 12) & (day >= 1) & (hour < 24) & (minute < 60) & (second < 60)
    month = np.where(fits, month, 1)
    # Years run to 2255: 2100 and 2200 are no leap years.
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year == 0))
    fits &= (day <= _DAYS_IN_MONTH[month]) & (leap | (month != 2) | (day < 29))
    leaps_before = (year + 3) // 4 - (year > 100) - (year > 200)
    days = (
        _DAYS_TO_2000 + 365 * year + leaps_before + _DAYS_BEFORE_MONTH[month] + (leap & (month > 2)) + day - 1
    )
    seconds = days.astype(np.int64) * 86_400 + hour * 3_600 + minute * 60 + second
    return np.where(fits, seconds * 1_000_000 - ZONE_US, NO_TIME)


def time_of(stamp: bytes) -> int | None:
    """Return µs since 1970 UTC of one time stamp, or None when there is no such date."""
    found = int(times(np.frombuffer(stamp, np.uint8, 6).reshape(1, 6))[0])
    return None if found == NO_TIME else found


def stamps_of(observed_at: NDArray[np.int64]) -> Array:
    """Return the wire's six bytes (n, 6) of times in µs; years before 2000 or after 2255 do not fit."""
    seconds = (observed_at + ZONE_US) // 1_000_000
    days, rest = seconds // 86_400, seconds % 86_400
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]").astype(np.int64)
    columns = (
        months // 12 + 1970 - 2000,
        months % 12 + 1,
        (dates - dates.astype("datetime64[M]").astype("datetime64[D]")).astype(np.int64) + 1,
        rest // 3_600,
        rest // 60 % 60,
        rest % 60,
    )
    return np.stack(columns, axis=1)
