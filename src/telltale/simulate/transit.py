"""From reports to Kafka messages, with what happens to frames on their way.

Lost networks: the reports of an offline hour are kept in the vehicle and follow as 0x03 when it ends, on the
backlog topic. Retries send a frame twice, gateways hand frames over in another order, bytes flip or go
missing. The tally says how often each was done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import compress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from telltale.decode.gbt32960.encode import encode_reports
from telltale.simulate.measure import Chunk
from telltale.simulate.spec import US, Trouble

HOUR_US = 3_600 * US
REALTIME, REISSUED = 2, 3
GATEWAY = b"simulator"


class Frame(NamedTuple):
    """One frame on its way: its vehicle, its bytes, and when the gateway took it in (µs)."""

    vin: bytes
    value: bytes
    received_at: int


Message = tuple[bytes, bytes, tuple[tuple[str, bytes], ...], None]


def messages(frames: Iterable[Frame], gateway: bytes = GATEWAY) -> Iterator[Message]:
    """Yield the frames as `telltale.broker.Producer.send_many` takes them, keyed by VIN."""
    protocol, name = ("protocol", b"gbt32960"), ("gateway", gateway)
    for vin, value, received_at in frames:
        yield vin, value, (protocol, ("received_at", b"%d" % received_at), name), None


@dataclass(slots=True)
class Outgoing:
    """Frames for the two topics, in the order in which to send them."""

    live: list[Frame] = field(default_factory=list)
    backlog: list[Frame] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.live) + len(self.backlog)


@dataclass(slots=True)
class Transit:
    """The way of one fleet's frames; keeps what offline vehicles have still to send, at most an hour's."""

    trouble: Trouble
    rng: np.random.Generator
    salt: int
    held: list[tuple[int, Frame]] = field(default_factory=list)  # (when its vehicle is back, frame)
    tally: Counter[str] = field(default_factory=Counter)

    def carry(self, chunk: Chunk) -> Outgoing:
        """Return the frames that reach the gateway with this chunk. Raises EncodeError."""
        back_us = int(chunk.rows.columns["observed_at"][0])
        offline = self._offline(chunk)
        live = list(compress(encode(chunk, REALTIME), (~offline).tolist()))
        if offline.any():
            self._hold(chunk.take(np.nonzero(offline)[0]))
        self.tally["reports"] += len(chunk)
        return Outgoing(self._upset(live), self._release(back_us))

    def drain(self) -> Outgoing:
        """Return what offline vehicles still hold: they are all back."""
        return Outgoing([], self._release(np.iinfo(np.int64).max))

    def _offline(self, chunk: Chunk) -> NDArray[np.bool_]:
        hours = chunk.rows.columns["observed_at"] // HOUR_US
        return _chance(self.salt, chunk.vehicle, hours) < self.trouble.offline

    def _hold(self, chunk: Chunk) -> None:
        self.tally["reissued"] += len(chunk)
        back = (chunk.rows.columns["observed_at"] // HOUR_US + 1) * HOUR_US
        for at, frame in zip(back.tolist(), encode(chunk, REISSUED), strict=True):
            self.held.append((at, frame._replace(received_at=at)))

    def _release(self, now_us: int) -> list[Frame]:
        released = [frame for at, frame in self.held if at <= now_us]
        self.held = [entry for entry in self.held if entry[0] > now_us]
        return released

    def _upset(self, frames: list[Frame]) -> list[Frame]:
        if not self.trouble.any_in_transit:
            return frames
        count = len(frames)
        draws = self.rng.random((3, count))
        for at in np.nonzero(draws[0] < self.trouble.broken)[0].tolist():
            frames[at] = self._break(frames[at])
        again = np.nonzero(draws[1] < self.trouble.duplicated)[0]
        late = np.nonzero(draws[2] < self.trouble.late)[0]
        self.tally.update(
            broken=int((draws[0] < self.trouble.broken).sum()), duplicated=len(again), late=len(late)
        )
        place = np.concatenate([np.arange(count), again + 0.5])
        place[late] += self.rng.integers(20, 500, len(late))
        which = np.concatenate([np.arange(count), again]).astype(np.int64)
        return [frames[at] for at in which[np.argsort(place, kind="stable")].tolist()]

    def _break(self, frame: Frame) -> Frame:
        """Return the frame with one bit flipped, or cut off: its checksum or its length no longer fits."""
        at = int(self.rng.integers(24, len(frame.value)))
        if self.rng.random() < 0.5:
            return frame._replace(value=frame.value[:at])
        flipped = bytearray(frame.value)
        flipped[at] ^= 1 << int(self.rng.integers(0, 8))
        return frame._replace(value=bytes(flipped))


def start_transit(trouble: Trouble, seed: int) -> Transit:
    """Return the way for a fleet with this seed, with nothing held back yet."""
    return Transit(trouble, np.random.default_rng([seed, 8]), seed)


def encode(chunk: Chunk, command: int) -> list[Frame]:
    """Return one frame per report of the chunk, in order. Raises EncodeError."""
    if not len(chunk):
        return []
    values = encode_reports(chunk.rows, chunk.vin, edition=chunk.edition, command=command)
    received = chunk.rows.columns["received_at"].tolist()
    return list(map(Frame, chunk.vin.tolist(), values, received))


def _chance(salt: int, vehicle: NDArray[np.int64], hour: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a number in 0..1 that depends on nothing but the arguments (splitmix64)."""
    with np.errstate(over="ignore"):
        mixed = vehicle.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + hour.astype(np.uint64)
        mixed += np.uint64(salt & 0xFFFF_FFFF) * np.uint64(0xD1342543DE82EF95)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed / 2.0**64
