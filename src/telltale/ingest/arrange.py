"""Decoded reports to rows as they are stored: ids, order of identity, packed for COPY. Safe in a thread.

A batch is arranged while the one before it is being written, as if the database knew none of its readings:
so it is nearly always. Where it does know some, `settle` is asked again with what it knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from telltale.intake import Ordered, classify, dirty_hours, order_by_identity
from telltale.records import Array, Flag, Reports, Rows, TimeSource
from telltale.store import readings


@dataclass(frozen=True, slots=True)
class Ids:
    """What the registry knows of a batch's reports, per row."""

    vehicle: NDArray[np.int32]
    well_formed: NDArray[np.bool_]
    source: NDArray[np.int16]
    edition: NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Settled:
    """Which rows of a batch are new, ready to store."""

    outcome: NDArray[np.int8]  # per row of the batch
    rows: NDArray[np.int64]  # row numbers of the new ones, by identity
    reports: Rows  # those rows
    edition: NDArray[np.int16]  # of each of them
    packed: readings.PackedReports
    dirty: tuple[list[int], list[int]]  # vehicles, hours


@dataclass(frozen=True, slots=True)
class Arranged:
    """Reports of a batch with their ids, sorted by identity."""

    reports: Reports
    ids: Ids
    ordered: Ordered
    weeks: frozenset[int]  # partitions of the database that they fall into
    unopposed: Settled | None  # what is stored when the database knows none of them, if that is likely


def arrange(reports: Reports, ids: Ids, *, likely_new: bool) -> Arranged:
    """Fill the vehicle ids in, in place, and make the rows ready to store where they are likely to be new."""
    columns = reports.rows.columns
    columns["vehicle_id"] = ids.vehicle
    if not ids.well_formed.all():
        columns["flags"][~ids.well_formed] |= int(Flag.VIN_INVALID)
    ordered = order_by_identity(columns)
    weeks = frozenset(readings.weeks_of(columns["observed_at"]))
    return Arranged(reports, ids, ordered, weeks, _settle(reports, ids, ordered, {}) if likely_new else None)


def settle(arranged: Arranged, known: Mapping[int, int]) -> Settled:
    """Return what is new, given the stored digest of each row whose identity the database has."""
    if arranged.unopposed is not None and not known:
        return arranged.unopposed
    return _settle(arranged.reports, arranged.ids, arranged.ordered, known)


def _settle(reports: Reports, ids: Ids, ordered: Ordered, known: Mapping[int, int]) -> Settled:
    outcome, rows = classify(reports, ordered, known)
    new = reports.rows.take(rows)
    new.columns["source_id"] = ids.source[rows]
    packed = readings.pack_reports(new, _fuel_cells(reports, rows))
    return Settled(outcome, rows, new, ids.edition[rows], packed, dirty_hours(new.columns))


def is_timed(columns: Array) -> NDArray[np.bool_]:
    """Tell which rows carry the vehicle's own time."""
    timed: NDArray[np.bool_] = columns["time_source"] == TimeSource.VEHICLE
    return timed


def _fuel_cells(reports: Reports, rows: NDArray[np.int64]) -> Rows:
    """Return the fuel-cell rows of these reports, with their identity filled in."""
    wanted = np.zeros(len(reports), bool)
    wanted[rows] = True
    chosen = np.flatnonzero(wanted[reports.fuel_cell_row])
    fuel_cells = reports.fuel_cell.take(chosen)
    parents = reports.rows.columns[reports.fuel_cell_row[chosen]]
    for name in ("vehicle_id", "observed_at", "part"):
        fuel_cells.columns[name] = parents[name]
    return fuel_cells
