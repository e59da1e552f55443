"""What vehicles are, from a CSV import: values with the day they became true, none ever overwritten."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from telltale.errors import SettingsError

ATTRIBUTES: Final = (
    "variant",
    "chemistry",
    "pack_design",
    "nominal_capacity_ah",
    "build_date",
    "plant",
    "dealer",
    "region",
    "in_service_date",
    "software_version",
)
COLUMNS: Final = frozenset({"vin", "valid_from", *ATTRIBUTES})
_VIN: Final = re.compile(r"[A-HJ-NPR-Z0-9]{17}")  # ISO 3779

_REGISTER: Final = """
INSERT INTO vehicle (vin, vin_valid)
SELECT vin, valid FROM unnest($1::text[], $2::boolean[]) AS given (vin, valid)
ON CONFLICT (vin) DO NOTHING
"""

# A value that says what was already known for that day adds nothing.
_RECORD: Final = """
INSERT INTO vehicle_attribute (vehicle_id, name, value, valid_from, origin)
SELECT DISTINCT ON (v.id, given.name, given.valid_from) v.id, given.name, given.value, given.valid_from, $5
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
     WITH ORDINALITY AS given (vin, name, value, valid_from, line)
JOIN vehicle v USING (vin)
WHERE given.value IS DISTINCT FROM (
    SELECT known.value FROM vehicle_attribute known
    WHERE known.vehicle_id = v.id AND known.name = given.name AND known.valid_from <= given.valid_from
    ORDER BY known.valid_from DESC, known.recorded_at DESC LIMIT 1)
ORDER BY v.id, given.name, given.valid_from, given.line DESC
"""

_NEWEST: Final = """
WITH newest AS (
    SELECT DISTINCT ON (vehicle_id, name) vehicle_id, name, value FROM vehicle_attribute
    WHERE valid_from <= now() AND vehicle_id IN (SELECT id FROM vehicle WHERE vin = ANY ($1))
    ORDER BY vehicle_id, name, valid_from DESC, recorded_at DESC
), wide AS (
    SELECT vehicle_id,
           max(value) FILTER (WHERE name = 'variant') AS variant,
           max(value) FILTER (WHERE name = 'chemistry') AS chemistry,
           max(value) FILTER (WHERE name = 'pack_design') AS pack_design,
           max(value) FILTER (WHERE name = 'nominal_capacity_ah')::real AS nominal_capacity_ah,
           max(value) FILTER (WHERE name = 'build_date')::date AS build_date,
           max(value) FILTER (WHERE name = 'plant') AS plant,
           max(value) FILTER (WHERE name = 'dealer') AS dealer,
           max(value) FILTER (WHERE name = 'region') AS region,
           max(value) FILTER (WHERE name = 'in_service_date')::date AS in_service_date,
           max(value) FILTER (WHERE name = 'software_version') AS software_version
    FROM newest GROUP BY vehicle_id
)
UPDATE vehicle SET (variant, chemistry, pack_design, nominal_capacity_ah, build_date, plant, dealer, region,
                    in_service_date, software_version)
    = (wide.variant, wide.chemistry, wide.pack_design, wide.nominal_capacity_ah, wide.build_date, wide.plant,
       wide.dealer, wide.region, wide.in_service_date, wide.software_version)
FROM wide WHERE vehicle.id = wide.vehicle_id
"""


async def import_vehicles(
    connection: Any, rows: Iterable[Mapping[str, str]], *, origin: str, valid_from: datetime
) -> int:
    """Record what these rows say of vehicles, in one transaction; return how many vehicles they name.

    A row has `vin` and any of ATTRIBUTES; an empty cell says nothing. `valid_from` (RFC 3339) in a row says
    since when it holds, else the argument does. Vehicles not heard of yet are registered. Connect as
    telltale_owner. Raises SettingsError naming the line of a value that does not fit.
    """
    given = [_checked(row, line, valid_from) for line, row in enumerate(rows, start=2)]
    vins = list(dict.fromkeys(vin for vin, _, _ in given))
    values = [(vin, name, value, since) for vin, since, named in given for name, value in named.items()]
    async with connection.transaction():
        await connection.execute(_REGISTER, vins, [bool(_VIN.fullmatch(vin)) for vin in vins])
        if values:
            await connection.execute(_RECORD, *map(list, zip(*values, strict=True)), origin)
        await connection.execute(_NEWEST, vins)
    return len(vins)


def read_csv(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file by column name. Raises SettingsError when it cannot be read."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            return list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"vehicles: cannot read {file}: {error}") from error


def _checked(row: Mapping[str, str], line: int, valid_from: datetime) -> tuple[str, datetime, dict[str, str]]:
    """Return (VIN, since when, attributes) of one row; line 1 holds the names."""
    unknown = set(row) - COLUMNS
    if unknown:
        raise SettingsError(
            f"vehicles: unknown column {', '.join(sorted(map(str, unknown)))}; "
            f"known are {', '.join(sorted(COLUMNS))}"
        )
    vin = (row.get("vin") or "").strip().upper()
    if not vin:
        raise SettingsError(f"vehicles: line {line} has no vin")
    named = {name: value.strip() for name in ATTRIBUTES if (value := row.get(name) or "").strip()}
    try:
        since = _instant(row.get("valid_from") or "") or valid_from
        float(named.get("nominal_capacity_ah", "0"))
        for name in ("build_date", "in_service_date"):
            date.fromisoformat(named.get(name, "2000-01-01"))
    except ValueError as error:
        raise SettingsError(f"vehicles: line {line}: {error}") from error
    return vin, since, named


def _instant(text: str) -> datetime | None:
    if not text.strip():
        return None
    instant = datetime.fromisoformat(text.strip())
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
