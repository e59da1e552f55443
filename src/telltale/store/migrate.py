"""Forward-only numbered SQL files, applied once each, in order, under an advisory lock.

A file is `NNNN_name.sql` in `telltale/store/migrations`. `NNNN_name.timescaledb.sql` counts only where the
extension is there. A file runs in one transaction, unless its first line is `-- no-transaction`: then its
statements, separated by blank lines, run one by one, and each must be safe to repeat.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Final

from telltale.errors import SettingsError
from telltale.store.pool import Connection, connect

LOCK: Final = 0x74656C6C74616C65  # "telltale"
NAME: Final = re.compile(r"(?P<number>\d{4})_(?P<name>[a-z0-9_]+)(?P<timescaledb>\.timescaledb)?\.sql")
NO_TRANSACTION: Final = "-- no-transaction"
TIMEOUT_S: Final = 600.0

LEDGER: Final = """
CREATE SCHEMA IF NOT EXISTS telltale;
CREATE TABLE IF NOT EXISTS telltale.migration (
    number integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
GRANT SELECT ON telltale.migration TO PUBLIC;
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered SQL file."""

    number: int
    file: str
    sql: str
    timescaledb: bool

    @property
    def checksum(self) -> str:
        """Return the SHA-256 of the file's text, in hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def in_transaction(self) -> bool:
        """Tell whether the whole file runs in one transaction."""
        return not self.sql.startswith(NO_TRANSACTION)

    def statements(self) -> list[str]:
        """Return what to send to the server, one round trip each."""
        if self.in_transaction:
            return [self.sql]
        return [block for block in re.split(r"\n\s*\n", self.sql) if sql_of(block)]


def sql_of(block: str) -> str:
    """Return a block without its comment lines."""
    return "\n".join(line for line in block.splitlines() if line.strip() and not line.startswith("--"))


def shipped() -> list[Migration]:
    """Return the migrations in this installation, by number; refuse bad names and repeated numbers."""
    folder = resources.files("telltale.store") / "migrations"
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    found: dict[int, Migration] = {}
    for file in files:
        migration = read(file, (folder / file).read_text(encoding="utf-8"))
        if migration.number in found:
            raise SettingsError(f"migrations {found[migration.number].file} and {file} have the same number")
        found[migration.number] = migration
    return list(found.values())


def read(file: str, sql: str) -> Migration:
    """Return the migration in a file of this name."""
    match = NAME.fullmatch(file)
    if match is None:
        raise SettingsError(f"migration {file}: expected a name like 0007_words.sql")
    return Migration(int(match["number"]), file, sql.replace("\r\n", "\n"), match["timescaledb"] is not None)


async def applied(connection: Connection) -> dict[int, tuple[str, str]]:
    """Return (file, checksum) of each applied migration by number; nothing before the first run."""
    if await connection.fetchval("SELECT to_regclass('telltale.migration')") is None:
        return {}
    rows = await connection.fetch("SELECT number, name, checksum FROM telltale.migration ORDER BY number")
    return {row["number"]: (row["name"], row["checksum"]) for row in rows}


def pending(
    migrations: Sequence[Migration], done: dict[int, tuple[str, str]], *, timescaledb: bool
) -> list[Migration]:
    """Return what is still to be applied; refuses a history that these files cannot have made."""
    for number, (name, checksum) in done.items():
        match = next((m for m in migrations if m.number == number), None)
        if match is None:
            raise SettingsError(
                f"database: migration {name} is applied but not part of this version; "
                "install the version of telltale that brought it, or a newer one"
            )
        if match.checksum != checksum:
            raise SettingsError(
                f"migration {match.file} changed after it was applied: expected sha256 {checksum[:12]}..., "
                f"got {match.checksum[:12]}...; restore the file and put the change into a new number"
            )
    return [m for m in migrations if m.number not in done and (timescaledb or not m.timescaledb)]


async def has_timescaledb(connection: Connection) -> bool:
    """Tell whether the extension is installed in this database."""
    found: bool = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')"
    )
    return found


async def enable_timescaledb(connection: Connection) -> bool:
    """Create the extension where the server offers it; tell whether it is there."""
    offered = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')"
    )
    if offered and not await has_timescaledb(connection):
        await connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb WITH SCHEMA public")
    return await has_timescaledb(connection)


@asynccontextmanager
async def alone(connection: Connection) -> AsyncIterator[None]:
    """Hold the advisory lock, so that two starting workers never migrate at once."""
    await connection.execute("SELECT pg_advisory_lock($1)", LOCK)
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.execute("SELECT pg_advisory_unlock($1)", LOCK)


RECORD: Final = "INSERT INTO telltale.migration (number, name, checksum) VALUES ($1, $2, $3)"


async def apply(connection: Connection, migration: Migration) -> None:
    """Run one migration and write it into the ledger, in one transaction unless the file says otherwise."""
    entry = (migration.number, migration.file, migration.checksum)
    if not migration.in_transaction:
        for statement in migration.statements():
            await connection.execute(statement)
        await connection.execute(RECORD, *entry)
        return
    async with connection.transaction():
        await connection.execute(migration.sql)
        await connection.execute("RESET ROLE")  # files run as the owner; the ledger belongs to who migrates
        await connection.execute(RECORD, *entry)


async def migrate(url: str) -> list[str]:
    """Bring the database up to this version; return the files applied now, in order.

    `url` is of a role that may create roles and extensions, and create in this database. Safe to run from
    several machines at once. Raises SettingsError when an applied file has changed or is unknown.
    """
    connection = await connect(url, role_name="migrate", timeout_s=TIMEOUT_S)
    try:
        async with alone(connection):
            timescaledb = await enable_timescaledb(connection)
            await connection.execute("SET client_min_messages = warning")
            await connection.execute(LEDGER)
            await connection.execute("SET search_path = telltale, public")
            todo = pending(shipped(), await applied(connection), timescaledb=timescaledb)
            for migration in todo:
                await apply(connection, migration)
        return [migration.file for migration in todo]
    finally:
        await connection.close()
