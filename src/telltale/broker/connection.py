"""First contact with the brokers: is the address right, which topics are there, what can they do."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Collection, Mapping
from typing import TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    TopicAlreadyExistsError,
    UnknownError,
    UnsupportedVersionError,
    for_code,
)
from aiokafka.protocol.transaction import InitProducerIdRequest

from telltale.errors import SettingsError, TelltaleError, WaitableError

T = TypeVar("T")


async def ensure_topics(bootstrap: str, topics: Mapping[str, int]) -> None:
    """Create the topics (name → partitions) that do not exist; what exists keeps its partitions.

    Copies: three, or as many as there are brokers.
    """
    async with admin_client(bootstrap) as admin:
        brokers = len((await admin.describe_cluster())["brokers"])
        wanted = [NewTopic(name, count, min(3, brokers)) for name, count in topics.items()]
        answer = await admin.create_topics(wanted)
    for name, code, message in answer.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise TelltaleError(
                f"kafka: {bootstrap} did not create topic {name}: {error.__name__} {message or ''}"
            )


async def existing_topics(bootstrap: str) -> set[str]:
    """Return the names of all topics. Raises WaitableError when no broker answers."""
    async with admin_client(bootstrap) as admin:
        return set(await admin.list_topics())


async def partitions_of(bootstrap: str, topics: Collection[str]) -> dict[str, int]:
    """Return the number of partitions of those of these topics that exist."""
    async with admin_client(bootstrap) as admin:
        there = sorted(set(topics) & set(await admin.list_topics()))
        answer = await admin.describe_topics(there) if there else []
    return {topic["topic"]: len(topic["partitions"]) for topic in answer}


async def connect(starting: Awaitable[T], bootstrap: str) -> T:
    """Await a client's first contact; say in one line what is wrong with the address."""
    try:
        return await starting
    except (KafkaConnectionError, OSError) as error:
        raise WaitableError(
            f"kafka: no broker answers at {bootstrap} ({error}): is it running, and is TELLTALE_KAFKA right?",
            5.0,
        ) from error
    except ValueError as error:
        raise SettingsError(f"kafka: {bootstrap!r} is no list of host:port ({error})") from error


async def knows_producer_ids(bootstrap: str) -> bool:
    """Ask the broker for a producer id: the embedded one offers the request and answers with an error."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap, client_id="telltale-probe")
    try:
        await connect(client.bootstrap(), bootstrap)
        answer = await client.send(client.get_random_node(), InitProducerIdRequest(None, 0))
        return for_code(answer.error_code) not in (UnknownError, UnsupportedVersionError)
    except IncompatibleBrokerVersion:
        return False
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def admin_client(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, client_id="telltale-admin")
    try:
        await connect(admin.start(), bootstrap)
        yield admin
    finally:
        await admin.close()
