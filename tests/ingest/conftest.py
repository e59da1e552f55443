"""Topics, a database and the settings of a worker on both, for each test."""

from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest
from tests.servers.postgres import DatabaseUrls

from telltale.config import Settings

Topics = Callable[..., Awaitable[tuple[str, str]]]


@pytest.fixture
async def settings(kafka: str, topics: Topics, database_urls: DatabaseUrls) -> Settings:
    live, backlog = await topics(2)
    return Settings(
        kafka=kafka,
        database=database_urls.ingest,
        live_topic=live,
        backlog_topic=backlog,
        consumer_group=f"group-{live}",
        session_timeout_s=6,
    )


@pytest.fixture
async def db(database_urls: DatabaseUrls) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_urls.admin)
    yield connection
    await connection.close()
