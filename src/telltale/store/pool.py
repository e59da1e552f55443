"""Connections with every guard set: time limits, search path, name, JSON codec; errors told by SQLSTATE."""

from __future__ import annotations

import socket
from typing import Any, Final, TypeAlias

import asyncpg
import orjson

from telltale.errors import TelltaleError, WaitableError

Pool: TypeAlias = asyncpg.Pool
Connection: TypeAlias = asyncpg.Connection
PostgresError = asyncpg.PostgresError
InterfaceError = asyncpg.InterfaceError

SCHEMA: Final = "telltale"
JSONB_VERSION: Final = b"\x01"

# Conditions of the server or the way to it, not of the statement: the same statement may go through later.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
WAITABLE_CLASSES: Final = frozenset({"08", "40", "53", "58"})  # connection, rollback, resources, I/O
WAITABLE_STATES: Final = frozenset(
    {
        "25006",  # read-only: the server has become a standby
        "25P03",  # idle-in-transaction timeout
        "55006",  # object in use
        "55P03",  # lock not available
        "57014",  # statement timeout
        "57P01",  # admin shutdown
        "57P02",  # crash shutdown
        "57P03",  # cannot connect now: starting up or in recovery
        "57P05",  # idle session timeout
    }
)


def sqlstate_of(exc: BaseException) -> str | None:
    """Return the five-character SQLSTATE of an error that PostgreSQL sent, or None."""
    state = getattr(exc, "sqlstate", None)
    return state if isinstance(state, str) else None


def is_waitable(exc: BaseException, connection: Connection | None = None) -> bool:
    """Tell whether the same work may succeed later, judged by type and SQLSTATE only.

    A driver error without SQLSTATE counts as waitable when `connection` is given and closed: the driver
    says "connection is closed" and "you used it wrongly" by the same type.
    """
    if isinstance(exc, (OSError, TimeoutError, WaitableError)):
        return True
    state = sqlstate_of(exc)
    if state is not None:
        return state[:2] in WAITABLE_CLASSES or state in WAITABLE_STATES
    if isinstance(exc, asyncpg.InternalClientError):  # the server ended the session in mid-operation
        return True
    return isinstance(exc, asyncpg.InterfaceError) and connection is not None and connection.is_closed()


# Data exception, integrity constraint, program limit: what was to be stored is refused, again and again.
REFUSED_CLASSES: Final = frozenset({"22", "23", "54"})


def may_be_of_the_data(exc: BaseException) -> bool:
    """Tell whether an error may come from what was to be stored, not from the server or the statement.

    An error that is neither the database's nor said on purpose is a bug that some value has met.
    """
    if isinstance(exc, TelltaleError) or not isinstance(exc, Exception) or is_waitable(exc):
        return False
    state = sqlstate_of(exc)
    if state is not None:
        return state[:2] in REFUSED_CLASSES
    return isinstance(exc, ValueError) or not isinstance(exc, asyncpg.InterfaceError)


CORRECT_URL: Final = "correct TELLTALE_DATABASE: user, password, database"


def next_step(exc: BaseException) -> str:
    """Return what to do about a database error, told by type and SQLSTATE; '' if nothing is known to help."""
    state = sqlstate_of(exc)
    if state == "3D000":
        return "make it with createdb, or correct TELLTALE_DATABASE"
    if state in ("42P01", "42703", "3F000"):  # no such table, column, schema
        return "run: telltale migrate"
    if state == "42501":
        return "let TELLTALE_DATABASE name a role that may; for key and vehicles the one that migrated"
    if state is not None:
        return CORRECT_URL if state[:2] == "28" else ""
    if isinstance(exc, asyncpg.ClientConfigurationError):
        return CORRECT_URL
    if isinstance(exc, (ConnectionRefusedError, TimeoutError, socket.gaierror)):
        return "is the server running, and is TELLTALE_DATABASE right?"
    return ""


async def prepare(connection: Connection) -> None:
    """Make jsonb values Python objects on this connection, through orjson."""
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: JSONB_VERSION + orjson.dumps(value),
        decoder=lambda data: orjson.loads(data[1:]),
        format="binary",
    )


def guards(role_name: str, timeout_s: float) -> dict[str, Any]:
    """Return the connection arguments that keep a worker from hanging.

    The server gives up first (statement_timeout), so that the error carries a SQLSTATE; the client's own
    limit, two seconds later, covers a connection that went silent.
    """
    limit_ms = str(max(1, round(timeout_s * 1000)))
    return {
        "timeout": timeout_s,
        "command_timeout": timeout_s + 2,
        "server_settings": {
            "application_name": f"telltale-{role_name}",
            "search_path": SCHEMA,
            "timezone": "UTC",
            "statement_timeout": limit_ms,
            "idle_in_transaction_session_timeout": limit_ms,
            "jit": "off",
        },
    }


async def open_pool(
    url: str, *, role_name: str, timeout_s: float, min_size: int = 1, max_size: int = 4
) -> Pool:
    """Open a pool of guarded connections; `timeout_s` bounds every connect and every command.

    `role_name` (ingest, score, api, ...) becomes the application name. Raises what the first connect
    raises: ask `is_waitable`.
    """
    pool: Pool = await asyncpg.create_pool(
        url, min_size=min_size, max_size=max_size, init=prepare, **guards(role_name, timeout_s)
    )
    return pool


async def connect(url: str, *, role_name: str, timeout_s: float) -> Connection:
    """Open one guarded connection, for work that must stay on one backend."""
    connection: Connection = await asyncpg.connect(url, **guards(role_name, timeout_s))
    await prepare(connection)
    return connection
