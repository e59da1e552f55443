"""What is known of vehicles beside their telemetry, with history: since when true, since when known."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from telltale.config import Settings
from telltale.errors import SettingsError
from telltale.store.pool import Connection, connect

VIN: Final = re.compile(r"[A-HJ-NPR-Z0-9]{17}")
SHOWN_ERRORS: Final = 20


def _text(text: str) -> str:
    if len(text) > 200:
        raise ValueError("at most 200 characters")
    return text


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError("a date like 2024-03-31") from None


def _capacity(text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 10_000:
        raise ValueError("ampere-hours between 0 and 10000") from None
    return f"{value:g}"


# Column → what makes its text canonical; a ValueError says what was expected.
ATTRIBUTES: Final[dict[str, Callable[[str], str]]] = {
    "variant": _text,
    "chemistry": _text,
    "pack_design": _text,
    "nominal_capacity_ah": _capacity,
    "build_date": _day,
    "plant": _text,
    "dealer": _text,
    "region": _text,
    "in_service_date": _day,
    "software_version": _text,
}
COLUMNS: Final = frozenset({"vin", *ATTRIBUTES, "valid_from"})


@dataclass(frozen=True, slots=True)
class Statement:
    """What one line of a file says of one vehicle; an empty cell says nothing."""

    line: int
    vin: str
    valid_from: datetime | None  # None: always so, or from now on if something else was known
    values: dict[str, str]


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import changed."""

    vehicles: int  # named in the file
    registered: int  # of those, not known before
    changes: int  # rows added to the history


def read_vehicles(path: Path, now: datetime, valid_from: datetime | None = None) -> list[Statement]:
    """Read and check a whole CSV file (UTF-8); `valid_from` stands in where a line has none.

    Raises SettingsError with line, column, expected and got of each fault; `now` bounds valid_from.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{path.name}: expected UTF-8, got byte {error.object[error.start]:#04x} at {error.start}; "
            "save it as CSV UTF-8"
        ) from error
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    reader = csv.DictReader(text.splitlines(keepends=True), restkey="", restval="")
    _check_headings(path.name, reader.fieldnames or ())
    return check(((reader.line_num, row) for row in reader), path.name, now, valid_from)


def check(
    rows: Iterable[tuple[int, Mapping[str, str]]], origin: str, now: datetime, valid_from: datetime | None
) -> list[Statement]:
    """Return what numbered rows say. Raises one SettingsError that names every fault."""
    faults: list[str] = []
    statements = [_statement(line, row, now, faults) for line, row in rows]
    statements = [replace(s, valid_from=s.valid_from or valid_from) for s in statements]
    faults += _repeated(statements)
    if faults:
        more = [f"... and {len(faults) - SHOWN_ERRORS} more"] if len(faults) > SHOWN_ERRORS else []
        lines = "\n".join(faults[:SHOWN_ERRORS] + more)
        raise SettingsError(f"{origin}: nothing was imported\n{lines}")
    return statements


def _check_headings(origin: str, names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in COLUMNS]
    if "vin" in names and not unknown and len(set(names)) == len(names):
        return
    raise SettingsError(
        f"{origin} line 1: expected the column vin and any of {', '.join([*ATTRIBUTES, 'valid_from'])}, "
        f"once each and separated by commas; got {', '.join(names) or 'nothing'}"
    )


def _statement(line: int, row: Mapping[str, str], now: datetime, faults: list[str]) -> Statement:
    if "" in row:
        faults.append(f"line {line}: expected as many cells as headings, got more")
    vin = (row.get("vin") or "").strip().upper()
    if VIN.fullmatch(vin) is None:
        faults.append(
            f"line {line}, vin: expected 17 of A-Z and 0-9 without I, O and Q, got {len(vin)} characters"
        )
    values: dict[str, str] = {}
    for name, canonical in ATTRIBUTES.items():
        if text := (row.get(name) or "").strip():
            try:
                values[name] = canonical(text)
            except ValueError as fault:
                faults.append(f'line {line}, {name}: expected {fault}, got "{text[:40]}"')
    return Statement(line, vin, _valid_from(line, (row.get("valid_from") or "").strip(), now, faults), values)


def _valid_from(line: int, text: str, now: datetime, faults: list[str]) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        faults.append(
            f"line {line}, valid_from: expected a date or time like 2024-03-31 or 2024-03-31T08:00+08:00, "
            f'got "{text}"'
        )
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if moment > now:
        faults.append(f'line {line}, valid_from: expected a time that has come, got "{text}"')
    return moment


def _repeated(statements: Iterable[Statement]) -> list[str]:
    seen: dict[tuple[str, datetime | None], int] = {}
    faults = []
    for statement in statements:
        first = seen.setdefault((statement.vin, statement.valid_from), statement.line)
        if first != statement.line:
            faults.append(
                f"line {statement.line}: expected one line a vehicle and valid_from, got line {first} again"
            )
    return faults


REGISTER: Final = """
INSERT INTO vehicle (vin, vin_valid) SELECT vin, true FROM unnest($1::text[]) AS vin
ON CONFLICT (vin) DO NOTHING RETURNING id
"""
# A first value without date holds from the beginning of time; a different one without date from now on.
RECORD: Final = """
INSERT INTO vehicle_attribute (vehicle_id, name, value, valid_from, recorded_at, origin)
SELECT v.id, said.name, said.value,
       coalesce(said.valid_from, CASE WHEN known.value IS NULL THEN 'epoch' ELSE now() END),
       clock_timestamp(), $5
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) AS said (vin, name, value, valid_from)
JOIN vehicle v USING (vin)
LEFT JOIN LATERAL (
    SELECT a.value FROM vehicle_attribute a
    WHERE a.vehicle_id = v.id AND a.name = said.name AND a.valid_from <= coalesce(said.valid_from, now())
    ORDER BY a.valid_from DESC, a.recorded_at DESC LIMIT 1
) AS known ON true
WHERE known.value IS DISTINCT FROM said.value
"""
REFRESH: Final = """
UPDATE vehicle v SET
    variant = c.now ->> 'variant', chemistry = c.now ->> 'chemistry', pack_design = c.now ->> 'pack_design',
    nominal_capacity_ah = (c.now ->> 'nominal_capacity_ah')::real,
    build_date = (c.now ->> 'build_date')::date,
    plant = c.now ->> 'plant', dealer = c.now ->> 'dealer', region = c.now ->> 'region',
    in_service_date = (c.now ->> 'in_service_date')::date, software_version = c.now ->> 'software_version'
FROM (
    SELECT vehicle_id, jsonb_object_agg(name, value) AS now FROM (
        SELECT DISTINCT ON (a.vehicle_id, a.name) a.vehicle_id, a.name, a.value
        FROM vehicle_attribute a JOIN vehicle w ON w.id = a.vehicle_id WHERE w.vin = ANY ($1::text[])
        ORDER BY a.vehicle_id, a.name, a.valid_from DESC, a.recorded_at DESC
    ) AS newest GROUP BY vehicle_id
) AS c
WHERE v.id = c.vehicle_id
"""


async def import_vehicles(
    connection: Connection,
    rows: Iterable[Mapping[str, str]],
    *,
    origin: str,
    valid_from: datetime | None = None,
) -> int:
    """Check and write rows keyed by column name; return how many vehicles they name. See `write`."""
    rows = list(rows)
    for row in rows:
        _check_headings(origin, tuple(row))
    numbered = enumerate(rows, start=2)  # as in a file whose first line holds the names
    done = await write(connection, check(numbered, origin, datetime.now(UTC), valid_from), origin)
    return done.vehicles


async def write(connection: Connection, statements: Sequence[Statement], origin: str) -> Imported:
    """Write statements into the history and refresh the current columns, all or nothing.

    Needs the owner's role. What is already known adds no row; unknown vehicles are registered. `origin`
    says who told us (a file name).
    """
    vins = sorted({s.vin for s in statements})
    async with connection.transaction():
        registered = await connection.fetch(REGISTER, vins)
        changes = 0
        for batch in _rounds(statements):
            cells = [(s.vin, name, value, s.valid_from) for s in batch for name, value in s.values.items()]
            if cells:
                status = await connection.execute(RECORD, *map(list, zip(*cells, strict=True)), origin)
                changes += int(status.rpartition(" ")[2])
        if changes:
            await connection.execute(REFRESH, vins)
    return Imported(len(vins), len(registered), changes)


async def import_file(settings: Settings, path: Path, valid_from: datetime | None) -> Imported:
    """Check a whole CSV file, then import it with its name as origin."""
    statements = read_vehicles(path, datetime.now(UTC), valid_from)
    connection = await connect(settings.database, role_name="import", timeout_s=settings.database_timeout_s)
    try:
        return await write(connection, statements, path.name)
    finally:
        await connection.close()


def _rounds(statements: Sequence[Statement]) -> list[list[Statement]]:
    """Split statements so that each round names a vehicle once, oldest first, undated ones last."""
    newest = datetime.max.replace(tzinfo=UTC)
    count: dict[str, int] = {}
    rounds: list[list[Statement]] = []
    for statement in sorted(statements, key=lambda s: s.valid_from or newest):
        turn = count.get(statement.vin, 0)
        count[statement.vin] = turn + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(statement)
    return rounds


AS_OF: Final = """
SELECT DISTINCT ON (vehicle_id, name) vehicle_id, name, value FROM vehicle_attribute
WHERE vehicle_id = ANY ($1::integer[]) AND valid_from <= $2 AND recorded_at <= $3
ORDER BY vehicle_id, name, valid_from DESC, recorded_at DESC
"""


async def as_of(
    connection: Connection, vehicle_ids: Sequence[int], valid_at: datetime, known_at: datetime
) -> dict[int, dict[str, str]]:
    """Return each vehicle's attributes as they were at `valid_at`, by what had been recorded at `known_at`.

    Values are text as in `vehicle_attribute`; what was not known is left out.
    """
    found: dict[int, dict[str, str]] = {vehicle: {} for vehicle in vehicle_ids}
    for row in await connection.fetch(AS_OF, list(vehicle_ids), valid_at, known_at):
        found[row["vehicle_id"]][row["name"]] = row["value"]
    return found
