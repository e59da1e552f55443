"""The partitions this worker holds: where each goes on, whether it is halted, what is suspected."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from telltale.intake import BadWindow
from telltale.store.offsets import Held, Place

# A predecessor that died this often without moving the offset was probably killed by a record.
ATTEMPTS_BEFORE_ISOLATION: Final = 3
TRIES_ALONE: Final = 2


@dataclass(slots=True)
class Partition:
    """What this worker knows of one partition it holds."""

    place: Place
    epoch: int
    next_offset: int
    allow_until_offset: int
    window: BadWindow
    halt_reason: str | None = None
    isolate_until_offset: int = 0  # records below this offset are tried one by one
    suspect_offset: int | None = None
    suspect_tries: int = 0
    last_timestamp_ms: int = 0  # of the newest record stored

    @property
    def isolating(self) -> bool:
        """Tell whether records are being tried one at a time."""
        return self.next_offset < self.isolate_until_offset

    def is_killer(self, offset: int) -> bool:
        """Tell whether this record was tried alone and its worker died each time."""
        return self.suspect_offset == offset and self.suspect_tries >= TRIES_ALONE


def partition_of(held: Held, window: BadWindow, batch_records: int) -> Partition:
    """Return the working memory of a partition just taken over."""
    isolate = held.attempts >= ATTEMPTS_BEFORE_ISOLATION
    return Partition(
        held.place,
        held.epoch,
        held.next_offset,
        held.allow_until_offset,
        window,
        held.halt_reason,
        held.next_offset + batch_records if isolate else 0,
        held.suspect_offset,
        held.suspect_tries,
    )


def runnable(partitions: Iterable[Partition], topic: str) -> list[Partition]:
    """Return the partitions of a topic that are not halted."""
    return [p for p in partitions if p.place.topic == topic and p.halt_reason is None]
