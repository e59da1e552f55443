"""What became of every frame: the accounting of the batch ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

OUTCOMES: Final = ("stored", "partial", "duplicate", "conflicting", "control", "rejected")

_ACCOUNTS: Final = """
SELECT protocol, sum(sent)::bigint AS sent, sum(stored)::bigint AS stored, sum(partial)::bigint AS partial,
       sum(duplicate)::bigint AS duplicate, sum(conflicting)::bigint AS conflicting,
       sum(control)::bigint AS control, sum(rejected)::bigint AS rejected
FROM ingest_batch WHERE topic = ANY ($1) GROUP BY protocol ORDER BY protocol
"""


@dataclass(frozen=True, slots=True)
class Account:
    """Frames of one protocol: how many were taken from the topics, and what became of them."""

    protocol: str
    sent: int
    stored: int = 0
    partial: int = 0
    duplicate: int = 0
    conflicting: int = 0
    control: int = 0
    rejected: int = 0

    @property
    def adds_up(self) -> bool:
        """Tell whether every frame has exactly one outcome."""
        return self.sent == sum(int(getattr(self, outcome)) for outcome in OUTCOMES)


async def accounts(connection: Any, topics: Sequence[str]) -> list[Account]:
    """Return the account of each protocol over these topics. Connect as telltale_api or telltale_score."""
    return [Account(**row) for row in await connection.fetch(_ACCOUNTS, list(topics))]
