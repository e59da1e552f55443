"""Look at a database server the way an operator would: what it has, what is missing, what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from telltale.errors import SettingsError
from telltale.store import migrate
from telltale.store.pool import Connection, connect

OLDEST: Final = 150_000  # server_version_num
ROLES: Final = ("telltale_owner", "telltale_ingest", "telltale_score", "telltale_api")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; `next_step` is empty when nothing needs to be done."""

    name: str
    value: str
    next_step: str = ""


async def examine(url: str, *, timeout_s: float) -> list[Finding]:
    """Return what the database server has and lacks. Raises what the connect raises."""
    connection = await connect(url, role_name="doctor", timeout_s=timeout_s)
    try:
        return [
            await _server(connection),
            *await _extensions(connection),
            await _roles(connection),
            await _migrations(connection),
            *await _halted(connection),
        ]
    finally:
        await connection.close()


async def _halted(connection: Connection) -> list[Finding]:
    """Return what waits for an operator's word, with the reason."""
    if await connection.fetchval("SELECT to_regclass('telltale.ingest_offset')") is None:
        return []
    rows = await connection.fetch(
        "SELECT topic, partition, halted_at, halt_reason FROM telltale.ingest_offset "
        "WHERE halted_at IS NOT NULL ORDER BY topic, partition"
    )
    return [
        Finding(
            f"{row['topic']}[{row['partition']}]",
            f"halted since {row['halted_at']:%Y-%m-%d %H:%M}Z",
            row["halt_reason"],
        )
        for row in rows
    ]


async def _server(connection: Connection) -> Finding:
    number = int(await connection.fetchval("SHOW server_version_num"))
    step = "" if number >= OLDEST else "telltale needs PostgreSQL 15 or newer: upgrade the server"
    return Finding("PostgreSQL", await connection.fetchval("SHOW server_version"), step)


async def _extensions(connection: Connection) -> list[Finding]:
    """TimescaleDB is a choice, not a need: its absence asks for nothing, its presence unused does."""
    query = (
        "SELECT name, default_version, installed_version FROM pg_available_extensions WHERE name = ANY ($1)"
    )
    instead = {"timescaledb": "plain partitions are used", "timescaledb_toolkit": "not needed"}
    names = list(instead)
    offered = {row["name"]: row for row in await connection.fetch(query, names)}
    found = []
    for name in names:
        row = offered.get(name)
        if row is None:
            found.append(Finding(name, f"not on this server: {instead[name]}"))
        elif row["installed_version"] is None:
            found.append(Finding(name, f"{row['default_version']} on the server, not in this database"))
        else:
            found.append(Finding(name, str(row["installed_version"])))
    if await migrate.has_timescaledb(connection):
        found.insert(1, await _columnstore(connection))
    return found


async def _columnstore(connection: Connection) -> Finding:
    licence = await connection.fetchval("SELECT current_setting('timescaledb.license', true)")
    if licence == "timescale":
        return Finding("columnstore", "there")
    return Finding("columnstore", f"not in a build with the {licence} license: readings stay uncompressed")


async def _roles(connection: Connection) -> Finding:
    there = await connection.fetch("SELECT rolname FROM pg_roles WHERE rolname = ANY ($1)", list(ROLES))
    missing = set(ROLES) - {row[0] for row in there}
    if missing:
        return Finding("roles", f"missing: {', '.join(sorted(missing))}", "run: telltale migrate")
    return Finding("roles", ", ".join(ROLES))


async def _migrations(connection: Connection) -> Finding:
    done = await migrate.applied(connection)
    has_extension = await migrate.has_timescaledb(connection)
    try:
        todo = migrate.pending(migrate.shipped(), done, timescaledb=has_extension)
    except SettingsError as error:
        return Finding("migrations", f"{len(done)} applied", str(error))
    if todo:
        names = ", ".join(m.file for m in todo)
        return Finding("migrations", f"{len(done)} applied, pending: {names}", "run: telltale migrate")
    return Finding("migrations", f"{len(done)} applied, none pending")
