"""The door to Kafka: the only place that imports aiokafka."""

from aiokafka import TopicPartition

from telltale.broker.connection import ensure_topics, existing_topics, partitions_of
from telltale.broker.consumer import Consumer, OutOfRangeError, Record, checksum_of
from telltale.broker.producer import Headers, Message, Producer

__all__ = [
    "Consumer",
    "Headers",
    "Message",
    "OutOfRangeError",
    "Producer",
    "Record",
    "TopicPartition",
    "checksum_of",
    "ensure_topics",
    "existing_topics",
    "partitions_of",
]
