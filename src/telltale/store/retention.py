"""Raw readings past their time go, a whole seven-day piece at once."""

from __future__ import annotations

from telltale.config import Settings
from telltale.store.pool import Connection, connect


async def drop_older(connection: Connection, days: float) -> list[str]:
    """Drop the pieces that lie wholly more than `days` days back; return their names. 0 keeps all.

    A partition of plain PostgreSQL or a chunk of TimescaleDB is a piece. Needs the role `score` or the
    owner. Waits at most five seconds for readers and then fails with SQLSTATE 55P03: try again.
    """
    if days <= 0:
        return []
    query = "SELECT drop_readings_before(now() - make_interval(secs => $1)) ORDER BY 1"
    return [row[0] for row in await connection.fetch(query, days * 86_400)]


async def maintain(settings: Settings) -> list[str]:
    """Do what has to be done now and then, once; return the names of dropped pieces."""
    connection = await connect(settings.database, role_name="maintain", timeout_s=settings.database_timeout_s)
    try:
        return await drop_older(connection, settings.retention_days)
    finally:
        await connection.close()
