"""Migrations: applied once, in order, by whoever may, and never changed afterwards."""

import asyncio

import asyncpg
import pytest
from tests.servers.postgres import DatabaseUrls, with_database

from telltale.errors import SettingsError
from telltale.store import migrate


async def test_every_shipped_migration_is_applied_in_order_and_only_once(empty_database_url: str) -> None:
    files = await migrate.migrate(empty_database_url)
    assert [f[:4] for f in files] == sorted(f[:4] for f in files)
    assert files[:3] == ["0001_core.sql", "0002_readings.sql", "0003_alerts.sql"]
    assert await migrate.migrate(empty_database_url) == []


async def test_workers_that_start_at_once_migrate_once(empty_database_url: str) -> None:
    results = await asyncio.gather(*(migrate.migrate(empty_database_url) for _ in range(3)))
    assert sorted(len(files) > 0 for files in results) == [False, False, True]


async def test_a_changed_file_is_refused_with_its_name(empty_database_url: str) -> None:
    await migrate.migrate(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute("UPDATE telltale.migration SET checksum = 'other' WHERE number = 2")
    await connection.close()
    with pytest.raises(SettingsError, match=r"0002_readings\.sql changed after it was applied"):
        await migrate.migrate(empty_database_url)


async def test_a_migration_from_a_newer_version_is_refused(empty_database_url: str) -> None:
    await migrate.migrate(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    await connection.execute("INSERT INTO telltale.migration VALUES (9999, '9999_future.sql', 'x')")
    await connection.close()
    with pytest.raises(SettingsError, match=r"9999_future\.sql is applied but not part"):
        await migrate.migrate(empty_database_url)


async def test_a_failing_migration_leaves_nothing_behind(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = migrate.read("0001_half.sql", "CREATE TABLE telltale.half (); SELECT 1 / 0;")
    monkeypatch.setattr(migrate, "shipped", lambda: [broken])
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate.migrate(empty_database_url)
    connection = await asyncpg.connect(empty_database_url)
    assert await connection.fetchval("SELECT to_regclass('telltale.half')") is None
    assert await connection.fetchval("SELECT count(*) FROM telltale.migration") == 0
    await connection.close()


async def test_a_file_marked_no_transaction_may_build_an_index_concurrently(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = migrate.read("0001_table.sql", "CREATE TABLE telltale.thing (id integer)")
    index = migrate.read(
        "0002_index.sql",
        "-- no-transaction\n-- why\n\nCREATE INDEX CONCURRENTLY IF NOT EXISTS a ON telltale.thing (id)\n\n"
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS b ON telltale.thing (id)\n",
    )
    monkeypatch.setattr(migrate, "shipped", lambda: [table, index])
    assert await migrate.migrate(empty_database_url) == ["0001_table.sql", "0002_index.sql"]
    connection = await asyncpg.connect(empty_database_url)
    assert await connection.fetchval("SELECT to_regclass('telltale.b')") is not None
    await connection.close()


async def test_timescaledb_files_wait_until_the_extension_is_there() -> None:
    both = [migrate.read("0001_a.sql", ""), migrate.read("0002_b.timescaledb.sql", "")]
    assert [m.number for m in migrate.pending(both, {}, timescaledb=False)] == [1]
    assert [m.number for m in migrate.pending(both, {}, timescaledb=True)] == [1, 2]


async def test_a_database_owner_without_superuser_rights_can_migrate(
    postgres_admin_url: str, database_urls: DatabaseUrls
) -> None:
    """Managed servers give out CREATEROLE, not superuser. `database_urls` has already made the roles."""
    admin = await asyncpg.connect(postgres_admin_url)
    await admin.execute("CREATE ROLE telltale_test_dba LOGIN CREATEROLE CREATEDB PASSWORD 'only-for-tests'")
    try:
        roles = [f"telltale_{role}" for role in ("owner", "ingest", "score", "api")]
        for role in roles:
            await admin.execute(f"GRANT {role} TO telltale_test_dba WITH ADMIN OPTION")
        await admin.execute("CREATE DATABASE telltale_test_dba OWNER telltale_test_dba")
        url = with_database(postgres_admin_url, "telltale_test_dba", "telltale_test_dba")
        assert await migrate.migrate(url)
    finally:
        await admin.execute("DROP DATABASE IF EXISTS telltale_test_dba WITH (FORCE)")
        await admin.execute("DROP ROLE telltale_test_dba")
        await admin.close()
