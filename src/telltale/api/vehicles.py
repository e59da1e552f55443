"""/v1/vehicles: one vehicle, and its readings over time for charts."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Annotated, Any, Final
from uuid import UUID

import numpy as np
from fastapi import APIRouter, Query, Request

from telltale.api import series as shapes
from telltale.api.alerts import aware, mask, shown
from telltale.api.auth import SignedIn
from telltale.api.models import Alert, Band, CellBand, Series, Vehicle
from telltale.api.problems import ProblemError, not_found, responses
from telltale.store.alerts import AlertFilter, list_alerts
from telltale.store.views import (
    CELL_ROWS_LIMIT,
    SERIES_COLUMNS,
    CellRows,
    Window,
    find_vehicle_id,
    get_vehicle,
    read_cells,
    read_extremes,
)

router = APIRouter(prefix="/v1/vehicles", tags=["vehicles"])
CELLS: Final = "cells"
MAX_POINTS: Final = 2000
MAX_COLUMNS: Final = 12
MAX_RANGE: Final = timedelta(days=400)
MAX_CELL_RANGE: Final = timedelta(days=7)
NOT_CLOSED: Final = AlertFilter(states=("open", "acknowledged"))


@router.get("/{public_id}", response_model=Vehicle, responses=responses(401, 404, 422))
async def vehicle(request: Request, caller: SignedIn, public_id: UUID) -> Vehicle:
    """Return a vehicle with its newest report and its alerts that are not closed."""
    pool = request.app.state.pool
    found = await get_vehicle(pool, caller.scope, public_id)
    if found is None:
        raise not_found()
    wanted = AlertFilter(states=NOT_CLOSED.states, vehicle=public_id)
    alerts = await list_alerts(pool, caller.scope, wanted, limit=200)
    if caller.scope.role == "ops":
        found["vin"] = mask(found["vin"])
    found["alerts"] = [Alert.model_validate(shown(alert, caller.scope)) for alert in alerts]
    return Vehicle.model_validate(found)


@router.get("/{public_id}/series", response_model=Series, responses=responses(401, 404, 422))
async def series(
    request: Request,
    caller: SignedIn,
    public_id: UUID,
    columns: Annotated[str, Query(description=f"comma separated report columns, and `{CELLS}`")],
    start: Annotated[datetime, Query(alias="from", description="RFC 3339 with zone")],
    end: Annotated[datetime, Query(alias="to", description="RFC 3339 with zone")],
    points: Annotated[int, Query(ge=10, le=MAX_POINTS)] = 600,
    cell: Annotated[int | None, Query(ge=1, le=10_000, description="number of one cell, from 1")] = None,
) -> Series:
    """Return readings in at most `points` buckets that keep the extremes."""
    names = _columns(columns)
    window = _window(start, end, points, with_cells=CELLS in names)
    pool = request.app.state.pool
    vehicle_id = await find_vehicle_id(pool, caller.scope, public_id)
    if vehicle_id is None:
        raise not_found()
    scalars = [name for name in names if name != CELLS]
    rows = await read_extremes(pool, caller.scope, vehicle_id, window, scalars)
    cells = await read_cells(pool, caller.scope, vehicle_id, window) if CELLS in names else None
    if cells is not None and len(cells.parts) >= CELL_ROWS_LIMIT:
        raise ProblemError(
            422, "invalid-range", f"cells: more than {CELL_ROWS_LIMIT} reports; ask for less time"
        )
    # Sorting a week of cells takes a second of processor: not on the loop that carries the live events.
    return await asyncio.to_thread(_series, public_id, window, rows, scalars, cells, cell)


def _columns(text: str) -> list[str]:
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [name for name in names if name != CELLS and name not in SERIES_COLUMNS]
    if unknown or not names or len(names) > MAX_COLUMNS:
        raise ProblemError(
            422,
            "invalid-request",
            f"columns: expected 1 to {MAX_COLUMNS} report columns or `{CELLS}`, got {unknown or len(names)}",
            columns=[CELLS, *SERIES_COLUMNS],
        )
    return names


def _window(start: datetime, end: datetime, points: int, *, with_cells: bool) -> Window:
    aware("from", start), aware("to", end)
    longest = MAX_CELL_RANGE if with_cells else MAX_RANGE
    if not timedelta(0) < end - start <= longest:
        raise ProblemError(
            422, "invalid-range", f"from, to: expected at most {longest.days} days, `from` before `to`"
        )
    return Window(start, end, max(1.0, (end - start).total_seconds() / points))


def _series(
    public_id: UUID,
    window: Window,
    rows: list[Any],
    scalars: list[str],
    cells: CellRows | None,
    cell: int | None,
) -> Series:
    numbers = np.array([row["bucket"] for row in rows], np.int64)
    starts: shapes.Floats = np.asarray(window.start.timestamp() + numbers * window.bucket_s, np.float64)
    at = shapes.gaps(starts)
    return Series(
        vehicle=public_id,
        start=window.start,
        end=window.end,
        bucket_s=window.bucket_s,
        rows=sum(row["n"] for row in rows),
        t=shapes.broken_times(starts, at),
        columns={name: _band(name, rows, at) for name in scalars},
        cells=_cell_band(cells, numbers, at, cell) if cells is not None else None,
    )


def _band(name: str, rows: list[Any], at: Any) -> Band:
    low, high = (
        np.array(
            [np.nan if row[f"{end}_{name}"] is None else row[f"{end}_{name}"] for row in rows], np.float64
        )
        for end in ("lo", "hi")
    )
    return Band(unit=SERIES_COLUMNS[name], min=shapes.broken(low, at), max=shapes.broken(high, at))


def _cell_band(rows: CellRows, numbers: Any, at: Any, cell: int | None) -> CellBand:
    """Return the band of all cells, and of one, on the buckets `numbers`."""
    row_of = np.cumsum(rows.next_instant, dtype=np.int64)
    offsets = [max(0, (part & 0xFFFF) - 1) if part > 0 else 0 for part in rows.parts]
    matrix = shapes.cells_matrix(rows.packed, offsets, row_of)
    first_of_instant = np.flatnonzero(np.diff(row_of, prepend=-1))
    buckets = shapes.group(np.array(rows.buckets, np.int64)[first_of_instant])
    place = np.searchsorted(numbers, buckets.numbers)

    def spread(values: shapes.Floats) -> list[float | None]:
        full = np.full(len(numbers), np.nan)
        full[place] = values
        return shapes.broken(full, at)

    low, middle, high = shapes.across(matrix)
    one = matrix[:, cell - 1] if cell is not None and cell <= matrix.shape[1] else None
    return CellBand(
        min=spread(buckets.lowest(low)),
        median=spread(buckets.median(middle)),
        max=spread(buckets.highest(high)),
        cell=None
        if one is None
        else Band(unit="V", min=spread(buckets.lowest(one)), max=spread(buckets.highest(one))),
    )
