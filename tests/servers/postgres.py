"""A PostgreSQL per test session, and a fresh, migrated database per test.

`TELLTALE_TEST_DATABASE_URL` (a superuser's URL) names a server to use instead of the embedded one;
`TELLTALE_TEST_POSTGRES=debian15` runs PostgreSQL 15 from Debian's packages.
"""

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from telltale import embedded
from telltale.store.migrate import migrate

T = TypeVar("T")
DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
ROLES = ("owner", "ingest", "score", "api")
PASSWORD = "only-for-tests"  # of the roles on a server that asks for one
NO_DURABILITY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True, slots=True)
class DatabaseUrls:
    """URLs of one database, as its superuser and as each of telltale's roles."""

    admin: str
    owner: str
    ingest: str
    score: str
    api: str


def missing(reason: str) -> None:
    """Skip, or fail where a missing server is a fault of the machine."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; under CI=true this is a failure")
    pytest.skip(reason)


def with_database(url: str, database: str, role: str | None = None) -> str:
    """Return the URL of another database on the same server, as another role."""
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0] if role is None else f"{role}:{PASSWORD}"
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{login}@{place}" if login else place, path=f"/{database}"))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a loop of its own, leaving the test's loop alone."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(work)


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url, timeout=20, command_timeout=60)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def postgres_admin_url() -> Iterator[str]:
    """URL of a superuser on the server the tests use."""
    given = os.environ.get("TELLTALE_TEST_DATABASE_URL")
    if given:
        yield given
        return
    programs = None
    if os.environ.get("TELLTALE_TEST_POSTGRES") == "debian15":
        programs = DEBIAN_15
        if not (programs / "postgres").exists():
            missing(f"no PostgreSQL 15 in {DEBIAN_15}: install Debian's package postgresql-15")
    folder = Path(tempfile.mkdtemp(prefix="telltale-postgres-"))
    try:
        with embedded.start_postgres(folder, programs=programs, settings=NO_DURABILITY) as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_template(postgres_admin_url: str) -> Iterator[str]:
    """Name of a migrated database to copy; nobody is connected to it."""
    name = f"telltale_template_{secrets.token_hex(4)}"
    run(execute(postgres_admin_url, f"CREATE DATABASE {name}"))
    run(migrate(with_database(postgres_admin_url, name)))
    run(execute(postgres_admin_url, *(f"ALTER ROLE telltale_{r} PASSWORD '{PASSWORD}'" for r in ROLES)))
    yield name
    run(execute(postgres_admin_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def empty_database_url(postgres_admin_url: str) -> Iterator[str]:
    """Superuser's URL of a new database without telltale's schema."""
    name = f"telltale_test_{secrets.token_hex(4)}"
    run(execute(postgres_admin_url, f"CREATE DATABASE {name}"))
    yield with_database(postgres_admin_url, name)
    run(execute(postgres_admin_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def database_urls(postgres_admin_url: str, postgres_template: str) -> Iterator[DatabaseUrls]:
    """A fresh, migrated database; connect as the role whose job the test is about."""
    name = f"telltale_test_{secrets.token_hex(4)}"
    run(execute(postgres_admin_url, f"CREATE DATABASE {name} TEMPLATE {postgres_template}"))
    roles = {role: with_database(postgres_admin_url, name, f"telltale_{role}") for role in ROLES}
    yield DatabaseUrls(admin=with_database(postgres_admin_url, name), **roles)
    run(execute(postgres_admin_url, f"DROP DATABASE {name} WITH (FORCE)"))
