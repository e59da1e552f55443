"""Times at the border to the database: integers since 1970 here, PostgreSQL's types there."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def moment(at_us: int) -> datetime:
    """Return a time in µs since 1970 as PostgreSQL's driver takes it."""
    return EPOCH + timedelta(microseconds=at_us)


def microseconds(at: datetime) -> int:
    """Return a time as µs since 1970."""
    return (at - EPOCH) // timedelta(microseconds=1)


def date_of(day: int) -> date:
    """Return a vehicle day as a date."""
    return EPOCH.date() + timedelta(days=day)


def day_number(day: date) -> int:
    """Return a date as days since 1970."""
    return (day - EPOCH.date()).days
