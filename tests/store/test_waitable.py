"""Which errors pass by themselves is told by SQLSTATE."""

import asyncpg
import pytest
from tests.servers.postgres import DatabaseUrls

from telltale.errors import FencedError, WaitableError
from telltale.store.pool import connect, is_waitable, next_step


@pytest.mark.unit
@pytest.mark.parametrize(
    ("error", "waitable"),
    [
        (asyncpg.DeadlockDetectedError("x"), True),
        (asyncpg.SerializationError("x"), True),
        (asyncpg.AdminShutdownError("x"), True),
        (asyncpg.CannotConnectNowError("x"), True),
        (asyncpg.ConnectionDoesNotExistError("x"), True),
        (asyncpg.LockNotAvailableError("x"), True),
        (asyncpg.TooManyConnectionsError("x"), True),
        (asyncpg.DiskFullError("x"), True),
        (asyncpg.ReadOnlySQLTransactionError("x"), True),
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (WaitableError("x"), True),
        (asyncpg.UniqueViolationError("x"), False),
        (asyncpg.UndefinedTableError("connection is closed"), False),
        (asyncpg.InsufficientPrivilegeError("x"), False),
        (asyncpg.InterfaceError("connection is closed"), False),
        (FencedError("x"), False),
        (ValueError("deadlock detected"), False),
    ],
)
def test_errors_are_told_apart_by_code_never_by_text(error: Exception, waitable: bool) -> None:
    assert is_waitable(error) is waitable


async def test_a_terminated_backend_is_waitable_also_at_the_next_use(database_urls: DatabaseUrls) -> None:
    connection = await connect(database_urls.ingest, role_name="ingest", timeout_s=10)
    admin = await connect(database_urls.admin, role_name="test", timeout_s=10)
    await admin.execute("SELECT pg_terminate_backend($1, 5000)", connection.get_server_pid())
    for _ in range(2):
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)) as caught:
            await connection.execute("SELECT 1")
        assert is_waitable(caught.value, connection)
    await admin.close()


@pytest.mark.unit
@pytest.mark.parametrize(
    ("error", "step"),
    [
        (asyncpg.InvalidCatalogNameError("x"), "createdb"),
        (asyncpg.UndefinedTableError("x"), "telltale migrate"),
        (asyncpg.InsufficientPrivilegeError("x"), "a role that may"),
        (asyncpg.InvalidPasswordError("x"), "password"),
        (asyncpg.ClientConfigurationError("x"), "TELLTALE_DATABASE"),
        (ConnectionRefusedError(), "server running"),
    ],
)
def test_an_error_an_operator_can_end_says_how(error: Exception, step: str) -> None:
    assert step in next_step(error)


@pytest.mark.unit
def test_an_error_without_a_known_way_out_names_none() -> None:
    assert next_step(asyncpg.UniqueViolationError("x")) == ""
    assert next_step(FileNotFoundError("x")) == ""
