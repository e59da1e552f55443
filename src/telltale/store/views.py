"""What the API reads of vehicles and their readings, always inside a scope, through the scoped views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from telltale.records import REPORT_SCALARS
from telltale.store.pool import Pool
from telltale.store.scope import Scope, scoped

# Positions are personal data: no series of them leaves through this door.
_PERSONAL: Final = frozenset({"longitude_deg", "latitude_deg"})
SERIES_COLUMNS: Final = {c.name: c.unit for c in REPORT_SCALARS if c.name not in _PERSONAL}
CELL_ROWS_LIMIT: Final = 200_000

_VEHICLE: Final = """
    SELECT id, public_id, vin, variant, dealer, chemistry, pack_design, nominal_capacity_ah, build_date,
           plant, region, in_service_date, software_version, registered_at
    FROM telltale.vehicle WHERE ($1::text IS NULL OR dealer = $1) AND public_id = $2"""
_BUCKET: Final = "floor(extract(epoch FROM observed_at - $2) / $4::float8)::integer"
_NEWEST: Final = """
    SELECT observed_at, received_at, soc_pct, odometer_km, pack_voltage_v, pack_current_a, insulation_kohm,
           cell_voltage_max_v, cell_voltage_min_v, cell_temp_max_degc, cell_temp_min_degc
    FROM telltale.scoped_report WHERE vehicle_id = $1 AND part <= 0 ORDER BY observed_at DESC LIMIT 1"""


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of event time and the width of its buckets."""

    start: datetime
    end: datetime
    bucket_s: float


@dataclass(frozen=True, slots=True)
class CellRows:
    """Cell lists of a stretch of time, oldest first, as stored; `parts` as in `report.part`."""

    buckets: list[int]  # number of the bucket each row falls into
    next_instant: list[bool]  # whether a row begins another instant than the row before it
    parts: list[int]
    packed: list[bytes]


async def get_vehicle(pool: Pool, scope: Scope, public_id: UUID) -> dict[str, Any] | None:
    """Return a vehicle with its newest report under `newest`, or None when there is none in this scope."""
    async with scoped(pool, scope) as connection:
        row = await connection.fetchrow(_VEHICLE, scope.dealer, public_id)
        if row is None:
            return None
        newest = await connection.fetchrow(_NEWEST, row["id"])
    return dict(row) | {"newest": dict(newest) if newest else None}


async def find_vehicle_id(pool: Pool, scope: Scope, public_id: UUID) -> int | None:
    """Return the number of a vehicle in this scope, or None."""
    async with scoped(pool, scope) as connection:
        row = await connection.fetchrow(_VEHICLE, scope.dealer, public_id)
    return row["id"] if row else None


async def read_extremes(
    pool: Pool, scope: Scope, vehicle_id: int, window: Window, columns: Sequence[str]
) -> list[Any]:
    """Return one row a bucket: its number, `n` reports, `lo_<column>` and `hi_<column>` (null: no value).

    columns: names in SERIES_COLUMNS. Done by the server, so that a year costs no memory here.
    """
    unknown = [name for name in columns if name not in SERIES_COLUMNS]
    if unknown:
        raise ValueError(f"series: expected names of report columns, got {unknown}")
    wanted = "".join(
        f", min(nullif({name}::float8, 'NaN')) AS lo_{name}, max(nullif({name}::float8, 'NaN')) AS hi_{name}"
        for name in columns
    )
    query = f"""SELECT {_BUCKET} AS bucket, count(*) AS n{wanted} FROM telltale.scoped_report
        WHERE vehicle_id = $1 AND observed_at >= $2 AND observed_at < $3
        GROUP BY 1 ORDER BY 1"""  # noqa: S608 - names checked above
    async with scoped(pool, scope) as connection:
        rows: list[Any] = await connection.fetch(query, vehicle_id, window.start, window.end, window.bucket_s)
    return rows


async def read_cells(pool: Pool, scope: Scope, vehicle_id: int, window: Window) -> CellRows:
    """Return the cell lists of a vehicle, at most CELL_ROWS_LIMIT of them."""
    query = f"""SELECT {_BUCKET} AS bucket, observed_at, part, cells_mv FROM telltale.scoped_report
        WHERE vehicle_id = $1 AND observed_at >= $2 AND observed_at < $3 AND length(cells_mv) > 0
        ORDER BY observed_at, part LIMIT $5"""  # noqa: S608 - constants only
    async with scoped(pool, scope) as connection:
        rows = await connection.fetch(
            query, vehicle_id, window.start, window.end, window.bucket_s, CELL_ROWS_LIMIT
        )
    instants = [i > 0 and row["observed_at"] != rows[i - 1]["observed_at"] for i, row in enumerate(rows)]
    return CellRows(
        [r["bucket"] for r in rows], instants, [r["part"] for r in rows], [r["cells_mv"] for r in rows]
    )
