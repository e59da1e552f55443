"""Whether the database can serve this version."""

from __future__ import annotations

from telltale.store.migrate import shipped
from telltale.store.pool import Pool


async def is_migrated(pool: Pool) -> bool:
    """Tell whether every migration that this version ships, for any PostgreSQL, has been applied."""
    if await pool.fetchval("SELECT to_regclass('telltale.migration')") is None:
        return False
    rows = await pool.fetch("SELECT number FROM telltale.migration")
    return {m.number for m in shipped() if not m.timescaledb} <= {row["number"] for row in rows}
