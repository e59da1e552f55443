"""The partitions this worker holds: where each goes on, whether it is halted, what is suspected."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from telltale.intake import BadWindow
from telltale.store.offsets import Held, Place

# A predecessor that died this often without moving the offset was probably killed by a record.
ATTEMPTS_BEFORE_ISOLATION: Final = 3
TRIES_ALONE: Final = 3


@dataclass(slots=True)
class Partition:
    """What this worker knows of one partition it holds."""

    place: Place
    epoch: int
    next_offset: int
    allow_until_offset: int
    window: BadWindow
    halt_reason: str | None = None
    cautious_records: int = 0  # most records to try at once while one is suspected; 0 = no suspicion
    suspect_offset: int | None = None
    suspect_tries: int = 0
    last_timestamp_ms: int = 0  # of the newest record stored

    @property
    def isolating(self) -> bool:
        """Tell whether a record is suspected of killing workers."""
        return self.cautious_records > 0

    def went_well(self, batch_records: int) -> None:
        """Try twice as many records next time; a whole batch that went well ends the suspicion.

        Every death starts again at one record, nearer to the one that kills: some log2(batch) deaths in all.
        """
        if self.isolating:
            doubled = 2 * self.cautious_records
            self.cautious_records = doubled if doubled <= batch_records else 0

    def is_killer(self, offset: int) -> bool:
        """Tell whether this record was tried alone and its worker died each time."""
        return self.suspect_offset == offset and self.suspect_tries >= TRIES_ALONE


def partition_of(held: Held, window: BadWindow) -> Partition:
    """Return the working memory of a partition just taken over."""
    isolate = held.attempts >= ATTEMPTS_BEFORE_ISOLATION
    return Partition(
        held.place,
        held.epoch,
        held.next_offset,
        held.allow_until_offset,
        window,
        held.halt_reason,
        1 if isolate else 0,
        held.suspect_offset,
        held.suspect_tries,
    )


def runnable(partitions: Iterable[Partition], topic: str) -> list[Partition]:
    """Return the partitions of a topic that are not halted."""
    return [p for p in partitions if p.place.topic == topic and p.halt_reason is None]
